"""What every module of a model was given and gave back in one forward pass."""

import inspect
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten


@dataclass(frozen=True)
class Call:
    """One call of one module: its path, how often it had been called before, and its tensors.

    `input` is the first tensor the module was given, `output` the first it gave back; either is None
    where there was none. `others` are the further tensors that it was given, each with the name of the argument
    that it is or lies in; `further` are the further tensors that it gave. All are copies, taken before anything
    later could change them in place.
    """

    path: str
    index: int
    type: str
    input: Tensor | None
    output: Tensor | None
    others: tuple[tuple[str, Tensor], ...] = ()
    further: tuple[Tensor, ...] = ()

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """All tensors that it gave."""
        return () if self.output is None else (self.output, *self.further)


def first_tensor(value: Any) -> Tensor | None:
    """The first tensor in a value, looking into tuples, lists, dicts and transformers' outputs."""
    return next(iter(tensors_in(value)), None)


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors in a value."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def copied(tensor: Tensor | None) -> Tensor | None:
    """A detached copy in row-major order, or None."""
    return None if tensor is None else tensor.detach().clone(memory_format=torch.contiguous_format)


def argument_names(module: nn.Module, spec: TreeSpec) -> dict[int, str]:
    """The name of the argument that each leaf of a call's (args, kwargs) is or lies in, as forward calls it.

    spec: how the leaves make up (args, kwargs). Empty where the call does not fit forward's signature.
    """
    args, kwargs = tree_unflatten(range(spec.num_leaves), spec)
    try:
        signature = inspect.signature(module.forward)
        arguments = signature.bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return {}
    names = {position: name for name, value in arguments.items() for position in tree_leaves(value)}
    gathered = next((n for n, p in signature.parameters.items() if p.kind is p.VAR_KEYWORD), None)
    for name, value in arguments.get(gathered, {}).items() if gathered else ():
        names.update(dict.fromkeys(tree_leaves(value), name))
    return names


def _other_tensors(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[str, Tensor], ...]:
    """Copies of all tensors that a module is given, but the first."""
    leaves, spec = tree_flatten((args, kwargs))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)][1:]
    names = argument_names(module, spec) if places else {}
    return tuple((names.get(i, ""), tensor) for i in places if (tensor := copied(leaves[i])) is not None)


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
    open_calls: dict[str, list[tuple[int, int, Tensor | None, tuple[tuple[str, Tensor], ...]]]] = {}
    handles = []

    def watch(path: str, submodule: nn.Module) -> None:
        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = first_tensor(args)
            given = first_tensor(kwargs) if given is None else given
            others = _other_tensors(submodule, args, kwargs)
            open_calls.setdefault(path, []).append((len(calls), seen[path], copied(given), others))
            seen[path] += 1
            calls.append(None)

        def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            place, index, given, others = open_calls[path].pop()
            first, further = first_tensor(output), tensors_in(output)[1:]
            kept = tuple(tensor for item in further if (tensor := copied(item)) is not None)
            calls[place] = Call(path, index, type(submodule).__name__, given, copied(first), others, kept)

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
