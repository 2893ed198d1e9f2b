"""What the exercises of 08-sparse-attention are checked against: transformers' DeepSeek-V3.2 and GLM-5, eager attention."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grader.authoring.kit import BY_DTYPE, Case, Config, Draw, Exercise, Tolerance, clear, configs, hf, with_mistakes
from grader.authoring.kit.configs import fields_of

from . import drives
from .reference import (
    build_attention,
    build_indexer,
    build_model,
    build_vectors,
    call_attention,
    call_attention_with_work,
    call_choices,
    call_rounded_scores,
    call_scores,
    call_vectors,
    clear_text,
    fixed_weights,
    gathered_work,
    right_choice,
    right_costs,
    right_fill,
    right_in_turns,
    right_recall,
    right_room,
    right_where_unequal,
    rope_table,
)

TRACE = "sparse_attention.model"

# No two sizes are equal, so that none can stand in for another. Every text is longer than index_topk, and there are index
# heads enough that hardly any two scores are 0.
SMALL: dict[str, Any] = {
    "model_type": "deepseek_v32",
    "hidden_act": "silu",
    "vocab_size": 53,
    "hidden_size": 24,
    "intermediate_size": 36,
    "moe_intermediate_size": 11,
    "num_hidden_layers": 3,
    "first_k_dense_replace": 2,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_group": 4,
    "topk_group": 3,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "q_lora_rank": 20,
    "kv_lora_rank": 18,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "index_n_heads": 9,
    "index_head_dim": 13,
    "index_topk": 4,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-2,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 7000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    },
    "tie_word_embeddings": True,
}
GLM: dict[str, Any] = SMALL | {
    "model_type": "glm_moe_dsa",
    "vocab_size": 47,
    "hidden_size": 28,
    "intermediate_size": 40,
    "first_k_dense_replace": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 22,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 9,
    "qk_rope_head_dim": 6,
    "v_head_dim": 5,
    "index_n_heads": 11,
    "index_head_dim": 10,
    "index_topk": 3,
    "indexer_types": ["full", "shared", "full"],
    "rms_norm_eps": 5e-2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
}
OTHER: dict[str, Any] = SMALL | {
    "vocab_size": 41,
    "hidden_size": 26,
    "intermediate_size": 30,
    "moe_intermediate_size": 9,
    "num_hidden_layers": 2,
    "first_k_dense_replace": 1,
    "n_routed_experts": 9,
    "num_experts_per_tok": 4,
    "n_group": 3,
    "topk_group": 2,
    "n_shared_experts": 2,
    "routed_scaling_factor": 1.6,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "kv_lora_rank": 15,
    "q_lora_rank": 17,
    "qk_nope_head_dim": 7,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "index_n_heads": 10,
    "index_head_dim": 12,
    "index_topk": 5,
    "rms_norm_eps": 3e-2,
    "max_position_embeddings": 320,
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
SECOND_SHARED = GLM | {"indexer_types": ["full", "full", "shared"], "index_topk": 4}
LAST_SHARED = SECOND_SHARED | {"vocab_size": 31, "num_hidden_layers": 4, "first_k_dense_replace": 4, "q_lora_rank": 9}
LAST_SHARED |= {"hidden_size": 12, "intermediate_size": 21, "indexer_types": ["full", "full", "shared", "shared"]}
NARROW = OTHER | {"first_k_dense_replace": 2, "hidden_size": 8, "intermediate_size": 7, "q_lora_rank": 5}
CONFIGS = Path(__file__).parent / "configs"


INDEXED = ("model_type", "hidden_size", "q_lora_rank", "qk_rope_head_dim", "index_n_heads", "index_head_dim")
HEADS = ("num_attention_heads", "num_key_value_heads", "kv_lora_rank", "qk_nope_head_dim", "v_head_dim", "rms_norm_eps")
ATTENDED = (*INDEXED, *HEADS, "index_topk", "max_position_embeddings", "rope_parameters", "indexer_types")


sizes = configs.sizes("hidden_size", "index_n_heads", "index_head_dim", "index_topk", "kv_lora_rank", "v_head_dim")


def turns(draw: Draw, config: Mapping[str, Any], length: int, start: int) -> Tensor:
    first = draw.size("start", start, start + 2, start + 9)
    return rope_table(torch.arange(first, first + length), config)


def vectors_case(name: str, config: dict[str, Any], batch: int, length: int, start: int, **more: Any) -> Case:
    """A case of queries and keys: latent [B, T, q_lora_rank], x [B, T, D] and the rotations."""
    scale, dtype = more.pop("scale", 1.0), more.get("dtype", torch.float32)
    config = config | {"index_n_heads": config["index_n_heads"] // 2}

    def draw_args(draw: Draw) -> Sequence[Any]:
        T = draw.size("T", length, length + 1, length + 3)
        latent, x = (draw.normal(batch, T, config[n], scale=scale) for n in ("q_lora_rank", "hidden_size"))
        return [latent.to(dtype), x.to(dtype), turns(draw, config, T, start)]

    return Case(name, draw_args, {"config": fields_of(config, *INDEXED)}, **more)


VECTORS = Exercise(
    name="sparse_attention.vectors",
    solution="IndexVectors",
    reference=build_vectors,
    call=call_vectors,
    drive=drives.use_vectors,
    gradients_of=(0, 1),
    points=6,
    fixed={"argument 3, axis 0": "cosines and sines"},
    axes="B heads+key T channel",
    sizes=sizes,
    cases=[
        vectors_case("DeepSeek-V3.2's", SMALL, 2, 3, start=5),
        vectors_case("GLM-5's", GLM, 1, 4, start=3),
        vectors_case("tiny inputs, every channel rotated", OTHER | {"index_head_dim": 4}, 1, 3, start=4, scale=1e-3),
        vectors_case("bfloat16", SMALL, 1, 3, start=2, dtype=torch.bfloat16),
    ],
)


def scores_case(name: str, config: dict[str, Any], batch: int, new: int, keys: int, start: int, **more: Any) -> Case:
    """A case of the scores: x [B, T, D], latent [B, T, q_lora_rank], index keys [B, S, width] and the rotations."""
    scale, dtype = more.pop("scale", 1.0), more.get("dtype", torch.float32)

    def draw_args(draw: Draw) -> Sequence[Any]:
        S = draw.size("S", keys, keys + 1, keys + 2)
        shapes = ((new, "hidden_size"), (new, "q_lora_rank"), (S, "index_head_dim"))
        drawn = (draw.normal(batch, count, config[n], scale=scale).to(dtype) for count, n in shapes)
        return [*drawn, turns(draw, config, new, start)]

    return Case(name, draw_args, {"config": fields_of(config, *INDEXED, "index_topk")}, **more)


def exact_queries(draw: Draw) -> Sequence[Any]:
    """Arguments of scores in bfloat16, at position 0: latent has a single 1, so that queries are exact."""
    latent = torch.eye(SMALL["q_lora_rank"])[torch.randperm(SMALL["q_lora_rank"], generator=draw.generator)[:3], None]
    x, keys = draw.normal(3, 1, SMALL["hidden_size"]), draw.normal(3, draw.size("S", 8, 9, 11), SMALL["index_head_dim"])
    return [*(tensor.bfloat16() for tensor in (x, latent, keys)), rope_table(torch.tensor([0]), SMALL)]


SCORES = Exercise(
    name="sparse_attention.scores",
    solution="Indexer",
    reference=build_indexer,
    call=call_scores,
    drive=drives.use_scores,
    gradients_of=(0, 1, 2),
    points=5,
    fixed={"argument 4, axis 0": "cosines and sines"},
    axes="B T S",
    sizes=sizes,
    uses=["sparse_attention.vectors"],
    cases=[
        scores_case("7 tokens, 9 keys", SMALL, 2, 7, 9, start=5),
        scores_case("GLM-5's, one token", GLM, 3, 1, 6, start=3),
        scores_case("tiny inputs", OTHER, 1, 4, 5, start=4, scale=1e-2),
        scores_case("bfloat16", SMALL, 2, 5, 8, start=2, dtype=torch.bfloat16, tolerance=BY_DTYPE[torch.bfloat16]),
        Case(
            "bfloat16, where only the heads' weights are rounded",
            exact_queries,
            {"config": fields_of(SMALL, *INDEXED, "index_topk")},
            dtype=torch.bfloat16,
            right=call_rounded_scores,
        ),
    ],
)


def select_case(
    name: str, batch: int, queries: int, slots: int, k: int, shift: float = 0.0, scale: float = 1.0, **more: Any
) -> Case:
    """A case of the selection: scores [batch, queries, slots] around `shift`, and k."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        more_slots = draw.size("more", 0, 1, 2)
        T = queries if queries < slots else queries + more_slots
        return [shift + draw.normal(batch, T, slots + more_slots, scale=scale), k]

    return Case(name, draw_args, **more)


