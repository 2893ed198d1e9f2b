"""What a config.json says, in whatever words its family has for it."""

from collections.abc import Mapping
from typing import Any

from grader.config import Config
from grader.errors import GraderError
from grader.kv.models import families

# Where a config for images and text has the part that is read here.
TEXT_PARTS = ("text_config", "llm_config", "language_config")

# A model_type of the hub that transformers has no class for, and the class that reads it.
READ_AS = {"kimi_k2": "deepseek_v3"}

# Words of a family's files for what others call otherwise.
OTHER_WORDS: dict[str, dict[str, str]] = {
    "gpt_neo": {"num_layers": "num_hidden_layers", "num_heads": "num_attention_heads", "window_size": "sliding_window"},
}

MOST_LAYERS = 4096

# Families whose layers have two attentions each: `num_layers` counts layers, and `num_hidden_layers` attentions.
TWO_ATTENTIONS = ("longcat_flash",)

# Kinds of layers that keep nothing, and transformers 4's words for others.
NOTHING = ("moe", "mlp")
OLDER_WORDS = {
    "mamba": "linear_attention",
    "attention": "full_attention",
    "deepseek_sparse_attention": "indexed_attention",
}

# Fields of models that keep more, or less, than what is counted here; those of the last rows, unless `layer_types`
# says of every layer what it is.
UNCOUNTED = ("cross_attention_layers", "kv_source_layers")
COMPRESSING = ("compress_ratios", "compress_rates")  # DeepSeek-V4's, whose own rule is known
UNCOUNTED_STATES = (
    *("mamba_d_state", "mamba_d_ssm", "mamba_num_heads", "ssm_state_size", "lru_width", "linear_attn_config"),
    *("attn_layer_period", "attn_layer_indices", "attn_type_list", "block_types", "full_attn_idxs", "layer_group_size"),
    *("hybrid_layer_pattern", "rwkv_version", "conv_L_cache"),
)


def text_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """The language model's own part of a config that holds one for images too."""
    inner = next((config[name] for name in TEXT_PARTS if isinstance(config.get(name), Mapping)), None)
    if inner is None:
        return {**config}
    outer = config.get("model_type")
    return {"model_type": f"{outer}_text" if f"{outer}_text" in families() else outer, **inner}


def complete(config: Mapping[str, Any]) -> Config:
    """The language model's part, with what its file leaves out. Raises GraderError for what is not counted here."""
    config = text_part(config)
    if config.get("is_encoder_decoder"):
        raise GraderError("this config is an encoder-decoder's, and what its decoder keeps is not counted here.")
    config = _mimo_fields(_kimi_delta_fields(_usual_words(config)))
    config = Config(_jamba_fields({**_defaults(config.get("model_type")), **config}))
    told = config.get("layer_types") or config.get("layers_block_type") or config.get("hybrid_override_pattern")
    compressed = COMPRESSING if config.get("model_type") == "deepseek_v4" else ()
    types = config.get("attn_type_list")
    if isinstance(types, list) and all(kind == 1 for kind in types):  # MiniMax-M2: each layer's attention is full
        config = Config({**config, "attn_type_list": None})
    for name in UNCOUNTED + (() if compressed else COMPRESSING) + (() if told else UNCOUNTED_STATES):
        if config.get(name):
            raise GraderError(
                f"this config has `{name}`, and what such a model keeps is not counted here."
                " `grader card FILE` reads more families."
            )
    return config


