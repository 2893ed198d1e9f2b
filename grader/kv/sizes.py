"""The size of a KV cache in bytes."""

import math
from collections.abc import Mapping
from typing import Any

from grader.kv.caches import layers

ELEMENT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float8": 1, "int8": 1, "int4": 0.5}


def bytes_per_token(config: Mapping[str, Any], element_bytes: float = 2, after: int = 0) -> int:
    """Bytes that one more token takes after `after` tokens: at 0, while no window is full yet.

    element_bytes: 2 for bfloat16. Of an entry for several tokens (DeepSeek-V4) a token takes its share.
    """
    growing = [layer for layer in layers(config) if layer.window is None or layer.window > after]
    return math.ceil(element_bytes * sum(layer.values_per_token / layer.rate for layer in growing))


def bytes_at(config: Mapping[str, Any], context: int, batch: int = 1, element_bytes: float = 2) -> int:
    """Bytes of the whole cache after `context` tokens in each of `batch` sequences, windows and states included."""
    return batch * sum(layer.bytes_at(context, element_bytes) for layer in layers(config))


def bytes_by_kind(
    config: Mapping[str, Any], context: int, batch: int = 1, element_bytes: float = 2
) -> dict[str, tuple[int, int]]:
    """For each kind of layer: how many there are, and the bytes that they keep together after `context` tokens."""
    found: dict[str, tuple[int, int]] = {}
    for layer in layers(config):
        count, total = found.get(layer.kind, (0, 0))
        found[layer.kind] = (count + 1, total + batch * layer.bytes_at(context, element_bytes))
    return found


def readable(count: float) -> str:
    """Bytes as people write them: ``300 KiB`` below a million, ``4.29 GB`` (decimal) above."""
    if count < 1e6:
        return f"{count / 1024:,.4g} KiB" if count >= 1024 else f"{count:,.0f} bytes"
    return f"{count / 1e9:,.3g} GB" if count >= 1e9 else f"{count / 1e6:,.3g} MB"


def readable_kib(count: float) -> str:
    """Bytes for one token as people write them: always in KiB, so that the numbers compare."""
    return f"{count / 1024:,.4g} KiB" if count < 1024 * 9999 else f"{count / 1024:,.0f} KiB"
