"""Finds the family that a config belongs to, and says so where it is only the nearest."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grader.atlas.fields import Fields, classes
from grader.atlas.traits import Traits, family_names, traits_of
from grader.errors import GraderError

TEXT_PARTS = ("text_config", "llm_config", "language_config")
# Fields that no family read here has: a relative would be a guess.
STRANGE = (
    *("cross_attention_layers", "rwkv_version", "lru_width", "xlstm", "block_types", "vision_config", "d_kv"),
    *("image_size", "patch_size", "num_mel_bins", "type_vocab_size"),
)
# What a causal language model's class is called, where the file names one.
CAUSAL = ("CausalLM", "LMHead", "ConditionalGeneration")
# What a file of a family that is not known has to say itself: its relative's defaults would be a guess.
SAID = ("vocab_size", "num_hidden_layers", "num_attention_heads")


@dataclass(frozen=True)
class Family:
    """fields: the language model's own, over its class's defaults. remark: why another family's class is asked.

    guessed: whether it is only the nearest family, which nobody has compared with the model's own code.
    """

    model_type: str
    fields: Fields
    traits: Traits
    remark: str
    guessed: bool = False


def family_of(config: Mapping[str, Any]) -> Family:
    """The family of a config. Raises GraderError for what has no near relative, or is no language model."""
    if not isinstance(config, Mapping):
        raise GraderError(f"a config.json is one object, and this is a {type(config).__name__}.")
    own, kind = text_part(config)
    if own.get("is_encoder_decoder"):
        raise GraderError(f"a {kind or 'this'} model is an encoder and a decoder; decoders alone are read here.")
    if is_known(kind):
        lines = traits_of(kind)
        read_as = lines.hub_only or kind
        remark = f"transformers reads {kind} files with its {read_as} class." if lines.hub_only else ""
        return Family(kind, Fields(own, read_as), lines, remark)
    relative = _relative(own, kind)
    fields = Fields(own, relative)
    widths = () if relative == "gpt2" else ("moe_intermediate_size", "intermediate_size")
    missing = [name for name in SAID if not fields.has(name)]
    if widths and not any(fields.has(name) for name in widths):
        missing.append(widths[-1])
    if missing:
        raise GraderError(
            f"the model_type {kind!r} is not known here, and this config leaves out {', '.join(missing)}:"
            f" read as its nearest relative, {relative}, that would be a guess."
        )
    said = f"The model_type {kind!r} is not known here" if kind else "This config has no model_type"
    remark = f"{said}: it is read as if it were {relative}, its nearest relative by the fields that it has."
    return Family(kind or relative, fields, traits_of(relative), remark, guessed=True)


def is_known(kind: str) -> bool:
    """Whether families.toml has lines for this model_type."""
    return kind in family_names()


def text_part(config: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The language model's fields, and its model_type (empty where none is told)."""
    inner = next((config[name] for name in TEXT_PARTS if isinstance(config.get(name), Mapping)), None)
    own = dict(config) if inner is None else {**inner}
    outer = str(config.get("model_type") or "")
    if outer.endswith("_assistant"):
        raise GraderError(f"a {outer} model drafts for another model, whose states it reads: it is not read here.")
    kind = str(own.get("model_type") or outer)
    if not is_known(kind) and is_known(f"{kind}_text"):
        kind = f"{kind}_text"
    if inner is not None and "tie_word_embeddings" in config and "tie_word_embeddings" not in own:
        own["tie_word_embeddings"] = config["tie_word_embeddings"]
    return own, kind


def _relative(own: Mapping[str, Any], kind: str) -> str:
    """The nearest family by the fields that the config has. Raises GraderError where none is near."""
    classes = own.get("architectures")
    if isinstance(classes, list) and classes and not any(word in str(name) for name in classes for word in CAUSAL):
        raise GraderError(f"this config is a {classes[0]}'s, and causal language models are what is read here.")
    for name in STRANGE:
        if own.get(name):
            raise GraderError(f"this config{_of(kind)} has `{name}`, which no architecture that is read here has.")
    if not any(own.get(name) for name in ("hidden_size", "n_embd", "d_model")):
        raise GraderError(
            f"this config{_of(kind)} has none of `hidden_size`, `n_embd` and `d_model`, so it is not clear"
            " what it describes. The config.json of a language model, as on its page on the hub, is what is read."
        )
    if own.get("index_topk") and own.get("kv_lora_rank"):
        return "deepseek_v32"
    if own.get("kv_lora_rank"):
        return "deepseek_v3" if own.get("n_routed_experts") else "youtu"
    if any(own.get(name) for name in ("mamba_d_state", "ssm_state_size", "linear_num_key_heads", "conv_L_cache")):
        raise GraderError(f"this config{_of(kind)} has layers with a state, and its model_type is not known here.")
    if own.get("n_embd"):
        return "gpt2"
    if any(own.get(name) for name in ("num_experts", "num_local_experts", "n_routed_experts")):
        return "qwen3_moe"
    return "llama"


def _of(kind: str) -> str:
    return f" of a {kind} model" if kind else ""


def class_name(kind: str) -> str:
    """The name of a family's config class in transformers."""
    return str(classes()[kind]["class"])
