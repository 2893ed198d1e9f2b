"""A learner's model with the recorded weights, and the trace under the model's own names."""

import copy
from typing import Any

from torch import nn

from grader.checks.probe.building import build_module, constructed
from grader.checks.probe.running import Stopped
from grader.errors import GraderError, NeedsAdapter
from grader.recordings.renaming import in_names_of
from grader.recordings.tasks import TaskCase, configured
from grader.recordings.traces import Trace


def loaded_model(model: Any, trace: Trace) -> tuple[nn.Module, Trace]:
    """The learner's model with the recorded weights, and the trace under the model's own names.

    Raises GraderError where the model can't be built, or its parameters are not the reference's.
    """
    try:
        return loaded(model, trace)
    except Stopped as stopped:
        raise not_comparable(model, trace, stopped) from None


def not_comparable(model: Any, trace: Trace, stopped: Stopped) -> GraderError:
    """What a person is told whose model can't be compared."""
    built_from: type = model if isinstance(model, type) else type(model)
    name, problem = built_from.__name__, stopped.problem
    if built_from is not model and problem.kind == "parameters" and _fits(built_from, trace):
        return GraderError(
            f"This {name} was built with another config than the recorded one, and so has other sizes."
            f" Hand over the class, which is built as the recorded one was: compare_layers({name})"
        )
    kind = GraderError if problem.kind == "parameters" else NeedsAdapter
    return kind("\n  ".join((f"{name} can't be compared: {problem.message}", *problem.detail)))


def _fits(model: type, trace: Trace) -> bool:
    """Whether the class, built as the reference was, has the reference's parameters."""
    try:
        loaded(model, trace)
    except Stopped:
        return False
    return True


def loaded(model: Any, trace: Trace) -> tuple[nn.Module, Trace]:
    """As `loaded_model`. Raises Stopped where it can't be built, or its parameters are not the reference's."""
    made = made_model(model, trace)
    trace = in_names_of(made, trace)
    case = TaskCase("trace", {}, trace.args, trace.dtype, trace.weights)
    return build_module(lambda: made, case)[0], trace


def made_model(model: Any, trace: Trace) -> nn.Module:
    """A copy of an instance, or a class's module. Raises Stopped where it can't be built, GraderError for neither."""
    if isinstance(model, nn.Module):
        try:
            return copy.deepcopy(model).cpu()
        except Exception as error:  # whatever the learner keeps in the model
            raise GraderError(f"This model can't be copied ({error}). Hand over its class instead.") from None
    if isinstance(model, type) and issubclass(model, nn.Module):
        return constructed(model, configured(trace.build)).cpu()
    kind = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
    raise GraderError(f"compare_layers needs an nn.Module, the class or an instance of it; this is {kind}.")
