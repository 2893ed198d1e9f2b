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
# What submissions reach of this package, beside its public names: the instruments, and what these import.
REACHED = (
    *("__init__", "instruments", "calls", "columns", "config", "devices", "errors", "lazy", "modes", "names"),
    *("package", "tolerance"),
)
DEVICES = ("null", "zero", "random", "urandom")
SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
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
    folders += [Path(sys.base_prefix) / "lib", *map(Path, SYSTEM_LIBRARIES)]
    shown = _outermost([folder for folder in folders if folder.is_dir()])
    covered = [folder / name for folder in folders for name in HIDDEN_PACKAGES if (folder / name).is_dir()]
    return View(tuple(shown), tuple(dict.fromkeys(covered)), package_folder())


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
