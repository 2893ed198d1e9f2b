"""What the exercises of 07-moe are checked against: transformers' Qwen3-MoE and DeepSeek-V3, experts one by one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

from grader.authoring.kit import Case, Config, Draw, Exercise, Tolerance, hf, with_mistakes
from grader.authoring.kit.configs import fields_of, sizes

from . import drives
from .reference import (
    build_layer,
    build_model,
    build_router,
    call_router,
    clear_rows,
    drawn_mixture,
    number_of_experts,
    reference_config,
    right_bytes,
    right_costs,
    right_parameters,
    router_weights,
    run_experts,
)

TRACE = "moe.model"

# No two sizes are equal, so that none can stand in for another.
SMALL: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "hidden_act": "silu",
    "vocab_size": 53,
    "hidden_size": 24,
    "intermediate_size": 36,
    "moe_intermediate_size": 14,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "num_experts": 7,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [0],
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-3,
    "rope_theta": 7000.0,
    "tie_word_embeddings": True,
}
OTHER = SMALL | {
    "vocab_size": 47,
    "hidden_size": 30,
    "intermediate_size": 44,
    "moe_intermediate_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 8,
    "num_experts": 12,
    "num_experts_per_tok": 3,
    "norm_topk_prob": False,
    "decoder_sparse_step": 2,
    "mlp_only_layers": None,
    "max_position_embeddings": 48,
    "rms_norm_eps": 1e-2,
    "rope_theta": 500.0,
}
LAST_DENSE = SMALL | {
    "num_hidden_layers": 4,
    "decoder_sparse_step": 2,
    "mlp_only_layers": [3],
    "num_experts_per_tok": 3,
    "rope_theta": 300.0,
    "norm_topk_prob": False,
}

# num_experts, groups, groups that are left and experts are all different, and a group has more than two experts.
DEEP: dict[str, Any] = {
    "model_type": "deepseek_v3",
    "hidden_act": "silu",
    "hidden_size": 22,
    "intermediate_size": 34,
    "moe_intermediate_size": 11,
    "num_hidden_layers": 5,
    "first_k_dense_replace": 2,
    "n_routed_experts": 16,
    "num_experts_per_tok": 5,
    "n_group": 4,
    "topk_group": 3,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
}
DEEP_2 = DEEP | {
    "hidden_size": 26,
    "moe_intermediate_size": 9,
    "num_hidden_layers": 4,
    "first_k_dense_replace": 1,
    "n_routed_experts": 15,
    "num_experts_per_tok": 4,
    "n_group": 5,
    "topk_group": 2,
    "n_shared_experts": 2,
    "norm_topk_prob": False,
    "routed_scaling_factor": 1.6,
}
FAR = DEEP | {"n_routed_experts": 9, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 3}
UNBIASED = DEEP | {"n_routed_experts": 20, "topk_group": 2}
BELOW = DEEP | {"n_routed_experts": 12, "n_group": 3, "topk_group": 1, "num_experts_per_tok": 3}
experts_sizes = sizes("hidden_size", "moe_intermediate_size")
learners_name = hf.without(*hf.NO_MODULES, endings=("gate",))  # its router gives no logits to compare
CONFIGS = Path(__file__).parent / "configs"


ROUTED = ("model_type", "hidden_act", "hidden_size", "moe_intermediate_size", "num_experts", "n_routed_experts")
CHOSEN = ("num_experts_per_tok", "norm_topk_prob", "n_group", "topk_group", "routed_scaling_factor")


def router_case(
    name: str, config: dict[str, Any], count: int, scale: float = 1.0, lower: float = 0.0, **more: Any
) -> Case:
    """A case of a router: x [count, D]."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        return [clear_rows(draw, draw.size("N", count, count + 1, count + 3), config, scale, lower)]

    return Case(name, draw_args, {"config": fields_of(config, *ROUTED, *CHOSEN)}, **more)


