"""A learner's module, built and with the recorded weights in it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from grader.checks.probe.kinds import kind_of
from grader.checks.probe.running import Stopped, learner_errors
from grader.devices import chosen_device
from grader.names import explain_names
from grader.recordings.tasks import TaskCase, configured


def build_module(
    target: Any, case: TaskCase, build: Mapping[str, Any] | None = None
) -> tuple[nn.Module, tuple[str, ...]]:
    """The learner's module with the recorded weights, in eval mode, and remarks on it.

    target: the learner's class; it gets the build arguments in their order. build: these, as `configured` makes them,
    for who wants to see what became of them. Raises Stopped where it can't be
    built, or its parameters are not the checkpoint's in name or shape.
    """
    module = constructed(target, configured(case.build) if build is None else build)
    return module, filled(module, case.weights)


def filled(module: nn.Module, weights: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Load the recorded weights into a learner's module; remarks on it. Raises Stopped as `build_module` does."""
    with learner_errors():
        detail = wrong_names(module, weights)
        if detail:
            raise Stopped("parameters", "its parameters are not the checkpoint's, so weights can't be loaded", detail)
        load_weights(module, weights)
        if next(module.buffers(), None) is None:
            return ()
        parameters = dict(module.named_parameters(remove_duplicate=False))
        kept = [name for name in module.state_dict() if name not in weights and name not in parameters]
        if not kept:
            return ()
        return (
            f"`{kept[0]}` would be expected in every checkpoint, and is in none:"
            " register it with `persistent=False`, or loading real weights will complain",
        )


def constructed(target: Any, build: Mapping[str, Any]) -> nn.Module:
    """The learner's module as its class makes it, in eval mode. Raises Stopped where it does not.

    build: its arguments, as `configured` makes them.
    """
    with learner_errors():
        with chosen_device():
            module = target(*build.values())
        if not isinstance(module, nn.Module):
            raise Stopped("build", f"{target.__name__}(...) gave {kind_of(module)}, and no nn.Module")
        nn.Module.train(module, False)
        return module


def wrong_names(module: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """A line for each parameter that the checkpoint has not, or has otherwise."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    own = parameters | dict(module.named_buffers(remove_duplicate=False))
    known: dict[int, str] = {}
    for name in weights:
        if name in own and id(own[name]) in known and not torch.equal(weights[name], weights[known[id(own[name])]]):
            first, second = known[id(own[name])], name
            return [f"`{first}` and `{second}` are one and the same here, and two different ones in the checkpoint"]
        if name in own:
            known[id(own[name])] = name
    extra = [name for name, p in parameters.items() if name not in weights and id(p) not in known]
    lines = explain_names({name: tuple(tensor.shape) for name, tensor in own.items()}, weights, extra)
    return [*_plain_lists(module, weights), *lines] if lines else []


def _plain_lists(module: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """Lists of modules that PyTorch doesn't see, where the checkpoint has parameters."""
    return [
        f"`{name}` is a plain list, and PyTorch doesn't look into one for modules: make it an `nn.ModuleList`"
        for name, value in vars(module).items()
        if isinstance(value, list | tuple | dict)
        and any(isinstance(item, nn.Module) for item in (value.values() if isinstance(value, dict) else value))
        and any(weight.startswith(f"{name}.") for weight in weights)
    ]


@torch.no_grad()
def load_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy the weights in. Parameters get the weights' dtype; buffers keep their own, as in loading."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    buffers = dict(module.named_buffers(remove_duplicate=False))
    for name, tensor in weights.items():
        if name not in parameters:
            buffers[name].copy_(tensor)
        elif parameters[name].dtype == tensor.dtype:
            parameters[name].copy_(tensor)
        else:
            parameters[name].data = tensor.to(parameters[name].device, copy=True)
