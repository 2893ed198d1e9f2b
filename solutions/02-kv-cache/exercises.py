"""What the exercises of 02-kv-cache are checked against: transformers' GPT-2, eager, which sees a text all at once."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import GPT2LMHeadModel
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention

from grader.authoring.drives import caches, generation
from grader.authoring.kit import Case, Config, Draw, Exercise, Tolerance, configs, hf, with_mistakes
from grader.authoring.kit.caches import right_fill
from grader.authoring.kit.inputs import alike
from grader.authoring.kit.toy import FIXED, reference_generate, toy_that_ends
from grader.kv import bytes_at

from . import drives
from .reference import (
    count_products,
    reference_config,
    right_contents,
    right_contents_in_turns,
    right_groups,
    right_last,
    right_pays,
    right_rows_read,
)

TRACE = "kv_cache.model"

# B, T, D, the heads and head_dim are all different numbers. There is room for three layers' tokens in one cache.
SMALL: dict[str, Any] = {
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "vocab_size": 53,
    "n_positions": 64,
    "n_embd": 24,
    "n_head": 3,
    "n_layer": 3,
    "layer_norm_epsilon": 1e-5,
}
OTHER = SMALL | {
    "vocab_size": 37,
    "n_positions": 48,
    "n_embd": 30,
    "n_head": 5,
    "n_layer": 2,
    "n_inner": 44,
    "layer_norm_epsilon": 1e-2,
}
WIDE = SMALL | {"n_inner": None, "n_embd": 501, "vocab_size": 2003}  # tens of millions, which are odd
WIDER = OTHER | {"n_inner": 52}
TINY = OTHER | {"vocab_size": 31, "n_embd": 15, "n_head": 5, "n_inner": 20}


# The name in the checkpoint's file, or None for what it does not hold: the tied head, dropout.
checkpoints_name = hf.without("lm_head", "drop", endings=("transformer",), prefix="transformer.")
head_sizes = configs.head_sizes("n_embd", "n_head")


# Work


def work_case(name: str, config: dict[str, Any], *numbers: int) -> Case:
    """A case of the work: a config, and how many tokens are new and old."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        varied = draw.changed(config, n_layer=(2, 5), vocab_size=(31, 67))
        return [Config(varied), *(draw.number(f"tokens {i}", n, 1, 13) for i, n in enumerate(numbers))]

    return Case(name, draw_args)


WORK = Exercise(
    name="kv_cache.work",
    solution="multiply_adds",
    reference=count_products,
    function=True,
    points=3,
    cases=[
        work_case("a prompt of 7 tokens", SMALL, 7),
        work_case("one token after 10", SMALL, 1, 10),
        work_case("3 tokens after 5, an MLP of its own width", OTHER, 3, 5),
        work_case("n_inner is null, more than float32 can count", WIDE, 3, 6),
    ],
)


# The cache


AFTER_RESET = {"drive": drives.last_contents, "right": right_last}
AFTER_REFUSALS = {"drive": drives.contents_after_refusals, "right": right_last}
REFUSALS = {"drive": drives.refusals, "right": lambda *args: right_fill(*args).codes}
LENGTHS = {"drive": caches.lengths, "right": lambda *args: right_fill(*args).lengths}
COPIES = {"drive": drives.copies, "right": lambda kv, capacity, chunks: [0] * (2 * len([n for n in chunks if n]) - 2)}


IN_TURNS = {"drive": caches.contents_in_turns, "right": right_contents_in_turns}


def cache_case(name: str, capacity: int, chunks: list[int], sizes: Sequence[int] = (2, 3, 4), **more: Any) -> Case:
    """A case of kv_cache.cache; a chunk of 0 is a reset. sizes: batch, heads and head_dim."""
    B, H, head_dim = sizes
    fine = more.get("dtype") == torch.float64  # numbers that float32 does not hold

    def draw_args(draw: Draw) -> Sequence[Any]:
        batch, heads, width = draw.size("B", B, 1, 3), draw.size("H", H, 5), draw.size("head_dim", head_dim, 6, 10)
        shape = (2, batch, heads, sum(chunks), width)
        kv = draw.tokens(2001, *shape).double() / 777 - 1 if fine else draw.normal(*shape)
        return kv, capacity, chunks

    return Case(name, draw_args, **more)


