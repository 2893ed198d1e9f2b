"""What tests/lessons/test_every_lesson.py asks of GPT-2: other right programs and wrong ones, random configs, checkpoints."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import GPT2Model

from grader import Config, load_checkpoint
from grader.authoring.kit import Case, Tolerance
from grader.authoring.kit.declared import Numbers, Prompt, Rerun, Trained
from grader.authoring.kit.engine import entry
from grader.authoring.kit.programs import written
from grader.authoring.kit.randomly import of_tokens, of_vectors
from grader.authoring.kit.solved import lesson_of

from . import exercises
from .reference import reference_config

LESSON = lesson_of(__file__)

MISTAKES = 260
VARIES = ["gpt2.layer_norm", "gpt2.attention", "gpt2.train_step", "gpt2.cost_of_head"]
WITHOUT = {
    "RANDOM": {"gpt2.generate": "a generation is random as it is: its cases draw the model that writes"},
    "bfloat16": {
        "gpt2.model": "its parts are checked in bfloat16, and a whole model rounds in the order of its own",
        "gpt2.generate": "it handles whole numbers",
        "gpt2.train_step": "the loss is computed in float32, and the model is a toy",
        "gpt2.cost_of_head": "it is a Python float",
    },
    "TOLD": "its mistakes are named one by one, and it uses nothing of another exercise by name",
}


# Random configs


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    heads = draw(st.integers(1, 5))
    config: dict[str, Any] = {
        # With head_dim 1 the merged heads are a view in another memory order, and the product rounds differently.
        "n_embd": heads * draw(st.integers(2, 20)),
        "n_head": heads,
        "n_layer": draw(st.integers(1, 3)),
        "n_positions": draw(st.integers(1, 20)),
        "vocab_size": draw(st.integers(2, 70)),
        "layer_norm_epsilon": draw(st.sampled_from([1e-6, 1e-5, 1e-3])),
    }
    if draw(st.booleans()):
        config["n_inner"] = draw(st.none() | st.integers(1, 90))
    return config


# exercise -> a random case of it; as many tokens as there are positions


def at_full_length(of: Callable[..., Case]) -> Callable[..., Case]:
    return lambda config, n, **build: of(config, replace(n, length=config["n_positions"]), **build)


vectors = at_full_length(of_vectors)


def of_step(config: dict[str, Any], n: Numbers) -> Case:
    sizes, shape = (4 + n.seed % 5, 2 + n.seed % 4), (1 + n.seed % 3, n.batch, n.length)
    name, options = [("SGD", {"lr": 0.3}), ("SGD", {"lr": 0.1, "momentum": 0.9}), ("AdamW", {"lr": 0.02})][n.seed % 3]
    return exercises.step_case(str(n.seed), sizes, shape, name, options, (n.seed % 2) * 0.4)


def of_cost(config: dict[str, Any], n: Numbers) -> Case:
    heads, layers = 2 + n.seed % 4, 1 + n.seed % 3
    sizes = (6 + n.seed % 10, heads, 2 + n.seed % 3, layers)
    asked = [[n.seed % layers, n.seed % heads], [layers - 1, 0]]
    return exercises.head_case(str(n.seed), (n.batch, min(n.length, 8) + 1), sizes, asked, tolerance=Tolerance(2e-3))


CONFIGS = configs()
RANDOM = {
    "gpt2.layer_norm": lambda config, n: vectors(config, n, dim=config["n_embd"], eps=config["layer_norm_epsilon"]),
    "gpt2.gelu": lambda config, n: replace(vectors(config, n), build={}),
    "gpt2.conv1d": lambda config, n: vectors(config, n, nf=config["vocab_size"], nx=config["n_embd"]),
    "gpt2.attention": vectors,
    "gpt2.mlp": vectors,
    "gpt2.block": vectors,
    "gpt2.model": at_full_length(of_tokens),
    "gpt2.train_step": of_step,
    "gpt2.cost_of_head": of_cost,
}


# Other right programs


class WithParameters(nn.Module):
    """A weight of the given shape, and a bias as long as its last axis."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(*shape))
        self.bias = nn.Parameter(torch.zeros(shape[-1]))


class LayerNormBase(WithParameters):
    def __init__(self, dim: int, eps: float) -> None:
        super().__init__(dim)
        self.eps = eps


class LayerNormKernel(LayerNormBase):
    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)


class LayerNormInFloat32(LayerNormBase):
    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x.float(), dim=-1, correction=0, keepdim=True)
        normed = (x.float() - mean) * torch.rsqrt(variance + self.eps)
        return (normed * self.weight + self.bias).to(x.dtype)


