"""Writes the pages that are made of docstrings: docs/files.md (every module) and docs/api.md (what is public).

python scripts/pages.py            write them
python scripts/pages.py --check    change nothing; exit with 1 where one is not current
"""

import ast
import inspect
import re
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "grader"
AGAIN = "Made of docstrings by `python scripts/pages.py`; don't edit it."
PUBLIC = (
    "grader",
    "grader.instruments",
    "grader.kv",
    "grader.atlas",
    "grader.checkpoints",
    "grader.authoring.kit",
)

FILES = f"""# The engine, file by file

{AGAIN} [architecture.md](architecture.md) draws
the rooms, and says what their words mean. A room stands before those that it may import from.
"""

API = f"""# What is public

{AGAIN} It shows the names that notebooks,
programs and lessons may rely on. The commands of `grader --help` and the format of recordings are public as well; all
else may change at any time.
"""


def first_line(path: Path) -> str:
    """The first line of a module's docstring, without its full stop."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return text.partition("\n")[0].rstrip(".")


def rooms() -> list[Path]:
    """The engine's rooms from top to bottom, as pyproject.toml has them; one that it does not name comes last."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    order = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    found = [path.parent for path in sorted(PACKAGE.glob("*/__init__.py"))]
    return sorted(found, key=lambda room: order.index(room.name) if room.name in order else len(order))


def file_lines(folder: Path, depth: int = 0) -> Iterator[str]:
    """A line for each module of a folder, and below a line of its own those of each folder in it."""
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield f"{'  ' * depth}- [{path.name}](../{path.relative_to(ROOT).as_posix()}): {first_line(path)}"
    for inner in sorted(path.parent for path in folder.glob("*/__init__.py")):
        yield f"{'  ' * depth}- **{inner.name}/**: {first_line(inner / '__init__.py')}"
        yield from file_lines(inner, depth + 1)


def files_page() -> str:
    """docs/files.md."""
    lines = [FILES]
    for room in rooms():
        lines += [f"## {room.name}\n", f"{first_line(room / '__init__.py')}.\n", *file_lines(room), ""]
    base = [
        f"- [{path.name}](../grader/{path.name}): {first_line(path)}"
        for path in sorted(PACKAGE.glob("*.py"))
        if path.name != "__init__.py"
    ]
    return "\n".join([*lines, "## Below the rooms\n", "Modules that every room may use.\n", *base, ""])


def names_of(module: ModuleType) -> list[str]:
    """The public names of a module: its `__all__`, else the classes and functions that it defines."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    defined = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    return [name for name in defined if not name.startswith("_") and callable(getattr(module, name))]


def signature(value: Any) -> str:
    """A function's arguments and result, or a class's, as its source has them; empty where there is no source."""
    try:
        node = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(value)))).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        return ""
    if isinstance(node, ast.ClassDef):
        made = next((each for each in node.body if getattr(each, "name", "") == "__init__"), None)
        if isinstance(made, ast.FunctionDef):
            return f"({_arguments(made)})"
        fields = [each for each in node.body if isinstance(each, ast.AnnAssign) and not _is_private(each.target)]
        return f"({', '.join(ast.unparse(each) for each in fields)})" if fields else ""
    if isinstance(node, ast.FunctionDef):
        result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        return f"({_arguments(node)}){result}"
    return ""


def _arguments(node: ast.FunctionDef) -> str:
    return re.sub(r"^self(, )?", "", ast.unparse(node.args))


def _is_private(target: ast.expr) -> bool:
    return ast.unparse(target).startswith("_")


def text_of(value: Any) -> str:
    """A docstring as Markdown; of a value that has none of its own, what it is."""
    if not (
        inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value) or hasattr(value, "__wrapped__")
    ):
        shown = repr(value)
        return f"`{shown}`" if len(shown) < 300 else f"A {type(value).__name__}."
    said = inspect.getdoc(value) or ""
    if re.search(r"^\w+ {2,}\w", said, re.MULTILINE):  # a list in columns
        return f"```text\n{said}\n```"
    pieces = re.split(r"(`+[^`]*`+)", said)  # what is code stays as it is
    return "".join(piece if i % 2 else re.sub(r"([*<])", r"\\\1", piece) for i, piece in enumerate(pieces))


def entry(name: str, value: Any, prefix: str, level: int) -> list[str]:
    """The lines about one public name, and about the methods of a class or the functions of a module."""
    mark = "#" * level
    if inspect.ismodule(value):
        lines = [f"{mark} {prefix}{name}\n", f"{text_of(value)}\n"]
        inner = [(each, getattr(value, each)) for each in names_of(value)]
        return lines + [line for each, found in inner for line in entry(each, found, f"{name}.", level + 1)]
    lines = [f"{mark} {prefix}{name}\n"]
    if shown := signature(value):
        lines.append(f"```python\n{prefix}{name}{shown}\n```\n")
    lines.append(f"{text_of(value)}\n")
    if inspect.isclass(value):
        lines += [line for each, found in methods(value) for line in method(each, found)]
    return lines


def methods(value: type) -> list[tuple[str, Any]]:
    """The public methods and properties that a class defines itself, where they have a docstring."""
    own = [(name, found) for name, found in vars(value).items() if not name.startswith("_")]
    return [(name, found) for name, found in own if inspect.getdoc(found) and not inspect.isclass(found)]


def method(name: str, value: Any) -> list[str]:
    """A method, or a property, as an entry of a list."""
    function = getattr(value, "fget", None) or getattr(value, "func", None) or getattr(value, "__func__", value)
    if not inspect.isfunction(function):
        return []
    is_method = function is value or isinstance(value, (classmethod, staticmethod))
    shown = re.sub(r"^\(cls(, )?", "(", signature(function)) if is_method else ""
    said = " ".join(text_of(function).split())
    return [f"- `{name}{shown}`: {said}\n"]


def api_page() -> str:
    """docs/api.md. A module of PUBLIC that is not there is left out."""
    lines = [API]
    for path in PUBLIC:
        try:
            there = find_spec(path) is not None
        except ModuleNotFoundError:
            there = False
        if not there:
            continue
        module = import_module(path)
        lines += [f"## {path}\n", f"{text_of(module)}\n"]
        for name in names_of(module):
            lines += entry(name, getattr(module, name), "", 3)
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Write the pages, or say which are not current."""
    stale = []
    for name, text in {"files.md": files_page(), "api.md": api_page()}.items():
        path = ROOT / "docs" / name
        if path.is_file() and path.read_text("utf-8") == text:
            continue
        stale.append(f"docs/{name}")
        if "--check" not in sys.argv[1:]:
            path.write_text(text, encoding="utf-8")
    if stale and "--check" in sys.argv[1:]:
        print(f"not current: {', '.join(stale)}. Make them: python scripts/pages.py")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
