"""Hidden recordings: the same exercises with weights, inputs and sizes that no student has.

They lie in ``hidden/<lesson>.safetensors``, or for one student in ``hidden/<lesson>/<student>.safetensors``, and
depend only on a secret, so that they can be made again. Keep the secret and the folder to yourself.
"""

import csv
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from grader.authoring.recorder import record
from grader.errors import GraderError
from grader.grading.classroom.exposure import SECRET_PLACE
from grader.grading.running.bundle import HIDDEN
from grader.lessons.lesson import Lesson
from grader.recordings.recording import Recording

MIN_SECRET = 16


def read_secret(path: Path) -> bytes:
    """The secret in a file, which is made, readable by its owner alone, where there is none."""
    if not path.exists():
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
    if path.stat().st_mode & 0o044:
        path.chmod(path.stat().st_mode & 0o700)  # its owner's alone, whoever copied it here
    secret = path.read_bytes().strip()
    if len(secret) < MIN_SECRET:
        raise GraderError(f"{path} has {len(secret)} bytes; a secret needs {MIN_SECRET}. Delete it, and one is made.")
    return secret


def remember_secret(root: Path, path: Path) -> None:
    """Note where the secret is, so that `grader doctor --class` can look whether others could read it."""
    (root / HIDDEN / SECRET_PLACE).write_text(str(path.absolute()), encoding="utf-8")


def without_cases(root: Path, lesson: Lesson, roster: Path) -> list[str]:
    """The students of a roster who have no cases of their own of the lesson as it is."""
    made_from = Recording.read(lesson.recording).header["made_from"]
    return [name for name in students_of(roster) if not _has_cases(root, lesson, name, made_from)]


def students_of(roster: Path) -> list[str]:
    """The students of a roster, a CSV file with a column `id`, each once.

    Raises GraderError for a file that is no roster, and for a name that can't be a file's.
    """
    try:
        with roster.open(newline="", encoding="utf-8-sig") as file:
            names = [(row.get("id") or "").strip() for row in csv.DictReader(file)]
    except (OSError, ValueError, csv.Error) as error:
        raise GraderError(f"{roster} can't be read as a roster: {error}.") from None
    if not any(names):
        raise GraderError(f"{roster} names nobody: a roster is a CSV file with a column `id`.")
    if odd := [name for name in names if name and (name.startswith(".") or "/" in name or not name.isprintable())]:
        raise GraderError(f"{roster} has an id that can't name a file: {odd[0]!a}.")
    return list(dict.fromkeys(filter(None, names)))


def _has_cases(root: Path, lesson: Lesson, student: str, made_from: object) -> bool:
    path = _path(root, lesson, student)
    return path.exists() and Recording.read(path).header["made_from"] == made_from


def _path(root: Path, lesson: Lesson, student: str) -> Path:
    folder = root / HIDDEN
    return folder / lesson.name / f"{student}.safetensors" if student else folder / f"{lesson.name}.safetensors"


def record_hidden(
    root: Path,
    lesson: Lesson,
    secret: bytes,
    student: str = "",
    progress: Callable[[str], None] = lambda exercise: None,
) -> Path:
    """Record a lesson from a secret, for all students or for one, and return where."""
    word = hmac.new(secret, student.encode(), hashlib.sha256).hexdigest()
    path = _path(root, lesson, student)
    recording = record(lesson, progress, word)
    (root / HIDDEN).mkdir(mode=0o700, exist_ok=True)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    recording.write(path)
    path.chmod(0o600)
    return path
