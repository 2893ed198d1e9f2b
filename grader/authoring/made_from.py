"""What a recording is made from, told by hashes."""

import ast

from grader.digest import digest
from grader.lessons.cells import RUN_BY_EVERY_EXERCISE
from grader.lessons.lesson import Lesson
from grader.package import package_folder

TOY_MODEL = "grader.recordings.toy_lm"


def made_from(lesson: Lesson) -> dict[str, str]:
    """Hashes of the sources that a recording is made from: when one changes, the recording is stale."""
    cells = [cell.source for cell in lesson.cells() if cell.kind in RUN_BY_EVERY_EXERCISE]
    exercises = lesson.exercises_file.read_text(encoding="utf-8")
    return {
        "solutions": digest("\0".join(cells)),
        lesson.exercises_file.name: digest(exercises),
        **{f"grader/{name}": digest((package_folder() / name).read_text("utf-8")) for name in _libraries(exercises)},
    }


def _libraries(source: str) -> list[str]:
    """The files of this room, and of the toy model, from which an exercises.py takes what it records."""
    imported = {node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) and node.module}
    modules = {name for name in imported if name.startswith(("grader.authoring.", TOY_MODEL))}
    if "grader.authoring.toy" in modules:
        modules.add(TOY_MODEL)
    return [name.removeprefix("grader.").replace(".", "/") + ".py" for name in sorted(modules)]
