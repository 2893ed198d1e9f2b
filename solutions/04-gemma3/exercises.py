"""What the exercises of 04-gemma3 are checked against: transformers' Gemma 3, eager attention."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import Gemma3ForCausalLM
from transformers.models.gemma3.modeling_gemma3 import (
    Gemma3Attention,
    Gemma3DecoderLayer,
    Gemma3MLP,
    Gemma3RMSNorm,
    Gemma3RotaryEmbedding,
    Gemma3TextModel,
)

from grader.authoring.kit import (
    ROUNDED_ONCE,
    Case,
    Draw,
    Exercise,
    Tolerance,
    configs,
    hf,
    weights_around_0,
    with_mistakes,
)
from grader.authoring.kit.inputs import alike, steep_weights, with_zeros

from . import drives
from .reference import (
    COUNTED,
    build_embedding,
    counted_rows,
    drawn_rows,
    fine_rows,
    reference_config,
    right_verdicts,
    rotations,
)

TRACE = "gemma3.causal_lm"

SLIDING, FULL = "sliding_attention", "full_attention"

# As the hub's files are written. B, T, D, the heads of both kinds and head_dim are all different numbers, and neither
# head_dim nor query_pre_attn_scalar is D / heads. T is larger than the window.
SMALL: dict[str, Any] = {
    "model_type": "gemma3_text",
    "hidden_activation": "gelu_pytorch_tanh",
    "vocab_size": 53,
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "query_pre_attn_scalar": 7,
    "sliding_window": 4,
    "layer_types": [SLIDING, SLIDING, FULL],
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-3,  # large, so that a forgotten one shows
    "rope_theta": 7000.0,  # no published model's, so that a fixed one shows
    "rope_local_base_freq": 50.0,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
}
# As 270M is: one key and value head; layer_types follow from the number of layers.
ONE_HEAD: dict[str, Any] = {k: v for k, v in SMALL.items() if k != "layer_types"} | {
    "vocab_size": 47,
    "max_position_embeddings": 48,
    "hidden_size": 18,
    "intermediate_size": 28,
    "num_hidden_layers": 7,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "sliding_window": 3,
    "rms_norm_eps": 1e-2,
    "rope_theta": 100000.0,
    "rope_local_base_freq": 200.0,
}
# No layer slides; it is asked with a window that is null, too.
NO_WINDOW = ONE_HEAD | {"layer_types": [FULL], "num_hidden_layers": 1, "hidden_size": 16}
NO_WINDOW |= {"num_attention_heads": 1}
ALL_SLIDE = NO_WINDOW | {"layer_types": [SLIDING], "vocab_size": 13, "hidden_size": 8, "intermediate_size": 10}
# As transformers 5 writes a config: thetas by the kind of layer. The layers are in no regular order.
LEFT_OUT = "rope_theta", "rope_local_base_freq", "final_logit_softcapping"
NESTED: dict[str, Any] = {k: v for k, v in SMALL.items() if k not in LEFT_OUT} | {
    "hidden_size": 30,
    "intermediate_size": 20,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "query_pre_attn_scalar": 20,
    "sliding_window": 5,
    "layer_types": [FULL, SLIDING, FULL, SLIDING],
    "rms_norm_eps": 1e-2,
    "rope_parameters": {
        FULL: {"rope_type": "default", "rope_theta": 3000.0},
        SLIDING: {"rope_type": "default", "rope_theta": 30.0},
    },
    "tie_word_embeddings": False,
}
# Two more of the same with other thetas: for what reads nothing else.
OTHER_THETAS = SMALL | {"head_dim": 14, "rope_theta": 900.0, "rope_local_base_freq": 20.0}
OTHER_NESTED = NESTED | {
    "vocab_size": 41,
    "max_position_embeddings": 32,
    "num_key_value_heads": 3,
    "rope_parameters": {
        SLIDING: {"rope_type": "default", "rope_theta": 60.0},  # first, for who reads them in order
        FULL: {"rope_type": "default", "rope_theta": 800.0},
    },
}


learners_name = hf.without(*hf.NO_MODULES, "embed_scale")  # a factor is no weight
sizes = configs.sizes("head_dim", "hidden_size", "num_attention_heads", "num_key_value_heads", "sliding_window")


def layer_inputs(
    config: dict[str, Any],
    batch: int,
    kind: str,
    start: int,
    length: int = 9,
    scale: float = 1.0,
    others: Sequence[int] = (7, 8),
) -> Callable[..., Any]:
    """Draws x [batch, T, D], and the rotations of positions from `start` on and the mask of a kind of layer.

    others: which T there are where sizes vary.
    """
    usual = length

    def draw_args(draw: Draw) -> Sequence[Any]:
        length = draw.size("T", usual, *others)
        table = rotations(config, torch.arange(start, start + length), kind)
        mask = hf.visible(length, config["sliding_window"] if kind == SLIDING else None)
        return draw.normal(batch, length, config["hidden_size"], scale=scale), table, mask

    return draw_args


def tokens(batch: int, vocabulary: int = 53, usual: int = 9) -> Callable[..., Any]:
    """Draws ids [batch, T]."""
    return lambda draw: [draw.tokens(vocabulary, batch, draw.size("T", usual, 7, 8))]


EMBEDDING = Exercise(
    name="gemma3.embedding",
    solution="ScaledEmbedding",
    reference=build_embedding,
    points=3,
    axes="B T D",
    sizes=lambda build: {"D": build["embedding_dim"]},
    renamed=learners_name,
    cases=[
        Case("float32", tokens(2), {"num_embeddings": 53, "embedding_dim": 24}),
        Case("float32, other sizes", tokens(1, 47, 8), {"num_embeddings": 47, "embedding_dim": 40}),
        Case("bfloat16", tokens(2), {"num_embeddings": 53, "embedding_dim": 40}, torch.bfloat16, ROUNDED_ONCE),
    ],
)


HALF = torch.float16
RMS_NORM = Exercise(
    name="gemma3.rms_norm",
    solution="RMSNorm",
    reference=lambda dim, eps: Gemma3RMSNorm(dim, eps=eps),
    weights=weights_around_0,
    points=5,
    axes="B T D",
    sizes=lambda build: {"D": build["dim"]},
    cases=[
        Case("ordinary inputs", lambda draw: [draw.normal(2, draw.size("T", 7, 5, 6), 40)], {"dim": 40, "eps": 1e-6}),
        Case("inputs around 3, no batch axis", lambda draw: [draw.normal(5, 24) + 3], {"dim": 24, "eps": 1e-5}),
        Case("queries: [B, T, H, head_dim]", lambda draw: [draw.normal(2, 5, 3, 10)], {"dim": 10, "eps": 1e-2}),
        Case("tiny inputs", lambda draw: with_zeros(draw.normal(2, 5, 24, scale=1e-3)), {"dim": 24, "eps": 1e-6}),
        Case("bfloat16", lambda draw: [draw.normal(1, 9, 40)], {"dim": 40, "eps": 1e-6}, torch.bfloat16, ROUNDED_ONCE),
        Case("hundreds, in float16", lambda draw: [draw.normal(1, 5, 24, scale=400.0)], {"dim": 24, "eps": 1e-6}, HALF),
    ],
)

UNNAMED = {name: value for name, value in ONE_HEAD.items() if name != "hidden_activation"}
MLP = Exercise(
    name="gemma3.mlp",
    solution="MLP",
    reference=lambda config: Gemma3MLP(reference_config(config)),
    points=3,
    axes="B T D",
    sizes=configs.sizes("hidden_size"),
    renamed=learners_name,
    cases=[
        Case("ordinary inputs", lambda draw: [draw.normal(2, draw.size("T", 7, 5, 6), 24)], {"config": SMALL}),
        Case(
            "gates around 2",
            lambda draw: [draw.normal(3, 5, 30, scale=2.0)],
            {"config": OTHER_NESTED | {"intermediate_size": 21}},
        ),
        Case("one token, the config names no activation", lambda draw: [draw.normal(2, 1, 18)], {"config": UNNAMED}),
        Case(
            "hidden_size = intermediate_size",
            lambda draw: [draw.normal(1, 3, 8)],
            {"config": ALL_SLIDE | {"intermediate_size": 8}},
        ),
        Case(
            "attention_bias is true",
            lambda draw: [draw.normal(1, 3, 8)],
            {"config": ALL_SLIDE | {"attention_bias": True}},
        ),
        Case("bfloat16", lambda draw: [draw.normal(1, 7, 24)], {"config": SMALL}, torch.bfloat16),
    ],
)


def at(positions: Sequence[int], kind: str) -> Callable[..., Any]:
    """Draws positions, in a hidden recording shifted, and a kind of layer."""
    return lambda draw: [torch.tensor(positions) + draw.number("shift", 0, 1, 40), kind]


ROPE = Exercise(
    name="gemma3.rope",
    solution="RotaryEmbedding",
    reference=lambda config: Gemma3RotaryEmbedding(reference_config(config)),
    call=hf.rope_table,
    points=3,
    axes="cos/sin T head_dim",
    sizes=configs.sizes("head_dim"),
    differentiable=False,
    renamed=lambda name: None,
    cases=[
        Case("a sliding layer", at(range(5, 12), SLIDING), {"config": SMALL}),
        Case("a full layer", at(range(5, 12), FULL), {"config": SMALL}),
        Case("a sliding layer, another theta", at([6, 9], SLIDING), {"config": OTHER_THETAS}),
        Case("a full layer, another theta", at([6, 9], FULL), {"config": OTHER_THETAS}),
        Case(
            "far in a long text",
            at([2_049, 3_001, 32_000], FULL),
            {"config": SMALL | {"max_position_embeddings": 32_768}},
            tolerance=Tolerance(1e-2),
        ),
        *(
            Case(f"a {name} layer, as transformers 5 writes its config", at([3, 40, 17], kind), {"config": NESTED})
            for name, kind in (("sliding", SLIDING), ("full", FULL))
        ),
        *(
            Case(f"a {name} layer, the same with other thetas", at([2, 7], kind), {"config": OTHER_NESTED})
            for name, kind in (("sliding", SLIDING), ("full", FULL))
        ),
    ],
)


def window_of_all_but_one(draw: Draw) -> Sequence[Any]:
    length = draw.size("T", 6, 9, 10)
    return length, length - 1


MASK = Exercise(
    name="gemma3.mask",
    solution="visible",
    reference=hf.visible,
    function=True,
    points=4,
    axes="query key",
    differentiable=False,
    cases=[
        Case("full", lambda draw: [draw.size("T", 7, 6, 8)]),
        Case("a window of 3", lambda draw: [draw.size("T", 7, 6, 9), 3]),
        Case("a window of 1", lambda draw: [draw.size("T", 4, 5, 6), 1]),
        Case("a window that hides one key", window_of_all_but_one),
        Case("a window longer than the text", lambda draw: [draw.size("T", 5, 10, 11), draw.size("W", 12, 13, 14)]),
    ],
)

STEEP = ONE_HEAD | {"query_pre_attn_scalar": 1}


def far_from_zero(draw: Draw) -> Sequence[Any]:
    """Tokens that have nearly everything in common: each head's scores are near one number, far above or below 0."""
    x = alike(draw, 1, 6, STEEP["hidden_size"], 1.0, 0.25)
    return x, rotations(STEEP, torch.zeros(6, dtype=torch.int64), SLIDING), hf.visible(6)


