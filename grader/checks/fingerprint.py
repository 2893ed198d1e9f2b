"""Which gradients of a case are compared, and the few numbers that stand for each.

A recording does not hold whole gradients, which would be as large as all weights. It holds a few numbers for each: how
large it is, and its products with fixed random directions, which no other gradient has.
"""

import ast
import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from grader.recordings.tasks import Task, TaskCase

DIRECTIONS = 6


def are_compared(task: Task, case: TaskCase, output: Tensor) -> bool:
    """Whether a case's gradients are looked at: in float32, where they are precise."""
    return task.differentiable and case.dtype == torch.float32 and output.is_floating_point()


def leaf_positions(task: Task, args: Sequence[object]) -> tuple[int, ...]:
    """The positions of the arguments whose gradients are looked at: those that the exercise names, as far as there are
    so many, or else the first that is a floating-point tensor. A table of cosines needs none."""
    if task.gradients_of:
        return tuple(i for i in task.gradients_of if i < len(args))
    floating = (i for i, arg in enumerate(args) if isinstance(arg, Tensor) and arg.is_floating_point())
    return tuple(i for i in [next(floating, None)] if i is not None)


def leaf_names(task: Task, case: TaskCase) -> tuple[str, ...]:
    """What has a gradient in a case, in order: every parameter, then the arguments.

    An argument has the name that the exercise's drive gives it; else it is "input", or "argument 2".
    """
    names = _names_in_drive(task.drive, case.drive) if task.drive else ()
    found = list(case.weights)
    for position in leaf_positions(task, case.args):
        name = names[position] if position < len(names) else "input"
        number = "input" if not position and "input" not in found else f"argument {position + 1}"
        found.append(name if position < len(names) and name not in found else number)
    return tuple(found)


@lru_cache(maxsize=64)
def _names_in_drive(source: str, name: str) -> tuple[str, ...]:
    """What the function of that name in a drive's source, its first for no name, calls what comes after the target."""
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    found = next((one for one in functions if one.name == name or not name), None)
    return tuple(argument.arg for argument in found.args.args[1:]) if found else ()


def weighted_sum(output: Tensor) -> Tensor:
    """A number that depends on every value of an output, on each in its own way: what is differentiated."""
    return (output * _directions(output.numel())[0].to(output.device, output.dtype).view(output.shape)).sum()


def fingerprint(gradients: Sequence[Tensor | None]) -> Tensor:
    """[gradients, 1 + DIRECTIONS] float32: the root mean square and the products; NaN where there is no gradient."""
    return torch.stack([_fingerprint(gradient) for gradient in gradients])


def _fingerprint(gradient: Tensor | None) -> Tensor:
    if gradient is None or not gradient.numel():
        return torch.full((1 + DIRECTIONS,), math.nan, dtype=torch.float32)
    flat = gradient.detach().to_dense().cpu().double().flatten()  # an embedding's may be sparse
    products = _directions(flat.numel()).double() @ flat / math.sqrt(flat.numel())
    return torch.cat([flat.square().mean().sqrt()[None], products]).float()


@lru_cache(maxsize=64)
def _directions(size: int) -> Tensor:
    """Fixed standard normal numbers: [DIRECTIONS, size] float32."""
    generator = torch.Generator().manual_seed(size)
    return torch.randn(DIRECTIONS, size, generator=generator, dtype=torch.float32)
