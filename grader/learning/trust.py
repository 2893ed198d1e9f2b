"""Jupyter's trust in a learner's notebook, kept when the course writes the file.

Jupyter shows stored HTML, as a check's report is, only where the notebook's file is one that it saved itself: it keeps
signatures of those. A file that we write has none, so every report would lose its table and colours until it is run
again. Here the same is done as by Jupyter's server: the cells of a trusted file are marked when it is read, and what
is written is signed if every output that could do harm is in a marked cell. So nothing is trusted that was not before.

A store of signatures that can't be used keeps nobody from their notebook: then it is not trusted.
"""

import contextlib
from pathlib import Path

import nbformat
from jupyter_core.paths import jupyter_data_dir
from nbformat import NotebookNode
from nbformat.sign import NotebookNotary

from grader.lessons.notebooks import read_notebook

STORE = "nbsignatures.db"


def read_own(path: Path) -> NotebookNode:
    """A learner's notebook, its cells marked if Jupyter trusts the file. Raises GraderError where there is none."""
    notebook = read_notebook(path)
    with contextlib.suppress(Exception), contextlib.ExitStack() as closing:
        notary = _notary(closing)
        if notary is not None and notary.check_signature(notebook):
            notary.mark_cells(notebook, True)
    return notebook


def sign_own(notebook: NotebookNode, text: str) -> None:
    """Have Jupyter trust a file that holds `text`, if it may trust every output of the notebook.

    text: the notebook as it is written, which is what the signature is of. The cells' marks are taken off.
    """
    with contextlib.suppress(Exception), contextlib.ExitStack() as closing:
        notary = _notary(closing)
        if notary is not None and notary.check_cells(notebook):
            notary.sign(nbformat.reads(text, as_version=4))


def _notary(closing: contextlib.ExitStack) -> NotebookNotary | None:
    """Who signs for this person, as for `jupyter trust`; None where Jupyter never signed anything."""
    folder = jupyter_data_dir()
    if not (Path(folder) / STORE).is_file():
        return None
    notary = NotebookNotary(data_dir=folder)
    closing.callback(notary.store.close)
    return notary
