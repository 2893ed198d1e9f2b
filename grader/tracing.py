"""What every module of a model was given and gave back in one forward pass."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Call:
    """One call of one module: its path, how often it had been called before, and its tensors.

    `input` is the first tensor the module was given, `output` the first it gave back; either is None
    where there was none. Both are copies, taken before anything later could change them in place.
    """

    path: str
    index: int
    type: str
    input: Tensor | None
    output: Tensor | None


def first_tensor(value: Any) -> Tensor | None:
    """The first tensor in a value, looking into tuples, lists, dicts and transformers' outputs."""
    return next((leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)), None)


def copied(tensor: Tensor | None) -> Tensor | None:
    """A detached copy in row-major order, or None."""
    return None if tensor is None else tensor.detach().clone(memory_format=torch.contiguous_format)


def record_calls(
    module: nn.Module, run: Callable[[], Any], paths: Iterable[str] | None = None
) -> tuple[Any, list[Call]]:
    """Run `run()` and record every call of `module`'s submodules, in the order in which they began.

    paths: the submodules to record; all of them when None. Returns what `run()` returned, and the calls.
    Raises KeyError where a path names no submodule.
    """
    modules = dict(module.named_modules())
    names = [name for name in modules if name] if paths is None else list(paths)
    calls: list[Call | None] = []
    seen: Counter[str] = Counter()
    open_calls: dict[str, list[tuple[int, int, Tensor | None]]] = {}
    handles = []

    def watch(path: str, submodule: nn.Module) -> None:
        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = first_tensor(args)
            given = first_tensor(kwargs) if given is None else given
            open_calls.setdefault(path, []).append((len(calls), seen[path], copied(given)))
            seen[path] += 1
            calls.append(None)

        def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            place, index, given = open_calls[path].pop()
            calls[place] = Call(path, index, type(submodule).__name__, given, copied(first_tensor(output)))

        handles.append(submodule.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(submodule.register_forward_hook(after, with_kwargs=True))

    for name in names:
        watch(name, modules[name])
    try:
        result = run()
    finally:
        for handle in handles:
            handle.remove()
    return result, [call for call in calls if call is not None]
