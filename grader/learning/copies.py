"""A lesson's notebook as a learner gets it: between links, and with hints that a double click does not open at once."""

import re
from collections.abc import Mapping
from urllib.parse import quote

import nbformat
from nbformat import NotebookNode

from grader.authoring.colab import without_colab
from grader.learning.places import SYLLABUS

WHERE_AM_I = "Where am I.md"
HINT = "<details"
ABOVE, BELOW = "links-above", "links-below"  # the cells' ids
_TITLE = re.compile(r"^# (.+?)(?::|$)", re.MULTILINE)


def learners_copy(notebook: NotebookNode, name: str, titles: Mapping[str, str]) -> NotebookNode:
    """The notebook `name` without Colab's cells, with a cell of links before its first cell and one after its last.

    A cell with hints can be read and not edited: in JupyterLab a double click would show its source, all hints in it.
    titles: of every lesson's notebook, by its path, in the course's order. Paths are like "01-gpt2/gpt2.ipynb".
    """
    names = list(titles)
    place = names.index(name)
    pages = [_link("Where am I", WHERE_AM_I), _link("Syllabus", SYLLABUS)]
    before = [f"Before: {_link(titles[each], each)}" for each in names[max(place - 1, 0) : place]]
    after = [f"Next: {_link(titles[each], each)}" for each in names[place + 1 : place + 2]]
    made = without_colab(notebook)
    for cell in made.cells:
        if cell.cell_type == "markdown" and HINT in cell.source:
            cell.metadata["editable"] = False
    made.cells = [_cell(ABOVE, [*pages, *before]), *made.cells, _cell(BELOW, [*pages, *after])]
    return made


def title_of(notebook: NotebookNode) -> str | None:
    """The lesson's title, from its first heading, up to a colon: "01 · GPT-2"."""
    texts = (cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return next((found[1] for text in texts if (found := _TITLE.search(text))), None)


def _link(text: str, path: str) -> str:
    return f"[{text}](../{quote(path)})"


def _cell(name: str, links: list[str]) -> NotebookNode:
    cell = {"cell_type": "markdown", "id": name, "metadata": {"editable": False}, "source": " · ".join(links)}
    return nbformat.from_dict(cell)
