"""A cell that is run again, when all of the lesson has run, means what it meant the first time.

It does where no later cell gives another meaning to a name that it reads, itself or through the functions and classes
that it uses. What a cell binds under `if "name" not in globals()` stays as it was.
"""

import ast
import symtable
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from grader.lessons.lesson import Lesson, read_filled

pytestmark = pytest.mark.sampled(1)

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted(path.parent for path in (ROOT / "solutions").glob("*/lesson.toml"))
Definition = ast.FunctionDef | ast.ClassDef


@dataclass
class Run:
    """What a cell does when it runs. uses: names; reads: those it has not bound before. binds: each with its source."""

    uses: set[str] = field(default_factory=set)
    reads: set[str] = field(default_factory=set)
    bases: set[str] = field(default_factory=set)  # read when a class is made, and not called
    binds: dict[str, str] = field(default_factory=dict)
    bodies: dict[str, set[str]] = field(default_factory=dict)  # of functions and classes: what running them reads


def run(source: str) -> Run:
    found = Run()
    for statement in ast.parse(source).body:
        _run(statement, found)
    return found


def _run(node: ast.AST, found: Run) -> None:
    """Follow what is executed, in its order."""
    if isinstance(node, ast.If) and "not in globals()" in ast.unparse(node.test):
        return
    if isinstance(node, Definition):
        outside = [*node.decorator_list, *(node.bases if isinstance(node, ast.ClassDef) else node.args.defaults)]
        into = found.bases if isinstance(node, ast.ClassDef) else found.reads
        into |= {name for part in outside for name in _names(part, ast.Load)} - set(found.binds)
        found.binds[node.name] = ast.unparse(node)
        found.bodies[node.name] = {*_globals_of(ast.unparse(node)), *_names(ast.Tuple(outside, ast.Load()), ast.Load)}
    elif isinstance(node, ast.Import | ast.ImportFrom):
        origin = getattr(node, "module", "")
        for alias in node.names:
            found.binds[(alias.asname or alias.name).partition(".")[0]] = f"{origin} {alias.name}"
    elif isinstance(node, ast.For | ast.While | ast.If | ast.With | ast.Try | ast.ExceptHandler | ast.withitem):
        for part in ("items", "iter", "test", "type", "context_expr", "target", "optional_vars"):
            for child in _listed(getattr(node, part, None)):
                _run(child, found)
        if isinstance(node, ast.ExceptHandler) and node.name:
            found.binds[node.name] = ""
        for part in ("body", "handlers", "orelse", "finalbody"):
            for child in getattr(node, part, []):
                _run(child, found)
    else:
        found.uses |= _reads(node)
        found.reads |= _reads(node) - set(found.binds)
        found.binds |= dict.fromkeys(_stores(node), ast.unparse(node))


def _listed(part: ast.AST | Sequence[ast.AST] | None) -> Sequence[ast.AST]:
    return [] if part is None else [part] if isinstance(part, ast.AST) else part


def _names(node: ast.AST, how: type[ast.expr_context]) -> set[str]:
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, how)}


def _inner(node: ast.AST) -> set[str]:
    """Names of comprehensions and lambdas, which are theirs alone."""
    own = [_names(each.target, ast.Store) for each in ast.walk(node) if isinstance(each, ast.comprehension)]
    own += [{arg.arg for arg in each.args.args} for each in ast.walk(node) if isinstance(each, ast.Lambda)]
    return set().union(*own)


def _reads(node: ast.AST) -> set[str]:
    added = {node.target.id} if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name) else set()
    return _names(node, ast.Load) - _inner(node) | added


def _stores(node: ast.AST) -> set[str]:
    return _names(node, ast.Store) - _inner(node)


def _globals_of(source: str) -> Iterator[str]:
    """The names that a definition takes from outside of it."""
    tables = list(symtable.symtable(source, "cell", "exec").get_children())
    while tables:
        table = tables.pop()
        yield from (symbol.get_name() for symbol in table.get_symbols() if symbol.is_global())
        tables += table.get_children()


def changed_meanings(sources: Sequence[str]) -> list[tuple[int, str, int]]:
    """For cells in order: a cell, a name that it reads, and the later cell that gives the name another meaning."""
    runs = [run(source) for source in sources]
    return sorted(
        {
            (number, name, later)
            for number, one in enumerate(runs)
            for name in _reached(runs[: number + 1], one)
            for later, other in enumerate(runs)
            if later > number and name in other.binds
            if other.binds[name] != next(r.binds[name] for r in reversed(runs[: number + 1]) if name in r.binds)
        }
    )


def _reached(before: Sequence[Run], one: Run) -> set[str]:
    """What a cell reads of cells up to itself, itself and through what it uses."""
    bodies = {name: body for run in before for name, body in run.bodies.items()}
    inside: set[str] = set()
    left = list(one.uses)
    while left:
        for name in bodies.get(left.pop(), set()) - inside:
            inside.add(name)
            left.append(name)
    return (one.reads | one.bases | inside - set(one.binds)) & {name for run in before for name in run.binds}


@pytest.mark.parametrize("folder", LESSONS, ids=lambda folder: folder.name)
def test_no_later_cell_changes_what_a_cell_means_that_is_run_again(folder: Path) -> None:
    cells = [cell for cell in read_filled(Lesson(folder).twin).cells if cell.cell_type == "code"]
    found = changed_meanings([cell.source for cell in cells])
    told = [f"{cells[i].id} reads `{name}`, which {cells[later].id} binds anew" for i, name, later in found]
    assert not told, "\n".join(told)


@pytest.mark.parametrize("folder", LESSONS, ids=lambda folder: folder.name)
def test_a_cell_that_trains_a_model_begins_from_the_same_weights_when_it_is_run_again(folder: Path) -> None:
    for cell in read_filled(Lesson(folder).twin).cells:
        if cell.cell_type == "code" and "torch.optim." in cell.source and ".parameters()" in cell.source:
            assert "load_state_dict" in cell.source, f"{cell.id} goes on from the weights that it left"
