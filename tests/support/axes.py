"""Which numbers of a program name an axis, and of how many: of four axes, 2 and -2 are one."""

import ast
from collections.abc import Iterator
from typing import Any

IMPORT = "from axes import with_axes as _with_axes\n"
# Which arguments of a tensor's methods, and of torch's functions behind their tensor, name axes of it.
ARGUMENTS = {
    "argmax": (0,),
    "cat": (0,),
    "chunk": (1,),
    "flatten": (0, 1),
    "flip": (0,),
    "gather": (0,),
    "scatter": (0,),
    "size": (0,),
    "softmax": (0,),
    "split": (1,),
    "sum": (0,),
    "topk": (1,),
    "transpose": (0, 1),
    "unflatten": (0,),
}
MODULES = ("torch", "F")
Place = tuple[int, int]

_seen: dict[Place, set[int]] = {}


def with_axes(places: list[Place], tensors: Any) -> Any:
    """Take down how many axes a tensor, or the first of several, has where the program names some of them."""
    first = tensors[0] if isinstance(tensors, list | tuple) else tensors
    for place in places:
        _seen.setdefault(place, set()).add(first.ndim)
    return tensors


def axes_while(run: Any) -> dict[Place, int]:
    """Line and column of each number that names an axis -> of how many, where that is always the same in a run.

    run: runs an `instrumented` program.
    """
    _seen.clear()
    run()
    return {place: min(counts) for place, counts in _seen.items() if len(counts) == 1}


def instrumented(source: str) -> str:
    """The program, which tells `axes_while` what it does."""
    tree = ast.parse(source)
    for holder, field, numbers in list(_named(tree)):
        places = ast.parse(repr([_place(number) for number in numbers]), mode="eval").body
        tensor = holder.args[0] if field == "args" else getattr(holder, field)
        told = ast.Call(ast.Name("_with_axes", ast.Load()), [places, tensor], [])
        if field == "args":
            holder.args[0] = told
        else:
            setattr(holder, field, told)
    return IMPORT + ast.unparse(ast.fix_missing_locations(tree))


def _named(tree: ast.AST) -> Iterator[tuple[Any, str, list[ast.expr]]]:
    """Where a tensor stands in the tree, as a node and its field, and the numbers that name axes of it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute) and node.value.attr == "shape":
            if numbers := [node.slice] * _is_number(node.slice):
                yield node.value, "value", numbers
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ARGUMENTS:
            of_module = isinstance(node.func.value, ast.Name) and node.func.value.id in MODULES
            given = node.args[1:] if of_module else node.args
            named = [given[i] for i in ARGUMENTS[node.func.attr] if i < len(given)]
            named += [keyword.value for keyword in node.keywords if keyword.arg == "dim"]
            if numbers := [number for number in named if _is_number(number)]:
                yield (node, "args", numbers) if of_module else (node.func, "value", numbers)


def _is_number(node: ast.expr) -> bool:
    return isinstance(number_of(node), int)


def number_of(node: ast.AST) -> int | None:
    """The whole number that a node writes, which may have a minus before it."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = number_of(node.operand)
        return None if inner is None else -inner
    value = node.value if isinstance(node, ast.Constant) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _place(node: ast.expr) -> Place:
    return node.lineno, node.col_offset
