"""What the exercises of 06-sliding-window are checked against: transformers' Gemma 3, which sees a text all at once."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers.models.gemma3.modeling_gemma3 import Gemma3Attention, Gemma3TextModel

from grader.authoring.drives.caches import contents_in_turns, lengths
from grader.authoring.kit import Case, Config, Draw, Exercise, Tolerance, configs, hf, weights_around_0, with_mistakes
from grader.authoring.kit.caches import right_fill
from grader.authoring.kit.inputs import alike, steep_weights
from grader.authoring.kit.toy import FIXED, toy_that_ends
from grader.kv import bytes_at

from . import drives
from .drives import ring_contents, tokens_held
from .reference import (
    call_attention,
    reference_config,
    right_mask,
    right_nats,
    right_numbers,
    right_reading,
    right_ring,
    right_ring_in_turns,
    right_written,
    rotations,
    walk_back,
)

TRACE = "sliding_window.model"

SLIDING, FULL = "sliding_attention", "full_attention"

# B, T, D, the heads of both kinds and head_dim are all different numbers; texts are longer than the window.
SMALL: dict[str, Any] = {
    "model_type": "gemma3_text",
    "hidden_activation": "gelu_pytorch_tanh",
    "vocab_size": 31,
    "hidden_size": 20,
    "intermediate_size": 14,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "query_pre_attn_scalar": 7,
    "sliding_window": 4,
    "layer_types": [SLIDING, FULL, SLIDING],
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-3,
    "rope_theta": 7000.0,  # no published model's, so that a fixed one shows
    "rope_local_base_freq": 30.0,
}
NO_LIST = {k: v for k, v in SMALL.items() if k != "layer_types"}
# One key and value head; which layers are full follows from their number; a longer window.
SEVEN_LAYERS: dict[str, Any] = NO_LIST | {
    "hidden_size": 18,
    "intermediate_size": 20,
    "num_hidden_layers": 7,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "query_pre_attn_scalar": 20,
    "sliding_window": 3,
    "vocab_size": 29,
    "max_position_embeddings": 48,
    "rms_norm_eps": 1e-2,
    "rope_theta": 900.0,
    "rope_local_base_freq": 20.0,
}
FULL_FIRST = SMALL | {
    "layer_types": [FULL, SLIDING, FULL],
    "sliding_window": 5,
    "hidden_size": 18,
    "num_attention_heads": 6,
    "head_dim": 8,
    "query_pre_attn_scalar": 12,
    "intermediate_size": 16,
    "vocab_size": 37,
    "max_position_embeddings": 80,
    "rms_norm_eps": 1e-2,
    "rope_theta": 900.0,
    "rope_local_base_freq": 60.0,
}
ALL_SLIDING = SMALL | {"layer_types": [SLIDING] * 2, "num_hidden_layers": 2, "num_key_value_heads": 1}
# No layer slides; it is asked with a window that is null, too.
NO_WINDOW = SMALL | {
    "layer_types": [FULL] * 2,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
}
NO_WINDOW |= {"num_key_value_heads": 1, "hidden_size": 16}
THREE_SLIDING = ALL_SLIDING | {"layer_types": [SLIDING] * 3, "num_hidden_layers": 3}


learners_name = hf.without(*hf.NO_MODULES, "embed_scale")  # a factor is no weight
sizes = configs.sizes("head_dim", "hidden_size", "num_attention_heads", "num_key_value_heads", "sliding_window")


# The mask


def mask_case(name: str, queries: int, more_keys: int, window: int | None = None, hides: int = 0) -> Case:
    """more_keys: how many keys there are before those of the queries. hides: how many the window is shorter than all."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        old = draw.size("old", more_keys, more_keys + 2, more_keys + 3) if more_keys else 0
        new = queries if more_keys else draw.size("queries", queries, queries + 1, queries + 2)
        return new, new + old, new + old - hides if hides else window

    return Case(name, draw_args)


