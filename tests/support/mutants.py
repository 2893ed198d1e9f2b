"""Small changes to a solution's source, one at a time: what a check must notice."""

import ast
import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from axes import number_of

SWAPPED_OPERATORS: dict[type[ast.AST], list[type[ast.AST]]] = {
    ast.Add: [ast.Sub],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Div, ast.Add],
    ast.Div: [ast.Mult],
    ast.FloorDiv: [ast.Mult],
    ast.Pow: [ast.Mult],
    ast.MatMult: [],
    ast.Lt: [ast.LtE, ast.Gt],
    ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.Lt],
    ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
    ast.And: [ast.Or],
    ast.Or: [ast.And],
}
MAX_OTHER_NAMES = 3


@dataclass(frozen=True)
class Mutant:
    """A changed source and what was changed, as in ``return x + y  @8: `x + y` -> `x - y` `` (line, column)."""

    change: str
    source: str


def mutants(source: str, axes: Mapping[tuple[int, int], int] | None = None) -> list[Mutant]:
    """Every mutant of what stands between ### BEGIN SOLUTION and ### END SOLUTION: what a learner writes.

    axes: line and column of a number that names an axis -> of how many. Another number for the same axis is then no
    change, and neither is the other order of the two axes that a transpose exchanges.
    """
    tree = ast.parse(source)
    solution, same = solution_lines(source), _same_axes(tree, axes or {})
    found: dict[str, Mutant] = {}
    slots, unchanged = _slots(tree), ast.unparse(tree)
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        for change, node, replacement in _changes(function):
            if getattr(node, "lineno", 0) not in solution or (node, number_of(replacement)) in same:
                continue
            if axes is not None and _is_same_transpose(node, replacement):
                continue
            text = _replaced(tree, slots[node], node, replacement)
            if text is not None and text != unchanged:
                found.setdefault(text, Mutant(f"{_place(source, node)}: {change}", text))
    return list(found.values())


def _same_axes(tree: ast.AST, axes: Mapping[tuple[int, int], int]) -> set[tuple[ast.AST, int | None]]:
    """Nodes that write the number of an axis, with the other number that may stand there and names the same axis."""
    found: set[tuple[ast.AST, int | None]] = set()
    for node in ast.walk(tree):
        number, count = number_of(node), axes.get((getattr(node, "lineno", 0), getattr(node, "col_offset", 0)))
        if number is not None and count is not None:
            same = number - count if number >= 0 else number + count
            found.add((node, same))
            if isinstance(node, ast.UnaryOp):  # the number behind its minus
                found.add((node.operand, -same))
    return found


def _is_same_transpose(node: ast.AST, other: ast.AST) -> bool:
    """Whether two calls exchange the same two axes."""
    calls = [call for call in (node, other) if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)]
    if len(calls) < 2 or any(call.func.attr != "transpose" for call in calls):  # type: ignore[attr-defined]
        return False
    return sorted(map(ast.unparse, calls[0].args)) == sorted(map(ast.unparse, calls[1].args))


def _place(source: str, node: ast.AST) -> str:
    """The node's line without its comment, and the node's column in it."""
    line = source.splitlines()[getattr(node, "lineno", 1) - 1]
    indent = len(line) - len(line.lstrip())
    return f"{line.split('  #')[0].strip()}  @{getattr(node, 'col_offset', 0) - indent}"


def solution_lines(source: str) -> set[int]:
    """The numbers of the lines that a learner writes, from 1."""
    inside, lines = False, set()
    for number, line in enumerate(source.splitlines(), start=1):
        if "### BEGIN SOLUTION" in line or "### END SOLUTION" in line:
            inside = "BEGIN" in line
        elif inside:
            lines.add(number)
    return lines


Change = tuple[str, ast.AST, ast.AST]


def _changes(function: ast.FunctionDef) -> Iterator[Change]:
    names = list(dict.fromkeys(_local_names(function)))
    for statement in function.body:
        for node in ast.walk(statement):
            if isinstance(node, ast.FunctionDef) or _is_docstring(node):
                continue
            yield from _statement_changes(node)
            yield from _expression_changes(node, names)


def _local_names(function: ast.FunctionDef) -> Iterator[str]:
    yield from (argument.arg for argument in function.args.args if argument.arg != "self")
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _described(old: ast.AST, new: ast.AST | str) -> str:
    after = new if isinstance(new, str) else f"`{ast.unparse(new)}`"
    return f"`{ast.unparse(old)}` -> {after}"