ATTENTION = Exercise(
    name="gemma3.attention",
    solution="Attention",
    reference=lambda config: Gemma3Attention(reference_config(config), layer_idx=0),
    call=hf.call_part,
    weights=steep_weights,
    fixed={"argument 2, axis 0": "cosines and sines"},
    points=8,
    axes="B T D",
    sizes=sizes,
    renamed=learners_name,
    parts={"q_norm": "gemma3.rms_norm", "k_norm": "gemma3.rms_norm"},
    cases=[
        # These two have one config and one T, and other masks: a mask that is kept from one call to the next shows.
        Case(
            "a sliding layer: 4 heads of 10, 2 for k and v",
            layer_inputs(SMALL, 2, SLIDING, 5, others=(8,)),
            {"config": SMALL},
        ),
        Case("the same without a window", layer_inputs(SMALL, 1, FULL, 5, others=(8,)), {"config": SMALL}),
        Case("a full layer: 6 heads of 6, 2 for k and v", layer_inputs(NESTED, 1, FULL, 3, 10), {"config": NESTED}),
        Case(
            "a sliding layer: 3 heads of 8, 1 for k and v", layer_inputs(ONE_HEAD, 1, SLIDING, 4), {"config": ONE_HEAD}
        ),
        Case("scores far from 0", far_from_zero, {"config": STEEP}, draw="2"),
        Case("bfloat16", layer_inputs(SMALL, 1, SLIDING, 5), {"config": SMALL}, torch.bfloat16),
    ],
)

