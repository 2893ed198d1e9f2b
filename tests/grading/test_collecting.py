"""What students do in nbgrader's exchange, each with an account of their own, and what is collected of it."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from attack_course import LESSON, ON_COLLECTING, Attack
from attacked_exchange import HONEST, attacked, hands_in, scores
from built_course import copy_built_course
from nbgrader.coursedir import CourseDirectory
from nbgrader.exchange.default import ExchangeCollect
from people import COURSE_ID, Class, a_class, may_become_others
from traitlets.config import Config
from typer.testing import CliRunner

from grader.cli import app
from grader.errors import GraderError
from grader.grading.classroom.collecting import MAX_REMARKS, collect, collect_from
from grader.grading.nbgrader.gradebook import TIMESTAMP, read_timestamp

every_attack = pytest.mark.parametrize("attack", ON_COLLECTING, ids=lambda attack: attack.name)
real_accounts = pytest.mark.skipif(not may_become_others(), reason="this process can't give a child another user")


@dataclass(frozen=True)
class Run:
    made: Class
    who: dict[str, str]
    said: str
    scores: dict[str, float]


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("exchange")
    copy_built_course(root)
    return root


@pytest.fixture(scope="module")
def run(course: Path) -> Iterator[Run]:
    with attacked(course, ON_COLLECTING) as (made, who):
        said = made.lecturer.runs(["collect", LESSON], cwd=made.root)
        made.lecturer.runs(["autograde", LESSON], cwd=made.root)
        yield Run(made, who, said, scores(made))


@real_accounts
@every_attack
def test_an_attack_on_collecting_earns_what_was_handed_in_on_time(run: Run, attack: Attack) -> None:
    assert run.scores[run.who[attack.name]] == attack.earns


@real_accounts
@pytest.mark.parametrize("student", HONEST)
def test_an_honest_student_keeps_their_points(run: Run, student: str) -> None:
    assert run.scores[student] == HONEST[student][1]
    assert read_timestamp(run.made.root / "submitted" / student / LESSON / TIMESTAMP)[0] is not None


@real_accounts
def test_only_students_with_accounts_are_collected_and_what_is_odd_is_named(run: Run) -> None:
    names = {path.name for path in (run.made.root / "submitted").iterdir()}
    assert names == {*HONEST, *run.who.values()} and names == set(run.scores)
    assert not (run.made.root / "toy.ipynb").exists() and (run.made.root / "solutions" / LESSON).is_dir()
    assert f"taken as {run.who['collect_for_another']}'s, whose files they are" in run.said
    for name, why in (
        ("plain_file", "a file and no folder"),
        ("link", "a link and no folder"),
        ("too_large", "100 MB"),
    ):
        said = [line for line in run.said.splitlines() if run.who[f"collect_{name}"] in line and "left out" in line]
        assert said and why in said[0]
    assert "toy.ipynb (a pipe)" in run.said and "toy.ipynb (a link)" in run.said
    assert not [word for word in ("\x1b[2J", "\u202e", "<img") if word in run.said]


@real_accounts
def test_a_solution_that_a_link_leads_to_is_not_copied(run: Run) -> None:
    for name in ("collect_link", "collect_file_link"):
        folder = run.made.root / "submitted" / run.who[name] / LESSON
        assert not folder.is_symlink() and "BEGIN SOLUTION" not in "".join(
            path.read_text(errors="replace") for path in folder.rglob("*.ipynb")
        )


# --- what an honest class sees ---


@pytest.fixture
def small(course: Path) -> Iterator[Class]:
    with a_class(course, LESSON, HONEST) as made:
        made.lecturer.runs(["release_assignment", LESSON], cwd=made.root)
        for name, student in made.students.items():
            hands_in(student, HONEST[name][0])
        yield made


def inbound(made: Class) -> Path:
    return made.root.parent / "exchange" / COURSE_ID / "inbound"


def test_the_last_submission_is_collected_once_by_any_of_the_three_ways(small: Class) -> None:
    with contextlib.chdir(small.root):
        first = CliRunner().invoke(app, ["collect", LESSON])
        again = CliRunner().invoke(app, ["collect", LESSON])
    assert "2 collected, 0 as before, 0 left out" in first.output
    assert "0 collected, 2 as before, 0 left out" in again.output
    hands_in_again(small, "man")
    assert "man: collected" in small.lecturer.runs(["collect", LESSON], cwd=small.root)
    hands_in_again(small, "games")
    taken = collect(small.root, LESSON, ["games"])
    assert [(one.student, one.fresh) for one in taken.submissions] == [("games", True)]
    with pytest.raises(GraderError, match="ada has handed in nothing"):
        collect(small.root, LESSON, ["ada"])


def hands_in_again(made: Class, name: str) -> None:
    made.students[name].runs(["submit", LESSON])


def test_a_time_to_come_that_was_believed_before_locks_nobody_out(small: Class) -> None:
    there = small.root / "submitted" / "games" / LESSON
    there.mkdir(parents=True)
    (there / TIMESTAMP).write_text("9000-01-01 00:00:00 UTC")
    taken = {one.student: one.fresh for one in collect(small.root, LESSON).submissions}
    assert taken == {"games": True, "man": True} and (there / "toy.ipynb").is_file()


def test_of_several_the_last_before_the_due_date_where_nbgrader_is_asked_for_that(small: Class) -> None:
    first = {one.student: one.time for one in collect(small.root, LESSON).submissions}
    hands_in_again(small, "games")
    later = {one.student: one.time for one in collect(small.root, LESSON).submissions}
    assert later["games"] > first["games"] and later["man"] == first["man"]
    due = f"--duedate={first['games']:%Y-%m-%d %H:%M:%S.%f} UTC"
    small.lecturer.runs(["db", "assignment", "add", LESSON, due], cwd=small.root)
    small.lecturer.runs(["collect", LESSON, "--before-duedate"], cwd=small.root)
    assert read_timestamp(small.root / "submitted" / "games" / LESSON / TIMESTAMP)[0] == first["games"]


def test_a_flood_is_named_in_a_hundred_lines(small: Class) -> None:
    for number in range(MAX_REMARKS + 50):
        (inbound(small) / f"ada{number}+{LESSON}+now").touch()
    taken = collect(small.root, LESSON)
    assert len(taken.submissions) == 2
    assert len(taken.remarks) == MAX_REMARKS + 1 and taken.remarks[-1] == "50 more like these"


@real_accounts
def test_a_folder_of_somebody_elses_in_the_courses_place_is_refused(small: Class) -> None:
    shutil.rmtree(inbound(small))
    inbound(small).mkdir()
    os.chown(inbound(small), 65534, 65534)
    with pytest.raises(GraderError, match="is not yours"):
        collect(small.root, LESSON)


def test_an_exchange_that_is_not_there_is_told(small: Class) -> None:
    directory = CourseDirectory(root=str(small.root), course_id="other", assignment_id=LESSON)
    with pytest.raises(GraderError, match="nothing was released to this exchange"):
        collect_from(ExchangeCollect(coursedir=directory, config=Config(Exchange={"root": str(small.root)})))
    config = small.root / "nbgrader_config.py"
    config.write_text(config.read_text() + '\nc.ExchangeFactory.collect = "ngshare_exchange.ExchangeCollect"\n')
    with pytest.raises(GraderError, match="not nbgrader's own"):
        collect(small.root, LESSON)
