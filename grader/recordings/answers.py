"""What is right for an exercise, and what its known mistakes give: what only a judge needs."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from grader.calls import Call
from grader.recordings.tasks import PartInput, PartOutput
from grader.tolerance import Tolerance


@dataclass(frozen=True)
class MistakeAnswer:
    """What a named mistake gives for each case, in the cases' order.

    noise: how far rounding alone moves these outputs, in units of a tolerance's `relative`; empty where it is far below
    the tolerance. shipped: where the mistake was published. gradients: for each case, where only they are wrong.
    """

    name: str
    hint: str
    outputs: tuple[Tensor, ...]
    noise: tuple[float, ...] = ()
    shipped: tuple[str, ...] = ()
    gradients: tuple[Tensor | None, ...] = ()


@dataclass(frozen=True, eq=False)  # told apart by identity, as its tensors are
class Answer:
    """What is right for each of an exercise's cases, and what its known mistakes give.

    part_calls: for a composite, what the reference's parts were given and returned, for each case.
    noise: how far rounding alone moves each output, in units of a tolerance's `relative`; empty where not measured.
    gradients: for each case the fingerprint of its gradients (see checks.fingerprint), where they are compared.
    ends: for each case what the reference gave for the last of more tokens, where it is asked with more. large: what it
    gave for a large input, where it is asked with one. other: what it gave for other numbers, one after the other.
    """

    exercise: str
    points: int
    axes: tuple[str, ...]
    sizes: tuple[Mapping[str, int], ...]
    outputs: tuple[Tensor, ...]
    tolerances: tuple[Tolerance, ...]
    mistakes: tuple[MistakeAnswer, ...] = ()
    part_calls: tuple[tuple[Call, ...], ...] = ()
    noise: tuple[float, ...] = ()
    gradients: tuple[Tensor | None, ...] = ()
    ends: tuple[Tensor | None, ...] = ()
    large: tuple[Tensor | None, ...] = ()
    other: tuple[Tensor | None, ...] = ()


def part_inputs(answer: Answer) -> tuple[tuple[PartInput, ...], ...]:
    """For each case, what the reference's parts were given."""
    return tuple(
        tuple(PartInput(call.path, call.index, call.input) for call in calls if call.input is not None)
        for calls in answer.part_calls
    )


def part_outputs(answer: Answer) -> tuple[tuple[PartOutput, ...], ...]:
    """For each case, what the reference's parts returned."""
    return tuple(
        tuple(
            PartOutput(call.path, call.index, tuple(call.input.shape), call.output)
            for call in calls
            if call.input is not None and call.output is not None
        )
        for calls in answer.part_calls
    )
