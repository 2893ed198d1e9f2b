"""A program, under whatever names, against a trace: its modules in one pass, and in the runs that the trace holds."""

from dataclasses import replace
from typing import Any

import torch

from grader.checks.probe.running import quietly
from grader.errors import GraderError, NeedsAdapter
from grader.layers.debugger import compared
from grader.layers.own_model import called_with_config
from grader.porting.compared_runs import with_runs
from grader.porting.own_names.loading import OwnNames, loaded_program
from grader.porting.report import PortReport
from grader.recordings.traces import Alternative, Trace

DERIVED = (
    "Your model derives head_dim as hidden size / heads. In the published model that is the same number, so it was"
    " compared with a small reference in which it is, too."
)
PUBLISHED = (
    "Your program has numbers of the published model in its code, so it was compared with a small reference with {}."
)


def program_report(model: Any, trace: Trace, own: OwnNames | None = None) -> PortReport:
    """Compare a model's class or instance with a trace, and with the runs that it holds.

    own: what is known of the model's names, which may be others than the reference's. Raises GraderError where it can't
    be built, or some of its parameters have no counterpart, and NeedsAdapter where it can't be given what a run needs.
    """
    with quietly([]), torch.no_grad():
        built, trace, alignment = loaded_program(model, trace, own or OwnNames())
        found = with_runs(compared(built, trace), built, trace)
    return PortReport(**vars(replace(found, hints=alignment.hints if alignment else ())), alignment=alignment)


def port_report(target: Any, trace: Trace, own: OwnNames) -> PortReport:
    """As `program_report`, of a class, a model, or a function of the config.

    A program that has numbers of the published model in its code, where a small reference has others, is compared with
    one that has these, too: where that makes it right, or else can be compared at all.
    """
    first: PortReport | GraderError
    try:
        first = program_report(called_with_config(target, trace.build), trace, own)
    except NeedsAdapter:
        raise
    except GraderError as error:
        first = error
    if isinstance(first, PortReport) and first.ok:
        return first
    others = [_with_alternative(target, alternative, own) for alternative in trace.alternatives]
    found = [report for report in others if report is not None]
    right = next((report for report in found if report.ok), None)
    if right is None and isinstance(first, GraderError) and found:
        right = found[0]
    if right is not None:
        return right
    if isinstance(first, GraderError):
        raise first
    return max([first, *found], key=_right_rows)


def _with_alternative(target: Any, other: Alternative, own: OwnNames) -> PortReport | None:
    """The report with another trace, and why it is that one; None where the two can't be compared."""
    try:
        found = program_report(called_with_config(target, other.trace.build), other.trace, own)
    except GraderError:
        return None
    said = [DERIVED] if other.derived else []
    said += [PUBLISHED.format(other.words)] if other.words else []
    return replace(found, remarks=(*said, *found.remarks))


def _right_rows(report: PortReport) -> int:
    return sum(row.outcome.ok for row in report.rows)
