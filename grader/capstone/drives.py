"""How a capstone's program is used where a class is graded: their source travels in recordings."""

from typing import Any

import torch
from torch import Tensor, nn


def one_layer(model: nn.Module, ids: Tensor, x: Tensor, number: int) -> Tensor:
    """What one layer gives for hidden states x [B, T, D], whatever the layers before it give."""
    kept: list[Tensor] = []

    def put(module: nn.Module, args: Any) -> Any:
        return (x, *args[1:])

    def keep(module: nn.Module, args: Any, given: Any) -> None:
        kept.append(given if isinstance(given, Tensor) else given[0])

    layer = model.model.layers[number]  # type: ignore[union-attr, index]
    hooks = [layer.register_forward_pre_hook(put), layer.register_forward_hook(keep)]  # type: ignore[union-attr]
    model(ids)
    for hook in hooks:
        hook.remove()
    return kept[0]


def whole(model: nn.Module, ids: Tensor) -> Tensor:
    """The logits of whole texts."""
    return model(ids)  # type: ignore[no-any-return]


def in_parts(model: nn.Module, ids: Tensor, sizes: list[int]) -> Tensor:
    """The logits of texts that come in parts, with a cache.

    Raises ValueError where the first layer is given tokens again that came before.
    """
    seen: list[int] = []

    def count(module: nn.Module, args: Any) -> None:
        seen.append(args[0].shape[-2] if args else 0)

    hook = model.model.layers[0].register_forward_pre_hook(count)  # type: ignore[union-attr, index]
    cache = model.new_cache(*ids.shape)  # type: ignore[operator]
    given = torch.cat([model(part, cache=cache) for part in torch.split(ids, sizes, dim=1)], dim=1)
    hook.remove()
    if sum(seen) > ids.shape[1]:
        raise ValueError(
            f"layer 0 was given {sum(seen)} tokens of a text of {ids.shape[1]}: what came before is computed again"
        )
    return given


def on_small_numbers(
    model: nn.Module, ids: Tensor, names: list[str], factors: list[float], shifts: list[float]
) -> Tensor:
    """The logits of whole texts while some weights are others, with which each norm is given small numbers."""
    held = model.state_dict()
    before = [held[name].clone() for name in names]
    with torch.no_grad():
        for name, factor, shift in zip(names, factors, shifts, strict=True):
            held[name].mul_(factor).add_(shift)
        given = model(ids)
        for name, tensor in zip(names, before, strict=True):
            held[name].copy_(tensor)
    return given  # type: ignore[no-any-return]
