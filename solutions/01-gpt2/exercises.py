"""What the exercises of 01-gpt2 are checked against: transformers' GPT-2, eager attention."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import NewGELUActivation
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention, GPT2Block
from transformers.pytorch_utils import Conv1D

from grader.authoring.drives.generation import (
    STILL_TRAINING,
    generated_after_other_weights,
    generated_despite_config,
)
from grader.authoring.kit import Case, Draw, Exercise, Tolerance, configs, hf, with_mistakes
from grader.authoring.kit.inputs import alike, with_zeros
from grader.authoring.kit.toy import FIXED, reference_generate

from . import drives
from .reference import (
    build_mlp,
    build_model,
    close_args,
    generation_args,
    reference_config,
    repeating_args,
    right_costs,
    right_training,
)

TRACE = "gpt2.model"

# B, T, D, the heads and head_dim are all different numbers, so that no axis passes for another.
SMALL: dict[str, Any] = {
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "vocab_size": 53,
    "n_positions": 16,
    "n_embd": 24,
    "n_head": 3,
    "n_layer": 3,
    "layer_norm_epsilon": 1e-5,
}
OTHER = SMALL | {
    "vocab_size": 37,
    "n_positions": 12,
    "n_embd": 30,
    "n_head": 5,
    "n_layer": 2,
    "n_inner": 44,
    "layer_norm_epsilon": 1e-3,
}


# Sizes that a hidden recording varies, each apart from every other size of its case.
def tokens(draw: Draw) -> int:
    return draw.size("T", 7, 9, 10)


def few_tokens(draw: Draw) -> int:
    return draw.size("T", 5, 6, 9)


def other_tokens(draw: Draw) -> int:
    return draw.size("T", 5, 7, 8)


def many_tokens(draw: Draw) -> int:
    return draw.size("T", 11, 9, 8)


def wide(draw: Draw) -> int:
    return draw.size("D", 40, 36, 44)


def narrow(draw: Draw) -> int:
    return draw.size("D", 24, 20, 28)


def norm_of(dim: Callable[[Draw], int]) -> Callable[[Draw], dict[str, Any]]:
    """LayerNorm's arguments for a size that varies."""
    return lambda draw: {"dim": dim(draw), "eps": 1e-5}


# The hub file has no ``transformer.`` prefix; the head is tied and the course has no dropout modules.
learners_name = hf.without("lm_head", "drop", endings=("transformer",), prefix="transformer.")
attention_sizes = configs.head_sizes("n_embd", "n_head")


def vectors(
    batch: int, length: Callable[[Draw], int], width: int, scale: float = 1.0
) -> Callable[[Draw], list[Tensor]]:
    """Draws x [batch, T, width]."""
    return lambda draw: [draw.normal(batch, length(draw), width, scale=scale)]


def far_from_zero(draw: Draw) -> list[Tensor]:
    return [alike(draw, 2, few_tokens(draw), 24)]


def far_below(draw: Draw) -> list[Tensor]:
    """Large vectors: a head's scores are tens of thousands above or below 0, and its softmax takes one key alone."""
    return [draw.normal(3, few_tokens(draw), 24, scale=150.0)]


LAYER_NORM = Exercise(
    name="gpt2.layer_norm",
    solution="LayerNorm",
    reference=lambda dim, eps: nn.LayerNorm(dim, eps=eps),
    points=5,
    axes="B T D",
    sizes=lambda build: {"D": build["dim"]},
    cases=[
        Case("ordinary inputs", lambda draw: [draw.normal(2, tokens(draw), wide(draw))], norm_of(wide)),
        Case("inputs around 100, no batch axis", lambda draw: [draw.normal(5, 24) + 100], {"dim": 24, "eps": 1e-5}),
        Case(
            "tiny inputs",
            lambda draw: with_zeros(draw.normal(2, few_tokens(draw), narrow(draw), scale=1e-3)),
            norm_of(narrow),
        ),
        Case(
            "tiny inputs, another eps",
            vectors(2, few_tokens, 24, 0.03),
            {"dim": 24, "eps": 1e-3},
        ),
        Case("four axes", lambda draw: [draw.normal(1, 2, few_tokens(draw), 12)], {"dim": 12, "eps": 1e-5}),
        Case("bfloat16", vectors(2, few_tokens, 24), {"dim": 24, "eps": 1e-5}, torch.bfloat16),
    ],
)