class LayerNormFromMoments(LayerNormBase):
    def forward(self, x: Tensor) -> Tensor:
        mean = x.sum(-1, keepdim=True) / x.shape[-1]
        centred = x - mean
        return centred / (centred.pow(2).mean(-1, keepdim=True) + self.eps) ** 0.5 * self.weight + self.bias


class GeluKernel(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate="tanh")


class GeluWithProducts(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 2 * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x * x * x)))


class GeluWithSigmoid(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(2 * (2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))


class Conv1DWithMatmul(WithParameters):
    def __init__(self, nf: int, nx: int) -> None:
        super().__init__(nx, nf)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Conv1DWithEinsum(Conv1DWithMatmul):
    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("...i,ij->...j", x, self.weight) + self.bias


class Conv1DWithAddmm(Conv1DWithMatmul):
    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], -1)


class AttentionBase(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        D = config.n_embd
        self.H, self.hd = config.n_head, D // config.n_head
        self.c_attn, self.c_proj = Conv1DWithMatmul(3 * D, D), Conv1DWithMatmul(D, D)

    def heads(self, t: Tensor) -> Tensor:
        return t.unflatten(-1, (self.H, self.hd)).movedim(-2, 1)


class AttentionSdpa(AttentionBase):
    """Fused q, k, v and the fused kernel."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = map(self.heads, self.c_attn(x).chunk(3, dim=-1))
        return self.c_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class AttentionSplit(AttentionBase):
    """Three products for q, k and v; eager, with an additive mask that is a buffer of the model's full length."""

    mask: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        mask = torch.full((config.n_positions, config.n_positions), -1e30).triu(1)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        weights, biases = self.c_attn.weight.chunk(3, dim=1), self.c_attn.bias.chunk(3)
        q, k, v = (self.heads(F.linear(x, w.T, b)) for w, b in zip(weights, biases, strict=True))
        scores = (q * self.hd**-0.5) @ k.transpose(2, 3) + self.mask[: x.shape[1], : x.shape[1]].to(x.dtype)
        return self.c_proj((scores.float().softmax(-1).to(x.dtype) @ v).transpose(1, 2).flatten(2))


class AttentionHeadByHead(AttentionBase):
    """A loop over heads, and einsum."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.c_attn(x).chunk(3, dim=-1)
        seen = torch.tril(torch.ones(x.shape[1], x.shape[1], dtype=torch.bool))
        results = []
        for h in range(self.H):
            own = slice(h * self.hd, (h + 1) * self.hd)
            scores = torch.einsum("bid,bjd->bij", q[..., own], k[..., own]) / self.hd**0.5
            weights = torch.where(seen, scores, torch.finfo(x.dtype).min).softmax(-1)
            results.append(torch.einsum("bij,bjd->bid", weights, v[..., own]))
        return self.c_proj(torch.cat(results, dim=-1))


class MLPWithKernels(nn.Module):
    conv: type[nn.Module] = Conv1DWithMatmul
    gelu: type[nn.Module] = GeluKernel

    def __init__(self, config: Config) -> None:
        super().__init__()
        D = config.n_embd
        inner = config["n_inner"] if "n_inner" in config and config["n_inner"] is not None else 4 * D
        self.c_fc, self.act, self.c_proj = self.conv(inner, D), self.gelu(), self.conv(D, inner)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.act(self.c_fc(x)))


class MLPWithProducts(MLPWithKernels):
    conv, gelu = Conv1DWithEinsum, GeluWithProducts


class BlockWithKernels(nn.Module):
    norm: type[nn.Module] = LayerNormKernel
    attention: type[nn.Module] = AttentionSdpa
    feed_forward: type[nn.Module] = MLPWithKernels

    def __init__(self, config: Config) -> None:
        super().__init__()
        D, eps = config.n_embd, config.layer_norm_epsilon
        self.mlp, self.attn = self.feed_forward(config), self.attention(config)
        self.ln_2, self.ln_1 = self.norm(D, eps), self.norm(D, eps)

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        x = self.attn(self.ln_1(x)) + residual
        residual = x
        return self.mlp(self.ln_2(x)) + residual


class BlockByHand(BlockWithKernels):
    norm, attention, feed_forward = LayerNormFromMoments, AttentionHeadByHead, MLPWithProducts


class BlockInFloat32(BlockWithKernels):
    norm, attention = LayerNormInFloat32, AttentionSplit


class ModelWithKernels(nn.Module):
    """The head is an nn.Linear that shares its weight."""

    block: type[nn.Module] = BlockWithKernels
    norm: type[nn.Module] = nn.LayerNorm

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.h = nn.ModuleList([self.block(config) for _ in range(config.n_layer)])
        self.ln_f = self.norm(config.n_embd, config.layer_norm_epsilon)

    def logits(self, x: Tensor) -> Tensor:
        return F.linear(x, self.wte.weight)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]
        for block in self.h:
            x = block(x)
        return self.logits(self.ln_f(x))


class ModelByHand(ModelWithKernels):
    """A matrix product for the head, and a table lookup with indexing."""

    block, norm = BlockByHand, LayerNormFromMoments

    def logits(self, x: Tensor) -> Tensor:
        return x @ self.wte.weight.T


def generate_into_a_list(model: nn.Module, ids: Tensor, max_new_tokens: int, eos_token_id: int | None = None) -> Any:
    text: list[int] = []

    def read(new: Tensor) -> Tensor:
        text.extend(new[0].tolist())
        return model(torch.tensor([text[-model.config.n_positions :]]))

    return written(read, ids, max_new_tokens, [eos_token_id])


def generate_with_topk(
    model: nn.Module, ids: Tensor, max_new_tokens: int, eos_token_id: int | None = None
) -> Iterator[int]:
    for _ in range(max_new_tokens):
        best = model(ids[:, max(0, ids.shape[1] - model.config.n_positions) :]).softmax(-1)[:, -1:].topk(1)
        ids = torch.cat([ids, best.indices[:, :, 0]], dim=1)
        yield int(ids[0, -1])
        if ids[0, -1] == eos_token_id:
            break


def step_with_class_axis(model: nn.Module, optimizer: Any, rows: Tensor) -> float:
    """Logits as [B, vocab_size, T], and gradients that are dropped one by one."""
    loss = F.cross_entropy(model(rows[:, :-1]).mT, rows[:, 1:])
    for p in model.parameters():
        p.grad = None
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss)


def step_written_out(model: nn.Module, optimizer: Any, rows: Tensor) -> float:
    """The surprise by a lookup of log probabilities; gradients from `torch.autograd.grad`."""
    parameters = list(model.parameters())
    scores = model.train()(rows[:, :-1])
    chosen = scores.gather(-1, rows[:, 1:, None]).squeeze(-1)
    loss = (scores.logsumexp(dim=-1) - chosen).mean()
    for p, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        p.grad = gradient
    optimizer.step()
    return loss.detach().item()


def step_row_by_row(model: nn.Module, optimizer: Any, rows: Tensor) -> float:
    """Each row by itself: the gradients add up to that of the mean."""
    optimizer.zero_grad(set_to_none=False)
    whole = 0.0
    for row in rows:
        loss = F.cross_entropy(model(row[None, :-1])[0], row[1:]) / len(rows)
        loss.backward()  # type: ignore[no-untyped-call]
        whole += loss.item()
    optimizer.step()
    optimizer.zero_grad()
    return whole


def cost_in_a_copy(model: Any, ids: Tensor, layer: int, head: int) -> float:
    """In a copy of the model, whose loss is written out."""
    nats: list[float] = []
    for one in (copy.deepcopy(model), copy.deepcopy(model)):
        if nats:
            width = model.config.n_embd // model.config.n_head
            one.h[layer].attn.c_proj.weight.data[head * width : (head + 1) * width] = 0
        with torch.no_grad():
            scores = one(ids).log_softmax(-1)[:, :-1]
        nats.append(-float(scores.gather(-1, ids[:, 1:, None]).double().mean()))
    return nats[1] - nats[0]


@torch.no_grad()
def cost_by_hook(model: Any, ids: Tensor, layer: int, head: int) -> float:
    """The head's channels are 0 on their way into c_proj."""
    heads = model.config.n_head

    def silent(module: nn.Module, given: tuple[Tensor]) -> Tensor:
        split = given[0].unflatten(-1, (heads, -1))
        return (split * (torch.arange(heads) != head)[:, None]).flatten(-2)

    def nats() -> float:
        whole = model(ids)
        lost = [F.cross_entropy(row[:-1], text[1:], reduction="sum") for row, text in zip(whole, ids, strict=True)]
        return float(sum(lost)) / (ids.numel() - len(ids))

    with_all, handle = nats(), model.h[layer].attn.c_proj.register_forward_pre_hook(silent)
    try:
        return nats() - with_all
    finally:
        handle.remove()


@torch.no_grad()
def cost_by_values(model: Any, ids: Tensor, layer: int, head: int) -> float:
    """The head's values are 0: their columns of c_attn, and their part of its bias."""
    c_attn, (heads, D) = model.h[layer].attn.c_attn, (model.config.n_head, model.config.n_embd)
    kept = c_attn.weight.clone(), c_attn.bias.clone()
    columns = torch.arange(2 * D, 3 * D).view(heads, -1)[head]

    def loss() -> Tensor:
        return F.nll_loss(model(ids)[:, :-1].log_softmax(-1).mT, ids[:, 1:])

    before = loss()
    c_attn.weight[:, columns], c_attn.bias[columns] = 0.0, 0.0
    rise = loss() - before
    c_attn.weight.copy_(kept[0])
    c_attn.bias.copy_(kept[1])
    return float(rise)


RIGHT: dict[str, tuple[Callable[..., Any], ...]] = {
    "gpt2.layer_norm": (LayerNormKernel, LayerNormInFloat32, LayerNormFromMoments),
    "gpt2.gelu": (GeluKernel, GeluWithProducts, GeluWithSigmoid),
    "gpt2.conv1d": (Conv1DWithMatmul, Conv1DWithEinsum, Conv1DWithAddmm),
    "gpt2.attention": (AttentionSdpa, AttentionSplit, AttentionHeadByHead),
    "gpt2.mlp": (MLPWithKernels, MLPWithProducts),
    "gpt2.block": (BlockWithKernels, BlockByHand, BlockInFloat32),
    "gpt2.model": (ModelWithKernels, ModelByHand),
    "gpt2.generate": (generate_into_a_list, generate_with_topk),
    "gpt2.train_step": (step_with_class_axis, step_written_out, step_row_by_row),
    "gpt2.cost_of_head": (cost_in_a_copy, cost_by_hook, cost_by_values),
}


# Programs that are right only by chance


class LayerNormOfThreeAxes(LayerNormBase):
    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=2, correction=0, keepdim=True)
        return (x - mean) / torch.sqrt(variance + self.eps) * self.weight + self.bias


