"""A class in whose exchange somebody does harm: honest students and attackers hand in, and then the attackers go on."""

import contextlib
import csv
import functools
import os
import pwd
import shutil
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from attack_course import LESSON, RIGHT, Attack
from people import COURSE_ID, Class, Person, a_class
from real_nbgrader import write_answers

HONEST = {"games": (RIGHT, 5.0), "man": (RIGHT, 5.0)}
VICTIM = "games"
LATE_IS_NOTHING = '\nc.LateSubmissionPlugin.penalty_method = "zero"\n'


def accounts(count: int) -> list[str]:
    """Names of that many accounts of this machine, for attackers: as nobody else has in the class."""
    return [user.pw_name for user in pwd.getpwall() if user.pw_uid and user.pw_name not in HONEST][:count]


@contextlib.contextmanager
def attacked(course: Path, attacks: Sequence[Attack], stock_from: str = "") -> Iterator[tuple[Class, dict[str, str]]]:
    """A class, and each attack's account in it: all have handed in, then came the due date, then the attacks.

    stock_from: a line of nbgrader_config.py, from which on it is left out: nbgrader is as it comes then.
    """
    who = dict(zip((attack.name for attack in attacks), accounts(len(attacks)), strict=True))
    with a_class(course, LESSON, [*HONEST, *who.values()]) as made:
        config = made.root / "nbgrader_config.py"
        text = config.read_text()
        config.write_text((text.partition(stock_from)[0] if stock_from else text) + LATE_IS_NOTHING)
        generate = [["generate_assignment", LESSON, "--force"]] if stock_from else []
        made.lecturer.runs(*generate, ["release_assignment", LESSON], cwd=made.root)
        answers = {name: cells for name, (cells, _) in HONEST.items()} | {who[a.name]: a.cells for a in attacks}
        for name, cells in answers.items():
            hands_in(made.students[name], cells)
        time.sleep(0.05)
        due = f"--duedate={datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f} UTC"
        made.lecturer.runs(["db", "assignment", "add", LESSON, due], cwd=made.root)
        time.sleep(0.05)
        inbound = made.root.parent / "exchange" / COURSE_ID / "inbound"
        for attack in attacks:
            student = made.students[who[attack.name]]
            mine = next(inbound.glob(f"{student.name}+{LESSON}+*"))  # `nbgrader submit` has told them its name
            student.runs(then=functools.partial(attacks_with, attack.exchange, student, mine, made.root))
        yield made, who


def hands_in(student: Person, cells: dict[str, str]) -> None:
    """Fetch, work, submit."""
    notebook = student.home / LESSON / "toy.ipynb"
    student.runs(["fetch_assignment", LESSON], then=functools.partial(write_answers, notebook, cells))
    student.runs(["submit", LESSON])


def attacks_with(program: str, student: Person, mine: Path, course: Path) -> None:
    """What an attacker runs, in a process of their own. mine: what they have handed in, in the exchange."""
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f} UTC"
    places = {"inbound": mine.parent, "mine": mine, "course": course}
    names = {"lesson": LESSON, "me": student.name, "victim": VICTIM, "now": now}
    exec(program, {"os": os, "shutil": shutil, **places, **names})


def scores(made: Class) -> dict[str, float]:
    """What nbgrader exports, by student."""
    made.lecturer.runs(["export", "--to", "grades.csv"], cwd=made.root)
    with (made.root / "grades.csv").open() as file:
        return {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}