def close_scores(draw: Draw) -> Sequence[Any]:
    """Scores above 1 that differ by 2^-20 at least: [1, T, T], and k."""
    T = draw.size("T", 8, 7, 9)
    return [1 + draw.normal(1, T, T).argsort(dim=-1) * 2.0**-20, 3]


def equal_scores(draw: Draw) -> Sequence[Any]:
    """Scores that are -1, 0 or 1: [2, 9, 9], and k."""
    return [draw.normal(2, draw.size("T", 9, 8, 10), draw.size("T", 9, 8, 10)).round().clamp(-1, 1), 4]


OF_EQUALS: dict[str, Any] = {
    "drive": drives.scores_chosen,
    "right": lambda scores, k: torch.where(right_choice(scores, k) == 1, scores, -9.0).sort(descending=True).values,
}
SELECT = Exercise(
    name="sparse_attention.select",
    solution="select",
    reference=right_choice,
    function=True,
    differentiable=False,
    drive=drives.chosen_slots,
    points=5,
    axes="B T S",
    cases=[
        select_case("4 of 9 tokens", 2, 9, 9, 4),
        select_case("3 new tokens of 11", 3, 3, 11, 5),
        select_case("one new token of 8, every score below -100", 1, 1, 8, 3, shift=-200.0, scale=30.0),
        select_case("every score below -1e10", 2, 6, 6, 2, shift=-4e10, scale=1e10),
        select_case("more may be chosen than there are", 2, 5, 7, 12),
        select_case("one of 6 tokens", 2, 6, 6, 1),
        select_case("one new token of 1,100, of which 70 are chosen", 1, 1, 1100, 70, shift=10.0),
        Case("scores that differ by a millionth", close_scores),
        Case("whole scores, many of them equal, of which any will do", equal_scores, **OF_EQUALS),
        select_case(
            "how many numbers are returned where fewer tokens may be seen",
            2,
            7,
            7,
            5,
            drive=drives.how_many_are_chosen,
            right=lambda scores, k: min(k, scores.shape[-1]),
        ),
    ],
)