class Conv1DOfThreeAxes(Conv1DWithMatmul):
    def forward(self, x: Tensor) -> Tensor:
        B, T, D = x.shape
        return (x.reshape(B * T, D) @ self.weight + self.bias).view(B, T, -1)


class ModelOfThreeBlocks(ModelWithKernels):
    def __init__(self, config: Config) -> None:
        super().__init__(config.replace(n_layer=3))


class ModelWithItsOwnEps(ModelWithKernels):
    def __init__(self, config: Config) -> None:
        super().__init__(config.replace(layer_norm_epsilon=1e-5))


def step_for_clean_models(model: nn.Module, optimizer: Any, rows: Tensor) -> float:
    """Right where no gradient is left from before."""
    loss = F.cross_entropy(model(rows[:, :-1]).mT, rows[:, 1:])
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad()
    return float(loss)


def cost_once(model: Any, ids: Tensor, layer: int, head: int) -> float:
    """Right for the first head that is asked for."""
    rise, width = cost_by_hook(model, ids, layer, head), model.config.n_embd // model.config.n_head
    model.h[layer].attn.c_proj.weight.data[head * width : (head + 1) * width] = 0.0
    return rise


BY_CHANCE = {
    "gpt2.layer_norm": [LayerNormOfThreeAxes],
    "gpt2.conv1d": [Conv1DOfThreeAxes],
    "gpt2.model": [ModelOfThreeBlocks, ModelWithItsOwnEps],
    "gpt2.train_step": [step_for_clean_models],
    "gpt2.cost_of_head": [cost_once],
}


