"""Notebooks as files."""

import json
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from grader.digest import digest
from grader.errors import GraderError


def read_notebook(path: Path) -> NotebookNode:
    """The notebook at `path`. Raises GraderError where there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise GraderError(f"{path} does not exist. Is the path right?") from None
    except IsADirectoryError:
        raise GraderError(f"{path} is a folder; name the notebook in it.") from None
    except OSError as error:
        raise GraderError(f"{path} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise GraderError(f"{path} is not a notebook: it is not text.") from None
    try:
        notebook = nbformat.reads(text, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # nbformat raises many kinds, some not its own
        if has_conflict_markers(text):
            raise GraderError(
                f"{path} has git's conflict markers in it, so Jupyter can't open it. In a folder that `grader start` "
                "made, `grader update` mends it and keeps both sides."
            ) from None
        first_line = str(error).strip().partition("\n")[0]
        raise GraderError(f"{path} is not a notebook that Jupyter can read: {first_line}") from None
    return notebook


def has_conflict_markers(text: str) -> bool:
    """Whether git has written the two sides of a conflict into a file of that text."""
    return all(re.search(rf"^{marker}(?: |$)", text, re.MULTILINE) for marker in ("<{7}", "={7}", ">{7}"))


def released_hash(notebook: NotebookNode) -> str:
    """A hash of what a learner can work on in a notebook: its cells' types and sources."""
    return digest(json.dumps([(cell.cell_type, cell.source) for cell in notebook.cells]))[:32]


def is_as_released(path: Path) -> bool:
    """Whether nobody changed a released notebook's cells; running them changes nothing."""
    try:
        notebook = read_notebook(path)
    except GraderError:
        return False
    return bool(notebook.metadata.get("grader", {}).get("released") == released_hash(notebook))