DECODER_LAYER = Exercise(
    name="gemma3.decoder_layer",
    solution="DecoderLayer",
    reference=lambda config: Gemma3DecoderLayer(reference_config(config), layer_idx=0),
    call=hf.call_part,
    weights=weights_around_0,
    fixed={"argument 2, axis 0": "cosines and sines"},
    points=6,
    axes="B T D",
    sizes=sizes,
    renamed=learners_name,
    parts={
        "input_layernorm": "gemma3.rms_norm",
        "self_attn": "gemma3.attention",
        "post_attention_layernorm": "gemma3.rms_norm",
        "pre_feedforward_layernorm": "gemma3.rms_norm",
        "mlp": "gemma3.mlp",
        "post_feedforward_layernorm": "gemma3.rms_norm",
    },
    cases=[
        Case("a sliding layer", layer_inputs(SMALL, 2, SLIDING, 5), {"config": SMALL}),
        Case("a full layer, small inputs", layer_inputs(NESTED, 1, FULL, 3, 10, 0.1), {"config": NESTED}),
        Case("one key and value head", layer_inputs(ONE_HEAD, 2, SLIDING, 4), {"config": ONE_HEAD}),
        Case("bfloat16", layer_inputs(SMALL, 1, SLIDING, 5), {"config": SMALL}, torch.bfloat16),
    ],
)

