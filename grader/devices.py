"""Where tensors are: a learner's code runs on the device that they chose, and the engine compares on the CPU."""

import contextlib
import copy
import itertools
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

CPU = torch.device("cpu")
_chosen: ContextVar[torch.device | None] = ContextVar("_chosen", default=None)


@contextlib.contextmanager
def comparing_on_cpu() -> Iterator[None]:
    """Make new tensors on the CPU for a while, whatever `torch.set_default_device` was told.

    Learner's code in it, under `chosen_device`, has its own default all the same.
    """
    default = torch.get_default_device()
    if default.type == "cpu":  # entering a device, even this one, slows every operator down
        yield
        return
    before = _chosen.set(default)
    try:
        with CPU:
            yield
    finally:
        _chosen.reset(before)


@contextlib.contextmanager
def chosen_device() -> Iterator[None]:
    """Run learner's code with the default device that it had before `comparing_on_cpu`."""
    chosen = _chosen.get()
    with contextlib.nullcontext() if chosen is None else chosen:
        yield


def device_of(target: Any) -> torch.device:
    """Where inputs for a module or a function belong: on the device of the module's tensors, else on the default one.

    `meta` has no values to compare, so inputs stay on the CPU there.
    """
    if isinstance(target, nn.Module):
        first = next(itertools.chain(target.parameters(), target.buffers()), None)
        if first is not None:
            return CPU if first.is_meta else first.device
    return _chosen.get() or CPU


def moved(value: Any, device: torch.device) -> Any:
    """A value with every tensor in it on `device`, and a copy there of every module."""

    def placed(leaf: Any) -> Any:
        if isinstance(leaf, nn.Module):
            return copy.deepcopy(leaf).to(device)
        return leaf.to(device) if isinstance(leaf, Tensor) else leaf

    return tree_map(placed, value)
