"""Which architecture a seed stands for: choices on axes, from a known model or from nothing, and its config."""

import random
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from grader.package import package_folder

# On each axis what can be chosen, the usual choice first.
AXES: dict[str, tuple[str, ...]] = {
    "norm": ("rms", "zero-centered", "layer", "layer with bias"),
    "places": ("pre", "post", "both"),
    "attention": ("grouped", "latent"),
    "mixers": ("full", "sliding", "linear", "linear and sliding"),
    "qk norm": ("none", "head", "all heads", "head, after RoPE"),
    "bias": ("no", "yes"),
    "gate": ("no", "yes"),
    "sinks": ("no", "yes"),
    "score cap": ("no", "yes"),
    "scale": ("usual", "given"),
    "pairs": ("halves", "neighbours"),
    "share": ("whole", "part"),
    "scaling": ("none", "linear", "yarn"),
    "unrotated": ("none", "some"),
    "sliding base": ("same", "own"),
    "mlp": ("silu", "gelu tanh", "gelu", "gelu, not gated", "relu2, not gated"),
    "mlp bias": ("no", "yes"),
    "experts": ("none", "softmax", "softmax, renormed", "sigmoid", "sigmoid and bias", "groups"),
    "shared": ("no", "yes"),
    "dense first": ("no", "yes"),
    "residual": ("1", "given"),
    "embedding": ("1", "given"),
    "logits": ("1", "divided", "capped"),
    "head": ("own", "tied"),
}
USUAL = {axis: choices[0] for axis, choices in AXES.items()}
Choices = dict[str, str]
# Models that the course builds, in these words.
KNOWN: dict[str, Mapping[str, str]] = {
    "Llama 3": {},
    "Qwen3": {"qk norm": "head"},
    "Qwen3-MoE": {"qk norm": "head", "experts": "softmax, renormed"},
    "Gemma 3": {"norm": "zero-centered", "places": "both", "mixers": "sliding", "qk norm": "head", "scale": "given",
                "sliding base": "own", "mlp": "gelu tanh", "embedding": "given", "head": "tied"},
    "OLMo 3": {"places": "post", "mixers": "sliding", "qk norm": "all heads", "scaling": "yarn"},
    "DeepSeek-V3": {"attention": "latent", "pairs": "neighbours", "experts": "groups", "shared": "yes",
                    "dense first": "yes"},
    "Qwen3.5": {"norm": "zero-centered", "mixers": "linear", "qk norm": "head", "gate": "yes", "share": "part"},
    "SmolLM3": {"unrotated": "some", "head": "tied"},
}  # fmt: skip
CHANGES = {1: 2, 2: 5}  # how many axes of a level differ from a known model; on level 3 every axis is drawn
LEVELS = (1, 2, 3)
USUAL_SHARE = 0.5  # how often on level 3 an axis has its usual choice without a draw


@dataclass(frozen=True)
class Drawn:
    """An architecture. base: the known model that it starts from, "" on level 3. changed: the axes that differ."""

    seed: int
    level: int
    base: str
    choices: Choices
    changed: tuple[str, ...]
    config: dict[str, Any]

    @property
    def name(self) -> str:
        return f"capstone of seed {self.seed}, level {self.level}"


def known(name: str) -> Choices:
    """A known model's choice on every axis."""
    return {**USUAL, **KNOWN[name]}


def attempts(seed: int, level: int) -> Iterator[Drawn]:
    """Architectures of a seed, one after the other: the first that shows all it has is the seed's."""
    number = 0
    while True:
        random_ = random.Random(f"capstone {seed} {level} {number}")
        base = random_.choice(sorted(KNOWN)) if level in CHANGES else ""
        choices = _changed(known(base), CHANGES[level], random_) if base else _all_drawn(random_)
        if is_consistent(choices) and is_nowhere(choices):
            changed = tuple(axis for axis in AXES if base and choices[axis] != known(base)[axis])
            yield Drawn(seed, level, base, choices, changed, config_of(choices, random_))
        number += 1


def _changed(choices: Choices, count: int, random_: random.Random) -> Choices:
    return choices | {
        axis: random_.choice([choice for choice in AXES[axis] if choice != choices[axis]])
        for axis in random_.sample(sorted(AXES), count)
    }


def _all_drawn(random_: random.Random) -> Choices:
    usual = {axis: random_.random() < USUAL_SHARE for axis in AXES}
    return {axis: choices[0] if usual[axis] else random_.choice(choices) for axis, choices in AXES.items()}


