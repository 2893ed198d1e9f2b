"""What a recording is made from, told by hashes."""

import ast
from collections.abc import Iterator
from pathlib import Path

from grader.authoring.mistakes import files_read
from grader.digest import digest
from grader.lessons.cells import RUN_BY_EVERY_EXERCISE
from grader.lessons.lesson import Lesson
from grader.package import package_folder

# What an exercises.py imports from here decides what is recorded. What the kit hands on from elsewhere is the engine's
# own: whether that still records the same, `grader build --check` finds out by recording.
DECIDES = ("grader.authoring.kit", "grader.authoring.drives", "grader.recordings")


def made_from(lesson: Lesson) -> dict[str, str]:
    """Hashes of the sources that a recording is made from: when one changes, the recording is stale.

    Of the lesson: the cells that every exercise runs, exercises.py with the lesson's files that it imports, and
    mistakes.toml. Of the package: the families of mistakes, and of `DECIDES` the modules that those files import. What
    one of them imports counts too.
    """
    cells = [cell.source for cell in lesson.cells() if cell.kind in RUN_BY_EVERY_EXERCISE]
    return {
        "solutions": digest("\0".join(cells)),
        **{_name(path): digest(path.read_text("utf-8")) for path in _sources(lesson.exercises_file)},
        **{path.name: digest(path.read_text(encoding="utf-8")) for path in files_read(lesson.folder)},
    }


def _name(path: Path) -> str:
    package = package_folder()
    return f"grader/{path.relative_to(package).as_posix()}" if path.is_relative_to(package) else path.name


def _sources(file: Path) -> list[Path]:
    """A file and those that it imports, directly or not, of its own folder and of `DECIDES`."""
    found = [file]
    for source in found:  # it grows meanwhile
        found += [path for path in dict.fromkeys(_imported(source)) if path not in found]
    return [file, *sorted(found[1:])]


def _imported(file: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            modules = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for module in modules:
            path = _file_of(module, file.parent)
            if path is not None and path.is_file():
                yield path


def _file_of(module: str, folder: Path) -> Path | None:
    """Where a module would be, if it is of a lesson's folder or of `DECIDES`. A package's own file is none."""
    if module.startswith("."):
        return folder / f"{module.strip('.').replace('.', '/')}.py"
    if module.startswith(tuple(f"{package}." for package in DECIDES)):
        return package_folder().parent / f"{module.replace('.', '/')}.py"
    return None
