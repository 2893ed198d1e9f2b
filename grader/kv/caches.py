"""What each layer of a model keeps, told from its config.json."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from grader.config import Config
from grader.errors import GraderError
from grader.kv.models import families

FULL, SLIDING, LATENT, STATE = "full", "sliding", "latent", "state"
# Where a config for images and text has the part that is read here.
TEXT_PARTS = ("text_config", "llm_config", "language_config")
# Kinds of layers that keep nothing, and transformers 4's words for others.
NOTHING = ("moe", "mlp")
OLDER_WORDS = {
    "mamba": "linear_attention",
    "attention": "full_attention",
    "deepseek_sparse_attention": "indexed_attention",
}
# Fields of models that keep more, or less, than what is counted here; those of the second row, unless `layer_types`
# says of every layer what it is.
UNCOUNTED = ("cross_attention_layers", "kv_source_layers", "compress_ratios", "compress_rates", "index_topk_pattern")
UNCOUNTED_STATES = (
    *("mamba_d_state", "mamba_d_ssm", "mamba_num_heads", "ssm_state_size", "lru_width", "linear_attn_config"),
    *("attn_layer_period", "attn_layer_indices", "attn_type_list", "block_types", "full_attn_idxs", "layer_group_size"),
    *("hybrid_layer_pattern", "rwkv_version", "conv_L_cache"),
)


@dataclass(frozen=True)
class LayerCache:
    """What one layer keeps.

    kind: ``full`` and ``sliding`` keep keys and values, ``latent`` a compressed form of both (MLA), ``state`` one
    of fixed size. values_per_token: how many numbers for each token that it keeps. window: how many tokens at most,
    the newest one among them. state_values: how many numbers whatever the length is. float32_values: the same, of
    those that are float32 whatever the rest of the cache is in.
    """

    kind: str
    values_per_token: int
    window: int | None = None
    state_values: int = 0
    float32_values: int = 0

    def tokens(self, context: int) -> int:
        """How many of `context` tokens this layer keeps."""
        return context if self.window is None else min(context, self.window)

    def bytes_at(self, context: int, element_bytes: float = 2) -> int:
        """Bytes that this layer keeps of one sequence of `context` tokens."""
        values = self.values_per_token * self.tokens(context) + self.state_values
        return math.ceil(element_bytes * values) + 4 * self.float32_values


def layers(config: Mapping[str, Any]) -> list[LayerCache]:
    """What each layer of the model with this config.json keeps; layers that keep nothing are left out.

    config: of a causal language model, as it stands on the hub or as transformers writes it. Raises GraderError
    where it does not say enough, or speaks of things that are not counted here.
    """
    config = _complete(config)
    try:
        kinds = _layer_types(config)
        kept = len(kinds) - _number(config, "num_kv_shared_layers")  # the last layers may use what earlier ones keep
        found = [_layer_cache(_of_layer(config, index), kind) for index, kind in enumerate(kinds[: max(kept, 0)])]
    except (AttributeError, TypeError, ValueError) as error:
        raise GraderError(f"a field of this config is not what a config.json has there: {error}.") from None
    return [cache for cache in found if cache]


def remark(config: Mapping[str, Any]) -> str:
    """What to know about the numbers for this config: empty, or that its family is not one that was compared."""
    kind = _text_part(config).get("model_type")
    if kind is None or str(kind) in families():
        return ""
    return f"The model_type {kind!r} is not known here: its fields are read as if they meant what they mean in Llama."


def _text_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """The language model's own part of a config that holds one for images too."""
    inner = next((config[name] for name in TEXT_PARTS if isinstance(config.get(name), Mapping)), None)
    if inner is None:
        return {**config}
    outer = config.get("model_type")
    return {"model_type": f"{outer}_text" if f"{outer}_text" in families() else outer, **inner}


def _complete(config: Mapping[str, Any]) -> Config:
    """The language model's part, with what its file leaves out. Raises GraderError for what is not counted here."""
    config = _text_part(config)
    config = Config({**families().get(str(config.get("model_type")), {}), **config})
    if config.get("is_encoder_decoder"):
        raise GraderError("this config is an encoder-decoder's, and what its decoder keeps is not counted here.")
    told = config.get("layer_types") or config.get("layers_block_type") or config.get("hybrid_override_pattern")
    for name in UNCOUNTED + (() if told else UNCOUNTED_STATES):
        if config.get(name):
            raise GraderError(f"this config has `{name}`, and what such a model keeps is not counted here.")
    return config