def some_choice(draw: Draw, batch: int, length: int, k: int) -> Tensor:
    """Draws k tokens for each token, as many as may be of those that it may see: [batch, length, k] int64."""
    later = torch.ones(length, length).triu(1)
    chosen = (torch.rand(batch, length, length, generator=draw.generator) - later).topk(k, dim=-1).indices
    order = torch.rand(chosen.shape, generator=draw.generator).argsort(dim=-1)
    return chosen.gather(-1, order)


def attention_case(
    name: str, config: dict[str, Any], batch: int, length: int, start: int, cuts: Any = (), **more: Any
) -> Case:
    """A case of attention: x [batch, T, D] of clear choice, rotations, where to cut, and what else the case is given.

    layer: its number. given: whether it gets a choice of an earlier layer's: random numbers of what each token may see
    and, to fill the row, later ones, in any order. few: of how many tokens it is.
    """
    scale, limit, layer = more.pop("scale", 1.0), more.pop("limit", ()), more.pop("layer", 0)
    given, few, by, types = (
        more.pop("given", False),
        more.pop("few", config["index_topk"]),
        more.pop("by", clear.CLEAR),
        config.get("indexer_types") or ["full"] * (layer + 1),
    )

    def draw_args(draw: Draw) -> Sequence[Any]:
        table = turns(draw, config, length, start)
        if types[layer] == "full":
            first = cuts[0] if limit else 0
            x = clear_text(draw, config, batch, table, scale, first, by)
        else:
            x = draw.normal(batch, length, config["hidden_size"], scale=scale)
        chosen = [some_choice(draw, batch, length, few)] if given else []
        return [x, table, list(cuts), *limit, *chosen]

    return Case(name, draw_args, {"config": fields_of(config, *ATTENDED), "layer": layer}, **more)


