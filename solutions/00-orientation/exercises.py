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
    return [Config(draw.changed(config, vocab_size=(103, 997), n_layer=(2, 40)))]


def published(title: str, name: str) -> Case:
    """A case on the config of a published model."""
    return Case(title, partial(given, configs.published(__file__, name)))


# No two sizes are equal, so that none can stand in for another.
SMALL = {"model_type": "gpt2", "vocab_size": 101, "n_positions": 37, "n_embd": 24, "n_head": 4, "n_layer": 3}


def made_up(title: str, **fields: Any) -> Case:
    """A case on a small config with these fields."""
    return Case(title, partial(given, SMALL | fields))


parameter_count = Exercise(
    name="orientation.parameter_count",
    solution="parameter_count",
    reference=reference_count,
    function=True,
    points=8,
    fixed={"argument 1.layer_norm_epsilon": "no parameter depends on it"},
    cases=[
        published("GPT-2 124M", "gpt2"),
        published("GPT-2 XL", "gpt2-xl"),
        made_up("no two sizes are equal"),
        made_up("n_inner is 52", n_inner=52),
        made_up("n_inner is null", n_inner=None, n_embd=28, n_positions=41),
        made_up("the head is not tied", tie_word_embeddings=False, n_embd=20, n_head=5),
        made_up("the config says that the head is tied", tie_word_embeddings=True, n_inner=44, n_positions=29),
        made_up("an MLP and a head of its own", n_inner=62, tie_word_embeddings=False, n_layer=5),
    ],
)

EXERCISES = with_mistakes(__file__, [linear, parameter_count])