def is_consistent(choices: Mapping[str, str]) -> bool:
    """Whether each choice has something to act on."""
    latent, sparse = choices["attention"] == "latent", choices["experts"] != "none"
    slides = "sliding" in choices["mixers"]
    needs_grouped = (choices["qk norm"], choices["gate"], choices["share"]) != ("none", "no", "whole")
    return (
        not (latent and needs_grouped)
        and (slides or choices["sliding base"] == "same")
        and not (choices["unrotated"] == "some" and "linear" in choices["mixers"])
        and (sparse or (choices["shared"], choices["dense first"]) == ("no", "no"))
        and not (sparse and choices["mlp bias"] == "yes" and choices["shared"] == choices["dense first"] == "no")
    )


def is_nowhere(choices: Mapping[str, str]) -> bool:
    """Whether no family of transformers may have all of an architecture's choices, as far as sources tell."""
    found = None
    for axis, choice in choices.items():
        names = _families().get(axis, {}).get(choice)
        if names is not None:
            found = names if found is None else found & names
    return found is not None and not found


@cache
def _families() -> dict[str, dict[str, frozenset[str]]]:
    """The families that may have a choice, where that is not every family."""
    table = tomllib.loads((package_folder() / "capstone" / "families.toml").read_text("utf-8"))
    axes = {axis: choices for axis, choices in table.items() if axis in AXES}
    return {axis: {choice: frozenset(names.split()) for choice, names in of.items()} for axis, of in axes.items()}


# The config


def config_of(choices: Mapping[str, str], random_: random.Random) -> dict[str, Any]:
    """The config.json of an architecture: its fields, with small sizes that differ from each other where they can."""
    layers = random_.choice((4, 5))
    heads, kv_heads = random_.choice(((4, 2), (6, 2), (6, 3), (8, 2)))
    fields: dict[str, Any] = {
        "vocab_size": random_.choice((89, 97, 101, 103)),
        "hidden_size": random_.choice((40, 48, 56, 64)),
        "num_hidden_layers": layers,
        "layer_types": _kinds(choices["mixers"], layers, random_),
        **_norms(choices, random_),
        "num_attention_heads": heads,
        **(_latent(random_) if choices["attention"] == "latent" else _grouped(choices, kv_heads, random_)),
        **_shared_by_both(choices, random_),
        **_rope(choices, layers, random_),
        **_linear(choices, random_),
        **_mlp(choices, random_),
        **_scales(choices, random_),
        "tie_word_embeddings": choices["head"] == "tied",
    }
    return fields


def _kinds(mixers: str, layers: int, random_: random.Random) -> list[str]:
    if mixers == "full":
        return ["full_attention"] * layers
    if mixers == "linear and sliding":
        kinds = ["linear_attention", "sliding_attention", "full_attention"]
        kinds += random_.choices(kinds[1:], k=layers - 3)
    else:  # a linear layer makes rounding larger, so there are no more than two
        other = f"{mixers}_attention"
        kinds = [other, other, "full_attention", *random_.choices(("full_attention", other), k=layers - 3)]
        kinds = kinds if mixers == "sliding" else [other, other, *["full_attention"] * (layers - 2)]
    random_.shuffle(kinds)
    return kinds


def _norms(choices: Mapping[str, str], random_: random.Random) -> dict[str, Any]:
    eps = random_.choice((1e-6, 1e-5, 3e-5, 1e-4))
    layer = choices["norm"].startswith("layer")
    return {
        "norm_type": "layer_norm" if layer else "rms_norm",
        "zero_centered_norm": choices["norm"] == "zero-centered",
        **({"layer_norm_bias": choices["norm"] == "layer with bias", "layer_norm_eps": eps} if layer else {}),
        **({} if layer else {"rms_norm_eps": eps}),
        "norm_placement": choices["places"],
    }


def _grouped(choices: Mapping[str, str], kv_heads: int, random_: random.Random) -> dict[str, Any]:
    over = choices["qk norm"]
    fields: dict[str, Any] = {
        "num_key_value_heads": kv_heads,
        "head_dim": random_.choice((16, 20, 24)),
        "use_qk_norm": over != "none",
    }
    if over != "none":
        fields["qk_norm_over"] = "all_heads" if over == "all heads" else "head"
        fields["qk_norm_after_rope"] = over == "head, after RoPE"
    if choices["gate"] == "yes":
        fields["attn_output_gate"] = True
    if choices["share"] == "part":
        fields["partial_rotary_factor"] = random_.choice((0.25, 0.5, 0.75) if fields["head_dim"] != 20 else (0.4, 0.6))
    return fields


def _latent(random_: random.Random) -> dict[str, Any]:
    return {
        "q_lora_rank": random_.choice((None, 18, 22)),
        "kv_lora_rank": random_.choice((12, 14, 16)),
        "qk_nope_head_dim": random_.choice((10, 12, 14)),
        "qk_rope_head_dim": random_.choice((6, 8)),
        "v_head_dim": random_.choice((9, 11, 13)),
    }


