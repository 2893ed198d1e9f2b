"""What each layer of an architecture keeps of the text, in the terms of `grader.kv`."""

from collections.abc import Sequence

from grader.atlas.architecture import Architecture
from grader.atlas.layer import Mixer
from grader.kv import LayerCache
from grader.kv.compressed import caches as compressed_caches
from grader.kv.layer import FULL, LATENT, SLIDING, STATE


def caches(model: Architecture) -> list[LayerCache]:
    """What the layers keep; those that keep nothing are left out. A layer may keep more than one thing."""
    found = []
    for layer in model.layers:
        mixer: Mixer | None = layer.mixer
        if mixer and not mixer.shared:
            found += kept_by(mixer) * (2 if model.traits.double else 1)
            if mixer.beside:
                found += kept_by(mixer.beside)
    return found


def kept_by(mixer: Mixer) -> list[LayerCache]:
    """What one layer keeps."""
    if mixer.kind == "attention":
        values = mixer.kv_heads * (mixer.key_dim + mixer.value_dim)
        return [LayerCache(SLIDING if mixer.window else FULL, values, mixer.window)]
    if mixer.kind == "latent":
        index = mixer.index.dim if mixer.index and not mixer.index.shared else 0
        return [LayerCache(LATENT, mixer.kv_rank + mixer.rope_dim + index)]
    if mixer.kind == "compressed":
        return compressed_caches(mixer.key_dim, mixer.window or 0, mixer.rate, mixer.index.dim if mixer.index else 0)
    state, inputs = state_values(mixer)
    return [LayerCache(STATE, 0, state_values=inputs, float32_values=state)]


def state_values(mixer: Mixer) -> tuple[int, int]:
    """Numbers of the state itself, in float32, and the last inputs of its convolution, in the model's dtype."""
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


def per_token(found: Sequence[LayerCache], element_bytes: float = 2) -> float:
    """Bytes of one more token while no window is full yet."""
    return element_bytes * sum(layer.values_per_token / layer.rate for layer in found)


def at(found: Sequence[LayerCache], context: int, element_bytes: float = 2) -> int:
    """Bytes of one sequence of `context` tokens, windows and states included."""
    return sum(layer.bytes_at(context, element_bytes) for layer in found)


def state_bytes(found: Sequence[LayerCache], element_bytes: float = 2) -> int:
    """The bytes of it that do not grow with the text."""
    return sum(layer.bytes_at(0, element_bytes) for layer in found)


def index_values(model: Architecture) -> int:
    """How many of a token's numbers are index keys of sparse attention; DeepSeek-V4's compressed ones aside."""
    indices = [layer.mixer.index for layer in model.layers if layer.mixer and layer.mixer.kind == "latent"]
    return sum(index.dim for index in indices if index and not index.shared)


def entry_values(model: Architecture) -> float:
    """A token's share of the numbers in DeepSeek-V4's compressed entries, without windows and index keys."""
    mixers = [layer.mixer for layer in model.layers if layer.mixer]
    return sum(mixer.key_dim / mixer.rate for mixer in mixers if mixer.rate)
