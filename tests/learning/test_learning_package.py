"""What pip users get: two packages, built from this clone and tried where there is nothing else of it."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import nbformat
import pytest

from grader.learning.release import Release

pytestmark = pytest.mark.slow

MOST_MB = 60
FIRST = "orientation.linear"
NOTEBOOK = "00-orientation/orientation.ipynb"


@pytest.fixture(scope="module")
def wheels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The engine with its lessons, and the solutions."""
    clone, folder = request.config.rootpath, tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    for source in (clone, clone / "packages" / "solutions"):
        subprocess.run([*pip, "--wheel-dir", str(folder), str(source)], check=True, cwd=folder)
    return sorted(folder.glob("*.whl"))


class Installed:
    """An environment that has the course's packages, and of everything else what is installed for these tests."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False)
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")
        self.python = self.bin / "python"
        (packages,) = folder.glob("lib/python*/site-packages") if os.name != "nt" else [folder / "Lib/site-packages"]
        (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")  # torch is large, and the same
        self.path = packages

    def install(self, wheel: Path) -> None:
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--no-index", "--ignore-installed", str(wheel)], check=True, cwd=self.path)

    def grader(self, cwd: Path, *arguments: str, status: Sequence[int] = (0,)) -> str:
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        done = subprocess.run(
            [str(self.python), "-m", "grader.cli", *arguments],
            cwd=cwd,
            capture_output=True,
            text=True,
            env=environment | {"PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}"},
        )
        assert done.returncode in status, done.stdout + done.stderr
        return done.stdout + done.stderr


def test_a_package_is_small_and_holds_every_released_file_and_no_solution(project: Path, wheels: list[Path]) -> None:
    engine, _ = wheels
    assert engine.stat().st_size < MOST_MB * 1e6
    archive = zipfile.ZipFile(engine)
    names = archive.namelist()
    for name in Release(project / "course").files():
        assert f"grader/learning/course/{name}" in names
    notebooks = [name for name in names if name.endswith(".ipynb")]
    assert len(notebooks) == len(Release(project / "course").notebooks())
    assert not [name for name in notebooks if "BEGIN SOLUTION" in archive.read(name).decode()]
    assert not [name for name in names if Path(name).name in ("others.py", "mistakes.toml", "benchmark.py")]


def test_the_package_of_solutions_has_the_worked_notebooks_alone(project: Path, wheels: list[Path]) -> None:
    _, solutions = wheels
    names = {name for name in zipfile.ZipFile(solutions).namelist() if "dist-info" not in name}
    worked = {f"grader_solutions/{path.parent.name}/{path.name}" for path in project.glob("solutions/*/*.ipynb")}
    assert names == worked | {"grader_solutions/__init__.py"}


def test_the_first_exercise_is_done_in_an_empty_folder_with_the_packages_alone(
    wheels: list[Path], tmp_path: Path
) -> None:
    engine, solutions = wheels
    here = Installed(tmp_path / "venv")
    here.install(engine)
    folder = tmp_path / "a folder"
    folder.mkdir()
    assert "Your lessons are in" in here.grader(folder, "start", "--copy-only")
    assert "package of their own" in here.grader(folder, "solution", FIRST, "--yes", status=(2,))
    here.install(solutions)
    solved = here.grader(folder, "solution", FIRST, "--yes")
    path = folder / NOTEBOOK
    notebook = nbformat.read(path, as_version=4)
    next(cell for cell in notebook.cells if cell.metadata.get("exercise") == FIRST).source = solved
    nbformat.write(notebook, path)
    checked = here.grader(folder, "check", NOTEBOOK, status=(1,))  # the lesson's other exercise is not written
    assert f"{FIRST} " in checked and "passed" in checked.partition("\n")[0]
    assert "1 of 2" in here.grader(folder, "status")
    assert "Exercise 2" in here.grader(folder, "next")
    assert "newest release" in here.grader(folder, "update")
