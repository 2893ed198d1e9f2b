"""Arrays that any program wrote down, beside what the reference's modules gave: for ports that are not PyTorch."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from grader.calls import Call
from grader.errors import GraderError
from grader.layers.outcome import outcome_of
from grader.layers.rows import Culprit, LayerRow
from grader.porting.report import PortReport
from grader.recordings.traces import Trace

ENDS = re.compile(r"\.(output|out|outputs)$")
OUTPUTS = ("logits", "output", "lm_head.logits")


def dump_report(path: Path, trace: Trace) -> PortReport:
    """Compare arrays in a safetensors file with the outputs of the reference's modules that they are named after.

    A name is a module's path, with or without the prefix of the model's inside, and `[1]` after it for its second
    call; `logits` is the whole model's output. Numbers in another floating dtype are compared in the reference's.
    Raises GraderError where the file can't be read, or none of its names is one of the reference's.
    """
    try:
        arrays = load_file(path)
    except (OSError, SafetensorError) as error:
        raise GraderError(f"{path} can't be read as safetensors: {error}") from None
    whole = Call("", 0, "", None, trace.output, floor=trace.floor)
    found, strange = [], []
    for name, array in arrays.items():
        call = whole if name in OUTPUTS else _call_of(ENDS.sub("", name), trace)
        found.extend([(name, array, call)] if call is not None else [])
        strange.extend([] if call is not None else [name])
    if not found:
        example = next((call.path for call in trace.calls if call.output is not None), "")
        raise GraderError(
            f"{path}: none of its {len(arrays)} arrays is named after a module of the reference's."
            f" Names are like `{example}` and `logits`."
        )
    order = {id(call): number for number, call in enumerate(trace.calls)}
    found.sort(key=lambda item: order.get(id(item[2]), len(order)))
    rows = tuple(_row(name, array, call) for name, array, call in found)
    left = f"Not in the reference: {', '.join(sorted(strange))}"
    one_sided = (left,) if strange else ()
    remarks = (f"Not compared: {', '.join(run.name for run in trace.runs)}.",) if trace.runs else ()
    return PortReport(rows, _first_wrong(rows), (), one_sided, (), remarks=remarks, unseen=trace.unseen)


def _call_of(name: str, trace: Trace) -> Call | None:
    match = re.fullmatch(r"(.+?)(?:\[(\d+)\])?", name)
    path, index = (match[1], int(match[2] or 0)) if match else (name, 0)
    paths = {path, f"{trace.prefix}.{path}" if trace.prefix else path}
    return next(
        (call for call in trace.calls if call.path in paths and call.index == index and call.output is not None), None
    )


def _row(name: str, array: Tensor, call: Call) -> LayerRow:
    assert call.output is not None
    if array.is_floating_point() and call.output.is_floating_point():
        array = array.to(call.output.dtype)
    elif call.output.dtype == torch.int64 and not array.is_floating_point():
        array = array.long()
    return LayerRow(name, call.type, outcome_of([array], call, {}), "", name, 0)


def _first_wrong(rows: Sequence[LayerRow]) -> Culprit | None:
    wrong = next((i for i, row in enumerate(rows) if not row.outcome.ok), None)
    if wrong is None:
        return None
    row, before = rows[wrong], [row.name for row in rows[:wrong]]
    said = f"after `{before[-1]}`, which is right, " if before else ""
    reason = (
        f"it is the first that differs. Look at what happens {said}up to it; write down more arrays to come closer."
    )
    return Culprit(row.name, row.name, row.type or "the output", (reason,))
