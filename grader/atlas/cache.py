"""What each layer of an architecture keeps of the text, and how many bytes that is."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from grader.atlas.architecture import Architecture
from grader.atlas.layer import Mixer

FULL, SLIDING, LATENT, STATE, COMPRESSED = "full", "sliding", "latent", "state", "compressed"


@dataclass(frozen=True)
class LayerCache:
    """One thing that a layer keeps. Most layers keep one; those of DeepSeek-V4 a window and compressed entries.

    kind: ``full`` and ``sliding`` keep keys and values, ``latent`` a smaller form of both (MLA), ``state`` one of fixed
    size, ``compressed`` an entry for several tokens each. values_per_token: how many numbers for each token (or entry)
    that it keeps. window: how many tokens at most, the newest one among them: what a layer holds while it works on that
    token. (Between two steps transformers' DynamicCache holds one less, since the next step adds one before anything is
    read.)
    state_values: how many numbers whatever the length is. float32_values: the same, of those that are float32
    whatever the rest of the cache is in. rate: how many tokens share one entry of values_per_token numbers, and
    waiting: how many numbers each token takes until its entry is complete (DeepSeek-V4's compressed attention).
    """

    kind: str
    values_per_token: int
    window: int | None = None
    state_values: int = 0
    float32_values: int = 0
    rate: int = 1
    waiting: int = 0

    def tokens(self, context: int) -> int:
        """How many of `context` tokens this layer keeps, or how many entries that stand for `rate` tokens each."""
        return (context if self.window is None else min(context, self.window)) // self.rate

    def bytes_at(self, context: int, element_bytes: float = 2) -> int:
        """Bytes that this layer keeps of one sequence of `context` tokens."""
        values = self.values_per_token * self.tokens(context) + self.waiting * (context % self.rate) + self.state_values
        return math.ceil(element_bytes * values) + 4 * self.float32_values


def caches(model: Architecture) -> list[LayerCache]:
    """What the layers keep; those that keep nothing are left out. A layer may keep more than one thing."""
    return caches_of(model.mixers)


def caches_of(mixers: Iterable[Mixer]) -> list[LayerCache]:
    """What layers with these mixers keep, in their order."""
    found = []
    for mixer in mixers:
        if not mixer.shared:
            found += cache_of(mixer) + (cache_of(mixer.beside) if mixer.beside else [])
    return found


def cache_of(mixer: Mixer) -> list[LayerCache]:
    """What one layer keeps."""
    if mixer.kind == "attention":
        values = mixer.kv_heads * (mixer.key_dim + mixer.value_dim)
        return [LayerCache(SLIDING if mixer.window else FULL, values, mixer.window)]
    if mixer.kind == "latent":
        return [LayerCache(LATENT, mixer.kv_rank + mixer.rope_dim + index_keys(mixer), mixer.window)]
    if mixer.kind == "compressed":
        return _compressed(mixer)
    state, inputs = state_values(mixer)
    return [LayerCache(STATE, 0, state_values=inputs, float32_values=state)]


def _compressed(mixer: Mixer) -> list[LayerCache]:
    """What a layer of DeepSeek-V4 keeps: a window of tokens, and the whole text in entries for several tokens each.

    Its one key is the value too. An entry is made of a value and a gate for each number, which wait until `rate` tokens
    are there. Where entries overlap (with an indexer, whose own keys are compressed the same way) these are twice as
    wide, and half of what the last entry was made of is kept for the next.
    Source: DeepseekV4HCACache and DeepseekV4CSACache in transformers.
    """
    if not mixer.rate:  # whose cache in transformers holds the same numbers as keys and as values
        return [LayerCache(SLIDING, 2 * mixer.key_dim, mixer.window)]
    entry = mixer.key_dim + (mixer.index.dim if mixer.index else 0)
    overlap, waiting = (2 * mixer.rate * entry, 4 * entry) if mixer.index else (0, 2 * entry)
    entries = LayerCache(COMPRESSED, entry, state_values=overlap, rate=mixer.rate, waiting=waiting)
    return [LayerCache(SLIDING, mixer.key_dim, mixer.window), entries]


def state_values(mixer: Mixer) -> tuple[int, int]:
    """Numbers of the state itself, in float32, and the last inputs of its convolution, in the model's dtype.

    Source: the caches of the layers in transformers, with which the tests compare them.
    """
    key, value = mixer.kv_heads * mixer.key_dim, mixer.heads * mixer.value_dim
    if mixer.kind in ("delta", "kda"):
        return value * mixer.key_dim, (2 * key + value) * mixer.conv
    if mixer.kind == "lightning":
        return value * mixer.key_dim, 0
    if mixer.kind == "mamba2":
        return value * mixer.key_dim, (value + 2 * key) * mixer.conv
    if mixer.kind == "mamba":
        return mixer.heads * mixer.key_dim, mixer.heads * mixer.conv
    return 0, mixer.value_dim * mixer.conv


def counts(found: Iterable[LayerCache]) -> list[LayerCache]:
    """What layers keep, whatever it is called: two counts are equal where these are."""
    return [replace(layer, kind="") for layer in found if layer.bytes_at(1)]


def per_token(found: Iterable[LayerCache], element_bytes: float = 2) -> float:
    """Bytes of one more token while no window is full yet."""
    return element_bytes * sum(layer.values_per_token / layer.rate for layer in found)


def at(found: Iterable[LayerCache], context: int, element_bytes: float = 2) -> int:
    """Bytes of one sequence of `context` tokens, windows and states included."""
    return sum(layer.bytes_at(context, element_bytes) for layer in found)


def index_keys(mixer: Mixer) -> int:
    """How many numbers a layer keeps for a token to look its key up by: those of sparse attention over latents."""
    return mixer.index.dim if mixer.kind == "latent" and mixer.index and not mixer.index.shared else 0


def entry_values(mixers: Sequence[Mixer]) -> float:
    """A token's share of the numbers in DeepSeek-V4's compressed entries, without windows and index keys."""
    return sum(mixer.key_dim / mixer.rate for mixer in mixers if mixer.rate)


def readable(count: float) -> str:
    """Bytes as people write them: ``300 KiB`` below a million, ``4.29 GB`` (decimal) above."""
    if count < 1e6:
        return f"{count / 1024:,.4g} KiB" if count >= 1024 else f"{count:,.0f} bytes"
    return f"{count / 1e9:,.3g} GB" if count >= 1e9 else f"{count / 1e6:,.3g} MB"


def readable_kib(count: float) -> str:
    """Bytes for one token as people write them: always in KiB, so that the numbers compare."""
    return f"{count / 1024:,.4g} KiB" if count < 1024 * 9999 else f"{count / 1024:,.0f} KiB"
