"""The learner's commands as they are typed."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from learners_course import edit, lesson_cells, source, write_lesson, write_release
from typer.testing import CliRunner, Result

from grader.cli import app
from grader.errors import GraderError
from grader.learning.release import Release
from grader.progress import note

SOLVED = "class norm: ..."


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return write_release(tmp_path / "clone")


@pytest.fixture
def work(release: Release, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A learner's folder in the clone, which is the folder that commands run in."""
    monkeypatch.chdir(release.folder.parent)
    said = run("start", "--copy-only")
    assert f"Your lessons are in {release.folder.parent / 'work'}" in said.output
    return release.folder.parent / "work"


def run(*arguments: str, answer: str = "") -> Result:
    result = CliRunner().invoke(app, list(arguments), input=answer)
    if isinstance(result.exception, GraderError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


class Started(Exception):
    """In place of JupyterLab."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What JupyterLab would be started as: its command, its folder and its environment."""
    seen: list[Any] = []

    def execv(program: str, command: list[str]) -> None:
        seen.extend([command, Path.cwd(), dict(os.environ)])
        raise Started

    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "environ", os.environ.copy())
    return seen


def open_lab(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["lab", *arguments])
    assert isinstance(result.exception, Started), result.output
    return result.output


def test_lessons_that_are_only_copied_have_the_page_that_they_link_to(work: Path) -> None:
    assert "Where am I" in (work / "Where am I.md").read_text("utf-8")


def test_lab_in_a_clone_makes_work_and_opens_it_at_the_syllabus(
    release: Release, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(release.folder / "00-toy")
    said = open_lab("--no-browser")
    command, folder, environment = started
    assert folder == release.folder.parent / "work" and (folder / "Where am I.md").is_file()
    assert "--LabApp.default_url=/lab/tree/README.md" in command and "--no-browser" in command
    assert "jupyter/learner" in Path(environment["JUPYTER_CONFIG_PATH"].split(os.pathsep)[0]).as_posix()
    assert "which `git pull` never touches" in said


def test_an_instructors_lab_has_the_whole_project_and_none_of_a_learners_settings(
    release: Release, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(release.folder.parent)
    open_lab("--instructor")
    command, folder, environment = started
    assert folder == release.folder.parent and not (folder / "work").exists()
    assert "--LabApp.default_url=/lab" in command
    assert "jupyter/learner" not in environment["JUPYTER_CONFIG_PATH"]


def test_lab_says_what_is_new_what_was_taken_over_and_what_is_broken(
    release: Release, work: Path, started: list[Any]
) -> None:
    write_lesson(release.folder, "01-next/next.ipynb", lesson_cells("01", "next", {"model": 10, "more": 5}))
    edit(release.folder / "00-toy/toy.ipynb", "toy-norm", SOLVED)
    (work / "01-next/next.ipynb").write_text("{ broken")
    said = open_lab()
    assert "`grader update` brings it" in said
    assert "00-toy/toy.ipynb: your work in" in said
    assert "01-next/next.ipynb can't be opened as it is" in said


def test_update_says_what_it_did_and_then_that_there_is_nothing_to_do(release: Release, work: Path) -> None:
    edit(work / "00-toy/toy.ipynb", "toy-norm", SOLVED)
    write_lesson(release.folder, "00-toy/toy.ipynb", lesson_cells("00", "toy", {"norm": 10, "mlp": 25}))
    said = run("update").output
    assert "1 cell is new, 1 of yours stays" in said and "Reload Notebook from Disk" in said
    assert source(work / "00-toy/toy.ipynb", "toy-norm") == SOLVED
    assert "are those of the newest release" in run("update").output


def test_status_and_next(work: Path) -> None:
    note(work / "00-toy", "toy.norm", "right")
    said = run("status").output
    assert "1 of 2" in said and "■■■■■□□□□□" in said
    assert "Next: Exercise 2 · mlp (toy.mlp, 20 min), in 00-toy/toy.ipynb" in said
    assert run("next").output in said


def test_reset_says_where_the_old_notebook_is(work: Path) -> None:
    edit(work / "00-toy/toy.ipynb", "toy-norm", SOLVED)
    said = run("reset", "toy.norm").output
    (kept,) = (work / "kept/00-toy").iterdir()
    assert str(kept) in said.replace("\n", "")
    assert source(kept, "toy-norm") == SOLVED


def test_a_check_reports_nothing_of_an_exercise_that_was_begun_anew(work: Path) -> None:
    path = work / "00-toy/toy.ipynb"
    notebook = nbformat.read(path, as_version=4)
    checks = {c.metadata["check"]: c for c in notebook.cells if "check" in c.metadata}
    for cell in checks.values():
        cell.outputs = [nbformat.v4.new_output("stream", text="right")]
    nbformat.write(notebook, path)
    run("reset", "toy.norm")
    after = {c.metadata["check"]: c.outputs for c in nbformat.read(path, as_version=4).cells if "check" in c.metadata}
    assert after.pop("toy.norm") == []
    assert after and all(after.values())


def test_a_learners_commands_do_not_wait_for_torch(work: Path) -> None:
    """It takes longer to import than all else that they do."""
    said = "import sys, grader.cli.home as home; home.status(); home.next_exercise(); home.update()"
    command = [sys.executable, "-c", f"{said}; assert 'torch' not in sys.modules, 'torch was imported'"]
    subprocess.run(command, cwd=work, check=True, capture_output=True, text=True)


def test_a_solution_is_shown_after_asking_once(release: Release, work: Path) -> None:
    worked = release.folder.parent / "solutions/00-toy/toy.ipynb"
    worked.parent.mkdir(parents=True)
    worked.write_bytes((release.folder / "00-toy/toy.ipynb").read_bytes())
    edit(worked, "toy-norm", SOLVED)
    declined = run("solution", "toy.norm", answer="n\n").output
    assert "You have not tried it yet. Show the solution" in declined and SOLVED not in declined
    note(work / "00-toy", "toy.norm", "wrong")
    accepted = run("solution", "toy.norm", answer="y\n").output
    assert "You have tried it once." in accepted and SOLVED in accepted
    again = run("solution", "toy.norm").output
    assert "Show the solution" not in again and SOLVED in again


@pytest.mark.parametrize("command", ["status", "next", "update"])
def test_outside_a_learners_folder_a_command_says_how_to_make_one(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GraderError, match="`grader start FOLDER` makes one"):
        run(command)
