"""DeepSeek-V4's cache: a window of tokens, and the whole text in entries that stand for several tokens each."""

from collections.abc import Mapping, Sequence
from typing import Any

from grader.errors import GraderError
from grader.kv.fields import needed
from grader.kv.layer import COMPRESSED, SLIDING, LayerCache

FAMILY = "deepseek_v4"
SPARSE, HEAVILY = "compressed_sparse_attention", "heavily_compressed_attention"
# How many tokens share an entry, by the kind of layer, and the numbers that a config's `compress_ratios` has for kinds.
RATES = {SPARSE: 4, HEAVILY: 128}
RATIOS = {0: "sliding_attention", 4: SPARSE, 128: HEAVILY}


def kinds_of(ratios: Any, count: int) -> list[str]:
    """The kinds of `count` layers by `compress_ratios`. Raises GraderError for what is no such list."""
    if not isinstance(ratios, Sequence) or isinstance(ratios, str) or len(ratios) < count:
        raise GraderError(f"`compress_ratios` is {ratios!r}, and should be a list with one of 0, 4 and 128 a layer.")
    if strange := [ratio for ratio in ratios[:count] if ratio not in RATIOS]:
        raise GraderError(f"`compress_ratios` has {strange[0]!r}, which is none of 0, 4 and 128.")
    return [RATIOS[ratio] for ratio in ratios[:count]]


def kinds_by_rule(count: int) -> list[str]:
    """The kinds of layers where a config says nothing of them: what transformers' class takes then."""
    return [SPARSE if i > 2 and i % 2 else HEAVILY for i in range(count)]


def rate_of(config: Mapping[str, Any], kind: str) -> int:
    """How many tokens share an entry in a layer of this kind; 0 for one with a window alone."""
    if kind == "sliding_attention":
        return 0
    own = config.get("compress_rates")
    rates = {**RATES, **(own if isinstance(own, Mapping) else {})}
    if kind not in RATES:
        raise GraderError(f"this config has layers of type {kind!r}, which a {FAMILY} model does not have.")
    return needed(rates, kind)


def caches_of(config: Mapping[str, Any], kind: str) -> list[LayerCache]:
    """What a layer of this kind keeps, by its config."""
    index = needed(config, "index_head_dim") if kind == SPARSE else 0
    return caches(needed(config, "head_dim"), needed(config, "sliding_window"), rate_of(config, kind), index)


def caches(width: int, window: int, rate: int, index: int) -> list[LayerCache]:
    """What a layer keeps.

    width: numbers in its one key, which is the value too. rate: how many tokens share an entry, 0: there are none.
    index: numbers in an index key, 0 without an indexer. An entry is made of a value and a gate for each number, which
    wait until `rate` tokens are there. Where entries overlap (with an indexer, whose own keys are compressed the same
    way) these are twice as wide, and half of what the last entry was made of is kept for the next.
    Source: DeepseekV4HCACache and DeepseekV4CSACache in transformers.
    """
    if not rate:  # whose cache in transformers holds the same numbers as keys and as values
        return [LayerCache(SLIDING, 2 * width, window)]
    entry = width + index
    overlap, waiting = (2 * rate * entry, 4 * entry) if index else (0, 2 * entry)
    entries = LayerCache(COMPRESSED, entry, state_values=overlap, rate=rate, waiting=waiting)
    return [LayerCache(SLIDING, width, window), entries]
