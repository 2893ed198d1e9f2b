"""A capstone for a class: an assignment of nbgrader's in which each student has a model of their own."""

import csv
import hashlib
import hmac
from collections.abc import Callable
from pathlib import Path

import nbformat

from grader.capstone.assignment import LESSON, notebook_of, recording_of
from grader.capstone.making import make
from grader.errors import GraderError
from grader.grading.classroom.hidden import read_secret, remember_secret, students_of
from grader.grading.nbgrader.gradebook_file import course_config
from grader.grading.running.bundle import HIDDEN
from grader.recordings.format import RECORDING

SEEDS = "seeds.csv"
EXAMPLE = 0  # the seed of the recording that comes with the notebook; each student has another in its place
LARGEST = 2**40


def seed_of(secret: bytes, student: str, level: int) -> int:
    """A student's seed: the same each time, and nobody can choose theirs."""
    word = hmac.new(secret, f"{LESSON} {level} {student}".encode(), hashlib.sha256).digest()
    return 1 + int.from_bytes(word[:8], "big") % LARGEST


def release_capstone(
    root: Path, secret: Path, roster: Path, level: int, progress: Callable[[str], None] = lambda student: None
) -> tuple[Path, list[str]]:
    """Make the assignment `capstone` of a course, with hidden cases for each student of a roster who has none yet.

    Returns the released folder, and for whom cases were made. Raises GraderError for a roster or a level that is none,
    and where the assignment is there with another level.
    """
    word, config = read_secret(secret), course_config(root)
    students = students_of(roster)
    released = root / str(config.CourseDirectory.get("release_directory", "release")) / LESSON
    seeds = {student: seed_of(word, student, level) for student in students}
    rows = _read_seeds(released / SEEDS)
    if other := [one for one, row in rows.items() if row[:2] != (str(seed_of(word, one, level)), str(level))]:
        was = "seed {}, level {}".format(*rows[other[0]])
        raise GraderError(
            f"{released / SEEDS} has another level or was made from another secret: {other[0]} has {was}. Keep to it,"
            f" or delete {released} and {root / HIDDEN / LESSON}."
        )
    hidden = root / HIDDEN / LESSON
    waiting = [one for one in students if one not in rows or not (hidden / f"{one}.safetensors").exists()]
    if not (released / RECORDING).exists():
        example = recording_of(make(EXAMPLE, level))
        released.mkdir(parents=True, exist_ok=True)
        example.write(released / RECORDING)
        text = nbformat.writes(notebook_of(level)) + "\n"
        (released / f"{LESSON}.ipynb").write_text(text, encoding="utf-8")
    (root / HIDDEN).mkdir(mode=0o700, exist_ok=True)
    hidden.mkdir(mode=0o700, exist_ok=True)
    for student in waiting:
        progress(student)
        own = hmac.new(word, student.encode(), hashlib.sha256).hexdigest()
        path = hidden / f"{student}.safetensors"
        taken = rows.get(student)
        made = make(seeds[student], level, int(taken[2]) if taken else None)
        recording_of(made, own).write(path)
        path.chmod(0o600)
        rows[student] = str(made.drawn.seed), str(level), str(made.take)
    with (released / SEEDS).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [("id", "seed", "level", "take"), *((student, *row) for student, row in sorted(rows.items()))]
        )
    remember_secret(root, secret)
    return released, waiting


def _read_seeds(path: Path) -> dict[str, tuple[str, str, str]]:
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["id"]: (row["seed"], row["level"], row["take"]) for row in csv.DictReader(file)}
