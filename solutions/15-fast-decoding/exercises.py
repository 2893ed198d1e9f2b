"""What the exercises of 15-fast-decoding are checked against: transformers' attention, and brute force (reference.py)."""

from collections.abc import Sequence
from typing import Any

import torch

from grader.authoring.kit import Case, Config, Draw, Exercise, Tolerance, configs, hf, with_mistakes
from grader.authoring.kit.configs import fields_of
from grader.authoring.kit.toy import FIXED, toy_that_ends

from . import drives
from .reference import (
    build_attention,
    call_attention,
    cut,
    near_codes,
    pick_one,
    right_asked,
    right_bound,
    right_bytes,
    right_codes,
    right_contents,
    right_fused,
    right_guesses,
    right_int8,
    right_long_runs,
    right_lookup,
    right_memory,
    right_pieces,
    right_room,
    right_rows,
    right_runs,
    right_speed_up,
    right_step,
    right_text,
    right_tokens,
    right_wanted,
    rope_table,
)

# The heads of both kinds, head_dim and D are all different numbers, and head_dim is not D / heads.
SMALL: dict[str, Any] = {
    "model_type": "qwen3",
    "vocab_size": 53,
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-3,
    "tie_word_embeddings": True,
}
OTHER: dict[str, Any] = SMALL | {
    "vocab_size": 47,
    "hidden_size": 30,
    "intermediate_size": 44,
    "num_hidden_layers": 2,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 8,
    "rms_norm_eps": 1e-2,
    "tie_word_embeddings": False,
}
LLAMA: dict[str, Any] = {name: value for name, value in SMALL.items() if name != "head_dim"} | {
    "model_type": "llama",
    "tie_word_embeddings": False,
}
UNSAID: dict[str, Any] = {name: value for name, value in OTHER.items() if name != "tie_word_embeddings"}
NO_GROUP = SMALL | {"num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 6, "hidden_size": 20}


# The limit


BYTES_READ = (
    "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "tie_word_embeddings",
)  # fmt: skip


def limit_case(name: str, config: dict[str, Any], context: int, *sizes: int) -> Case:
    def draw_args(draw: Draw) -> Sequence[Any]:
        varied = draw.changed(fields_of(config, *BYTES_READ), num_hidden_layers=(2, 40), vocab_size=(31, 99_999))
        return [Config(varied), draw.number("context", context, 1, 999) if context else 0, *sizes]

    return Case(name, draw_args)


LIMIT = Exercise(
    name="fast_decoding.limit",
    solution="bytes_for_a_token",
    reference=right_bytes,
    function=True,
    points=4,
    cases=[
        limit_case("SmolLM2 135M, no context", configs.published(__file__, "smollm2-135m"), 0),
        limit_case("a Qwen3 with a tied head, 7 tokens", SMALL, 7),
        limit_case("a Qwen3 with a head of its own, weights of 2 bytes", OTHER, 11, 2),
        limit_case("a Llama, weights of 1 byte and a cache of 2", LLAMA, 30, 1, 2),
        limit_case("more than float32 can count", OTHER | {"hidden_size": 5001, "vocab_size": 60_001}, 13, 1, 3),
        limit_case("a config that does not say whether the head is tied", UNSAID, 9, 2),
        limit_case("a Llama with a head_dim in its config", LLAMA | {"head_dim": 14}, 17, 1, 2),
        limit_case("a Llama with a tied head", LLAMA | {"tie_word_embeddings": True, "hidden_size": 40}, 5, 2, 4),
    ],
)


# The cache


CODES = {"drive": drives.refusals_and_lengths, "right": lambda *args: cut(*args)[1]}


def copies_right(kv: Any, capacity: int, steps: list[int]) -> list[int]:
    return [0] * (2 * len([step for step in steps if step > 0]) - 2)


COPIES = {"drive": drives.copies_made, "right": copies_right}


def cache_case(name: str, capacity: int, steps: list[int], sizes: Sequence[int] = (2, 3, 4), **more: Any) -> Case:
    """steps: as `drives.cache_steps` has them. sizes: batch, heads and head_dim."""
    B, H, width = sizes

    def draw_args(draw: Draw) -> Sequence[Any]:
        shape = (
            draw.size("B", B, 1, 3),
            draw.size("H", H, 5),
            sum(n for n in steps if 0 < n < 100),
            draw.size("w", width, 6),
        )
        return [draw.normal(2, *shape), capacity, steps]

    return Case(name, draw_args, **more)


CACHE = Exercise(
    name="fast_decoding.cache",
    solution="Cache",
    reference=right_contents,
    drive=drives.contents_at_each_append,
    function=True,
    differentiable=False,
    points=5,
    fixed={"argument 1, axis 0": "keys and values"},
    cases=[
        cache_case("a prompt and two tokens", 15, [4, 1, 1]),
        cache_case("4 guesses of which 3 are taken back", 23, [5, 4, -3, 1, 2], (3, 2, 5)),
        cache_case("cut back twice, and to nothing", 12, [3, -1, 2, -4, 5], (1, 2, 3)),
        cache_case("room for exactly as many", 9, [4, 5, -2, 2], (1, 4, 2)),
        cache_case(
            "what is refused (1: ValueError), and the length", 11, [6, 7, -7, 2, -3, 103, 6, -5, -1, 101, 0, 9], **CODES
        ),
        cache_case("one token more than fits, and the length", 6, [4, 2, 1, -1, 1], **CODES),
        cache_case("nothing is copied (1: another place in memory)", 24, [5, 1, -2, 1, 4], **COPIES),
        cache_case("bfloat16", 17, [4, 2, -1, 3], dtype=torch.bfloat16),
    ],
)


# Fused projections


LOADED = {"drive": drives.fused_after_loading, "right": lambda x, weight, sizes: x @ weight.T}
ONE_PRODUCT = {"drive": drives.products_of_the_function, "right": lambda *_: [1]}
OTHERS = {"drive": drives.fused_before_others}
FROZEN = {"drive": drives.gradients_asked, "right": lambda x, weight, sizes: [i % 2 for i in range(len(sizes))]}
MEMORY = {"drive": drives.bytes_of_layers, "right": right_memory}


def fused_case(name: str, sizes: list[int], width: int, *shape: int, **more: Any) -> Case:
    """sizes: of the layers' outputs; width: of their input; shape: of x without its last axis, perhaps nothing."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        inner = draw.size("width", width, width + 1, width + 3)
        rows = [draw.size("B", size, size + 1) for size in shape[:1]]
        x = draw.normal(*rows, *shape[1:], inner)
        return [x, draw.normal(sum(sizes), inner), sizes]

    return Case(name, draw_args, **more)


FUSED = Exercise(
    name="fast_decoding.fused",
    solution="fuse",
    reference=right_fused,
    drive=drives.fused_results,
    function=True,
    differentiable=False,
    points=5,
    axes="B T out",
    cases=[
        fused_case("three layers of different sizes", [6, 3, 4], 5, 2, 3),
        fused_case("gate and up", [7, 7], 4, 1, 2),
        fused_case("one layer", [5], 3, 3, 4),
        fused_case("after other weights were loaded into the layers", [4, 2, 3], 6, 2, 5, **LOADED),
        fused_case(
            "memories behind the weights, their bytes, names, parameters, shapes, and how many old weights are kept",
            [3, 5, 2],
            7,
            1,
            1,
            **MEMORY,
        ),
        fused_case("other layers of the same sizes are fused after these", [3, 6], 4, 2, 2, **OTHERS),
        fused_case(
            "which weights get gradients (1: yes), every second one frozen before", [2, 3, 5], 6, 1, 2, **FROZEN
        ),
        fused_case("operators that read weights", [2, 4, 3], 9, 2, 4, **ONE_PRODUCT),
        fused_case("bfloat16", [4, 6], 8, 2, 2, dtype=torch.bfloat16),
        fused_case("one vector", [3, 8], 10),
        fused_case("rows of one text", [5, 4, 2], 11, 6),
    ],
)


# Attention


ATTENTION_READ = (
    "model_type", "hidden_size", "rms_norm_eps", "num_attention_heads", "num_key_value_heads", "head_dim",
)  # fmt: skip
PRODUCTS = {"drive": drives.products_of_a_step, "right": lambda *_: torch.tensor(2)}
LARGE = {"drive": drives.as_large_as_the_keys, "right": lambda *_: torch.tensor(0)}


def attention_case(
    name: str, config: dict[str, Any], batch: int, chunks: list[int], length: int = 0, **more: Any
) -> Case:
    """A case of attention: x [batch, T, D] in chunks, at positions from 3 on."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        T, D = sum(chunks) or length, config["hidden_size"]
        width = config.get("head_dim") or D // config["num_attention_heads"]
        x = draw.normal(draw.size("B", batch, batch + 1), T, D)
        start = draw.number("start", 3 + T, 1, 40)
        return [x, rope_table(torch.arange(start, start + T), width, 700.0 + 10 * D), chunks]

    return Case(name, draw_args, {"config": fields_of(config, *ATTENTION_READ)}, **more)


ATTENTION = Exercise(
    name="fast_decoding.attention",
    solution="FastAttention",
    reference=build_attention,
    call=call_attention,
    drive=drives.attention_results,
    differentiable=False,
    points=9,
    axes="B T D",
    sizes=configs.head_sizes("hidden_size", "num_attention_heads", "num_key_value_heads"),
    renamed=hf.without(*hf.NO_MODULES),
    uses=["fast_decoding.fused"],
    fixed={"argument 2, axis 0": "cosines and sines"},
    cases=[
        attention_case("without a cache", SMALL, 2, [], 7),
        attention_case("prefill of 5, then one by one", SMALL, 1, [5, 1, 1]),
        attention_case("three query heads for each key, in chunks of 3, 4 and 2", OTHER, 3, [3, 4, 2]),
        attention_case("a Llama, chunks of 2, 1 and 5", LLAMA, 2, [2, 1, 5]),
        attention_case("no head is shared", NO_GROUP, 1, [4, 2]),
        attention_case("operators that read weights, for one token", OTHER, 1, [], 40, **PRODUCTS),
        attention_case("a tensor as large as the keys is made for one token (1: yes)", SMALL, 1, [], 90, **LARGE),
        attention_case("bfloat16", SMALL, 2, [4, 1, 2], dtype=torch.bfloat16),
    ],
)


# Int8


def int8_case(
    name: str, rows: int, width: int, *shape: int, scale: float = 0.01, zero: int | None = None, **more: Any
) -> Case:
    def draw_args(draw: Draw) -> Sequence[Any]:
        inner = draw.size("width", width, width + 1, width + 4)
        x = draw.normal(draw.size("B", shape[0], shape[0] + 1), *shape[1:], inner)
        while True:
            weight = near_codes(draw, rows, inner, scale, zero)
            steps = 127 * weight.bfloat16().double() / weight.bfloat16().double().abs().amax(dim=1, keepdim=True)
            if more.get("drive") is not drives.int8_codes_of_16 or bool(((steps % 1) - 0.5).abs().min() > 0.01):
                return [x, weight]

    return Case(name, draw_args, **more)


OF_16 = {"drive": drives.int8_codes_of_16, "right": lambda x, weight: right_codes(x, weight.bfloat16())}
BOUND = {"drive": drives.int8_bound, "right": right_bound}
ALL_CODES = {"drive": drives.int8_codes, "right": right_codes}
HELD = {"drive": drives.int8_bytes, "right": lambda x, weight: [weight.numel() + 4 * len(weight), 2, 0, 0]}
INT8 = Exercise(
    name="fast_decoding.int8",
    solution="Int8Linear",
    reference=right_int8,
    drive=drives.int8_results,
    function=True,
    differentiable=False,
    points=7,
    axes="B T out",
    cases=[
        int8_case("what forward gives", 6, 9, 2, 3),
        int8_case("tiny weights", 5, 12, 1, 4, scale=1e-9),
        int8_case("a row of zeros", 4, 7, 3, 2, zero=2),
        int8_case("the codes, and 1,000 times the scales", 7, 11, 1, 1, **ALL_CODES),
        int8_case("the codes where a row is 0", 3, 8, 1, 2, zero=0, **ALL_CODES),
        int8_case("the codes of a weight in bfloat16", 6, 30, 1, 1, **OF_16),
        int8_case("the bound", 5, 10, 2, 4, **BOUND),
        int8_case("what is held: bytes, tensors, tensors that get gradients and old weights", 8, 20, 1, 3, **HELD),
        int8_case("bfloat16", 6, 16, 2, 2, dtype=torch.bfloat16, tolerance=Tolerance(3e-2)),
    ],
)


# Sampling


def distributions(draw: Draw, rows: int, V: int) -> Any:
    """Probabilities [rows, V]; some of them 0."""
    logits = draw.normal(rows, V, scale=1.5)
    logits[:, 0] = torch.where(draw.normal(rows) > 0.5, float("-inf"), logits[:, 0])
    return logits.softmax(dim=-1)


def clear_of_edges(p: Any, q: Any, drafts: Any, u: Any) -> bool:
    """Whether no random number is near an edge where another order of additions could decide otherwise."""
    rows = torch.arange(len(drafts))
    near = (u[0] * q[rows, drafts] - p[rows, drafts]).abs().min()
    rest = (p - q).clamp(min=0)
    total = rest.sum(dim=-1, keepdim=True)
    edges = (rest / total.clamp(min=1e-30)).cumsum(dim=-1)[:, :-1]
    known = total[:, 0] > 1e-6
    close = (edges - u[1][:, None]).abs()[known]
    return bool(near > 1e-4) and (close.numel() == 0 or bool(close.min() > 1e-4))


def near_edges(p: Any, q: Any, drafts: Any, u: Any) -> Any:
    """Random numbers [2, N] that decide narrowly: by 0.0002 in p or, where that is impossible, at an edge of what is left."""
    rows = torch.arange(len(drafts))
    side = torch.where(u[0] < 0.5, -2e-4, 2e-4)
    accept_at = (p[rows, drafts] + side) / q[rows, drafts]
    edges = (p - q).clamp(min=0).cumsum(dim=-1)
    first = (edges / edges[:, -1:].clamp(min=1e-30)).gather(1, (p > q).int().argmax(dim=-1, keepdim=True))[:, 0]
    possible = (accept_at >= 0) & (accept_at < 1)
    narrow = torch.stack([torch.where(possible, accept_at, u[0]), (first + side).clamp(0, 0.9999)])
    return (narrow * 2**16).round() / 2**16  # the same numbers, whatever a processor makes of the last bits


def accept_case(name: str, N: int, V: int, kind: str = "", **more: Any) -> Case:
    """kind: "equal" for a q that is p; "one-hot" for a greedy draft; "near" for a rejected guess where they
    are nearly equal; "narrow" for random numbers next to where another token would come out; "zero" for random numbers
    of 0, where half of the guesses, and what is left of the first token, are 0 under p."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        rows = draw.size("N", N, N + 1, N + 2)
        while True:
            p, q = distributions(draw, rows, V), distributions(draw, rows, V)
            if kind == "equal":
                q = p.clone()
            drafts = torch.multinomial(q, 1, generator=draw.generator)[:, 0]
            if kind == "near":
                q, drafts = p.clone(), (p.argmax(dim=-1) + 1) % V
                p[torch.arange(rows), drafts], q[torch.arange(rows), drafts] = 0.0, 2.0**-22
                q[torch.arange(rows), p.argmax(dim=-1)] -= 2.0**-22
            if kind == "one-hot":
                q = torch.nn.functional.one_hot(drafts, V).float()
            u = torch.rand(2, rows, generator=draw.generator)
            if kind == "near":
                return [p, q, drafts, u]
            if kind == "zero":
                p, q = p.clone(), draw.normal(rows, V).softmax(dim=-1)
                p[:, 0] = 0.0
                p, drafts = p / p.sum(dim=-1, keepdim=True), drafts.where(torch.arange(rows) % 2 > 0, 0)
                if (p - q).abs().min() > 1e-3 and p[1::2, 1:].min() > 1e-3 and (drafts[1::2] > 0).all():
                    return [p, q, drafts, 0 * u]
                continue
            if kind == "narrow":
                u = near_edges(p, q, drafts, u)
            if clear_of_edges(p, q, drafts, u):
                return [p, q, drafts, u]

    return Case(name, draw_args, **more)


def frequency_case(name: str, V: int, count: int) -> Case:
    def draw_args(draw: Draw) -> Sequence[Any]:
        p, q = distributions(draw, 2, V)
        return [p, q, draw.number("count", count, 90_000, 110_000)]

    return Case(
        name,
        draw_args,
        drive=drives.frequencies,
        right=lambda p, q, count: p,
        tolerance=Tolerance(0.03),
    )


def right_large_tokens(*args: Any) -> Any:
    return right_tokens(*args) + torch.tensor([[40_000], [0]])


ACCEPT = Exercise(
    name="fast_decoding.accept",
    solution="accept_or_resample",
    reference=right_tokens,
    drive=drives.tokens_and_accepted,
    function=True,
    differentiable=False,
    points=7,
    fixed={"argument 4, axis 0": "the numbers for acceptance, and those to sample with"},
    cases=[
        accept_case("9 guesses of 5 tokens", 9, 5),
        accept_case("20 guesses of 3 tokens", 20, 3),
        accept_case("p and q are equal", 6, 4, "equal"),
        accept_case("a greedy draft: q is 1 for its guess", 12, 6, "one-hot"),
        accept_case("p and q differ by 2^-22", 8, 7, "near"),
        accept_case("numbers that decide narrowly", 40, 5, "narrow"),
        accept_case("accept_at and sample_at are exactly 0", 10, 6, "zero"),
        accept_case("ids from 40,000 on", 3, 8, drive=drives.tokens_of_large_ids, right=right_large_tokens),
        frequency_case("frequencies of 100,000 tokens", 4, 100_000),
        frequency_case("frequencies of 95,000 tokens", 7, 95_000),
    ],
)


def step_case(name: str, g: int, V: int, want: int | None = None, close: float = 0.5, **more: Any) -> Case:
    """want: how many guesses are accepted before the first that is not; close: how near q is to p, 0 to 1."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        while True:
            p, other = distributions(draw, g + 1, V), distributions(draw, g + 1, V)
            q = (close * p + (1 - close) * other)[:g]
            drafts = torch.multinomial(q, 1, generator=draw.generator)[:, 0] if g else torch.zeros(0, dtype=torch.int64)
            u = torch.rand(2 * g + 1, generator=draw.generator)
            both = torch.stack([u[:g], u[g : 2 * g]])
            if g and not clear_of_edges(p[:g], q, drafts, both):
                continue
            if (p[g].cumsum(-1)[:-1] - u[-1]).abs().min() < 1e-4:
                continue
            kept = (u[:g] * q[range(g), drafts] < p[range(g), drafts]).long()
            before = int(kept.cumprod(0).sum())
            from_place = pick_one(p[g].tolist(), float(u[-1]))  # what another place's number would not give
            if g and want == g and any(pick_one(p[g].tolist(), at) == from_place for at in u[g : 2 * g].tolist()):
                continue
            later = g == 0 or want in (None, g) or int(kept.sum()) > before or want == g - 1
            if want is None or (before == want and later):
                return [p, q, drafts, u]

    return Case(name, draw_args, **more)


STEP = Exercise(
    name="fast_decoding.step",
    solution="speculative_step",
    reference=right_step,
    drive=drives.tokens_of_step,
    function=True,
    differentiable=False,
    points=6,
    uses=["fast_decoding.accept"],
    cases=[
        step_case("the second of 4 guesses is rejected", 4, 13, 1),
        step_case("the first of 3 is rejected, a later one would be accepted", 3, 6, 0),
        step_case("all of 3 guesses are accepted", 3, 4, 3, close=0.8),
        step_case("the last of 5 is rejected", 5, 7, 4, close=0.7),
        step_case("no guess", 0, 8),
        step_case("all of 2 are accepted", 2, 9, 2, close=0.7),
    ],
)


# Generation with guesses


def guess_case(
    name: str,
    prompt: int,
    numbers: Sequence[int],
    turns: list[int],
    stops: bool | str = False,
    near: bool = False,
    **more: Any,
) -> Case:
    """numbers: new tokens, guesses, and how many of them are offered. turns: how many of each step's are right, in turns.

    stops: whether an end token comes, in the middle; "prompt": one that the prompt has, too; "last": the prompt's last
    token is one. near: whether all logits are nearly equal.
    """

    def draw_args(draw: Draw) -> Sequence[Any]:
        vocabulary = 47 + 2 * prompt
        length = draw.size("prompt", prompt, prompt + 1, prompt + 2)
        kind = {"vocabulary": vocabulary, "ends": stops or True}
        toy, ids, end = toy_that_ends(draw, 80 + prompt, length, numbers[0] or 4, **kind)
        if near:
            with torch.no_grad():
                toy.head.mul_(2.0**-12)  # a power of two, so that the largest logit stays the largest
        end = int(ids[0, -1]) if stops == "last" else end
        return [toy, ids, list(numbers), end if stops else None, turns]

    return Case(name, draw_args, **more)


PIECES = {"drive": drives.pieces_read, "right": right_pieces}
ASKED = {"drive": drives.guesses_asked, "right": right_asked}
ROOM = {"drive": drives.room_for_guesses, "right": right_room}
FIRST = {"drive": drives.runs_before_the_first, "right": lambda *_: [1]}
COUNT = {"drive": drives.tokens_counted, "right": lambda toy, ids, numbers, end, right: [numbers[0]]}
INTS = {"drive": drives.ints_guessed, "right": lambda toy, ids, numbers, end, right: [1] * numbers[0]}
GENERATE = Exercise(
    name="fast_decoding.generate",
    solution="generate_with_guesses",
    reference=right_text,
    drive=drives.guessed_text,
    function=True,
    points=10,
    fixed=FIXED,
    without={
        "ids further": "the model has no such ids",
    },
    cases=[
        guess_case("no guess is right", 5, [8, 3, 3], [0]),
        guess_case("all guesses are right", 4, [10, 3, 3], [9]),
        guess_case("0, 2, 4 and 1 of 4 guesses are right, in turns", 6, [14, 4, 4], [0, 2, 4, 1]),
        guess_case("fewer guesses come than were asked for, and none", 5, [9, 5, 2], [1, 2, 0]),
        guess_case("nobody guesses", 3, [6, 2, 0], [0]),
        guess_case("an end token among the guesses that are right", 5, [12, 6, 6], [6], stops=True),
        guess_case("an end token behind a wrong guess", 7, [11, 2, 2], [1, 0], stops="prompt"),
        guess_case("the end token is 0", 4, [8, 3, 2], [1], stops="zero"),
        guess_case("how many ids each run reads", 6, [13, 3, 3], [2, 0, 3], **PIECES),
        guess_case("the same, where an end token comes", 8, [16, 4, 3], [1, 4], stops=True, **PIECES),
        guess_case("how many guesses are asked for, after which lengths", 4, [15, 6, 4], [4, 1], **ASKED),
        guess_case("for how many tokens room is asked, and ids without room", 5, [15, 5, 5], [3, 5, 0], **ROOM),
        guess_case("how many tokens come where none is asked for", 9, [0, 6, 6], [2], **COUNT),
        guess_case("the prompt ends with the end token", 10, [7, 4, 4], [2, 0], stops="last"),
        guess_case("wrong guesses whose logits are nearly the largest", 11, [12, 3, 3], [1, 0, 2], near=True),
        guess_case("how many guesses are asked for, after a long prompt", 130, [5, 3, 3], [1], **ASKED),
        guess_case("how many runs there are before the first token comes", 12, [9, 3, 3], [1], **FIRST),
        guess_case("which of the tokens are Python ints (1: yes)", 6, [7, 2, 2], [1], **INTS),
    ],
)


def draft_case(name: str, prompt: int, steps: list[list[int]], **more: Any) -> Case:
    """steps: for each call how many of the guesses before hold, and how many are wanted."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        length = draw.size("prompt", prompt, prompt + 1, prompt + 2)
        toy, ids, _ = toy_that_ends(draw, 90 + prompt, length, 8, vocabulary=45 + 2 * prompt)
        return [toy, ids, steps]

    return Case(name, draw_args, **more)


ROWS = {"drive": drives.rows_of_a_draft, "right": right_rows}
DRAFT = Exercise(
    name="fast_decoding.draft",
    solution="DraftModel",
    reference=right_guesses,
    drive=drives.guesses_of_a_draft,
    function=True,
    points=7,
    fixed=FIXED,
    cases=[
        draft_case("4 guesses, once", 5, [[0, 4]]),
        draft_case("no guess holds, again and again", 4, [[0, 3], [0, 3], [0, 3]]),
        draft_case("all hold, then 2, then 1", 6, [[0, 4], [4, 4], [2, 3], [1, 2]]),
        draft_case("one guess at a time, and none", 3, [[0, 1], [1, 0], [0, 1], [0, 2]]),
        draft_case("another text, whose last 6 tokens are others", 8, [[0, 3], [-6, 3], [1, 2]]),
        draft_case("the same text again, one cut short, a token replaced", 9, [[0, 3], [99, 2], [-103, 3], [-205, 3]]),
        draft_case("how many ids are read in all, and caches made", 7, [[0, 4], [2, 4], [4, 3], [0, 2]], **ROWS),
        draft_case("the same where another text comes", 9, [[0, 2], [-6, 3], [1, 2]], **ROWS),
        draft_case("the same where all guesses hold", 5, [[0, 2], [2, 3], [3, 1], [1, 4]], **ROWS),
    ],
)


# Prompt lookup, replay, the formula


def lookup_case(name: str, length: int, vocabulary: int, n: int, longest: int, kind: str = "", **more: Any) -> Case:
    """kind: "none" for a last token that is new; "tail" for a tail that comes twice before, and its last token once more;
    "longer" for the same, the first time with the token before the tail; "single" for its last token alone, "first" for
    that at the beginning; "same" for one token; "digit" for a last id of one digit, with which earlier ids end."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        size = draw.size("length", length, length + 1, length + 3)
        tokens = draw.tokens(vocabulary, size).tolist()
        if kind == "none":
            tokens[-1] = vocabulary
        if kind in ("tail", "longer"):
            tail = tokens[-longest:]
            tokens[2 : 2 + longest] = tail
            tokens[4 + longest : 4 + 2 * longest] = tail
            tokens[7 + 2 * longest : 6 + 3 * longest] = tail[1:]
        if kind == "longer":
            tokens[1] = tokens[-1 - longest]
        if kind in ("single", "first"):
            tokens[5 if kind == "single" else 0] = tokens[-1]
        if kind == "same":
            tokens = tokens[:1] * size
        if kind == "digit":
            digit = draw.size("digit", 2, 3, 5)
            tokens = [10 * (1 + token // 10) + digit for token in tokens[:-1]] + [digit]
        return [tokens, n, longest]

    return Case(name, draw_args, **more)


HOW_MANY = {"drive": drives.how_many_looked_up, "right": lambda *args: right_lookup(*args)[:1]}
ANOTHER = {"drive": drives.looked_up_after_another, "right": right_lookup}
LOOKUP = Exercise(
    name="fast_decoding.lookup",
    solution="prompt_lookup",
    reference=right_lookup,
    drive=drives.looked_up,
    function=True,
    points=6,
    cases=[
        lookup_case("3 tokens that came twice before", 30, 90, 4, 3, "tail"),
        lookup_case("5 tokens that came twice before", 34, 95, 3, 5, "tail"),
        lookup_case("2 tokens that came twice before; at the earlier place 3 agree", 22, 60, 3, 2, "longer"),
        lookup_case("a small vocabulary, many places", 40, 3, 5, 4),
        lookup_case("only the last token came before", 26, 900, 2, 6, "single"),
        lookup_case("the last token was the first of the text", 17, 800, 3, 1, "first"),
        lookup_case("a match far back in a text of 1,300 tokens", 1300, 70_000, 4, 3, "tail"),
        lookup_case("after another text that begins with the same token", 24, 85, 2, 4, "tail", **ANOTHER),
        lookup_case("how many guesses come where nothing matches", 15, 30, 4, 3, "none", **HOW_MANY),
        lookup_case("how many come where the last id is a digit of others", 16, 80, 5, 2, "digit", **HOW_MANY),
        lookup_case("one token, again and again", 9, 20, 6, 5, "same"),
        lookup_case("how many come after a text of one token", 1, 40, 3, 2, "same", **HOW_MANY),
        lookup_case("a text of two equal tokens", 2, 50, 4, 4, "same"),
        lookup_case("how many come where none is wanted", 20, 65, 0, 7, "single", **HOW_MANY),
    ],
)


def replay_case(
    name: str, prompt: int, written: int, vocabulary: int, guesses: int, rule: list[int], first: int = 0, **more: Any
) -> Case:
    """A text that counts round and round and sometimes jumps, so that guesses are often right. rule: offered, wrong of
    three. first: its smallest id."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        jumps = draw.normal(prompt + written + 4)
        size = draw.size("written", written, written + 2, written + 4) if written else 0
        tokens = [0]
        while len(tokens) < prompt + size:
            jump = jumps[len(tokens)] > 1.0
            tokens.append(int(draw.tokens(vocabulary, 1)) if jump else (tokens[-1] + 1) % vocabulary)
        tokens = [first + token for token in tokens]
        return [tokens[:prompt], tokens[prompt : prompt + size], guesses, rule]

    return Case(name, draw_args, **more)


LONG = {"drive": drives.runs_of_long_text, "right": right_long_runs}
CALLS = {"drive": drives.guesses_wanted, "right": right_wanted}
REPLAY = Exercise(
    name="fast_decoding.replay",
    solution="runs_needed",
    reference=right_runs,
    drive=drives.runs_counted,
    function=True,
    points=4,
    cases=[
        replay_case("40 tokens, 6 guesses", 12, 40, 11, 6, [9, 0]),
        replay_case("one of three guesses is wrong", 8, 50, 4, 3, [8, 1]),
        replay_case("two of three are wrong", 10, 30, 6, 5, [7, 2]),
        replay_case("no more than 2 come", 6, 35, 3, 6, [2, 0]),
        replay_case("a text of 1,000 tokens, and nobody guesses", 5, 10, 7, 2, [0, 0], **LONG),
        replay_case("ids from 30,000 on", 7, 19, 5, 4, [6, 0], first=30_000),
        replay_case("how often guesses are asked for, and how many in all", 9, 45, 8, 7, [5, 1], **CALLS),
        replay_case("how often guesses are asked for where nothing is to be written", 4, 0, 9, 8, [3, 0], **CALLS),
    ],
)


def speed_case(name: str, acceptance: float, guesses: int, *costs: float) -> Case:
    def draw_args(draw: Draw) -> Sequence[Any]:
        a = acceptance if acceptance in (0.0, 1.0) else draw.number("a", round(100 * acceptance), 30, 95) / 100
        if 0.999 < acceptance < 1:
            a = 1 - draw.number("rejected", round(10_000 * (1 - acceptance)), 4, 8) / 10_000
        drawn = [draw.number(f"cost {i}", round(100 * cost), 5, 250) / 100 for i, cost in enumerate(costs)]
        return [a, draw.number("g", guesses, *((1, 9) if guesses < 100 else (150, 250))) if guesses else 0, *drawn]

    return Case(name, draw_args)


SPEED_UP = Exercise(
    name="fast_decoding.speedup",
    solution="speed_up",
    reference=right_speed_up,
    function=True,
    differentiable=False,
    points=3,
    cases=[
        speed_case("a half, 5 guesses, a fifth of the cost", 0.5, 5, 0.2),
        speed_case("verifying is not free", 0.8, 3, 0.1, 1.7),
        speed_case("every guess is right", 1.0, 4, 0.3, 1.2),
        speed_case("no guess is right", 0.0, 6, 0.05, 2.0),
        speed_case("no guess at all", 0.7, 0, 0.4, 1.3),
        speed_case("5 of 10,000 guesses are wrong, and there are 200", 0.9995, 200, 0.1),
    ],
)

EXERCISES = with_mistakes(
    __file__,
    [LIMIT, CACHE, FUSED, ATTENTION, INT8, ACCEPT, STEP, GENERATE, DRAFT, SPEED_UP, LOOKUP, REPLAY],
)
