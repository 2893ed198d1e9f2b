"""What cases must be so that nothing can be hard-coded: their numbers vary, and hidden answers are no released ones."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from grader.errors import RecordingError
from grader.lessons.exercise import Exercise
from grader.recordings.answers import Answer
from grader.recordings.tasks import TaskCase
from grader.recordings.toy_lm import ToyLM


def require_varied(exercise: Exercise, cases: Sequence[TaskCase]) -> None:
    """Raise RecordingError where a number that cases carry is the same in all of them.

    A solution that has such a number in it, in place of the config's or the argument's, would be right. Numbers are
    those of build arguments, of configs and of arguments, and the sizes of tensors.
    """
    seen: dict[str, list[Any]] = {}
    for case in cases:
        for name, value in numbers_of(case):
            seen.setdefault(name, []).append(value)
    same = {name: all(value == values[0] for value in values) for name, values in seen.items()}
    open_ = [name for name in seen if same[name] and len(seen[name]) > 1 and name not in exercise.fixed]
    if open_:
        name, values = open_[0], seen[open_[0]]
        more = f" The same holds of {', '.join(open_[1:])}." if open_[1:] else ""
        raise RecordingError(
            f"{exercise.name}: {name} is {values[0]} in each of the {len(values)} cases that have it, so a solution"
            f" with {values[0]} written in it is right. Give two cases different ones, leave it out where the exercise"
            f" does not read it, or say in the exercise's `fixed` why it may stay:"
            f' fixed={{"{name}": "..."}}.{more}'
        )
    for name in exercise.fixed:
        if name in same and not same[name]:
            raise RecordingError(f"{exercise.name}: `fixed` has {name}, which varies. Take it out.")
    if unknown := [name for name in exercise.fixed if name not in seen]:
        raise RecordingError(
            f"{exercise.name}: `fixed` has {unknown[0]}, which no case has. Its numbers are: {', '.join(seen)}."
        )


def numbers_of(case: TaskCase) -> Iterator[tuple[str, Any]]:
    """Every number that a case carries, under a name: "config.n_head", "argument 2", "argument 1, axis 0"."""
    for name, value in case.build.items():
        yield from _numbers(name, value)
    for i, value in enumerate(case.args, start=1):
        yield from _numbers(f"argument {i}", value)


def _numbers(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, bool | str | None):
        return
    if isinstance(value, Tensor):
        yield from ((f"{name}, axis {axis}", size) for axis, size in enumerate(value.shape))
    elif isinstance(value, ToyLM):
        yield from _numbers(name, value.config)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(f"{name}.{key}", item)
    elif isinstance(value, list | tuple):
        if value and all(isinstance(item, int | float) for item in value):
            yield name, list(value)
    else:
        yield name, value


def require_secret(where: str, output: Tensor, released: Answer) -> None:
    """Raise RecordingError where a hidden case has an answer that is right for a released one.

    Whoever stored the released answers would have it right. where: the exercise and the case, for the error.
    """
    if any(_equal(output, other) for other in released.outputs):
        raise RecordingError(
            f"{where}: the hidden answer is one that the released recording has. Draw what the answer depends on:"
            " numbers with `draw.number`, sizes with `draw.size`."
        )


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