MODEL = Exercise(
    name="gemma3.model",
    solution="Model",
    reference=lambda config: Gemma3TextModel(reference_config(config)).eval(),
    call=hf.hidden_states,
    weights=weights_around_0,
    points=6,
    axes="B T D",
    sizes=sizes,
    renamed=learners_name,
    parts={
        "embed_tokens": "gemma3.embedding",
        "layers.*": "gemma3.decoder_layer",
        "norm": "gemma3.rms_norm",
    },
    uses=["gemma3.rope", "gemma3.mask"],
    cases=[
        Case("sliding, sliding, full", tokens(2), {"config": SMALL}),
        Case("7 layers, and no list of their kinds", tokens(2, 47), {"config": ONE_HEAD}, draw="clear"),
        Case(
            "every second of 4 layers is full",
            tokens(1, 47, 6),
            {"config": ONE_HEAD | {"num_hidden_layers": 4, "sliding_window_pattern": 2}},
        ),
        Case("full first, as transformers 5 writes its config", tokens(1, usual=10), {"config": NESTED}),
        Case("no layer slides", tokens(2, 47, 5), {"config": NO_WINDOW}),
        Case("every layer slides", tokens(1, 13, 5), {"config": ALL_SLIDE}),
        Case("a window longer than the text", tokens(1, 13, 5), {"config": ALL_SLIDE | {"sliding_window": 12}}),
    ],
)


