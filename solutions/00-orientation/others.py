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

MISTAKES = 40
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


# exercise -> a random case of it


def of_count(config: dict[str, Any], n: Numbers) -> Case:
    return Case(str(n.seed), lambda draw: [Config(config)])


def of_linear(config: dict[str, Any], n: Numbers) -> Case:
    """No axis of a batch, one, or two."""
    build = {"in_features": n.seed % 40 + 1, "out_features": n.seed // 40 % 40 + 1}
    shape = (*(n.batch, n.length)[: n.seed % 3], build["in_features"])
    return Case(str(n.seed), lambda draw: [draw.normal(*shape, scale=n.scale)], build)


CONFIGS = gpt2_configs()
RANDOM = {"orientation.linear": of_linear, "orientation.parameter_count": of_count}


# Other right programs


def by_shapes(config: Mapping[str, Any]) -> int:
    """Writes down the shapes, as the checkpoint has them, and multiplies."""
    D, F_ = config["n_embd"], config.get("n_inner") or 4 * config["n_embd"]
    layer = [(D,)] * 4 + [(D, 3 * D), (3 * D,), (D, D), (D,), (D, F_), (F_,), (F_, D), (D,)]
    outside = [(config["vocab_size"], D), (config["n_positions"], D), (D,), (D,)]
    if not config.get("tie_word_embeddings", True):
        outside.append((config["vocab_size"], D))
    return sum(torch.Size(shape).numel() for shape in outside + layer * config["n_layer"])


def by_modules(config: Mapping[str, Any]) -> int:
    """Makes the modules without their numbers, and counts what they hold."""
    D, layers, V = config["n_embd"], config["n_layer"], config["vocab_size"]
    F_ = D * 4 if config.get("n_inner") is None else config["n_inner"]
    with torch.device("meta"):
        parts: list[nn.Module] = [nn.Embedding(V, D), nn.Embedding(config["n_positions"], D), nn.LayerNorm(D)]
        for _ in range(layers):
            parts += [nn.LayerNorm(D), nn.LayerNorm(D), nn.Linear(D, 3 * D), nn.Linear(D, D)]
            parts += [nn.Linear(D, F_), nn.Linear(F_, D)]
        if config.get("tie_word_embeddings") is False:
            parts.append(nn.Linear(D, V, bias=False))
    return sum(p.numel() for part in parts for p in part.parameters())


def by_polynomial(config: Mapping[str, Any]) -> int:
    """One polynomial in the width."""
    D, F_ = config["n_embd"], config.get("n_inner") or 4 * config["n_embd"]
    tables = config["n_positions"] + config["vocab_size"] * (1 if config.get("tie_word_embeddings", True) else 2)
    return int(D * (tables + 2) + config["n_layer"] * (4 * D * D + 9 * D + F_ * (2 * D + 1)))


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
    "orientation.parameter_count": [by_shapes, by_modules, by_polynomial],
}


# Programs that are right only by chance


class OfThreeAxes(Parameters):
    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bti,ji->btj", x, self.weight) + self.bias


def of_published_models(config: Mapping[str, Any]) -> int:
    """Right for all four GPT-2s that were published."""
    return by_polynomial({key: config[key] for key in ("n_embd", "n_layer", "n_positions", "vocab_size")})


BY_CHANCE = {"orientation.linear": [OfThreeAxes], "orientation.parameter_count": [of_published_models]}
