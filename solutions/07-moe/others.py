"""What tests/lessons/test_every_lesson.py asks of the mixture of experts: other right programs and wrong ones, random configs."""

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from grader import Config
from grader.authoring.kit import Case, Tolerance
from grader.authoring.kit.declared import Change, Numbers, Prompt, Rerun, Told, Trained
from grader.authoring.kit.programs import ModelBase
from grader.authoring.kit.solved import lesson_of

from . import exercises
from .reference import build_model, number_of_experts

LESSON = lesson_of(__file__)

MISTAKES = 192
VARIES = ["moe.softmax_router", "moe.experts", "moe.layer"]
WITHOUT = {
    "bfloat16": {
        "moe.model": "its parts are checked in bfloat16, and a whole model rounds in an order of its own",
        "moe.cost_of_expert": "it is a Python float",
        "moe.parameters": "it counts whole numbers",
        "moe.bytes_read": "it is a Python float",
    },
    "CONFIG_SHA256": "Qwen3 30B-A3B's has the fields that count; DeepSeek-V3's is compared with lesson 05's",
}


# Random configs


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """A config with the fields of both families, of which each exercise takes those of one."""
    heads, groups = draw(st.sampled_from([(2, 1), (3, 3), (4, 2), (6, 2)])), draw(st.integers(1, 4))
    size, kept = draw(st.integers(2, 5)), draw(st.integers(1, groups))
    layers, experts = draw(st.integers(1, 4)), groups * size
    return {
        "model_type": "deepseek_v3",
        "hidden_act": "silu",
        "vocab_size": draw(st.integers(2, 60)),
        "hidden_size": draw(st.integers(experts, 40)),
        "intermediate_size": draw(st.integers(1, 50)),
        "moe_intermediate_size": draw(st.integers(1, 20)),
        "num_hidden_layers": layers,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "head_dim": 2 * draw(st.integers(1, 8)),
        "max_position_embeddings": 64,
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-3])),
        "rope_theta": draw(st.sampled_from([1e2, 1e4, 1e6])),
        "tie_word_embeddings": draw(st.booleans()),
        "n_routed_experts": experts,
        "num_experts": experts,
        "num_experts_per_tok": draw(st.integers(1, kept * size)),
        "norm_topk_prob": draw(st.booleans()),
        "n_group": groups,
        "topk_group": kept,
        "routed_scaling_factor": draw(st.sampled_from([1.0, 1.5, 2.5])),
        "n_shared_experts": draw(st.integers(1, 2)),
        "first_k_dense_replace": draw(st.integers(0, layers)),
        "decoder_sparse_step": draw(st.integers(1, 3)),
        "mlp_only_layers": draw(st.lists(st.integers(0, layers - 1), max_size=2, unique=True)),
    }


CONFIGS = configs()


def of_qwen(config: dict[str, Any]) -> dict[str, Any]:
    """The config as one of Qwen3-MoE's."""
    qwen: dict[str, Any] = {name: config[name] for name in exercises.SMALL}
    return qwen | {"model_type": "qwen3_moe"}


def of_deepseek(config: dict[str, Any]) -> dict[str, Any]:
    """The config as one of DeepSeek-V3's."""
    return {name: config[name] for name in exercises.DEEP}


def either(config: dict[str, Any], n: Numbers) -> dict[str, Any]:
    """As one family's or the other's."""
    return of_qwen(config) if n.seed % 2 else of_deepseek(config)


# exercise -> a random case of it


