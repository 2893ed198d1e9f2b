"""The reference in other ways than one pass over whole texts: with a cache, with padding, from another position."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from grader.calls import Call, copied, first_tensor, record_calls
from grader.errors import GraderError, NeedsAdapter, last_line
from grader.padding import left_out, without_padding
from grader.porting.coverage import Coverage
from grader.porting.decoding import Decoder
from grader.porting.states import held_by
from grader.recordings.traces import Run, RunStep, Trace
from grader.recordings.tracing import trace_of
from grader.steps import functions_as_steps
from grader.tolerance import MARGIN, distance, tolerance_for

PREFILL, CHUNK, SINGLE = 3, 4, 4  # fewer than a convolution reads, then across a window's edge, then one by one
PADDING = 2  # before the second text
PAD = 0
Floors = dict[tuple[str, int], float]


@dataclass(frozen=True)
class Ways:
    """How a reference is run besides: decoding with a cache, with padding, from position `offset`."""

    cached: bool = False
    padded: bool = False
    offset: int = 0


ONE_PASS = Ways()


@dataclass(frozen=True)
class _RunPlan:
    name: str
    cached: bool
    ids: Tensor
    mask: Tensor | None
    positions: Tensor
    sizes: tuple[int, ...]


def traced(model: nn.Module, ids: Tensor, fields: dict[str, Any], ways: Ways) -> Trace:
    """A pass of the model over token ids [B, T], and its runs. fields: the config as the ported model reads it."""
    with functions_as_steps(model):
        trace = trace_of(model, ids, build={"config": fields})
    return replace(trace, runs=traced_runs(model, ids, ways))


def traced_runs(model: nn.Module, ids: Tensor, ways: Ways) -> tuple[Run, ...]:
    """The runs that `ways` asks for of token ids [B, T]. Raises GraderError where the model can't be run so."""
    runs = []
    for plan in _plans(ids, ways):
        try:
            runs.append(Run(plan.name, plan.cached, tuple(_steps(model, plan))))
        except Exception as error:  # transformers may fail in any way
            option = "--cached" if plan.cached else "--padding" if plan.mask is not None else "--offset"
            if isinstance(error, NeedsAdapter):
                raise GraderError(
                    f"transformers' own {type(model).__name__} takes none of that. Leave {option} out."
                ) from None
            why = f"{type(error).__name__}: {last_line(error)}"
            raise GraderError(
                f"transformers' own {type(model).__name__} can't run {plan.name} ({why}). Leave {option} out."
            ) from None
    return tuple(runs)


def _plans(ids: Tensor, ways: Ways) -> Iterator[_RunPlan]:
    B, T = ids.shape
    positions = torch.arange(T).expand(B, T).contiguous()
    parts = _parts(T)
    if ways.cached:
        yield _RunPlan("cached", True, ids, None, positions, parts)
    if ways.offset:
        yield _RunPlan(f"from position {ways.offset}", False, ids, None, positions + ways.offset, (T,))
    if ways.padded:
        mask = torch.ones(B, T, dtype=torch.bool)
        mask[1::2, :PADDING] = False
        padded = ids.clone()
        padded[1::2] = torch.cat((torch.full_like(ids[1::2, :PADDING], PAD), ids[1::2, : T - PADDING]), dim=1)
        shifted = (mask.long().cumsum(1) - 1).clamp_min(0)
        yield _RunPlan("padded", False, padded, mask, shifted, (T,))
        if ways.cached:
            yield _RunPlan("padded and cached", True, padded, mask, shifted, parts)


def _parts(length: int) -> tuple[int, ...]:
    """How many tokens come at once: a prompt, chunks, and single tokens."""
    if length <= PREFILL + CHUNK + SINGLE:
        return (length - length // 2, *(1,) * (length // 2))
    return PREFILL, CHUNK, length - PREFILL - CHUNK - SINGLE, *(1,) * SINGLE


def _steps(model: nn.Module, plan: _RunPlan) -> Iterator[RunStep]:
    decoder = Decoder(model, plan.cached, *plan.ids.shape)
    done = 0
    for size in plan.sizes:
        part = slice(done, done + size)
        mask = None if plan.mask is None else plan.mask[:, : done + size].clone()
        ids, positions = plan.ids[:, part].clone(), plan.positions[:, part].clone()
        returned, calls = _one(model, decoder, ids, mask, positions)
        output = copied(first_tensor(returned))
        if output is None or not output.isfinite().all():
            raise ValueError("its output is not finite")
        states = held_by(decoder.cache) if plan.cached else {}
        name = f"token {done}" if size == 1 else f"tokens {done} to {done + size - 1}"
        kept = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in states.items()}
        yield RunStep(name, ids, mask, positions, tuple(calls), _blank(output, mask), kept)
        done += size


