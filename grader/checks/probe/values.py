"""What a learner's code gave, as one plain tensor, or why it is none."""

import inspect
import itertools
from collections.abc import Generator, Iterator
from typing import Any

import torch
from torch import Tensor

from grader.checks.probe.kinds import kind_of
from grader.checks.probe.running import Stopped, learner_errors
from grader.devices import CPU, chosen_device

MAX_ITEMS = 2_000  # a generator that never ends is stopped here


def canonical(value: Any) -> Tensor:
    """A function's result as a tensor: numbers, lists and generators of whole numbers become int64 (or float64).

    Raises Stopped for anything else.
    """
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Generator | Iterator):
        with chosen_device():  # a generator's code runs here
            value = list(itertools.islice(value, MAX_ITEMS))
        if len(value) == MAX_ITEMS:
            raise Stopped("type", f"the generator did not stop after {MAX_ITEMS:,} values")
    if isinstance(value, list | tuple):
        items = [item.item() if isinstance(item, Tensor) and item.numel() == 1 else item for item in value]
        kind = type(value).__name__
        if items and all(isinstance(item, Tensor) for item in items):
            shapes = "a tensor" if len(items) == 1 else f"{len(items)} tensors"
            raise Stopped("type", f"it gave a {kind} of {shapes}, where one tensor or plain numbers belong")
        odd = next((item for item in items if not isinstance(item, int | float)), None)
        if isinstance(odd, list | tuple):
            raise Stopped(
                "type", f"it gave a {kind} of {type(odd).__name__}s, where one tensor or plain numbers belong"
            )
        if odd is not None:
            raise Stopped("type", f"it gave a {kind} that holds {kind_of(odd)}, where {_number(odd)} belongs")
        whole = all(isinstance(item, int) for item in items)
        return torch.tensor(items, dtype=torch.int64 if whole else torch.float64)
    if isinstance(value, bool | int):
        return torch.tensor(int(value))
    if isinstance(value, float):
        return torch.tensor(value, dtype=torch.float64)
    if inspect.iscoroutine(value):
        value.close()
    if value is None:
        raise Stopped("type", "it returned None; does it end with `return`?")
    raise Stopped("type", f"it returned {kind_of(value)}, where {_number(value)}, a list or a tensor belongs")


def _number(instead: Any) -> str:
    """A number, as a text says what belongs in the place of `instead`, which may be a number of NumPy's."""
    return "a number of Python's own, as `.item()` gives it" if type(instead).__module__ == "numpy" else "a number"


def canonical_output(value: Any, given_on: torch.device = CPU) -> Tensor:
    with learner_errors():
        return on_cpu(canonical(value), given_on)


def module_output(value: Any, given_on: torch.device = CPU) -> Tensor:
    if isinstance(value, Tensor):
        return on_cpu(value, given_on)
    hint = "does forward end with `return`?" if value is None else "return the tensor alone"
    raise Stopped("type", f"forward returned {kind_of(value)}, where a tensor belongs; {hint}")


def taken(output: Tensor) -> Tensor:
    """A copy of an output, which no code of the learner's can change that runs later.

    Raises Stopped where there is no room for one.
    """
    with learner_errors():
        return output.detach().clone(memory_format=torch.contiguous_format)


def on_cpu(tensor: Tensor, given_on: torch.device = CPU) -> Tensor:
    """An output on the CPU, where it is compared. given_on: where the input was. Raises Stopped for another device."""
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized or tensor.is_complex():
        raise Stopped("type", "the output is a sparse, nested, quantized or complex tensor, where a plain one belongs")
    if tensor.device == given_on and tensor.device.type != "cpu":
        return tensor.cpu()
    if tensor.device.type != "cpu":
        place = "the cpu" if given_on.type == "cpu" else given_on
        raise Stopped(
            "device",
            f"the input is on {place}, and the output on {tensor.device}; create new tensors with `device=x.device`",
        )
    return tensor
