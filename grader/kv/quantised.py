"""The size of a KV cache whose keys and values are quantised, with everything that must be stored beside the codes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grader.atlas.cache import cache_of
from grader.atlas.layer import Mixer
from grader.atlas.mixing import mixing_of
from grader.errors import GraderError

WAYS = ("token", "group", "turboquant", "turboquant-product")
GROUP = 32  # neighbouring numbers that share a scale and a zero point


@dataclass(frozen=True)
class Quantised:
    """How keys and values are kept.

    key_bits, value_bits: of a code, 1 to 16. way: what is kept beside the codes of a vector, in 16 bits each.
    ``token``: one scale. ``group``: a scale and a zero point for each 32 numbers. ``turboquant``: its norm.
    ``turboquant-product``: its norm and the length of its error; one of the bits is a sign. recent: how many of the
    newest tokens stay in 16 bits. Raises GraderError for other ways and bits. Sources: Liu et al., 2024 (KIVI);
    Zandieh et al., 2025 (TurboQuant).
    """

    key_bits: int
    value_bits: int
    way: str = "token"
    recent: int = 0

    def __post_init__(self) -> None:
        if self.way not in WAYS:
            raise GraderError(f"the way {self.way!r} is not known; there are: {', '.join(WAYS)}.")
        if wrong := [bits for bits in (self.key_bits, self.value_bits) if not 1 <= bits <= 16]:
            raise GraderError(f"a code of {wrong[0]} bits can't be packed; give 1 to 16.")

    def vector(self, width: int, bits: int) -> int:
        """Bytes of one vector of `width` numbers: its codes in whole bytes, and numbers of 16 bits beside them."""
        extras = {"token": 1, "group": 2 * math.ceil(width / GROUP), "turboquant": 1, "turboquant-product": 2}
        return math.ceil(width * bits / 8) + 2 * extras[self.way]

    def tables(self, width: int, bits: int) -> int:
        """Bytes that vectors of `width` numbers need once for a model, in float32: rotation, codebook, projection."""
        if not self.way.startswith("turboquant"):
            return 0
        product = self.way == "turboquant-product"
        return int(4 * ((1 + product) * width * width + 2 ** (bits - product)))


def quantised_bytes_at(config: Mapping[str, Any], context: int, kept: Quantised, batch: int = 1) -> int:
    """Bytes of the whole cache after `context` tokens in each of `batch` sequences, windows and tables included.

    Keys and values alone are quantised. What other layers keep (MLA's latents, states) stays in 16 bits. Raises
    GraderError for a config that `layers` refuses.
    """
    own = _own_mixers(config)
    pairs = {(mixer.key_dim, kept.key_bits) for mixer in own if _has_keys(mixer)}
    pairs |= {(mixer.value_dim, kept.value_bits) for mixer in own if _has_keys(mixer)}
    tables = sum(kept.tables(width, bits) for width, bits in pairs)
    return tables + batch * sum(_layer_bytes(mixer, context, kept) for mixer in own)


def quantised_bytes_per_token(config: Mapping[str, Any], kept: Quantised) -> int:
    """Bytes that one more token takes once it is encoded, while no window is full yet.

    Raises GraderError for a config that `layers` refuses.
    """
    old = Quantised(kept.key_bits, kept.value_bits, kept.way)
    return quantised_bytes_at(config, 2, old) - quantised_bytes_at(config, 1, old)


def is_all_quantised(config: Mapping[str, Any]) -> bool:
    """Whether keys and values are all that the model keeps. Raises GraderError for a config that `layers` refuses."""
    return all(map(_has_keys, _own_mixers(config)))


def _own_mixers(config: Mapping[str, Any]) -> list[Mixer]:
    """What mixes tokens and keeps something of its own."""
    mixers = [mixer for mixer in mixing_of(config).mixers if not mixer.shared]
    return [each for mixer in mixers for each in (mixer, mixer.beside) if each is not None]


def _has_keys(mixer: Mixer) -> bool:
    return mixer.kind == "attention"


def _layer_bytes(mixer: Mixer, context: int, kept: Quantised) -> int:
    """Bytes that one layer keeps of one sequence."""
    if not _has_keys(mixer):
        return sum(cache.bytes_at(context) for cache in cache_of(mixer))
    tokens = context if mixer.window is None else min(context, mixer.window)
    new = min(tokens, kept.recent)
    encoded = kept.vector(mixer.key_dim, kept.key_bits) + kept.vector(mixer.value_dim, kept.value_bits)
    return mixer.kv_heads * ((tokens - new) * encoded + new * 2 * (mixer.key_dim + mixer.value_dim))
