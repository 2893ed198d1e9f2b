"""What a worker does: keep a jail for the lesson it is grading, and grade one submission after the other.

A worker is a thread: of the grader's own process, of another, or of a Dask worker. Each has its own jail.
"""

import atexit
import hashlib
import shutil
import tempfile
import threading
from dataclasses import dataclass, replace
from pathlib import Path

from grader.errors import GraderError
from grader.grading.kit import Kit
from grader.grading.run import Result, grade
from grader.grading.sandbox.confinement import prove
from grader.grading.sandbox.jail import Jail, JailError
from grader.grading.submission import Submission


@dataclass(frozen=True)
class _Workplace:
    kit: Kit
    jail: Jail
    folder: Path


_here = threading.local()
_workplaces: list[_Workplace] = []
_lock = threading.Lock()


def grade_one(kit: Kit, submission: Submission, hidden: bytes | None = None) -> Result:
    """Grade a submission in this thread's jail. hidden: the recording that scores, where it is this student's own."""
    place = _workplace(kit)
    own = place.kit if hidden is None else replace(kit, hidden=hidden)
    return grade(own, submission, place.jail)


def prove_jail(kit: Kit) -> None:
    """Start this thread's jail, and try to escape from it. Raises JailError where there is none, or it does not hold."""
    _workplace(kit)


def close_jails() -> None:
    """End every jail of this process."""
    with _lock:
        for place in _workplaces:
            place.jail.close()
            shutil.rmtree(place.folder, ignore_errors=True)
        _workplaces.clear()
    _here.__dict__.clear()


atexit.register(close_jails)


def _workplace(kit: Kit) -> _Workplace:
    digest = _digest(kit)
    place: _Workplace | None = getattr(_here, "place", None)
    if place is not None and getattr(_here, "digest", "") == digest and place in _workplaces:
        return place
    folder = Path(tempfile.mkdtemp(prefix="grader-lesson-"))
    folder.chmod(0o755)
    jail = Jail(kit.unpack_files(folder / "lesson"), kit.limits, kit.jail)
    try:
        _prove(jail)
    except GraderError:
        jail.close()
        shutil.rmtree(folder, ignore_errors=True)
        raise
    place = _Workplace(kit, jail, folder)
    with _lock:
        _workplaces.append(place)
    _here.place, _here.digest = place, digest
    return place


def _digest(kit: Kit) -> str:
    return hashlib.sha256(f"{kit.plan.digest} {kit.recording_digest} {kit.limits} {kit.jail}".encode()).hexdigest()


def _prove(jail: Jail) -> None:
    jail.start()
    if jail.kind == "none":
        return
    if escaped := prove(jail):
        raise JailError(
            f"The jail does not hold here: submitted code could {', '.join(escaped)}. Nothing was graded."
            " docs/grading.md has a container recipe in which it does."
        )
