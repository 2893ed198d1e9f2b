"""What the exercises of 05-mla are checked against: transformers' DeepSeek-V3, eager attention, dense MLPs."""

from collections.abc import Sequence
from typing import Any

import torch

from grader.authoring.kit import Case, Config, Draw, Exercise, Tolerance, configs, hf, with_mistakes
from grader.authoring.kit.configs import fields_of
from grader.authoring.kit.toy import FIXED, reference_generate
from grader.kv import bytes_at

from . import drives
from .reference import (
    absorbed_work,
    apply_rope,
    build_attention,
    build_compressor,
    build_model,
    call_attention,
    call_attention_with_work,
    call_compressor,
    close_args,
    generation_args,
    right_fill_of_rows,
    right_room_of_rows,
    right_rows,
    right_rows_in_turns,
    right_variance,
    rope_table,
)

TRACE = "mla.model"
WIDTHS = ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")

# No two sizes are equal, so that none can stand in for another; rms_norm_eps is large, for the latents ignore it.
SMALL: dict[str, Any] = {
    "model_type": "deepseek_v3",
    "hidden_act": "silu",
    "vocab_size": 53,
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "q_lora_rank": 20,
    "kv_lora_rank": 18,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-2,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 7000.0,  # no published model's, so that a fixed one shows
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    },
    "tie_word_embeddings": True,
}
YARN = SMALL["rope_parameters"]
# The same with other numbers everywhere.
OTHER: dict[str, Any] = SMALL | {
    "vocab_size": 37,
    "hidden_size": 20,
    "intermediate_size": 30,
    "num_hidden_layers": 2,
    "num_attention_heads": 5,
    "num_key_value_heads": 5,
    "q_lora_rank": 16,
    "kv_lora_rank": 15,
    "qk_nope_head_dim": 7,
    "qk_rope_head_dim": 4,
    "v_head_dim": 9,
    "max_position_embeddings": 320,
    "rms_norm_eps": 5e-2,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 800.0,
        "factor": 8.0,
        "original_max_position_embeddings": 40,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
        "mscale": 0.9,
        "mscale_all_dim": 0.8,
    },
}
# A model without a narrow query and without YaRN, whose config is written as the hub's older files are.
PLAIN: dict[str, Any] = {k: v for k, v in SMALL.items() if k != "rope_parameters"} | {
    "hidden_size": 28,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": None,
    "kv_lora_rank": 14,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 6,
    "v_head_dim": 5,
    "max_position_embeddings": 48,
    "rms_norm_eps": 1e-1,
    "rope_theta": 500.0,
    "rope_scaling": None,
}
PLAIN_2 = PLAIN | {"vocab_size": 41, "rope_theta": 300.0, "num_hidden_layers": 3}
V3 = configs.published(__file__, "deepseek-v3")


sizes = configs.sizes("hidden_size", "kv_lora_rank", *WIDTHS)


def hidden(config: dict[str, Any], batch: int, usual: int, *others: int, scale: float = 1.0) -> Any:
    """Draws x [batch, T, D]."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        return [draw.normal(batch, draw.size("T", usual, *others), config["hidden_size"], scale=scale)]

    return draw_args


def hidden_and_table(
    config: dict[str, Any], batch: int, length: int, start: int, cuts: Any = (), scale: float = 1.0, limit: Any = ()
) -> Any:
    """Draws x [batch, length, D], the rotations of positions from `start` on, and where to cut."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        first = draw.size("start", start, start + 2, start + 9)
        table = rope_table(torch.arange(first, first + length), config)
        return [draw.normal(batch, length, config["hidden_size"], scale=scale), table, list(cuts), *limit]

    return draw_args


def attention_case(
    name: str, config: dict[str, Any], batch: int, length: int, start: int, cuts: Any = (), **more: Any
) -> Case:
    scale, limit = more.pop("scale", 1.0), more.pop("limit", ())
    return Case(name, hidden_and_table(config, batch, length, start, cuts, scale, limit), {"config": config}, **more)