MASK = Exercise(
    name="sliding_window.mask",
    solution="window_mask",
    reference=right_mask,
    function=True,
    without={"OtherValues": "there are no more queries than keys"},
    points=4,
    cases=[
        mask_case("a whole text of 7 tokens, a window of 3", 7, 0, 3),
        mask_case("a chunk of 5 after others, a window of 4", 5, 6, 4),
        mask_case("one token after 9, a window of 4", 1, 9, 4),
        mask_case("a chunk without a window", 4, 5, None),
        mask_case("a window of 1", 4, 2, 1),
        mask_case("a window that hides one key", 3, 3, hides=1),
        mask_case("a window longer than the text", 3, 3, 20),
    ],
)


# How far back


def reach_case(name: str, config: dict[str, Any], length: int, *others: int) -> Case:
    """others: lengths for hidden recordings, where the window is another one as well."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        window = config["sliding_window"]
        return [Config(draw.changed(config, sliding_window=(window, window + 2))), draw.size("length", length, *others)]

    return Case(name, draw_args)


# Fields that reach and the bytes do not depend on.
UNREAD = {
    "vocab_size": 41,
    "intermediate_size": 22,
    "query_pre_attn_scalar": 9,
    "max_position_embeddings": 96,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500.0,
    "rope_local_base_freq": 70.0,
}
FIVE_LAYERS = NO_LIST | {"num_hidden_layers": 5, "sliding_window": 6} | UNREAD
REACH = Exercise(
    name="sliding_window.reach",
    solution="reach",
    reference=walk_back,
    function=True,
    points=3,
    cases=[
        reach_case("3 sliding layers, a long text", THREE_SLIDING, 30, 24, 27),
        reach_case("3 sliding layers, a text of 8", THREE_SLIDING, 8, 7, 9),
        reach_case("the second of 3 is full", SMALL, 30, 33, 36),
        reach_case("5 sliding layers with a window of 6", FIVE_LAYERS, 60, 50),
        reach_case("7 layers, and no list of their kinds", SEVEN_LAYERS, 40, 44),
        reach_case("the last of 3 is full", SMALL | {"layer_types": [SLIDING, SLIDING, FULL]}, 25, 22),
        reach_case("the first of 3 is full", SMALL | {"layer_types": [FULL, SLIDING, SLIDING]}, 28, 23),
        reach_case("no layer slides", NO_WINDOW, 17, 12, 15),
        reach_case("a window of 2", THREE_SLIDING | {"sliding_window": 2}, 9, 12, 14),
    ],
)


# The ring


IN_TURNS = {"drive": contents_in_turns, "right": right_ring_in_turns}
LENGTHS = {"drive": lengths, "right": lambda kv, window, chunks: right_fill(kv, sum(chunks), chunks).lengths}
HELD = {"drive": tokens_held, "right": lambda kv, window, chunks: [0] * sum(size > 0 for size in chunks)}


def ring_case(
    name: str, window: int, chunks: list[int], sizes: Sequence[int] = (2, 3), head_dims: Any = (4, 6, 10), **more: Any
) -> Case:
    """sizes: batch and heads."""
    B, H = sizes

    def draw_args(draw: Draw) -> Sequence[Any]:
        batch, heads, head_dim = draw.size("B", B, 1, 3), draw.size("H", H, 5), draw.size("head_dim", *head_dims)
        return draw.normal(2, batch, heads, sum(chunks), head_dim), window, chunks

    return Case(name, draw_args, **more)


ROLLING_CACHE = Exercise(
    name="sliding_window.rolling_cache",
    solution="RollingCache",
    reference=right_ring,
    drive=ring_contents,
    function=True,
    differentiable=False,
    points=8,
    fixed={"argument 1, axis 0": "keys and values"},
    cases=[
        ring_case("a prompt of 3, then 4 tokens, a window of 4", 4, [3, 1, 1, 1, 1]),
        ring_case("a prompt longer than the window, then 3 tokens", 4, [6, 1, 1, 1], (1, 3)),
        ring_case("chunks longer and shorter than the window", 5, [2, 7, 1, 6, 1], (1, 3)),
        ring_case("chunks as long as the window", 3, [3, 3, 1, 3, 1], (3, 2)),
        ring_case("chunks of 3 and 2 behind a ring that is full, a window of 5", 5, [6, 3, 1, 2, 1], (1, 2)),
        ring_case("two caches in turns", 4, [3, 2, 1], (1, 2), **IN_TURNS),
        ring_case("a window of 1", 1, [2, 1, 1, 3], (1, 2)),
        ring_case("its length, with a reset in between", 4, [3, 6, 1, 0, 2, 1], **LENGTHS),
        ring_case("another text after a reset, in bfloat16", 4, [6, 1, 0, 2, 1, 3], (1, 3), dtype=torch.bfloat16),
        ring_case("for how many tokens more than 4 it holds memory", 4, [11, 1, 1, 5], head_dims=[32], **HELD),
        ring_case("bfloat16", 4, [3, 5, 1, 1], (1, 2), dtype=torch.bfloat16),
    ],
)


# Attention


STORED = {"drive": drives.numbers_stored, "right": right_numbers}


def attention_case(
    name: str, config: dict[str, Any], kind: str, chunks: list[int], rolls: bool, batch: int = 2, **more: Any
) -> Case:
    """rolls: whether the check's cache returns a window, or everything."""
    window = config["sliding_window"] if kind == SLIDING else None

    def draw_args(draw: Draw) -> Sequence[Any]:
        length = sum(chunks) or draw.size("T", 8, 9)
        first = draw.size("first position", 5, 11)
        positions = torch.arange(first, first + length)
        x = draw.normal(draw.size("B", batch, 1, 3), length, config["hidden_size"])
        return x, rotations(config, positions, kind), window, chunks, window - 1 if rolls and window else None

    return Case(name, draw_args, {"config": config}, **more)


