"""What learners get: the release, made by nbgrader itself."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from grader.authoring.allowed import allowed, leaked
from grader.authoring.colab import repository, with_colab
from grader.authoring.staging import course_folder, files_below, root_of
from grader.errors import GraderError
from grader.lessons.lesson import Lesson
from grader.lessons.notebooks import read_notebook, released_hash

LEFT_OVER = "is not part of the release"


def release_staged(lesson: Lesson, root: Path) -> Path:
    """Have nbgrader write the learners' copy beside the staged lesson; returns its folder.

    The lesson's notebook is marked with the hash of what was released, and so is the released one, just as
    if nbgrader had been run on the marked one.
    """
    release = _generate_assignment(lesson, root)
    path = release / lesson.notebook.name
    solution, released = read_notebook(lesson.notebook), read_notebook(path)
    released = with_colab(released, f"course/{lesson.name}/{path.name}", repository())
    for notebook, target in ((solution, lesson.notebook), (released, path)):
        built_from = solution.metadata.get("grader", {})
        notebook.metadata["grader"] = {**built_from, "released": released_hash(released)}
        write_notebook(notebook, target)
    return release


def _generate_assignment(lesson: Lesson, root: Path) -> Path:
    """Run nbgrader's own GenerateAssignment, without a gradebook, with the project's configuration."""
    from nbgrader.converters import GenerateAssignment
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config.loader import PyFileConfigLoader

    stage = root_of(lesson)
    if not (root / "nbgrader_config.py").is_file():
        raise GraderError(f"{root} has no nbgrader_config.py, which says what is released. Is it the course's folder?")
    config = PyFileConfigLoader("nbgrader_config.py", path=str(root)).load_config()
    config.CourseDirectory.root = str(stage)
    config.CourseDirectory.assignment_id = lesson.name
    config.SaveCells.enabled = False
    shutil.rmtree(stage / "course", ignore_errors=True)
    with _collected_log() as (log, lines):
        directory = CourseDirectory(config=config, log=log)
        try:
            GenerateAssignment(coursedir=directory, config=config, no_database=True, log=log).start()
        except Exception as error:  # nbgrader raises many kinds; what was wrong is in its log
            raise GraderError(f"nbgrader can't release {lesson.name}: {lines[-1] if lines else error}") from error
    release = stage / "course" / lesson.name
    if missing := sorted(allowed(lesson.folder, files_below(lesson.folder)) - allowed(release, files_below(release))):
        raise GraderError(
            f"{missing[0]} of {lesson.name} would not be released, for something of that name lies beside the notebook,"
            " and nbgrader ignores names. Rename one of the two."
        )
    if found := leaked(release, files_below(release)):
        raise GraderError(
            f"nbgrader_config.py would release {found[0].relative_to(release)} of {lesson.name}. It must ignore what"
            " grader.authoring.allowed.not_released says."
        )
    return release


def left_over(release: Path, lesson: Lesson) -> list[Path]:
    """The files in the lesson's course folder that `release` does not have. A build leaves them where they are."""
    course, wanted = course_folder(lesson), {path.relative_to(release) for path in files_below(release)}
    return [path for path in files_below(course) if path.relative_to(course) not in wanted]


def write_notebook(notebook: NotebookNode, path: Path) -> None:
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


@contextmanager
def _collected_log() -> Iterator[tuple[logging.Logger, list[str]]]:
    """A logger whose errors are collected, not shown."""
    lines: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage().strip().splitlines()[-1])

    log = logging.Logger("nbgrader")
    log.addHandler(Collect(logging.ERROR))
    yield log, lines
