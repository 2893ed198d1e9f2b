"""What of a class other people on the machine could read: solutions, hidden cases, the gradebook, each other's work.

It asks the permissions of files and of every folder above them; it looks at nothing that a root user, or an access
control list, allows beyond these.
"""

import grp
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from traitlets.config import Config

from grader.errors import GraderError
from grader.grading.nbgrader.gradebook_file import course_config, course_directory
from grader.grading.running.bundle import HIDDEN
from grader.package import package_folder

JOURNALS = "journal"
SECRET_PLACE = "secret-is-in.txt"  # beside hidden recordings: the path of what they were made from
SOLUTIONS_PACKAGE = "grader_solutions"


@dataclass(frozen=True)
class Exposed:
    """Something that others could read. who: "everybody on this machine", or a group with its members.

    secret: whether that must not be in any class; a group may be the instructors' own.
    """

    path: Path
    what: str
    who: str
    secret: bool


def exposed(root: Path, config: Config | None = None) -> list[Exposed]:
    """What others could read of the course at `root`; first what must not be."""
    found = []
    for path, what in _precious(root, config or course_config(root)):
        who, secret = _readers(path)
        if who:
            found.append(Exposed(path, what, who, secret))
    return sorted(found, key=lambda one: not one.secret)


def refuse_exposed(root: Path, config: Config | None = None) -> None:
    """Raise GraderError while everybody on this machine can read solutions, gradebook or other students' work."""
    if open_to_all := [one for one in exposed(root, config) if one.secret]:
        first = open_to_all[0]
        raise GraderError(
            f"Nothing was released: {first.who} could read {first.what}, {first.path}. Close it, with"
            f" `{closing(root, first.path)}`; `grader doctor --class` says what else is open."
        )


def closing(root: Path, path: Path) -> str:
    """The command that closes something exposed: the whole course, or the whole clone, where it is a part of one.

    With the folder of solutions closed alone, `git show` would still find them in the clone's history.
    """
    whole = (folder for folder in (root, package_folder().parent) if path != folder and path.is_relative_to(folder))
    closed = next(whole, path)
    return f"chmod {700 if closed.is_dir() else 600} {closed}"


def _precious(root: Path, config: Config) -> Iterator[tuple[Path, str]]:
    """What is there and no student's to read, with what it is."""
    directory = course_directory(root, config)
    url = str(directory.db_url)
    gradebook = Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else root / "gradebook.db"
    clone = package_folder().parent
    candidates = [
        (root / directory.source_directory, "the worked solutions"),
        *((folder / ".git", "the history, where `git show` finds the solutions") for folder in (root, clone)),
        (clone / "solutions", "the worked solutions that this package comes from"),
        (root / HIDDEN, "the hidden cases and their answers"),
        (gradebook, "the gradebook"),
        (root / directory.submitted_directory, "what students handed in"),
        (root / directory.autograded_directory, "graded submissions"),
        (root / directory.feedback_directory, "students' feedback"),
        (root / JOURNALS, "the journal of all verdicts"),
        *((path, "the secret that hidden cases are made from") for path in _secrets(root)),
    ]
    spec = find_spec(SOLUTIONS_PACKAGE)
    for place in spec.submodule_search_locations or () if spec is not None else ():
        candidates.append((Path(place), "the package of worked solutions"))
    seen = set()
    for path, what in candidates:
        if path.exists() and path.resolve() not in seen:
            seen.add(path.resolve())
            yield path.resolve(), what


def _secrets(root: Path) -> list[Path]:
    """Where the secret of hidden cases may be: where docs/class.md has it, and where it was when they were made."""
    try:
        noted = [Path((root / HIDDEN / SECRET_PLACE).read_text(encoding="utf-8").strip())]
    except OSError:
        noted = []
    return [Path.home() / "course.secret", *noted]


def open_exchange(root: Path, config: Config | None = None) -> str:
    """What is wrong with the exchange, in a sentence: where students could move the course's folder in it away."""
    place = (config or course_config(root)).Exchange.get("root", "/usr/local/share/nbgrader/exchange")
    try:
        mode = Path(str(place)).stat().st_mode
    except OSError:
        return ""
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        return f"Students could put another folder in place of the course's in {place}. Keep them: chmod 1777 {place}"
    return ""


def _readers(path: Path) -> tuple[str, bool]:
    """Who besides its owner could read what lies at `path`, and whether that is everybody; empty where nobody could."""
    if _lets_in(path, stat.S_IROTH, stat.S_IXOTH):
        return "everybody on this machine", True
    if _lets_in(path, stat.S_IRGRP | stat.S_IROTH, stat.S_IXGRP | stat.S_IXOTH):
        status = path.stat()
        others = _members(status.st_gid) - {_name(status.st_uid)}
        if others:
            name = _group(status.st_gid)
            return f"the group {name} ({', '.join(sorted(others)[:3])}{', ...' if len(others) > 3 else ''})", False
    return "", False


def _lets_in(path: Path, read: int, enter: int) -> bool:
    """Whether the bits of `path` allow reading it, and those of every folder above it allow getting there."""
    mode = path.stat().st_mode
    own = mode & enter if path.is_dir() else mode & read  # whoever may enter a folder reads files whose names they know
    return bool(own) and all(folder.stat().st_mode & enter for folder in path.parents)


def _members(gid: int) -> set[str]:
    try:
        named = set(grp.getgrgid(gid).gr_mem)
    except KeyError:
        named = set()
    return named | {user.pw_name for user in pwd.getpwall() if user.pw_gid == gid}


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