def of_softmax_router(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.router_case(str(n.seed), of_qwen(config), n.length, n.scale)


def of_sigmoid_router(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.router_case(str(n.seed), of_deepseek(config), n.length, n.scale)


def of_experts(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.experts_case(str(n.seed), of_qwen(config), n.length, scale=n.scale)


def of_layer(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.layer_case(str(n.seed), either(config, n), n.batch, n.length, n.scale)


def of_model(config: dict[str, Any], n: Numbers) -> Case:
    shape = (config["vocab_size"], n.batch, n.length)
    return Case(str(n.seed), lambda draw: [draw.tokens(*shape)], {"config": of_qwen(config)})


def of_parameters(config: dict[str, Any], n: Numbers) -> Case:
    return Case(str(n.seed), lambda draw: [exercises.counted(either(config, n), draw)])


def of_bytes(config: dict[str, Any], n: Numbers) -> Case:
    made = either(config, n)
    made["num_experts_per_tok"] = min(made["num_experts_per_tok"], number_of_experts(made) - 1)
    return exercises.bytes_case(str(n.seed), made, n.length, 1, 20, 4)


def of_cost(config: dict[str, Any], n: Numbers) -> Case:
    layers, experts = 1 + n.seed % 2, 3 + n.seed % 4  # it has no norms: with a third layer, some logits overflow
    sizes = (10 + n.seed % 20, 6 + n.seed % 7, layers, experts, 2 + n.seed % 5)
    asked = [[n.seed % layers, n.seed % experts], [layers - 1, 0]]
    return exercises.cost_case(str(n.seed), (4 + n.batch, 8 + n.length), sizes, asked, tolerance=Tolerance(1e-3))


RANDOM = {
    "moe.softmax_router": of_softmax_router,
    "moe.sigmoid_router": of_sigmoid_router,
    "moe.experts": of_experts,
    "moe.sorted_experts": of_experts,
    "moe.layer": of_layer,
    "moe.model": of_model,
    "moe.cost_of_expert": of_cost,
    "moe.parameters": of_parameters,
    "moe.bytes_read": of_bytes,
}


# Other right programs


def how_many(config: Config) -> int:
    return next(config[name] for name in ("num_experts", "n_routed_experts", "num_local_experts") if name in config)


class Router(nn.Module):
    """The weight of a linear layer without bias."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.weight = nn.Linear(config.hidden_size, how_many(config), bias=False).weight
        self.config, self.k = config, config.num_experts_per_tok


class RouterOfLogits(Router):
    """Chosen by the logits, lowest first; the softmax afterwards, over whichever experts count."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = F.linear(x, self.weight).float()
        best, chosen = logits.topk(self.k, dim=-1)
        whole = torch.logsumexp(best if self.config.norm_topk_prob else logits, dim=-1, keepdim=True)
        return (best - whole).exp().to(x.dtype).flip(-1), chosen.flip(-1)


class RouterThatMasks(Router):
    """The other experts' logits are -inf; sorted by the experts' numbers."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = F.softmax(torch.einsum("nd,ed->ne", x, self.weight).to(torch.float32), -1)
        chosen = scores.argsort(dim=-1, descending=True)[:, : self.k].sort(dim=-1).values
        weights = torch.take_along_dim(scores, chosen, dim=-1)
        return (F.normalize(weights, p=1, dim=-1) if self.config.norm_topk_prob else weights).to(x.dtype), chosen


class SigmoidBase(Router):
    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.e_score_correction_bias = nn.Parameter(torch.zeros(how_many(config)), requires_grad=False)

    def scored(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x.float() @ self.weight.float().T)

    def weighted(self, scores: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        weights = torch.take_along_dim(scores, chosen, dim=-1)
        if self.config.norm_topk_prob:
            weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-20)
        return self.config.routed_scaling_factor * weights, chosen


class SigmoidTokenByToken(SigmoidBase):
    """As the paper reads, one token at a time."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, rows = self.scored(x), []
        for choice in scores + self.e_score_correction_bias:
            groups = choice.chunk(self.config.n_group)
            sums = [sum(sorted(group.tolist())[-2:]) for group in groups]
            best = sorted(range(len(sums)), key=lambda g: -sums[g])[: self.config.topk_group]
            size = len(choice) // self.config.n_group
            open_ = [g * size + i for g in best for i in range(size)]
            rows.append(sorted(open_, key=lambda e: -float(choice[e]))[: self.k])
        return self.weighted(scores, torch.tensor(rows))


class SigmoidByIndexing(SigmoidBase):
    """Only the experts of the groups that stay are looked at; their numbers are computed from their groups."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.scored(x)
        groups = (scores.detach() + self.e_score_correction_bias).unflatten(-1, (self.config.n_group, -1))
        top = groups.sort(dim=-1, descending=True).values[..., :2].sum(-1).topk(self.config.topk_group).indices
        numbers = torch.arange(scores.shape[-1]).view(self.config.n_group, -1)[top].flatten(1)
        open_ = torch.take_along_dim(groups.flatten(1), numbers, dim=-1)
        return self.weighted(scores, numbers.gather(1, open_.topk(self.k).indices))


class Stacked(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        E, D, width = how_many(config), config.hidden_size, config.moe_intermediate_size
        self.down_proj = nn.Parameter(torch.empty(E, D, width))
        self.gate_up_proj = nn.Parameter(torch.empty(E, 2 * width, D))


class ExpertsPairByPair(Stacked):
    """Each pair of token and expert by itself, with a copy of its expert's weights."""

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        gate, up = torch.einsum("nd,nkid->nki", x, self.gate_up_proj[chosen]).chunk(2, dim=-1)
        given = torch.einsum("nki,nkdi->nkd", F.silu(gate) * up, self.down_proj[chosen])
        return (given * weights[..., None]).sum(dim=1).to(x.dtype)


class ExpertsByOneHot(Stacked):
    """The tokens of an expert found in a one-hot tensor; halves of the matrix in place of halves of the result."""

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        E, width = self.down_proj.shape[0], self.down_proj.shape[2]
        dense = weights.new_zeros(len(x), E).scatter(1, chosen, weights)
        hit, output = F.one_hot(chosen, E).sum(dim=1).bool(), torch.zeros_like(x)
        for e in hit.any(dim=0).nonzero().flatten().tolist():
            rows = x[hit[:, e]]
            inner = F.silu(rows @ self.gate_up_proj[e, :width].T) * (rows @ self.gate_up_proj[e, width:].T)
            part = torch.zeros_like(x).masked_scatter(hit[:, e, None], (inner @ self.down_proj[e].T).to(x.dtype))
            output = output + (part * dense[:, e, None]).to(x.dtype)
        return output


class ExpertsInRuns(Stacked):
    """Sorted, with edges found by a search, and the sums over the k experts taken in the tokens' own order."""

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        numbers, order = chosen.flatten().sort()
        edges = torch.searchsorted(numbers, torch.arange(len(self.down_proj) + 1)).tolist()
        rows, width = x.repeat_interleave(chosen.shape[1], dim=0)[order], self.down_proj.shape[2]
        given = []
        for e, (start, end) in enumerate(pairwise(edges)):
            if end > start:
                both = rows[start:end] @ self.gate_up_proj[e].T
                given.append((both[:, :width].sigmoid() * both[:, :width] * both[:, width:]) @ self.down_proj[e].T)
        back = torch.cat(given)[order.argsort()].unflatten(0, chosen.shape)
        return torch.einsum("nkd,nk->nd", back.float(), weights.float()).to(x.dtype)


class Mlp(nn.Module):
    def __init__(self, D: int, width: int) -> None:
        super().__init__()
        self.up_proj, self.gate_proj = nn.Linear(D, width, bias=False), nn.Linear(D, width, bias=False)
        self.down_proj = nn.Linear(width, D, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.up_proj(x) * F.silu(self.gate_proj(x)))  # type: ignore[no-any-return]


class LayerByHand(nn.Module):
    """Shared expert first; the routed ones pair by pair."""

    routed: type[nn.Module] = ExpertsPairByPair
    routers: tuple[type[nn.Module], type[nn.Module]] = (RouterOfLogits, SigmoidByIndexing)

    def __init__(self, config: Config) -> None:
        super().__init__()
        deepseek = config.model_type == "deepseek_v3"
        self.gate, self.experts = self.routers[deepseek](config), self.routed(config)
        if deepseek:
            self.shared_experts = Mlp(config.hidden_size, config.n_shared_experts * config.moe_intermediate_size)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        output = self.shared_experts(rows) if hasattr(self, "shared_experts") else torch.zeros_like(rows)
        weights, chosen = self.gate(rows)
        return (output + self.experts(rows, chosen, weights)).reshape(x.shape)


class LayerInRuns(LayerByHand):
    routed, routers = ExpertsInRuns, (RouterThatMasks, SigmoidTokenByToken)


class ModelByHand(ModelBase):
    """One table for every length; the layers' MLPs made before the layers."""

    layer: type[nn.Module] = LayerByHand
    first = 0

    def __init__(self, config: Config) -> None:
        own, D = LESSON.solutions, config.hidden_size
        plain = config.replace(model_type="qwen3")
        step, dense = config.get("decoder_sparse_step", 1), config.get("mlp_only_layers") or []
        layers = []
        for number in range(1, config.num_hidden_layers + 1):
            made = own["DecoderLayer"](plain)
            sparse = number % step == 0 and number - 1 not in dense
            made.mlp = self.layer(config) if sparse else Mlp(D, config.intermediate_size)
            layers.append(made)
        positions = torch.arange(config.max_position_embeddings + 1)
        table = own["rope_table"](positions, own["head_dim"](config), own["rope_theta"](config))
        super().__init__(config, own["RMSNorm"](D, config.rms_norm_eps), layers, table)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedded(ids)
        for layer in self.layers:
            x = layer(x, self.table[:, self.first : self.first + ids.shape[1]])
        return self.norm(x)  # type: ignore[no-any-return]


class ModelCountingFromOne(ModelByHand):
    """Only distances matter to RoPE, so the first token may have any position."""

    layer, first = LayerInRuns, 1


def parameters_layer_by_layer(config: Config) -> tuple[int, int]:
    total = active = 0
    for i in range(config.num_hidden_layers):
        D, width = config.hidden_size, config.moe_intermediate_size
        if not LESSON.solutions["is_sparse"](config, i):
            total, active = total + 3 * D * config.intermediate_size, active + 3 * D * config.intermediate_size
            continue
        shared = config.get("n_shared_experts") or 0
        total += D * how_many(config) + 3 * D * width * (how_many(config) + shared)
        active += D * how_many(config) + 3 * D * width * (config.num_experts_per_tok + shared)
    return total, active


def parameters_from_modules(config: Config) -> list[int]:
    """Counted in modules on a device that holds no numbers."""
    with torch.device("meta"):
        expert, dense = (Mlp(config.hidden_size, config[w]) for w in ("moe_intermediate_size", "intermediate_size"))
        router = Router(config)
    one, wide, gate = (sum(p.numel() for p in made.parameters()) for made in (expert, dense, router))
    sparse = [LESSON.solutions["is_sparse"](config, i) for i in range(config.num_hidden_layers)].count(True)
    around = (config.num_hidden_layers - sparse) * wide + sparse * (gate + config.get("n_shared_experts", 0) * one)
    return [around + sparse * n * one for n in (how_many(config), config.num_experts_per_tok)]


def parameters_of_the_lessons_modules(config: Config) -> list[int]:
    """Counted in the lesson's own layer, so the config must have every field that its parts read."""
    with torch.device("meta"):
        dense, sparse = (LESSON.solutions[name](config) for name in ("MLP", "MoE"))
    wide, all_, routed = (sum(p.numel() for p in made.parameters()) for made in (dense, sparse, sparse.experts))
    used = all_ - routed // how_many(config) * (how_many(config) - config.num_experts_per_tok)
    which = [LESSON.solutions["is_sparse"](config, i) for i in range(config.num_hidden_layers)]
    return [sum(one if i else wide for i in which) for one in (all_, used)]


def bytes_from_parts(config: Config, tokens: int, element_bytes: int = 2) -> float:
    total, _ = parameters_layer_by_layer(config)
    idle = (1 - config.num_experts_per_tok / how_many(config)) ** tokens  # the share of experts that nobody chose
    sparse = sum(LESSON.solutions["is_sparse"](config, i) for i in range(config.num_hidden_layers))
    routed = sparse * how_many(config) * 3 * config.hidden_size * config.moe_intermediate_size
    return element_bytes * (total - idle * routed)


def bytes_token_by_token(config: Config, tokens: int, element_bytes: int = 2) -> Tensor:
    """Each further token adds what it shares with none before."""
    total, active = parameters_from_modules(config)
    k, E = config.num_experts_per_tok, how_many(config)
    read, new = torch.tensor(0.0, dtype=torch.float64), (total - active) * k / (E - k)  # one token's experts
    for _ in range(tokens):
        read, new = read + new, new * (1 - k / E)
    return (read + total - (total - active) * E / (E - k)) * element_bytes


def cost_in_a_copy(model: Any, ids: Tensor, layer: int, expert: int) -> float:
    """In a copy of the model, whose loss is written out."""
    nats: list[float] = []
    for one in (copy.deepcopy(model), copy.deepcopy(model)):
        if nats:
            one.model.layers[layer].mlp.experts.down_proj.data[expert] = 0
        with torch.no_grad():
            scores = one(ids).log_softmax(-1)[:, :-1]
        nats.append(-float(scores.gather(-1, ids[:, 1:, None]).double().mean()))
    return nats[1] - nats[0]


@torch.no_grad()
def cost_by_weights(model: Any, ids: Tensor, layer: int, expert: int) -> float:
    """The expert's weights are 0 on their way from the router to the experts."""
    mlp = model.model.layers[layer].mlp

    def silent(module: nn.Module, given: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        x, chosen, weights = given
        return x, chosen, weights * (chosen != expert)

    def nats() -> float:
        whole = model(ids)
        lost = [F.cross_entropy(row[:-1], text[1:], reduction="sum") for row, text in zip(whole, ids, strict=True)]
        return float(sum(lost)) / (ids.numel() - len(ids))

    with_all, handle = nats(), mlp.experts.register_forward_pre_hook(silent)
    try:
        return nats() - with_all
    finally:
        handle.remove()


def cost_by_gate(model: Any, ids: Tensor, layer: int, expert: int) -> float:
    """The expert's gate is closed: silu(0) is 0."""
    weight = model.model.layers[layer].mlp.experts.gate_up_proj
    kept = weight.data.clone()

    def loss() -> Tensor:
        logits = model(ids).detach()
        return F.nll_loss(logits[:, :-1].log_softmax(-1).mT, ids[:, 1:])

    before = loss()
    weight.data[expert] = 0.0
    rise = loss() - before
    weight.data.copy_(kept)
    return float(rise)


RIGHT: dict[str, tuple[Callable[..., Any], ...]] = {
    "moe.softmax_router": (RouterOfLogits, RouterThatMasks),
    "moe.sigmoid_router": (SigmoidTokenByToken, SigmoidByIndexing),
    "moe.experts": (ExpertsPairByPair, ExpertsByOneHot, ExpertsInRuns),
    "moe.sorted_experts": (ExpertsPairByPair, ExpertsInRuns),
    "moe.layer": (LayerByHand, LayerInRuns),
    "moe.model": (ModelByHand, ModelCountingFromOne),
    "moe.cost_of_expert": (cost_in_a_copy, cost_by_weights, cost_by_gate),
    "moe.parameters": (parameters_layer_by_layer, parameters_from_modules, parameters_of_the_lessons_modules),
    "moe.bytes_read": (bytes_from_parts, bytes_token_by_token),
}


# Programs that are right only by chance


class RouterThatAlwaysNorms(RouterOfLogits):
    def __init__(self, config: Config) -> None:
        super().__init__(config.replace(norm_topk_prob=True))


class SigmoidOfOneGroup(SigmoidByIndexing):
    def __init__(self, config: Config) -> None:
        super().__init__(config.replace(n_group=1, topk_group=1))


class ExpertsForTwo(ExpertsPairByPair):
    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        return super().forward(x, chosen[:, :2], weights[:, :2])


class LayerWithOneShared(LayerByHand):
    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "shared_experts"):
            return super().forward(x)
        self.shared_experts.register_forward_hook(lambda _, __, output: output * 2.5)
        return super().forward(x)


def cost_once(model: Any, ids: Tensor, layer: int, expert: int) -> float:
    """Right for the first expert that is asked for."""
    rise = cost_by_gate(model, ids, layer, expert)
    model.model.layers[layer].mlp.experts.down_proj.data[expert] = 0.0
    return rise


BY_CHANCE = {
    "moe.softmax_router": [RouterThatAlwaysNorms],
    "moe.sigmoid_router": [SigmoidOfOneGroup],
    "moe.experts": [ExpertsForTwo],
    "moe.layer": [LayerWithOneShared],
    "moe.cost_of_expert": [cost_once],
}


# What comes back in the wrong form is told in plain words, and a wrong part is named where it is used


class NumbersFirst(LESSON.solutions["SoftmaxRouter"]):  # type: ignore[misc, name-defined]
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weights, chosen = super().forward(x)
        return chosen, weights


class NoReturn(LESSON.solutions["SigmoidRouter"]):  # type: ignore[misc, name-defined]
    def forward(self, x: Tensor) -> None:
        super().forward(x)


TOLD = [
    Told("moe.softmax_router", NumbersFirst, ["the router returned numbers of experts first; the weights come first"]),
    Told("moe.sigmoid_router", NoReturn, ["two tensors belong there", "does it end with `return`?"]),
    Told(
        "moe.sorted_experts",
        Change(
            "moe.sorted_experts", "order = chosen", "return super().forward(x, chosen, weights)\n        order = chosen"
        ),
        ["This is what comes out when each expert looks for its tokens"],
    ),
    Told(
        "moe.layer",
        Change("moe.experts", "F.silu(gate) * up", "gate * F.silu(up)"),
        ["Mend `moe.experts` first"],
    ),
    Told(
        "moe.layer",
        Change("moe.softmax_router", "if self.normed:", "if not self.normed:"),
        ["Mend `moe.softmax_router` first"],
    ),
]


# Bugs that the layer comparison finds, names, sizes and trained weights


def swapped_gate(self: Any, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    output = torch.zeros_like(x)
    for e in range(len(self.down_proj)):
        token, place = torch.where(chosen == e)
        up, gate = F.linear(x[token], self.gate_up_proj[e]).chunk(2, dim=-1)
        output[token] += F.linear(F.silu(gate) * up, self.down_proj[e]) * weights[token, place, None]
    return output


def without_the_norm_of_weights(self: Any, x: Tensor) -> Tensor:
    rows = x.flatten(0, 1)
    weights, chosen = F.linear(rows, self.gate.weight).softmax(-1).topk(2, dim=-1)
    return self.experts(rows, chosen, weights).view_as(x)  # type: ignore[no-any-return]


PLANTED = [
    ("layers.1.mlp.experts", swapped_gate),
    ("layers.2.mlp", without_the_norm_of_weights),
]
HUB = {"moe.model": build_model}
QWEN3_30B = 30_532_122_624 - 151_936 * 2048  # without its head
SIZES = {"qwen3-30b-a3b": (LESSON.config("qwen3-30b-a3b"), QWEN3_30B)}
PROMPTS = [Prompt(text, 64) for text in ("It is a truth universally acknowledged", "Anne", "Captain Wentworth")]
TRAINED = [Trained("austen-moe", "CausalLM", "generate", PROMPTS)]
RERUNS = {
    "with other routers and experts": Rerun(
        {
            "moe.softmax_router": RouterThatMasks,
            "moe.sigmoid_router": SigmoidByIndexing,
            "moe.experts": ExpertsInRuns,
            "moe.sorted_experts": ExpertsInRuns,
            "moe.layer": LayerInRuns,
            "moe.model": ModelByHand,
            "moe.cost_of_expert": cost_by_weights,
            "moe.parameters": parameters_from_modules,
            "moe.bytes_read": bytes_from_parts,
        },
        shows=["671,026,404,352 parameters"],
        changes={"persuasion[: 8 * 256]).view(8, 256)": "persuasion[: 2 * 64]).view(2, 64)"},
    ),
}
