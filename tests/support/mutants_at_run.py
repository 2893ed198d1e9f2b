"""Changes of a solution that no text shows: what an assignment or a return gives is altered while the program runs.

Every value is wrapped once (`wrapped`), and one of them is altered at a time (`altering`): cut off from its gradient,
rounded to bfloat16, or kept from the first use for all later ones. `with_constants` writes a case's own numbers down.
"""

import ast
import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import GeneratorType
from typing import Any

import torch
from mutants import Mutant, solution_lines
from torch import Tensor

IMPORT = "from mutants_at_run import touched as _touched\n"


@dataclass
class _Altering:
    place: int = -1
    alter: Callable[[Tensor], Tensor] = lambda tensor: tensor
    effect: bool = False  # whether anything was altered


_now = _Altering()


def touched(place: int, value: Any) -> Any:
    """A value of a wrapped program, altered if it is its turn."""
    if place != _now.place:
        return value
    if isinstance(value, GeneratorType | tuple | list):
        return tuple(_altered(item) for item in value)
    return _altered(value)


def _altered(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    other = _now.alter(value)
    _now.effect |= other is not value
    return other


@contextlib.contextmanager
def altering(place: int, alter: Callable[[Tensor], Tensor]) -> Iterator[_Altering]:
    """While it lasts, what stands at a place is altered."""
    global _now
    _now = _Altering(place, alter)
    try:
        yield _now
    finally:
        _now = _Altering()


def wrapped(source: str) -> tuple[str, list[str]]:
    """The source whose assigned and returned values can be altered, and each of these places in words."""
    tree, lines = ast.parse(source), solution_lines(source)
    places: list[str] = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign | ast.Return) or node.value is None or node.lineno not in lines:
            continue
        call = ast.Call(ast.Name("_touched", ast.Load()), [ast.Constant(len(places)), node.value], [])
        places.append(ast.unparse(node))
        node.value = call
    return IMPORT + ast.unparse(ast.fix_missing_locations(tree)), places


# What can happen to a tensor


def cut(tensor: Tensor) -> Tensor:
    """Without what made it."""
    return tensor.detach() if tensor.requires_grad else tensor


def lowered(tensor: Tensor) -> Tensor:
    """Rounded to bfloat16."""
    if tensor.dtype != torch.float32:
        return tensor
    rounded = tensor.bfloat16().float()
    return tensor if torch.equal(rounded, tensor) else rounded


@dataclass
class Kept:
    """The first tensor of its shape that came, in place of all later ones: a state that outlives its text."""

    first: dict[Any, Tensor] = field(default_factory=dict)

    def __call__(self, tensor: Tensor) -> Tensor:
        kept = self.first.setdefault((tensor.shape, tensor.dtype), tensor.detach().clone())
        return tensor if torch.equal(kept, tensor.detach()) else kept


# Numbers of a case, written down


def with_constants(source: str, arguments: Mapping[str, Any]) -> list[Mutant]:
    """Mutants in which a number comes from the first case and not from an argument, or from a field of one.

    arguments: what the first case hands to the function or to `__init__`, by name; a config is a mapping.
    """
    lines = solution_lines(source)
    numbers: dict[str, Any] = {}
    for name, value in arguments.items():
        fields = value.items() if isinstance(value, Mapping) else ()
        numbers |= {f"{place}.{key}": item for key, item in fields for place in (name, f"self.{name}")}
        numbers[name] = value
    found = []
    for text, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        tree = ast.parse(source)
        replace = _WrittenDown(text, number, lines)
        changed = ast.unparse(ast.fix_missing_locations(replace.visit(copy.deepcopy(tree))))
        if replace.count:
            found.append(Mutant(f"`{text}` is {number}", changed))
    return found


class _WrittenDown(ast.NodeTransformer):
    def __init__(self, text: str, number: float, lines: set[int]) -> None:
        self.text, self.number, self.lines, self.count = text, number, lines, 0

    def visit(self, node: ast.AST) -> Any:
        loaded = isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load)
        if loaded and getattr(node, "lineno", 0) in self.lines and ast.unparse(node) == self.text:
            self.count += 1
            return ast.copy_location(ast.Constant(self.number), node)
        return self.generic_visit(node)