def large_heads(module: nn.Module, draw: Draw) -> None:
    """A head that is not the embedding gets larger weights, so that its logits are large as well."""
    weights_around_0(module, draw)
    head, embedding = module.lm_head.weight, module.model.embed_tokens.weight
    if head is not embedding:
        head.data *= 30


CAUSAL_LM = Exercise(
    name="gemma3.causal_lm",
    solution="CausalLM",
    reference=lambda config: Gemma3ForCausalLM(reference_config(config)).eval(),
    call=hf.logits,
    weights=large_heads,
    points=2,
    axes="B T vocab_size",
    sizes=lambda build: sizes(build) | {"vocab_size": build["config"]["vocab_size"]},
    renamed=learners_name,
    parts={"model": "gemma3.model"},
    cases=[
        Case("a config that says nothing of its head", tokens(1), {"config": SMALL}),
        Case("a tied head", tokens(2, 47), {"config": ONE_HEAD | {"tie_word_embeddings": True}}),
        Case("a head of its own, large logits", tokens(1, usual=10), {"config": NESTED}),
        Case("a padding token", tokens(1, 10, 5), {"config": ALL_SLIDE | {"pad_token_id": 11}}),
    ],
)


# What is rounding, and what a fault


def verdicts_case(name: str, rows: Sequence[str], size: Sequence[int], times: float) -> Case:
    """A case of the verdicts. rows: of reference.ROWS."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        first = draw.number("the first row", 0, 1, len(rows) - 1) if len(rows) > 1 else 0
        names = [*rows[first:], *rows[:first]]
        return [*drawn_rows(draw, names, (draw.size("T", size[0], size[0] + 2), *size[1:]), times), times]

    return Case(name, draw_args)


def counted_case(name: str, rows: Sequence[str], dtype: torch.dtype, times: int = 1) -> Case:
    """A case of the verdicts on whole numbers, with a limit of twice the noise. rows: of reference.COUNTED. times: how
    much larger the right numbers are."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        first = draw.number("the first row", 0, 1, len(rows) - 1)
        return [*counted_rows(draw, [*rows[first:], *rows[:first]], (4, 6), dtype, times), 2.0]

    return Case(name, draw_args)


PLAIN = ["right", "inherited", "own", "own, and mended by chance", "own, a little"]
VERDICTS = Exercise(
    name="gemma3.verdicts",
    solution="verdicts",
    reference=right_verdicts,
    function=True,
    differentiable=False,
    drive=drives.verdicts_by_number,
    points=5,
    axes="row",
    cases=[
        verdicts_case("five rows, a limit of 3 times the noise", PLAIN, (4, 12), 3.0),
        verdicts_case(
            "rows of other scales and other noise, a limit of 5 times the noise",
            [
                "right, in large numbers",
                "own, in small numbers",
                "right, with much noise",
                "own, with little noise",
                "right, around a large mean",
                "inherited, with little noise",
            ],
            (5, 9),
            5.0,
        ),
        verdicts_case(
            "errors in one number, or in small ones, a limit of 2.5 times the noise",
            [
                "right, all of it in one number",
                "own, all of it in one number",
                "right, all of it where numbers are small",
                "own, along what rounding does",
                "own, all of it in the last token",
                "inherited",
            ],
            (3, 20),
            2.5,
        ),
        verdicts_case(
            "the limit is the noise itself",
            ["own, a little", "right", "own, all of it in the first token", "inherited"],
            (2, 7, 3),
            1.0,
        ),
        counted_case("rows of millions that rounding leaves as they are", list(COUNTED)[2:], torch.float32, 100_000),
        counted_case("outputs in bfloat16, just above the limit and just below", list(COUNTED), torch.bfloat16),
        Case("exact numbers that bfloat16 does not hold", lambda draw: [*fine_rows(draw), 2.0]),
    ],
)

EXERCISES = with_mistakes(
    __file__, [EMBEDDING, RMS_NORM, MLP, ROPE, MASK, ATTENTION, DECODER_LAYER, MODEL, CAUSAL_LM, VERDICTS]
)
