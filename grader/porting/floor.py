"""How far rounding alone moves what each module of a reference gives: measured once, when its trace is made.

The model is run again as on another processor (see instruments.rounding), and in float64. A
program that adds up in another order may be as far off as that, and no nearer to what is right than the reference.
"""

import contextlib
import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from grader.calls import Call, copied, first_tensor, record_calls
from grader.instruments.rounding import another_processor
from grader.recordings.traces import Trace
from grader.tolerance import ROOM, distance, tolerance_for

SEEDS = (1,)
HIGHEST = 2e-3  # above it a row hides an error of 1 %, so such a model is drawn anew
Floors = dict[tuple[str, int], float]
OUTPUT = "", 0


def with_floors(trace: Trace, model: nn.Module) -> Trace:
    """The trace with the noise floor of each of its calls, and of its output. The model is left as it is.

    A floor that the tolerance covers with room is left out. In bfloat16 there is none: rounding alone moves much as far
    there as a cast in the wrong place does, which such a trace is to show.
    """
    if trace.dtype != torch.float32:
        return trace
    right = {(call.path, call.index): call.outputs for call in trace.calls} | {OUTPUT: (trace.output,)}
    floors: Floors = {}
    for seed in SEEDS:
        with another_processor(seed):
            _measure(model, trace, right, floors)
    with contextlib.suppress(RuntimeError):  # parts of it may insist on float32
        _measure(copy.deepcopy(model).double(), trace, right, floors)
    kept = {key: floor for key, floor in floors.items() if ROOM * floor > tolerance_for(trace.dtype).relative}
    calls = tuple(replace(call, floor=_rounded(kept.get((call.path, call.index), 0.0))) for call in trace.calls)
    return replace(trace, calls=calls, floor=_rounded(kept.get(OUTPUT, 0.0)))


def is_steady(trace: Trace) -> bool:
    """Whether no floor is so high that it hides what a comparison is to show."""
    return highest_floor(trace)[0] <= max(HIGHEST, tolerance_for(trace.dtype).relative)


def highest_floor(trace: Trace) -> tuple[float, int]:
    """The highest of a trace's floors, and in how many of its calls there is one."""
    floors = [call.floor for call in trace.calls if call.floor]
    return max([*floors, trace.floor]), len(floors)


def _measure(model: nn.Module, trace: Trace, right: Mapping[tuple[str, int], Sequence[Tensor]], floors: Floors) -> None:
    with torch.no_grad():
        returned, calls = record_calls(model, lambda: model(*copy.deepcopy(trace.args)))
    output = copied(first_tensor(returned))
    whole = Call("", 0, "", None, output)
    for call in (*calls, whole):
        key = call.path, call.index
        for got, want in zip(call.outputs, right.get(key, ()), strict=False):
            if got.shape == want.shape:
                floors[key] = max(floors.get(key, 0.0), distance(got.to(want.dtype), want))


def _rounded(floor: float) -> float:
    return float(f"{floor:.2g}")