def _is_super_init(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and "super()" in ast.unparse(node)


def _statement_changes(node: ast.AST) -> Iterator[Change]:
    if isinstance(node, ast.Assign | ast.AugAssign | ast.Expr | ast.AnnAssign) and not _is_super_init(node):
        yield _described(node, "dropped"), node, ast.Pass()
    if isinstance(node, ast.If):
        for test, word in ((ast.Constant(True), "always"), (ast.Constant(False), "never")):
            yield _described(node.test, word), node.test, test
    if isinstance(node, ast.Return | ast.Break | ast.Continue) and not isinstance(node, ast.Return):
        yield _described(node, "dropped"), node, ast.Pass()


def _expression_changes(node: ast.AST, names: list[str]) -> Iterator[Change]:
    if isinstance(node, ast.BinOp | ast.AugAssign):
        for operator in SWAPPED_OPERATORS.get(type(node.op), []):
            new = copy.deepcopy(node)
            new.op = operator()  # type: ignore[assignment]
            yield _described(node, new), node, new
    if isinstance(node, ast.BinOp):
        for side in (node.left, node.right):
            yield _described(node, side), node, side
        if isinstance(node.op, ast.Sub | ast.Div | ast.MatMult | ast.Pow):
            new = copy.deepcopy(node)
            new.left, new.right = new.right, new.left
            yield _described(node, new), node, new
    if isinstance(node, ast.BoolOp):
        for operator in SWAPPED_OPERATORS[type(node.op)]:
            joined = copy.deepcopy(node)
            joined.op = operator()  # type: ignore[assignment]
            yield _described(node, joined), node, joined
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        for operator in SWAPPED_OPERATORS.get(type(node.ops[0]), []):
            compared = copy.deepcopy(node)
            compared.ops = [operator()]  # type: ignore[list-item]
            yield _described(node, compared), node, compared
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        yield _described(node, node.operand), node, node.operand
    if isinstance(node, ast.Constant):
        for value in _other_constants(node.value):
            yield _described(node, repr(value)), node, ast.Constant(value)
    if isinstance(node, ast.Call):
        yield from _call_changes(node)
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names:
        for other in [name for name in names if name != node.id][:MAX_OTHER_NAMES]:
            yield _described(node, f"`{other}`"), node, ast.Name(other, ast.Load())
    if isinstance(node, ast.Slice):
        for bound in ("lower", "upper", "step"):
            if getattr(node, bound) is not None:
                shorter = copy.deepcopy(node)
                setattr(shorter, bound, None)
                yield f"`{ast.unparse(node)}` without {bound}", node, shorter


def _other_constants(value: object) -> Sequence[bool | int | float | str]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1] + ([-value] if value else [])
    if isinstance(value, float):
        return [value * 2, value * 1.01] if value else [1.0]
    return []


def _call_changes(node: ast.Call) -> Iterator[Change]:
    for i in range(len(node.keywords)):
        new = copy.deepcopy(node)
        del new.keywords[i]
        yield _described(node, new), node, new
    for i in range(len(node.args) - 1):
        new = copy.deepcopy(node)
        new.args[i], new.args[i + 1] = new.args[i + 1], new.args[i]
        yield _described(node, new), node, new
    if isinstance(node.func, ast.Attribute) and not _is_module_function(node.func):
        yield _described(node, node.func.value), node, node.func.value
    elif len(node.args) >= 1:
        yield _described(node, node.args[0]), node, node.args[0]


def _is_module_function(function: ast.Attribute) -> bool:
    """`torch.softmax`, `F.linear`, `self.c_attn`: what stands left of the dot is no value to be changed."""
    root: ast.AST = function.value
    while isinstance(root, ast.Attribute):
        root = root.value
    return isinstance(root, ast.Name) and root.id in {"torch", "F", "nn", "math", "self"}


@dataclass(frozen=True)
class _Slot:
    """Where a node stands in its parent: an attribute, and a place in it where that is a list."""

    parent: ast.AST
    name: str
    place: int | None

    def put(self, node: ast.AST) -> None:
        if self.place is None:
            setattr(self.parent, self.name, node)
        else:
            getattr(self.parent, self.name)[self.place] = node


def _slots(tree: ast.AST) -> dict[ast.AST, _Slot]:
    found = {}
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if isinstance(value, ast.AST):
                found[value] = _Slot(parent, name, None)
            elif isinstance(value, list):
                found |= {node: _Slot(parent, name, i) for i, node in enumerate(value) if isinstance(node, ast.AST)}
    return found


def _replaced(tree: ast.Module, slot: _Slot, old: ast.AST, new: ast.AST) -> str | None:
    """The tree's source with the node of a slot replaced while it is written; None where that is no program."""
    slot.put(new)
    try:
        text = ast.unparse(tree)
        ast.parse(text)
    except (SyntaxError, ValueError, AttributeError):
        return None
    finally:
        slot.put(old)
    return text
