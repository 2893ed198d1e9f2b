"""A program with names of its own, loaded with the reference's weights, and the trace under its names."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from grader.calls import first_tensor
from grader.checks.probe.building import load_weights
from grader.checks.probe.running import Stopped
from grader.layers.loading import loaded, made_model, not_comparable
from grader.names import in_any_layer
from grader.porting.own_names.alignment import Alignment, align
from grader.porting.own_names.files import expanded, renamed
from grader.porting.own_names.paths import in_own_names
from grader.porting.own_names.recipes import Recipe
from grader.porting.own_names.trial_runs import decided_by_running
from grader.porting.own_names.wording import unmatched
from grader.recordings.renaming import layouts_of
from grader.recordings.traces import Trace


@dataclass(frozen=True)
class OwnNames:
    """That a program may have names of its own, and what is known of them.

    names: as a file of names holds them. renames: `YOURS=THE_REFERENCES`. reordered: whether the program's loader
    puts rows into another order where the shape would not show it.
    """

    names: Mapping[str, Any] = field(default_factory=dict)
    renames: Sequence[str] = ()
    reordered: bool = False

    @property
    def known(self) -> bool:
        """Whether anything is known of them."""
        return bool(self.names or self.renames)


def loaded_program(model: Any, trace: Trace, own: OwnNames) -> tuple[nn.Module, Trace, Alignment | None]:
    """A program with the reference's weights, the trace under the program's names, and what was matched, if that was
    needed: where the program's names are the reference's, and none are given, it was not.

    Raises GraderError where the program can't be built, or something has no counterpart.
    """
    try:
        try:
            if not own.known:
                return (*loaded(model, trace), None)
        except Stopped as stopped:
            if stopped.problem.kind != "parameters":
                raise
        made = made_model(model, trace)
        return (made, *loaded_by_content(made, trace, own))
    except Stopped as stopped:
        raise not_comparable(model, trace, stopped) from None


def loaded_by_content(model: nn.Module, trace: Trace, own: OwnNames) -> tuple[Trace, Alignment]:
    """Load the reference's weights into a program of other names; the trace under its names, and what was matched.

    Raises GraderError where something has no counterpart.
    """
    tensors = {**dict(model.named_buffers()), **dict(model.named_parameters(remove_duplicate=False))}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    traces = layouts_of(trace)
    alignment = align(model, traces, _given(own, shapes, traces))
    only_mine = alignment.own_left and not alignment.left and not alignment.contradictions
    if only_mine and _does_without(model, alignment):
        alignment = replace(alignment, own_left=())
    if not alignment.complete:
        parameters = {name for name, _ in model.named_parameters()} | set(alignment.own_left)
        found = {name: shape for name, shape in shapes.items() if name in parameters}
        raise unmatched(type(model).__name__, alignment, found)
    if own.reordered:
        alignment = replace(alignment, questions=[replace(q, free=True) for q in alignment.questions])
    alignment = decided_by_running(model, alignment)
    load_weights(model, alignment.weights())
    return in_own_names(model, alignment), alignment


def _does_without(model: nn.Module, alignment: Alignment) -> bool:
    """Whether all without a counterpart is what other layers use and these never do, as shared keys."""
    if not set(map(in_any_layer, alignment.own_left)) <= set(map(in_any_layer, alignment.recipes)):
        return False
    parameters = dict(model.named_parameters(remove_duplicate=False))
    outputs = []
    with torch.no_grad():
        load_weights(model, alignment.weights())
        for value in (1.0, 0.0):
            for name in alignment.own_left:
                parameters[name].fill_(value)
            try:
                outputs.append(first_tensor(model(*copy.deepcopy(alignment.trace.args))))
            except Exception:  # the program's code may raise anything
                return False
    one, other = outputs
    return one is not None and other is not None and torch.equal(one.nan_to_num(), other.nan_to_num())


def _given(own: OwnNames, shapes: Mapping[str, tuple[int, ...]], traces: Sequence[Trace]) -> dict[str, Recipe]:
    wanted = {name: tuple(tensor.shape) for trace in traces for name, tensor in trace.weights.items()}
    return expanded(own.names, shapes, wanted) | renamed(own.renames, shapes, wanted)