# The layer comparison, names, sizes and trained weights


PLANTED = [("h.0.ln_1", ModelWithItsOwnEps)]


def hubs(config: Config) -> nn.Module:
    """The hub's files hold the model without a head."""
    return GPT2Model(reference_config(config))


HUB = {"gpt2.model": hubs}
SIZES = {
    name: (LESSON.config(name), entry(name).parameters) for name in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
}
TEXTS = "It is a truth universally acknowledged", "Anne", "They walked to the sea and"
TRAINED = [Trained("austen-gpt2", "GPT2", "generate", [Prompt(text, 64) for text in TEXTS], tokens=256)]


# The lesson's own cells. They look at `num_heads`, `head_dim` and the table of positions, which other right attentions
# and models need not have: those stay the lesson's.
RERUNS = {
    "with kernels": Rerun(
        {
            "gpt2.layer_norm": LayerNormKernel,
            "gpt2.gelu": GeluKernel,
            "gpt2.conv1d": Conv1DWithMatmul,
            "gpt2.mlp": MLPWithKernels,
            "gpt2.generate": generate_into_a_list,
            "gpt2.train_step": step_with_class_axis,
            "gpt2.cost_of_head": cost_by_hook,
        },
        shows=[
            "3 of 3 texts are the reference's",
            "All 34 rows match the reference",
            "tokens so far   ms for the next",
        ],
        instead={
            "load_checkpoint": lambda name, optional=False: load_checkpoint(name) if name == "austen-gpt2" else None
        },
        changes={
            "steps, losses = 500, []": "steps, losses = 60, []",
            "range(400)": "range(20)",
            "range(200)": "range(20)",
        },
    ),
}
