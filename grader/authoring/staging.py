"""A copy of a lesson, in which it is built, and the way back."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from grader.errors import GraderError
from grader.lessons.lesson import Lesson, is_beside

LEFT_BY_PROGRAMS = (".*", "__pycache__", "*.tmp")


@contextmanager
def staged_copy(lesson: Lesson) -> Iterator[Lesson]:
    """A copy of the lesson in a folder laid out as nbgrader expects it; errors name files below the course's root."""
    with TemporaryDirectory(prefix="grader-build-") as temporary:
        root = Path(temporary).resolve()
        copy = root / "solutions" / lesson.name
        shutil.copytree(lesson.folder, copy, ignore=shutil.ignore_patterns(*LEFT_BY_PROGRAMS))
        _copy_other_twins(lesson, copy.parent)
        try:
            yield Lesson(copy)
        except GraderError as error:
            message = str(error).replace(f"{root}/", "").replace(f"{root_of(lesson)}/", "")
            raise type(error)(message) from error


def _copy_other_twins(lesson: Lesson, solutions: Path) -> None:
    """What given cells are filled from."""
    for folder in lesson.folder.parent.iterdir():
        if folder.is_dir() and folder != lesson.folder:
            (solutions / folder.name).mkdir()
            for path in (path for path in folder.glob("*.py") if not is_beside(path.name)):
                shutil.copyfile(path, solutions / folder.name / path.name)


def root_of(lesson: Lesson) -> Path:
    return lesson.folder.parent.parent


def course_folder(lesson: Lesson) -> Path:
    return root_of(lesson) / "course" / lesson.name


def shown_path(path: Path, lesson: Lesson) -> Path:
    return path.relative_to(root_of(lesson))


def files_below(folder: Path) -> list[Path]:
    """The files below `folder`, but for what programs leave there."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in paths if not any(map(_left_by_programs, path.relative_to(folder).parts))]


def _left_by_programs(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in LEFT_BY_PROGRAMS)


def move_aside(path: Path) -> Path:
    """Rename a notebook to the first free ``<name>-backup-N.ipynb`` beside it."""
    backups = (path.with_stem(f"{path.stem}-backup-{n}") for n in count(1))
    return path.rename(next(backup for backup in backups if not backup.exists()))


def install_files(files: Sequence[Path], source: Path, target: Path) -> list[Path]:
    """Copy the files that differ, each whole or not at all; returns where they went."""
    changed = []
    for file in files:
        path = target / file.relative_to(source)
        if path.exists() and path.read_bytes() == file.read_bytes():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        shutil.copyfile(file, temporary)
        temporary.replace(path)
        changed.append(path)
    return changed
