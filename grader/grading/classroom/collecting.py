"""Collect what students have handed in, from nbgrader's exchange, without believing what they write there.

Everybody may write to the exchange's inbound folder, with any name, any content and any time. So it is the file system
that says whose a submission is, by its owner, and when it came, by the time of the last change in it (`st_ctime`, which
nobody but root can set). What can't be used is left out and named, and the rest is collected.
"""

import errno
import os
import pwd
import re
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path

from nbgrader.api import MissingEntry
from nbgrader.coursedir import CourseDirectory
from nbgrader.exchange.default import ExchangeCollect

from grader.errors import GraderError
from grader.grading.classroom.handed_in import Content, HandedIn, Unusable, kind_of, look_through, shown
from grader.grading.nbgrader.gradebook import TIMESTAMP, read_timestamp
from grader.grading.nbgrader.gradebook_file import course_config, course_directory, open_gradebook

MAX_TRIED = 50  # submissions of one student, from the last back to one that can be used
MAX_NAMED = 5  # files of a submission that were left out
MAX_REMARKS = 100
MAX_ID = 100
_ID = re.compile(rf"\w[\w.@-]{{0,{MAX_ID - 1}}}")  # nothing that a path, a pattern or a page could take for its own
_OURS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # what no student is to blame for


@dataclass(frozen=True)
class Collected:
    """A student's submission. time: when it came, in UTC. fresh: whether it was copied now. remarks: what is odd."""

    student: str
    time: datetime
    fresh: bool
    remarks: tuple[str, ...] = ()


@dataclass
class Taken:
    """What became of all that lay in the exchange. left_out: what was not collected, each with the reason."""

    submissions: list[Collected] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def remarks(self) -> list[str]:
        """All that a lecturer should know, a line each."""
        odd = [f"{one.student}: {remark}" for one in self.submissions for remark in one.remarks]
        said = [*odd, *(f"left out: {what}" for what in self.left_out)]
        more = len(said) - MAX_REMARKS
        return said if more <= 0 else [*said[:MAX_REMARKS], f"{more:,} more like these"]


def collect(root: Path, lesson: str, students: Sequence[str] = ()) -> Taken:
    """Collect the last submission of each student, of all if none is named, as nbgrader_config.py has it.

    Raises GraderError where the exchange can't be used, or is not nbgrader's own.
    """
    config = course_config(root)
    if "collect" in config.ExchangeFactory:
        raise GraderError("this course has an exchange that is not nbgrader's own: nbgrader collect takes from it.")
    directory = course_directory(root, config)
    directory.assignment_id = lesson
    return collect_from(ExchangeCollect(coursedir=directory, config=config), students)


def collect_from(exchange: ExchangeCollect, students: Sequence[str] = ()) -> Taken:
    """The same, as nbgrader's own Collect is configured: root, update, before_duedate, check_owner."""
    directory, done = exchange.coursedir, Taken()
    inbound = _inbound(exchange)
    by_student = _by_student(exchange, inbound, done)
    if missing := [name for name in students if name not in by_student]:
        raise GraderError(f"{missing[0]} has handed in nothing of {directory.assignment_id} that can be collected.")
    due = _due(directory) if exchange.before_duedate else None
    excluded = directory.student_id_exclude.split(",")
    for student, candidates in sorted(by_student.items()):
        wanted = student in students if students else fnmatch(student, directory.student_id or "*")
        if wanted and student not in excluded:
            _collect_one(exchange, student, candidates, due, done)
    return done


def _inbound(exchange: ExchangeCollect) -> Path:
    """The folder into which students hand in. Raises GraderError where there is none, or it is somebody else's."""
    directory = exchange.coursedir
    if not directory.course_id or not directory.assignment_id:
        raise GraderError("which course and which lesson? nbgrader_config.py names the one, the command the other.")
    inbound = Path(str(exchange.root)) / str(directory.course_id) / "inbound"
    for folder in (inbound.parent, inbound):
        try:
            status = folder.lstat()
        except OSError:
            raise GraderError(
                f"there is no folder {folder}: nothing was released to this exchange. Release the lesson first:"
                f" nbgrader release_assignment {directory.assignment_id}"
            ) from None
        mine = status.st_uid == os.geteuid() or directory.groupshared
        if not stat.S_ISDIR(status.st_mode) or not mine:
            raise GraderError(
                f"{folder} is not yours: somebody has put it in the place of the course's folder. Have its owner, or"
                " root, remove it. docs/class.md says which mode keeps the exchange from that."
            )
    return inbound


