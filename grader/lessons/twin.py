"""A notebook as text, in jupytext's percent format."""

from pathlib import Path

import nbformat
from nbformat import NotebookNode

from grader.errors import RecordingError

TWIN_FORMAT = "py:percent"


def read_twin(path: Path) -> NotebookNode:
    """The notebook that the text at `path` stands for. Raises RecordingError where there is none.

    A cell's id is the one in its first line, and empty where that has none.
    """
    return parsed_twin(twin_text(path))


def write_twin(path: Path, cells: list[NotebookNode]) -> None:
    """Write notebook cells as text, with their ids and all of their metadata, and without a header."""
    keep = {"notebook_metadata_filter": "-all", "cell_metadata_filter": "all"}
    cells = [_with_id_in_line(cell, place) for place, cell in enumerate(cells)]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"jupytext": keep})
    import jupytext  # half a second, which a command that reads no twin does not wait for

    path.write_text(jupytext.writes(notebook, fmt=TWIN_FORMAT), encoding="utf-8")


def twin_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecordingError(
            f"{path} is missing. `grader build {path.parent.name}` writes it from the notebook."
        ) from None


def parsed_twin(text: str) -> NotebookNode:
    import jupytext

    notebook: NotebookNode = jupytext.reads(text, fmt=TWIN_FORMAT)
    for cell in notebook.cells:
        cell.id = str(cell.metadata.pop("id", ""))
    return notebook


def _with_id_in_line(cell: NotebookNode, place: int) -> NotebookNode:
    """The cell with its id as the last entry of its metadata, which is where the text has it."""
    metadata = {**cell.metadata, **({"id": cell.id} if cell.id else {})}
    return nbformat.from_dict({**cell, "id": str(place), "metadata": metadata})
