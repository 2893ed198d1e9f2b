"""Lesson 04: its solutions against transformers, other right programs against its checks, and trained weights."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from solved import Solved, written_by_transformers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Gemma3ForCausalLM

from grader import Config, GraderError, load_checkpoint
from grader.checkpoints import entry
from grader.checkpoints.checkpoint import Checkpoint
from grader.checks.examine import examine
from grader.checks.wording import report as verdict_lines
from grader.layers.compare import layer_report
from grader.lessons.exercise import Case
from grader.recordings.recording import Recording
from grader.recordings.traces import Trace
from grader.report import to_text

SOLVED = Solved("04-gemma3")
LESSON = SOLVED.lesson
SLIDING, FULL = "sliding_attention", "full_attention"


# Solutions are the reference's program


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    heads = draw(st.integers(1, 3)) * (kv_heads := draw(st.integers(1, 3)))
    layers = draw(st.integers(1, 4))
    config: dict[str, Any] = {
        "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": heads * draw(st.integers(1, 8)),
        "intermediate_size": draw(st.integers(1, 60)),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": 2 * draw(st.integers(1, 9)),
        "query_pre_attn_scalar": draw(st.integers(1, 300)),
        "sliding_window": draw(st.integers(1, 9)),
        "layer_types": draw(st.lists(st.sampled_from([SLIDING, FULL]), min_size=layers, max_size=layers)),
        "max_position_embeddings": 64,
        "vocab_size": draw(st.integers(2, 70)),
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-5, 1e-3])),
        "tie_word_embeddings": draw(st.booleans()),
    }
    thetas = draw(st.sampled_from([1e2, 1e4, 1e6])), draw(st.sampled_from([1e2, 1e4]))
    if draw(st.booleans()):
        return config | {"rope_theta": thetas[0], "rope_local_base_freq": thetas[1]}
    kinds = {kind: {"rope_type": "default", "rope_theta": t} for kind, t in zip((FULL, SLIDING), thetas, strict=True)}
    return config | {"rope_parameters": kinds}


def random_case(name: str, config: dict[str, Any], batch: int, length: int, seed: int, scale: float) -> Case:
    """A case of a Gemma 3 exercise for this config."""
    width, build = config["hidden_size"], {"config": config}
    kind = config["layer_types"][seed % config["num_hidden_layers"]]
    if name in ("gemma3.model", "gemma3.causal_lm"):
        return Case(str(seed), lambda d: [d.tokens(config["vocab_size"], batch, length)], build)
    if name == "gemma3.embedding":
        build = {"num_embeddings": config["vocab_size"], "embedding_dim": width}
        return Case(str(seed), lambda d: [d.tokens(config["vocab_size"], batch, length)], build)
    if name == "gemma3.rope":
        return Case(str(seed), lambda d: [torch.arange(seed % 50, seed % 50 + length), kind], build)
    if name in ("gemma3.attention", "gemma3.decoder_layer"):
        return Case(str(seed), SOLVED.reference.layer_inputs(config, batch, kind, seed % 50, scale), build)
    if name == "gemma3.rms_norm":
        build = {"dim": width, "eps": config["rms_norm_eps"]}
    return Case(str(seed), lambda d: [d.normal(batch, length, width, scale=scale)], build)


random_inputs = given(
    config=configs(),
    batch=st.integers(1, 3),
    length=st.integers(1, 15),
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([0.01, 1.0, 4.0]),
)
MODULES = [
    "gemma3.embedding",
    "gemma3.rms_norm",
    "gemma3.mlp",
    "gemma3.rope",
    "gemma3.attention",
    "gemma3.decoder_layer",
    "gemma3.model",
    "gemma3.causal_lm",
]


@pytest.mark.parametrize("name", MODULES)
@settings(max_examples=25)
@random_inputs
def test_a_solution_equals_transformers_in_every_bit(
    name: str, config: dict[str, Any], batch: int, length: int, seed: int, scale: float
) -> None:
    """One key and value head, or one for each query head, included: the solution repeats as the reference does."""
    exercise = SOLVED.exercises[name]
    case = random_case(name, config, batch, length, seed, scale)
    verdict = SOLVED.verdict_on(SOLVED.solutions[exercise.solution], exercise, case)
    assert verdict.exact, verdict


@settings(max_examples=60)
@given(length=st.integers(1, 20), window=st.one_of(st.none(), st.integers(1, 25)))
def test_a_mask_is_that_of_transformers(length: int, window: int | None) -> None:
    assert torch.equal(SOLVED.solutions["visible"](length, window), SOLVED.reference.visible(length, window))


@pytest.mark.parametrize("name", MODULES)
def test_a_solution_is_bit_exact_on_the_lessons_own_cases(name: str) -> None:
    exercise = SOLVED.exercises[name]
    assert SOLVED.verdict_on(SOLVED.solutions[exercise.solution], exercise).exact


@pytest.mark.parametrize("layers", [1, 5, 6, 7, 18, 62])
@pytest.mark.parametrize("pattern", [None, 2, 6])
def test_the_kinds_of_layers_are_those_of_transformers(layers: int, pattern: int | None) -> None:
    fields = {"num_hidden_layers": layers} | ({} if pattern is None else {"sliding_window_pattern": pattern})
    theirs = SOLVED.reference.reference_config({k: v for k, v in small().items() if k != "layer_types"} | fields)
    assert SOLVED.solutions["layer_types"](Config(fields)) == theirs.layer_types
    assert SOLVED.solutions["layer_types"](Config({"layer_types": [FULL], **fields})) == [FULL]


def small() -> dict[str, Any]:
    config: dict[str, Any] = SOLVED.reference.SMALL
    return config


@pytest.mark.parametrize(
    "case", ["a config that says nothing of its head", "a tied head", "a head of its own"], ids=lambda name: name
)
def test_the_models_weights_have_the_hubs_names(case: str) -> None:
    exercise = SOLVED.exercises["gemma3.causal_lm"]
    config = Config(next(c for c in exercise.cases if c.name == case).build["config"])
    wanted = exercise.reference(config).state_dict()
    own = SOLVED.solutions["CausalLM"](config).state_dict()
    assert {name: tensor.shape for name, tensor in own.items()} == {name: t.shape for name, t in wanted.items()}


# Other right programs pass


class EmbeddingByHand(nn.Module):
    """Not an nn.Embedding; the factor is a buffer, cast at each call."""

    scale: Tensor

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_embeddings, embedding_dim))
        self.register_buffer("scale", torch.tensor(embedding_dim).sqrt(), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.weight[ids] * self.scale.to(self.weight.dtype)


class EmbeddingScaledFirst(nn.Embedding):
    """The whole matrix is scaled, then looked up in."""

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight * self.weight.new_tensor(self.embedding_dim).sqrt())


class EmbeddingRoundedByHand(nn.Embedding):
    def forward(self, ids: Tensor) -> Tensor:
        factor = torch.full((self.embedding_dim,), self.embedding_dim).float().pow(0.5).type_as(self.weight)
        return F.embedding(ids, self.weight).mul(factor)


class RMSNormWithKernel(nn.Module):
    """The fused kernel, with the weight in it, in float32."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), x.shape[-1:], 1 + self.weight.float(), self.eps).to(x.dtype)


