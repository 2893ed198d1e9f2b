"""A class of any size, one in ten of it hostile, graded, fed back and exported by the real commands:

    python tests/support/whole_class.py --size 400 --workers 2
    python tests/support/whole_class.py --only frame_large_answer break_padding  # these, and an honest student

It says how long each command took and what memory its process needed at most, and exits with 1 where a mark is lost or
wrongly given, a submission took longer than its limit, or a page is missing or too long. The figures are worth
something on an idle machine only.
"""

import argparse
import csv
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from attack_course import ATTACKS, LESSON, RIGHT, Attack, attack_with, listening, make_course, submit
from real_nbgrader import LINEAR, RELU

from grader.grading.feedback.render import MAX_PAGE

HOSTILE_EVERY = 10
HONEST: tuple[tuple[dict[str, str], float], ...] = (
    (RIGHT, 5.0),
    ({"toy.linear": LINEAR.format(bias=""), "toy.relu": RELU.format("x.relu()")}, 2.0),
    ({"toy.linear": LINEAR.format(bias=", self.bias"), "toy.relu": RELU.format("x")}, 4.0),
    ({}, 0.0),
    ({"toy.linear": "class Linear(nn.Module:\n", "toy.relu": RELU.format("y")}, 0.0),
)
MAX_PEAK = 700e6  # bytes, of the grader's own process, whatever comes back from its children
SLACK = 5.0  # seconds that a submission may take beyond its limit: its last child ends, and is judged
LIMITS = {"exercise_seconds": 4, "submission_seconds": 16, "memory": 1024}


@dataclass(frozen=True)
class Ran:
    """What a command took: seconds, and at most so many bytes of its own process, children left out."""

    seconds: float
    peak: int


def main() -> None:
    """Make the class, grade it, and say what came of it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", type=int, default=40)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--only", nargs="+", default=[], help="attacks by name; then there is one honest student more")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="grader-class-") as folder:
        root = Path(folder)
        root.chmod(0o755)  # as the tests have it: only the jail keeps anybody out
        make_course(root)
        (root / "canaries").mkdir(mode=0o777)
        problems = grade(root, chosen.size, chosen.workers, chosen.only)
    for problem in problems:
        print(problem)
    raise SystemExit(1 if problems else 0)


def grade(root: Path, size: int, workers: int, only: list[str]) -> list[str]:
    """Hand in, grade, feed back and export; what went wrong, a line each."""
    with listening() as server:
        expected = hand_in(root, size, workers, only, server.getsockname()[1])
        autograde = ["autograde", LESSON, "--workers", str(workers), *limits()]
        ran = {name: run(root, words) for name, words in (
            ("autograde", autograde), ("autograde again", autograde), ("feedback", ["feedback", LESSON]),
            ("export", ["export"]),
        )}  # fmt: skip
    print(f"{len(expected)} submissions, {workers} workers, {os.cpu_count()} processors")
    for name, figures in ran.items():
        each = figures.seconds / len(expected)
        print(f"grader {name}: {figures.seconds:.1f} s ({each:.2f} s each), peak {figures.peak / 1e6:.0f} MB")
    return [*wrong_marks(root, expected), *slow_ones(root), *bad_pages(root, expected), *(
        f"grader {name} took {figures.peak / 1e6:.0f} MB" for name, figures in ran.items() if figures.peak > MAX_PEAK
    )]  # fmt: skip


def hand_in(root: Path, size: int, workers: int, only: list[str], port: int) -> dict[str, float]:
    """Everybody's submissions; returns what each should get. Some attackers had full marks before."""
    attacks = [attack for attack in ATTACKS if not only or attack.name in only]
    people = list(class_of(size if not only else len(attacks) + 1, attacks, all_hostile=bool(only)))
    before = [student for student, (_, _, attack) in people if attack is not None and attack.earlier]
    for student in before:
        submit(root, student, RIGHT)
    if before:
        run(root, ["autograde", LESSON, "--workers", str(workers), *limits()])
    for student, (answers, _, attack) in people:
        if attack is None:
            submit(root, student, answers)
        else:
            attack_with(root, attack, port, student)
    return {student: points for student, (_, points, _) in people}


Person = tuple[str, tuple[dict[str, str], float, Attack | None]]


def class_of(size: int, attacks: list[Attack], all_hostile: bool) -> Iterator[Person]:
    """Students with what they hand in and what that earns; one in ten is an attacker, the attacks in turn."""
    in_turn, honest = itertools.cycle(attacks), itertools.cycle(HONEST)
    for i in range(size):
        hostile = i > 0 if all_hostile else i % HOSTILE_EVERY == HOSTILE_EVERY - 1
        if hostile:
            attack = next(in_turn)
            yield f"s{i:04}-{attack.name}", ({}, attack.earns, attack)
        else:
            answers, points = next(honest)
            yield f"s{i:04}", (answers, points, None)


def limits() -> list[str]:
    return [word for name, value in LIMITS.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def run(root: Path, words: list[str]) -> Ran:
    """Run a `grader` command to its end. Exits where it fails but for submissions that could not be graded."""
    started, peak = time.monotonic(), 0
    with (root / "said.txt").open("w") as said:
        command = [sys.executable, "-m", "grader.cli", *words]
        process = subprocess.Popen(command, cwd=root, stdout=said, stderr=subprocess.STDOUT)
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                peak = max(peak, watched.memory_info().rss)
            except psutil.NoSuchProcess:
                break
            time.sleep(0.02)
    if process.wait() not in (0, 1):
        raise SystemExit((root / "said.txt").read_text())
    return Ran(time.monotonic() - started, peak)


def wrong_marks(root: Path, expected: dict[str, float]) -> Iterator[str]:
    """Marks that were lost, or given for nothing."""
    with (root / "export" / "canvas.csv").open(newline="") as file:
        _, _, *rows = csv.reader(file)
    found = {row[3]: row[-1] for row in rows}
    for student, points in expected.items():
        if found.get(student) != f"{points:.2f}":
            yield f"{student} has {found.get(student) or 'no mark'}, and earned {points:.2f}"


def slow_ones(root: Path) -> Iterator[str]:
    """Submissions that took longer than they may."""
    for line in (root / "journal" / f"{LESSON}.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["entry"] == "graded" and entry["result"]["seconds"] > LIMITS["submission_seconds"] + SLACK:
            yield f"{entry['student']} took {entry['result']['seconds']:.0f} s"


def bad_pages(root: Path, expected: dict[str, float]) -> Iterator[str]:
    """Students without a page, or with one that is too long."""
    for student in expected:
        page = root / "feedback" / student / LESSON / "toy.html"
        if not page.is_file():
            yield f"{student} has no feedback"
        elif page.stat().st_size > MAX_PAGE:
            yield f"{student}'s feedback has {page.stat().st_size / 1e6:.1f} MB"


if __name__ == "__main__":
    main()