# 0.0447 in place of 0.044715, and 0.798 in place of sqrt(2/pi), move a value by 4e-6 and more.
DIGITS = Tolerance(1.5e-6)

GELU = Exercise(
    name="gpt2.gelu",
    solution="GELU",
    reference=NewGELUActivation,
    points=3,
    axes="B T D",
    cases=[
        Case("ordinary inputs", vectors(2, tokens, 24), tolerance=DIGITS),
        Case("large inputs", vectors(3, few_tokens, 20, 4.0)),
        Case("bfloat16", vectors(2, few_tokens, 24), dtype=torch.bfloat16),
    ],
)

CONV1D = Exercise(
    name="gpt2.conv1d",
    solution="Conv1D",
    reference=Conv1D,
    points=4,
    axes="B T nf",
    sizes=lambda build: {"nf": build["nf"], "nx": build["nx"]},
    cases=[
        Case("a rectangular weight", vectors(2, tokens, 24), {"nf": 40, "nx": 24}),
        Case("a square weight", vectors(2, tokens, 24), {"nf": 24, "nx": 24}),
        Case("no batch axis", lambda draw: [draw.normal(5, 20)], {"nf": 18, "nx": 20}),
        Case("bfloat16", vectors(3, few_tokens, 28), {"nf": 40, "nx": 28}, torch.bfloat16),
    ],
)

ATTENTION = Exercise(
    name="gpt2.attention",
    solution="Attention",
    reference=lambda config: GPT2Attention(reference_config(config), layer_idx=0),
    call=hf.call_part,
    points=8,
    axes="B T D",
    sizes=attention_sizes,
    renamed=learners_name,
    parts={"c_attn": "gpt2.conv1d", "c_proj": "gpt2.conv1d"},
    cases=[
        Case("7 tokens, 3 heads of 8", vectors(2, tokens, 24), {"config": SMALL}),
        Case("11 tokens, 5 heads of 6", vectors(1, many_tokens, 30), {"config": OTHER}),
        Case("scores far from 0", far_from_zero, {"config": SMALL}),
        Case("scores of tens of thousands", far_below, {"config": SMALL}),
        Case("bfloat16", vectors(2, tokens, 24), {"config": SMALL}, torch.bfloat16),
    ],
)

MLP = Exercise(
    name="gpt2.mlp",
    solution="MLP",
    reference=build_mlp,
    points=4,
    axes="B T D",
    sizes=configs.sizes("n_embd"),
    renamed=learners_name,
    parts={"c_fc": "gpt2.conv1d", "act": "gpt2.gelu", "c_proj": "gpt2.conv1d"},
    cases=[
        Case("no n_inner in the config", vectors(2, tokens, 24), {"config": SMALL}),
        Case(
            "n_inner is null",
            vectors(2, few_tokens, 24),
            {"config": SMALL | {"n_inner": None}},
        ),
        Case("n_inner is 44", vectors(3, tokens, 30), {"config": OTHER}),
        Case("bfloat16", vectors(2, tokens, 24), {"config": SMALL}, torch.bfloat16),
    ],
)

BLOCK = Exercise(
    name="gpt2.block",
    solution="Block",
    reference=lambda config: GPT2Block(reference_config(config), layer_idx=0),
    call=hf.call_part,
    points=6,
    axes="B T D",
    sizes=attention_sizes,
    renamed=learners_name,
    parts={"ln_1": "gpt2.layer_norm", "attn": "gpt2.attention", "ln_2": "gpt2.layer_norm", "mlp": "gpt2.mlp"},
    without={"OtherValues": "head_dim is then another, and a part that does not read it is wrong there alone"},
    cases=[
        Case("7 tokens", vectors(2, tokens, 24), {"config": SMALL}),
        Case(
            "small inputs, another eps",
            vectors(3, many_tokens, 30, 0.03),
            {"config": OTHER | {"layer_norm_epsilon": 1e-2}},
        ),
        Case("bfloat16", vectors(2, tokens, 24), {"config": SMALL}, torch.bfloat16),
    ],
)