def _usual_words(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config with the names that other families have for its fields."""
    other = OTHER_WORDS.get(str(config.get("model_type")), {})
    return {**config, **{usual: config[own] for own, usual in other.items() if own in config}}


def _jamba_fields(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Jamba's config with the kinds of its layers, which its file gives as a period and an offset."""
    if config.get("model_type") != "jamba" or config.get("layer_types"):
        return config
    count, period = needed(config, "num_hidden_layers"), needed(config, "attn_layer_period")
    at = number(config, "attn_layer_offset")
    if count > MOST_LAYERS:
        return config
    kinds = ["full_attention" if i % period == at else "linear_attention" for i in range(count)]
    return {**config, "layer_types": kinds}


def _kimi_delta_fields(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Kimi Linear's config with what its `linear_attn_config` says under the names of transformers' class."""
    own = config.get("linear_attn_config")
    if config.get("model_type") != "kimi_linear" or not isinstance(own, Mapping):
        return config
    names = {"num_heads": "linear_num_heads", "head_dim": "linear_head_dim"}
    names |= {"short_conv_kernel_size": "linear_conv_kernel_dim"}
    found = {names[name]: value for name, value in own.items() if name in names}
    full, count = own.get("full_attn_layers"), config.get("num_hidden_layers", 27)
    if isinstance(full, list) and type(count) is int and not config.get("layer_types"):  # counted from 1
        found["layer_types"] = ["full_attention" if i + 1 in full else "linear_attention" for i in range(count)]
    return {**config, **found, "linear_attn_config": None}


def _mimo_fields(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """MiMo-V2-Flash's config with what its hub file says under the names of transformers' class."""
    if config.get("model_type") != "mimo_v2_flash":
        return config
    pattern, window = config.get("hybrid_layer_pattern"), config.get("sliding_window_size")
    found: dict[str, Any] = {}
    if isinstance(pattern, list) and not config.get("layer_types"):
        found["layer_types"] = ["sliding_attention" if flag else "full_attention" for flag in pattern]
        found["hybrid_layer_pattern"] = None
    if window is not None:  # of earlier tokens, beside the newest
        found["sliding_window"] = number(config, "sliding_window_size") + 1
    return {**config, **found}


def _defaults(kind: Any) -> Mapping[str, Any]:
    """What a family's files leave out. A config without a model_type is a shape, and means what it says."""
    if kind is None:
        return {}
    known = families().get(READ_AS.get(str(kind), str(kind)))
    if known is None:
        raise GraderError(
            f"the model_type {kind!r} is not known here, so what its layers keep can't be told."
            " `grader card FILE` reads more families."
        )
    return known


def of_layer(config: Config, index: int) -> Config:
    """The config with what it says of one layer alone. transformers 5 writes that, with keys such as "05"."""
    overrides = config.get("per_layer_config") or {}
    own: Mapping[str, Any] = next((fields for key, fields in overrides.items() if int(key) == index), {})
    if takes_earlier_choice(config, index):
        own = {**own, "index_head_dim": None}
    return Config({**config, **own}) if own else config


def takes_earlier_choice(config: Mapping[str, Any], layer: int) -> bool:
    """Whether a layer of sparse attention looks at the tokens that an earlier layer's index chose (GLM-5.2)."""
    told = config.get("indexer_types") or config.get("index_topk_pattern")
    if told:
        if layer >= len(told):
            raise GraderError(f"this config says of {len(told)} layers whose index they use, and has more layers.")
        return told[layer] in ("S", "shared")
    offset = config.get("index_skip_topk_offset")
    after = layer - (2 if offset is None else int(offset)) + 1
    return max(after, 0) % max(number(config, "index_topk_freq"), 1) != 0


def number(config: Mapping[str, Any], name: str) -> int:
    """A field that may be absent or null, which is 0. Raises GraderError where it is no whole number."""
    value = config.get(name) or 0
    if type(value) is not int or value < 0:
        raise GraderError(f"`{name}` is {value!r} in this config, and should be a whole number.")
    return value


def needed(config: Mapping[str, Any], *names: str) -> int:
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
        " A model without attention has no such cache; any other's config.json has the field."
    )


def kv_heads(config: Mapping[str, Any]) -> int:
    if config.get("new_decoder_architecture"):  # Falcon 40B and 180B, whose files say `multi_query` too
        return needed(config, "num_kv_heads", "num_attention_heads")
    if config.get("multi_query"):  # how GPT-BigCode and the first Falcons say it
        return 1
    return needed(config, "num_key_value_heads", "num_attention_heads", "n_head")


def sliding_heads(config: Mapping[str, Any], heads: int) -> int:
    """The heads of keys and values in a sliding layer, where full ones have `heads`. MiMo-V2-Flash has twice as many.

    Its files name them; transformers' class doubles instead, which is the same for the model that was published.
    """
    if config.get("model_type") != "mimo_v2_flash":
        return heads
    return number(config, "swa_num_key_value_heads") or 2 * heads


def head_sizes(config: Mapping[str, Any], heads: int) -> tuple[int, int, int]:
    """The number of heads, and the width of a head's key and of its value."""
    if config.get("qk_nope_head_dim") is not None:
        key = needed(config, "qk_nope_head_dim") + number(config, "qk_rope_head_dim")
        return heads, key, needed(config, "v_head_dim")
    if config.get("head_dim") is not None:
        key = needed(config, "head_dim")
    else:
        key = needed(config, "hidden_size", "n_embd") // needed(config, "num_attention_heads", "n_head")
        if not key:
            raise GraderError("this config has more attention heads than channels; is `hidden_size` right?")
    return heads, key, number(config, "v_head_dim") or key
