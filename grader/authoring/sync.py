"""A lesson's twin and notebook say the same, and its given cells what the lesson they come from says."""

from pathlib import Path

from nbformat import NotebookNode

from grader.authoring.assemble import authored, authors_cell, sources_hash
from grader.errors import RecordingError
from grader.lessons.cells import cell_from, without_markers
from grader.lessons.lesson import Lesson
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
        if authored(twin) == authored(notebook):
            return None
        built = notebook.metadata.get("grader", {}).get("sources")
        if built == sources_hash(notebook):
            return lesson.twin
        if built is None and lesson.twin.stat().st_mtime >= lesson.notebook.stat().st_mtime:
            return lesson.twin
        if built is not None and built != sources_hash(twin):
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
    write_twin(lesson.twin, [authors_cell(cell) for cell in notebook.cells])
    return lesson.notebook


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
        if (same := next((other for other in free if _told_by(other) == _told_by(cell)), None)) is not None:
            cell.id = same.id
            free.remove(same)


def _told_by(cell: NotebookNode) -> tuple[str, str]:
    role = cell_from(cell.cell_type, cell.source, cell.metadata)
    return (role.kind, role.name or cell.source)


def fill_given(lesson: Lesson, root: Path) -> int:
    """Copy other lessons' solutions into the given cells; returns how many cells that changed."""
    notebook = read_twin(lesson.twin)
    changed = 0
    for cell in notebook.cells:
        role = cell_from(cell.cell_type, cell.source, cell.metadata)
        if role.kind == "given":
            source = _given_source(role.name, root)
            changed += source != cell.source
            cell.source = source
    if changed:
        write_twin(lesson.twin, notebook.cells)
    return changed


def _given_source(reference: str, root: Path) -> str:
    """The solution that a given cell names as "lesson exercise", without its markers."""
    lesson, _, exercise = reference.partition(" ")
    folder = root / "solutions" / lesson
    if not exercise or not folder.is_dir():
        there = "" if folder.is_dir() else f" There is no {folder}."
        raise RecordingError(
            f'given="{reference}" must name a lesson and its exercise, as in "01-gpt2 gpt2.mlp".{there}'
        )
    return without_markers(Lesson(folder).source_of(exercise.strip()))


def read_if_there(path: Path) -> NotebookNode | None:
    return read_notebook(path) if path.exists() else None