CHOICES = {"drive": drives.choices_in_pieces, "right": call_choices}
ATTENTION = Exercise(
    name="sparse_attention.attention",
    solution="SparseAttention",
    reference=build_attention,
    call=call_attention,
    weights=fixed_weights,
    drive=drives.sparse_in_pieces,
    points=8,
    fixed={"argument 2, axis 0": "cosines and sines"},
    axes="B T D",
    sizes=sizes,
    uses=["sparse_attention.scores", "sparse_attention.select"],
    parts={"indexer.k_norm": "sparse_attention.vectors"},
    cases=[
        attention_case("DeepSeek-V3.2's, 4 of 9 tokens", SMALL, 2, 9, start=5),
        attention_case("GLM-5's, 3 of 8 tokens", GLM, 1, 8, start=3, layer=2),
        attention_case("a layer that takes over a choice", GLM, 2, 7, start=4, layer=1, given=True),
        attention_case(
            "a layer that takes over a choice of 2 of 3 tokens", GLM, 1, 3, start=6, layer=1, given=True, few=2
        ),
        attention_case("a layer that chooses anew", SECOND_SHARED, 1, 6, start=2, layer=1, given=True),
        attention_case("tiny inputs", OTHER, 2, 8, start=4, scale=1e-3),
        attention_case("through a cache: 6 tokens, then 3", SMALL, 1, 9, start=0, cuts=[6]),
        attention_case("through a cache: 5 tokens, then one by one", OTHER, 1, 8, start=11, cuts=[5, 6, 7]),
        attention_case("which tokens are chosen, through a cache", GLM, 2, 8, start=1, cuts=[2, 6], **CHOICES),
        attention_case(
            "which tokens a layer chooses anew", SECOND_SHARED, 1, 7, start=3, layer=1, given=True, **CHOICES
        ),
        attention_case("bfloat16", SMALL, 1, 9, start=5, dtype=torch.bfloat16),
    ],
)


LITTLE_WORK = {
    "limit": [gathered_work(OTHER, 90)],
    "drive": drives.sparse_and_its_work,
    "right": call_attention_with_work,
}
GATHERED = replace(
    ATTENTION,
    name="sparse_attention.gathered",
    solution="GatheredAttention",
    points=6,
    uses=["sparse_attention.scores", "sparse_attention.select", "sparse_attention.attention"],
    parts={},
    cases=[
        attention_case("4 of 9 tokens", SMALL, 2, 9, start=5),
        attention_case("a layer that takes over a choice", GLM, 1, 7, start=4, layer=1, given=True),
        attention_case("through a cache: 6 tokens, then 3", GLM, 1, 9, start=0, cuts=[6], layer=2),
        attention_case(
            "the last of three layers takes over a choice", SECOND_SHARED, 2, 8, start=1, layer=2, given=True
        ),
        attention_case("one token after 89, with little work", OTHER, 1, 90, start=2, cuts=[89], **LITTLE_WORK),
        attention_case("bfloat16", SMALL, 1, 9, start=5, dtype=torch.bfloat16),
    ],
)


# The cache


