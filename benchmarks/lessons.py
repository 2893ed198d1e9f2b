"""How many lines a lesson has, wherever they stand, and how much of its exercises.py declares (`make bench`).

Counted is every line of a file that no other lesson uses. Of exercises.py, what declares are the assignments of the
module: exercises, cases and configs; the rest are imports and functions.
"""

import ast
import tomllib
from pathlib import Path

from rich.console import Console
from rich.table import Table

from grader.lessons.lesson import Lesson, lessons

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("twin", "exercises", "reference", "drives", "others", "mistakes", "sly", "equivalents", "tests", "benchmark")
MORE = ("in the engine", "sum", "declares")


def main() -> None:
    """Print the table."""
    table = Table(title="Lines of each lesson, wherever they stand", title_justify="left")
    for heading in ("lesson", *KINDS, *MORE):
        table.add_column(heading, justify="left" if heading == "lesson" else "right")
    every = lessons(ROOT)
    engine = alone_in_the_engine(every)
    for lesson in every:
        found = [*(lines_of(files_of(lesson, kind)) for kind in KINDS), engine[lesson.name]]
        table.add_row(lesson.name, *map(str, found), str(sum(found)), f"{declared(lesson.exercises_file):.0%}")
    Console(width=None if Console().is_terminal else 160).print(table)


def files_of(lesson: Lesson, kind: str) -> list[Path]:
    """A lesson's files of a kind."""
    named = {
        "twin": [lesson.twin],
        "mistakes": [lesson.folder / "mistakes.toml", *lesson.folder.glob("families/*.toml")],
        "sly": [lesson.folder / "sly.toml"],
        "equivalents": [lesson.folder / "equivalent_mutants.toml"],
        "tests": list(lesson.folder.glob("test_*.py")),
    }
    return named.get(kind, [lesson.folder / f"{kind}.py"])


def lines_of(files: list[Path]) -> int:
    """How many lines the files have that there are."""
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files if file.exists())


def alone_in_the_engine(every: list[Lesson]) -> dict[str, int]:
    """Lesson -> the lines of the modules and families below grader/authoring that it alone uses."""
    authoring = ROOT / "grader" / "authoring"
    library = [
        *authoring.glob("drives/[a-z]*.py"),
        *authoring.glob("kit/[a-z]*.py"),
        *authoring.glob("families/*.toml"),
    ]
    found = {lesson.name: 0 for lesson in every}
    for file in library:
        users = [lesson.name for lesson in every if uses(lesson, file)]
        if len(users) == 1:
            found[users[0]] += lines_of([file])
    return found


def uses(lesson: Lesson, file: Path) -> bool:
    """Whether a lesson names a module of drives or of the kit, or a family of mistakes."""
    if file.suffix == ".toml":
        tables = tomllib.loads((lesson.folder / "mistakes.toml").read_text(encoding="utf-8"))
        return f"'family': '{file.stem}'" in repr(tables)
    sources = (path.read_text(encoding="utf-8") for path in lesson.folder.glob("*.py") if path != lesson.twin)
    module = f"grader.authoring.{file.parent.name}"
    return any(f"{module}.{file.stem}" in text or (module in text and f"{file.stem}." in text) for text in sources)


def declared(file: Path) -> float:
    """The share of a module's lines that are its assignments."""
    text = file.read_text(encoding="utf-8")
    lines = sum(bool(line.strip()) for line in text.splitlines())
    body = ast.parse(text).body
    return (
        sum((n.end_lineno or n.lineno) - n.lineno + 1 for n in body if isinstance(n, ast.Assign | ast.AnnAssign))
        / lines
    )


if __name__ == "__main__":
    main()
