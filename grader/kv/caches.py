"""What each layer of a model keeps, told from its config.json."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from grader.errors import GraderError
from grader.kv import compressed
from grader.kv.fields import (
    NOTHING,
    complete,
    head_sizes,
    kv_heads,
    needed,
    number,
    of_layer,
    sliding_heads,
)
from grader.kv.layer import COMPRESSED, FULL, LATENT, SLIDING, STATE, LayerCache
from grader.kv.schedule import layer_types


def layers(config: Mapping[str, Any]) -> list[LayerCache]:
    """What the layers of the model with this config.json keep; those that keep nothing are left out.

    config: of a causal language model, as it stands on the hub or as transformers writes it. Raises GraderError
    where it does not say enough, or speaks of things that are not counted here.
    """
    config = complete(config)
    try:
        kinds = layer_types(config)
        kept = len(kinds) - number(config, "num_kv_shared_layers")  # the last layers may use what earlier ones keep
        found = [_layer_caches(of_layer(config, index), kind) for index, kind in enumerate(kinds[: max(kept, 0)])]
    except (AttributeError, TypeError, ValueError) as error:
        raise GraderError(f"a field of this config is not what a config.json has there: {error}.") from None
    return [cache for of_one in found for cache in of_one]


def remark(config: Mapping[str, Any]) -> str:
    """What to know about the numbers for this config; empty where there is nothing to add.

    Sparse attention keeps index keys beside the latent. The talk's card of DeepSeek V3.2 has 68.6 KiB a token, which
    is the latent alone; with index keys in bfloat16, as transformers keeps them, it is 83.9. (DeepSeek's own program
    keeps them in float8.) Cards of DeepSeek-V4 have its compressed entries alone.
    """
    found = layers(config)
    if entries := [layer for layer in found if layer.kind == COMPRESSED]:
        every = sum(layer.values_per_token / layer.rate for layer in found)
        alone = sum(needed(complete(config), "head_dim") / layer.rate for layer in entries)
        return (
            f"Windows and index keys are counted: {2 * every / 1024:.1f} KiB a token in bfloat16 until the windows are"
            f" full, {2 * alone / 1024:.1f} for the compressed entries alone, which is what published cards give."
        )
    index = sum(index_values(of_layer(complete(config), i)) for i, layer in enumerate(found) if layer.kind == LATENT)
    if not index:
        return ""
    whole = sum(layer.values_per_token for layer in found)
    return (
        f"Index keys are counted: {2 * whole / 1024:.1f} KiB a token in bfloat16, {2 * (whole - index) / 1024:.1f}"
        " without them, which is what published cards give."
    )


def index_values(config: Mapping[str, Any]) -> int:
    """How many numbers a layer of sparse attention keeps for a token to look its key up by; 0 for other layers."""
    return number(config, "index_head_dim") if config.get("kv_lora_rank") is not None else 0


def _layer_caches(config: Mapping[str, Any], kind: str) -> list[LayerCache]:
    if config.get("model_type") == compressed.FAMILY:
        return compressed.caches_of(config, kind)
    found = _layer_cache(config, kind)
    return [found] if found else []


def _layer_cache(config: Mapping[str, Any], kind: str) -> LayerCache | None:
    if kind in ("full_attention", "indexed_attention"):
        return _attention(config, kind)
    if kind in ("sliding_attention", "chunked_attention"):
        field = "sliding_window" if kind == "sliding_attention" else "attention_chunk_size"
        cache = _attention(config, kind)
        return replace(cache, kind=SLIDING if cache.kind == FULL else cache.kind, window=needed(config, field))
    if kind in NOTHING:
        return None
    for field, state in STATES.items():
        if kind == ("conv" if field == "conv_L_cache" else "linear_attention") and config.get(field) is not None:
            return state(config)
    raise GraderError(f"this config has layers of type {kind!r}, and what those keep is not known here.")


def _attention(config: Mapping[str, Any], kind: str) -> LayerCache:
    if config.get("kv_lora_rank") is not None:
        latent = needed(config, "kv_lora_rank") + number(config, "qk_rope_head_dim")
        return LayerCache(LATENT, latent + index_values(config))
    heads = sliding_heads(config, kv_heads(config)) if kind == "sliding_attention" else kv_heads(config)
    heads, key, value = head_sizes(config, heads)
    if kind == "full_attention" and config.get("global_head_dim") and not config.get("per_layer_config"):  # Gemma 4
        key = value = needed(config, "global_head_dim")
        if config.get("attention_k_eq_v", True):
            heads = number(config, "num_global_key_value_heads") or heads
    return LayerCache(FULL, heads * (key + value))


def _gated_delta_net(config: Mapping[str, Any]) -> LayerCache:
    """Qwen3-Next's linear attention: a matrix for each head in float32, and the last inputs of a convolution."""
    key_heads, value_heads = needed(config, "linear_num_key_heads"), needed(config, "linear_num_value_heads")
    key, value = needed(config, "linear_key_head_dim"), needed(config, "linear_value_head_dim")
    convolution = (2 * key_heads * key + value_heads * value) * needed(config, "linear_conv_kernel_dim")
    return LayerCache(STATE, 0, state_values=convolution, float32_values=value_heads * key * value)


def _mamba(config: Mapping[str, Any]) -> LayerCache:
    """Mamba-2, of Nemotron-H and Granite 4: a matrix for each head in float32, the last inputs of a convolution."""
    heads = needed(config, "mamba_num_heads", "mamba_n_heads")
    if config.get("mamba_d_head") == "auto":
        width = needed(config, "mamba_expand") * needed(config, "hidden_size")
    else:
        width = heads * needed(config, "mamba_head_dim", "mamba_d_head")
    state, groups = needed(config, "ssm_state_size", "mamba_d_state"), needed(config, "n_groups", "mamba_n_groups")
    convolution = (width + 2 * groups * state) * needed(config, "conv_kernel", "mamba_d_conv")
    return LayerCache(STATE, 0, state_values=convolution, float32_values=width * state)


def _mamba_1(config: Mapping[str, Any]) -> LayerCache:
    """Jamba's: a state for each channel in float32, and the last inputs of a convolution."""
    width = needed(config, "mamba_expand") * needed(config, "hidden_size")
    state, convolution = width * needed(config, "mamba_d_state"), width * needed(config, "mamba_d_conv")
    return LayerCache(STATE, 0, state_values=convolution, float32_values=state)


def _kimi_delta(config: Mapping[str, Any]) -> LayerCache:
    """Kimi Linear's: a matrix for each head in float32, and the last inputs of a convolution for each of q, k and v."""
    heads, dim = needed(config, "linear_num_heads"), needed(config, "linear_head_dim")
    convolution = 3 * heads * dim * needed(config, "linear_conv_kernel_dim")
    return LayerCache(STATE, 0, state_values=convolution, float32_values=heads * dim * dim)


def _short_convolution(config: Mapping[str, Any]) -> LayerCache:
    """LFM2's: the last inputs of a convolution."""
    return LayerCache(STATE, 0, state_values=needed(config, "hidden_size") * needed(config, "conv_L_cache"))


# What keeps a state of fixed size, by a field that only such models have.
STATES: dict[str, Callable[[Mapping[str, Any]], LayerCache]] = {
    "mamba_num_heads": _mamba,
    "mamba_n_heads": _mamba,
    "mamba_dt_rank": _mamba_1,
    "linear_num_key_heads": _gated_delta_net,
    "linear_num_heads": _kimi_delta,
    "conv_L_cache": _short_convolution,
}