MODEL = Exercise(
    name="gpt2.model",
    solution="GPT2",
    reference=build_model,
    call=hf.logits,
    drive=drives.logits,
    points=6,
    axes="B T vocab_size",
    sizes=lambda build: attention_sizes(build) | {"vocab_size": build["config"]["vocab_size"]},
    renamed=learners_name,
    parts={"h.*": "gpt2.block", "ln_f": "gpt2.layer_norm"},
    without={"OtherValues": "head_dim is then another, and a part that does not read it is wrong there alone"},
    # Large eps: ln_f reads a stream of variance 4 to 19, where 1e-3 in place of 1e-5 hardly shows.
    cases=[
        Case(
            "7 tokens",
            lambda draw: [draw.tokens(53, 2, tokens(draw))],
            {"config": SMALL | {"layer_norm_epsilon": 0.05}},
        ),
        Case(
            "as many tokens as positions",
            lambda draw: [draw.tokens(37, 2, 9)],
            {"config": OTHER | {"n_positions": 9, "n_inner": 40, "layer_norm_epsilon": 0.05}},
            draw="2",
        ),
        Case(
            "other sizes, another eps",
            lambda draw: [draw.tokens(37, 3, other_tokens(draw))],
            {"config": OTHER | {"layer_norm_epsilon": 0.02}},
        ),
        Case(
            "n_positions and vocab_size in its config",
            lambda draw: [draw.tokens(37, 1, 3)],
            {"config": OTHER | {"layer_norm_epsilon": 0.02}},
            drive=drives.config_kept,
            right=drives.config_kept,
        ),
    ],
)

GENERATE = Exercise(
    name="gpt2.generate",
    solution="generate",
    reference=reference_generate,
    drive=drives.written,
    function=True,
    points=6,
    fixed=FIXED,
    cases=[
        Case("8 new tokens", generation_args(prompt=4, new_tokens=8, n_positions=16)),
        Case("a prompt longer than n_positions", generation_args(11, new_tokens=5, n_positions=8, vocab_size=47)),
        Case("past n_positions", generation_args(prompt=6, new_tokens=21, n_positions=8)),
        Case("stops at the end token", generation_args(5, 8, 16, ends=lambda token, prompt: token not in prompt)),
        Case("the end token is in the prompt", generation_args(5, 8, 16, ends=lambda token, prompt: token in prompt)),
        Case("the end token is 0", generation_args(5, 8, 16, ends=lambda token, prompt: token == 0)),
        Case(
            "an end token in the config, and none given",
            generation_args(5, 8, 16, ends=lambda token, prompt: True),
            drive=generated_despite_config,
            right=lambda toy, ids, new_tokens, end: reference_generate(toy, ids, new_tokens),
        ),
        Case(
            "which of the tokens are Python ints (1: yes)",
            generation_args(prompt=4, new_tokens=6, n_positions=16),
            drive=drives.ints_written,
            right=lambda toy, ids, new_tokens: [1] * new_tokens,
        ),
        Case("a model in training mode is left in it (1: yes)", generation_args(5, 4, 16), **STILL_TRAINING),
        Case("the same token 20 times", repeating_args(prompt=5, new_tokens=20, n_positions=32)),
        Case("two tokens that are nearly as likely", close_args(prompt=5, new_tokens=6, n_positions=16)),
        Case(
            "two texts in turns, with the same model",
            generation_args(prompt=6, new_tokens=7, n_positions=16),
            drive=drives.written_in_turns,
        ),
        Case(
            "after the same text, when the model had other weights",
            generation_args(prompt=5, new_tokens=7, n_positions=16),
            drive=generated_after_other_weights,
        ),
    ],
)