STEEP = ALL_SLIDING | {"query_pre_attn_scalar": 1}


def far_from_zero(draw: Draw) -> Sequence[Any]:
    """Tokens that have nearly everything in common: each head's scores are near one number, far above or below 0."""
    x = alike(draw, 1, 6, STEEP["hidden_size"], 1.0, 0.25)
    table = torch.stack([torch.ones(6, STEEP["head_dim"]), torch.zeros(6, STEEP["head_dim"])])  # nothing rotates
    return x, table, STEEP["sliding_window"], [4, 1, 1], STEEP["sliding_window"] - 1


ATTENTION = Exercise(
    name="sliding_window.attention",
    solution="CachedAttention",
    reference=lambda config: Gemma3Attention(reference_config(config), layer_idx=config["layer_types"].index(SLIDING)),
    call=call_attention,
    drive=drives.attention_results,
    uses=["sliding_window.mask"],
    fixed={"argument 2, axis 0": "cosines and sines"},
    points=6,
    axes="B T D",
    sizes=sizes,
    renamed=learners_name,
    weights=steep_weights,
    cases=[
        attention_case("a window, without a cache", SMALL, SLIDING, [], True),
        attention_case("no window, without a cache", SMALL, FULL, [], True),
        attention_case("a ring: a prompt of 5, then one by one, a window of 4", SMALL, SLIDING, [5, 1, 1, 1], True),
        attention_case("a ring: chunks of 2, 7 and 3, a window of 5", FULL_FIRST, SLIDING, [2, 7, 3], True, batch=1),
        attention_case("a cache that keeps everything, and a window", ALL_SLIDING, SLIDING, [5, 1, 3, 1], False),
        attention_case("a cache that keeps everything, and no window", SMALL, FULL, [3, 3, 1], False),
        Case("scores far from 0", far_from_zero, {"config": STEEP}),
        attention_case("how many numbers the cache was handed", SMALL, SLIDING, [5, 1, 2], True, **STORED),
        attention_case("bfloat16", SMALL, SLIDING, [6, 1, 3, 1], True, dtype=torch.bfloat16),
    ],
)


# The model


def layers_of(module: Any) -> int:
    return module.config.num_hidden_layers


MEMORY = {"drive": drives.memory_of_caches, "right": lambda module, *_: torch.zeros(4 * layers_of(module)).long()}
TEXTS, MORE_ROOM = {"drive": drives.vectors_of_texts_in_turns}, {"drive": drives.vectors_with_more_room}
ROWS = {"drive": drives.rows_of_chunks, "right": lambda module, ids, chunks: torch.tensor(chunks) * layers_of(module)}