CACHE = Exercise(
    name="kv_cache.cache",
    solution="KVCache",
    reference=right_contents,
    drive=drives.all_contents,
    function=True,
    differentiable=False,
    points=6,
    fixed={"argument 1, axis 0": "keys and values"},
    cases=[
        cache_case("a prompt and two tokens", 15, [4, 1, 1]),
        cache_case("chunks of several sizes", 23, [1, 3, 2, 3], (3, 2, 5)),
        cache_case("two caches in turns", 12, [3, 1, 2], (1, 2, 3), **IN_TURNS),
        cache_case("its length, with a reset in between", 20, [4, 1, 3, 0, 2, 1], **LENGTHS),
        cache_case("another text after a reset, in bfloat16", 20, [6, 1, 0, 2, 1], dtype=torch.bfloat16, **AFTER_RESET),
        cache_case(
            "which appends are refused (0: none), and the length after each; a reset before the last",
            14,
            [12, 3, 2, 1, 2, 0, 4],
            (1, 3, 2),
            **REFUSALS,
        ),
        cache_case("the contents after a refusal", 8, [5, 4, 2], **AFTER_REFUSALS),
        cache_case("a prompt that fills the cache, and a token too many", 3, [3, 1], (1, 2, 3), **AFTER_REFUSALS),
        cache_case("nothing is copied (1: another place in memory)", 24, [5, 1, 1, 4], **COPIES),
        cache_case("the same memory after a reset (1: another place)", 24, [5, 1, 0, 1, 4], **COPIES),
        cache_case("bfloat16", 15, [4, 1, 2], dtype=torch.bfloat16),
        cache_case("float64", 9, [2, 1], (1, 2, 3), dtype=torch.float64),
    ],
)


# Attention


ALL_TOKENS = {"right": lambda module, x, chunks: torch.tensor(sum(chunks))}  # each is computed and appended once


def attention_case(name: str, config: dict[str, Any], chunks: list[int], batch: int = 2, **more: Any) -> Case:
    def draw_args(draw: Draw) -> Sequence[Any]:
        return draw.normal(draw.size("B", batch, 1, 3), sum(chunks) or 7, config["n_embd"]), chunks

    return Case(name, draw_args, {"config": config}, **more)


def far_from_zero(draw: Draw) -> Sequence[Any]:
    return alike(draw, 2, 6, SMALL["n_embd"], 12.0), [4, 1, 1]


ATTENTION = Exercise(
    name="kv_cache.attention",
    solution="CachedAttention",
    reference=lambda config: GPT2Attention(reference_config(config), layer_idx=0),
    call=lambda module, x, chunks: hf.call_part(module, x),
    drive=drives.attention_results,
    points=6,
    axes="B T D",
    sizes=head_sizes,
    renamed=checkpoints_name,
    cases=[
        attention_case("without a cache", SMALL, []),
        attention_case("prefill of 5, then two tokens one by one", SMALL, [5, 1, 1]),
        attention_case("a prompt in chunks of 2, 4 and 2", OTHER, [2, 4, 2], batch=3),
        attention_case("one by one from the start", WIDER, [1] * 5),
        attention_case(
            "how many tokens are appended to the cache in all",
            SMALL,
            [4, 1, 2],
            drive=drives.tokens_appended,
            **ALL_TOKENS,
        ),
        attention_case("how many rows are computed in all", SMALL, [4, 1, 2], drive=drives.rows_computed, **ALL_TOKENS),
        Case("scores far from 0", far_from_zero, {"config": SMALL}, draw="2"),
        attention_case("bfloat16", SMALL, [4, 1, 3], dtype=torch.bfloat16),
    ],
)


# The model


