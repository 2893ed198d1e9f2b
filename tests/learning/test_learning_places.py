"""Where a course is opened elsewhere: Colab, a container, Binder, GitHub Classroom. What can't be run is read."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from learners_course import lesson_cells, write_lesson, write_release

from grader.authoring import colab
from grader.authoring.colab import with_colab
from grader.cli.porters import trace
from grader.errors import GraderError
from grader.learning.lesson_files import fetch_lesson_files
from grader.learning.release import Release
from grader.lessons.notebooks import read_notebook

ADDRESS = "https://github.com/somebody/a-course"
PATH = "course/00-toy/toy.ipynb"


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return write_release(tmp_path / "clone")


def test_with_an_address_a_lesson_begins_with_a_badge_and_a_cell_for_colab(release: Release) -> None:
    released = read_notebook(release.folder / "00-toy/toy.ipynb")
    made = with_colab(released, PATH, ADDRESS)
    nbformat.validate(made)
    badge, setup = made.cells[:2]
    assert f"https://colab.research.google.com/github/somebody/a-course/blob/main/{PATH}" in badge.source
    assert f"@ git+{ADDRESS}" in setup.source and 'fetch_lesson_files("00-toy")' in setup.source
    assert made.cells[2:] == released.cells


@pytest.mark.parametrize("address", ["", "https://gitlab.com/somebody/a-course"])
def test_without_an_address_on_github_a_lesson_stays_as_it_is(release: Release, address: str) -> None:
    released = read_notebook(release.folder / "00-toy/toy.ipynb")
    assert with_colab(released, PATH, address) is released


def test_colabs_cell_does_nothing_elsewhere(release: Release, tmp_path: Path) -> None:
    made = with_colab(read_notebook(release.folder / "00-toy/toy.ipynb"), PATH, ADDRESS)
    code = made.cells[1].source
    assert re.match(r"import sys\n\nif \"google\.colab\" in sys\.modules:\n    !", code)  # all the rest is inside it
    assert all(line.startswith("    ") or not line for line in code.splitlines()[3:])


def test_a_learners_own_copy_has_no_cells_for_colab(release: Release) -> None:
    cells = with_colab(read_notebook(release.folder / "00-toy/toy.ipynb"), PATH, ADDRESS).cells
    write_lesson(release.folder, "00-toy/toy.ipynb", cells)
    copy = release.notebook("00-toy/toy.ipynb")
    assert copy is not None
    assert not {cell.id for cell in copy.cells} & {colab.BADGE, colab.SETUP}


def test_hints_are_read_and_not_edited(release: Release) -> None:
    cells = lesson_cells("00", "toy", {"norm": 10})
    cells[2].source += "\n\n<details><summary>Hint</summary>Divide.</details>"
    write_lesson(release.folder, "00-toy/toy.ipynb", cells)
    copy = release.notebook("00-toy/toy.ipynb")
    assert copy is not None
    locked = {cell.id for cell in copy.cells if cell.metadata.get("editable") is False}
    assert locked == {"about-norm", "links-above", "links-below"}


def test_what_stands_beside_a_notebook_is_fetched_and_nothing_is_overwritten(release: Release) -> None:
    folder = release.folder.parent / "opened alone"
    folder.mkdir()
    (folder / "reference.safetensors").write_bytes(b"mine")
    fetch_lesson_files("00-toy", folder)
    assert (folder / "configs/toy.json").read_text() == "{}"
    assert (folder / "reference.safetensors").read_bytes() == b"mine"
    assert not list(folder.glob("*.ipynb"))
    with pytest.raises(GraderError, match="There are: 00-toy, 01-next"):
        fetch_lesson_files("07-other", folder)


COMMANDS = ["Containerfile", ".devcontainer/devcontainer.json", "binder/postBuild"]


@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_container_runs_is_a_command_of_the_course(project: Path, name: str) -> None:
    text = (project / name).read_text("utf-8")
    found = re.findall(r"grader[ \",]+(\w+)", text)
    commands = [word for word in found if word != "yaml"]
    assert commands
    for command in commands:
        done = subprocess.run([sys.executable, "-m", "grader.cli", command, "--help"], capture_output=True)
        assert done.returncode == 0, command


def test_a_container_leaves_out_no_file_that_the_package_needs(project: Path) -> None:
    ignored = (project / ".containerignore").read_text().split()
    assert ignored == (project / ".dockerignore").read_text().split()
    needed = {"grader", "course", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"}
    assert not needed & set(ignored)
    assert "solutions" in ignored


def test_the_configurations_can_be_read(project: Path) -> None:
    settings = json.loads((project / ".devcontainer/devcontainer.json").read_text())
    assert (project / ".devcontainer" / settings["build"]["dockerfile"]).resolve() == project / "Containerfile"
    assert yaml.safe_load((project / "binder/environment.yml").read_text())["dependencies"]
    assert os.access(project / "binder/postBuild", os.X_OK)


@pytest.mark.slow
def test_classrooms_workflow_checks_every_notebook_and_fails_where_an_exercise_does(
    project: Path, tmp_path: Path
) -> None:
    workflow = yaml.safe_load((project / "packages/classroom/.github/workflows/check.yml").read_text())
    steps = workflow["jobs"]["check"]["steps"]
    script = next(step["run"] for step in steps if "grader check" in step.get("run", ""))
    shutil.copytree(project / "course/00-orientation", tmp_path / "00-orientation")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, env=os.environ | {"PATH": path})
    assert done.returncode == 1
    assert "orientation.linear" in (tmp_path / "results/00-orientation.xml").read_text()


def test_a_trace_without_transformers_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    monkeypatch.setattr("grader.porting.command.find_spec", lambda name: None)
    with pytest.raises(GraderError, match=r"transformers is not installed here\. Install it: pip install '.*\[ref"):
        trace(str(project / "course/01-gpt2/configs/gpt2.json"))
