"""A learner's model with the recorded weights, and the trace under the model's own names."""

import copy
from typing import TYPE_CHECKING, Any

from torch import nn

from grader.checks.probe.building import build_module, constructed
from grader.checks.probe.running import Stopped
from grader.errors import GraderError, NeedsAdapter
from grader.recordings.renaming import in_names_of
from grader.recordings.tasks import TaskCase
from grader.recordings.traces import Trace

if TYPE_CHECKING:  # only a program with names of its own needs them
    from grader.layers.own_names.alignment import Alignment
    from grader.layers.own_names.naming import OwnNames


def loaded_model(model: Any, trace: Trace, own: "OwnNames | None") -> tuple[nn.Module, Trace, "Alignment | None"]:
    """The learner's model with the recorded weights, the trace under the model's own names, and what was matched.

    own: what is known of the model's names, if they may be others than the reference's. Raises GraderError where the
    model can't be built, or its parameters are not the reference's.
    """
    built_from: type = model if isinstance(model, type) else type(model)
    name = built_from.__name__
    try:
        if own is not None and own.known:
            return _by_content(model, trace, own)
        return (*_loaded(model, trace), None)
    except Stopped as stopped:
        if own is not None and stopped.problem.kind == "parameters":
            return _by_content(model, trace, own)
        if built_from is not model and stopped.problem.kind == "parameters" and _fits(built_from, trace):
            raise GraderError(
                f"This {name} was built with another config than the recorded one, and so has other sizes."
                f" Hand over the class, which is built as the recorded one was: compare_layers({name})"
            ) from None
        lines = [f"{name} can't be compared: {stopped.problem.message}", *stopped.problem.detail]
        kind = GraderError if stopped.problem.kind == "parameters" else NeedsAdapter
        raise kind("\n  ".join(lines)) from None


def _by_content(model: Any, trace: Trace, own: "OwnNames") -> tuple[nn.Module, Trace, "Alignment | None"]:
    from grader.layers.own_names.naming import loaded_by_content

    made = _made(model, trace)
    return (made, *loaded_by_content(made, trace, own))


def _fits(model: type, trace: Trace) -> bool:
    """Whether the class, built as the reference was, has the reference's parameters."""
    try:
        _loaded(model, trace)
    except Stopped:
        return False
    return True


def _loaded(model: Any, trace: Trace) -> tuple[nn.Module, Trace]:
    """As `_built`. Raises Stopped where it can't be built, or its parameters are not the reference's."""
    made = _made(model, trace)
    trace = in_names_of(made, trace)
    case = TaskCase("trace", {}, trace.args, trace.dtype, trace.weights)
    return build_module(lambda: made, case)[0], trace


def _made(model: Any, trace: Trace) -> nn.Module:
    """A copy of an instance, or a class's module."""
    if isinstance(model, nn.Module):
        try:
            return copy.deepcopy(model).cpu()
        except Exception as error:  # whatever the learner keeps in the model
            raise GraderError(f"This model can't be copied ({error}). Hand over its class instead.") from None
    if isinstance(model, type) and issubclass(model, nn.Module):
        return constructed(model, trace.build).cpu()
    kind = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
    raise GraderError(f"compare_layers needs an nn.Module, the class or an instance of it; this is {kind}.")