def cache_case(
    name: str,
    config: dict[str, Any],
    batch: int,
    capacity: int,
    tokens: list[int],
    dtype: Any = torch.float32,
    **more: Any,
) -> Case:
    """A case of the cache: parts [batch, T, latent + key] for it."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        width = config["kv_lora_rank"] + config["qk_rope_head_dim"]
        parts = [draw.normal(batch, n, width).to(dtype) for n in tokens]
        return [Config(config), batch, capacity, parts]

    return Case(name, draw_args, **more)


IN_TURNS = {"drive": drives.rows_in_turns, "right": right_rows_in_turns}
LENGTHS = {"drive": drives.row_lengths, "right": lambda *args: right_fill_of_rows(*args[2:]).codes[1::2]}
ROOM = {"drive": drives.room_of_rows, "right": right_room_of_rows}
BESIDES = {"drive": drives.bytes_too_many, "right": lambda config, batch, capacity, parts: [0] * len(parts)}
REFUSALS = {"drive": drives.row_refusals, "right": lambda *args: right_fill_of_rows(*args[2:]).codes}
AFTER_REFUSALS = {"drive": drives.rows_after_refusals, "right": lambda *args: right_fill_of_rows(*args[2:]).last}


COMPRESS = Exercise(
    name="mla.compress",
    solution="Compressor",
    reference=build_compressor,
    call=call_compressor,
    drive=drives.use_compress,
    points=5,
    axes="B T latent+key",
    sizes=sizes,
    cases=[
        Case("7 tokens", hidden(SMALL, 2, 7, 5, 9), {"config": SMALL}),
        Case("other sizes", hidden(PLAIN, 3, 5, 4, 8), {"config": PLAIN}),
        Case("tiny inputs", hidden(OTHER, 2, 5, 7, scale=1e-3), {"config": OTHER}),
        Case("bfloat16", hidden(SMALL, 2, 7, 5), {"config": SMALL}, torch.bfloat16),
    ],
)


def rope_args(batch: int, heads: int, positions: Sequence[int], config: dict[str, Any]) -> Any:
    """Draws x [batch, heads, T, rope] and the rotations of the positions."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        table = rope_table(torch.tensor(positions) + draw.size("shift", 0, 1, 13), config)
        return draw.normal(batch, heads, len(positions), config["qk_rope_head_dim"]), table

    return draw_args


ROPE = Exercise(
    name="mla.rope",
    solution="apply_rope",
    reference=apply_rope,
    function=True,
    points=4,
    fixed={"argument 2, axis 0": "cosines and sines"},
    axes="B H T rope",
    cases=[
        Case("positions 5 to 11", rope_args(2, 3, range(5, 12), SMALL)),
        Case("positions 3, 40 and 17, one head", rope_args(3, 1, [3, 40, 17], PLAIN)),
        Case("as many heads as tokens", rope_args(1, 4, range(3, 7), SMALL)),
        Case("a single pair of channels", rope_args(2, 2, range(4, 9), SMALL | {"qk_rope_head_dim": 2})),
        Case("bfloat16", rope_args(2, 3, range(2, 7), SMALL), dtype=torch.bfloat16),
        Case("float16", rope_args(1, 2, range(2, 7), SMALL), dtype=torch.float16),
    ],
)


def scale_case(name: str, **changes: Any) -> Case:
    """A case of the scale: a config of V3's widths with some fields changed; None takes a field out."""
    # Nor may the width of a head in other models, hidden_size / heads, be any of the widths here.
    config = {k: v for k, v in (SMALL | {"hidden_size": 33} | changes).items() if v is not None or k == "rope_scaling"}
    return Case(name, lambda draw: [Config(draw.changed(config, qk_nope_head_dim=(11, 90)))], tolerance=Tolerance(1e-6))