def _by_student(exchange: ExchangeCollect, inbound: Path, done: Taken) -> dict[str, list[HandedIn]]:
    """What was handed in, by whose it is; of each student the last first."""
    found: dict[str, list[HandedIn]] = {}
    for entry in _entries(inbound):
        claimed, is_lesson, _ = entry.name.partition(f"+{exchange.coursedir.assignment_id}+")
        if not is_lesson:
            continue
        try:
            status = entry.stat(follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                raise Unusable(f"it is {kind_of(status.st_mode)} and no folder")
            student, remark = _whose(claimed, status.st_uid, exchange.check_owner)
        except (OSError, Unusable) as error:
            done.left_out.append(f"{shown(entry.name)}: {_words(error)}")
        else:
            candidate = HandedIn(Path(entry.path), status.st_ctime_ns, status.st_uid, remark)
            found.setdefault(student, []).append(candidate)
    return {name: sorted(of, key=lambda one: one.time, reverse=True) for name, of in found.items()}


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise GraderError(f"{folder} can't be read: {error.strerror}.") from None


def _whose(claimed: str, uid: int, check_owner: bool) -> tuple[str, str]:
    """Whose a submission is, and what is odd about that. Raises Unusable where it can't be anybody's."""
    student = claimed
    if check_owner:
        try:
            student = pwd.getpwuid(uid).pw_name
        except KeyError:
            raise Unusable(f"its owner, the user {uid}, has no name on this machine") from None
    if not _ID.fullmatch(student):
        raise Unusable("a student's name has letters, digits, and . _ @ - in it, and nothing else")
    if student == claimed:
        return student, ""
    if uid in (0, os.geteuid()):
        raise Unusable(f"{student} has put it there in another's name; copy it to submitted/ if it is to count")
    return student, f"handed in under the name {shown(claimed)}, and taken as {student}'s, whose files they are"


def _words(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _due(directory: CourseDirectory) -> datetime | None:
    """The lesson's due date, in UTC, where the gradebook knows one."""
    with open_gradebook(Path(directory.root), directory.config) as (_, gradebook):
        try:
            due: datetime | None = gradebook.find_assignment(directory.assignment_id).duedate
        except MissingEntry:
            return None
    return due


def _collect_one(
    exchange: ExchangeCollect, student: str, candidates: list[HandedIn], due: datetime | None, done: Taken
) -> None:
    """Collect the last submission of a student that can be used; the last before the due date, where there is one."""
    usable: list[tuple[HandedIn, Content]] = []
    for candidate in candidates[:MAX_TRIED]:
        try:
            found = look_through(exchange.coursedir, candidate)
        except (OSError, Unusable) as error:
            done.left_out.append(f"{student}, {shown(candidate.path.name)}: {_words(error)}")
            continue
        usable.append((candidate, found))
        if due is None or _utc(found.time) <= due:
            break
    if not usable:
        return
    candidate, found = usable[-1] if due is None or _utc(usable[-1][1].time) <= due else usable[0]
    try:
        done.submissions.append(_fetch(exchange, student, candidate, found))
    except Unusable as error:
        done.left_out.append(f"{student}, {shown(candidate.path.name)}: {error}")


def _fetch(exchange: ExchangeCollect, student: str, candidate: HandedIn, found: Content) -> Collected:
    """Copy a submission to submitted/, unless what is there is as new."""
    directory = exchange.coursedir
    target = Path(directory.format_path(directory.submitted_directory, student, directory.assignment_id))
    time = _utc(found.time)
    remarks = [candidate.remark] if candidate.remark else []
    if os.path.lexists(target):
        there = read_timestamp(target / TIMESTAMP)[0]
        if there is not None and there > datetime.now(UTC).replace(tzinfo=None):
            there = None  # it was believed what a student had written
        newer = exchange.update and (there is None or time > there)
        if not newer and not (exchange.before_duedate and there != time):
            return Collected(student, there or time, False, tuple(remarks))
    new = target.with_name(f".{target.name}.new")
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        found = look_through(directory, candidate, new)
        time = _utc(found.time)
        _remove(new / TIMESTAMP)  # the student's, whatever it is
        (new / TIMESTAMP).write_text(f"{time:%Y-%m-%d %H:%M:%S.%f} UTC")
        if directory.groupshared:
            _share(new)
        _remove(target)
        new.replace(target)
    except OSError as error:
        if error.errno in _OURS:
            raise GraderError(f"{target} can't be written: {error.strerror}. Nothing of it has changed.") from None
        raise Unusable(f"it can't be copied: {error.strerror}") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)
    if found.left_out:
        more = ", ..." if len(found.left_out) > MAX_NAMED else ""
        remarks.append(f"{len(found.left_out)} left out: {', '.join(found.left_out[:MAX_NAMED])}{more}")
    return Collected(student, time, True, tuple(remarks))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _share(folder: Path) -> None:
    """Let the instructors' group write, as nbgrader does where a course is shared by one."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | (0o2070 if path.is_dir() else 0o060))


def _utc(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).replace(tzinfo=None)