def _one(
    model: nn.Module, decoder: Decoder, ids: Tensor, mask: Tensor | None, positions: Tensor
) -> tuple[Any, list[Call]]:
    with torch.no_grad(), functions_as_steps(model), left_out(None if mask is None else mask[:, -ids.shape[1] :]):
        return record_calls(model, lambda: decoder(ids, mask, positions))


def _blank(output: Tensor, mask: Tensor | None) -> Tensor:
    with left_out(None if mask is None else mask[:, -output.shape[1] :]):
        return without_padding(output).clone()


def measured_runs(
    model: nn.Module, runs: Sequence[Run], passes: Sequence[Callable[[nn.Module], Any]]
) -> tuple[Run, ...]:
    """The runs with the noise floors of their calls: the model is run again in each of `passes`, which enter another
    order of operations and give the model to run.
    """
    return tuple(_measured(model, run, passes) for run in runs)


def _measured(model: nn.Module, run: Run, passes: Sequence[Callable[[nn.Module], Any]]) -> Run:
    floors: list[Floors] = [{} for _ in run.steps]
    for enter in passes:
        with enter(model) as other:
            decoder = Decoder(other, run.cached, run.steps[0].ids.shape[0], sum(s.ids.shape[1] for s in run.steps))
            for step, floor in zip(run.steps, floors, strict=True):
                returned, calls = _one(other, decoder, step.ids, step.mask, step.positions)
                output = copied(first_tensor(returned))
                output = None if output is None else _blank(output, step.mask)
                note_floors(
                    (*calls, Call("", 0, "", None, output)), (*step.calls, Call("", 0, "", None, step.output)), floor
                )
    return replace(run, steps=tuple(_with_floor(step, floor) for step, floor in zip(run.steps, floors, strict=True)))


def _with_floor(step: RunStep, floors: Floors) -> RunStep:
    calls = tuple(
        replace(call, floor=rounded_floor(floors, (call.path, call.index), step.output)) for call in step.calls
    )
    return replace(step, calls=calls, floor=rounded_floor(floors, ("", 0), step.output))


def note_floors(calls: Sequence[Call], recorded: Sequence[Call], floors: Floors) -> None:
    """Keep in `floors` how far calls are from the recorded ones, where they are further than before."""
    right = {(call.path, call.index): call.outputs for call in recorded}
    for call in calls:
        key = call.path, call.index
        for got, want in zip(call.outputs, right.get(key, ()), strict=False):
            if got.shape == want.shape:
                floors[key] = max(floors.get(key, 0.0), distance(got.to(want.dtype), want))


def rounded_floor(floors: Floors, key: tuple[str, int], output: Tensor) -> float:
    """A floor to two digits; 0 where the tolerance covers it with room."""
    floor = floors.get(key, 0.0)
    return float(f"{floor:.2g}") if MARGIN * floor > tolerance_for(output.dtype).relative else 0.0


def consistency(trace: Trace) -> Iterator[Coverage]:
    """Whether the reference itself gives with a cache what it gives without."""
    for run in trace.runs:
        if run.name == "cached":
            outputs = torch.cat([step.output for step in run.steps], dim=1)
            floors = [trace.floor, *(step.floor for step in run.steps)]
            apart = distance(outputs, trace.output)
            alike = apart <= max(tolerance_for(trace.dtype).relative, MARGIN * max(floors))
            sizes = ", ".join(str(step.ids.shape[1]) for step in run.steps)
            detail = f"texts in parts of {sizes} tokens"
            if not alike:
                detail += f"; transformers' own results are {apart:.1g} apart, so one of the two is wrong there"
            yield Coverage("a cache gives what one pass gives", alike, detail)