class RMSNormWithNorm(RMSNormWithKernel):
    """x plus x times w."""

    def forward(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        normed = x.float() / torch.sqrt(length**2 / x.shape[-1] + self.eps)
        return torch.addcmul(normed, normed, self.weight.float()).type_as(x)


class RMSNormWithEinsum(RMSNormWithKernel):
    def forward(self, x: Tensor) -> Tensor:
        x32 = x.to(torch.float32)
        square = torch.einsum("...d,...d->...", x32, x32) / x.shape[-1]
        scale = (square + self.eps)[..., None] ** -0.5 * (self.weight.to(torch.float32) + 1)
        return (x32 * scale).to(x.dtype)


class MLPFused(nn.Module):
    """Gate and up in one product; GELU's tanh form written out."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        D, inner = config.hidden_size, config.intermediate_size
        self.down_proj = nn.Linear(inner, D, bias=False)
        self.up_proj, self.gate_proj = nn.Linear(D, inner, bias=False), nn.Linear(D, inner, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        both = F.linear(x, torch.cat([self.gate_proj.weight, self.up_proj.weight]))
        gate, up = both.chunk(2, dim=-1)
        opened = 0.5 * gate * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (gate + 0.044715 * gate**3)))
        return self.down_proj(opened * up)


class MLPWithEinsum(MLPFused):
    def forward(self, x: Tensor) -> Tensor:
        gate, up = (torch.einsum("btd,fd->btf", x, p.weight) for p in (self.gate_proj, self.up_proj))
        return (up * nn.GELU("tanh")(gate)) @ self.down_proj.weight.T


def table_of(theta: float, width: int, positions: Tensor) -> Tensor:
    channels = torch.arange(width, dtype=torch.float64) % (width // 2)
    angles = positions[:, None] * theta ** (-2 * channels / width)
    return torch.stack([angles.cos(), angles.sin()]).float()


def theta_of(config: Config, layer_type: str) -> float:
    if "rope_parameters" in config:
        theta: float = config["rope_parameters"][layer_type]["rope_theta"]
        return theta
    return config["rope_local_base_freq" if layer_type == SLIDING else "rope_theta"]  # type: ignore[no-any-return]


class RotaryInFloat64(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def forward(self, positions: Tensor, layer_type: str) -> Tensor:
        return table_of(theta_of(self.config, layer_type), self.config.head_dim, positions)


class RotaryWithBuffers(nn.Module):
    """Both tables are made once, for all positions there can be."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        positions = torch.arange(config.max_position_embeddings)
        for kind in (SLIDING, FULL):
            table = table_of(theta_of(config, kind), config.head_dim, positions)
            self.register_buffer(kind, table, persistent=False)

    def forward(self, positions: Tensor, layer_type: str) -> Tensor:
        return getattr(self, layer_type)[:, positions]  # type: ignore[no-any-return]


def mask_by_triangles(length: int, window: int | None = None) -> Tensor:
    ones = torch.ones(length, length, dtype=torch.bool)
    return ones.tril() if window is None else ones.tril() & ones.triu(1 - window)


def mask_by_loops(length: int, window: int | None = None) -> Tensor:
    first = [0 if window is None else max(0, i - window + 1) for i in range(length)]
    return torch.tensor([[first[i] <= j <= i for j in range(length)] for i in range(length)])


class AttentionBase(nn.Module):
    norm: type[nn.Module] = RMSNormWithKernel

    def __init__(self, config: Config) -> None:
        super().__init__()
        D, self.H, self.KV = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
        self.hd, self.scalar = config["head_dim"], config["query_pre_attn_scalar"]
        self.q_norm, self.k_norm = (self.norm(self.hd, config.rms_norm_eps) for _ in "qk")
        self.q_proj, self.o_proj = nn.Linear(D, self.H * self.hd, False), nn.Linear(self.H * self.hd, D, False)
        self.k_proj, self.v_proj = (nn.Linear(D, self.KV * self.hd, False) for _ in "kv")

    def heads(self, x: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (p(x).unflatten(-1, (-1, self.hd)).movedim(2, 1) for p in (self.q_proj, self.k_proj, self.v_proj))
        cos, sin = table[..., : self.hd // 2].to(x.dtype)
        turned = []
        for t in (self.q_norm(q), self.k_norm(k)):  # after the transpose, as in the reference
            a, b = t.chunk(2, dim=-1)
            turned.append(torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1))
        return turned[0], turned[1], v


class AttentionSdpa(AttentionBase):
    """The fused kernel, which shares the key and value heads itself."""

    def forward(self, x: Tensor, table: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.heads(x, table)
        scale = self.scalar**-0.5
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=True)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class AttentionWithGroups(AttentionBase):
    """Five axes, so that nothing is repeated; an additive mask; the scale before the product."""

    norm = RMSNormWithEinsum

    def forward(self, x: Tensor, table: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.heads(x, table)
        q = q.unflatten(1, (self.KV, -1)) / self.scalar**0.5  # [B, KV, group, T, head_dim]
        scores = torch.einsum("bkgid,bkjd->bkgij", q, k).float()
        scores = scores + torch.zeros(mask.shape).masked_fill(mask.logical_not(), -1e30)
        mixed = torch.einsum("bkgij,bkjd->bikgd", scores.softmax(-1).to(x.dtype), v)
        return self.o_proj(mixed.flatten(2))  # type: ignore[no-any-return]


class AttentionHeadByHead(AttentionBase):
    """A loop over heads."""

    norm = RMSNormWithNorm

    def forward(self, x: Tensor, table: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.heads(x, table)
        results = []
        for h in range(self.H):
            own = h // (self.H // self.KV)
            scores = q[:, h] @ k[:, own].mT * self.scalar**-0.5
            weights = torch.where(mask, scores, torch.finfo(x.dtype).min).softmax(-1)
            results.append(weights @ v[:, own])
        return self.o_proj(torch.cat(results, dim=-1))  # type: ignore[no-any-return]


class AttentionWithRepeat(AttentionBase):
    """repeat_interleave, which copies where the reference does not."""

    def forward(self, x: Tensor, table: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.heads(x, table)
        k, v = (t.repeat_interleave(self.H // self.KV, dim=1) for t in (k, v))
        scores = (q @ k.mT * self.scalar**-0.5).masked_fill(~mask, torch.finfo(x.dtype).min)
        mixed = scores.float().softmax(-1).type_as(x) @ v
        return self.o_proj(mixed.movedim(1, 2).flatten(2))  # type: ignore[no-any-return]


class LayerWithKernels(nn.Module):
    norm: type[nn.Module] = RMSNormWithKernel
    attention: type[nn.Module] = AttentionSdpa
    feed_forward: type[nn.Module] = MLPFused

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.mlp, self.self_attn = self.feed_forward(config), self.attention(config)
        for name in ("post_feedforward", "pre_feedforward", "post_attention", "input"):
            self.add_module(f"{name}_layernorm", self.norm(config.hidden_size, config.rms_norm_eps))

    def forward(self, x: Tensor, table: Tensor, mask: Tensor) -> Tensor:
        residual = x
        x = self.self_attn(self.input_layernorm(x), table, mask)
        x = self.post_attention_layernorm(x) + residual
        residual = x
        x = self.mlp(self.pre_feedforward_layernorm(x))
        return self.post_feedforward_layernorm(x) + residual  # type: ignore[no-any-return]


class LayerByHand(LayerWithKernels):
    norm, attention, feed_forward = RMSNormWithNorm, AttentionHeadByHead, MLPWithEinsum


class LayerWithGroups(LayerWithKernels):
    norm, attention = RMSNormWithEinsum, AttentionWithGroups


class ModelWithKernels(nn.Module):
    """A layer is asked for its kind as it is reached."""

    layer: type[nn.Module] = LayerWithKernels
    norm_class: type[nn.Module] = RMSNormWithKernel
    embedding: type[nn.Module] = EmbeddingByHand

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = self.embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([self.layer(config) for _ in range(config.num_hidden_layers)])
        self.norm = self.norm_class(config.hidden_size, config.rms_norm_eps)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed_tokens(ids)
        kinds = self.config.get("layer_types")
        for i, layer in enumerate(self.layers):
            full = kinds[i] == FULL if kinds else i % 6 == 5
            kind, window = (FULL, None) if full else (SLIDING, self.config.sliding_window)
            table = table_of(theta_of(self.config, kind), self.config.head_dim, torch.arange(ids.shape[1]))
            x = layer(x, table, mask_by_triangles(ids.shape[1], window))
        return self.norm(x)  # type: ignore[no-any-return]


class ModelWithPlainEmbedding(ModelWithKernels):
    """An nn.Embedding, scaled outside of it; a module that makes the tables."""

    layer, norm_class = LayerByHand, RMSNormWithNorm

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.rotary_emb = RotaryWithBuffers(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed_tokens.weight[ids] * self.config.hidden_size**0.5
        positions = torch.arange(ids.shape[1])
        for kind, layer in zip(SOLVED.solutions["layer_types"](self.config), self.layers, strict=True):
            window = self.config.sliding_window if "sliding" in kind else ids.shape[1]
            x = layer(x, self.rotary_emb(positions, kind), mask_by_loops(ids.shape[1], window))
        return self.norm(x)  # type: ignore[no-any-return]


class HeadWithoutModule(nn.Module):
    """A tied head as a product with the embedding's weight; lm_head exists where the head is its own only."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.model = ModelWithKernels(config)
        self.tied = config.get("tie_word_embeddings") is not False
        if not self.tied:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        weight = self.model.embed_tokens.weight if self.tied else self.lm_head.weight
        return self.model(ids) @ weight.T  # type: ignore[no-any-return]


class EmbeddingTiedToHead(nn.Module):
    """Tied the other way round: the embedding takes the head's weight."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.model = ModelWithKernels(config)
        if config.get("tie_word_embeddings", True):
            self.model.embed_tokens.weight = self.lm_head.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.lm_head(self.model(ids))  # type: ignore[no-any-return]


ALTERNATIVES: dict[str, tuple[Callable[..., Any], ...]] = {
    "gemma3.embedding": (EmbeddingByHand, EmbeddingScaledFirst, EmbeddingRoundedByHand),
    "gemma3.rms_norm": (RMSNormWithKernel, RMSNormWithNorm, RMSNormWithEinsum),
    "gemma3.mlp": (MLPFused, MLPWithEinsum),
    "gemma3.rope": (RotaryInFloat64, RotaryWithBuffers),
    "gemma3.mask": (mask_by_triangles, mask_by_loops),
    "gemma3.attention": (AttentionSdpa, AttentionWithGroups, AttentionHeadByHead, AttentionWithRepeat),
    "gemma3.decoder_layer": (LayerWithKernels, LayerByHand, LayerWithGroups),
    "gemma3.model": (ModelWithKernels, ModelWithPlainEmbedding),
    "gemma3.causal_lm": (HeadWithoutModule, EmbeddingTiedToHead),
}


def test_there_are_alternatives_for_every_exercise() -> None:
    assert set(ALTERNATIVES) == set(SOLVED.exercises)


@pytest.mark.parametrize(
    ("name", "other"), [(name, other) for name, others in ALTERNATIVES.items() for other in others]
)
def test_another_right_program_passes(name: str, other: Any) -> None:
    verdict = SOLVED.verdict_on(other, SOLVED.exercises[name])
    assert verdict.right, verdict.first_wrong


WITH_BFLOAT16 = ["gemma3.embedding", "gemma3.rms_norm", "gemma3.mlp", "gemma3.attention", "gemma3.decoder_layer"]


@pytest.mark.parametrize("name", WITH_BFLOAT16)
def test_every_part_has_a_bfloat16_case(name: str) -> None:
    assert {case.dtype for case in SOLVED.exercises[name].cases} == {torch.float32, torch.bfloat16}


def test_the_lesson_knows_at_least_thirty_five_mistakes_and_the_talks_side_note() -> None:
    mistakes = [mistake.name for exercise in SOLVED.exercises.values() for mistake in exercise.mistakes]
    assert len(mistakes) >= 35
    assert "the weight is taken as the scale: x / rms · w" in mistakes


# Programs that are right only by chance do not pass


class ModelWithTheUsualPattern(ModelWithKernels):
    """Every sixth layer is full, whatever the config's list says."""

    def __init__(self, config: Config) -> None:
        super().__init__(Config({k: v for k, v in config.items() if k != "layer_types"}))


class ModelWithAWindowOf512(ModelWithKernels):
    def __init__(self, config: Config) -> None:
        super().__init__(config.replace(sliding_window=512))


class ModelWithItsOwnEps(ModelWithKernels):
    def __init__(self, config: Config) -> None:
        super().__init__(config.replace(rms_norm_eps=1e-6))


class ModelWithTheHubsThetas(ModelWithKernels):
    """270M's numbers, written down."""

    def __init__(self, config: Config) -> None:
        kinds = {FULL: {"rope_theta": 1e6}, SLIDING: {"rope_theta": 1e4}}
        super().__init__(config.replace(rope_parameters=kinds))


class AttentionScaledAsIn270M(AttentionWithGroups):
    def __init__(self, config: Config) -> None:
        super().__init__(config.replace(query_pre_attn_scalar=config.head_dim))


class AttentionOfOneHead(AttentionSdpa):
    """Right for 270M, whose query heads share one key and value head."""

    def forward(self, x: Tensor, table: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.heads(x, table)
        mixed = F.scaled_dot_product_attention(
            q, k[:, :1].expand_as(q), v[:, :1].expand_as(q), attn_mask=mask, scale=self.scalar**-0.5
        )
        return self.o_proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class RMSNormOfThreeAxes(RMSNormWithKernel):
    def forward(self, x: Tensor) -> Tensor:
        square = x.float().pow(2).mean(dim=2, keepdim=True)
        return (x.float() * torch.rsqrt(square + self.eps) * (1 + self.weight.float())).to(x.dtype)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("gemma3.rms_norm", RMSNormOfThreeAxes),
        ("gemma3.attention", AttentionScaledAsIn270M),
        ("gemma3.attention", AttentionOfOneHead),
        ("gemma3.model", ModelWithTheUsualPattern),
        ("gemma3.model", ModelWithAWindowOf512),
        ("gemma3.model", ModelWithItsOwnEps),
        ("gemma3.model", ModelWithTheHubsThetas),
    ],
)
def test_a_program_that_fits_only_some_inputs_does_not_pass(name: str, wrong: Any) -> None:
    assert not SOLVED.verdict_on(wrong, SOLVED.exercises[name]).right


# The layer comparison finds the culprit


def trace() -> Trace:
    recorded = Recording.read(LESSON.recording).trace
    assert recorded is not None
    return recorded


def test_the_trace_reads_more_tokens_than_its_window_and_has_layers_of_both_kinds() -> None:
    config = Config(trace().build["config"])
    assert trace().args[0].shape[1] > config.sliding_window
    assert set(SOLVED.solutions["layer_types"](config)) == {SLIDING, FULL}


def test_every_row_of_the_solution_is_zero() -> None:
    report = layer_report(SOLVED.solutions["CausalLM"], trace())
    assert report.ok and all(row.outcome.max == 0 for row in report.rows)


def broken(part: str, forward: Callable[..., Tensor]) -> type[nn.Module]:
    """The solution, in which the module at `part` has another forward."""

    class Broken(SOLVED.solutions["CausalLM"]):  # type: ignore[misc]
        def __init__(self, config: Config) -> None:
            super().__init__(config)
            module = self.get_submodule(part)
            other = type(type(module).__name__, (type(module),), {"forward": forward})
            module.__class__ = other

    return Broken


def scale_alone(self: Any, x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)


def with_silu(self: Any, x: Tensor) -> Tensor:
    return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]


def without_scale(self: Any, ids: Tensor) -> Tensor:
    return F.embedding(ids, self.weight)


def window_one_too_long(self: Any, x: Tensor, table: Tensor, mask: Tensor) -> Tensor:
    longer = mask | mask_by_triangles(len(mask), int(mask.sum(-1).max()) + 1)
    return SOLVED.solutions["Attention"].forward(self, x, table, longer)  # type: ignore[no-any-return]


def without_the_norm_after_attention(self: Any, x: Tensor, table: Tensor, mask: Tensor) -> Tensor:
    x = x + self.self_attn(self.input_layernorm(x), table, mask)
    return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("part", "forward"),
    [
        ("model.embed_tokens", without_scale),
        ("model.layers.0.input_layernorm", scale_alone),
        ("model.layers.1.post_feedforward_layernorm", scale_alone),
        ("model.layers.2.self_attn.q_norm", scale_alone),
        ("model.norm", scale_alone),
        ("model.layers.1.mlp", with_silu),
        ("model.layers.1.self_attn", window_one_too_long),
        ("model.layers.2", without_the_norm_after_attention),
    ],
)
def test_the_layer_comparison_finds_a_planted_bug(part: str, forward: Callable[..., Tensor]) -> None:
    report = layer_report(broken(part, forward), trace())
    assert report.culprit is not None and report.culprit.path == part


def test_the_layer_comparison_sees_every_wrong_program_of_the_lessons_table() -> None:
    """What the notebook says of its table of effects: its cell is run, and each of its changes compared."""
    cells = SOLVED.solutions  # not a copy: some changes are made to what the model's own globals are
    source = cell_that_defines("table_of_effects").split("\ntable_of_effects(")[0]
    exec(source, cells)
    model, recorded = cells["CausalLM"], trace()
    assert len(cells["WRONG"]) == 12 and cells["WRONG"].pop("nothing") is None
    for name, change in cells["WRONG"].items():
        with change:
            assert not layer_report(model, recorded).ok, name
    assert layer_report(model, recorded).ok


@pytest.mark.parametrize(
    ("wrong", "part", "reason"),
    [
        (ModelWithTheHubsThetas, "model", "`model.layers.0` needs another `table`"),
        (ModelWithAWindowOf512, "model", "`model.layers.0` needs another `mask`"),
    ],
)
def test_a_wrong_theta_or_window_is_found_where_it_does_harm(wrong: Any, part: str, reason: str) -> None:
    class WithAnotherBody(HeadWithoutModule):
        def __init__(self, config: Config) -> None:
            super().__init__(config)
            self.model = wrong(config)

    culprit = layer_report(WithAnotherBody, trace()).culprit
    assert culprit is not None and culprit.path == part
    assert reason in " ".join(culprit.reasons)


@pytest.mark.parametrize(
    ("wrong", "find", "replacement"),
    [
        ("gemma3.mask", "distance < window", "distance <= window"),
        ("gemma3.rope", "self.thetas[layer_type]", 'self.thetas["full_attention"]'),
    ],
)
def test_what_the_model_uses_is_named_where_it_is_wrong_by_itself(wrong: str, find: str, replacement: str) -> None:
    source = LESSON.source_of(wrong)
    assert source.count(find) == 1
    programs = LESSON.namespace((wrong, source.replace(find, replacement)))
    text = to_text(verdict_lines(examine(Recording.read(LESSON.recording), "gemma3.model", programs["Model"])))
    assert f"`{wrong}`" in text and "does not pass its own check" in text


# The lesson's own cells run with other right programs

KERNELS = {
    "gemma3.embedding": EmbeddingScaledFirst,
    "gemma3.rms_norm": RMSNormWithKernel,
    "gemma3.mlp": MLPFused,
    "gemma3.rope": RotaryWithBuffers,
    "gemma3.mask": mask_by_triangles,
    "gemma3.attention": AttentionSdpa,
    "gemma3.decoder_layer": LayerWithKernels,
    "gemma3.model": ModelWithKernels,
    "gemma3.causal_lm": HeadWithoutModule,
}


@pytest.mark.slow
def test_the_lessons_own_cells_run_with_another_right_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every cell from the top, each exercise's with another class in its place; of the checkpoints, the shipped one."""
    matplotlib.use("Agg")
    monkeypatch.chdir(LESSON.folder)
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    programs: dict[str, Any] = {"__name__": "gemma3"}
    shipped = load_checkpoint("austen-gemma3")
    for cell in LESSON.cells():
        if cell.kind == "exercise":
            programs[SOLVED.exercises[cell.name].solution] = KERNELS[cell.name]
        elif cell.kind in ("setup", "given", "other"):
            exec(compile(cell.source, cell.title, "exec"), programs)
        if cell.kind == "setup":
            programs["load_checkpoint"] = lambda name, optional=False: shipped if name == "austen-gemma3" else None
    shown = capsys.readouterr().out
    assert "3 of 3 texts are the reference's" in shown
    assert "bit-exact" in shown or "rows match the reference" in shown
    assert "the scale from 1 to 1.00" in shown


# The lesson's story


@pytest.fixture(scope="module")
def austen() -> Any:
    return SOLVED.trained("CausalLM", "austen-gemma3")


def test_the_qwen3_program_is_told_which_weights_it_has_no_place_for(austen: Any) -> None:
    checkpoint = austen[0]
    theta = checkpoint.config.rope_parameters[FULL]["rope_theta"]
    as_qwen3 = checkpoint.config.replace(
        model_type="qwen3", tie_word_embeddings=True, rope_parameters={"rope_theta": theta}
    )
    with pytest.raises(GraderError) as refused:
        checkpoint.load_into(Solved("03-qwen3").solutions["CausalLM"](as_qwen3))
    assert "pre_feedforward_layernorm" in str(refused.value) and "post_feedforward_layernorm" in str(refused.value)


# Configs and real weights

SIZES = {  # D, layers, heads, KV heads, head_dim, FFN, vocabulary -> parameters
    "270m": ((640, 18, 4, 1, 256, 2048, 262_144), 268_098_176),
    "1b": ((1152, 26, 4, 1, 256, 6912, 262_144), 999_885_952),
    "4b": ((2560, 34, 8, 4, 256, 10240, 262_208), 3_880_263_168),
    "27b": ((5376, 62, 32, 16, 128, 21504, 262_208), 27_009_346_304),
}


@pytest.mark.parametrize("size", SIZES)
def test_the_models_size_is_known_from_its_config(size: str) -> None:
    names = (
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "intermediate_size",
        "vocab_size",
    )
    values, parameters = SIZES[size]
    config = Config(small() | dict(zip(names, values, strict=True)))
    with torch.device("meta"):
        model = SOLVED.solutions["CausalLM"](config)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_the_lessons_config_of_270m_is_that_of_the_packaged_model() -> None:
    packaged = load_checkpoint("gemma-3-270m", optional=True)
    if packaged is None:
        pytest.skip("not on this machine: grader weights get gemma-3-270m")
    own = Config.read(LESSON.folder / "configs" / "gemma-3-270m.json")
    thetas = {FULL: own.rope_theta, SLIDING: own.rope_local_base_freq}
    assert {kind: rope["rope_theta"] for kind, rope in packaged.config.rope_parameters.items()} == thetas
    told_otherwise = {"_sliding_window_pattern", "rope_theta", "rope_local_base_freq", "rope_scaling", "torch_dtype"}
    for field in set(own) - told_otherwise - {"transformers_version"}:
        assert packaged.config[field] == own[field], field


def cell_that_defines(name: str) -> str:
    return next(cell.source for cell in LESSON.cells() if f"def {name}(" in cell.source)


def test_the_chat_template_by_hand_makes_the_talks_prompt() -> None:
    cell: dict[str, Any] = {}
    exec(cell_that_defines("chat_prompt"), cell)
    asked = cell["chat_prompt"]("Give me a short introduction to large language models.")
    golden = entry("gemma-3-270m-it").goldens[0]
    assert asked == golden.prompt
    assert golden.text is not None and len(golden.text) == 233
    assert entry("gemma-3-270m-it").gated


def small_reference(tied: bool, dtype: torch.dtype) -> Any:
    model = SOLVED.exercises["gemma3.causal_lm"].reference(Config(small() | {"tie_word_embeddings": tied}))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.to(dtype)


@pytest.mark.parametrize(("tied", "sharded"), [(True, False), (True, True), (False, True)])
def test_the_hubs_layout_loads_and_writes_what_transformers_does(tied: bool, sharded: bool, tmp_path: Path) -> None:
    small_reference(tied, torch.bfloat16).save_pretrained(tmp_path, max_shard_size="8KB" if sharded else "1GB")
    assert sharded == (tmp_path / "model.safetensors.index.json").exists()
    checkpoint = Checkpoint(replace(entry("gemma-3-270m-it")), tmp_path, "hub")
    own = SOLVED.solutions["CausalLM"](checkpoint.config).eval()
    checkpoint.load_into(own)
    assert (own.lm_head.weight is own.model.embed_tokens.weight) == tied
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager").eval()
    assert isinstance(theirs, Gemma3ForCausalLM)
    ids = torch.randint(53, (1, 7))
    with torch.no_grad():
        assert torch.equal(own(ids), theirs(input_ids=ids, use_cache=False).logits)
    assert list(SOLVED.solutions["generate"](own, ids, 20)) == written_by_transformers(theirs, ids, 20)


def test_a_bfloat16_model_equals_transformers_too(tmp_path: Path) -> None:
    small_reference(True, torch.bfloat16).save_pretrained(tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16, attn_implementation="eager").eval()
    own = SOLVED.solutions["CausalLM"](Config.read(tmp_path / "config.json")).to(torch.bfloat16).eval()
    state = theirs.state_dict()
    own.load_state_dict({name: state[name] for name in own.state_dict()})
    ids = torch.randint(53, (2, 9))
    with torch.no_grad():
        assert torch.equal(own(ids), theirs(input_ids=ids, use_cache=False).logits)


def test_a_checkpoint_of_another_shape_is_refused_by_name(tmp_path: Path) -> None:
    small_reference(True, torch.float32).save_pretrained(tmp_path)
    checkpoint = Checkpoint(entry("gemma-3-270m-it"), tmp_path, "hub")
    with pytest.raises(GraderError, match=r"self_attn\.k_proj"):
        checkpoint.load_into(SOLVED.solutions["CausalLM"](checkpoint.config.replace(num_key_value_heads=1)))


@pytest.fixture(scope="module")
def gemma() -> Any:
    return SOLVED.trained("CausalLM", "gemma-3-270m")


@pytest.fixture
def real(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def ids_of(checkpoint: Checkpoint, prompt: str) -> Tensor:
    return torch.tensor([checkpoint.tokenizer.encode(prompt).ids])


@pytest.mark.parametrize("real", ["austen", "gemma"], indirect=True)
def test_trained_weights_give_the_references_logits(real: Any) -> None:
    checkpoint, model, theirs = real
    ids = torch.randint(checkpoint.config.vocab_size, (2, 40))
    with torch.no_grad():
        assert torch.equal(model(ids), theirs(input_ids=ids, use_cache=False).logits)


def test_austen_gemma3_ships_with_three_generations_of_64_tokens() -> None:
    shipped = load_checkpoint("austen-gemma3")
    assert shipped.source == "shipped"
    assert sum(path.stat().st_size for path in shipped.folder.iterdir()) <= 5_000_000
    assert [golden.n_tokens for golden in shipped.goldens] == [64, 64, 64]
    assert [golden.prompt for golden in shipped.goldens] == list(shipped.entry.record_prompts)
    assert sum(tensor.numel() for tensor in shipped.state_dict().values()) == shipped.entry.parameters


def test_the_goldens_leave_the_window() -> None:
    for name in ("austen-gemma3", "gemma-3-270m"):
        window = {"austen-gemma3": 32, "gemma-3-270m": 512}[name]
        assert any(len(golden.prompt_ids or ()) > window for golden in entry(name).goldens), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("real", "prompt", "tokens"),
    [
        ("austen", "It is a truth universally acknowledged", 64),
        ("austen", "Anne", 64),
        ("gemma", "The capital of France is", 64),
        ("gemma", "def add(a, b):", 16),
    ],
    indirect=["real"],
)
def test_greedy_tokens_are_those_of_transformers(real: Any, prompt: str, tokens: int) -> None:
    checkpoint, model, theirs = real
    ids = ids_of(checkpoint, prompt)
    assert list(SOLVED.solutions["generate"](model, ids, tokens)) == written_by_transformers(theirs, ids, tokens)


@pytest.mark.slow
@pytest.mark.parametrize(("real", "beyond"), [("austen", 200), ("gemma", 540)], indirect=["real"])
def test_a_prompt_longer_than_the_window_is_continued_as_by_transformers(real: Any, beyond: int) -> None:
    checkpoint, model, theirs = real
    text = (Path(__file__).parent.parent / "LICENSE").read_text(encoding="utf-8")
    ids = ids_of(checkpoint, text)[:, :beyond]
    assert ids.shape[1] == beyond > checkpoint.config.sliding_window
    with torch.no_grad():
        assert torch.equal(model(ids), theirs(input_ids=ids, use_cache=False).logits)
    assert list(SOLVED.solutions["generate"](model, ids, 3)) == written_by_transformers(theirs, ids, 3)
