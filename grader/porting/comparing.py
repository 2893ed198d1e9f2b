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
from grader.recordings.traces import Trace

DERIVED = (
    "Your model derives head_dim as hidden size / heads. In the published model that is the same number, so it was"
    " compared with a small reference in which it is, too."
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

    A program that derives its head_dim is compared with a reference that does, where the published model does.
    """
    try:
        return program_report(called_with_config(target, trace.build), trace, own)
    except GraderError as error:
        if trace.derived is None or isinstance(error, NeedsAdapter):
            raise
        try:
            found = program_report(called_with_config(target, trace.derived.build), trace.derived, own)
        except GraderError:
            raise error from None
    return replace(found, remarks=(DERIVED, *found.remarks))