NEW_CACHE = {"drive": drives.logits_with_new_cache}
ROWS = {
    "drive": drives.rows_of_blocks,
    "right": lambda module, ids, chunks: torch.tensor(sum(chunks) * module.config.n_layer),
}
ELSEWHERE = {"drive": drives.tensors_elsewhere, "right": lambda *_: torch.tensor(0)}
MODELS_REFUSALS = {"drive": drives.models_refusals, "right": lambda *_: torch.tensor([0, 1, 0, 1])}


def model_case(name: str, config: dict[str, Any], batch: int, chunks: list[int], **more: Any) -> Case:
    def draw_args(draw: Draw) -> Sequence[Any]:
        return draw.tokens(config["vocab_size"], batch, sum(chunks)), chunks

    return Case(name, draw_args, {"config": config}, **more)


MODEL = Exercise(
    name="kv_cache.model",
    solution="CachedGPT2",
    reference=lambda config: GPT2LMHeadModel(reference_config(config)),
    call=hf.logits,
    drive=drives.logits,
    uses=["kv_cache.attention", "kv_cache.cache"],
    points=6,
    axes="B T vocab_size",
    sizes=head_sizes,
    renamed=checkpoints_name,
    differentiable=False,
    cases=[
        Case("without a cache", lambda draw: [draw.tokens(53, 2, draw.size("T", 7, 9))], {"config": SMALL}),
        model_case("prefill of 5, then one by one", SMALL, 2, [5, 1, 1]),
        model_case("a prompt in chunks of 3, 2 and 4", WIDER, 3, [3, 2, 4]),
        model_case(
            "two texts in turns, a new_cache for each", TINY, 2, [3, 1, 2], drive=drives.logits_of_texts_in_turns
        ),
        model_case("prefill and decode, with new_cache", SMALL, 2, [4, 1, 2], **NEW_CACHE),
        model_case("another text after a reset", TINY, 2, [4, 1], drive=drives.logits_after_reset),
        model_case("how many rows all blocks compute together", TINY, 2, [5, 1, 1, 2], **ROWS),
        model_case(
            "room for n_positions, for one more; 6 tokens in 6 places, one more (1: ValueError)",
            TINY,
            2,
            [4, 2],
            **MODELS_REFUSALS,
        ),
        model_case("how many tensors of new_cache are on another device than the weights", TINY, 2, [3], **ELSEWHERE),
        model_case("bfloat16, with new_cache", SMALL, 2, [4, 1, 2], dtype=torch.bfloat16, **NEW_CACHE),
    ],
)


# Generation


ROWS_READ = {"drive": drives.rows_read, "right": right_rows_read}
WITHOUT_ROOM = {"drive": drives.rows_without_room, "right": lambda *_: 0}
DESPITE_CONFIG = {
    "drive": generation.generated_despite_config,
    "right": lambda toy, ids, new_tokens, end: reference_generate(toy, ids, new_tokens),
}
INTS = {"drive": drives.ints_generated, "right": lambda toy, ids, new_tokens, end: [1] * new_tokens}
ROOM = {"drive": drives.room_asked, "right": lambda toy, ids, new_tokens, end: ids.shape[1] + new_tokens - 1}


