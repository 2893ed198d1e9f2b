"""The cells with which a released lesson begins where it can be opened in Colab: a badge, and what installs the course.

They need the project's address (`Repository` in pyproject.toml); without one a lesson has neither.
"""

import re
from copy import deepcopy

import nbformat
from nbformat import NotebookNode

from grader.package import distribution

BADGE, SETUP = "colab-badge", "colab-setup"  # the cells' ids
COLAB = "https://colab.research.google.com"

_TEXT = """[![Open this lesson in Colab]({colab}/assets/colab-badge.svg)]({colab}/github/{repository}/blob/main/{path})

In Colab the cell below installs the course and brings the files that this lesson reads. There your work is kept only \
once you choose File > Save a copy in Drive, and `grader status` and `grader update` do not know of it. \
Everywhere else the cell does nothing."""

_CODE = """import sys

if "google.colab" in sys.modules:
    !{{sys.executable}} -m pip install --quiet "{name} @ git+{address}"
    from grader.learning.lesson_files import fetch_lesson_files

    fetch_lesson_files("{lesson}")"""


def repository() -> str:
    """The address of the project's repository, without a slash at its end; empty until it is published."""
    urls = dict(entry.split(", ", 1) for entry in distribution().metadata.get_all("Project-URL") or [])
    return str(urls.get("Repository", "")).rstrip("/")


def with_colab(notebook: NotebookNode, path: str, address: str) -> NotebookNode:
    """The released notebook with Colab's two cells before its first.

    path: of the notebook in the repository, "course/01-gpt2/gpt2.ipynb". address: of the repository, on GitHub; with
    another one, or none, the notebook comes back as it is.
    """
    found = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?", address)
    if found is None:
        return notebook
    badge = _TEXT.format(colab=COLAB, repository=found[1], path=path)
    setup = _CODE.format(name=distribution().name, address=address, lesson=path.split("/")[-2])
    first = [
        {"cell_type": "markdown", "id": BADGE, "metadata": {"editable": False}, "source": badge},
        {
            "cell_type": "code",
            "id": SETUP,
            "metadata": {"editable": False, "jupyter": {"source_hidden": True}, "tags": ["nbval-ignore-output"]},
            "source": setup,
            "outputs": [],
            "execution_count": None,
        },
    ]
    made = deepcopy(notebook)
    made.cells = [*map(nbformat.from_dict, first), *made.cells]
    return made


def without_colab(notebook: NotebookNode) -> NotebookNode:
    """The notebook without those cells, as it is on a learner's own machine."""
    made = deepcopy(notebook)
    made.cells = [cell for cell in made.cells if cell.id not in (BADGE, SETUP)]
    return made
