"""A cell's id: given once, kept in the twin, and the same whatever becomes of the cell's text.

Gradebooks and learners' copies know a cell by it: it is the notebook's cell id, and of a cell that nbgrader is told
of its grade_id. In the twin it ends the cell's first line::

    # %% check="gpt2.layer_norm" id="check-gpt2-layer_norm"
    # %% [markdown] id="a3cdce9a"
"""

import re
from collections.abc import Sequence

from nbformat import NotebookNode

from grader.authoring.sync import matched_ids, read_if_there
from grader.digest import digest
from grader.errors import RecordingError
from grader.lessons.cells import cell_from
from grader.lessons.lesson import Lesson
from grader.lessons.twin import read_twin, write_twin

WELL_FORMED = re.compile(r"[A-Za-z0-9_-]{1,64}")  # as the notebook format wants it


def give_ids(lesson: Lesson) -> int:
    """Write an id into the twin for every cell that has none; returns how many.

    The cells of a twin without any id get those that they have in the notebook. Raises RecordingError where an id
    stands twice, or is none that a notebook can hold.
    """
    cells = read_twin(lesson.twin).cells
    _validate(cells, lesson)
    nameless = [cell for cell in cells if not cell.id]
    if not nameless:
        return 0
    if len(nameless) == len(cells) and (notebook := read_if_there(lesson.notebook)) is not None:
        matched_ids(cells, notebook.cells)
    taken = {cell.id for cell in cells}
    for cell in nameless:
        if not cell.id:
            cell.id = _unused(_first_id(cell), taken)
            taken.add(cell.id)
    write_twin(lesson.twin, cells)
    return len(nameless)


def _first_id(cell: NotebookNode) -> str:
    """What a cell is called for good: by the part it plays, or else by a hash of what it says when it is new."""
    role = cell_from(cell.cell_type, cell.source, cell.metadata)
    if role.kind in ("markdown", "other"):
        return digest(cell.source)[:8]
    kind = "" if role.kind == "exercise" else f"{role.kind}-"
    return re.sub(r"[^A-Za-z0-9_-]+", "-", f"{kind}{role.name}").strip("-")[:60]


def _unused(name: str, taken: set[str]) -> str:
    """`name`, numbered where it is taken."""
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}-{number}"
    return found


def _validate(cells: Sequence[NotebookNode], lesson: Lesson) -> None:
    seen: set[str] = set()
    for cell in cells:
        if cell.id and not WELL_FORMED.fullmatch(cell.id):
            raise RecordingError(
                f'{lesson.twin} has id="{cell.id}", which no notebook can hold: at most 64 letters, digits, - and _.'
                " Remove it, and `grader build` gives the cell another."
            )
        if cell.id and cell.id in seen:
            raise RecordingError(
                f'{lesson.twin} has two cells with id="{cell.id}". Remove it from the one that is new, and'
                " `grader build` gives that one its own."
            )
        seen.add(cell.id)