def step_case(
    name: str,
    sizes: tuple[int, int],
    shape: tuple[int, int, int],
    optimizer: str,
    options: dict[str, Any],
    *left: Any,
    **more: Any,
) -> Case:
    """A case of training. sizes: vocabulary and width; shape: steps, rows and tokens that the model reads. scale: how
    large the weights are."""
    scale = more.pop("scale", 1.0)

    def draw_args(draw: Draw) -> Sequence[Any]:
        (V, D), (steps, B, T) = sizes, shape
        B, T = draw.size("B", B, B + 1), draw.size("T", T, T + 1)
        rows = draw.tokens(V, steps, B, T + 1)
        if "equal" in name:
            rows[:, -1] = rows[:, 0]
        return [scale * draw.normal(V, D), draw.normal(T, D), rows, optimizer, options, *left]

    return Case(name, draw_args, **more)


KEPT = {"drive": drives.kept_in_memory, "right": lambda *args: [1, 1, 1]}
TRAIN_STEP = Exercise(
    name="gpt2.train_step",
    solution="train_step",
    reference=right_training,
    function=True,
    differentiable=False,
    drive=drives.trained,
    points=5,
    cases=[
        step_case("two steps of SGD", (7, 3), (2, 3, 5), "SGD", {"lr": 0.5}, 0.0),
        step_case("gradients are left from before, two rows are equal", (6, 4), (1, 5, 4), "SGD", {"lr": 0.2}, 0.75),
        step_case("three steps of AdamW", (5, 4), (3, 4, 3), "AdamW", {"lr": 0.03, "weight_decay": 0.1}, -0.5),
        step_case("a loss above 15", (8, 6), (1, 3, 6), "SGD", {"lr": 0.01}, 0.25, scale=6.0),
        step_case(
            "a Python float comes back; the model is in training mode, in the step and after it (1: yes)",
            (4, 2),
            (2, 1, 6),
            "AdamW",
            {"lr": 0.01},
            **KEPT,
        ),
    ],
)


def head_case(
    name: str, shape: tuple[int, int], sizes: tuple[int, int, int, int], asked: list[list[int]], **more: Any
) -> Case:
    """A case of what heads cost. shape: of ids; sizes: vocabulary, heads, head_dim, layers; asked: layers and heads."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        V, heads, width, L = sizes
        D, B, T = heads * width, draw.size("B", shape[0], shape[0] + 1), draw.size("T", shape[1], shape[1] + 1)
        tables = [0.7 * draw.normal(V, D), 0.7 * draw.normal(T, D)]
        attn = [1.5 * draw.normal(L, D, 3 * D) * D**-0.5, 0.5 * draw.normal(L, 3 * D)]
        proj = [draw.normal(L, D, D) * D**-0.5, 0.5 * draw.normal(L, D)]
        return [draw.tokens(V, B, T), heads, asked, [*tables, *attn, *proj]]

    return Case(name, draw_args, **more)


COST_OF_HEAD = Exercise(
    name="gpt2.cost_of_head",
    solution="cost_of_head",
    reference=right_costs,
    function=True,
    differentiable=False,
    drive=drives.costs_of_heads,
    without={"OtherValues": "the heads are as many as those that the case names"},
    points=5,
    axes="head",
    cases=[
        head_case("3 texts, three heads", (3, 7), (11, 3, 4, 2), [[0, 1], [1, 2], [0, 0]], tolerance=Tolerance(1e-3)),
        head_case("the same head twice", (2, 6), (9, 2, 5, 3), [[2, 0], [2, 0], [1, 1]], tolerance=Tolerance(1e-3)),
        head_case("texts of two tokens", (5, 2), (7, 5, 2, 1), [[0, 2], [0, 4]], tolerance=Tolerance(1e-3)),
        head_case(
            "what of the model is another afterwards: numbers, parameters, gradients, modules in training mode, hooks",
            (2, 6),
            (8, 3, 2, 2),
            [[1, 1], [0, 2]],
            drive=drives.what_changed,
            right=lambda *args: [0, 0, 0, 0, 0],
        ),
    ],
)

EXERCISES = with_mistakes(
    __file__, [LAYER_NORM, GELU, CONV1D, ATTENTION, MLP, BLOCK, MODEL, GENERATE, TRAIN_STEP, COST_OF_HEAD]
)
