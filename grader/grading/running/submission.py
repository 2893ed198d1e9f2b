"""Take from a submitted notebook what the student wrote, and nothing else.

The file may be anything. Cells are told by nbgrader's grade_id; of two with the same, the last is taken, as
nbgrader does. Locked cells, checks, outputs and metadata of the submission are never used.
"""

import json
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from grader.digest import digest
from grader.grading.running.plan import Plan

MAX_BYTES = 8 << 20
MAX_VALUES = 500_000  # of JSON, told by its brackets and commas before it is read: each takes memory
MAX_SOURCE = 50_000
MAX_CELLS = 5_000
MAX_FREE = 200_000  # parsing a megabyte takes many seconds
MAX_NOTES = 20
MAX_RENAMED = 4  # notebooks that are read where the one with the right name is missing


class Unreadable(Exception):
    """A submission that can't be graded at all: what is wrong, in a sentence for the student."""


@dataclass(frozen=True)
class StudentCell:
    """A code cell of a submission. grade_id: of a solution cell; empty for one that the student added or may edit."""

    source: str
    grade_id: str = ""


@dataclass(frozen=True)
class Submission:
    """What a student wrote. cells: code cells, in the notebook's order. answers: sources of solution cells that are
    read by a person. notes: what the student should know. problem: why there is nothing to grade. digest: of the file.
    """

    digest: str
    cells: tuple[StudentCell, ...] = ()
    answers: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    problem: str = ""

    def source_of(self, grade_id: str) -> str | None:
        """The source of a solution cell, or None where it is missing."""
        return next((cell.source for cell in self.cells if cell.grade_id == grade_id), None)


@dataclass(frozen=True)
class ProgramCell:
    """A cell that runs: the instructor's, or the solution of an exercise.

    free: the student's own cells between the solution before and this one, with their positions; which of them run
    is found out in the child, where they are parsed.
    """

    exercise: str
    title: str
    source: str
    free: tuple[tuple[int, str], ...] = ()


def read_submission(path: Path, plan: Plan) -> Submission:
    """What a submitted notebook holds; for one that can't be read, a submission that says why."""
    content = b""
    try:
        if found := _renamed(path, plan):
            return found
        content = _read_file(path)
        return parse(content, plan)
    except OSError as error:  # a folder that can't be entered, or vanished meanwhile
        problem = f"{path.name} can't be read: {os.strerror(error.errno or 0)}."
        return Submission(digest(problem.encode()), problem=problem)
    except Unreadable as error:
        return Submission(digest(content or str(error).encode()), problem=str(error))


def _renamed(path: Path, plan: Plan) -> Submission | None:
    """The submission in a notebook of another name, where the lesson's own is missing: the one with most of its cells.

    Of several with as many, the one that was changed last.
    """
    _refuse_linked(path)
    if os.path.lexists(path) or not path.parent.is_dir():
        return None
    found = []
    for other in sorted(path.parent.glob("*.ipynb"))[:MAX_RENAMED]:
        try:
            submission = parse(_read_file(other), plan)
            found.append(
                (sum(bool(cell.grade_id) for cell in submission.cells), other.stat().st_mtime, other, submission)
            )
        except (OSError, Unreadable):
            continue
    if not found or not any(count for count, *_ in found):
        return None
    _, _, other, submission = max(found, key=lambda one: one[:2])
    note = f"The notebook was handed in as {_shown(other.name)} and found by its cells. Its name is to be {path.name}."
    if len(found) > 1:
        note += f" There were {len(found)}; this one has most of the lesson's cells, or is the last that was changed."
    about = digest(f"{other.name!r} {submission.digest}")  # the note is part of what is graded
    return replace(submission, digest=about, notes=(note, *submission.notes))


def is_linked(path: Path) -> bool:
    """Whether a submission's file lies in a folder of somebody else's: its own, or its student's, is a link."""
    return path.parent.is_symlink() or path.parent.parent.is_symlink()


def _refuse_linked(path: Path) -> None:
    if is_linked(path):
        raise Unreadable("The submission is a link to another folder.")


def _read_file(path: Path) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        others = sorted(p.name for p in path.parent.glob("*.ipynb"))[:3] if path.parent.is_dir() else []
        found = f"; it holds {', '.join(_shown(name) for name in others)}" if others else ""
        raise Unreadable(f"The submission has no {path.name}{found}. The notebook must keep its name.") from None
    except OSError as error:
        raise Unreadable(f"{path.name} can't be opened: {os.strerror(error.errno or 0)}. A link is not read.") from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable(f"{path.name} is no ordinary file.")
        if status.st_size > MAX_BYTES:
            raise Unreadable(
                f"{path.name} has {status.st_size / 1e6:,.0f} MB, and at most {MAX_BYTES / 1e6:,.0f} are read."
                " Clear the outputs, and submit it again."
            )
        with os.fdopen(os.dup(fd), "rb") as file:
            return file.read(MAX_BYTES)
    except OSError as error:
        raise Unreadable(f"{path.name} can't be read: {os.strerror(error.errno or 0)}.") from None
    finally:
        os.close(fd)


def _shown(name: str) -> str:
    return repr(name[:60])


