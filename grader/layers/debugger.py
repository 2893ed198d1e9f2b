"""The layer debugger: every module of a learner's model against the same module of the reference."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from grader.checks.probe.running import learner_traceback, quietly
from grader.errors import NeedsAdapter
from grader.layers.comparison import Comparison
from grader.layers.culprit import find_culprit
from grader.layers.loading import loaded_model
from grader.layers.rows import Culprit, LayerReport, LayerRow, one_sided, rows_of, summarised
from grader.recordings.traces import Trace


def layer_report(model: Any, trace: Trace) -> LayerReport:
    """Compare a model's class or instance with one pass of the reference; the runs that a trace may hold are left out.

    Raises GraderError where it can't be built, or its parameters are not the reference's.
    """
    with quietly([]), torch.no_grad():
        return compared(*loaded_model(model, trace))


def compared(model: nn.Module, trace: Trace) -> LayerReport:
    """Compare a model that holds the trace's weights. Raises NeedsAdapter where its forward asks for more than ids."""
    comparison = Comparison(model, trace)
    _require_ids_alone(comparison)
    return replace(report_of(comparison), remarks=tuple(_remarks(comparison)), unseen=trace.unseen)


def report_of(comparison: Comparison) -> LayerReport:
    """What a comparison of one pass found."""
    rows = rows_of(comparison)
    culprit = None if all(row.outcome.ok for row in rows) else find_culprit(comparison)
    rows = _with_blame(rows, comparison, culprit)
    faulty = [n for n in comparison.nodes if n in comparison.faulty and not n.call.is_step]
    further = [n.path for n in faulty if n not in comparison.holders]
    return LayerReport(
        rows=tuple(rows),
        culprit=culprit,
        own_errors=tuple(summarised(p for p in further if culprit and not _lies_in(culprit.path, p))),
        one_sided=tuple(one_sided(comparison)),
        traceback=learner_traceback(comparison.error) if comparison.error else (),
    )


def _with_blame(rows: list[LayerRow], comparison: Comparison, culprit: Culprit | None) -> list[LayerRow]:
    """The rows where the one to start with is right by itself, as a layer that is given another one's cache: the error
    is its own then, and inside what it lies in.
    """
    node = next((n for n in comparison.nodes if culprit and (n.path, n.name) == (culprit.path, culprit.name)), None)
    if node is None or node.seen.ok or node in comparison.faulty:
        return rows
    around = {ancestor.name for ancestor in node.ancestors()}
    blamed = []
    for row in rows:
        if row.name == node.name:
            row = replace(row, origin="own error")
        elif row.name in around and row.origin == "own error":
            row = replace(row, origin="error inside")
        blamed.append(row)
    return blamed


def _lies_in(path: str, module: str) -> bool:
    """Whether a module or a step is another module, or a part of it."""
    return f"{path.partition(':')[0]}.".startswith(f"{module}.")


def _remarks(comparison: Comparison) -> Iterator[str]:
    if comparison.last_alone:
        yield (
            "Your model returns the logits of the last token alone, so those alone were compared. Where it gives all of"
            " them if it is handed targets, `grader port` writes the lines that do so."
        )


def _require_ids_alone(comparison: Comparison) -> None:
    """Raise NeedsAdapter where the model asks for more than the reference is given."""
    asked = re.search(r"missing \d+ required positional arguments?: (.+)", str(comparison.error))
    if comparison.error is not None and asked and not comparison.calls[1:]:
        name = type(comparison.model).__name__
        wanted = asked[1].replace("'", "`")
        raise NeedsAdapter(f"{name} can't be compared: besides the token ids, its forward asks for {wanted}.") from None