def cache_case(name: str, config: dict[str, Any], batch: int, capacity: int, steps: list[int], **more: Any) -> Case:
    """A case of the cache. steps: above 0, so many tokens are appended, else it is cropped to minus this number."""
    dtype, narrow = more.pop("kind", torch.float32), {name: config[name] // 2 for name in CACHED}

    def draw_args(draw: Draw) -> Sequence[Any]:
        widths = narrow["kv_lora_rank"] + narrow["qk_rope_head_dim"], narrow["index_head_dim"]
        parts = [draw.normal(batch, n, width).to(dtype) for n in steps if n > 0 for width in widths]
        return [Config(narrow), batch, capacity, parts, steps]

    return Case(name, draw_args, **more)


CACHED = ("kv_lora_rank", "qk_rope_head_dim", "index_head_dim")
LENGTHS = {"drive": drives.lengths_of_both, "right": lambda *args: right_fill(*args)[1]}
REFUSALS = {"drive": drives.refusals_of_both, "right": lambda *args: right_fill(*args)[2]}
ROOM = {"drive": drives.room_of_both, "right": right_room}
UNEQUAL = {"drive": drives.cropped_while_unequal, "right": right_where_unequal}
NO_INDEXER = {"drive": drives.without_index_keys, "right": lambda *args: [1, 0, args[3][0].shape[1]]}
CACHE = Exercise(
    name="sparse_attention.cache",
    solution="IndexedCache",
    reference=lambda *args: torch.cat(right_fill(*args)[0]),
    function=True,
    differentiable=False,
    drive=drives.both_contents,
    points=5,
    cases=[
        cache_case("3 tokens, then one, then 2; room for 9; two texts", SMALL, 2, 9, [3, 1, 2]),
        cache_case("5 tokens, cropped to 3, then 2", GLM, 1, 8, [5, -3, 2]),
        cache_case("cropped to more than there is, and to nothing", OTHER, 1, 7, [2, -4, 1, 0, 2]),
        cache_case("two caches in turns", OTHER, 1, 7, [3, 1, 2], drive=drives.both_in_turns, right=right_in_turns),
        cache_case("its length after 4 tokens, a crop to 1, and 2 tokens", SMALL, 2, 7, [4, -1, 2], **LENGTHS),
        cache_case(
            "refusals (1 ValueError, 2 it wrote, 3 other), lengths",
            GLM,
            1,
            6,
            [4, 3, -3, 3, 1],
            **REFUSALS,
        ),
        cache_case("room at the start: bytes with index keys, without, and beyond it", SMALL, 2, 6, [1, 2], **ROOM),
        cache_case("4 rows and one index key, cropped to 3, then more of both", SMALL, 2, 12, [4, -3, 2], **UNEQUAL),
        cache_case(
            "without an indexer: keys refused (1 ValueError, 2 it wrote, 3 other), rows, length",
            GLM,
            2,
            5,
            [3],
            **NO_INDEXER,
        ),
        cache_case("bfloat16", OTHER, 2, 8, [2, 3], kind=torch.bfloat16),
    ],
)


# The model


MODEL = Exercise(
    name="sparse_attention.model",
    solution="Model",
    reference=build_model,
    call=hf.hidden_states,
    drive=drives.sparse_model_in_pieces,
    points=6,
    axes="B T D",
    sizes=sizes,
    renamed=hf.without(*hf.NO_MODULES, endings=("gate", "indexer")),  # these give no scores to compare
    parts={"layers.*.self_attn": "sparse_attention.attention"},
    cases=[
        Case("DeepSeek-V3.2, 4 of 9 tokens", lambda draw: [draw.tokens(53, 2, 9)], {"config": SMALL}),
        Case("GLM-5.2, the second layer takes over", lambda draw: [draw.tokens(47, 3, 8)], {"config": GLM}),
        Case("through caches: 6 tokens, then 4", lambda draw: [draw.tokens(41, 2, 10), [6], 2], {"config": OTHER}),
        Case(
            "GLM-5.2 through caches: 5 tokens, then one by one",
            lambda draw: [draw.tokens(31, 1, 8), [5, 6, 7], 4],
            {"config": LAST_SHARED},
        ),
        Case(
            "two texts in turns, with caches of their own",
            lambda draw: [draw.tokens(41, 2, 9), [4, 7], 2],
            {"config": NARROW},
            drive=drives.sparse_model_in_turns,
        ),
        Case(
            "how many of 2 layers use the class of attention that is given",
            lambda draw: [draw.tokens(41, 1, 7), Config(NARROW)],
            {"config": NARROW},
            drive=drives.layers_of_another_attention,
            right=lambda module, ids, config: torch.tensor(config.num_hidden_layers),
        ),
    ],
)


def recall_case(name: str, shape: Sequence[int], k: int, shift: float = 0.0, scale: float = 1.0) -> Case:
    """A case of what a choice finds. shape: texts and tokens; scale and shift: of the scores."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        B, T = draw.size("B", shape[0], shape[0] + 1), draw.size("T", shape[1], shape[1] + 2)
        likes = 1.5 * draw.normal(B, T, T)
        weights = likes.masked_fill(torch.ones(T, T, dtype=torch.bool).triu(1), float("-inf")).softmax(dim=-1)
        return shift + scale * (likes + 1.5 * draw.normal(B, T, T)), weights, k  # later tokens have scores as well

    return Case(name, draw_args, tolerance=Tolerance(1e-4))


def weights_of_zero(draw: Draw) -> Sequence[Any]:
    """Scores and weights [1, T, T], and k. All queries but the last have k weights above 0, and the others are 0."""
    T, k = draw.size("T", 7, 6, 8), 2
    weights = (draw.normal(1, T, T).abs() + 0.1).tril()
    few = torch.zeros(1, T, T).scatter(-1, weights.topk(k).indices, 1.0)
    few[:, -1] = 1.0
    return [draw.normal(1, T, T), weights * few, k]


def equal_at_the_edge(draw: Draw) -> Sequence[Any]:
    """Scores and weights [2, T, T], and k. The tokens from 3 on have the score 0 and the same small weight.

    One of them is chosen beside tokens 0 and 1, and it makes no difference which: attention's own best are the first 3.
    """
    T = draw.size("T", 8, 7, 9)
    scores, weights = torch.zeros(2, T, T), torch.full((2, T, T), 0.25)
    scores[..., :2], scores[..., 2] = draw.normal(2, T, 2).abs() + 0.5, -1.0
    weights[..., :3] = draw.normal(2, T, 3).abs() + 0.5
    return [scores, weights.tril(), 3]


def beyond_256(draw: Draw) -> Sequence[Any]:
    """A score and a weight for each token, [T], and k. Tokens from 256 on have the highest scores.

    Those that are 256 before them have the largest weights.
    """
    T = draw.size("T", 259, 260)
    scores, weights = draw.normal(T).clamp(-3, 3), draw.normal(T).abs().clamp(0.01, 3)
    scores[256:] = weights[: T - 256] = 4.0 + torch.arange(T - 256)
    return [scores, weights, 2]


LONG: dict[str, Any] = {
    "drive": drives.shares_of_one_text,
    "right": lambda scores, weights, k: right_recall(*(t.expand(1, len(t), -1) for t in (scores, weights)), k),
}


RECALL = Exercise(
    name="sparse_attention.recall",
    solution="recall",
    reference=right_recall,
    function=True,
    differentiable=False,
    drive=drives.two_shares,
    uses=["sparse_attention.select"],
    points=5,
    axes="by weight/by number",
    cases=[
        recall_case("3 of up to 11 tokens, two texts", (2, 11), 3),
        recall_case("one token", (3, 7), 1),
        recall_case("5 of up to 20 tokens", (1, 20), 5),
        recall_case("a single query has more than k tokens", (2, 7), 6),
        recall_case("every score below -1e10", (1, 8), 3, shift=-1e11, scale=1e10),
        Case("some weights are exactly 0", weights_of_zero, tolerance=Tolerance(1e-4)),
        Case("equal scores, of which any will do", equal_at_the_edge, tolerance=Tolerance(1e-4)),
        Case("more than 256 tokens", beyond_256, **LONG, tolerance=Tolerance(1e-4)),
    ],
)


SHARES = ("num_hidden_layers", "indexer_types", "first_k_dense_replace")
READ = ("model_type", "num_attention_heads", "kv_lora_rank", "qk_rope_head_dim", "index_topk", "index_n_heads")


def costs_case(name: str, config: Mapping[str, Any], tokens: int, low: int, high: int, *others: int) -> Case:
    """A case of the costs: a config, tokens, in a hidden recording any others from low to high, and what else is given."""
    fields = fields_of(config, *SHARES, *READ, "index_head_dim")
    return Case(name, lambda draw: [Config(fields), draw.number("tokens", tokens, low, high), *others])


def without_topk(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "index_topk"}


def real(name: str) -> Config:
    return Config.read(CONFIGS / f"{name}.json")


COSTS = Exercise(
    name="sparse_attention.costs",
    solution="costs",
    reference=right_costs,
    function=True,
    points=5,
    axes="work/bytes",
    cases=[
        costs_case("DeepSeek-V3.2, 131,072 tokens", real("deepseek-v3.2"), 131_072, 100_000, 131_071),
        costs_case("DeepSeek-V3.2, 1,000 tokens", real("deepseek-v3.2"), 1_000, 900, 2_000),
        costs_case("DeepSeek-V3, which reads every row", real("deepseek-v3"), 32_768, 20_000, 40_000),
        costs_case("DeepSeek-V3.2 without index_topk", without_topk(real("deepseek-v3.2")), 4_000, 3_000, 5_000),
        costs_case("GLM-5.2, whose layers share choices", real("glm-5.2"), 65_536, 50_000, 70_000),
        costs_case("GLM-5.2's first 5 layers", real("glm-5.2").replace(num_hidden_layers=5), 2_500, 2_100, 3_000),
        costs_case("a small one, in float32", OTHER, 40, 30, 60, 4),
        costs_case("a small one, in 8 bits", SECOND_SHARED, 23, 10, 50, 1),
    ],
)

EXERCISES: list[Exercise] = with_mistakes(
    __file__, [VECTORS, SCORES, SELECT, ATTENTION, GATHERED, CACHE, MODEL, RECALL, COSTS]
)
