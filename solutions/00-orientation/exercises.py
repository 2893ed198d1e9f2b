"""What the exercises of 00-orientation are checked against."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from grader.authoring.kit import Case, Config, Draw, Exercise, configs, with_mistakes

from .reference import reference_count


def vectors(*shape: int) -> Any:
    """Draws one tensor of standard normal values."""

    def draw_vectors(draw: Draw) -> list[Tensor]:
        return [draw.normal(*shape)]

    return draw_vectors


def sizes(in_features: int, out_features: int) -> dict[str, int]:
    """The build arguments of a Linear."""
    return {"in_features": in_features, "out_features": out_features}


linear = Exercise(
    name="orientation.linear",
    solution="Linear",
    reference=nn.Linear,
    points=5,
    sizes=lambda build: build,
    cases=[
        Case("as many outputs as inputs", vectors(2, 5, 8), sizes(8, 8)),
        Case("more outputs than inputs", vectors(2, 5, 6), sizes(6, 10)),
        Case("fewer outputs than inputs", vectors(7, 9), sizes(9, 4)),
        Case("one vector, without a batch", vectors(6), sizes(6, 10)),
        Case("bfloat16", vectors(3, 8), sizes(8, 8), dtype=torch.bfloat16),
    ],
)


def given(config: Mapping[str, Any], draw: Draw) -> Sequence[Config]:
    """The arguments of a case: the config; in a hidden recording with another vocabulary and other layers."""
    layers = "n_layer" if "n_layer" in config else "num_hidden_layers"
    return [Config(draw.changed(config, vocab_size=(103, 997), **{layers: (2, 40)}))]


def published(title: str, name: str) -> Case:
    """A case on the config of a published model."""
    return Case(title, partial(given, configs.published(__file__, name)))


def made_up(title: str, **config: Any) -> Case:
    """A case on a small config in which no two sizes are equal, so that none can stand in for another."""
    return Case(title, partial(given, config))


SMALL = {
    "vocab_size": 101,
    "hidden_size": 24,
    "intermediate_size": 52,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
}

parameter_count = Exercise(
    name="orientation.parameter_count",
    solution="parameter_count",
    reference=reference_count,
    function=True,
    points=11,
    fixed={"argument 1.layer_norm_epsilon": "no parameter depends on it"},
    cases=[
        published("GPT-2 124M", "gpt2"),
        published("GPT-2 XL", "gpt2-xl"),
        made_up(
            "a GPT-2 with an MLP and a head of its own",
            model_type="gpt2",
            vocab_size=101,
            n_positions=37,
            n_embd=24,
            n_head=4,
            n_layer=3,
            n_inner=52,
            tie_word_embeddings=False,
        ),
        published("SmolLM2 135M", "smollm2-135m"),
        published("Llama 3 8B", "llama-3-8b"),
        made_up(
            "a small Llama with a head_dim of its own",
            model_type="llama",
            head_dim=10,
            tie_word_embeddings=True,
            **SMALL,
        ),
        made_up(
            "the same, but for its KV heads and its MLP",
            model_type="llama",
            head_dim=10,
            tie_word_embeddings=True,
            **SMALL | {"num_key_value_heads": 3, "intermediate_size": 44},
        ),
        published("Qwen3 0.6B", "qwen3-0.6b"),
        published("Qwen3 8B", "qwen3-8b"),
        made_up("a small Qwen3 that does not mention its head", model_type="qwen3", head_dim=10, **SMALL),
        published("Gemma 3 270M", "gemma-3-270m"),
        made_up(
            "a small Gemma 3 with a head of its own",
            model_type="gemma3_text",
            head_dim=10,
            tie_word_embeddings=False,
            **SMALL,
        ),
    ],
)

EXERCISES = with_mistakes(__file__, [linear, parameter_count])
