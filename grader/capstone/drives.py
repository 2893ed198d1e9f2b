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
    """The logits of texts that come in parts, with a cache."""
    cache = model.new_cache(*ids.shape)  # type: ignore[operator]
    return torch.cat([model(part, cache=cache) for part in torch.split(ids, sizes, dim=1)], dim=1)
