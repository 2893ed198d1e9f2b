"""What a config says of positions."""

from collections.abc import Mapping
from typing import Any

from grader.atlas.fields import Fields
from grader.errors import GraderError

# What transformers 5 writes in `rope_parameters`, by the kind of layer where there are several.
NAMES = {
    "sliding_attention": ("sliding_attention", "main"),
    "full_attention": ("full_attention", "compress"),
}

# Ways to reach positions beyond those of the training, by transformers' names.
SCALINGS = {"yarn": "YaRN", "llama3": "Llama 3's scaling", "longrope": "LongRoPE", "linear": "linear scaling"}


def parameters(f: Fields, kind: str) -> Mapping[str, Any]:
    """The RoPE parameters of a kind of layer: the file's own over the class's."""
    found = f.peek("rope_parameters")
    found = found if isinstance(found, Mapping) else {}
    for name in NAMES.get(kind, NAMES["full_attention"]):
        if isinstance(found.get(name), Mapping):
            return dict(found[name])
    return {} if any(isinstance(value, Mapping) for value in found.values()) else found


def typed(f: Fields) -> bool:
    """Whether a file has parameters of RoPE for each kind of layer."""
    found = f.own.get("rope_parameters")
    return isinstance(found, Mapping) and any(isinstance(value, Mapping) for value in found.values())


def theta(f: Fields, kind: str) -> float | None:
    """The base of RoPE's angles in a kind of layer, if the config or its class says it."""
    if kind == "sliding_attention":
        local = f.mine("rope_local_base_freq") or f.mine("swa_rope_theta")
        if local is not None:
            return float(local)
    own = f.mine("rope_theta") or f.mine("rotary_emb_base")
    if own is not None:
        return float(own)
    f.fact("rope_parameters")
    return float(parameters(f, kind).get("rope_theta", 10_000.0))


def turns(f: Fields, kind: str) -> bool:
    """Whether a file whose base may be null has one: OLMo Hybrid's published files have none, and turn nothing."""
    if isinstance(f.own.get("rope_parameters"), Mapping):
        return parameters(f, kind).get("rope_theta") is not None
    return f.own.get("rope_theta", 0) is not None


def compressed_theta(f: Fields) -> float:
    """The base of RoPE's angles in DeepSeek-V4's layers with compressed entries."""
    found = parameters(f, "full_attention") if "compress" in (f.own.get("rope_parameters") or {}) else {}
    return float(found.get("rope_theta") or f.needed("compress_rope_theta"))


def partial_factor(f: Fields, kind: str, head: int) -> float:
    """Which share of a head's numbers RoPE turns."""
    rotary_dim = f.number("rotary_dim")
    if rotary_dim:
        return rotary_dim / head
    for name in ("partial_rotary_factor", "rotary_pct"):
        if (own := f.mine(name)) is not None:
            return float(own)
    value = parameters(f, kind).get("partial_rotary_factor")
    if value is None:
        return 1.0
    f.fact("rope_parameters")
    return float(value)


def scaling(f: Fields) -> str:
    """How positions beyond those of the training are reached: ``YaRN from 4,096, factor 40``; empty where none are."""
    found: Any = f.mine("rope_scaling") or parameters(f, "full_attention")
    if not isinstance(found, Mapping):
        raise GraderError(f"`rope_scaling` is {found!r} in this config, and should be an object with fields.")
    kind = str(found.get("rope_type", found.get("type", "default")))
    if kind in ("default", "proportional"):
        return ""
    words = SCALINGS.get(kind, kind)
    factor, base = found.get("factor"), found.get("original_max_position_embeddings")
    if base := base or f.peek("original_max_position_embeddings"):  # Phi-3's files say it outside
        words += f" from {base:,}"
    return f"{words}, factor {float(factor):g}" if factor else words
