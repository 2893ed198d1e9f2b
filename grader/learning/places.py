"""Where the released lessons are: in a clone, or installed. It imports nothing that a quick command would wait for."""

from pathlib import Path

from grader.errors import GraderError
from grader.package import package_folder

IN_A_CLONE = "course"
OF_A_CLONE = "nbgrader_config.py"  # a clone's folder, and no other, has one
SYLLABUS = "README.md"


def released_folder(start: Path) -> Path:
    """The folder of the release that goes with `start`: of the clone around it, else what was installed.

    Raises GraderError where there is neither.
    """
    clone, installed = clone_around(start), package_folder() / "learning" / IN_A_CLONE
    clones = [clone / IN_A_CLONE] if clone else []
    for folder in (*clones, installed, package_folder().parent / IN_A_CLONE):
        if (folder / SYLLABUS).is_file():
            return folder
    raise GraderError(
        "no released lessons are here. In a clone `grader build` makes them; otherwise install the course again."
    )


def clone_around(start: Path) -> Path | None:
    """The clone that `start` lies in, or None."""
    return next((folder for folder in (start, *start.parents) if (folder / OF_A_CLONE).is_file()), None)
