"""What mixes tokens in each layer of a model: all that the size of its cache depends on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from grader.atlas.arbiter import Asked, held
from grader.atlas.cache import caches_of, counts, state_values
from grader.atlas.family import STRANGE, Family, family_of, is_known, text_part
from grader.atlas.fields import Fields, ShapeFields, explained
from grader.atlas.layer import Index, Mixer
from grader.atlas.mixers import head_width, key_heads, mixer_of, shares, value_width, window
from grader.atlas.schedule import layer_kinds
from grader.atlas.shapes import query_heads
from grader.atlas.traits import Traits, traits_of
from grader.errors import GraderError

# Of a config without a model_type: whose rules its layers follow, by a field that only such families have.
RULES = {
    "hybrid_override_pattern": "nemotron_h",
    "mamba_num_heads": "nemotron_h",
    "mamba_n_heads": "granitemoehybrid",
    "mamba_dt_rank": "jamba",
    "linear_num_key_heads": "qwen3_next",
    "linear_num_heads": "kimi_linear",
    "conv_L_cache": "lfm2",
    "global_head_dim": "gemma4_text",
    "no_rope_layer_interval": "llama4_text",
    "new_decoder_architecture": "falcon",
    "multi_query": "falcon",
    "sliding_window_pattern": "exaone4",
}
# What such a config may not have: a model_type would have to say what it means.
UNREAD: tuple[str, ...] = (
    *STRANGE,
    "kv_source_layers",
    "compress_ratios",
    "compress_rates",
    "mamba_d_ssm",
    "linear_attn_config",
)
UNREAD += ("attn_layer_indices", "attn_type_list", "full_attn_idxs", "layer_group_size", "hybrid_layer_pattern")

HELD = " Its cache is as large as that of transformers' own model."


@dataclass(frozen=True)
class Mixing:
    """Mixers from the first layer to the last, two for a layer that has two.

    remark: as which family they were read, where their own is not known.
    """

    mixers: tuple[Mixer, ...]
    remark: str


def mixing_of(config: Mapping[str, Any]) -> Mixing:
    """What mixes tokens in the layers of a config.json, whatever else it leaves out.

    A config without a model_type is a shape: it means what it says, and takes nothing from a class. Raises GraderError
    where it does not say enough, contradicts itself, or describes what is not known here; Unread, which is one, where
    transformers alone knows its family, or counts its cache otherwise.
    """
    own, kind = text_part(config)
    if not kind or is_known(kind) or own.get("is_encoder_decoder"):
        return _mixing(config, own, kind)
    found, agreed = held(own, kind, lambda: _mixing(config, own, kind), _agrees)
    return replace(found, remark=found.remark + HELD) if agreed else found


def _agrees(found: Mixing, asked: Asked) -> bool:
    return counts(caches_of(found.mixers)) == counts(asked.kept or ())


def _mixing(config: Mapping[str, Any], own: Mapping[str, Any], kind: str) -> Mixing:
    family = family_of(config) if kind else _shape(own)
    read = mixer_of if kind else _mixer
    f, traits = family.fields, family.traits
    with explained(f):
        kinds, _ = layer_kinds(f, traits)
        f.own.setdefault("num_hidden_layers", len(kinds))
        found = [read(f.of_layer(i), traits, kind, i) for i, kind in enumerate(kinds)]
    remark = "" if traits.hub_only else family.remark
    return Mixing(tuple(mixer for mixer in found if mixer for _ in range(1 + traits.double)), remark)


def _shape(own: Mapping[str, Any]) -> Family:
    if own.get("is_encoder_decoder"):
        raise GraderError("this model is an encoder and a decoder; decoders alone are read here.")
    for name in UNREAD:
        if own.get(name):
            raise GraderError(f"this config has `{name}` and no model_type that says what it means.")
    if own.get("num_key_value_heads") and not own.get("n_head"):
        own = {"num_attention_heads": own["num_key_value_heads"], **own}
    rules = next((kind for name, kind in RULES.items() if own.get(name)), "llama")
    return Family("", ShapeFields(own, rules), replace(traits_of(rules), rounded_heads=True, value_dim=True), "")


def _mixer(f: Fields, traits: Traits, kind: str, layer: int) -> Mixer | None:
    """The mixer of one layer of a shape, without its parameters."""
    if kind in ("moe", "mlp", "conv", "linear_attention"):
        found = mixer_of(f, traits, kind, layer)
        if found and not any(state_values(found)):  # worked out of a width that is not told
            raise GraderError("this config has no `hidden_size`, so the size of its states can't be told.")
        return found
    if f.get("kv_lora_rank"):
        index = Index(0, f.number("index_head_dim"), 0)
        rope, heads = f.number("qk_rope_head_dim"), f.number("num_attention_heads")
        key, value = f.number("qk_nope_head_dim") + rope, f.number("v_head_dim")
        found = Mixer("latent", "", {}, heads, heads, key, value, window(f, kind), rope_dim=rope, index=index)
        return replace(found, kv_rank=f.needed("kv_lora_rank"))
    key = head_width(f, traits, kind, layer)
    return Mixer(
        kind="attention",
        label="",
        shapes={},
        heads=query_heads(f, layer),
        kv_heads=key_heads(f, kind, layer),
        key_dim=key,
        value_dim=value_width(f, traits, key),
        window=window(f, kind),
        shared=shares(f, layer),
    )
