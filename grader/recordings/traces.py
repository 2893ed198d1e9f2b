"""Every module's input and output in one forward pass of a whole model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from grader.calls import Call
from grader.recordings.codec import written


@dataclass(frozen=True)
class Layout:
    """Other names for a trace's weights, which may also be cut into other tensors.

    paths: the modules whose path differs along with them, and their path here.
    """

    weights: Mapping[str, Tensor]
    paths: Mapping[str, str]


@dataclass(frozen=True)
class RunStep:
    """One pass of a run: some tokens of each text, ids [B, T], after those of the steps before.

    name: what a report calls it. mask: [B, tokens so far], True where a token is and no padding; None where there is
    no padding. positions: [B, T]. calls, output, floor: as of a `Trace`. states: what the cache holds after it, by
    name; empty where nothing is cached.
    """

    name: str
    ids: Tensor
    mask: Tensor | None
    positions: Tensor
    calls: tuple[Call, ...]
    output: Tensor
    states: Mapping[str, Tensor]
    floor: float = written(0.0)


@dataclass(frozen=True)
class Run:
    """Texts that a model is given in another way than all at once, from position 0 and without padding.

    name: "cached", "padded" and so on. cached: whether a cache is handed from step to step.
    """

    name: str
    cached: bool
    steps: tuple[RunStep, ...]


@dataclass(frozen=True)
class Trace:
    """Every module's input and output in one forward pass of a reference model, under the learner's names.

    layouts: other names that the learner's model may use. prefix: what all names but the head's begin with,
    without the dot; a learner's model may do without it. floor: as a call's, of the output.
    changed: what the small model's config has instead of the published one's, a phrase each. alternatives: the same
    architecture with numbers that a program may have in its code.
    runs: the same weights used in other ways. unseen: what no comparison with this trace can see, measured when it
    was made: weights and fields of the config whose change moves no row.
    """

    build: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    args: tuple[Any, ...]
    calls: tuple[Call, ...]
    output: Tensor
    dtype: torch.dtype
    layouts: tuple[Layout, ...] = written(())
    prefix: str = written("")
    floor: float = 0.0
    runs: tuple[Run, ...] = ()
    unseen: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    alternatives: tuple["Alternative", ...] = ()

    def with_calls(self, changed: Callable[[Call], Call | None]) -> "Trace":
        """The trace with its calls, those of its runs included, as `changed` makes them; None leaves one out."""
        runs = tuple(
            replace(run, steps=tuple(replace(step, calls=_changed(step.calls, changed)) for step in run.steps))
            for run in self.runs
        )
        return replace(self, calls=_changed(self.calls, changed), runs=runs)


@dataclass(frozen=True)
class Alternative:
    """A trace of a config that is as published in what `words` say. derived: whether in how head_dim is derived."""

    words: str
    trace: Trace
    derived: bool = False


def _changed(calls: Sequence[Call], changed: Callable[[Call], Call | None]) -> tuple[Call, ...]:
    return tuple(new for call in calls if (new := changed(call)) is not None)
