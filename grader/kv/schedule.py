"""What each layer of a model is, told from its config."""

from collections.abc import Mapping, Sequence
from typing import Any

from grader.errors import GraderError
from grader.kv import compressed
from grader.kv.fields import MOST_LAYERS, OLDER_WORDS, TWO_ATTENTIONS, needed, number


def layer_types(config: Mapping[str, Any]) -> Sequence[str]:
    """What each layer is, in transformers' words; a layer with two attentions stands for two."""
    kinds = _layer_types(config)
    return [kind for kind in kinds for _ in range(2)] if config.get("model_type") in TWO_ATTENTIONS else kinds


def _layer_types(config: Mapping[str, Any]) -> Sequence[str]:
    for name in ("layer_types", "layers_block_type"):
        if config.get(name) is not None:
            if not isinstance(config[name], list):
                raise GraderError(f"`{name}` is {config[name]!r} in this config, and should be a list.")
            return [OLDER_WORDS.get(str(kind), str(kind)) for kind in config[name]]
    if config.get("hybrid_override_pattern") is not None:  # Nemotron-H: M a Mamba, * attention, the rest keep nothing
        words = {"M": "linear_attention", "*": "full_attention"}
        return [words.get(c, "mlp") for c in str(config["hybrid_override_pattern"])]
    count = needed(config, "num_hidden_layers", "n_layer", "num_layers")
    if config.get("model_type") in TWO_ATTENTIONS and config.get("num_hidden_layers") is not None:
        count //= 2
    if count > MOST_LAYERS:
        raise GraderError(f"this config has {count:,} layers; is `num_hidden_layers` right?")
    if config.get("model_type") == compressed.FAMILY:
        ratios = config.get("compress_ratios")
        return compressed.kinds_of(ratios, count) if ratios else compressed.kinds_by_rule(count)
    if config.get("model_type") == "gpt_neo":
        return _gpt_neo(config.get("attention_types"), count)
    if config.get("model_type") == "cwm":
        return ["sliding_attention" if i % 4 else "full_attention" for i in range(count)]
    if config.get("model_type") == "mellum":
        return ["full_attention"] * count
    if config.get("model_type") == "mimo_v2_flash":
        return ["full_attention", *_every(6, count, "sliding_attention")[1:]]
    if config.get("model_type") == "kimi_linear":
        return ["full_attention" if i and i % 4 == 0 else "linear_attention" for i in range(count)]
    if config.get("full_attention_interval") is not None:  # Qwen3-Next and Qwen3.5
        return _every(needed(config, "full_attention_interval"), count, "linear_attention")
    if config.get("attention_chunk_size") is not None and config.get("no_rope_layer_interval") is not None:  # Llama 4
        rotated = config.get("no_rope_layers")
        if not rotated:
            return _every(needed(config, "no_rope_layer_interval"), count, "chunked_attention")
        return ["chunked_attention" if rotates else "full_attention" for rotates in rotated]
    if not config.get("sliding_window") or config.get("use_sliding_window") is False:
        return ["full_attention"] * count
    if config.get("use_sliding_window"):  # Qwen2, Qwen2.5, Qwen3: the lower layers see everything
        first = number(config, "max_window_layers")
        return ["full_attention" if i < first else "sliding_attention" for i in range(count)]
    pattern = config.get("sliding_window_pattern")
    if isinstance(pattern, str) and pattern:  # EXAONE 4: "LLLG", and the last layer sees everything
        types = ["full_attention" if pattern[i % len(pattern)] == "G" else "sliding_attention" for i in range(count)]
        return [*types[:-1], "full_attention"]
    return _every(number(config, "sliding_window_pattern"), count, "sliding_attention")


def _gpt_neo(types: Any, count: int) -> list[str]:
    """The kinds of `count` layers by ``[[["global", "local"], 12]]``: kinds that take turns, and how often."""
    words, found = {"global": "full_attention", "local": "sliding_attention"}, []
    for kinds, times in types or [[["global", "local"], count]]:
        if strange := [kind for kind in kinds if kind not in words]:
            raise GraderError(f"`attention_types` has {strange[0]!r}, which is neither global nor local.")
        found += [words[kind] for kind in kinds] * min(times, count)
    if types and len(found) < count:
        raise GraderError(f"`attention_types` speaks of {len(found)} layers, and the model has {count}.")
    return found[:count]


def _every(interval: int, count: int, other: str) -> list[str]:
    """Every interval-th layer full, the rest of another kind; 0: all of that."""
    return ["full_attention" if interval and (i + 1) % interval == 0 else other for i in range(count)]
