"""Lessons in the real nbgrader and nbval: released, validated, graded and returned."""

import csv
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from built_course import copy_built_course
from real_nbgrader import SCORES, STUDENTS, nbgrader, run, write_answers
from toy_course import PROJECT

from grader.lessons.lesson import Lesson, lessons


def nbval_lax(folder: Path) -> subprocess.CompletedProcess[str]:
    """What a learner's own CI runs on a lesson's folder."""
    return run("pytest", "--nbval-lax", "--nbval-current-env", "-q", "-p", "no:cacheprovider", ".", cwd=folder)


def solved_copy(lesson: Lesson, released: Path, target: Path) -> Path:
    """A copy of a released lesson with the right answers in it; returns its notebook."""
    shutil.copytree(released, target)
    notebook = target / lesson.notebook.name
    solutions = {cell.name: cell.source for cell in lesson.cells() if cell.kind == "exercise"}
    write_answers(notebook, solutions)
    return notebook


# --- a class of four, graded by stock nbgrader ---


@dataclass(frozen=True)
class Class:
    root: Path
    scores: dict[str, float]
    course_before: dict[str, bytes]


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small course, built."""
    root = tmp_path_factory.mktemp("class")
    copy_built_course(root)
    return root


@pytest.fixture(scope="module")
def graded(course: Path) -> Class:
    """The class after release, submission, grading, feedback and export."""
    before = files(course / "course")
    nbgrader("generate_assignment", "00-toy", "--force", cwd=course)
    for student, answers in STUDENTS.items():
        submission = course / "submitted" / student / "00-toy"
        shutil.copytree(course / "course" / "00-toy", submission)
        write_answers(submission / "toy.ipynb", answers)
    nbgrader("autograde", "00-toy", cwd=course)
    nbgrader("generate_feedback", "00-toy", cwd=course)
    nbgrader("export", "--to", "grades.csv", cwd=course)
    with (course / "grades.csv").open() as file:
        scores = {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}
    return Class(course, scores, before)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_stock_nbgrader_releases_what_build_does_to_the_byte(graded: Class) -> None:
    assert files(graded.root / "course") == graded.course_before


def test_scores_are_exported_with_partial_credit(graded: Class) -> None:
    assert graded.scores == SCORES


def test_feedback_shows_each_student_their_reports(graded: Class) -> None:
    feedback = {s: (graded.root / "feedback" / s / "00-toy" / "toy.html").read_text() for s in STUDENTS}
    assert "toy.linear · 2 of 2 cases right" in feedback["ada"]
    assert "the bias is left out" in feedback["dan"] and "the bias is left out" not in feedback["ada"]
    assert "1 of 2 cases right" in feedback["cleo"]


def test_python_files_reach_neither_learners_nor_graded_folders(graded: Class) -> None:
    for folder in ("course", "submitted", "autograded", "feedback"):
        assert list((graded.root / folder).rglob("*.ipynb")) or list((graded.root / folder).rglob("*.html"))
        assert not list((graded.root / folder).rglob("*.py"))


def test_a_stored_output_that_is_not_true_any_more_is_found_by_nbval(course: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(course / "solutions" / "00-toy", tmp_path / "00-toy"))
    nbval = ("pytest", "--nbval", "--nbval-current-env", "-q", "-p", "no:cacheprovider", "toy.ipynb")
    assert (true := run(*nbval, cwd=folder)).returncode == 0, true.stdout
    notebook = folder / "toy.ipynb"
    notebook.write_text(notebook.read_text().replace("the sum is 2", "the sum is 3"))
    assert "1 failed" in run(*nbval, cwd=folder).stdout


def validates_only_when_solved(lesson: Lesson, released: Path, folder: Path) -> None:
    """The released notebook fails, and its solved copy passes, in `nbgrader validate` and in a learner's own CI."""
    checks = sum(cell.kind == "check" for cell in lesson.cells())
    solved = solved_copy(lesson, released, folder / "solved")
    unsolved = Path(shutil.copytree(released, folder / "unsolved")) / solved.name
    assert "Success! Your notebook passes all the tests" in nbgrader("validate", solved, cwd=folder)
    assert f"VALIDATION FAILED ON {checks} CELL(S)" in nbgrader("validate", unsolved, cwd=folder)
    passing, failing = nbval_lax(solved.parent), nbval_lax(unsolved.parent)
    assert passing.returncode == 0, passing.stdout
    assert failing.returncode == 1
    assert len(set(re.findall(r"^FAILED .*Cell (\d+)", failing.stdout, re.MULTILINE))) >= checks, failing.stdout


# --- one lesson of this course, whole, in the real nbgrader, nbval and `grader check` ---


def released_folder(lesson: Lesson) -> Path:
    return PROJECT / "course" / lesson.name


def checks_of(lesson: Lesson) -> list[str]:
    return [cell.name for cell in lesson.cells() if cell.kind == "check"]


@pytest.fixture(scope="module")
def orientation() -> Lesson:
    return next(lesson for lesson in lessons(PROJECT) if lesson.name == "00-orientation")


def test_a_lesson_validates_only_when_solved(orientation: Lesson, tmp_path: Path) -> None:
    validates_only_when_solved(orientation, released_folder(orientation), tmp_path)


def test_a_released_lesson_fails_cleanly_and_a_solved_one_passes_grader_check(
    orientation: Lesson, tmp_path: Path
) -> None:
    solved = solved_copy(orientation, released_folder(orientation), tmp_path / "solved")
    check = ("grader.cli", "check")
    passing = run(*check, solved, cwd=tmp_path)
    assert passing.returncode == 0, passing.stdout + passing.stderr
    failing = run(*check, released_folder(orientation) / orientation.notebook.name, cwd=tmp_path)
    assert failing.returncode == 1, failing.stdout + failing.stderr
    for output, word in ((passing.stdout, "passed"), (failing.stdout, "FAILED")):
        for name in checks_of(orientation):
            assert re.search(rf"^{re.escape(name)} .*{word}", output, re.MULTILINE), output
    assert "Traceback" not in failing.stdout + failing.stderr