SCALE = Exercise(
    name="mla.scale",
    solution="softmax_scale",
    reference=lambda config: float(build_attention(config).scaling),
    function=True,
    points=4,
    cases=[
        scale_case("as transformers 5 writes it, with the width of the rope channels as head_dim", head_dim=8),
        scale_case(
            "the same with other numbers",
            **(OTHER | {"hidden_size": 44, "rope_parameters": OTHER["rope_parameters"] | {"mscale_all_dim": 1.3}}),
        ),
        scale_case(
            "DeepSeek-V3, as the hub has it",
            rope_parameters=None,
            **fields_of(V3, *WIDTHS, "max_position_embeddings", "rope_theta", "rope_scaling"),
        ),
        scale_case(
            "mscale and mscale_all_dim are not equal",
            max_position_embeddings=768,
            rope_parameters=YARN | {"mscale": 1.0, "mscale_all_dim": 0.707, "factor": 16.0},
        ),
        scale_case("YaRN without mscale_all_dim", rope_parameters={k: YARN[k] for k in YARN if k != "mscale_all_dim"}),
        scale_case("YaRN with mscale_all_dim 0", rope_parameters=YARN | {"mscale_all_dim": 0.0}),
        scale_case("no YaRN", rope_parameters=None, rope_theta=500.0, rope_scaling=None),
        scale_case(
            "mscale_all_dim stands there, and rope_type is default",
            rope_parameters={"rope_type": "default", "rope_theta": 500.0, "mscale_all_dim": 1.0, "factor": 4.0},
        ),
        scale_case(
            "mscale_all_dim stands there, and rope_type does not",
            rope_parameters={"rope_theta": 700.0, "mscale_all_dim": 0.9, "factor": 8.0},
        ),
    ],
)

CACHE = Exercise(
    name="mla.cache",
    solution="LatentCache",
    reference=right_rows,
    function=True,
    drive=drives.contents_of_two,
    points=5,
    cases=[
        cache_case("5 tokens at once", SMALL, 1, 5, [5]),
        cache_case("3 tokens, then one, then 2; room for 9; two texts", SMALL, 2, 9, [3, 1, 2]),
        cache_case("other sizes, three texts", PLAIN, 3, 6, [1, 1, 1]),
        cache_case("two caches in turns", OTHER, 2, 7, [3, 1, 2], **IN_TURNS),
        cache_case("its length after 3 tokens, one and 2", SMALL, 2, 9, [3, 1, 2], **LENGTHS),
        cache_case("room made at the start: numbers, bytes", SMALL, 2, 6, [1], **ROOM),
        cache_case("room made at the start in bfloat16: numbers, bytes", PLAIN, 1, 5, [1], torch.bfloat16, **ROOM),
        cache_case("how many bytes it keeps besides, after 3 tokens, one and 2", OTHER, 2, 7, [3, 1, 2], **BESIDES),
        cache_case("refusals (1 ValueError, 2 it wrote, 3 other), lengths", PLAIN_2, 2, 7, [4, 4, 2, 1, 1], **REFUSALS),
        cache_case("the contents after a refusal", PLAIN, 2, 8, [4, 5, 3], **AFTER_REFUSALS),
        cache_case("bfloat16", SMALL, 2, 6, [2, 3], dtype=torch.bfloat16),
    ],
)


def bytes_case(name: str, config: dict[str, Any], tokens: int, *others: int) -> Case:
    """A case of the bytes: a config, tokens, and what else is given."""
    return Case(name, lambda draw: [Config(config), draw.size("tokens", tokens, tokens + 1, 3 * tokens), *others])


LATENT = ("q_lora_rank", "kv_lora_rank", *WIDTHS)
DEEPSEEK_V3 = fields_of(V3, "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", *LATENT)
GROUPED = {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 2}
BYTES = Exercise(
    name="mla.bytes",
    solution="cache_bytes",
    reference=bytes_at,
    without={
        "element_bytes thousandfold": "a number has a few bytes, and a program may look up the dtype of so many",
        "element_bytes hundredfold": "a number has a few bytes, and a program may look up the dtype of so many",
    },
    function=True,
    points=4,
    cases=[
        bytes_case("DeepSeek-V3, one token", DEEPSEEK_V3, 1),
        bytes_case("a latent, and a head_dim that transformers wrote", SMALL | {"head_dim": 8}, 100, 3, 4),
        bytes_case(
            "grouped queries, head_dim its own number", GROUPED | {"num_hidden_layers": 5, "head_dim": 20}, 40, 2
        ),
        bytes_case(
            "grouped queries without head_dim, in 8 bits",
            GROUPED | {"num_hidden_layers": 7, "num_key_value_heads": 3},
            33,
            1,
            1,
        ),
    ],
)

