"""Ways to give a model a text, what can be counted meanwhile, and what must have come back."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def in_chunks(model: Any, ids: Tensor, cache: Any, chunks: list[int]) -> Tensor:
    """What a model gives for ids [B, T] that come in chunks of these sizes, with a cache."""
    return torch.cat([model(piece, cache) for piece in torch.split(ids, chunks, dim=1)], dim=1)


def in_turns(model: Any, ids: Tensor, caches: list[Any], chunks: list[int]) -> Tensor:
    """What a model gives for ids [B, T] whose texts come in turns, chunk by chunk, each with a cache of its own."""
    seen: list[list[Tensor]] = [[] for _ in ids]
    for pieces in zip(*(torch.split(text[None], chunks, dim=1) for text in ids), strict=True):
        for cache, piece, given in zip(caches, pieces, seen, strict=True):
            given.append(model(piece, cache))
    return torch.cat([torch.cat(given, dim=1) for given in seen])


def after_another_text(model: Any, ids: Tensor, cache: Any, chunks: list[int]) -> Tensor:
    """What a model gives for ids [B, T] after another text went through the same cache, and every layer was reset."""
    in_chunks(model, ids.flip(1), cache, chunks)
    for layer in cache:
        layer.reset()
    return in_chunks(model, ids, cache, chunks)


def rows_through(parts: Iterable[nn.Module], run: Callable[[], Any]) -> int:
    """How many rows [B, rows, D] go through some modules in all while `run` runs."""
    rows: list[int] = []
    hooks = [part.register_forward_pre_hook(lambda _, args: rows.append(args[0].shape[1])) for part in parts]
    run()
    for hook in hooks:
        hook.remove()
    return sum(rows)


def memory_behind(thing: Any) -> dict[int, int]:
    """The bytes behind all tensors that hang on an object, by the address of each memory."""
    if isinstance(thing, Tensor):
        storage = thing.untyped_storage()
        return {storage.data_ptr(): storage.nbytes()}
    if isinstance(thing, dict):
        parts = list(thing.values())
    elif isinstance(thing, list | tuple | set) or type(thing).__name__ == "deque":
        parts = list(thing)
    else:
        parts = list(vars(thing).values()) if hasattr(thing, "__dict__") and not isinstance(thing, type) else []
    return {address: size for part in parts for address, size in memory_behind(part).items()}


class MultiplyAdds(torch.utils._python_dispatch.TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the multiply-adds of matrix products."""

    total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and keeping the compiler away imports 800 modules

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.mm.default, torch.ops.aten.bmm.default):
            self.total += result.numel() * args[0].shape[-1]
        elif func in (torch.ops.aten.addmm.default, torch.ops.aten.baddbmm.default):
            self.total += result.numel() * args[1].shape[-1]
        return result


def tensor_given(given: Any, who: str) -> Tensor:
    """What a method returned, once it is sure that it is a tensor."""
    if not isinstance(given, Tensor):
        hint = "; does it end with `return`?" if given is None else ""
        raise TypeError(f"{who} returned a {type(given).__name__}, where a tensor belongs{hint}")
    return given


def left_by_calls(model: nn.Module, frozen: nn.Parameter, calls: Sequence[Callable[[], Any]]) -> list[int]:
    """What calls leave behind in a model, which is to be as it was before.

    How many of its numbers, which are in float64, are others; how many parameters are, or need a gradient no longer, or
    now; how many gradients are; how many modules are in another mode; and how many hooks more or fewer there are.
    frozen: the parameter that needs no gradient. calls: run one after the other, the first in training mode, the second
    in eval mode, and so on.
    """
    model.double()
    own, modules, others = list(model.parameters()), list(model.modules()), 0
    frozen.requires_grad_(False)
    for module in modules:
        module.register_forward_pre_hook(lambda *_: None)
    for parameter in own:
        parameter.data /= 3  # numbers that float32 would round
        parameter.grad = torch.ones_like(parameter)
    before, needed = [parameter.detach().clone() for parameter in own], [parameter.requires_grad for parameter in own]
    for number, call in enumerate(calls):
        model.train(number % 2 == 0)
        call()
        others += sum(module.training != (number % 2 == 0) for module in model.modules())
    after = list(model.parameters())
    return [
        sum(int((new != old).sum()) for new, old in zip(after, before, strict=True)),
        sum(new is not old or new.requires_grad != need for new, old, need in zip(after, own, needed, strict=True)),
        sum(one.grad is None or not bool((one.grad == 1).all()) for one in own),
        others,
        sum(abs(len(one._forward_pre_hooks) - 1) + len(one._forward_hooks) for one in modules),
    ]
