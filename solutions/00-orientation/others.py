"""What tests/lessons/test_every_lesson.py asks of the first lesson: other right programs and random configs."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from grader import Config
from grader.authoring.kit import Case
from grader.authoring.kit.declared import Numbers

MISTAKES = 20
NO_MODEL = "it has no model yet"
WITHOUT = {
    "bfloat16": {"orientation.parameter_count": "it counts whole numbers"},
    "TOLD": "no exercise uses another, and every mistake is named",
    "VARIES": "its sizes stay as they are: weights and inputs are drawn anew",
    "CONFIG_SHA256": "its configs hold no more than the fields that count",
    "SIZES": "counting a model's parameters is an exercise: test_orientation.py",
    **dict.fromkeys(("TRACE", "PLANTED", "HUB", "TRAINED"), NO_MODEL),
    "one policy": "it has fewer mistakes than others, and no composite",
    "RERUNS": "between its two exercises no cell uses what they define",
}


# Random configs


sizes = st.integers(1, 40)
ties = st.sampled_from([{}, {"tie_word_embeddings": True}, {"tie_word_embeddings": False}])


@st.composite
def gpt2_configs(draw: st.DrawFn) -> dict[str, Any]:
    heads = draw(st.integers(1, 4))
    inner = draw(st.sampled_from([{}, {"n_inner": None}, {"n_inner": draw(sizes)}]))
    return {
        "model_type": "gpt2",
        "vocab_size": draw(sizes),
        "n_positions": draw(sizes),
        "n_embd": heads * draw(st.integers(1, 9)),
        "n_head": heads,
        "n_layer": draw(st.integers(1, 3)),
        **inner,  # type: ignore[dict-item]
        **draw(ties),
    }


@st.composite
def newer_configs(draw: st.DrawFn) -> dict[str, Any]:
    family = draw(st.sampled_from(["llama", "qwen3", "gemma3_text"]))
    kv_heads, group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    # transformers' own default for a missing head_dim is hidden / heads for Llama alone.
    head_dim = {"head_dim": 2 * draw(st.integers(1, 8))}
    return {
        "model_type": family,
        "vocab_size": draw(sizes),
        "hidden_size": 2 * kv_heads * group * draw(st.integers(1, 6)),
        "intermediate_size": draw(sizes),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": kv_heads * group,
        "num_key_value_heads": kv_heads,
        **(draw(st.sampled_from([{}, head_dim])) if family == "llama" else head_dim),
        **draw(ties),
    }


# exercise -> a random case of it


def of_count(config: dict[str, Any], n: Numbers) -> Case:
    return Case(str(n.seed), lambda draw: [Config(config)])


def of_linear(config: dict[str, Any], n: Numbers) -> Case:
    """No axis of a batch, one, or two."""
    build = {"in_features": n.seed % 40 + 1, "out_features": n.seed // 40 % 40 + 1}
    shape = (*(n.batch, n.length)[: n.seed % 3], build["in_features"])
    return Case(str(n.seed), lambda draw: [draw.normal(*shape, scale=n.scale)], build)


CONFIGS = st.one_of(gpt2_configs(), newer_configs())
RANDOM = {"orientation.linear": of_linear, "orientation.parameter_count": of_count}


# Other right programs


def by_shapes(config: Mapping[str, Any]) -> int:
    """Writes down the shapes, as the checkpoint has them, and multiplies."""
    family = config["model_type"]
    if family == "gpt2":
        D, F_ = config["n_embd"], config.get("n_inner") or 4 * config["n_embd"]
        layer = [(D,)] * 4 + [(D, 3 * D), (3 * D,), (D, D), (D,), (D, F_), (F_,), (F_, D), (D,)]
        outside = [(config["vocab_size"], D), (config["n_positions"], D), (D,), (D,)]
        layers = config["n_layer"]
    else:
        D, F_, H = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
        hd = config.get("head_dim", D // H)
        KV = config["num_key_value_heads"]
        layer = [(H * hd, D), (KV * hd, D), (KV * hd, D), (D, H * hd), (F_, D), (F_, D), (D, F_), (D,), (D,)]
        layer += [] if family == "llama" else [(hd,), (hd,)]
        layer += [(D,), (D,)] if family == "gemma3_text" else []
        outside = [(config["vocab_size"], D), (D,)]
        layers = config["num_hidden_layers"]
    if not config.get("tie_word_embeddings", family in ("gpt2", "gemma3_text")):
        outside.append((config["vocab_size"], D))
    return sum(torch.Size(shape).numel() for shape in outside + layer * layers)


class Parameters(nn.Module):
    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))


class Fused(Parameters):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class Einsum(Parameters):
    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("...i,ji->...j", x, self.weight) + self.bias


class RowByRow(Parameters):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([(x * row).sum(-1) for row in self.weight], dim=-1) + self.bias


RIGHT = {
    "orientation.linear": [Fused, Einsum, RowByRow, nn.Linear],
    "orientation.parameter_count": [by_shapes],
}


# A program that is right only by chance


class OfThreeAxes(Parameters):
    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bti,ji->btj", x, self.weight) + self.bias


BY_CHANCE = {"orientation.linear": [OfThreeAxes]}
