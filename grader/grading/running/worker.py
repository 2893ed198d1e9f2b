"""What a worker does: keep a jail for the lesson it is grading, and grade one submission after the other.

A worker is a thread: of the grader's own process, of another, or of a Dask worker. A jail that is free is used
again, so that a process has as many as it has workers.
"""

import atexit
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from grader.digest import digest
from grader.grading.running.bundle import Bundle
from grader.grading.running.results import SubmissionResult
from grader.grading.running.run import grade
from grader.grading.running.submission import Submission
from grader.grading.sandbox.confinement import prove
from grader.grading.sandbox.jail import Jail, JailError
from grader.grading.sandbox.launch import end_early, take_early


@dataclass(frozen=True, eq=False)
class _Workplace:
    bundle: Bundle
    jail: Jail
    folder: Path


_all: list[_Workplace] = []
_free: dict[str, list[_Workplace]] = {}
_lock = threading.Lock()


def grade_one(bundle: Bundle, submission: Submission, hidden: bytes | None = None) -> SubmissionResult:
    """Grade a submission in a jail of this process. hidden: the recording that scores, where it is their own."""
    with _workplace(bundle) as place:
        own = place.bundle if hidden is None else replace(bundle, hidden=hidden)
        return grade(own, submission, place.jail)


def prove_jail(bundle: Bundle) -> None:
    """Start a jail, and try to escape from it. Raises JailError where there is none, or it does not hold."""
    with _workplace(bundle):
        pass


def stop_jails() -> None:
    """Kill what runs in the jails of this process, from any thread: who waits for it gets a JailError."""
    with _lock:
        for place in _all:
            place.jail.stop()


def close_jails() -> None:
    """End every jail of this process."""
    with _lock:
        for place in _all:
            place.jail.close()
            shutil.rmtree(place.folder, ignore_errors=True)
        _all.clear()
        _free.clear()
    end_early()


atexit.register(close_jails)


@contextmanager
def _workplace(bundle: Bundle) -> Iterator[_Workplace]:
    """A free jail for this bundle, or a new one."""
    digest = _digest(bundle)
    with _lock:
        place = _free[digest].pop() if _free.get(digest) else None
    place = place or _new_workplace(bundle)
    try:
        yield place
    finally:
        with _lock:
            if place in _all:
                _free.setdefault(digest, []).append(place)


def _new_workplace(bundle: Bundle) -> _Workplace:
    folder = Path(tempfile.mkdtemp(prefix="grader-lesson-"))
    folder.chmod(0o755)
    files, cells = bundle.unpack_files(folder / "lesson"), bundle.lessons_own_cells
    early = take_early(files, cells, bundle.limits) if bundle.jail == "namespaces" else None
    if early is not None and early.place is not None:
        shutil.rmtree(folder, ignore_errors=True)
        folder = early.place
    jail = Jail(folder / "lesson", bundle.limits, bundle.jail, cells, early)
    try:
        _prove(jail)
    except BaseException:
        jail.close()
        shutil.rmtree(folder, ignore_errors=True)
        raise
    place = _Workplace(bundle, jail, folder)
    with _lock:
        _all.append(place)
    return place


def _digest(bundle: Bundle) -> str:
    return digest(f"{bundle.plan.digest} {bundle.recording_digest} {bundle.limits} {bundle.jail}")


def _prove(jail: Jail) -> None:
    jail.start()
    if jail.kind == "none":
        return
    if escaped := prove(jail):
        raise JailError(
            f"The jail does not hold here: submitted code could {', '.join(escaped)}. Nothing was graded."
            " docs/grading.md has a container recipe in which it does."
        )
