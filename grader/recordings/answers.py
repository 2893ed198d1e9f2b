"""What is right for an exercise, and what its known mistakes give: what only a judge needs."""

from collections import defaultdict
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from grader.calls import Call
from grader.recordings.tasks import PartInput, PartOutput
from grader.tolerance import Stack, Tolerance, agree, widened

MAX_NOISE = 1e-2  # a mistake is not known by an output that rounding moves by more, in units of `Tolerance.relative`


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

    def in_case(self, index: int, tolerance: Tolerance) -> "Known | None":
        """What it gives in a case, and how near that is told; None where rounding alone makes it another output.

        tolerance: the case's.
        """
        noise = self.noise[index] if self.noise else 0.0
        return Known(self.outputs[index], widened(tolerance, noise)) if noise <= MAX_NOISE else None


@dataclass(frozen=True)
class Known:
    """A mistake's output in one case, and the tolerance within which another output is the same."""

    output: Tensor
    tolerance: Tolerance


@dataclass(frozen=True)
class Answer:
    """What is right for each of an exercise's cases, and what its known mistakes give.

    part_calls: for a composite, what the reference's parts were given and returned, for each case.
    noise: how far rounding alone moves each output, in units of a tolerance's `relative`; empty where not measured.
    gradients: for each case the fingerprint of its gradients (see checks.gradients), where they are compared.
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

    @cached_property
    def wrong_of(self) -> dict[str, tuple[bool, ...]]:
        """For each mistake by its name, and each case: whether it gives a wrong output."""
        return {m.name: tuple(not agree(*one) for one in self._compared(m)) for m in self.mistakes}

    @cached_property
    def shows_of(self) -> dict[str, tuple[bool, ...]]:
        """As `wrong_of`, but beyond what rounding may do to the mistake's own output."""
        return {m.name: tuple(self._shows(m, i) for i in range(len(self.outputs))) for m in self.mistakes}

    def near(self, index: int, got: Tensor | None) -> Container[int]:
        """The places of the mistakes whose output in a case may be `got`: all but those that a look at all tells apart.

        index: the case's.
        """
        if got is None or not got.ndim:  # a number may also be the same in another dtype
            return range(len(self.mistakes))
        alike = self._stacked[index].get((got.shape, got.dtype))
        return () if alike is None else alike.near(got)

    @cached_property
    def _stacked(self) -> list[dict[tuple[torch.Size, torch.dtype], Stack]]:
        """For each case the outputs of those mistakes that show in it, by shape and dtype."""
        stacked = []
        for i, tolerance in enumerate(self.tolerances):
            alike: dict[tuple[torch.Size, torch.dtype], list[tuple[int, Tensor, Tolerance]]] = defaultdict(list)
            for place, mistake in enumerate(self.mistakes):
                known = mistake.in_case(i, tolerance)
                if known is not None and self.wrong_of[mistake.name][i]:
                    alike[known.output.shape, known.output.dtype].append((place, known.output, known.tolerance))
            stacked.append({kind: Stack.of(members) for kind, members in alike.items()})
        return stacked

    def _compared(self, mistake: MistakeAnswer) -> Iterator[tuple[Tensor, Tensor, Tolerance]]:
        return zip(mistake.outputs, self.outputs, self.tolerances, strict=True)

    def _shows(self, mistake: MistakeAnswer, i: int) -> bool:
        known = mistake.in_case(i, self.tolerances[i])
        return known is not None and not agree(known.output, self.outputs[i], known.tolerance)


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