def router_sizes(build: Mapping[str, Any]) -> dict[str, int]:
    config = build["config"]
    return {"num_experts": number_of_experts(config), "num_experts_per_tok": config["num_experts_per_tok"]}


SOFTMAX_ROUTER = Exercise(
    name="moe.softmax_router",
    solution="SoftmaxRouter",
    reference=build_router,
    call=call_router,
    weights=router_weights,
    drive=drives.dense_weights,
    points=5,
    axes="N E",
    sizes=router_sizes,
    cases=[
        router_case("7 experts, 2 chosen, their weights sum to 1", SMALL, 9),
        router_case("12 experts, 3 chosen, norm_topk_prob false", OTHER, 8),
        router_case("tiny inputs", SMALL, 5, scale=1e-3),
        router_case("one expert is chosen, in bfloat16", SMALL | {"num_experts_per_tok": 1}, 6, dtype=torch.bfloat16),
        router_case("bfloat16, nearly equal logits", OTHER | {"norm_topk_prob": True}, 6, 1e-4, dtype=torch.bfloat16),
    ],
)

TRAINED = {"drive": drives.trained_tensors, "right": lambda *args: torch.ones(1, dtype=torch.int64)}
SIGMOID_ROUTER = Exercise(
    name="moe.sigmoid_router",
    solution="SigmoidRouter",
    reference=build_router,
    call=call_router,
    weights=router_weights,
    drive=drives.dense_weights,
    points=8,
    axes="N E",
    sizes=router_sizes,
    cases=[
        router_case("16 experts in 4 groups, of which 3 are left", DEEP, 9),
        router_case("15 experts in 5 groups, norm_topk_prob false", DEEP_2, 8),
        router_case("one group, biases around 12, tiny scores", FAR, 7, lower=30.0),
        router_case("every score with its bias below -10", BELOW, 6),
        router_case("tiny inputs", DEEP_2 | {"norm_topk_prob": True}, 5, scale=1e-3),
        router_case("all biases 0, as before training", UNBIASED, 8, scale=3.0),
        router_case("bfloat16", DEEP, 6, dtype=torch.bfloat16),
        router_case("float16", DEEP, 5, lower=4.0, dtype=torch.float16),
        router_case("how many of its tensors an optimiser changes: the weight alone", DEEP_2, 4, **TRAINED),
    ],
)


