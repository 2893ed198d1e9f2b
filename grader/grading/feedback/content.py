"""What a feedback page says, taken from the autograded notebook and the gradebook."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from nbformat import NotebookNode

from grader.grading.nbgrader.autograded import NOTES_CELL, OWN, RESULT
from grader.grading.nbgrader.marks import CellMark, Mark
from grader.report import VERDICT_MIME

NO_RESPONSE = "No response."  # nbgrader's own comment on a cell that is as it was released
_EXERCISE_HEADING = re.compile(r"^#{1,6} +(Exercise\b.*?) *$", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


@dataclass(frozen=True)
class Section:
    """One thing that was graded or commented on: an exercise, or an answer in words.

    anchor: where the table leads. name: the exercise's, as checks call it. reason: in a line, what is not right.
    report: what the check found, as HTML. own: cells that the student added for it. answer: whether code is text.
    """

    anchor: str
    title: str
    name: str = ""
    mark: CellMark | None = None
    right: bool = True
    reason: str = ""
    report: str = ""
    code: str = ""
    own: tuple[str, ...] = ()
    comment: str = ""
    answer: bool = False


@dataclass(frozen=True)
class LessonCell:
    """A cell of the lesson's own, which the page folds away."""

    source: str
    is_code: bool


@dataclass(frozen=True)
class Content:
    """A page. parts: sections, and between them the lesson's own cells, in the notebook's order."""

    lesson: str
    student: str
    mark: Mark
    title: str = ""
    problem: str = ""
    notes: tuple[str, ...] = ()
    parts: tuple[Section | tuple[LessonCell, ...], ...] = ()

    @property
    def sections(self) -> list[Section]:
        """What was graded or commented on."""
        return [part for part in self.parts if isinstance(part, Section)]


@dataclass
class _Exercise:
    """What has been read of an exercise before its check ends it."""

    code: str = ""
    own: list[str] = field(default_factory=list)
    grade_id: str = ""


def content_of(notebook: NotebookNode, lesson: str, student: str, mark: Mark) -> Content:
    """What the page on an autograded notebook says."""
    result = notebook.metadata.get(RESULT, {})
    return Content(
        lesson,
        student,
        mark,
        next((found[1] for cell in notebook.cells if (found := _HEADING.search(_text(cell)))), lesson),
        str(result.get("problem", "")),
        tuple(map(str, result.get("notes", ()))),
        tuple(_parts(notebook, mark)),
    )


def _text(cell: NotebookNode) -> str:
    """The lesson's own text in a cell: what a student wrote is no heading, whatever it looks like."""
    own = cell.get("id") != NOTES_CELL and not cell.metadata.get("nbgrader", {}).get("solution")
    return str(cell.source) if own and cell.cell_type == "markdown" else ""


def _parts(notebook: NotebookNode, mark: Mark) -> Iterator[Section | tuple[LessonCell, ...]]:
    """The notebook's cells as sections; what is the lesson's own stands before the section that it leads to."""
    given: list[LessonCell] = []
    exercise, heading = _Exercise(), ""
    for cell in notebook.cells:
        marked = cell.metadata.get("nbgrader", {})
        if cell.get("id") == NOTES_CELL:
            continue
        if found := _EXERCISE_HEADING.findall(_text(cell)):
            heading = found[-1]
        section = None
        if OWN in cell.metadata:
            exercise.own.append(cell.source)
        elif cell.metadata.get("exercise") and marked.get("solution"):
            exercise.code, exercise.grade_id = cell.source, marked["grade_id"]
        elif cell.metadata.get("check") and marked.get("grade"):
            section = _exercise(cell, exercise, heading, mark)
            exercise, heading = _Exercise(), ""
        elif marked.get("grade") or marked.get("solution"):
            section = _answer(cell, heading, mark)
        else:
            given.append(LessonCell(cell.source, cell.cell_type == "code"))
        if section is not None:
            if given:
                yield tuple(given)
            given = []
            yield section
    if given:
        yield tuple(given)


def _exercise(check: NotebookNode, exercise: _Exercise, heading: str, mark: Mark) -> Section:
    grade_id = check.metadata["nbgrader"]["grade_id"]
    shown = [output.data for output in check.get("outputs", ()) if VERDICT_MIME in output.get("data", {})]
    verdict: dict[str, Any] = dict(shown[0][VERDICT_MIME]) if shown else {}
    earned = mark.cells.get(grade_id)
    complete = earned is None or earned.automatic >= earned.max_points
    return Section(
        grade_id,
        heading or check.metadata["check"],
        check.metadata["check"],
        earned,
        bool(verdict.get("passed", True)) and complete,
        "" if complete and verdict.get("passed", True) else str(verdict.get("found") or verdict.get("summary", "")),
        str(shown[0].get("text/html", "")) if shown else "",
        exercise.code,
        tuple(exercise.own),
        "\n\n".join(_comments(mark, exercise.grade_id, grade_id)),
    )


def _comments(mark: Mark, *grade_ids: str) -> Iterator[str]:
    """What a person wrote; the report says better than nbgrader when a cell is as it was released."""
    return (text for name in grade_ids if (text := mark.comments.get(name, "")) not in ("", NO_RESPONSE))


def _answer(cell: NotebookNode, heading: str, mark: Mark) -> Section:
    """An answer that a person reads, or a graded cell that is no check."""
    grade_id = cell.metadata["nbgrader"]["grade_id"]
    return Section(
        grade_id,
        heading or grade_id,
        mark=mark.cells.get(grade_id),
        code=cell.source,
        comment=mark.comments.get(grade_id, ""),
        answer=cell.cell_type == "markdown",
    )
