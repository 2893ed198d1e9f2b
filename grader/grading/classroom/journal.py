"""The audit log: every verdict, by whom and when and in which jail, and every score that it replaced.

One JSON object a line in ``journal/<lesson>.jsonl``; lines are added and never changed. It is what lets a run that
was killed go on where it was, and an unchanged submission be graded for free.
"""

import contextlib
import dataclasses
import fcntl
import getpass
import json
import os
import platform
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from grader.digest import digest
from grader.errors import GraderError
from grader.grading.running.results import ExerciseResult, SubmissionResult
from grader.report import Line


def key_of(**parts: str) -> str:
    """What a grade depends on, in one hash: the same key, the same grade."""
    text = json.dumps(parts, sort_keys=True)
    return digest(text)


class Journal:
    """The journal of one lesson, open for one run. Use `open_journal`."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._results: dict[tuple[str, str], int] = {}
        self._stored: dict[str, str] = {}
        self._submissions: dict[str, str] = {}
        self._about: dict[str, dict[str, Any]] = {}
        self._marks: dict[str, float] = {}
        for offset, entry in _entries(path):
            self._index(offset, entry)

    def result(self, student: str, key: str) -> SubmissionResult | None:
        """What a student's submission was given under this key, if it was graded."""
        offset = self._results.get((student, key))
        if offset is None:
            return None
        with self.path.open("rb") as file:
            file.seek(offset)
            return _decoded(json.loads(file.readline())["result"])

    def is_stored(self, student: str, key: str) -> bool:
        """Whether the gradebook holds the grade under this key, and nothing newer."""
        return self._stored.get(student) == key

    def stored_submission(self, student: str) -> str | None:
        """The digest of the submission whose grade the gradebook holds; None where that is not known."""
        return self._submissions.get(student)

    def about(self, student: str) -> Mapping[str, Any] | None:
        """The circumstances of a student's last verdict, as `graded` was told them; None where there is none."""
        return self._about.get(student)

    def mark(self, student: str) -> float | None:
        """The points that the gradebook held for a student at the end of the last run; None before the first."""
        return self._marks.get(student)

    def graded(self, student: str, key: str, result: SubmissionResult, about: Mapping[str, Any]) -> None:
        """Write down a verdict."""
        self._add({"entry": "graded", "student": student, "key": key, **about, "result": _encoded(result)})

    def stored(self, student: str, key: str, submission: str, **about: Any) -> None:
        """Write down that a grade is in the gradebook."""
        self._add({"entry": "stored", "student": student, "key": key, "submission": submission, **about})

    def seen(self, student: str, mark: float) -> None:
        """Write down that the points in the gradebook have become others by hand."""
        self._add({"entry": "seen", "student": student, "mark": mark})

    def withdrawn(self, student: str, why: str, **about: Any) -> None:
        """Write down that the scores in the gradebook were set to 0."""
        self._add({"entry": "withdrawn", "student": student, "why": why, **about})

    def failed(self, student: str, why: str) -> None:
        """Write down that a submission could not be graded; the gradebook has no score of it."""
        self._add({"entry": "failed", "student": student, "why": why})

    def _add(self, entry: dict[str, Any]) -> None:
        entry = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "who": _who(), **entry}
        offset = os.lseek(self._fd, 0, os.SEEK_END)
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._fd, line) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, offset)  # half a line would swallow the next
            raise GraderError(
                f"{self.path} can't be written: {error.strerror}. What it holds is kept; put that right, and run this"
                " again: it goes on from there."
            ) from None
        self._index(offset, entry)

    def _index(self, offset: int, entry: dict[str, Any]) -> None:
        kind, student = entry.get("entry"), entry.get("student", "")
        if kind == "graded":
            self._results[student, entry["key"]] = offset
            self._about[student] = {name: value for name, value in entry.items() if name != "result"}
        elif kind == "stored":
            self._stored[student] = entry["key"]
            self._submissions[student] = entry["submission"]
        elif kind in ("withdrawn", "failed"):
            self._stored.pop(student, None)
        if kind in ("stored", "seen") and "mark" in entry:  # older entries have none
            self._marks[student] = entry["mark"]


@contextlib.contextmanager
def open_journal(path: Path) -> Iterator[Journal]:
    """The journal at `path`. Raises GraderError while another run has it open, and where it can't be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise GraderError(f"The journal {path} can't be opened: {error.strerror}. Nothing was graded.") from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise GraderError(f"Another run is grading this lesson: it has {path} open. Wait for it to end.") from None
        _end_last_line(fd)
        yield Journal(path, fd)
    finally:
        os.close(fd)


def _end_last_line(fd: int) -> None:
    """A run that was killed while it wrote leaves half a line: what is added starts on its own."""
    size = os.lseek(fd, 0, os.SEEK_END)
    if size and os.pread(fd, 1, size - 1) != b"\n":
        os.write(fd, b"\n")


def _entries(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    offset = 0
    with path.open("rb") as file:
        for line in file:
            with contextlib.suppress(ValueError):  # half a line
                entry = json.loads(line)
                if isinstance(entry, dict):
                    yield offset, entry
            offset += len(line)


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{platform.node()}"


def _encoded(result: SubmissionResult) -> dict[str, Any]:
    return dataclasses.asdict(result)


def _decoded(encoded: dict[str, Any]) -> SubmissionResult:
    exercises = tuple(
        ExerciseResult(**{**e, "lines": tuple(Line(**line) for line in e["lines"])}) for e in encoded["exercises"]
    )
    return SubmissionResult(
        **{**encoded, "exercises": exercises, "notes": tuple(encoded["notes"]), "ran": tuple(encoded["ran"])}
    )
