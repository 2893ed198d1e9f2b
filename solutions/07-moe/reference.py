"""What is right in 07-moe: transformers' Qwen3-MoE and DeepSeek-V3, experts one by one; inputs whose choices are clear."""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DeepseekV3Config, Qwen3MoeConfig
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MLP, DeepseekV3MoE, DeepseekV3TopkRouter
from transformers.models.qwen3_moe.modeling_qwen3_moe import (
    Qwen3MoeMLP,
    Qwen3MoeModel,
    Qwen3MoeSparseMoeBlock,
    Qwen3MoeTopKRouter,
)

from grader.authoring.kit import Config, Draw, clear, hf, random_weights

# Mean and spread of the correction biases, by the number of experts.
BIASES = {9: (12.0, 0.02), 12: (-12.0, 0.2), 20: (0.0, 0.0)}


CLEAR_LOGITS = 1e-3  # between the best logits of a small mixture: far more than rounding moves them


def is_deepseek(config: Mapping[str, Any]) -> bool:
    return bool(config["model_type"] == "deepseek_v3")


def number_of_experts(config: Mapping[str, Any]) -> int:
    return int(config["n_routed_experts" if is_deepseek(config) else "num_experts"])


def reference_config(config: Mapping[str, Any]) -> Any:
    return hf.config(DeepseekV3Config if is_deepseek(config) else Qwen3MoeConfig, config)


def build_router(config: Config) -> nn.Module:
    """The router with the correction bias of the config, where there is one."""
    if not is_deepseek(config):
        return Qwen3MoeTopKRouter(reference_config(config))
    router = DeepseekV3TopkRouter(reference_config(config))
    router.e_score_correction_bias.copy_(correction_bias(config))
    return router


def build_layer(config: Config) -> nn.Module:
    if not is_deepseek(config):
        return Qwen3MoeSparseMoeBlock(reference_config(config))
    layer = DeepseekV3MoE(reference_config(config))
    layer.gate.e_score_correction_bias.copy_(correction_bias(config))
    return layer


def build_model(config: Config) -> nn.Module:
    return Qwen3MoeModel(reference_config(config)).eval()


# Routers whose choices are clear: no check may hang on a near-tie


def router_weight(config: Mapping[str, Any]) -> Tensor:
    """The same random weights for every router of this size, so that inputs can be drawn for it: [E, D]."""
    E, D = number_of_experts(config), config["hidden_size"]
    return Draw("router", str(E), str(D)).normal(E, D) * D**-0.5


def correction_bias(config: Mapping[str, Any]) -> Tensor:
    """The biases of every router with this number of experts: [E], float32."""
    E = number_of_experts(config)
    mean, spread = BIASES.get(E, (0.0, 0.3))
    return mean + spread * Draw("bias", str(E)).normal(E)


def router_weights(module: nn.Module, draw: Draw) -> None:
    """Random weights, and in the router those that inputs are drawn for."""
    random_weights(module, draw)
    for name, parameter in module.named_parameters():
        if name in ("weight", "gate.weight"):
            E, D = parameter.shape
            parameter.data = Draw("router", str(E), str(D)).normal(E, D) * D**-0.5


def margins(config: Mapping[str, Any], logits: Tensor) -> Tensor:
    """By how much each token's choice of groups and experts is clear: logits [N, E] -> [N]."""
    if not is_deepseek(config):  # in bfloat16 logits are rounded, and known mistakes go by other ranks than the k-th
        gaps = [clear.gap(logits, rank) for rank in range(1, config["num_experts_per_tok"] + 2)]
        return torch.stack(gaps).amin(dim=0)
    choice = logits.sigmoid() + correction_bias(config)
    grouped = choice.unflatten(-1, (config["n_group"], -1))
    sums = grouped.topk(2, dim=-1).values.sum(dim=-1)
    kept = torch.zeros_like(sums).scatter(1, sums.topk(config["topk_group"], dim=-1).indices, 1.0)
    open_ = grouped.masked_fill(kept[..., None] == 0, -math.inf).flatten(1)
    return torch.minimum(clear.gap(sums, config["topk_group"]), clear.gap(open_, config["num_experts_per_tok"]))


def clear_rows(draw: Draw, count: int, config: Mapping[str, Any], scale: float = 1.0, lower: float = 0.0) -> Tensor:
    """Draws tokens whose choice is clear: [count, D]. lower: by how much all logits are below those of random tokens."""
    weight, spread = router_weight(config), correction_bias(config).std().item() if is_deepseek(config) else scale
    spread = spread or 0.3  # without biases the scores alone make the choice
    down = torch.linalg.pinv(weight) @ torch.full((len(weight),), -lower) if lower else torch.zeros(weight.shape[1])
    by = clear.CLEAR * min(scale, spread)
    return clear.clear(
        lambda: draw.normal(1, weight.shape[1], scale=scale) + down,
        lambda x: margins(config, x @ weight.T).item() > by,
        count,
    )


def call_router(module: nn.Module, x: Tensor) -> Tensor:
    """transformers' router gives logits, weights and numbers: as one weight for each token and expert."""
    logits, weights, chosen = module(x)
    return weights.new_zeros(logits.shape).scatter(1, chosen, weights)


