"""The size of a KV cache in bytes."""

import math
from collections.abc import Mapping
from typing import Any

from grader.atlas.arbiter import Unread
from grader.atlas.cache import COMPRESSED, LayerCache, caches_of, entry_values, index_keys, per_token
from grader.atlas.mixing import mixing_of
from grader.errors import GraderError

ELEMENT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float8": 1, "int8": 1, "int4": 0.5}


def layers(config: Mapping[str, Any]) -> list[LayerCache]:
    """What the layers of the model with this config.json keep; those that keep nothing are left out.

    config: of a causal language model, as it stands on the hub or as transformers writes it; or a shape, which has no
    model_type and means what it says. Raises GraderError where it does not say enough, or speaks of things that are not
    known here. Source of the rules: the cache of each family in transformers, with which the tests compare them.
    """
    try:
        return caches_of(mixing_of(config).mixers)
    except Unread as unread:
        if unread.asked.kept is None:
            raise GraderError(f"the cache of {unread.asked.kind} can't be counted here: {unread.asked.why}.") from None
        return list(unread.asked.kept)


def bytes_per_token(config: Mapping[str, Any], element_bytes: float = 2, after: int = 0) -> int:
    """Bytes that one more token takes after `after` tokens: at 0, while no window is full yet.

    element_bytes: 2 for bfloat16. Of an entry for several tokens (DeepSeek-V4) a token takes its share. Raises
    GraderError for a config that `layers` refuses.
    """
    return math.ceil(per_token((c for c in layers(config) if c.window is None or c.window > after), element_bytes))


def bytes_at(config: Mapping[str, Any], context: int, batch: int = 1, element_bytes: float = 2) -> int:
    """Bytes of the whole cache after `context` tokens in each of `batch` sequences, windows and states included.

    Raises GraderError for a config that `layers` refuses.
    """
    return batch * sum(layer.bytes_at(context, element_bytes) for layer in layers(config))


def bytes_by_kind(
    config: Mapping[str, Any], context: int, batch: int = 1, element_bytes: float = 2
) -> dict[str, tuple[int, int]]:
    """For each kind of layer: how many there are, and the bytes that they keep together after `context` tokens.

    Raises GraderError for a config that `layers` refuses.
    """
    found: dict[str, tuple[int, int]] = {}
    for layer in layers(config):
        count, total = found.get(layer.kind, (0, 0))
        found[layer.kind] = (count + 1, total + batch * layer.bytes_at(context, element_bytes))
    return found


def remark(config: Mapping[str, Any]) -> str:
    """What to know about the numbers for this config; empty where there is nothing to add.

    Sparse attention keeps index keys beside the latent. The talk's card of DeepSeek V3.2 has 68.6 KiB a token, which
    is the latent alone; with index keys in bfloat16, as transformers keeps them, it is 83.9. (DeepSeek's own program
    keeps them in float8.) Cards of DeepSeek-V4 have its compressed entries alone. Raises GraderError for a config that
    `layers` refuses.
    """
    try:
        mixing = mixing_of(config)
    except Unread as unread:
        return f"Counted from the cache of transformers' own {unread.asked.model_class}, run without weights."
    found, index = caches_of(mixing.mixers), sum(map(index_keys, mixing.mixers))
    kib = per_token(found) / 1024
    words = [mixing.remark] if mixing.remark else []
    if any(layer.kind == COMPRESSED for layer in found):
        words.append(
            f"Windows and index keys are counted: {kib:.1f} KiB a token in bfloat16 until the windows are full,"
            f" {2 * entry_values(mixing.mixers) / 1024:.1f} for the compressed entries alone, which is what published"
            " cards give."
        )
    elif index:
        words.append(
            f"Index keys are counted: {kib:.1f} KiB a token in bfloat16, {kib - 2 * index / 1024:.1f} without them,"
            " which is what published cards give."
        )
    return " ".join(words)
