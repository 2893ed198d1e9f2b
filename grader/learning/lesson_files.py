"""The files of a lesson besides its notebook, brought to where that was opened alone, as in Colab."""

import shutil
from pathlib import Path

from grader.errors import GraderError
from grader.learning.release import released_course


def fetch_lesson_files(lesson: str, folder: Path | None = None) -> None:
    """Copy a lesson's recording, configs and texts into `folder`, by default the one that the notebook runs in.

    lesson: its folder's name, "01-gpt2". Files that are there already stay. Raises GraderError for another lesson.
    """
    folder = Path.cwd() if folder is None else folder
    release = released_course(folder)
    names = [name for name in release.files() if name.startswith(f"{lesson}/") and not name.endswith(".ipynb")]
    if not names:
        raise GraderError(f"the course has no lesson `{lesson}`. There are: {', '.join(release.lessons())}.")
    for name in names:
        target = folder / name.partition("/")[2]
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(release.folder / name, target)
