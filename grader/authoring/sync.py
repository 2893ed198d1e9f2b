"""A lesson's twin and notebook say the same; of a given cell the twin has the first line alone."""

from pathlib import Path

import nbformat
from nbformat import NotebookNode

from grader.authoring.assemble import authored, authors_cell, sources_hash
from grader.errors import RecordingError
from grader.lessons.cells import identity
from grader.lessons.lesson import Lesson, read_filled
from grader.lessons.notebooks import read_notebook
from grader.lessons.twin import read_twin, write_twin


def sync_twin(lesson: Lesson) -> Path | None:
    """Make the twin say what the notebook says, or leave it to be built from; returns the file that was taken.

    Returns None where both have the same cells. Which one was edited is known from the hash of what was
    built last; without one the newer file is taken. Raises RecordingError where both were edited.
    """
    twin = read_twin(lesson.twin) if lesson.twin.exists() else None
    notebook = read_if_there(lesson.notebook)
    if notebook is None:
        return lesson.twin
    if twin is not None:
        if authored(without_given(twin.cells)) == authored(without_given(notebook.cells)):
            return None
        built = notebook.metadata.get("grader", {}).get("sources")
        if built == sources_hash(notebook.cells):
            return lesson.twin
        if built is None and lesson.twin.stat().st_mtime >= lesson.notebook.stat().st_mtime:
            return lesson.twin
        if built is not None and built not in _hashes(lesson.twin, notebook):
            raise RecordingError(
                f"{lesson.twin.name} and {lesson.notebook.name} were both edited since {lesson.name} was last built. "
                "Move what is to be kept into one of them, delete the other, and build again."
            )
    if any(cell.get("attachments") for cell in notebook.cells):
        raise RecordingError(
            f"{lesson.notebook} has a pasted picture, which its text twin can't hold. "
            "Save it as a file in the lesson's folder and link to that."
        )
    if twin is not None:
        _keep_ids(notebook.cells, twin.cells)
    write_twin(lesson.twin, [authors_cell(cell) for cell in without_given(notebook.cells)])
    return lesson.notebook


def _hashes(twin: Path, notebook: NotebookNode) -> set[str]:
    """Of the twin, with its given cells as they are now and as they were when the notebook was built."""
    now, then = read_filled(twin), read_twin(twin)
    texts = iter(given_texts(notebook))
    for cell in then.cells:
        if "given" in cell.metadata:
            cell.source = next(texts, "")
    return {sources_hash(now.cells), sources_hash(then.cells)}


def _keep_ids(cells: list[NotebookNode], before: list[NotebookNode]) -> None:
    """Take away the ids that an editor gave to new cells: they are long, and a build gives short ones.

    An editor that knows no ids gives every cell another; a cell that was there before gets its own back.
    """
    known = {cell.id for cell in before}
    for cell in cells:
        cell.id = cell.id if cell.id in known else ""
    matched_ids(cells, before)


def matched_ids(cells: list[NotebookNode], others: list[NotebookNode]) -> None:
    """Give cells without an id the one that the same cell has among the others: of that role and name, or that text."""
    taken = {cell.id for cell in cells}
    free = [other for other in others if other.id and other.id not in taken]
    for cell in (cell for cell in cells if not cell.id):
        if (same := next((other for other in free if identity(other) == identity(cell)), None)) is not None:
            cell.id = same.id
            free.remove(same)


def empty_given(lesson: Lesson) -> int:
    """Take out of the twin what stands in given cells: they name a solution. Returns how many cells that changed."""
    cells = read_twin(lesson.twin).cells
    emptied = without_given(cells)
    changed: int = sum(cell.source != other.source for cell, other in zip(cells, emptied, strict=True))
    if changed:
        write_twin(lesson.twin, emptied)
    return changed


def without_given(cells: list[NotebookNode]) -> list[NotebookNode]:
    """The cells, those that are given without their text."""
    return [nbformat.from_dict({**cell, "source": ""}) if "given" in cell.metadata else cell for cell in cells]


def given_texts(notebook: NotebookNode) -> list[str]:
    """What stands in the given cells."""
    return [cell.source for cell in notebook.cells if "given" in cell.metadata]


def read_if_there(path: Path) -> NotebookNode | None:
    return read_notebook(path) if path.exists() else None
