"""What can be seen from inside: Python, its packages without the reference, and the lesson's files. Nothing else.

/                 a small file system in memory, read-only
<Python>, <site-packages>, system libraries               where they are outside, read-only
<site-packages>/transformers                              covered by an empty folder
<grader>                                                  a copy of what lessons import of it, and nothing else
/lesson           the lesson's files, without notebook and recording, read-only
/dev              null, zero, random, urandom
/scratch          the child's own, in memory, gone with it; /tmp leads there
"""

import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from grader.grading.sandbox import linux
from grader.package import package_folder

HIDDEN_PACKAGES = ("transformers",)
# What no solution reads. How fast a file is read tells whether the system has it in memory, so each file that nothing
# else reads could carry a bit from one child to the next.
UNREAD = (
    *("torch/include", "torch/share", "torch/test", "torch/bin", "nvidia/*/include", "numpy/_core/include"),
    *("jedi/third_party", "babel/locale-data", "mypy", "mypyc", "pip", "jupyterlab", "notebook", "nbgrader"),
    *("playwright", "debugpy", "sqlalchemy", "alembic", "distributed", "hypothesis", "_pytest", "ruff"),
    *("test", "idlelib", "lib2to3", "tkinter", "ensurepip", "turtledemo", "config-*"),  # of the standard library
)
# What submissions reach of this package, beside its public names: the instruments, and what these import.
REACHED = (
    *("__init__", "instruments", "calls", "columns", "config", "devices", "errors", "lazy", "modes", "names"),
    *("package", "tolerance"),
)
DEVICES = ("null", "zero", "random", "urandom")
LESSON = Path("/lesson")
SCRATCH = Path("/scratch")


@dataclass(frozen=True)
class View:
    """Folders to be shown where they are, folders to be covered, and the folder of this package, shown in part."""

    shown: tuple[Path, ...]
    covered: tuple[Path, ...]
    package: Path


def of_this_python() -> View:
    """What the Python that runs this needs."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = [Path(sysconfig.get_path(name)) for name in names]
    folders += [Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    own = Path(sys.base_prefix) / "lib"
    others = [own / path.name for path in own.glob("python3.*")] if own.parent != Path("/usr") else []
    libraries = [*_system_libraries(), *([own] if own.parent != Path("/usr") else [])]
    shown = _outermost([folder for folder in (*folders, *libraries) if folder.is_dir()])
    left_out = (*HIDDEN_PACKAGES, *UNREAD)
    covered = [path for folder in folders for name in left_out for path in folder.glob(name) if path.is_dir()]
    covered += [
        folder for path in others for folder in (path, path / "site-packages") if not _holds_any(folder, folders)
    ]
    return View(tuple(shown), tuple(_outermost(covered)), package_folder())


def _system_libraries() -> list[Path]:
    """The folders of the system's libraries: those of this architecture alone, where these have their own."""
    architecture = sysconfig.get_config_var("MULTIARCH") or ""
    inside = [Path(folder, architecture) for folder in ("/lib", "/usr/lib") if architecture]
    found = [folder for folder in inside if folder.is_dir()] or [Path("/lib"), Path("/usr/lib")]
    return [*found, Path("/lib64"), Path("/usr/lib64")]


def _holds_any(folder: Path, folders: list[Path]) -> bool:
    """Whether a folder is one of these, holds one, or is not there."""
    return not folder.is_dir() or any(other == folder or folder in other.parents for other in folders)


def _outermost(folders: list[Path]) -> list[Path]:
    unique = list(dict.fromkeys(folders))
    return [folder for folder in unique if not any(other in folder.parents for other in unique)]


def enter(view: View, lesson: Path, mount_point: Path) -> None:
    """Make the view the root of this process. It must have a mount namespace of its own."""
    linux.mount_private()
    linux.mount_tmpfs(mount_point, "size=1m,nr_inodes=2048,mode=755")
    for folder in view.shown:
        _show(folder, mount_point / folder.relative_to("/"))
    for folder in view.covered:
        cover = mount_point / folder.relative_to("/")
        linux.mount_tmpfs(cover, "size=4k,nr_inodes=1,mode=000")
        linux.make_read_only(cover)
    _show_reached(view.package, mount_point / view.package.relative_to("/"))
    _show(lesson, mount_point / LESSON.relative_to("/"))
    (mount_point / "dev").mkdir()
    for name in DEVICES:
        target = mount_point / "dev" / name
        target.touch()
        linux.bind(Path("/dev", name), target, device=True)
    (mount_point / SCRATCH.name).mkdir()
    if not (mount_point / "tmp").exists():  # but for a grader that is itself installed below /tmp
        (mount_point / "tmp").symlink_to(SCRATCH)
    linux.make_read_only(mount_point)
    linux.pivot_root(mount_point)


def _show_reached(package: Path, target: Path) -> None:
    """What submissions reach of this package, in a folder that covers it where it is among what is shown."""
    target.mkdir(parents=True, exist_ok=True)
    linux.mount_tmpfs(target, "size=4m,nr_inodes=512,mode=755")
    for name in REACHED:
        if (package / name).is_dir():
            shutil.copytree(package / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(package / f"{name}.py", target)
    linux.make_read_only(target)


def _show(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    linux.bind(source.resolve(), target)


def current_ids() -> tuple[int, int]:
    """Who this process is."""
    return os.geteuid(), os.getegid()
