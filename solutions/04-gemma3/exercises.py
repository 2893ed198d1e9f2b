"""What the exercises of 04-gemma3 are checked against: transformers' Gemma 3, eager attention."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Gemma3ForCausalLM, Gemma3TextConfig
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.models.gemma3.modeling_gemma3 import (
    Gemma3Attention,
    Gemma3DecoderLayer,
    Gemma3MLP,
    Gemma3RMSNorm,
    Gemma3RotaryEmbedding,
    Gemma3TextModel,
    Gemma3TextScaledWordEmbedding,
)

from grader.authoring.kit import ROUNDED_ONCE, Case, Draw, Exercise, weights_around_0, with_mistakes

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
# As transformers 5 writes a config: thetas by the kind of layer. The layers are in no regular order.
NESTED: dict[str, Any] = {k: v for k, v in SMALL.items() if k not in ("rope_theta", "rope_local_base_freq")} | {
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


def reference_config(config: Mapping[str, Any]) -> Gemma3TextConfig:
    """transformers' config for the learner's, with eager attention."""
    ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    return Gemma3TextConfig(**{**config, **ends}, attn_implementation="eager")


def rotations(config: Mapping[str, Any], positions: Tensor, kind: str) -> Tensor:
    """transformers' cosines and sines for a kind of layer: [2, T, head_dim]."""
    cos, sin = Gemma3RotaryEmbedding(reference_config(config))(torch.zeros(()), positions[None], kind)
    return torch.stack([cos[0], sin[0]])


def visible(length: int, window: int | None = None) -> Tensor:
    """transformers' masks, True where a key may be seen: [length, length]."""
    # Only the window and the implementation count here; what else a config needs is SMALL's.
    config = reference_config(SMALL | {"sliding_window": window or length})
    make = create_causal_mask if window is None else create_sliding_window_causal_mask
    mask = make(config=config, inputs_embeds=torch.zeros(1, length, 1), attention_mask=None, cache=None)
    return torch.ones(length, length, dtype=torch.bool) if mask is None else mask[0, 0] == 0


def build_embedding(num_embeddings: int, embedding_dim: int) -> nn.Module:
    return Gemma3TextScaledWordEmbedding(num_embeddings, embedding_dim, None, embed_scale=embedding_dim**0.5)


def call_embedding(module: nn.Module, ids: Tensor) -> Tensor:
    return module(ids)


def call_with_table_and_mask(module: nn.Module, x: Tensor, table: Tensor, mask: Tensor) -> Tensor:
    """Attention and DecoderLayer are handed their mask and rotations by the model around them; here by this."""
    cos, sin = table.to(x.dtype)
    added = torch.zeros(mask.shape, dtype=x.dtype).masked_fill(~mask, torch.finfo(x.dtype).min)
    output = module(x, position_embeddings=(cos[None], sin[None]), attention_mask=added[None, None])
    return output[0] if isinstance(output, tuple) else output


def call_model(module: nn.Module, ids: Tensor) -> Tensor:
    output = module(input_ids=ids, use_cache=False)
    return output.logits if "logits" in output else output.last_hidden_state


def call_rotary(module: nn.Module, positions: Tensor, kind: str) -> Tensor:
    cos, sin = module(torch.zeros(()), positions[None], kind)
    return torch.stack([cos[0], sin[0]])


def learners_name(name: str) -> str | None:
    """The course has neither a module for the activation nor one for the rotations; a factor is no weight."""
    return None if "act_fn" in name or "rotary_emb" in name or "embed_scale" in name else name


def sizes(build: Mapping[str, Any]) -> dict[str, int]:
    fields = ("head_dim", "hidden_size", "num_attention_heads", "num_key_value_heads", "sliding_window")
    return {field: build["config"][field] for field in fields}


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
        mask = visible(length, config["sliding_window"] if kind == SLIDING else None)
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


def with_zeros(x: Tensor) -> list[Tensor]:
    """The same with a first vector of zeros, which nothing but eps keeps from a division by zero."""
    x[0, 0] = 0.0
    return [x]


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
        Case("bfloat16", lambda draw: [draw.normal(2, 7, 40)], {"dim": 40, "eps": 1e-6}, torch.bfloat16, ROUNDED_ONCE),
    ],
)

MLP = Exercise(
    name="gemma3.mlp",
    solution="MLP",
    reference=lambda config: Gemma3MLP(reference_config(config)),
    points=3,
    axes="B T D",
    sizes=lambda build: {"hidden_size": build["config"]["hidden_size"]},
    renamed=learners_name,
    cases=[
        Case("ordinary inputs", lambda draw: [draw.normal(2, draw.size("T", 7, 5, 6), 24)], {"config": SMALL}),
        Case("gates around 2", lambda draw: [draw.normal(3, 5, 30, scale=2.0)], {"config": OTHER_NESTED}),
        Case("one token", lambda draw: [draw.normal(2, 1, 18)], {"config": ONE_HEAD}),
        Case("bfloat16", lambda draw: [draw.normal(2, 7, 24)], {"config": SMALL}, torch.bfloat16),
    ],
)