def _of_layer(config: Config, index: int) -> Config:
    """The config with what it says of one layer alone. transformers 5 writes that, with keys such as "05"."""
    overrides = config.get("per_layer_config") or {}
    own: Mapping[str, Any] = next((fields for key, fields in overrides.items() if int(key) == index), {})
    if dict(enumerate(config.get("indexer_types") or [])).get(index) == "shared":  # GLM-5.2: an earlier layer's index
        own = {**own, "index_head_dim": None}
    return Config({**config, **own}) if own else config


def _number(config: Mapping[str, Any], name: str) -> int:
    """A field that may be absent or null, which is 0. Raises GraderError where it is no whole number."""
    value = config.get(name) or 0
    if type(value) is not int or value < 0:
        raise GraderError(f"`{name}` is {value!r} in this config, and should be a whole number.")
    return value


def _need(config: Mapping[str, Any], *names: str) -> int:
    """The first of these fields that the config has, a positive whole number. Raises GraderError."""
    for name in names:
        value = config.get(name)
        if value is None:
            continue
        if type(value) is not int or value < 1:
            raise GraderError(f"`{name}` is {value!r} in this config, and should be a positive whole number.")
        return value
    raise GraderError(
        f"this config has no `{names[0]}`, so the size of its cache can't be told."
        " Is it the config.json of a causal language model?"
    )


def _kv_heads(config: Mapping[str, Any]) -> int:
    if config.get("new_decoder_architecture"):  # Falcon 40B and 180B, whose files say `multi_query` too
        return _need(config, "num_kv_heads", "num_attention_heads")
    if config.get("multi_query"):  # how GPT-BigCode and the first Falcons say it
        return 1
    return _need(config, "num_key_value_heads", "num_attention_heads", "n_head")


def _shape(config: Mapping[str, Any], heads: int) -> tuple[int, int, int]:
    """The number of heads, and the width of a head's key and of its value."""
    if config.get("qk_nope_head_dim") is not None:
        key = _need(config, "qk_nope_head_dim") + _number(config, "qk_rope_head_dim")
        return heads, key, _need(config, "v_head_dim")
    if config.get("head_dim") is not None:
        key = _need(config, "head_dim")
    else:
        key = _need(config, "hidden_size", "n_embd") // _need(config, "num_attention_heads", "n_head")
        if not key:
            raise GraderError("this config has more attention heads than channels; is `hidden_size` right?")
    return heads, key, _number(config, "v_head_dim") or key


def _layer_types(config: Mapping[str, Any]) -> Sequence[str]:
    """What each layer is, in transformers' words."""
    for name in ("layer_types", "layers_block_type"):
        if config.get(name) is not None:
            if not isinstance(config[name], list):
                raise GraderError(f"`{name}` is {config[name]!r} in this config, and should be a list.")
            return [OLDER_WORDS.get(str(kind), str(kind)) for kind in config[name]]
    if config.get("hybrid_override_pattern") is not None:  # Nemotron-H: M a Mamba, * attention, the rest keep nothing
        words = {"M": "linear_attention", "*": "full_attention"}
        return [words.get(c, "mlp") for c in str(config["hybrid_override_pattern"])]
    count = _need(config, "num_hidden_layers", "n_layer")
    if config.get("full_attention_interval") is not None:  # Qwen3-Next and Qwen3.5
        return _every(_need(config, "full_attention_interval"), count, "linear_attention")
    if config.get("attention_chunk_size") is not None and config.get("no_rope_layer_interval") is not None:  # Llama 4
        rotated = config.get("no_rope_layers")
        if not rotated:
            return _every(_need(config, "no_rope_layer_interval"), count, "chunked_attention")
        return ["chunked_attention" if rotates else "full_attention" for rotates in rotated]
    if not config.get("sliding_window") or config.get("use_sliding_window") is False:
        return ["full_attention"] * count
    if config.get("use_sliding_window"):  # Qwen2, Qwen2.5, Qwen3: the lower layers see everything
        first = _number(config, "max_window_layers")
        return ["full_attention" if i < first else "sliding_attention" for i in range(count)]
    pattern = config.get("sliding_window_pattern")
    if isinstance(pattern, str) and pattern:  # EXAONE 4: "LLLG", and the last layer sees everything
        types = ["full_attention" if pattern[i % len(pattern)] == "G" else "sliding_attention" for i in range(count)]
        return [*types[:-1], "full_attention"]
    return _every(_number(config, "sliding_window_pattern"), count, "sliding_attention")


