"""What a recording is made from, told by hashes."""

import ast

from grader.authoring.drive_sources import drive_source
from grader.authoring.mistakes import files_read
from grader.digest import digest
from grader.lessons.cells import RUN_BY_EVERY_EXERCISE
from grader.lessons.lesson import Lesson
from grader.package import package_folder

TOY_MODEL = "grader.recordings.toy_lm"
LIBRARIES = ("grader.authoring.indexed_references", "grader.authoring.references", "grader.authoring.toy", TOY_MODEL)


def made_from(lesson: Lesson) -> dict[str, str]:
    """Hashes of the sources that a recording is made from: when one changes, the recording is stale.

    Of the lesson: the cells that every exercise runs, exercises.py and mistakes.toml. Of the package: the families of
    mistakes, the drives and the libraries that these two use.
    """
    cells = [cell.source for cell in lesson.cells() if cell.kind in RUN_BY_EVERY_EXERCISE]
    exercises = lesson.exercises_file.read_text(encoding="utf-8")
    drives = [source for exercise in lesson.exercises()[0] if (source := drive_source(exercise))]
    return {
        "solutions": digest("\0".join(cells)),
        lesson.exercises_file.name: digest(exercises),
        **{path.name: digest(path.read_text(encoding="utf-8")) for path in files_read(lesson.folder)},
        **({"drives": digest("\0".join(drives))} if drives else {}),
        **{f"grader/{name}": digest((package_folder() / name).read_text("utf-8")) for name in _libraries(exercises)},
    }


def _libraries(source: str) -> list[str]:
    """The files of this room, and of the toy model, from which an exercises.py takes what it records."""
    imported = {node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) and node.module}
    modules = imported & set(LIBRARIES)
    if modules & {"grader.authoring.toy", "grader.authoring.references"}:
        modules |= {"grader.authoring.toy", TOY_MODEL}
    return [name.removeprefix("grader.").replace(".", "/") + ".py" for name in sorted(modules)]
