"""A notebook's file that Jupyter can't open any more: git's conflict markers in it, or broken JSON, and the way out."""

import json
import re
from copy import deepcopy
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from grader.errors import GraderError
from grader.learning.merge import merge, unknown_base
from grader.lessons.notebooks import has_conflict_markers, read_notebook


def is_damaged(path: Path) -> bool:
    """Whether the file is there and can't be read as a notebook."""
    if not path.is_file():
        return False
    try:
        read_notebook(path)
    except GraderError:
        return True
    return False


def rescued(path: Path, base: NotebookNode | None) -> tuple[NotebookNode | None, str]:
    """What can be saved of a damaged notebook, and a sentence that says how; None where nothing can.

    base: the release that it was made from. Of a conflict both sides are taken; of broken JSON, the cells that can
    still be read, and the others from JupyterLab's last checkpoint or else from `base`. The file is not changed.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    if has_conflict_markers(text):
        ours, theirs = (_readable(side) for side in sides(text))
        if ours is not None and theirs is not None:
            both = merge(base if base is not None else unknown_base(ours, theirs), ours, theirs).notebook
            return both, "git had written conflict markers into it; both sides' cells are in it now"
        if ours is not None or theirs is not None:
            return ours or theirs, "git had written conflict markers into it; one side could be read, and is in it now"
    checkpoint = path.parent / ".ipynb_checkpoints" / f"{path.stem}-checkpoint.ipynb"
    whole, source = base, "as released"
    if checkpoint.is_file() and not is_damaged(checkpoint):
        whole, source = read_notebook(checkpoint), "from JupyterLab's last checkpoint"
    cells = _whole_cells(text)
    if whole is None:
        return None, "it could not be read, and there is no checkpoint; the lesson as released is in its place"
    if not cells:
        where = (
            "there is no checkpoint; the lesson as released" if whole is base else "JupyterLab's last checkpoint of it"
        )
        return whole, f"it could not be read; {where} is in its place"
    saved, common, ids = deepcopy(whole), deepcopy(whole), {cell.get("id") for cell in cells}
    saved.cells = cells
    common.cells = [
        cell for cell in whole.cells if cell.id in ids
    ]  # so what could not be read does not count as deleted
    both = merge(common, saved, whole).notebook
    could = (
        f"{len(cells)} of its cells could be read and are"
        if len(cells) > 1
        else "one of its cells could be read and is"
    )
    return both, f"the file is broken; {could} in it, the others are {source}"


def sides(text: str) -> tuple[str, str]:
    """The two texts that a text with conflict markers was made from."""
    ours: list[str] = []
    theirs: list[str] = []
    into: tuple[list[str], ...] = (ours, theirs)
    for line in text.splitlines(keepends=True):
        marker = re.match(r"(<{7}|={7}|>{7}|\|{7})(?: |$)", line.rstrip("\n"))
        if marker is None:
            for side in into:
                side.append(line)
        else:
            into = {"<": (ours,), "|": (), "=": (theirs,), ">": (ours, theirs)}[marker[1][0]]
    return "".join(ours), "".join(theirs)


def _readable(text: str) -> NotebookNode | None:
    try:
        notebook = nbformat.reads(text, as_version=4)
        nbformat.validate(notebook)
    except Exception:  # nbformat raises many kinds, some not its own
        return None
    return notebook


def _whole_cells(text: str) -> list[NotebookNode]:
    """The cells that are whole in the text of a notebook which is not: cut off, or with a wrong character somewhere."""
    decoder, cells, place = json.JSONDecoder(), [], text.find("{", text.find('"cells"'))
    while place >= 0:
        try:
            found, end = decoder.raw_decode(text, place)
        except ValueError:
            found, end = {}, place + 1
        alone = {"cells": [found], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        notebook = _readable(json.dumps(alone)) if "cell_type" in found else None
        if notebook is not None:
            cells += notebook.cells
        place = text.find("{", end)
    return cells