def run_experts(module: Any, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """What experts give."""
    output: Tensor = module(x, chosen, weights)
    return output


# Counted from transformers' own modules, on a device that holds no numbers


@lru_cache(maxsize=64)
def _layer_sizes(config: tuple[tuple[str, Any], ...]) -> tuple[int, int, int]:
    """The parameters of a dense MLP, of a sparse layer without its routed experts, and of one routed expert."""
    made = dict(config)
    with torch.device("meta"):
        sparse = (DeepseekV3MoE if is_deepseek(made) else Qwen3MoeSparseMoeBlock)(reference_config(made))
        dense = (DeepseekV3MLP if is_deepseek(made) else Qwen3MoeMLP)(reference_config(made))
    routed = sum(p.numel() for p in sparse.experts.parameters())
    every = sum(p.numel() for p in sparse.parameters())
    return sum(p.numel() for p in dense.parameters()), every - routed, routed // number_of_experts(made)


def layer_sizes(config: Mapping[str, Any]) -> tuple[int, int, int, int, int]:
    """As `_layer_sizes`, with how many layers are dense, and how many sparse, as transformers' layers decide it."""
    sizes = _layer_sizes(tuple(sorted((name, value) for name, value in config.items() if not isinstance(value, list))))
    layers = range(config["num_hidden_layers"])
    if is_deepseek(config):
        sparse = sum(i >= config["first_k_dense_replace"] for i in layers)
    else:
        step, dense = config.get("decoder_sparse_step", 1), config.get("mlp_only_layers") or []
        sparse = sum(i not in dense and (i + 1) % step == 0 for i in layers)
    return (*sizes, len(layers) - sparse, sparse)


def right_parameters(config: Mapping[str, Any]) -> list[int]:
    dense, around, expert, dense_layers, sparse_layers = layer_sizes(config)
    both = dense_layers * dense + sparse_layers * around
    return [both + sparse_layers * n * expert for n in (number_of_experts(config), config["num_experts_per_tok"])]


def right_bytes(config: Mapping[str, Any], tokens: int, element_bytes: int = 2) -> float:
    """From the chance that k of E experts, drawn without one of them, are all that each of the tokens chose."""
    dense, around, expert, dense_layers, sparse_layers = layer_sizes(config)
    E, k = number_of_experts(config), config["num_experts_per_tok"]
    nobody = (math.comb(E - 1, k) / math.comb(E, k)) ** tokens
    read = E * (1 - nobody) * expert
    return float(element_bytes * (dense_layers * dense + sparse_layers * (around + read)))


# What an expert costs, one token at a time


def surprise(ids: Tensor, weights: Sequence[Tensor], removed: Sequence[int] | None = None) -> tuple[float, float]:
    """The mean loss of `drives.SmallMixture` at the next token, in float64, and how clear its closest choice was.

    removed: a layer, and its expert whose output is 0.
    """
    embedding, *layers = (weight.double() for weight in weights)
    x, clearest = embedding[ids], math.inf  # [B, T, D]
    for number, (router, gate_up, down) in enumerate(zip(*layers, strict=True)):
        so_far = torch.stack([x[:, : t + 1].mean(dim=1) for t in range(x.shape[1])], dim=1)
        rows = (x + so_far).flatten(0, 1)
        given = torch.zeros_like(rows)
        for token, row in enumerate(rows):
            logits = [float(row @ expert) for expert in router]
            order = sorted(range(len(logits)), key=lambda e: -logits[e])
            clearest = min(clearest, *(logits[a] - logits[b] for a, b in pairwise(order[:4])))
            whole = sum(math.exp(logits[e]) for e in order[:2])
            for e in order[:2]:
                gate, up = (gate_up[e] @ row).chunk(2)
                if removed is None or list(removed) != [number, e]:
                    given[token] += math.exp(logits[e]) / whole * (down[e] @ (gate * gate.sigmoid() * up))
        x = x + given.view_as(x)
    scores = x @ embedding.T
    lost = [
        float(scores[b, t].logsumexp(0) - scores[b, t, ids[b, t + 1]])
        for b in range(ids.shape[0])
        for t in range(ids.shape[1] - 1)
    ]
    return sum(lost) / len(lost), clearest


def right_costs(
    ids: Tensor,
    embedding: Tensor,
    routers: Tensor,
    gate_ups: Tensor,
    downs: Tensor,
    asked: Sequence[Sequence[int]],
) -> list[float]:
    weights = [embedding, routers, gate_ups, downs]
    return [surprise(ids, weights, expert)[0] - surprise(ids, weights)[0] for expert in asked]


def drawn_mixture(
    draw: Draw, shape: Sequence[int], sizes: Sequence[int], asked: Sequence[Sequence[int]]
) -> list[Tensor]:
    """Ids [shape] and the weights of a `drives.SmallMixture` whose choices are clear, whichever asked expert is out.

    sizes: vocabulary, width of the model, layers, experts, width of an expert.
    """
    V, D, layers, E, width = sizes

    def drawn() -> list[Tensor]:
        routers, gate_ups = draw.normal(layers, E, D), draw.normal(layers, E, 2 * width, D) * D**-0.5
        downs = draw.normal(layers, E, D, width) * width**-0.5
        return [draw.tokens(V, *shape), 0.7 * draw.normal(V, D), routers, gate_ups, downs]

    def is_clear(found: list[Tensor]) -> bool:
        return all(surprise(found[0], found[1:], expert)[1] > CLEAR_LOGITS for expert in (None, *asked))

    while not is_clear(found := drawn()):
        pass
    return found
