"""The course that a command is about."""

from pathlib import Path
from typing import TYPE_CHECKING

from grader.errors import GraderError
from grader.package import package_folder

if TYPE_CHECKING:
    from grader.lessons.lesson import Lesson

FAILED = 1


def find_project(start: Path) -> Path:
    """The closest folder, from `start` upwards, that holds the course; else where this package was installed from."""
    for folder in (start, *start.parents, package_folder().parent):
        if (folder / "nbgrader_config.py").is_file():
            return folder
    raise GraderError(f"no course found in {start} or above it. Go to the project's folder and try again.")


def choose_lessons(root: Path, names: list[str], source: str = "solutions") -> list["Lesson"]:
    """The lessons of those names, which may also be paths as a shell completes them; all of them for no names.

    source: the folder that they are in."""
    from grader.lessons.lesson import lessons

    known = {lesson.name: lesson for lesson in lessons(root, source)}
    if not known:
        raise GraderError(f"{root / source} has no lessons.")
    wanted = [Path(name).name for name in names]
    for name in wanted:
        if name not in known:
            raise GraderError(f"there is no lesson `{name}`. There are: {', '.join(known)}.")
    return [known[name] for name in wanted] if names else list(known.values())