def as_qwen(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same experts in a config of Qwen3-MoE, whatever the model's is."""
    return {**config, "model_type": "qwen3_moe", "num_experts": number_of_experts(config)}


def some_choice(draw: Draw, count: int, experts: int, k: int, never: int | None = None) -> Tensor:
    """Draws k different experts for each token, in any order: [count, k] int64. never: one that nobody chooses."""
    open_ = torch.tensor([number for number in range(experts) if number != never])
    return torch.stack([open_[torch.randperm(len(open_), generator=draw.generator)[:k]] for _ in range(count)])


def experts_case(
    name: str, config: dict[str, Any], count: int, never: int | None = None, scale: float = 1.0, **more: Any
) -> Case:
    """A case of experts: x [count, D], the chosen experts, and their weights in x's dtype or float32."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        n, k = draw.size("N", count, count + 1, count + 4), config["num_experts_per_tok"]
        chosen = some_choice(draw, n, number_of_experts(config), k, never)
        return [draw.normal(n, config["hidden_size"], scale=scale), chosen, 0.1 + draw.normal(n, k).abs()]

    return Case(name, draw_args, {"config": fields_of(config, *ROUTED, "num_experts_per_tok")}, **more)


NO_WORK = {"drive": drives.work_beyond, "right": lambda *args: torch.zeros(1, dtype=torch.int64)}
NO_PICKS = {"drive": drives.picks_beyond, "right": lambda *args: torch.zeros(2, dtype=torch.int64)}


EXPERTS_CASES = [
    experts_case("9 tokens, an expert that nobody chose", SMALL, 9, never=4),
    experts_case("one token, and DeepSeek's name for the number of experts", DEEP, 1),
    experts_case("tiny inputs", SMALL, 9, scale=1e-3),
    experts_case("bfloat16, weights in float32", SMALL | {"num_experts": 5}, 6, dtype=torch.bfloat16),
    experts_case("multiply-adds beyond 1.5 times those of the chosen experts", OTHER, 11, **NO_WORK),
]
EXPERTS = Exercise(
    name="moe.experts",
    solution="Experts",
    reference=lambda config: Qwen3MoeExperts(reference_config(as_qwen(config))),
    call=run_experts,
    drive=run_experts,
    points=6,
    axes="N D",
    sizes=experts_sizes,
    gradients_of=(0, 2),
    renamed=hf.without("act_fn"),
    cases=EXPERTS_CASES,
)
SORTED_EXPERTS = replace(
    EXPERTS,
    name="moe.sorted_experts",
    solution="SortedExperts",
    drive=drives.with_stable_sorts,
    uses=["moe.experts"],
    cases=[
        *EXPERTS_CASES,
        experts_case("operations that pick or add rows, beyond 8, and products beyond 48", OTHER, 60, **NO_PICKS),
    ],
)


def layer_case(name: str, config: dict[str, Any], batch: int, length: int, scale: float = 1.0, **more: Any) -> Case:
    """A case of the layer: x [batch, length, D], each of whose tokens makes a clear choice."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        T = draw.size("T", length, length + 1, length + 2)
        return [clear_rows(draw, batch * T, config, scale).view(batch, T, -1)]

    fields = fields_of(config, *ROUTED, *CHOSEN, "n_shared_experts", "intermediate_size")
    return Case(name, draw_args, {"config": fields}, **more)


LAYER = Exercise(
    name="moe.layer",
    solution="MoE",
    reference=build_layer,
    weights=router_weights,
    points=5,
    axes="B T D",
    sizes=lambda build: experts_sizes(build) | router_sizes(build),
    renamed=learners_name,
    parts={"experts": "moe.experts"},
    uses=["moe.softmax_router", "moe.sigmoid_router"],
    cases=[
        layer_case("Qwen3-MoE's", SMALL, 2, 5),
        layer_case("DeepSeek-V3's: a shared expert", DEEP, 2, 4),
        layer_case("two shared experts", DEEP_2, 3, 3),
        layer_case("tiny inputs", OTHER, 1, 7, scale=1e-3),
        layer_case("bfloat16", DEEP, 1, 5, dtype=torch.bfloat16),
    ],
)


MODEL = Exercise(
    name="moe.model",
    solution="Model",
    reference=build_model,
    call=hf.hidden_states,
    points=6,
    axes="B T D",
    sizes=sizes("hidden_size", "num_experts", "num_hidden_layers"),
    renamed=learners_name,
    parts={"layers.1.mlp": "moe.layer"},
    cases=[
        Case("the first layer is dense", lambda draw: [draw.tokens(53, 2, 7)], {"config": SMALL}),
        Case("every second layer is dense", lambda draw: [draw.tokens(47, 3, 5)], {"config": OTHER}, draw="2"),
        Case(
            "every second layer is dense, and the last one",
            lambda draw: [draw.tokens(53, 1, 8)],
            {"config": LAST_DENSE},
            draw="2",
        ),
    ],
)


def cost_case(name: str, shape: Sequence[int], sizes: Sequence[int], asked: list[list[int]], **more: Any) -> Case:
    """A case of what experts cost. shape: of ids; sizes: as `drawn_mixture` has them; asked: layers and experts."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        B, T = draw.size("B", shape[0], shape[0] + 1), draw.size("T", shape[1], shape[1] + 1)
        return [*drawn_mixture(draw, (B, T), sizes, asked), asked]

    return Case(name, draw_args, **more)


UNCHANGED = {"drive": drives.what_changed, "right": lambda *args: [0, 0, 0, 0, 0]}
COST = Exercise(
    name="moe.cost_of_expert",
    solution="cost_of_expert",
    reference=right_costs,
    without={"OneRow": "its ids have one token more than what is predicted: of one token it is nothing"},
    function=True,
    differentiable=False,
    drive=drives.costs_of_experts,
    points=5,
    axes="expert",
    cases=[
        cost_case(
            "3 texts, three experts", (3, 8), (17, 12, 2, 5, 6), [[0, 1], [1, 4], [0, 3]], tolerance=Tolerance(1e-3)
        ),
        cost_case(
            "the same expert twice", (2, 9), (13, 10, 3, 4, 5), [[2, 0], [2, 0], [1, 2]], tolerance=Tolerance(1e-3)
        ),
        cost_case("texts of two tokens", (5, 2), (19, 8, 1, 6, 7), [[0, 2], [0, 5], [0, 0]], tolerance=Tolerance(1e-3)),
        cost_case(
            "what of the model is another afterwards: numbers, parameters, gradients, modules in training mode, hooks",
            (2, 5),
            (11, 9, 2, 3, 4),
            [[1, 1], [0, 2]],
            **UNCHANGED,
        ),
    ],
)


def real(name: str) -> dict[str, Any]:
    """The fields of a published config that count here."""
    return fields_of(Config.read(CONFIGS / f"{name}.json"), *SMALL, *DEEP)


COUNTED = (*ROUTED, *CHOSEN, "n_shared_experts", "intermediate_size", "num_hidden_layers")
WHICH_LAYERS = ("first_k_dense_replace", "decoder_sparse_step", "mlp_only_layers")


def counted(config: dict[str, Any], draw: Draw) -> Config:
    """A config whose experts are as wide as usual, and any other number wide in a hidden recording."""
    return Config(draw.changed(fields_of(config, *COUNTED, *WHICH_LAYERS), moe_intermediate_size=(8, 90)))


PARAMETERS = Exercise(
    name="moe.parameters",
    solution="mlp_parameters",
    reference=right_parameters,
    function=True,
    points=4,
    axes="total/active",
    cases=[
        Case("DeepSeek-V3", lambda draw: [counted(real("deepseek-v3"), draw)]),
        Case("Qwen3 30B-A3B", lambda draw: [counted(real("qwen3-30b-a3b"), draw)]),
        Case("two shared experts", lambda draw: [counted(DEEP_2, draw)]),
        Case("every second layer is dense", lambda draw: [counted(OTHER, draw)]),
    ],
)


def bytes_case(name: str, config: dict[str, Any], tokens: int, low: int, high: int, *others: int) -> Case:
    """A case of the bytes: a config, tokens, in a hidden recording any others from low to high, and what else is given."""
    return Case(name, lambda draw: [counted(config, draw), draw.number("tokens", tokens, low, high), *others])


BYTES_READ = Exercise(
    name="moe.bytes_read",
    solution="bytes_read",
    reference=right_bytes,
    function=True,
    points=4,
    uses=["moe.parameters"],
    cases=[
        bytes_case("one token of DeepSeek-V3", real("deepseek-v3"), 1, 2, 9),
        bytes_case("64 tokens of Qwen3 30B-A3B", real("qwen3-30b-a3b"), 64, 40, 90),
        bytes_case("3 tokens, float32", DEEP_2, 3, 2, 6, 4),
        bytes_case("5 tokens, 8 bits, every second layer dense", OTHER, 5, 2, 7, 1),
        bytes_case("900 tokens of DeepSeek-V3", real("deepseek-v3"), 900, 800, 990),
        bytes_case(
            "5 layers, and one is dense for two reasons",
            OTHER | {"num_hidden_layers": 5, "mlp_only_layers": [0, 3]},
            3,
            2,
            7,
        ),
    ],
)

EXERCISES: list[Exercise] = with_mistakes(
    __file__, [SOFTMAX_ROUTER, SIGMOID_ROUTER, EXPERTS, SORTED_EXPERTS, LAYER, MODEL, COST, PARAMETERS, BYTES_READ]
)
