"""A capstone made from its seed: the architecture, random weights, and a trace of one pass and of decoding."""

import copy
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from grader.calls import Call
from grader.capstone.drawing import LEVELS, Drawn, attempts
from grader.capstone.model import LinearAttention, Model
from grader.capstone.visible import hidden_fields, idle_experts
from grader.config import Config
from grader.errors import GraderError
from grader.lessons.exercise import Draw
from grader.porting.filling import fill, tokens
from grader.porting.floor import with_floors
from grader.porting.runs import ONE_PASS, Ways, traced
from grader.recordings.traces import Trace
from grader.tolerance import Tolerance, distance

TOKENS = 18
WEIGHTS_DRAWN = 6  # before another architecture is drawn
ROOM = Tolerance(4e-4)  # of all layers together, rounding takes more than of one module
MOST_ROUNDING = 2e-5  # less than half of the tolerance: a right program's own comes on top


@dataclass(frozen=True)
class Capstone:
    """An architecture, its reference and its trace. take: which of the seed's draws it is, counted from 0."""

    take: int
    drawn: Drawn
    model: Model
    ids: Tensor
    trace: Trace


def make(seed: int, level: int, take: int | None = None) -> Capstone:
    """The capstone of a seed: the first of its draws in which all shows and rounding decides nothing.

    Whether it does may differ by machine where a draw is near the limit. With `take` that draw is made and nothing is
    asked of it: so everyone gets what was looked at once. Raises GraderError for a level that there is not.
    """
    if level not in LEVELS:
        raise GraderError(
            f"There is no level {level}. Levels: 1, two changes of a known model; 2, five; 3, everything is drawn."
        )
    if seed < 0:
        raise GraderError(f"--seed {seed}: a seed is a whole number from 0 on.")
    if take is not None and take < 0:
        raise GraderError(f"--take {take}: draws of a seed are counted from 0.")
    every = ((drawn, number) for drawn in attempts(seed, level) for number in range(WEIGHTS_DRAWN))
    wanted = enumerate(every) if take is None else [(take, next(itertools.islice(every, take, None)))]
    return next(
        made for i, (drawn, number) in wanted if (made := _made(i, drawn, number, unasked=take is not None)) is not None
    )


def _made(take: int, drawn: Drawn, number: int, unasked: bool) -> Capstone | None:
    """The capstone of an architecture; None where rounding decides in it, or something of it does not show.

    unasked: it was looked at before.
    """
    model, ids = filled(drawn, number)
    if not unasked:
        plain = traced(model, ids, drawn.config, ONE_PASS)
        if not plain.output.isfinite().all() or idle_experts(model, ids):
            return None
        if next(hidden_fields(drawn.config, model, plain), None):
            return None
    trace = traced(model, ids, drawn.config, Ways(cached=True))
    if not unasked and rounding_of(model, trace) > MOST_ROUNDING:
        return None
    return Capstone(take, drawn, model, ids, with_floors(trace, model))


def rounding_of(model: Model, trace: Trace) -> float:
    """How far the trace is from one in float64, at most, in units of a tolerance's `relative`."""
    wide = traced(copy.deepcopy(model).double(), trace.args[0], {}, Ways(cached=True))
    pairs = [(trace.output, wide.output), *_outputs(trace.calls, wide.calls)]
    for run, other in zip(trace.runs, wide.runs, strict=True):
        for step, again in zip(run.steps, other.steps, strict=True):
            pairs += [(step.output, again.output), *_outputs(step.calls, again.calls)]
    return max(distance(right.to(got.dtype), got) for got, right in pairs)


def _outputs(calls: Sequence[Call], others: Sequence[Call]) -> Iterator[tuple[Tensor, Tensor]]:
    for call, other in zip(calls, others, strict=True):
        yield from zip(call.outputs, other.outputs, strict=True)


def filled(drawn: Drawn, number: int = 0) -> tuple[Model, Tensor]:
    """The reference of an architecture with random weights, and token ids [2, TOKENS]."""
    config = Config(drawn.config)
    model = Model(config).eval()
    draw = Draw("capstone", str(drawn.seed), str(drawn.level), str(number))
    fill_weights(model, config, draw)
    return model, tokens(config.vocab_size, draw, TOKENS)


def fill_weights(model: Model, config: Config, draw: Draw) -> None:
    """Random weights, with which everything shows."""
    fill(model, draw)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1 and config.zero_centered_norm and "norm" in name and "linear_attn" not in name:
                weight.sub_(1)
        for module in model.modules():
            if isinstance(module, LinearAttention):
                module.A_log.sub_(2.5)  # some of a state stays for several tokens
                for part in (module.in_proj_qkv.weight, module.conv1d.weight):
                    q, k, _ = torch.split(part, module.sizes)
                    k.mul_(0.4).add_(
                        0.9 * q
                    )  # a key like its query: what is read is not near 0, where rounding is large


def parameters(model: nn.Module) -> int:
    """How many numbers a model has learned."""
    return sum(weight.numel() for weight in model.parameters())
