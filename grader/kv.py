"""What a model keeps for every token it has read, told from its config.json: the size of its KV cache.

One number a token is enough for a model whose layers all see everything. With sliding windows, or layers that
keep a state of fixed size, there are two: bytes for one more token now, and bytes in total at a length.
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from grader.config import Config
from grader.errors import GraderError

MODELS = Path(__file__).parent / "kv_models.toml"
ELEMENT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float8": 1, "int8": 1, "int4": 0.5}

FULL, SLIDING, LATENT, STATE = "full", "sliding", "latent", "state"

# Where a file names no layer_types: the class's own rule. Every n-th layer is full, the others slide.
FULL_EVERY = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4, "olmo3": 4, "gpt_oss": 2}


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
    where it does not say enough.
    """
    config = _text_part(config)
    return [cache for kind in _layer_types(config) if (cache := _layer_cache(config, kind))]


def known_models() -> dict[str, Config]:
    """Models that can be looked up by name, each with the fields of its config.json that decide about the cache."""
    return {name: Config(fields) for name, fields in tomllib.loads(MODELS.read_text(encoding="utf-8")).items()}


def known_model(name: str) -> Config:
    """One of `known_models`. Raises GraderError, with the names that come closest, for another."""
    models = known_models()
    if name not in models:
        close = [known for known in models if name.lower() in known.lower()] or list(models)
        raise GraderError(f"{name!r} is not known here; there are: {', '.join(close)}. Or give a config.json.")
    return models[name]


def bytes_per_token(config: Mapping[str, Any], element_bytes: float = 2) -> int:
    """Bytes that one more token takes while no window is full yet. element_bytes: 2 for bfloat16."""
    return math.ceil(element_bytes * sum(layer.values_per_token for layer in layers(config)))


def bytes_at(config: Mapping[str, Any], context: int, batch: int = 1, element_bytes: float = 2) -> int:
    """Bytes of the whole cache after `context` tokens in each of `batch` sequences, windows and states included."""
    return batch * sum(layer.bytes_at(context, element_bytes) for layer in layers(config))


def bytes_by_kind(
    config: Mapping[str, Any], context: int, batch: int = 1, element_bytes: float = 2
) -> dict[str, tuple[int, int]]:
    """For each kind of layer: how many there are, and the bytes that they keep together after `context` tokens."""
    found: dict[str, tuple[int, int]] = {}
    for layer in layers(config):
        count, total = found.get(layer.kind, (0, 0))
        found[layer.kind] = (count + 1, total + batch * layer.bytes_at(context, element_bytes))
    return found


def readable(count: float) -> str:
    """Bytes as people write them: ``300 KiB`` below a million, ``4.29 GB`` (decimal) above."""
    if count < 1e6:
        return f"{count / 1024:,.4g} KiB" if count >= 1024 else f"{count:,.0f} bytes"
    return f"{count / 1e9:,.3g} GB" if count >= 1e9 else f"{count / 1e6:,.3g} MB"


def plain(config: Mapping[str, Any]) -> Config:
    """The model's shape alone: every layer full, keys and values kept as they are."""
    config = _text_part(config)
    heads = _need(config, "num_attention_heads", "n_head")
    _, key, value = _shape(config, heads)
    shape = {"num_hidden_layers": len(_layer_types(config)), "num_attention_heads": heads}
    return Config({**shape, "num_key_value_heads": _kv_heads(config), "head_dim": key, "v_head_dim": value})


def methods(config: Mapping[str, Any], latent: int, rope: int, window: int, ratio: int) -> dict[str, Config]:
    """The same model with each way to keep less, one config each, from keeping everything (MHA) on.

    latent, rope: the numbers that MLA keeps for a token: the compressed state, and the rotated key that all heads
    share. window: how far a sliding layer sees. ratio: how many sliding layers come before each full one.
    """
    gqa = plain(config)
    count = range(gqa.num_hidden_layers)
    types = ["full_attention" if (i + 1) % (ratio + 1) == 0 else "sliding_attention" for i in count]
    alone = {
        "MHA": gqa.replace(num_key_value_heads=gqa.num_attention_heads),
        "GQA": gqa.replace(num_key_value_heads=min(gqa.num_key_value_heads, gqa.num_attention_heads)),
        "MLA": gqa.replace(kv_lora_rank=latent, qk_rope_head_dim=rope),
    }
    windows = {f"{name} + SWA": c.replace(layer_types=types, sliding_window=window) for name, c in alone.items()}
    return alone | windows


def _text_part(config: Mapping[str, Any]) -> Config:
    """The language model's own part of a config that holds one for images too."""
    inner = config.get("text_config")
    return Config({**inner} if isinstance(inner, Mapping) else {**config})


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
    if config.get("multi_query"):  # how GPT-BigCode and the first Falcons say it
        return 1
    return _need(config, "num_key_value_heads", "num_attention_heads", "n_head")