def _every(interval: int, count: int, other: str) -> list[str]:
    """Every interval-th layer full, the rest of another kind; 0: all of that."""
    return ["full_attention" if interval and (i + 1) % interval == 0 else other for i in range(count)]


def _layer_cache(config: Mapping[str, Any], kind: str) -> LayerCache | None:
    if kind in ("full_attention", "indexed_attention"):
        return _attention(config, kind)
    if kind in ("sliding_attention", "chunked_attention"):
        field = "sliding_window" if kind == "sliding_attention" else "attention_chunk_size"
        cache = _attention(config, kind)
        return replace(cache, kind=SLIDING if cache.kind == FULL else cache.kind, window=_need(config, field))
    if kind in NOTHING:
        return None
    for field, state in STATES.items():
        if kind == ("conv" if field == "conv_L_cache" else "linear_attention") and config.get(field) is not None:
            return state(config)
    raise GraderError(f"this config has layers of type {kind!r}, and what those keep is not known here.")


def _attention(config: Mapping[str, Any], kind: str) -> LayerCache:
    if config.get("kv_lora_rank") is not None:
        index = _number(config, "index_head_dim")  # DeepSeek-V3.2's sparse attention looks keys up in an index
        return LayerCache(LATENT, _need(config, "kv_lora_rank") + _number(config, "qk_rope_head_dim") + index)
    heads, key, value = _shape(config, _kv_heads(config))
    if kind == "full_attention" and config.get("global_head_dim") and not config.get("per_layer_config"):  # Gemma 4
        key = value = _need(config, "global_head_dim")
        if config.get("attention_k_eq_v", True):
            heads = _number(config, "num_global_key_value_heads") or heads
    return LayerCache(FULL, heads * (key + value))


def _gated_delta_net(config: Mapping[str, Any]) -> LayerCache:
    """Qwen3-Next's linear attention: a matrix for each head in float32, and the last inputs of a convolution."""
    key_heads, value_heads = _need(config, "linear_num_key_heads"), _need(config, "linear_num_value_heads")
    key, value = _need(config, "linear_key_head_dim"), _need(config, "linear_value_head_dim")
    convolution = (2 * key_heads * key + value_heads * value) * _need(config, "linear_conv_kernel_dim")
    return LayerCache(STATE, 0, state_values=convolution, float32_values=value_heads * key * value)


def _mamba(config: Mapping[str, Any]) -> LayerCache:
    """Mamba-2, of Nemotron-H and Granite 4: a matrix for each head in float32, the last inputs of a convolution."""
    heads = _need(config, "mamba_num_heads", "mamba_n_heads")
    if config.get("mamba_d_head") == "auto":
        width = _need(config, "mamba_expand") * _need(config, "hidden_size")
    else:
        width = heads * _need(config, "mamba_head_dim", "mamba_d_head")
    state, groups = _need(config, "ssm_state_size", "mamba_d_state"), _need(config, "n_groups", "mamba_n_groups")
    convolution = (width + 2 * groups * state) * _need(config, "conv_kernel", "mamba_d_conv")
    return LayerCache(STATE, 0, state_values=convolution, float32_values=width * state)


def _short_convolution(config: Mapping[str, Any]) -> LayerCache:
    """LFM2's: the last inputs of a convolution."""
    return LayerCache(STATE, 0, state_values=_need(config, "hidden_size") * _need(config, "conv_L_cache"))


# What keeps a state of fixed size, by a field that only such models have.
STATES: dict[str, Callable[[Mapping[str, Any]], LayerCache]] = {
    "mamba_num_heads": _mamba,
    "mamba_n_heads": _mamba,
    "linear_num_key_heads": _gated_delta_net,
    "conv_L_cache": _short_convolution,
}