def generation_case(
    name: str, prompt: int, new_tokens: int, n_positions: int = 64, stops: bool | str = False, **more: Any
) -> Case:
    """stops: whether an end token comes, and not as the first, second or last; "prompt": one that the prompt has too;
    "zero": token 0."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        vocabulary = 47 if n_positions < 64 else 61
        toy, ids, end = toy_that_ends(draw, n_positions, prompt, new_tokens, vocabulary=vocabulary, ends=stops)
        return toy, ids, new_tokens, end if stops else None

    return Case(name, draw_args, **more)


GENERATE = Exercise(
    name="kv_cache.generate",
    solution="generate_cached",
    reference=reference_generate,
    drive=drives.generated,
    function=True,
    points=5,
    fixed=FIXED,
    cases=[
        generation_case("8 new tokens", 5, 8),
        generation_case("stops at the end token", 4, 9, stops=True),
        generation_case("the end token is in the prompt too", 6, 8, stops="prompt"),
        generation_case("the end token is 0", 5, 6, stops="zero"),
        generation_case("after another prompt, with the same model", 5, 6, drive=drives.generated_again),
        generation_case("how many rows the model computes in all", 6, 7, **ROWS_READ),
        generation_case("the same where an end token comes", 7, 8, stops=True, **ROWS_READ),
        generation_case("how many rows find no room in the cache", 6, 7, **WITHOUT_ROOM),
        generation_case("for how many tokens room is asked", 5, 7, **ROOM),
        generation_case("up to the model's last position", 5, 8, n_positions=12),
        generation_case("an end token in the config, and none given", 5, 8, stops=True, **DESPITE_CONFIG),
        generation_case("which of the tokens are Python ints (1: yes)", 4, 6, **INTS),
        generation_case("two texts in turns, with the same model", 6, 7, drive=generation.generated_in_turns),
        generation_case("a model in training mode is left in it (1: yes)", 5, 4, **generation.STILL_TRAINING),
    ],
)


# Bytes


def config_case(name: str, config: Mapping[str, Any], context: int, *others: int) -> Case:
    """A case of the bytes: a config, a context, and what else is given."""
    layers = "n_layer" if config["model_type"] == "gpt2" else "num_hidden_layers"

    def draw_args(draw: Draw) -> Sequence[Any]:
        bounds = (101, 999) if context > 100 else (1, 99)
        return [Config(draw.changed(config, **{layers: (2, 90)})), draw.number("context", context, *bounds), *others]

    return Case(name, draw_args)


def published(name: str, file: str, *numbers: int) -> Case:
    return config_case(name, configs.published(__file__, file), *numbers)


LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 5,
    "hidden_size": 48,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 100,
}
UNGROUPED = {name: value for name, value in LLAMA.items() if name != "num_key_value_heads"}

BYTES = Exercise(
    name="kv_cache.bytes",
    solution="cache_bytes",
    reference=bytes_at,
    function=True,
    points=4,
    fixed={
        f"argument 1.{field}": "as published; no cache depends on it"
        for field in ("initializer_range", "attention_dropout", "rms_norm_eps", "rope_theta")
    },
    cases=[
        published("GPT-2 XL, one token", "gpt2-xl", 1),
        config_case(
            "a GPT-2, and more tokens than it has positions",
            {"model_type": "gpt2", "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 100},
            130,
        ),
        published("Qwen3 4B, one token", "qwen3-4b", 1),
        published("Qwen3 0.6B, 30 texts of 1,000 tokens in float32", "qwen3-0.6b", 1000, 30, 4),
        config_case("a config that says nothing of head_dim", LLAMA, 7),
        config_case("a head_dim of its own", LLAMA | {"head_dim": 20}, 5, 1, 1),
        config_case("more tokens than the model has positions", LLAMA | {"num_key_value_heads": 3}, 130),
        config_case("a config that says nothing of key-value heads", UNGROUPED | {"head_dim": None}, 7, 2),
        config_case("key-value heads are null", LLAMA | {"num_key_value_heads": None}, 9),
        config_case("nothing of key-value heads, a head_dim of its own", UNGROUPED | {"head_dim": 20}, 7),
        config_case("a model_type that begins with gpt, and is not gpt2", UNGROUPED | {"model_type": "gpt_neox"}, 7),
        config_case("weights in float32, the cache as usual", LLAMA | {"torch_dtype": "float32"}, 7),
    ],
)


# Grouped queries


def grouped_case(
    name: str, heads: int, kv_heads: int, chunks: list[int], sizes: Sequence[int] = (2, 8), **more: Any
) -> Case:
    """sizes: batch and head_dim."""
    B, width = sizes

    def draw_args(draw: Draw) -> Sequence[Any]:
        batch, length, head_dim = draw.size("B", B, 1, 3), sum(chunks), draw.size("head_dim", width, 6, 12)
        return draw.normal(batch, heads, length, head_dim), draw.normal(2, batch, kv_heads, length, head_dim), chunks

    return Case(name, draw_args, **more)


def groups_far_from_zero(draw: Draw) -> Sequence[Any]:
    """Tokens that have much in common: all scores are near -120."""
    shared = torch.nn.functional.normalize(draw.normal(8), dim=0) * (120 * 8**0.5) ** 0.5
    q = shared + draw.normal(1, 4, 5, 8, scale=0.1)
    k = draw.normal(1, 2, 5, 8, scale=0.1) - shared
    return q, torch.stack([k, draw.normal(1, 2, 5, 8)]), [3, 2]


def with_query_of_zeros(draw: Draw) -> Sequence[Any]:
    """The second of three queries is 0, and with it all its scores: it attends to both tokens alike."""
    q = draw.normal(1, 4, 3, 6)
    q[:, :, 1] = 0
    return q, draw.normal(2, 1, 2, 3, 6), [2, 1]


GROUPED = Exercise(
    name="kv_cache.grouped",
    solution="grouped_attention",
    reference=right_groups,
    drive=drives.grouped_results,
    function=True,
    points=4,
    axes="B H T head_dim",
    gradients_of=[0, 1],
    fixed={"argument 2, axis 0": "keys and values"},
    cases=[
        grouped_case("6 heads on 2, prefill of 5, then one by one", 6, 2, [5, 1, 1]),
        grouped_case("8 heads on 2, in chunks of 2, 3 and 4", 8, 2, [2, 3, 4], (1, 10)),
        grouped_case("9 heads on 3, one by one", 9, 3, [1, 1, 1, 1]),
        # Every score is near -120, of which rounding moves more than of scores around 0.
        Case("scores far from 0", groups_far_from_zero, tolerance=Tolerance(2e-4)),
        Case("a query of zeros, whose scores are all 0", with_query_of_zeros),
        grouped_case("bfloat16", 4, 2, [2, 1], (1, 6), dtype=torch.bfloat16),
        grouped_case(
            "how many numbers the cache was given",
            6,
            2,
            [4, 1, 2],
            drive=drives.numbers_stored,
            right=lambda q, kv, chunks: kv.numel(),
        ),
    ],
)


# When a cache pays


def pays_case(name: str, config: dict[str, Any], devices: list[list[float]], *others: int) -> Case:
    """A case of when a cache pays: a config; speed and bandwidth of devices; how many texts, and bytes a number."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        varied = draw.changed(config, n_layer=(2, 5), vocab_size=(31, 67))
        share = draw.number("percent of the speed", 100, 60, 95) / 100
        return [Config(varied), [[share * speed, bandwidth] for speed, bandwidth in devices], *others]

    return Case(name, draw_args)


