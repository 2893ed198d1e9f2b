"""What lies in one folder that a student has handed in: looked through and copied, and believed in nothing.

Only ordinary files of the folder's own owner are taken, through descriptors, so that nothing can be put in their place
meanwhile. Links, pipes, devices and other people's files are named.
"""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from nbgrader.coursedir import CourseDirectory

MAX_ENTRIES = 5_000  # files and folders in a submission
MAX_DEPTH = 20
KB = 1000
_COPY = 1 << 20


class Unusable(Exception):
    """A submission that can't be collected: why."""


@dataclass(frozen=True)
class HandedIn:
    """A folder that somebody handed in. time: when that folder was last changed, in nanoseconds. owner: a user's id."""

    path: Path
    time: int
    owner: int
    remark: str = ""


@dataclass
class Content:
    """What was seen of a submission's content. time: of the last change. left_out: files that are no use."""

    time: int = 0
    size: int = 0
    entries: int = 0
    left_out: list[str] = field(default_factory=list)


def look_through(directory: CourseDirectory, handed_in: HandedIn, into: Path | None = None) -> Content:
    """What a submission holds that can be collected; copied to the folder `into`, where there is one.

    Raises Unusable for a submission that can't be read, or is larger than nbgrader's configuration lets it be."""
    found = Content()
    for folder, inside, names in _walk(handed_in, directory, found):
        if into is not None:
            (into / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            try:
                content = _open(name, inside, handed_in.owner, directory.max_file_size * KB)
            except Unusable as error:
                found.left_out.append(f"{shown(name)} ({error})")
                continue
            with os.fdopen(content, "rb") as file:
                if into is not None:
                    _copy(file.fileno(), into / folder / name, directory.max_file_size * KB)
                status = os.fstat(file.fileno())  # after it was read: a later change does not count
            found.time = max(found.time, status.st_ctime_ns)
            found.size += status.st_size
        if found.size > directory.max_dir_size * KB:
            raise Unusable(f"it has more than {directory.max_dir_size / KB:,.0f} MB (CourseDirectory.max_dir_size)")
    return found


def _walk(handed_in: HandedIn, directory: CourseDirectory, found: Content) -> Iterator[tuple[str, int, list[str]]]:
    """The folders of a submission, each with a descriptor and the names of what is in it that is no folder."""

    def stop(error: OSError) -> None:
        raise error

    try:
        for folder, inner, names, inside in os.fwalk(handed_in.path, onerror=stop, follow_symlinks=False):
            status, relative = os.fstat(inside), os.path.relpath(folder, handed_in.path)
            found.time = max(found.time, status.st_ctime_ns)
            found.entries += len(inner) + len(names)
            if status.st_uid != handed_in.owner:
                raise Unusable("a folder in it is somebody else's")
            if found.entries > MAX_ENTRIES or relative.count(os.sep) >= MAX_DEPTH:
                raise Unusable(f"it has more than {MAX_ENTRIES:,} files, or {MAX_DEPTH} folders in each other")
            inner[:] = [name for name in inner if not any(fnmatch(name, one) for one in directory.ignore)]
            links = [
                name for name in inner if stat.S_ISLNK(os.stat(name, dir_fd=inside, follow_symlinks=False).st_mode)
            ]
            yield relative, inside, [*(name for name in names if not _is_ignored(directory, name)), *links]
    except OSError as error:
        raise Unusable(f"it can't be read: {error.strerror}") from None


def _is_ignored(directory: CourseDirectory, name: str) -> bool:
    """Whether nbgrader's configuration leaves a file out."""
    return any(fnmatch(name, one) for one in directory.ignore) or not any(fnmatch(name, o) for o in directory.include)


def _open(name: str, inside: int, owner: int, most: int) -> int:
    """A descriptor of an ordinary file of the owner's. Raises Unusable for anything else."""
    try:
        mode = os.stat(name, dir_fd=inside, follow_symlinks=False).st_mode
        if not stat.S_ISREG(mode):
            raise Unusable(kind_of(mode))
        content = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=inside)
    except OSError as error:
        raise Unusable(error.strerror or "can't be read") from None
    status = os.fstat(content)
    wrong = "" if stat.S_ISREG(status.st_mode) else kind_of(status.st_mode)
    wrong = wrong or ("somebody else's" if status.st_uid != owner else "")
    wrong = wrong or (f"{status.st_size / 1e6:,.0f} MB" if status.st_size > most else "")
    if wrong:
        os.close(content)
        raise Unusable(wrong)
    return content


def _copy(content: int, path: Path, most: int) -> None:
    """Write what a descriptor gives to a new file: `most` bytes, should it grow meanwhile."""
    with path.open("xb") as file:
        while most > 0 and (piece := os.read(content, min(_COPY, most))):
            file.write(piece)
            most -= len(piece)


def kind_of(mode: int) -> str:
    kinds = {stat.S_IFLNK: "a link", stat.S_IFREG: "a file", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def shown(name: str) -> str:
    """What somebody else has chosen, as a terminal, a log or a page may show it."""
    return re.sub(r"[^\w .+@:=-]", "?", name[:80], flags=re.ASCII) + ("..." if len(name) > 80 else "")