def at(positions: Sequence[int], kind: str) -> Callable[..., Any]:
    """Draws positions, in a hidden recording shifted, and a kind of layer."""
    return lambda draw: [torch.tensor(positions) + draw.number("shift", 0, 1, 40), kind]


ROPE = Exercise(
    name="gemma3.rope",
    solution="RotaryEmbedding",
    reference=lambda config: Gemma3RotaryEmbedding(reference_config(config)),
    call=call_rotary,
    points=3,
    axes="cos/sin T head_dim",
    sizes=lambda build: {"head_dim": build["config"]["head_dim"]},
    differentiable=False,
    renamed=lambda name: None,
    cases=[
        Case("a sliding layer", at(range(5, 12), SLIDING), {"config": SMALL}),
        Case("a full layer", at(range(5, 12), FULL), {"config": SMALL}),
        Case("a sliding layer, another theta", at([6, 9], SLIDING), {"config": OTHER_THETAS}),
        Case("a full layer, another theta", at([6, 9], FULL), {"config": OTHER_THETAS}),
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
    reference=visible,
    function=True,
    points=4,
    axes="query key",
    differentiable=False,
    cases=[
        Case("full", lambda draw: [draw.size("T", 7, 6, 8)]),
        Case("a window of 3", lambda draw: [draw.size("T", 8, 7, 9), 3]),
        Case("a window of 1", lambda draw: [draw.size("T", 4, 5, 6), 1]),
        Case("a window that hides one key", window_of_all_but_one),
        Case("a window longer than the text", lambda draw: [draw.size("T", 5, 10, 11), draw.size("W", 12, 13, 14)]),
    ],
)

# Scores are bounded by the norms of q and k, whose weights training can make large.
STEEP = ONE_HEAD | {"query_pre_attn_scalar": 1}


def steep_weights(module: Any, draw: Draw) -> None:
    """As `weights_around_0`; but where the scale is 1, the first head's scores are near -120."""
    weights_around_0(module, draw)
    if module.config.query_pre_attn_scalar == 1:
        with torch.no_grad():
            width = module.head_dim
            module.k_proj.weight[:width] = -module.q_proj.weight[:width]
            for norm in (module.q_norm, module.k_norm):
                norm.weight.copy_(0.1 * norm.weight + (120 / width) ** 0.5 - 1)


def far_from_zero(draw: Draw) -> Sequence[Any]:
    """Tokens that have nearly everything in common: each head's scores are near one number, far above or below 0."""
    x = draw.normal(1, 1, STEEP["hidden_size"]) + draw.normal(1, 6, STEEP["hidden_size"], scale=0.25)
    return x, rotations(STEEP, torch.zeros(6, dtype=torch.int64), SLIDING), visible(6)


ATTENTION = Exercise(
    name="gemma3.attention",
    solution="Attention",
    reference=lambda config: Gemma3Attention(reference_config(config), layer_idx=0),
    call=call_with_table_and_mask,
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
        Case("bfloat16", layer_inputs(SMALL, 2, SLIDING, 5), {"config": SMALL}, torch.bfloat16),
    ],
)

DECODER_LAYER = Exercise(
    name="gemma3.decoder_layer",
    solution="DecoderLayer",
    reference=lambda config: Gemma3DecoderLayer(reference_config(config), layer_idx=0),
    call=call_with_table_and_mask,
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
        Case("bfloat16", layer_inputs(SMALL, 2, SLIDING, 5), {"config": SMALL}, torch.bfloat16),
    ],
)

MODEL = Exercise(
    name="gemma3.model",
    solution="Model",
    reference=lambda config: Gemma3TextModel(reference_config(config)).eval(),
    call=call_model,
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
        Case("7 layers, and no list of their kinds", tokens(2, 47), {"config": ONE_HEAD}),
        Case(
            "every second of 4 layers is full",
            tokens(1, 47, 6),
            {"config": ONE_HEAD | {"num_hidden_layers": 4, "sliding_window_pattern": 2}},
        ),
        Case("full first, as transformers 5 writes its config", tokens(1, usual=10), {"config": NESTED}),
    ],
)

CAUSAL_LM = Exercise(
    name="gemma3.causal_lm",
    solution="CausalLM",
    reference=lambda config: Gemma3ForCausalLM(reference_config(config)).eval(),
    call=call_model,
    weights=weights_around_0,
    points=2,
    axes="B T vocab_size",
    sizes=lambda build: sizes(build) | {"vocab_size": build["config"]["vocab_size"]},
    renamed=learners_name,
    parts={"model": "gemma3.model"},
    cases=[
        Case("a config that says nothing of its head", tokens(1), {"config": SMALL}),
        Case("a tied head", tokens(2, 47), {"config": ONE_HEAD | {"tie_word_embeddings": True}}),
        Case("a head of its own", tokens(1, usual=10), {"config": NESTED}),
    ],
)

EXERCISES = with_mistakes(__file__, [EMBEDDING, RMS_NORM, MLP, ROPE, MASK, ATTENTION, DECODER_LAYER, MODEL, CAUSAL_LM])