PAYS = Exercise(
    name="kv_cache.pays",
    solution="pays_after",
    reference=right_pays,
    function=True,
    differentiable=False,
    drive=drives.pays_on,
    uses=["kv_cache.work", "kv_cache.bytes"],
    points=4,
    axes="device",
    cases=[
        pays_case("one text", SMALL, [[3e4, 5e2], [2e3, 5e5]]),
        pays_case("three texts", OTHER, [[9e4, 1.1e3], [1.5e5, 7e2]], 3),
        pays_case(
            "two texts, four bytes a number", SMALL | {"n_embd": 12, "n_inner": 70}, [[5e4, 9e2], [4e2, 3e2]], 2, 4
        ),
        pays_case(
            "five texts, on one device computing is slow", SMALL | {"n_inner": 30}, [[4e2, 2.5e2], [7e4, 9e2]], 5
        ),
        pays_case(
            "a narrow model, in which attention has a large share of the work",
            SMALL | {"n_embd": 6, "n_inner": 5, "n_layer": 5, "vocab_size": 31},
            [[7.1e3, 4e2], [3.68e4, 1.3e3], [3.35e4, 2e3], [4.53e4, 9e2]],
        ),
        pays_case("two texts, one byte a number", OTHER | {"n_inner": 21}, [[7e4, 1.3e3], [3e4, 2e2]], 2, 1),
    ],
)

EXERCISES = with_mistakes(__file__, [WORK, CACHE, ATTENTION, MODEL, GENERATE, BYTES, PAYS, GROUPED])
