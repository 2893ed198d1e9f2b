"""How Gemma 4's attention is used: with keys and values of its own, or with those of another layer."""

from typing import Any

import torch
from torch import Tensor

from grader.authoring.drives.use import tensor_given


def pair_given(given: Any, who: str) -> tuple[Any, Any]:
    """The two things that something returned, once it is sure that there are two."""
    if not isinstance(given, tuple | list) or len(given) != 2:
        hint = "; does it end with `return`?" if given is None else ""
        raise TypeError(f"{who} returned a {type(given).__name__}; the output and (keys, values) belong there{hint}")
    return given[0], given[1]


def attended(module: Any, x: Tensor, table: Tensor, *kv: Tensor) -> Tensor:
    """What attention gives, with its own keys and values or with these."""
    return tensor_given(pair_given(module(x, table, kv) if kv else module(x, table), "forward")[0], "forward")


def read(module: Any, x: Tensor, table: Tensor, *kv: Tensor) -> Tensor:
    """The keys and values that attention read: [2, B, KV, T, width]."""
    _, given = pair_given(module(x, table, kv) if kv else module(x, table), "forward")
    k, v = pair_given(given, "the second result of forward")
    return torch.stack([tensor_given(k, "keys"), tensor_given(v, "values")])


def handed_on(module: Any, x: Tensor, table: Tensor, *kv: Tensor) -> Tensor:
    """The output, and the keys and values behind it, one after the other."""
    output = attended(module, x, table, *kv)
    return torch.cat([output.flatten(), read(module, x, table, *kv).flatten()])
