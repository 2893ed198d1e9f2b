"""`grader new-lesson` makes a lesson that is green at once, in any course's folder, and touches nothing else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from grader.authoring.build import build
from grader.authoring.new_lesson import new_lesson
from grader.authoring.stale import check_build
from grader.cli import app
from grader.errors import GraderError
from grader.lessons.lesson import Lesson
from grader.lessons.twin import read_twin

NAME = "07-two-words"
WANTED = ["exercises.py", "figures/vectors.svg", "lesson.toml", "mistakes.toml", "others.py", "two_words.py"]


@pytest.fixture
def course(tmp_path: Path, project: Path) -> Path:
    """A course without lessons: what says that it is one, and the tests of lessons."""
    (tmp_path / "solutions").mkdir()
    for name in ("nbgrader_config.py", "conftest.py", "pyproject.toml"):
        shutil.copy(project / name, tmp_path)
    shutil.copytree(project / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.slow
def test_a_new_lesson_is_green_in_a_course_of_its_own(course: Path) -> None:
    """It builds, and what is asked of every lesson holds of it."""
    shown = CliRunner().invoke(app, ["new-lesson", NAME, str(course)])
    assert shown.exit_code == 0 and f"Next: grader build {NAME}" in shown.output
    lesson = Lesson(course / "solutions" / NAME)
    build(lesson)
    assert check_build([lesson]) == []
    tests = [f"tests/lessons/test_{name}.py" for name in ("every_lesson", "mistakes", "mutants")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, f"solutions/{NAME}"]
    done = subprocess.run(
        [
            *command,
            "--lesson",
            NAME,
            "--nbval",
            "--nbval-current-env",
            "--nbval-sanitize-with=tests/nbval-sanitize.cfg",
        ],
        cwd=course,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and "skipped" not in done.stdout


def test_a_new_lesson_is_one_folder(course: Path) -> None:
    before = {path for path in course.rglob("*") if "solutions" not in path.parts}
    made = new_lesson(course, NAME)
    folder = course / "solutions" / NAME
    assert [str(path.relative_to(folder)) for path in made] == WANTED
    assert {path for path in course.rglob("*") if "solutions" not in path.parts} == before
    assert not [path for path in made if "{{" in path.read_text() and path.suffix != ".svg"]
    lesson = Lesson(folder)
    lesson.validate()
    assert [exercise.name for exercise in lesson.exercises()[0]] == ["two_words.rms_norm"]
    assert all(cell.id for cell in read_twin(lesson.twin).cells)


def test_its_python_is_in_the_projects_style(course: Path) -> None:
    new_lesson(course, NAME)
    for command in (["check"], ["format", "--check", "--exclude", "two_words.py"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "solutions"], cwd=course, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("two-words", "can't be a lesson's name: it must be two digits, a dash"),
        ("7-words", "can't be a lesson's name"),
        ("07-Two", "can't be a lesson's name"),
        ("07-two_words", "can't be a lesson's name"),
        ("07-", "can't be a lesson's name"),
        ("../07-words", "can't be a lesson's name"),
        ("03-other", r"03-there is there already.* The next free one is 06: grader new-lesson 06-other"),
        ("05-there", r"05-there is there already.*grader new-lesson 06-there"),
        ("07-random", r"would be random\.py as text, which hides"),
        ("07-torch", r"would be torch\.py as text, which hides"),
        ("07-exercises", r"would be exercises\.py as text, which hides"),
        ("07-test-me", r"would be test_me\.py as text, which hides"),
    ],
)
def test_a_name_that_will_not_do_is_refused_with_what_to_do(tmp_path: Path, name: str, message: str) -> None:
    for there in ("03-there", "05-there"):
        (tmp_path / "solutions" / there).mkdir(parents=True)
    with pytest.raises(GraderError, match=message) as raised:
        new_lesson(tmp_path, name)
    assert "\n" not in str(raised.value)
    assert sorted(path.name for path in (tmp_path / "solutions").iterdir()) == ["03-there", "05-there"]


def test_a_folder_that_is_no_course_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(GraderError, match=rf"has no folder solutions/.*grader new-lesson {NAME} FOLDER"):
        new_lesson(tmp_path, NAME)
    assert list(tmp_path.iterdir()) == []
