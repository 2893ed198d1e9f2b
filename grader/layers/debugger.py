"""The layer debugger: every module of a learner's model against the same module of the reference."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from grader.checks.probe.running import learner_traceback, quietly
from grader.errors import GraderError, NeedsAdapter
from grader.layers.comparison import Comparison
from grader.layers.loading import loaded_model
from grader.layers.own_model import called_with_config
from grader.layers.rows import LayerReport, one_sided, rows_of, summarised
from grader.layers.runs import with_runs
from grader.layers.search import find_culprit
from grader.recordings.traces import Trace

if TYPE_CHECKING:
    from grader.layers.own_names.naming import OwnNames

DERIVED = (
    "Your model derives head_dim as hidden size / heads. In the published model that is the same number, so it was"
    " compared with a small reference in which it is, too."
)


def layer_report(model: Any, trace: Trace, own: "OwnNames | None" = None) -> LayerReport:
    """Compare a model's class or instance with a trace, and with the runs that it holds.

    own: what is known of the model's names, if they may be others than the reference's. Raises GraderError where it
    can't be built, or its parameters are not the reference's.
    """
    with quietly([]), torch.no_grad():
        built, trace, alignment = loaded_model(model, trace, own)
        comparison = Comparison(built, trace)
        _require_ids_alone(comparison)
        found = report_of(comparison)
        found = replace(found, alignment=alignment, remarks=tuple(_remarks(comparison)), unseen=trace.unseen)
        return with_runs(found, built, trace, report_of) if trace.runs else found


def report_of(comparison: Comparison) -> LayerReport:
    """What a comparison of one pass found."""
    rows = rows_of(comparison)
    culprit = None if all(row.outcome.ok for row in rows) else find_culprit(comparison)
    faulty = [n for n in comparison.nodes if n in comparison.faulty and not n.call.is_step]
    further = [n.path for n in faulty if n not in comparison.holders]
    return LayerReport(
        rows=tuple(rows),
        culprit=culprit,
        own_errors=tuple(summarised(p for p in further if culprit and p != culprit.path.partition(":")[0])),
        one_sided=tuple(one_sided(comparison)),
        traceback=learner_traceback(comparison.error) if comparison.error else (),
    )


def port_report(target: Any, trace: Trace, own: "OwnNames") -> LayerReport:
    """As `layer_report`, of a class, a model, or a function of the config.

    A program that derives its head_dim is compared with a reference that does, where the published model does.
    """
    try:
        return layer_report(called_with_config(target, trace.build), trace, own)
    except GraderError as error:
        if trace.derived is None or isinstance(error, NeedsAdapter):
            raise
        try:
            found = layer_report(called_with_config(target, trace.derived.build), trace.derived, own)
        except GraderError:
            raise error from None
    return replace(found, remarks=(DERIVED, *found.remarks))


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
