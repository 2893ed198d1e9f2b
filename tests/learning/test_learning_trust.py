"""Jupyter trusts a notebook after the course has written it if it did before, and not otherwise.

What Jupyter's server does when it opens and saves a notebook is done by its own contents manager.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_server.services.contents.largefilemanager import LargeFileManager
from learners_course import edit, lesson_cells, write_lesson, write_release
from nbformat import NotebookNode
from nbformat.sign import NotebookNotary

from grader.learning.exercises import reset
from grader.learning.home import Home, folder_to_start, start_home
from grader.learning.release import Release
from grader.learning.trust import STORE
from grader.learning.update import take_over, update

NAME = "00-toy/toy.ipynb"
REPORT = nbformat.v4.new_output("display_data", {"text/html": "<b>red</b>", "text/plain": "red"})


@pytest.fixture
def jupyters_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the one where Jupyter keeps a person's signatures."""
    folder = tmp_path / "jupyter"
    folder.mkdir()
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(folder))
    return folder


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return write_release(tmp_path / "clone")


@pytest.fixture
def home(release: Release, jupyters_data: Path) -> Home:
    return start_home(folder_to_start(None, release.folder.parent), "1")


class Server:
    """Jupyter's server in a folder."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.contents = LargeFileManager(root_dir=str(folder), notary=NotebookNotary(data_dir=str(data)))

    def opened(self, name: str) -> NotebookNode:
        return self.contents.get(name)["content"]

    def trusts(self, name: str) -> bool:
        """Whether the stored outputs are shown as they are."""
        return all(cell.metadata.trusted for cell in self.opened(name).cells if cell.cell_type == "code")

    def run_and_save(self, name: str, cell: str, wrote: str = "") -> None:
        """As JupyterLab does it when a person has run that cell: what a kernel gave is trusted.

        wrote: the source of toy.mlp, where they changed that.
        """
        notebook = self.opened(name)
        exercise = next(each for each in notebook.cells if each.id == "toy-mlp")
        exercise.source = wrote or exercise.source
        ran = next(each for each in notebook.cells if each.id == cell)
        ran.outputs, ran.metadata["trusted"] = [REPORT], True
        self.contents.save({"type": "notebook", "content": notebook}, name)


@pytest.fixture
def server(home: Home, jupyters_data: Path) -> Iterator[Server]:
    server = Server(home.folder, jupyters_data)
    yield server
    server.contents.notary.store.close()


def report(path: Path, cell: str) -> list[Any]:
    return list(next(each for each in nbformat.read(path, as_version=4).cells if each.id == cell).outputs)


def released_anew(release: Release) -> None:
    cells = lesson_cells("00", "toy", {"norm": 10, "mlp": 25})
    write_lesson(release.folder, NAME, cells)


def test_a_trusted_notebook_is_trusted_after_an_update(release: Release, home: Home, server: Server) -> None:
    server.run_and_save(NAME, "check-norm")
    assert server.trusts(NAME)
    released_anew(release)
    assert update(home, release, "2")
    assert report(home.folder / NAME, "check-norm") == [REPORT]
    assert server.trusts(NAME)


@pytest.mark.parametrize("what", ["toy.mlp", "00-toy"])
def test_a_trusted_notebook_is_trusted_after_a_reset(home: Home, server: Server, what: str) -> None:
    server.run_and_save(NAME, "check-norm", wrote="class mlp: ...")
    kept = reset(home, what)
    assert bool(report(home.folder / NAME, "check-norm")) == (what == "toy.mlp")
    assert server.trusts(NAME)
    assert server.trusts(kept.relative_to(home.folder).as_posix())


def not_trusted(home: Home, server: Server) -> None:
    """Somebody else's outputs in the learner's notebook, in a file that Jupyter did not write."""
    server.run_and_save(NAME, "check-norm")
    path = home.folder / NAME
    notebook = nbformat.read(path, as_version=4)
    next(cell for cell in notebook.cells if cell.id == "check-mlp").outputs = [REPORT]
    for cell in notebook.cells:
        cell.metadata["trusted"] = True  # which a file may say, and Jupyter does not believe
    path.write_text(json.dumps(notebook), encoding="utf-8")  # nbformat would leave that out


def test_what_was_not_trusted_is_not_trusted_after_an_update_or_a_reset(
    release: Release, home: Home, server: Server
) -> None:
    not_trusted(home, server)
    assert not server.trusts(NAME)
    released_anew(release)
    assert update(home, release, "2")
    assert not server.trusts(NAME)
    reset(home, "toy.norm")
    assert report(home.folder / NAME, "check-mlp") == [REPORT]
    assert not server.trusts(NAME)


def test_outputs_taken_over_from_an_untrusted_notebook_are_not_trusted(
    release: Release, home: Home, server: Server
) -> None:
    server.run_and_save(NAME, "check-norm")
    worked_in = release.folder / NAME
    git = ["git", "-C", str(release.folder), "-c", "user.name=x", "-c", "user.email=x"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *command], check=True)
    edit(worked_in, "toy-norm", "class norm: ...")
    notebook = nbformat.read(worked_in, as_version=4)
    next(cell for cell in notebook.cells if cell.id == "check-norm").outputs = [REPORT, REPORT]
    worked_in.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    assert take_over(home, release)
    assert report(home.folder / NAME, "check-norm") == [REPORT, REPORT]
    assert not server.trusts(NAME)


def test_a_store_of_signatures_that_is_broken_keeps_nobody_from_their_notebook(
    release: Release, home: Home, jupyters_data: Path
) -> None:
    (jupyters_data / STORE).write_text("not a database")
    (jupyters_data / "notebook_secret").mkdir()
    released_anew(release)
    assert update(home, release, "2")


def test_where_jupyter_never_signed_anything_nothing_is_written_there(
    release: Release, home: Home, jupyters_data: Path
) -> None:
    released_anew(release)
    assert update(home, release, "2")
    reset(home, "toy.norm")
    assert not list(jupyters_data.iterdir())
