"""Which of a student's own cells a solution needs. It parses submitted code, and so runs in the child.

A free cell is needed where it comes before the solution in the notebook and defines a name that the solution
uses, or that another needed cell uses. What a text defines and uses is told once in a process: a cell that stands
before several solutions is asked for each of them, and the lesson's own for every submission (`warm_up`).
"""

import ast
import re
import symtable
import unicodedata
from collections.abc import Collection, Sequence
from functools import cache

NAME = re.compile(r"[^\W\d]\w*")


def needed(source: str, free: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """The free cells that define what the source uses, directly or through another, in their order."""
    wanted = set(used_names(source))
    taken: set[int] = set()
    for i, text in reversed(free):
        if not _may_define(text, wanted):
            continue
        text = plain_python(text)
        bound = bound_names(text)
        if "*" in bound or bound & wanted:
            taken.add(i)
            wanted |= used_names(text)
    return [(i, plain_python(text)) for i, text in free if i in taken]


def _may_define(text: str, wanted: Collection[str]) -> bool:
    """Whether a cell has one of the names in it at all, or a star: only then is it worth parsing."""
    text = text if text.isascii() else unicodedata.normalize("NFKC", text)  # as Python reads names
    return "*" in text or any(found[0] in wanted for found in NAME.finditer(text))


@cache
def _table(source: str) -> symtable.SymbolTable:
    return symtable.symtable(source, "cell", "exec")


@cache
def _tree(source: str) -> ast.Module:
    return ast.parse(source)


@cache
def used_names(source: str) -> frozenset[str]:
    """The names that a cell takes from what ran before it; none for a cell that is no Python."""
    try:
        table = _table(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return frozenset()
    names: set[str] = set()
    open_tables = [table]
    while open_tables:
        scope = open_tables.pop()
        open_tables += scope.get_children()
        top = scope is table
        names |= {s.get_name() for s in scope.get_symbols() if s.is_referenced() and (top or s.is_global())}
    return frozenset(names)


@cache
def bound_names(source: str) -> frozenset[str]:
    """The names that a cell defines at its top level, ``*`` for those of a star import; none for no Python."""
    try:
        tree = ast.parse(source)
        table = _table(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return frozenset()
    names = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}
    if any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in ast.walk(tree)):
        names.add("*")
    # `Linear.forward = ...` and `sys.path[0] = ...` change what is there, without defining a name.
    targets = (t for node in tree.body if isinstance(node, ast.Assign) for t in node.targets)
    return frozenset(names) | {root for target in targets if (root := _root_name(target))}


def warm_up(cells: Sequence[str]) -> None:
    """Read the lesson's own cells, so that no child has to."""
    for text in map(plain_python, cells):
        used_names(text)
        bound_names(text)


def _root_name(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


@cache
def plain_python(source: str) -> str:
    """A cell without the lines that only IPython understands: ``%matplotlib inline``, ``!pip install``."""
    if source.lstrip().startswith("%%"):
        return ""
    if _is_python(source):
        return source
    return "\n".join(map(_without_magic, source.splitlines()))


def _is_python(source: str) -> bool:
    try:
        _tree(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _without_magic(line: str) -> str:
    stripped = line.lstrip()
    if not stripped.startswith(("%", "!")):
        return line
    return line[: len(line) - len(stripped)] + "pass"
