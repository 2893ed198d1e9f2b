"""A capstone for a class: each student has a model of their own, and is graded in a jail; no answer serves two."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from graded import gradebook, points
from toy_course import PROJECT
from typer.testing import CliRunner

from grader.capstone.assignment import EXERCISE, POINTS
from grader.cli import app
from grader.errors import GraderError
from grader.grading.classroom.capstones import release_capstone, seed_of
from grader.grading.classroom.engine import Settings, grade_class
from grader.grading.feedback.make import make_feedback
from grader.grading.running.worker import close_jails

LESSON = "capstone"
STUDENTS = ("ada", "bob")


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("capstones")
    shutil.copy(PROJECT / "nbgrader_config.py", root)
    (root / "solutions").mkdir()
    (root / "roster.csv").write_text("id,first_name\nada,Ada\nbob,Bob\n")
    (root / "secret").write_text("a secret of thirty letters or so\n")
    release_capstone(root, root / "secret", root / "roster.csv", 1)
    yield root
    close_jails()


def seeds(root: Path, column: str = "seed") -> dict[str, str]:
    with (root / "course" / LESSON / "seeds.csv").open(newline="") as file:
        return {row["id"]: row[column] for row in csv.DictReader(file)}


def program_for(seed: str, root: Path) -> str:
    """A program for one seed: its config is in its code, but for the sizes that another model may have."""
    folder = root / f"made-{seed}"
    if not folder.exists():
        done = CliRunner().invoke(app, ["capstone", "--seed", seed, "--level", "1", "--to", str(folder)])
        assert done.exit_code == 0, done.output
    config = json.loads((folder / "config.json").read_text())
    reference = (PROJECT / "grader" / "capstone" / "model.py").read_text()
    kept = reference.replace("from grader.steps import step\n", "step = lambda name, *x: x if len(x) > 1 else x[0]\n")
    kept = kept.replace("class Model(nn.Module)", "class Written(nn.Module)")
    return f"""{kept}

MINE = {config!r}

class Model(Written):
    def __init__(self, config):
        sizes = {{name: config[name] for name in MINE if name in config and type(config[name]) is int}}
        super().__init__(Config({{**MINE, **sizes}}))
"""


def submit(root: Path, student: str, source: str | None) -> None:
    folder = root / "submitted" / student / LESSON
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(root / "course" / LESSON, folder)
    if source is not None:
        notebook = nbformat.read(folder / "capstone.ipynb", as_version=4)
        cell = next(cell for cell in notebook.cells if cell.metadata.get("exercise") == EXERCISE)
        cell.source = source
        nbformat.write(notebook, folder / "capstone.ipynb")


def test_each_student_has_a_seed_that_they_can_not_choose(course: Path) -> None:
    found = seeds(course)
    assert found == {name: str(seed_of(b"a secret of thirty letters or so", name, 1)) for name in STUDENTS}
    assert len(set(found.values())) == 2
    assert {path.name for path in (course / "course" / LESSON).iterdir()} == {
        "capstone.ipynb",
        "reference.safetensors",
        "seeds.csv",
    }
    hidden = sorted((course / "hidden" / LESSON).iterdir())
    assert [path.stem for path in hidden] == ["ada", "bob"] and all(path.stat().st_mode & 0o077 == 0 for path in hidden)


def test_a_late_roster_adds_students_and_another_level_is_refused(course: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (course / "hidden" / LESSON).iterdir()}
    assert release_capstone(course, course / "secret", course / "roster.csv", 1)[1] == []
    assert {path: path.stat().st_mtime_ns for path in before} == before
    with pytest.raises(GraderError, match="another level or was made from another secret"):
        release_capstone(course, course / "secret", course / "roster.csv", 2)


def test_ones_own_program_earns_all_and_anothers_does_not(course: Path) -> None:
    own = {name: program_for(seed, course) for name, seed in seeds(course).items()}
    submit(course, "ada", own["ada"])
    submit(course, "bob", own["bob"])
    assert points(grade_class(course, LESSON, Settings())) == {"ada": POINTS, "bob": POINTS}
    submit(course, "bob", own["ada"])
    found = points(grade_class(course, LESSON, Settings()))
    assert found["ada"] == POINTS and found["bob"] < POINTS / 2
    submit(course, "bob", None)
    assert points(grade_class(course, LESSON, Settings())) == {"ada": POINTS, "bob": 0}
    with gradebook(course) as book:
        assert [one.student.id for one in book.assignment_submissions(LESSON)] == ["ada", "bob"]
    assert {made.student for made in make_feedback(course, LESSON)} == set(STUDENTS)
    (page,) = (course / "feedback" / "ada").rglob("*.html")
    assert f"{POINTS} of {POINTS} points" in page.read_text()


def test_a_fetched_assignment_gets_the_students_own_model(course: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(course / "course" / LESSON, tmp_path / LESSON)
    example = (folder / "reference.safetensors").read_bytes()
    take = seeds(course, "take")["ada"]
    words = ["capstone", "--seed", seeds(course)["ada"], "--level", "1", "--take", take, "--to", str(folder)]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert (folder / "reference.safetensors").read_bytes() != example
    assert (folder / "config.json").is_file() and not (folder / "program.py").exists()
    again = CliRunner().invoke(app, words)
    assert isinstance(again.exception, GraderError) and "exists" in str(again.exception)
