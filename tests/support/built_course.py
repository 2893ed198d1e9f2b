"""The small course as `grader build` leaves it, built once in a process: two kernels take longer than most tests."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from toy_course import write_course

from grader.authoring.build import build
from grader.lessons.lesson import Lesson, lessons


@cache
def _built() -> Path:
    root = Path(tempfile.mkdtemp(prefix="grader-built-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    for lesson in write_course(root):
        build(lesson)
    return root


def copy_built_course(root: Path) -> list[Lesson]:
    """The course at `root`, built; returns its lessons."""
    for path in _built().iterdir():  # the folder itself keeps its rights
        (shutil.copytree if path.is_dir() else shutil.copy2)(path, root / path.name)
    return lessons(root)
