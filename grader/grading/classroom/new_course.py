"""A folder for one class: lessons, solutions, gradebook and submissions, which nobody but its owner can enter."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from grader.errors import GraderError
from grader.grading.nbgrader.gradebook_file import CONFIG

FOLDERS = ("solutions", "course")
_LEFT = shutil.ignore_patterns("__pycache__", "*.pyc", ".ipynb_checkpoints", "test_*.py")
_COURSE_ID = re.compile(r"^c\.CourseDirectory\.course_id = .*$", re.MULTILINE)


def new_course(folder: Path, source: Path, course_id: str, exchange: Path | None, lessons: Sequence[str] = ()) -> Path:
    """Make the course of a class in `folder`, a new or empty one, from the project at `source`; returns it, absolute.

    lessons: only these. exchange: nbgrader's, where it is not in its usual place.
    Raises GraderError where something of that can't be used; then nothing was written.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", course_id):
        raise GraderError(f"`{course_id}` can't name a course: use letters, digits, dots, dashes and underlines.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise GraderError(f"{folder} is not empty. Name a new folder.")
    if missing := [name for name in (CONFIG, *FOLDERS) if not (source / name).exists()]:
        raise GraderError(f"{source} has no {missing[0]}. Name a clone of the project that has it: --from CLONE")
    known = sorted(path.name for path in (source / "course").iterdir() if (source / "solutions" / path.name).is_dir())
    if unknown := [name for name in lessons if name not in known]:
        raise GraderError(f"there is no lesson {unknown[0]} in {source}. There are: {', '.join(known)}.")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    for name in lessons or known:
        for kind in FOLDERS:
            shutil.copytree(source / kind / name, folder / kind / name, ignore=_LEFT)
    (folder / CONFIG).write_text(_config(source, course_id, exchange), encoding="utf-8")
    return folder.resolve()


def _config(source: Path, course_id: str, exchange: Path | None) -> str:
    """The project's own configuration, for this course."""
    lines = [f'c.CourseDirectory.course_id = "{course_id}"']
    if exchange is not None:
        lines.append(f"c.Exchange.root = {str(exchange.absolute())!r}")
    text = (source / CONFIG).read_text(encoding="utf-8")
    return _COURSE_ID.sub(lambda _: "\n".join(lines), text, count=1)
