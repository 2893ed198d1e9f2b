"""What a layer keeps of the text, and how many bytes that is."""

import math
from dataclasses import dataclass

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
