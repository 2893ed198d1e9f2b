"""Makes a process lack what only a Unix has, as on plain Windows. It does so with this folder first in PYTHONPATH.

Python's own library and other packages keep it: on a Unix they rely on it, and on Windows they take other ways. It is
gone for the course: for the package `grader`, for notebooks, and for what runs as a script.
"""

import builtins
import ctypes
import os
import signal
import sys
import types

MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "pyseccomp", "resource", "syslog", "termios", "tty"}
NAMES = {
    os: "chown chroot fchmod fork forkpty getegid geteuid getgid getgroups getpgid getpgrp getsid getuid initgroups"
    " killpg lchown mkfifo nice posix_spawn register_at_fork sched_getaffinity sched_yield setegid seteuid setgid"
    " setpgid setsid setuid statvfs sysconf uname wait3 wait4 WNOHANG O_DIRECTORY O_NOFOLLOW O_CLOEXEC",
    signal: "SIGALRM SIGCHLD SIGHUP SIGKILL SIGQUIT SIGUSR1 SIGUSR2 alarm pthread_kill pthread_sigmask setitimer",
}


def is_ours(frame: types.FrameType) -> bool:
    """Whether code of the course asks."""
    name = frame.f_globals.get("__name__", "")
    return name == "__main__" or name.partition(".")[0] == "grader"


def without(module: types.ModuleType, names: set[str]) -> type[types.ModuleType]:
    """A module's class in which those names are missing for the course."""

    class Lacking(types.ModuleType):
        def __getattribute__(self, name: str) -> object:
            if name in names and is_ours(sys._getframe(1)):
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}: this is no Unix")
            return super().__getattribute__(name)

    return Lacking


def on_windows(name: str, *arguments: object, **named: object) -> types.ModuleType:
    """`import`, for which modules of a Unix are missing for the course."""
    if name.partition(".")[0] in MODULES and is_ours(sys._getframe(1)):
        raise ModuleNotFoundError(f"No module named {name!r}: this is no Unix", name=name)
    return real_import(name, *arguments, **named)  # type: ignore[arg-type]


class Library(ctypes.CDLL):
    """`ctypes.CDLL`, for which there is no libc."""

    def __init__(self, name: str | None, *arguments: object, **named: object) -> None:
        if is_ours(sys._getframe(1)) and (name is None or str(name).startswith("libc")):
            raise TypeError("there is no libc: this is no Unix")
        super().__init__(name, *arguments, **named)  # type: ignore[arg-type]


for lacking, missing in NAMES.items():
    lacking.__class__ = without(lacking, set(missing.split()))
real_import = builtins.__import__
builtins.__import__ = on_windows  # type: ignore[assignment]
ctypes.CDLL = Library  # type: ignore[misc]