ATTENTION_CASES = [
    attention_case("7 tokens", SMALL, 2, 7, start=5),
    attention_case("q_lora_rank is None, no YaRN", PLAIN, 3, 8, start=3),
    attention_case("tiny inputs", OTHER, 2, 5, start=4, scale=1e-3),
    attention_case("through a cache: 4 tokens, then 3", SMALL, 2, 7, start=0, cuts=[4]),
    attention_case("through a cache: 5 tokens, then one by one", PLAIN_2, 1, 8, start=11, cuts=[5, 6, 7]),
    attention_case("bfloat16", SMALL, 2, 7, start=5, dtype=torch.bfloat16),
]
ATTENTION = Exercise(
    name="mla.attention",
    solution="Attention",
    reference=build_attention,
    call=call_attention,
    drive=drives.attention_in_pieces,
    uses=["mla.compress", "mla.rope", "mla.scale"],
    points=8,
    fixed={"argument 2, axis 0": "cosines and sines"},
    axes="B T D",
    sizes=sizes,
    cases=ATTENTION_CASES,
)

LITTLE_WORK = {
    "limit": [absorbed_work(SMALL, 40)],
    "drive": drives.attention_and_its_work,
    "right": call_attention_with_work,
}
ABSORBED = Exercise(
    name="mla.absorbed",
    solution="AbsorbedAttention",
    reference=build_attention,
    call=call_attention,
    drive=drives.attention_in_pieces,
    uses=["mla.compress", "mla.rope", "mla.scale", "mla.attention"],
    points=8,
    fixed={"argument 2, axis 0": "cosines and sines"},
    axes="B T D",
    sizes=sizes,
    cases=[
        attention_case("7 tokens", SMALL, 2, 7, start=5),
        attention_case("q_lora_rank is None, no YaRN", PLAIN, 3, 8, start=3),
        attention_case("through a cache: 4, then 3", OTHER, 2, 7, start=0, cuts=[4]),
        attention_case("two tokens after 38, with little work", SMALL, 1, 40, start=2, cuts=[38], **LITTLE_WORK),
        attention_case("bfloat16", SMALL, 2, 7, start=5, dtype=torch.bfloat16),
    ],
)

MODEL = Exercise(
    name="mla.model",
    solution="Model",
    reference=build_model,
    call=hf.hidden_states,
    drive=drives.model_in_pieces,
    points=5,
    axes="B T D",
    sizes=sizes,
    renamed=hf.without(*hf.NO_MODULES),
    parts={"layers.*.self_attn": "mla.attention"},
    cases=[
        Case("7 tokens", lambda draw: [draw.tokens(53, 2, draw.size("T", 7, 6, 9))], {"config": SMALL}),
        Case("no narrow query, no YaRN", lambda draw: [draw.tokens(53, 3, 8)], {"config": PLAIN}),
        Case("through caches: 5 tokens, then 4", lambda draw: [draw.tokens(37, 2, 9), [5], 2], {"config": OTHER}),
        Case(
            "through caches: 4, one by one, 2",
            lambda draw: [draw.tokens(41, 1, 9), [4, 5, 6, 7], 3],
            {"config": PLAIN_2},
        ),
        Case(
            "two texts in turns, with caches of their own",
            lambda draw: [draw.tokens(37, 2, 7), [3, 4], 2],
            {"config": OTHER},
            drive=drives.model_of_texts_in_turns,
        ),
        Case(
            "how many of 3 layers use the class of attention that is given",
            lambda draw: [draw.tokens(53, 1, 2), Config(SMALL)],
            {"config": SMALL},
            drive=drives.layers_of_another_class,
            right=lambda module, ids, config: torch.tensor(config.num_hidden_layers),
        ),
    ],
)