def model_case(name: str, config: dict[str, Any], batch: int, chunks: list[int], **more: Any) -> Case:
    def draw_args(draw: Draw) -> Sequence[Any]:
        return draw.tokens(config["vocab_size"], batch, sum(chunks)), chunks

    return Case(name, draw_args, {"config": config}, **more)


MODEL = Exercise(
    name="sliding_window.model",
    solution="CachedModel",
    reference=lambda config: Gemma3TextModel(reference_config(config)),
    call=hf.hidden_states,
    drive=drives.vectors,
    uses=["sliding_window.mask", "sliding_window.rolling_cache", "sliding_window.attention"],
    differentiable=False,
    points=8,
    axes="B T D",
    sizes=sizes,
    renamed=learners_name,
    weights=weights_around_0,
    cases=[
        Case("without a cache", lambda draw: [draw.tokens(31, 2, draw.size("T", 11, 9))], {"config": SMALL}),
        model_case("two texts in turns, a new_cache for each", ALL_SLIDING, 2, [6, 1, 2], **TEXTS),
        model_case("a prompt of 7, then one by one", SMALL, 2, [7, 1, 1, 1]),
        model_case("7 layers, chunks of 2, 4, 3 and 1", SEVEN_LAYERS, 2, [2, 4, 3, 1]),
        model_case("a full layer first, one by one from the start", FULL_FIRST, 1, [1] * 9),
        model_case("only sliding layers, more room than tokens", ALL_SLIDING, 2, [6, 1, 2, 1], **MORE_ROOM),
        model_case("a text shorter than the window", FULL_FIRST, 2, [2, 1]),
        model_case("no layer slides", NO_WINDOW, 2, [3, 2]),
        model_case("another text after a reset", SMALL, 2, [6, 1, 2], drive=drives.vectors_after_reset),
        model_case(
            "tokens too many in each layer's memory, in bfloat16", SMALL, 2, [9, 1, 4], dtype=torch.bfloat16, **MEMORY
        ),
        model_case("how many rows the layers compute for each chunk", ALL_SLIDING, 2, [6, 1, 2], **ROWS),
    ],
)


# Generation


PIECES = {"drive": drives.pieces_read, "right": right_reading}
ROOM = {
    "drive": drives.rooms_asked,
    "right": lambda toy, ids, new_tokens, end, chunk: [1, ids.shape[1] + new_tokens - 1],
}
DESPITE_CONFIG = {
    "drive": drives.watched_despite_config,
    "right": lambda toy, ids, new_tokens, end, chunk: right_written(toy, ids, new_tokens, None, chunk),
}
AFTER = {"drive": drives.calls_after_end, "right": lambda *_: [0]}