def _shape(config: Mapping[str, Any], heads: int) -> tuple[int, int, int]:
    """The number of heads, and the width of a head's key and of its value."""
    if config.get("qk_nope_head_dim") is not None:
        key = _need(config, "qk_nope_head_dim") + _need(config, "qk_rope_head_dim")
        return heads, key, _need(config, "v_head_dim")
    if config.get("head_dim") is not None:
        key = _need(config, "head_dim")
    else:
        key = _need(config, "hidden_size", "n_embd") // _need(config, "num_attention_heads", "n_head")
    return heads, key, config.get("v_head_dim") or key


def _layer_types(config: Mapping[str, Any]) -> Sequence[str]:
    """What each layer is, in transformers' words."""
    if config.get("layer_types") is not None:
        return list(config["layer_types"])
    if config.get("hybrid_override_pattern") is not None:  # Nemotron-H: M a Mamba, * attention, the rest keep nothing
        return [{"M": "mamba", "*": "full_attention"}.get(c, "none") for c in config["hybrid_override_pattern"]]
    if config.get("layers_block_type") is not None:
        return ["full_attention" if kind == "attention" else kind for kind in config["layers_block_type"]]
    count = _need(config, "num_hidden_layers", "n_layer")
    if config.get("full_attention_interval") is not None:  # Qwen3-Next and Qwen3.5
        every = _need(config, "full_attention_interval")
        return ["full_attention" if (i + 1) % every == 0 else "linear_attention" for i in range(count)]
    if not config.get("sliding_window") or config.get("use_sliding_window") is False:
        return ["full_attention"] * count
    if config.get("use_sliding_window"):  # Qwen2, Qwen2.5, Qwen3: the lower layers see everything
        first = config.get("max_window_layers", 0)
        return ["full_attention" if i < first else "sliding_attention" for i in range(count)]
    every = config.get("sliding_window_pattern") or FULL_EVERY.get(config.get("model_type", ""), 0)
    return ["full_attention" if every and (i + 1) % every == 0 else "sliding_attention" for i in range(count)]


def _layer_cache(config: Mapping[str, Any], kind: str) -> LayerCache | None:
    if kind in ("full_attention", "indexed_attention", "sliding_attention", "chunked_attention"):
        cache = _attention(config, kind)
        if kind in ("sliding_attention", "chunked_attention"):
            window = _need(config, "sliding_window", "attention_chunk_size")
            cache = replace(cache, kind=SLIDING if cache.kind == FULL else cache.kind, window=window)
        return cache
    if kind in ("linear_attention", "mamba"):
        return _mamba(config) if config.get("mamba_num_heads") is not None else _gated_delta_net(config)
    if kind in ("none", "moe", "mlp"):
        return None
    raise GraderError(f"this config has layers of type {kind!r}, and what those keep is not known here.")


def _attention(config: Mapping[str, Any], kind: str) -> LayerCache:
    if config.get("kv_lora_rank") is not None:
        indexer = config.get("index_head_dim") or 0  # DeepSeek-V3.2's sparse attention looks keys up in an index
        return LayerCache(LATENT, _need(config, "kv_lora_rank") + (config.get("qk_rope_head_dim") or 0) + indexer)
    if kind == "full_attention" and config.get("global_head_dim") is not None:  # Gemma 4
        heads, head_dim = (
            config.get("num_global_key_value_heads") or _kv_heads(config),
            _need(config, "global_head_dim"),
        )
        return LayerCache(FULL, heads * 2 * head_dim)
    heads, key, value = _shape(config, _kv_heads(config))
    return LayerCache(FULL, heads * (key + value))


def _gated_delta_net(config: Mapping[str, Any]) -> LayerCache:
    """Qwen3-Next's linear attention: a matrix for each head in float32, and the last inputs of a convolution."""
    key_heads, value_heads = _need(config, "linear_num_key_heads"), _need(config, "linear_num_value_heads")
    key, value = _need(config, "linear_key_head_dim"), _need(config, "linear_value_head_dim")
    convolution = (2 * key_heads * key + value_heads * value) * _need(config, "linear_conv_kernel_dim")
    return LayerCache(STATE, 0, state_values=convolution, float32_values=value_heads * key * value)


def _mamba(config: Mapping[str, Any]) -> LayerCache:
    """Nemotron-H's Mamba-2: a matrix for each head in float32, and the last inputs of a convolution."""
    width, state = _need(config, "mamba_num_heads") * _need(config, "mamba_head_dim"), _need(config, "ssm_state_size")
    convolution = (width + 2 * _need(config, "n_groups") * state) * _need(config, "conv_kernel")
    return LayerCache(STATE, 0, state_values=convolution, float32_values=width * state)
