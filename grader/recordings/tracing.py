"""Trace one forward pass of a model of the reference's."""

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from grader.calls import Call, copied, first_tensor, record_calls
from grader.devices import CPU, moved
from grader.errors import RecordingError
from grader.recordings.renaming import checkpoint_layout, same_name, untied
from grader.recordings.traces import Trace
from grader.steps import functions_as_steps


def renamed_calls(calls: Sequence[Call], renamed: Callable[[str], str | None]) -> tuple[Call, ...]:
    named = [(renamed(call.path), call) for call in calls]
    return tuple(replace(call, path=name) for name, call in named if name)


def checkpoint_weights(module: nn.Module, renamed: Callable[[str], str | None]) -> dict[str, Tensor]:
    """What a checkpoint of the module holds: a parameter with two names, such as a tied head, under its first."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        own = renamed(name)
        if own and id(tensor) not in seen:
            seen.add(id(tensor))
            found[own] = tensor.detach()
    return found


def trace_of(
    model: nn.Module,
    *args: Any,
    build: Mapping[str, Any] | None = None,
    renamed: Callable[[str], str | None] = same_name,
) -> Trace:
    """Trace one forward pass of a reference model, to compare another model with it layer by layer.

    model: any module; it is run in eval mode, on its own device, and the trace is on the CPU. args: what its forward
    is called with. build: the keyword arguments with which the other model's class is built; of a transformers
    model, its config if None. renamed: the other model's name for a parameter or submodule of this one, or None to
    leave it out; by default the other model may have the names of the checkpoint's files, of the model in memory, or
    either without the prefix of the model's inside. Raises RecordingError where the model returns no tensor.
    """
    was_training = model.training
    model.eval()
    try:
        steps = functions_as_steps(model) if build is None else contextlib.nullcontext()
        with torch.no_grad(), steps:
            returned, calls = record_calls(model, lambda: model(*copy.deepcopy(args)))
    finally:
        model.train(was_training)
    output = copied(first_tensor(returned))
    if output is None:
        raise RecordingError(f"{type(model).__name__} returned no tensor, so there is nothing to compare with.")
    weights = {name: tensor.clone() for name, tensor in untied(checkpoint_weights(model, renamed)).items()}
    dtype = next((t.dtype for t in weights.values() if t.is_floating_point()), torch.float32)
    held = checkpoint_layout(model, weights) if renamed is same_name else None
    on_cpu = [_on_cpu(call) for call in renamed_calls(calls, renamed)]
    return Trace(
        _config_of(model) if build is None else dict(build),
        {name: tensor.cpu() for name, tensor in weights.items()},
        moved(args, CPU),
        tuple(on_cpu),
        output.cpu(),
        dtype,
        (held,) if held else (),
        getattr(model, "base_model_prefix", "") if renamed is same_name else "",
    )


def _on_cpu(call: Call) -> Call:
    return replace(
        call,
        input=None if call.input is None else call.input.cpu(),
        output=None if call.output is None else call.output.cpu(),
        others=tuple((name, tensor.cpu()) for name, tensor in call.others),
        further=tuple(tensor.cpu() for tensor in call.further),
    )


def _config_of(model: nn.Module) -> dict[str, Any]:
    """The build arguments that a model's own config makes up, if it has one."""
    to_dict = getattr(getattr(model, "config", None), "to_dict", None)
    return {"config": to_dict()} if callable(to_dict) else {}
