"""A class on one machine: people with homes of their own, and with accounts where this process may give these."""

import contextlib
import multiprocessing
import os
import pwd
import shutil
import stat
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from toy_course import PROJECT

from grader.grading.classroom import exposure
from grader.grading.classroom.new_course import new_course

COURSE_ID = "cs101"
PATIENCE = 300  # seconds for what would never come; a busy machine may take a minute


@dataclass(frozen=True)
class Person:
    """Somebody with a home. user: whose rights they have, where this process may give these; else only a name."""

    name: str
    home: Path
    user: pwd.struct_passwd | None

    @property
    def environment(self) -> dict[str, str]:
        """What a program of theirs finds in its environment, besides what this process has."""
        return {
            "HOME": str(self.home),
            "LOGNAME": self.name,
            "USER": self.name,
            "JUPYTER_DATA_DIR": str(self.home / "data"),
            "JUPYTER_CONFIG_DIR": str(self.home / ".jupyter"),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        }

    def runs(self, *commands: list[str], cwd: Path | None = None, then: Callable[[], None] | None = None) -> str:
        """What nbgrader says to these commands, one after the other; it must succeed."""
        with tempfile.TemporaryFile("w+") as said:
            child = multiprocessing.get_context("fork").Process(target=self._run, args=(commands, cwd, then, said))
            child.start()
            child.join(PATIENCE)
            said.seek(0)
            text = said.read()
        assert child.exitcode == 0, text
        return text

    def _run(self, commands, cwd, then, said) -> None:  # type: ignore[no-untyped-def]
        """In a process of its own: become the person, and run."""
        for fd in (1, 2):
            os.dup2(said.fileno(), fd)
        sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1)
        try:
            if self.user is not None:
                os.setgroups([])
                os.setgid(self.user.pw_gid)
                os.setuid(self.user.pw_uid)
            elif self.name != "lecturer":  # nbgrader asks the system for names
                mine = pwd.getpwuid(os.getuid())
                pwd.getpwuid = lambda uid: pwd.struct_passwd((self.name, *mine[1:]))
            os.environ |= self.environment
            os.chdir(cwd or self.home)
            for command in commands:
                nbgraders_command(command)
            if then is not None:
                then()
        except BaseException:
            traceback.print_exc()
            sys.stdout.flush()
            os._exit(1)
        sys.stdout.flush()
        os._exit(0)


def nbgraders_command(arguments: list[str]) -> None:
    """What `nbgrader` does, in this process, as nbgrader's own tests run it."""
    from jupyter_core.application import NoStart
    from nbgrader.apps import NbGraderApp

    nbgrader = NbGraderApp.instance()
    try:
        nbgrader.initialize(arguments)
        nbgrader.start()
    except NoStart:  # the command's own way to say that a subcommand has done it
        pass
    except SystemExit as end:
        if end.code not in (0, None):
            raise
    finally:
        NbGraderApp.clear_instance()
        if nbgrader.subapp is not None:
            type(nbgrader.subapp).clear_instance()


def may_become_others(*, to_start: bool = False) -> bool:
    """Whether this process can give its children another user, who can then import what this one imported.

    to_start: and who can start a Python of their own."""
    needed = [Path(sys.prefix), PROJECT, *([Path(sys.executable).resolve()] if to_start else [])]
    return os.geteuid() == 0 and all(exposure._lets_in(path, stat.S_IROTH, stat.S_IXOTH) for path in needed)


@dataclass(frozen=True)
class Class:
    """A lecturer, their course's folder, and students by name."""

    root: Path
    lecturer: Person
    students: dict[str, Person]


@contextlib.contextmanager
def a_class(course: Path, lesson: str, names: Iterable[str], *, to_start: bool = False) -> Iterator[Class]:
    """A class that is taught a lesson of the project at `course`, with an exchange; gone afterwards.

    names: of accounts, for students. to_start: whether they start programs, as `may_become_others` has it.
    """
    place = Path(tempfile.mkdtemp(prefix="grader-class-"))
    place.chmod(0o755)
    exchange = place / "exchange"
    exchange.mkdir()
    exchange.chmod(0o777)
    root = new_course(place / "course", course, COURSE_ID, exchange, [lesson])
    lecturer = person("lecturer", place, None)
    real = may_become_others(to_start=to_start)
    students = {name: person(name, place, pwd.getpwnam(name) if real else None) for name in names}
    if not real:  # then everything is this user's: the names that folders have are all that there is
        with (root / "nbgrader_config.py").open("a") as file:
            file.write("\nc.ExchangeCollect.check_owner = False\n")
    for student in students.values():
        config = f'c = get_config()\nc.Exchange.root = "{exchange}"\nc.CourseDirectory.course_id = "{COURSE_ID}"\n'
        (student.home / ".jupyter" / "nbgrader_config.py").write_text(config)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(exposure, "package_folder", lambda: root / "grader")  # tests run in a checkout, open or not
            yield Class(root, lecturer, students)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def person(name: str, place: Path, user: pwd.struct_passwd | None) -> Person:
    """Somebody with a new home below `place`."""
    home = place / name
    for folder in (home, home / ".jupyter", home / "data"):
        folder.mkdir(mode=0o700)
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
    return Person(name, home, user)