def parse(content: bytes, plan: Plan) -> Submission:
    """What the content of a submitted file holds. Raises Unreadable where that is no notebook of this lesson's kind."""
    notebook = _notebook(content)
    notes = _kernel_notes(notebook)
    exercises = {step.grade_id: step.exercise for step in plan.steps if step.exercise}
    not_free = {step.grade_id for step in plan.steps} | {check.grade_id for check in plan.checks}
    cells: list[StudentCell] = []
    answers: dict[str, str] = {}
    seen: dict[str, int] = {}
    for number, entry in enumerate(notebook["cells"], start=1):
        source, grade_id, is_code = _cell(entry, number, notes)
        if source is None:
            continue
        if grade_id in exercises:
            if grade_id in seen:
                cells[seen[grade_id]] = StudentCell("")  # the last one counts
                notes.append(f"There is more than one cell `{grade_id}`: the last one was taken.")
            if not is_code:
                notes.append(f"The cell `{grade_id}` is no code cell any more: it was run as one.")
            seen[grade_id] = len(cells)
            cells.append(StudentCell(source, grade_id))
        elif grade_id in plan.solutions:
            answers[grade_id] = source
        elif is_code and grade_id not in not_free:
            cells.append(StudentCell(source))
    if sum(len(cell.source) for cell in cells if not cell.grade_id) > MAX_FREE:
        notes.append(f"The cells that you added have more than {MAX_FREE:,} characters: they were left out.")
        cells = [cell for cell in cells if cell.grade_id]
    return Submission(
        digest(content), tuple(c for c in cells if c.source), tuple(answers.items()), _at_most(notes, MAX_NOTES)
    )


def _at_most(notes: list[str], count: int) -> tuple[str, ...]:
    unique = list(dict.fromkeys(notes))
    if len(unique) > count:
        unique[count - 1 :] = [f"There are {len(unique) - count + 1:,} more notes like these."]
    return tuple(unique)


def _notebook(content: bytes) -> dict[str, Any]:
    if (count := sum(map(content.count, (b"{", b"[", b",")))) > MAX_VALUES:
        raise Unreadable(
            f"The notebook has {count:,} brackets and commas, and at most {MAX_VALUES:,} are read. Clear the outputs,"
            " and submit it again."
        )
    try:
        notebook = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise Unreadable("The file is not text in UTF-8, so it is no notebook.") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise Unreadable(
            f"The file is no notebook: it is not JSON ({_what_is_wrong(error)}). It may have been cut off; submit it"
            " again."
        ) from None
    if not isinstance(notebook, dict):
        raise Unreadable("The file is JSON, but no notebook.")
    form = notebook.get("nbformat")
    if type(form) is int and form in (1, 2, 3):
        raise Unreadable(
            f"The notebook has the old format {form}, in which cells have no names. Open the released notebook in a"
            " current JupyterLab, copy your code into it, and submit that."
        )
    if type(form) is not int or form != 4:
        raise Unreadable("The file is JSON, but no notebook of format 4.")
    if not isinstance(notebook.get("cells"), list):
        raise Unreadable("The notebook has no list of cells.")
    if len(notebook["cells"]) > MAX_CELLS:
        raise Unreadable(f"The notebook has {len(notebook['cells']):,} cells; at most {MAX_CELLS:,} are read.")
    return notebook


def _what_is_wrong(error: Exception) -> str:
    """With a file that json can't read."""
    if isinstance(error, json.JSONDecodeError):
        return str(error).split(":")[0][:80]
    return "a number in it has thousands of digits" if isinstance(error, ValueError) else "it is nested too deeply"


def _kernel_notes(notebook: dict[str, Any]) -> list[str]:
    metadata = notebook.get("metadata")
    for key, name in (("kernelspec", "language"), ("language_info", "name")):
        said = metadata.get(key) if isinstance(metadata, dict) else None
        language = said.get(name) if isinstance(said, dict) else None
        if isinstance(language, str) and language.lower() not in ("python", "python3", "ipython", ""):
            return [f"The notebook says that it is written in {_shown(language)}. Its cells were run as Python."]
    return []


def _cell(entry: Any, number: int, notes: list[str]) -> tuple[str | None, str, bool]:
    """A cell's source, its grade_id and whether it is code; None for the source of one that can't be used."""
    if not isinstance(entry, dict):
        notes.append(f"Cell {number} is damaged: it was left out.")
        return None, "", False
    source = entry.get("source", "")
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str):
        notes.append(f"Cell {number} has no text: it was left out.")
        return None, "", False
    if len(source) > MAX_SOURCE:
        notes.append(f"Cell {number} has {len(source):,} characters, and at most {MAX_SOURCE:,} are read: left out.")
        return None, "", False
    source = source.encode(errors="replace").decode()  # half of a surrogate pair is no text
    metadata = entry.get("metadata")
    marked = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    grade_id = marked.get("grade_id") if isinstance(marked, dict) else None
    return source, grade_id if isinstance(grade_id, str) else "", entry.get("cell_type") == "code"


def program(submission: Submission, plan: Plan) -> tuple[ProgramCell, ...]:
    """What is run, in the lesson's order: the instructor's cells and the student's solutions.

    A free cell belongs to the first solution in this order that it comes before in the student's notebook.
    """
    cells = []
    done: set[int] = set()
    for step in plan.steps:
        if not step.exercise:
            cells.append(ProgramCell("", step.grade_id, step.source))
            continue
        at = next((i for i, cell in enumerate(submission.cells) if cell.grade_id == step.grade_id), None)
        if at is None:
            continue
        free = [i for i in range(at) if not submission.cells[i].grade_id and i not in done]
        done.update(free)
        sources = tuple((i, submission.cells[i].source) for i in free)
        cells.append(ProgramCell(step.exercise, f"cell of {step.exercise}", submission.cells[at].source, sources))
    return tuple(cells)
