"""Where a learner is: what checks reported is kept, shown, and forgotten where the work is begun anew."""

import subprocess
import sys
from pathlib import Path

import pytest
from learners_course import edit, source, write_release

from grader.errors import GraderError
from grader.guesses import Guess, keep_guess, read_guesses
from grader.learning.exercises import reset, solution, solution_was_seen, tried
from grader.learning.home import Home, folder_to_start, start_home
from grader.learning.status import PAGE, next_lesson, page, status, write_page
from grader.progress import HIDDEN, note, read_progress

SOLVED = "class norm: ..."


@pytest.fixture
def home(tmp_path: Path) -> Home:
    release = write_release(tmp_path / "clone")
    return start_home(folder_to_start(None, release.folder.parent), "1")


def reported(home: Home, exercise: str, *states: str) -> None:
    for state in states:
        note(home.folder / {"toy": "00-toy", "next": "01-next"}[exercise.partition(".")[0]], exercise, state)  # type: ignore[arg-type]


def test_nothing_is_begun_at_first_and_the_first_exercise_comes_next(home: Home) -> None:
    first, second = status(home)
    assert (first.title, first.minutes, first.done, first.minutes_left) == ("00 · Toy", 40, 0, 40)
    assert [exercise.state for exercise in first.exercises] == ["unwritten", "unwritten"]
    assert first.bar == "□" * 10
    assert next_lesson([first, second]) == first
    assert first.next_exercise is not None and first.next_exercise.heading == "Exercise 1 · norm"


def test_time_left_goes_by_the_minutes_of_the_exercises_that_are_not_right(home: Home) -> None:
    reported(home, "toy.mlp", "wrong", "right")
    first = status(home)[0]
    assert (first.done, first.bar, first.minutes_left) == (1, "■■■■■□□□□□", 15)  # 10 of 30 minutes of exercises
    assert first.next_exercise is not None and first.next_exercise.name == "toy.norm"


def test_what_was_right_and_is_wrong_now_is_red(home: Home) -> None:
    reported(home, "toy.norm", "right", "wrong")
    assert status(home)[0].count("wrong") == 1
    assert "1 red, 1 not started" in page(status(home))


def test_one_goes_on_with_the_lesson_that_one_worked_in(home: Home) -> None:
    reported(home, "next.model", "wrong")
    following = next_lesson(status(home))
    assert following is not None and following.notebook == "01-next/next.ipynb"
    reported(home, "next.model", "right")
    following = next_lesson(status(home))
    assert following is not None and following.notebook == "00-toy/toy.ipynb"


def test_the_page_links_to_every_lesson_and_to_the_next_exercise(home: Home) -> None:
    reported(home, "toy.norm", "right")
    text = write_page(home).read_text("utf-8")
    assert text.startswith("# Where am I\n\n**Next: [Exercise 2 · mlp](00-toy/toy.ipynb)** in 00 · Toy")
    for lesson in status(home):
        assert f"[{lesson.title}]({lesson.notebook})" in text


def test_the_page_says_so_when_all_is_done(home: Home) -> None:
    for name in ("toy.norm", "toy.mlp", "next.model"):
        reported(home, name, "right")
    assert next_lesson(status(home)) is None
    assert "Every exercise is right" in page(status(home))


def test_a_damaged_file_of_progress_counts_as_none(home: Home) -> None:
    reported(home, "toy.norm", "right")
    (home.folder / HIDDEN / "progress" / "00-toy.json").write_text('{"toy.norm": {"state"')
    assert status(home)[0].done == 0
    reported(home, "toy.norm", "wrong")
    assert tried(home, "toy.norm").tries == 1


def test_a_stub_that_is_checked_is_no_try(home: Home) -> None:
    reported(home, "toy.norm", "unwritten", "wrong", "unwritten", "wrong")
    assert tried(home, "toy.norm").tries == 2


def test_one_exercise_is_begun_anew_and_the_old_notebook_is_kept(home: Home) -> None:
    path = home.folder / "00-toy/toy.ipynb"
    for cell, text in {"toy-norm": SOLVED, "toy-mlp": "class mlp: ..."}.items():
        edit(path, cell, text)
    reported(home, "toy.norm", "right")
    reported(home, "toy.mlp", "right")
    kept = reset(home, "toy.norm")
    assert "NotImplementedError" in source(path, "toy-norm") and source(path, "toy-mlp") == "class mlp: ..."
    assert source(kept, "toy-norm") == SOLVED
    assert set(read_progress(home.folder, "00-toy")) == {"toy.mlp"}


def test_a_whole_lesson_is_begun_anew_also_where_its_file_is_broken(home: Home) -> None:
    path = home.folder / "00-toy/toy.ipynb"
    path.write_text("{ broken")
    reported(home, "toy.norm", "right")
    keep_guess(path.parent, "toy.cost", Guess("the cost", guess=40))
    kept = reset(home, "00-toy")
    assert kept.read_text() == "{ broken"
    assert "NotImplementedError" in source(path, "toy-norm")
    assert status(home)[0].done == 0
    assert read_guesses(home.folder, "00-toy") == {}


def test_an_exercise_of_another_name_is_refused_with_the_nearest(home: Home) -> None:
    with pytest.raises(GraderError, match=r"Did you mean `toy\.norm`"):
        reset(home, "toy.nrom")


def test_a_solution_comes_from_the_clone_and_is_asked_for_once(home: Home) -> None:
    worked = home.folder.parent / "solutions" / "00-toy" / "toy.ipynb"
    worked.parent.mkdir(parents=True)
    worked.write_bytes((home.folder / "00-toy/toy.ipynb").read_bytes())
    edit(worked, "toy-norm", f"### BEGIN SOLUTION\n{SOLVED}\n### END SOLUTION")
    assert solution(home, "toy.norm") == SOLVED
    assert not tried(home, "toy.norm").solution_seen
    solution_was_seen(home, "toy.norm")
    assert tried(home, "toy.norm").solution_seen
    with pytest.raises(GraderError, match="there is no exercise"):
        solution(home, "other.thing")


CHECKS = """
import torch
from torch import nn, Tensor
from grader import CheckFailed, check
{stub}
try: check("orientation.linear", Linear)
except CheckFailed: pass
class BrokenLinear(Linear): pass
try: check("orientation.linear", BrokenLinear)
except CheckFailed: pass
class Linear(nn.Linear):
    def forward(self, x): return x @ self.weight.T
for _ in range(3):
    try: check("orientation.linear", Linear)
    except CheckFailed: print("---")
check("orientation.linear", nn.Linear)
"""


@pytest.mark.slow
def test_checks_in_a_learners_folder_are_kept_and_after_three_tries_a_report_names_the_solution(
    project: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "work"
    home = start_home(folder, "1")
    notebook = home.base("00-orientation/orientation.ipynb")
    assert notebook is not None
    stub = next(cell.source for cell in notebook.cells if cell.metadata.get("exercise") == "orientation.linear")
    run = [sys.executable, "-c", CHECKS.format(stub=stub)]
    done = subprocess.run(run, cwd=folder / "00-orientation", capture_output=True, text=True, check=True)
    first, second, third, _ = done.stdout.split("---")
    assert "grader solution orientation.linear" not in first + second
    assert "grader solution orientation.linear" in third
    assert tried(home, "orientation.linear").tries == 3
    assert status(home)[0].done == 1
    assert not (folder / PAGE).exists()  # it is made when it is opened
