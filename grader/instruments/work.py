"""Counters: the work that a call does, the memory that it takes, the operators that it dispatches.

They count what PyTorch is asked to do and use no clock, so they give the same number on every machine.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.profiler import profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from grader.modes import Mode

COPIES = (torch.ops.aten.cat.default, torch.ops.aten.copy_.default)


def _attention_operations(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
    """Two operations for each multiply-add of both products; query, key and value are shapes."""
    return sdpa_flop_count(query, key, value)  # type: ignore[no-untyped-call]


# PyTorch's own table lacks the kernel that attention runs on a CPU: it would count as nothing.
ON_THE_CPU = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_operations}


def multiply_adds(run: Callable[[], Any]) -> int:
    """The multiply-adds in all products of `run()`, without gradients.

    Matrix products, batched ones, scaled dot-product attention and convolutions count; sums, norms and
    activations do not. A product of [m, k] and [k, n] has m · k · n. Source: PyTorch's FlopCounterMode, which
    counts a multiply-add as two operations.
    """
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=ON_THE_CPU) as counter:
        run()
    return int(counter.get_total_flops()) // 2


def bytes_copied(run: Callable[[], Any]) -> int:
    """How many bytes `run()` writes by joining tensors (`torch.cat`) and by copying into them (`x[...] = y`)."""
    return sum(size for operator, size in _made(run) if operator in COPIES)


def largest_tensor(run: Callable[[], Any]) -> int:
    """The size in bytes of the largest tensor that an operator makes in `run()`. Views make none."""
    return max((size for operator, size in _made(run) if not operator.is_view), default=0)


def bytes_held(*holders: Any) -> int:
    """The bytes of the memory behind all tensors in `holders`, shared memory counted once.

    holders: tensors, or objects with tensors in their attributes, or lists and dicts of these. A tensor that is a
    view counts with all of the memory that it keeps alive, not with what it shows.
    """
    storages = {}
    for tensor in _tensors(holders):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr() or id(tensor)] = storage.nbytes()
    return sum(storages.values())


def operators(run: Callable[[], Any], depth: int = 9) -> str:
    """The operators that PyTorch dispatches during `run()`, a line each, below the one that called it.

    depth: how many levels are shown. Source: torch.autograd.profiler.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would announce itself in the cell's output
    with profile() as recorded:  # torch.profiler would import the compiler, which takes a second
        run()
    lines = []
    for event in recorded.function_events or ():
        level, caller = 0, event.cpu_parent
        while caller is not None:
            level, caller = level + 1, caller.cpu_parent
        if level < depth:
            lines.append("    " * level + event.name)
    return "\n".join(lines)


class _Noting(Mode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made: list[tuple[Any, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.made.append((func, result.nbytes))
        return result


def _made(run: Callable[[], Any]) -> list[tuple[Any, int]]:
    """Each operator that gives a tensor in `run()`, with that tensor's size in bytes."""
    noting = _Noting()
    with torch.no_grad(), noting:
        run()
    return noting.made


def _tensors(holder: Any) -> Iterable[Tensor]:
    """Every tensor in a value, looking into containers and into the attributes of objects."""
    if isinstance(holder, Tensor):
        yield holder
    elif isinstance(holder, Mapping):
        yield from _tensors(list(holder.values()))
    elif isinstance(holder, list | tuple | set):
        for item in holder:
            yield from _tensors(item)
    elif isinstance(holder, torch.nn.Module):
        yield from holder.state_dict(keep_vars=True).values()
    elif hasattr(holder, "__dict__"):
        yield from (value for value in vars(holder).values() if isinstance(value, Tensor))