def generation_case(
    name: str, prompt: int, new_tokens: int, chunk: int, stops: bool | str = False, **more: Any
) -> Case:
    """stops: whether an end token comes, and not as the first, second or last; "prompt": one that the prompt has too;
    "zero": token 0; "last": the end token is the prompt's last, whether it comes again or not."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        toy, ids, end = toy_that_ends(draw, 128 + prompt, prompt, new_tokens, vocabulary=61 - prompt, ends=stops)
        end = int(ids[0, -1]) if stops == "last" else end
        return toy, ids, new_tokens, end if stops else None, chunk

    return Case(name, draw_args, **more)


GENERATE = Exercise(
    name="sliding_window.generate",
    solution="generate_rolling",
    reference=right_written,
    drive=drives.watched_generation,
    function=True,
    without={"Fewer": "max_new_tokens is 1 or more, as the docstring says"},
    points=4,
    fixed=FIXED,
    cases=[
        generation_case("8 new tokens, a prompt of 11 in chunks of 4", 11, 8, 4),
        generation_case("stops at the end token", 6, 9, 4, stops=True),
        generation_case("the end token is in the prompt too", 7, 8, 4, stops="prompt"),
        generation_case("the prompt ends with the end token", 5, 7, 4, stops="last"),
        generation_case("the end token is 0", 5, 6, 4, stops="zero"),
        generation_case("an end token in the config, and none given", 5, 6, 4, stops=True, **DESPITE_CONFIG),
        generation_case("after another prompt, with the same model", 5, 6, 4, drive=drives.watched_again),
        generation_case("pieces of a prompt of 11, tokens in them, tokens above `chunk`", 11, 5, 4, **PIECES),
        generation_case("the same of a prompt that two chunks make up", 8, 6, 4, **PIECES),
        generation_case("the same of a prompt shorter than a chunk", 5, 4, 16, **PIECES),
        generation_case("for how many texts and tokens a cache is made", 7, 6, 3, **ROOM),
        generation_case("how often the model is called after the end token", 8, 6, 4, stops=True, **AFTER),
    ],
)


# How far back a trained model looks


def context_case(name: str, T: int, contexts: list[int], sizes: Sequence[int] = (13, 6)) -> Case:
    """A case of the loss by context. sizes: vocabulary and width of the model."""
    V, D = sizes

    def draw_args(draw: Draw) -> Sequence[Any]:
        length = draw.size("T", T, T + 1, T + 2)
        mixing = torch.linalg.qr(draw.normal(D, D)).Q  # forgets slowly
        return draw.tokens(V, length), draw.normal(V, D), mixing, contexts

    return Case(name, draw_args, tolerance=Tolerance(1e-4))


BY_CONTEXT = Exercise(
    name="sliding_window.nats_by_context",
    solution="nats_by_context",
    reference=right_nats,
    function=True,
    differentiable=False,
    drive=drives.nats_of_contexts,
    points=5,
    axes="context",
    cases=[
        context_case("contexts of 1, 2 and 5 tokens, a text of 40", 40, [1, 2, 5]),
        context_case("contexts in no order, one of them twice", 14, [4, 1, 6, 4], (11, 5)),
        context_case("one context", 12, [3], (17, 7)),
        context_case("a text with a single token behind the longest context", 8, [2, 7], (9, 4)),
    ],
)


# Bytes

# The talk's model: 36 layers, 4,096 wide, 5:1, a window of 2,048. Only the width counts, so 32 heads of 128.
TALK: dict[str, Any] = {
    "model_type": "gemma3_text",
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": 128,
    "hidden_size": 4096,
    "sliding_window": 2048,
}
GEMMA_270M: dict[str, Any] = {
    "model_type": "gemma3_text",
    "num_hidden_layers": 18,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "hidden_size": 640,
    "sliding_window": 512,
}


def bytes_case(name: str, config: dict[str, Any], context: int, *others: int) -> Case:
    """A case of the bytes: a config, a context, and what else is given; in a hidden recording another width."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        return [Config(draw.changed(config, head_dim=(11, 99))), context, *others]

    return Case(name, draw_args)


BYTES = Exercise(
    name="sliding_window.bytes",
    solution="cache_bytes",
    reference=bytes_at,
    function=True,
    points=4,
    cases=[
        bytes_case("the talk's model at 131,072 tokens", TALK, 131_072),
        bytes_case("the same, 4 query heads for each key head", TALK | {"num_key_value_heads": 8}, 131_072),
        bytes_case("Gemma 3 270M, one token", GEMMA_270M, 1),
        bytes_case("Gemma 3 270M, 3 texts of 400 tokens in float32", GEMMA_270M, 400, 3, 4),
        bytes_case(
            "4 layers in an order of their own",
            SMALL | {"layer_types": [FULL, SLIDING, FULL, FULL], "num_hidden_layers": 4, "hidden_size": 28},
            9,
            2,
        ),
        bytes_case(
            "no window at all",
            SMALL | {"layer_types": [FULL] * 3, "sliding_window": None, "hidden_size": 28} | UNREAD,
            9,
        ),
    ],
)

EXERCISES = with_mistakes(__file__, [MASK, REACH, ROLLING_CACHE, ATTENTION, MODEL, GENERATE, BY_CONTEXT, BYTES])
