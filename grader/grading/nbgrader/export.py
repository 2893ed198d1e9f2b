"""Marks for a learning platform: one wide table as Canvas's gradebook imports it, one table a lesson for Moodle.

Canvas's columns are those that its own importer asks for (instructure/canvas-lms, lib/gradebook_importer.rb): a student
is found by ID, else by SIS User ID, else by SIS Login ID, else by name; an assignment by its title.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbgrader.api import Gradebook

from grader.errors import GraderError
from grader.grading.nbgrader.gradebook_file import course_config, open_gradebook
from grader.grading.nbgrader.marks import Mark, read_mark

CANVAS = "canvas.csv"
CANVAS_STUDENT = ("Student", "ID", "SIS User ID", "SIS Login ID", "Section")
POINTS_POSSIBLE = "    Points Possible"  # the second row, told by these words
_ENDS = re.compile(r"[;|\x00-\x1f\x7f\x85\u2028\u2029]")
_FORMULA = tuple("=+-@＝＋－＠")  # the wide ones too, which some spreadsheets take for the others
MOODLE_STUDENT = ("First name", "Last name", "ID number", "Username", "Email address")


@dataclass(frozen=True)
class Exported:
    """What was written. unnamed: students without a name in the gradebook. by_hand: whose submissions a person has yet
    to mark."""

    files: tuple[Path, ...]
    unnamed: tuple[str, ...]
    by_hand: tuple[str, ...]


def export(root: Path, folder: Path, lessons: Sequence[str] = ()) -> Exported:
    """Write the marks of lessons, of all that are graded if none is named, to files in `folder`.

    Raises GraderError for a lesson that the gradebook does not know. One that has no more than a due date there is left
    out.
    """
    with open_gradebook(root, course_config(root)) as (_, gradebook):
        known = sorted(assignment.name for assignment in gradebook.assignments if assignment.notebooks)
        if missing := [name for name in lessons if name not in known]:
            raise GraderError(f"the gradebook has no graded lesson {missing[0]}. It has: {', '.join(known) or 'none'}.")
        chosen = [name for name in known if not lessons or name in lessons]
        students = sorted(gradebook.students, key=lambda s: (s.last_name or "", s.first_name or "", s.id))
        marks = {name: _marks(gradebook, name, students) for name in chosen}
        most = {name: float(gradebook.find_assignment(name).max_score) for name in chosen}
        folder.mkdir(parents=True, exist_ok=True)
        files = [_write(folder / CANVAS, _canvas(students, marks, most))]
        for name in chosen:
            files.append(_write(folder / f"moodle-{name}.csv", _moodle(name, students, marks[name])))
        waiting = {s.student_id for name in chosen for s in gradebook.find_assignment(name).submissions if _waits(s)}
        unnamed = [student.id for student in students if not (student.first_name or student.last_name)]
    return Exported(tuple(files), tuple(unnamed), tuple(sorted(waiting)))


def _waits(submission: Any) -> bool:
    """Whether a cell of it has neither an automatic score nor one given by hand."""
    return any(g.auto_score is None and g.manual_score is None for n in submission.notebooks for g in n.grades)


def _marks(gradebook: Gradebook, lesson: str, students: Iterable[Any]) -> dict[str, Mark]:
    (notebook,) = gradebook.find_assignment(lesson).notebooks
    found = {student.id: read_mark(gradebook, lesson, notebook.name, student.id) for student in students}
    return {student: mark for student, mark in found.items() if mark is not None}


def _canvas(students: Iterable[Any], marks: dict[str, dict[str, Mark]], most: dict[str, float]) -> list[list[str]]:
    """Whoever handed in nothing has an empty cell, which Canvas leaves as it is there."""
    rows = [[*CANVAS_STUDENT, *marks], [POINTS_POSSIBLE, "", "", "", "", *(f"{most[name]:.2f}" for name in marks)]]
    for student in students:
        name = ", ".join(filter(None, (student.last_name, student.first_name))) or student.id
        points = [f"{of[student.id].points:.2f}" if student.id in of else "" for of in marks.values()]
        rows.append([*_as_text((name, student.lms_user_id, "", student.id, "")), *points])
    return rows


def _moodle(lesson: str, students: Iterable[Any], marks: dict[str, Mark]) -> list[list[str]]:
    """Whoever handed in nothing is left out: an empty grade would take one away that Moodle has."""
    rows = [[*MOODLE_STUDENT, lesson]]
    for s in students:
        if s.id in marks:
            about = (s.first_name, s.last_name, s.lms_user_id, s.id, s.email)
            rows.append([*_as_text(about), f"{marks[s.id].points:.2f}"])
    return rows


def _as_text(about: Iterable[str | None]) -> list[str]:
    """What a student's columns hold. What begins like a formula gets an apostrophe, or a spreadsheet would compute it
    (https://owasp.org/www-community/attacks/CSV_Injection): people choose their names themselves. What ends a cell in
    some country's spreadsheet, a semicolon or the end of a line, is a space."""
    texts = [" ".join(_ENDS.sub(" ", text or "").split()) for text in about]
    return [f"'{text}" if text.startswith(_FORMULA) else text for text in texts]


def _write(path: Path, rows: list[list[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    path.chmod(0o600)
    return path
