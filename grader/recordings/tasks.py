"""What a probe may see of an exercise: what to build, which weights to load, what to call it with. No answers."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from grader.config import Config
from grader.recordings.variants import Variant


@dataclass(frozen=True)
class TaskCase:
    """One case as a probe sees it: what to build, which weights to load, what to call it with.

    drive: the name of the function in the task's `drive` that uses the solution; its first function where empty.
    variants: other ways to ask it, for which what is right follows from the case's own answer.
    """

    name: str
    build: Mapping[str, Any]
    args: tuple[Any, ...]
    dtype: torch.dtype
    weights: Mapping[str, Tensor]
    drive: str = ""
    variants: tuple[Variant, ...] = ()

    def varied(self, variant: Variant) -> "TaskCase":
        """The case as the variant asks it."""
        args, weights, build = variant.args(self.args), variant.weights(self.weights), variant.build(self.build)
        return replace(self, args=args, weights=weights, build=build, variants=())


@dataclass(frozen=True)
class PartInput:
    """What one call of the reference's part was given."""

    path: str
    index: int
    input: Tensor


@dataclass(frozen=True)
class PartOutput:
    """What one call of the reference's part returned, and the shape of what it was given."""

    path: str
    index: int
    input_shape: tuple[int, ...]
    output: Tensor


@dataclass(frozen=True)
class Task:
    """What a probe needs to run an exercise's cases; it holds no answer to them.

    drive: the source of the functions that use the solution, where it is not simply called (see `Exercise`).
    uses: the exercises whose solutions this one's calls by name.
    gradients_of: the positions of the arguments whose gradients are compared; the first floating-point one where empty.
    """

    exercise: str
    solution: str
    function: bool
    differentiable: bool
    parts: Mapping[str, str]
    cases: tuple[TaskCase, ...]
    drive: str = ""
    uses: tuple[str, ...] = ()
    gradients_of: tuple[int, ...] = ()


def configured(build: Mapping[str, Any]) -> dict[str, Any]:
    """Build arguments as a constructor gets them: a dict called ``config`` becomes a `Config`.

    Each build gets a copy of its own, the lists in it included: what a constructor does to them reaches no other.
    """
    own = copy.deepcopy(dict(build))
    return {k: Config(v) if k == "config" and isinstance(v, Mapping) else v for k, v in own.items()}


def part_of(parts: Mapping[str, str], path: str) -> str | None:
    """The exercise that built the submodule at `path`, or None."""
    return next((exercise for pattern, exercise in parts.items() if _matches(path, pattern)), None)


def _matches(path: str, pattern: str) -> bool:
    """Segment by segment: ``h.*`` stands for ``h.0`` and not for ``h.0.attn``."""
    names, patterns = path.split("."), pattern.split(".")
    return len(names) == len(patterns) and all(fnmatchcase(n, p) for n, p in zip(names, patterns, strict=True))
