"""Lesson 01: its solutions against transformers, other right programs against its checks, and its trained weights."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from solved import Solved, written_by_transformers
from torch import Tensor, nn
from transformers import GPT2Model

from grader import Config
from grader.checkpoints import entry
from grader.layers.compare import layer_report
from grader.lessons.exercise import Case
from grader.recordings.recording import Recording

SOLVED = Solved("01-gpt2")
LESSON = SOLVED.lesson


# Solutions are the reference's program


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


def random_case(name: str, config: dict[str, Any], batch: int, seed: int, scale: float) -> Case:
    """A case of a GPT-2 exercise for this config; as many tokens as there are positions."""
    length, width = config["n_positions"], config["n_embd"]
    if name == "gpt2.model":
        return Case(str(seed), lambda d: [d.tokens(config["vocab_size"], batch, length)], {"config": config})
    build = {
        "gpt2.gelu": {},
        "gpt2.conv1d": {"nf": config["vocab_size"], "nx": width},
        "gpt2.layer_norm": {"dim": width, "eps": config["layer_norm_epsilon"]},
    }.get(name, {"config": config})
    return Case(str(seed), lambda d: [d.normal(batch, length, width, scale=scale)], build)


random_inputs = given(
    config=configs(), batch=st.integers(1, 3), seed=st.integers(0, 10**6), scale=st.sampled_from([0.01, 1.0, 4.0])
)


@pytest.mark.parametrize("name", ["gpt2.gelu", "gpt2.conv1d", "gpt2.attention", "gpt2.mlp", "gpt2.block", "gpt2.model"])
@settings(max_examples=25)
@random_inputs
def test_a_solution_equals_transformers_in_every_bit(
    name: str, config: dict[str, Any], batch: int, seed: int, scale: float
) -> None:
    exercise = SOLVED.exercises[name]
    verdict = SOLVED.verdict_on(
        SOLVED.solutions[exercise.solution], exercise, random_case(name, config, batch, seed, scale)
    )
    assert verdict.exact, verdict


@settings(max_examples=40)
@random_inputs
def test_layer_norm_by_hand_is_right_on_any_input(config: dict[str, Any], batch: int, seed: int, scale: float) -> None:
    """The kernel adds in an order that no formula in PyTorch's operators repeats, so this one can't be bit-exact."""
    case = random_case("gpt2.layer_norm", config, batch, seed, scale)
    assert SOLVED.verdict_on(SOLVED.solutions["LayerNorm"], SOLVED.exercises["gpt2.layer_norm"], case).right


@pytest.mark.parametrize("name", ["gpt2.gelu", "gpt2.conv1d", "gpt2.attention", "gpt2.mlp", "gpt2.block", "gpt2.model"])
def test_a_solution_is_bit_exact_on_the_lessons_own_cases(name: str) -> None:
    exercise = SOLVED.exercises[name]
    assert SOLVED.verdict_on(SOLVED.solutions[exercise.solution], exercise).exact


def test_the_models_weights_have_the_hubs_names() -> None:
    exercise = SOLVED.exercises["gpt2.model"]
    config = exercise.cases[0].build["config"]
    reference = GPT2Model(exercise.reference(Config(config)).config)
    own = {name: tensor.shape for name, tensor in SOLVED.solutions["GPT2"](Config(config)).state_dict().items()}
    assert own == {name: tensor.shape for name, tensor in reference.state_dict().items()}


# Other right programs pass


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
    text, prompt = ids[0].tolist(), ids.shape[1]
    with torch.inference_mode():
        while len(text) < prompt + max_new_tokens:
            text.append(int(model(torch.tensor([text])[:, -model.config.n_positions :])[0, -1].argmax()))
            if text[-1] == eos_token_id:
                break
    return text[prompt:]


def generate_tensors(
    model: nn.Module, ids: Tensor, max_new_tokens: int, eos_token_id: int | None = None
) -> Iterator[Tensor]:
    for _ in range(max_new_tokens):
        best = model(ids[:, max(0, ids.shape[1] - model.config.n_positions) :]).softmax(-1)[:, -1:].topk(1)
        ids = torch.cat([ids, best.indices[:, :, 0]], dim=1)
        yield ids[0, -1]
        if ids[0, -1] == eos_token_id:
            break


ALTERNATIVES: dict[str, tuple[Callable[..., Any], ...]] = {
    "gpt2.layer_norm": (LayerNormKernel, LayerNormInFloat32, LayerNormFromMoments),
    "gpt2.gelu": (GeluKernel, GeluWithProducts, GeluWithSigmoid),
    "gpt2.conv1d": (Conv1DWithMatmul, Conv1DWithEinsum, Conv1DWithAddmm),
    "gpt2.attention": (AttentionSdpa, AttentionSplit, AttentionHeadByHead),
    "gpt2.mlp": (MLPWithKernels, MLPWithProducts),
    "gpt2.block": (BlockWithKernels, BlockByHand, BlockInFloat32),
    "gpt2.model": (ModelWithKernels, ModelByHand),
    "gpt2.generate": (generate_into_a_list, generate_tensors),
}


def test_there_are_alternatives_for_every_exercise() -> None:
    assert set(ALTERNATIVES) == set(SOLVED.exercises)


@pytest.mark.parametrize(
    ("name", "other"), [(name, other) for name, others in ALTERNATIVES.items() for other in others]
)
def test_another_right_program_passes(name: str, other: Any) -> None:
    verdict = SOLVED.verdict_on(other, SOLVED.exercises[name])
    assert verdict.right, verdict.first_wrong


@pytest.mark.parametrize("name", [name for name in ALTERNATIVES if name not in ("gpt2.model", "gpt2.generate")])
def test_every_module_below_the_model_has_a_bfloat16_case(name: str) -> None:
    assert {case.dtype for case in SOLVED.exercises[name].cases} == {torch.float32, torch.bfloat16}


# Programs that are right only by chance do not pass


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


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("gpt2.layer_norm", LayerNormOfThreeAxes),
        ("gpt2.conv1d", Conv1DOfThreeAxes),
        ("gpt2.model", ModelOfThreeBlocks),
        ("gpt2.model", ModelWithItsOwnEps),
    ],
)
def test_a_program_that_fits_only_some_inputs_does_not_pass(name: str, wrong: Any) -> None:
    assert not SOLVED.verdict_on(wrong, SOLVED.exercises[name]).right


def test_the_layer_comparison_shows_a_forgotten_eps() -> None:
    trace = Recording.read(LESSON.recording).trace
    assert trace is not None
    report = layer_report(ModelWithItsOwnEps, trace)
    assert report.culprit is not None and report.culprit.path == "h.0.ln_1"


# Real weights and configs


@pytest.mark.parametrize("name", ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"])
def test_the_lessons_config_is_the_hubs(name: str) -> None:
    content = (LESSON.folder / "configs" / f"{name}.json").read_bytes()
    known = entry(name)
    recorded = known.files["config.json"].sha256
    assert recorded is None or hashlib.sha256(content).hexdigest() == recorded
    config = Config.read(LESSON.folder / "configs" / f"{name}.json")
    with torch.device("meta"):
        model = SOLVED.solutions["GPT2"](config)
    assert sum(parameter.numel() for parameter in model.parameters()) == known.parameters


@pytest.fixture(scope="module")
def austen() -> Any:
    return SOLVED.trained("GPT2", "austen-gpt2")


def test_trained_weights_give_the_references_logits(austen: Any) -> None:
    checkpoint, model, reference = austen
    ids = torch.randint(checkpoint.config.vocab_size, (2, checkpoint.config.n_positions))
    with torch.no_grad():
        assert torch.equal(model(ids), reference(input_ids=ids, use_cache=False).logits)


@pytest.mark.parametrize("prompt", ["It is a truth universally acknowledged", "Anne", "They walked to the sea and"])
def test_64_greedy_tokens_are_those_of_transformers(austen: Any, prompt: str) -> None:
    checkpoint, model, reference = austen
    ids = torch.tensor([checkpoint.tokenizer.encode(prompt).ids])
    written = list(SOLVED.solutions["generate"](model, ids, 64))
    assert written == written_by_transformers(reference, ids, 64)
