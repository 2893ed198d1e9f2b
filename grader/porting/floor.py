"""How far rounding alone moves what each module of a reference gives: measured once, when its trace is made.

The model is run again as on another processor (see instruments.rounding), and in float64. A
program that adds up in another order may be as far off as that, and no nearer to what is right than the reference.
"""

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from grader.calls import Call, copied, first_tensor, record_calls
from grader.instruments.rounding import another_processor
from grader.porting.runs import Floors, measured_runs, note_floors, rounded_floor
from grader.recordings.traces import Trace
from grader.steps import functions_as_steps
from grader.tolerance import tolerance_for

SEED = 1
HIGHEST = 2e-3  # above it a row hides an error of 1 %, so such a model is drawn anew
OUTPUT = "", 0


def with_floors(trace: Trace, model: nn.Module) -> Trace:
    """The trace with the noise floor of each of its calls, and of its output. The model is left as it is.

    A floor that the tolerance covers with room is left out. In bfloat16 there is none: rounding alone moves much as far
    there as a cast in the wrong place does, which such a trace is to show.
    """
    if trace.dtype != torch.float32:
        return trace
    floors: Floors = {}
    with _elsewhere(model) as other:
        _measure(other, trace, floors)
    with contextlib.suppress(RuntimeError), _in_float64(model) as other:  # parts of it may insist on float32
        _measure(other, trace, floors)
    calls = tuple(replace(c, floor=rounded_floor(floors, (c.path, c.index), trace.output)) for c in trace.calls)
    runs = measured_runs(model, trace.runs, (_elsewhere,))
    return replace(trace, calls=calls, floor=rounded_floor(floors, OUTPUT, trace.output), runs=runs)


def is_steady(trace: Trace) -> bool:
    """Whether no floor is so high that it hides what a comparison is to show."""
    return highest_floor(trace)[0] <= max(HIGHEST, tolerance_for(trace.dtype).relative)


def highest_floor(trace: Trace) -> tuple[float, int]:
    """The highest of a trace's floors, and in how many of its calls there is one."""
    floors = [call.floor for call in trace.calls if call.floor]
    return max([*floors, trace.floor]), len(floors)


@contextlib.contextmanager
def _elsewhere(model: nn.Module) -> Iterator[nn.Module]:
    with another_processor(SEED):
        yield model


@contextlib.contextmanager
def _in_float64(model: nn.Module) -> Iterator[nn.Module]:
    yield copy.deepcopy(model).double()


def _measure(model: nn.Module, trace: Trace, floors: Floors) -> None:
    with torch.no_grad(), functions_as_steps(model):
        returned, calls = record_calls(model, lambda: model(*copy.deepcopy(trace.args)))
    output = copied(first_tensor(returned))
    whole = Call("", 0, "", None, output), Call("", 0, "", None, trace.output)
    note_floors((*calls, whole[0]), (*trace.calls, whole[1]), floors)
