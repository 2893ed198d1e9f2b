"""The notebook that a lesson's twin stands for, with what nbgrader and Jupyter need to know."""

import json
from collections.abc import Sequence
from typing import Any

import nbformat
from nbformat import NotebookNode

from grader.digest import digest
from grader.lessons.cells import cell_from
from grader.lessons.exercise import Exercise
from grader.lessons.lesson import Lesson, read_filled

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python", "pygments_lexer": "ipython3"}
# The metadata of a cell that its author writes; the rest is nbgrader's, Jupyter's or jupytext's. `long` says why a cell
# has more than 15 lines.
AUTHORS = ("exercise", "check", "given", "prediction", "tags", "jupyter", "long")


def assemble(lesson: Lesson, exercises: Sequence[Exercise]) -> NotebookNode:
    """The lesson's notebook as its twin has it, given cells filled, without outputs, with what programs need.

    Every cell of the twin has its id by now (`ids.give_ids`), and what nbgrader calls a cell is the cell's id.
    """
    points = {exercise.name: exercise.points for exercise in exercises}
    notebook = nbformat.v4.new_notebook(cells=[authors_cell(cell) for cell in read_filled(lesson.twin).cells])
    for cell in notebook.cells:
        role = cell_from(cell.cell_type, cell.source, cell.metadata)
        if role.kind == "exercise":
            cell.metadata["nbgrader"] = _nbgrader(cell.id, solution=True)
        elif role.kind == "check":
            cell.metadata["nbgrader"] = _nbgrader(cell.id, grade=True, points=points[role.name])
        elif role.kind in ("setup", "given"):
            cell.metadata["nbgrader"] = _nbgrader(cell.id)
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": LANGUAGE})
    return notebook


def sources_hash(cells: Sequence[NotebookNode]) -> str:
    """A hash of a notebook's cells as the author writes them: type, source, and the author's metadata."""
    return digest(json.dumps(authored(cells), sort_keys=True))[:32]


def authored(cells: Sequence[NotebookNode]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(cell.cell_type, cell.source, _authors(cell.metadata)) for cell in cells]


def _authors(metadata: dict[str, Any]) -> dict[str, Any]:
    return {key: metadata[key] for key in AUTHORS if metadata.get(key)}


def authors_cell(cell: NotebookNode) -> NotebookNode:
    """The cell without what programs wrote into it."""
    return nbformat.from_dict({**cell, "metadata": _authors(cell.metadata)})


def without_outputs(notebook: NotebookNode) -> list[dict[str, Any]]:
    return [{k: v for k, v in cell.items() if k not in ("outputs", "execution_count")} for cell in notebook.cells]


def _nbgrader(grade_id: str, *, grade: bool = False, solution: bool = False, points: int = 0) -> dict[str, Any]:
    """A cell's metadata for nbgrader; every cell but a solution is locked."""
    metadata = {
        "grade": grade,
        "grade_id": grade_id,
        "locked": not solution,
        "schema_version": 3,
        "solution": solution,
        "task": False,
    }
    return metadata | ({"points": points} if grade else {})