def _shared_by_both(choices: Mapping[str, str], random_: random.Random) -> dict[str, Any]:
    fields: dict[str, Any] = {"attention_bias": choices["bias"] == "yes"}
    if "sliding" in choices["mixers"]:
        fields["sliding_window"] = random_.choice((3, 4, 5))
    if choices["sinks"] == "yes":
        fields["attention_sinks"] = True
    if choices["score cap"] == "yes":
        fields["attn_logit_softcapping"] = random_.choice((1.5, 2.0, 3.0))
    if choices["scale"] == "given":
        fields["query_pre_attn_scalar"] = random_.choice((7, 11, 13, 30))
    return fields


def _rope(choices: Mapping[str, str], layers: int, random_: random.Random) -> dict[str, Any]:
    fields: dict[str, Any] = {"rope_theta": random_.choice((500.0, 1000.0, 5000.0, 10000.0))}
    if choices["sliding base"] == "own":
        fields["rope_local_base_freq"] = random_.choice((20.0, 50.0, 100.0))
    fields["rope_interleave"] = choices["pairs"] == "neighbours"
    if choices["scaling"] == "linear":
        fields["rope_scaling"] = {"rope_type": "linear", "factor": random_.choice((2.0, 4.0, 8.0))}
    if choices["scaling"] == "yarn":
        fields["rope_scaling"] = {
            "rope_type": "yarn",
            "factor": random_.choice((2.0, 4.0, 8.0)),
            "original_max_position_embeddings": random_.choice((100, 150, 200)),
            "beta_fast": random_.choice((6.0, 8.0, 10.0)),
            "beta_slow": random_.choice((0.5, 1.0, 1.5)),
            "truncate": random_.choice((True, False)),
            "attention_factor": random_.choice((0.8, 1.2, 1.4)),
        }
    if choices["unrotated"] == "some":
        rotated = [0, 1, *random_.choices((0, 1, 1), k=layers - 2)]
        random_.shuffle(rotated)
        fields["no_rope_layers"] = rotated
    return fields


def _linear(choices: Mapping[str, str], random_: random.Random) -> dict[str, Any]:
    if "linear" not in choices["mixers"]:
        return {}
    k_heads, v_heads = random_.choice(((2, 4), (3, 6), (2, 6)))
    return {
        "linear_num_key_heads": k_heads,
        "linear_num_value_heads": v_heads,
        "linear_key_head_dim": random_.choice((6, 8, 10)),
        "linear_value_head_dim": random_.choice((7, 9, 12)),
        "linear_conv_kernel_dim": random_.choice((3, 4)),
    }


def _mlp(choices: Mapping[str, str], random_: random.Random) -> dict[str, Any]:
    act, _, plain = choices["mlp"].partition(", ")
    experts = choices["experts"]
    fields: dict[str, Any] = {"gated_mlp": not plain}
    fields["hidden_act"] = {"gelu tanh": "gelu_pytorch_tanh"}.get(act, act)
    first = random_.choice((1, 2)) if choices["dense first"] == "yes" else 0
    dense, shared = experts == "none" or first, choices["shared"] == "yes"
    if dense:
        fields["intermediate_size"] = random_.choice((68, 76, 84))
    if dense or shared:
        fields["mlp_bias"] = choices["mlp bias"] == "yes"
    if experts == "none":
        return fields
    fields |= {
        "num_experts": 6 if experts == "groups" else random_.choice((5, 6)),
        "num_experts_per_tok": random_.choice((2, 3)),
        "moe_intermediate_size": random_.choice((20, 26, 30)),
        "scoring_func": "softmax" if experts.startswith("softmax") else "sigmoid",
        "norm_topk_prob": experts not in ("softmax", "sigmoid"),
    }
    if fields["scoring_func"] == "sigmoid":
        fields["routed_scaling_factor"] = random_.choice((0.7, 1.5, 2.5))
    if experts in ("sigmoid and bias", "groups"):
        fields["use_expert_bias"] = True
    if experts == "groups":
        fields |= {"n_group": 3, "topk_group": 2}
    if shared:
        fields["n_shared_experts"] = random_.choice((1, 2))
    if first:
        fields["first_k_dense_replace"] = first
    return fields


def _scales(choices: Mapping[str, str], random_: random.Random) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if choices["residual"] == "given":
        fields["residual_multiplier"] = random_.choice((0.4, 0.6, 1.4))
    if choices["embedding"] == "given":
        fields["embedding_multiplier"] = random_.choice((3.0, 6.0, 8.0))
    if choices["logits"] == "divided":
        fields["logits_scaling"] = random_.choice((2.0, 5.0, 8.0))
    if choices["logits"] == "capped":
        fields["final_logit_softcapping"] = random_.choice((1.5, 2.5, 4.0))
    return fields