def prompt_that_ends(draw: Draw) -> Sequence[Any]:
    """As `generation_args`; the second of the two end tokens is the prompt's last."""
    toy, ids, new_tokens, ends = generation_args(5, new_tokens=6, stop_at=4)(draw)
    return toy, ids, new_tokens, [ends[0], int(ids[0, -1])]


GENERATE = Exercise(
    name="mla.generate",
    solution="generate",
    reference=reference_generate,
    function=True,
    without={"Fewer": "max_new_tokens is 1 or more, as the docstring says"},
    drive=drives.generated_with_caches,
    points=4,
    fixed=FIXED,
    cases=[
        Case("8 new tokens", generation_args(prompt=4, new_tokens=8)),
        Case("the same token 11 times, and no end", generation_args(prompt=5, new_tokens=11, steady=True)),
        Case("two tokens that are nearly as likely", close_args(prompt=5, new_tokens=6)),
        Case("one new token", generation_args(prompt=3, new_tokens=1)),
        Case("stops at the first of two end tokens", generation_args(prompt=5, new_tokens=8, stop_at=3)),
        Case("stops at the last of two end tokens", generation_args(prompt=6, new_tokens=8, stop_at=2, last=True)),
        Case("the end token is in the prompt too", generation_args(6, new_tokens=7, stop_at=3, in_prompt=True)),
        Case("the prompt ends with one of two end tokens", prompt_that_ends),
        Case(
            "an end token in the config, and none given",
            generation_args(prompt=5, new_tokens=7, stop_at=3),
            drive=drives.generated_despite_config,
            right=lambda toy, ids, new_tokens, ends: reference_generate(toy, ids, new_tokens),
        ),
        Case(
            "after another prompt, with the same model",
            generation_args(prompt=5, new_tokens=6),
            drive=drives.generated_again_with_caches,
        ),
        Case(
            "tokens read at first, at most later, and not in the text's order",
            generation_args(prompt=39, new_tokens=7),
            drive=drives.reading_of_the_text,
            right=lambda toy, ids, *_: [ids.shape[1], 1, 0],
        ),
        Case(
            "tokens without room in the caches; 1 if there is room to spare",
            generation_args(prompt=6, new_tokens=7),
            drive=drives.room_short_and_spare,
            right=lambda *_: [0, 0],
        ),
    ],
)


# In how many directions a cache varies


def variance_case(name: str, rank: int, sizes: Sequence[int], mean: float = 0.0) -> Case:
    """A case of the share of a variance. sizes: rows of the first text, rows of the second, numbers in a row."""
    N, M, n = sizes

    def draw_args(draw: Draw) -> Sequence[Any]:
        rows, others = draw.size("N", N, N + 3), draw.size("M", M, M + 2)
        both = draw.normal(rows + others, n) * 0.7 ** torch.arange(n) @ torch.linalg.qr(draw.normal(n, n)).Q
        both = both * (0.5 + draw.normal(len(both), 1).abs()) + draw.normal(n)  # some tokens vary more; a mean
        shift = 0.4 * draw.normal(n)  # the second text's mean is another one
        return rank, mean + both[:rows], mean + both[rows:] + shift

    return Case(name, draw_args, tolerance=Tolerance(1e-4))


VARIANCE = Exercise(
    name="mla.variance",
    solution="variance_in",
    reference=right_variance,
    function=True,
    differentiable=False,
    points=5,
    without={
        "rank thousandfold": "a rank is not above the number of columns",
        "rank hundredfold": "a rank is not above the number of columns",
    },
    cases=[
        variance_case("3 of 7 directions", 3, (300, 25, 7)),
        variance_case("a single direction, a mean of 300", 1, (30, 11, 6), 300.0),
        variance_case("a first text with fewer tokens than channels", 2, (5, 12, 9)),
        variance_case("all directions that 4 tokens have, of 8", 3, (4, 9, 8)),
    ],
)

EXERCISES = with_mistakes(
    __file__, [COMPRESS, ROPE, SCALE, CACHE, BYTES, ATTENTION, ABSORBED, MODEL, GENERATE, VARIANCE]
)
