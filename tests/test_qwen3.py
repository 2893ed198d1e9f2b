"""Lesson 03: its solutions against transformers, other right programs against its checks, and trained weights."""

import hashlib
from collections.abc import Callable, Iterator
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
from transformers import AutoModelForCausalLM, LlamaForCausalLM, Qwen3ForCausalLM

from grader import Config, GraderError, load_checkpoint
from grader.authoring.recorder import record_exercise
from grader.checkpoints import entry
from grader.checkpoints.checkpoint import Checkpoint
from grader.checks.examine import examine
from grader.checks.judge import judge
from grader.checks.probe import probe
from grader.checks.verdict import Verdict
from grader.checks.wording import report
from grader.layers.compare import layer_report
from grader.lessons.exercise import Case
from grader.recordings.recording import Recording
from grader.recordings.traces import Trace
from grader.report import to_text

SOLVED = Solved("03-qwen3")
LESSON = SOLVED.lesson


# Solutions are the reference's program


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    # With one key and value head, or one for each query head, the reference repeats without a copy: the numbers lie
    # in memory in another order, and the product rounds differently.
    kv_heads, head_dim = draw(st.integers(2, 4)), 2 * draw(st.integers(1, 9))
    heads = kv_heads * draw(st.integers(2, 3))
    config: dict[str, Any] = {
        "model_type": "qwen3",
        "hidden_size": draw(st.integers(2, 40)),
        "intermediate_size": draw(st.integers(1, 60)),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": 64,
        "vocab_size": draw(st.integers(2, 70)),
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-5, 1e-3])),
        "rope_theta": draw(st.sampled_from([1e2, 1e4, 1e6])),
        "tie_word_embeddings": draw(st.booleans()),
    }
    if draw(st.booleans()):
        del config["head_dim"]
        config |= {"model_type": "llama", "hidden_size": heads * head_dim}
    return config


def random_case(name: str, config: dict[str, Any], batch: int, length: int, seed: int, scale: float) -> Case:
    """A case of a Qwen3 exercise for this config."""
    width, build = config["hidden_size"], {"config": config}
    if name in ("qwen3.model", "qwen3.causal_lm"):
        return Case(str(seed), lambda d: [d.tokens(config["vocab_size"], batch, length)], build)
    if name in ("qwen3.attention", "qwen3.decoder_layer"):
        return Case(str(seed), SOLVED.reference.hidden_and_table(config, batch, length, seed % 50, scale), build)
    if name == "qwen3.rms_norm":
        build = {"dim": width, "eps": config["rms_norm_eps"]}
    return Case(str(seed), lambda d: [d.normal(batch, length, width, scale=scale)], build)


random_inputs = given(
    config=configs(),
    batch=st.integers(1, 3),
    length=st.integers(1, 15),
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([0.01, 1.0, 4.0]),
)
MODULES = ["qwen3.rms_norm", "qwen3.mlp", "qwen3.attention", "qwen3.decoder_layer", "qwen3.model", "qwen3.causal_lm"]


@pytest.mark.parametrize("name", MODULES)
@settings(max_examples=25)
@random_inputs
def test_a_solution_equals_transformers_in_every_bit(
    name: str, config: dict[str, Any], batch: int, length: int, seed: int, scale: float
) -> None:
    exercise = SOLVED.exercises[name]
    case = random_case(name, config, batch, length, seed, scale)
    verdict = SOLVED.verdict_on(SOLVED.solutions[exercise.solution], exercise, case)
    assert verdict.exact, verdict


@settings(max_examples=40)
@given(
    positions=st.lists(st.integers(0, 40_000), min_size=1, max_size=9),
    head_dim=st.integers(1, 70).map(lambda half: 2 * half),
    theta=st.sampled_from([1e2, 1e4, 1e5, 5e5, 1e6]),
)
def test_rotations_equal_transformers_in_every_bit(positions: list[int], head_dim: int, theta: float) -> None:
    args = (torch.tensor(positions), head_dim, theta)
    table = SOLVED.solutions["rope_table"](*args)
    assert torch.equal(table, SOLVED.reference.rope_table(*args))
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(2, 3, len(positions), head_dim).to(dtype)
        assert torch.equal(SOLVED.solutions["apply_rope"](x, table), SOLVED.reference.apply_rope(x, table))


@pytest.mark.parametrize("name", [*MODULES, "qwen3.rope_table", "qwen3.rope"])
def test_a_solution_is_bit_exact_on_the_lessons_own_cases(name: str) -> None:
    exercise = SOLVED.exercises[name]
    assert SOLVED.verdict_on(SOLVED.solutions[exercise.solution], exercise).exact


@pytest.mark.parametrize("case", ["a tied head", "a head of its own", "a Llama that says nothing of its head"])
def test_the_models_weights_have_the_hubs_names(case: str) -> None:
    exercise = SOLVED.exercises["qwen3.causal_lm"]
    config = Config(next(c for c in exercise.cases if c.name == case).build["config"])
    wanted = exercise.reference(config).state_dict()
    own = SOLVED.solutions["CausalLM"](config).state_dict()
    assert {name: tensor.shape for name, tensor in own.items()} == {name: t.shape for name, t in wanted.items()}


# Other right programs pass


class RMSNormWithKernel(nn.Module):
    """The fused kernel, in float32, then the cast."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.zeros(dim)), eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), x.shape[-1:], None, self.eps).to(x.dtype) * self.weight


class RMSNormWithNorm(RMSNormWithKernel):
    def forward(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        return (x / torch.sqrt(length**2 / x.shape[-1] + self.eps)).to(x.dtype) * self.weight


class RMSNormWithEinsum(RMSNormWithKernel):
    def forward(self, x: Tensor) -> Tensor:
        x32 = x.to(torch.float32)
        square = torch.einsum("...d,...d->...", x32, x32) / x.shape[-1]
        return ((x32.movedim(-1, 0) * (square + self.eps) ** -0.5).movedim(0, -1)).to(x.dtype).mul(self.weight)


def table_by_outer(positions: Tensor, head_dim: int, theta: float) -> Tensor:
    inverse = theta ** -(torch.arange(head_dim // 2) * 2 / head_dim)
    angles = torch.outer(positions.float(), inverse).repeat(1, 2)
    return torch.stack([torch.cos(angles), torch.sin(angles)])


def table_in_float64(positions: Tensor, head_dim: int, theta: float) -> Tensor:
    channels = torch.arange(head_dim, dtype=torch.float64) % (head_dim // 2)
    angles = positions[:, None] * torch.exp(-2 * channels / head_dim * torch.tensor(theta).double().log())
    return torch.stack([angles.cos(), angles.sin()]).float()


def rope_with_halves(x: Tensor, table: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    cos, sin = table[..., :half].to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def rope_with_complex_numbers(x: Tensor, table: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    turn = torch.complex(table[0, :, :half], table[1, :, :half])
    turned = torch.complex(x[..., :half].float(), x[..., half:].float()) * turn
    return torch.cat([turned.real, turned.imag], dim=-1).to(x.dtype)


def rope_with_roll(x: Tensor, table: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    sign = torch.cat([-torch.ones(half), torch.ones(half)]).to(x.dtype)
    return x * table[0].to(x.dtype) + x.roll(half, dims=-1) * sign * table[1].to(x.dtype)


class MLPFused(nn.Module):
    """Gate and up in one product."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        D, inner = config.hidden_size, config.intermediate_size
        self.down_proj = nn.Linear(inner, D, bias=False)
        self.up_proj, self.gate_proj = nn.Linear(D, inner, bias=False), nn.Linear(D, inner, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        both = F.linear(x, torch.cat([self.gate_proj.weight, self.up_proj.weight]))
        gate, up = both.chunk(2, dim=-1)
        return self.down_proj(gate * torch.sigmoid(gate) * up)


class MLPWithEinsum(MLPFused):
    def forward(self, x: Tensor) -> Tensor:
        gate, up = (torch.einsum("btd,fd->btf", x, p.weight) for p in (self.gate_proj, self.up_proj))
        return (up * nn.SiLU()(gate)) @ self.down_proj.weight.T


class AttentionBase(nn.Module):
    norm: type[nn.Module] = RMSNormWithKernel

    def __init__(self, config: Config) -> None:
        super().__init__()
        D, self.H, self.KV = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
        self.hd = config["head_dim"] if "head_dim" in config else D // self.H
        self.has_norms = config.model_type == "qwen3"
        if self.has_norms:
            self.q_norm, self.k_norm = (self.norm(self.hd, config.rms_norm_eps) for _ in "qk")
        self.q_proj, self.o_proj = nn.Linear(D, self.H * self.hd, False), nn.Linear(self.H * self.hd, D, False)
        self.k_proj, self.v_proj = (nn.Linear(D, self.KV * self.hd, False) for _ in "kv")

    def heads(self, x: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (p(x).unflatten(-1, (-1, self.hd)).movedim(2, 1) for p in (self.q_proj, self.k_proj, self.v_proj))
        if self.has_norms:  # after the transpose: the axis of head_dim is still the last
            q, k = self.q_norm(q), self.k_norm(k)
        return rope_with_halves(q, table), rope_with_halves(k, table), v


class AttentionSdpa(AttentionBase):
    """The fused kernel, which shares the key and value heads itself."""

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        q, k, v = self.heads(x, table)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class AttentionWithGroups(AttentionBase):
    """Five axes, so that nothing is repeated; an additive mask; the scale before the product."""

    norm = RMSNormWithEinsum

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        q, k, v = self.heads(x, table)
        T = x.shape[1]
        q = q.unflatten(1, (self.KV, -1)) / self.hd**0.5  # [B, KV, group, T, head_dim]
        scores = torch.einsum("bkgid,bkjd->bkgij", q, k).float()
        scores = scores + torch.full((T, T), -1e30).triu(1)
        mixed = torch.einsum("bkgij,bkjd->bikgd", scores.softmax(-1).to(x.dtype), v)
        return self.o_proj(mixed.flatten(2))


class AttentionHeadByHead(AttentionBase):
    """A loop over heads."""

    norm = RMSNormWithNorm

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        q, k, v = self.heads(x, table)
        seen = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        results = []
        for h in range(self.H):
            own = h // (self.H // self.KV)
            scores = q[:, h] @ k[:, own].mT * self.hd**-0.5
            weights = torch.where(seen, scores, torch.finfo(x.dtype).min).softmax(-1)
            results.append(weights @ v[:, own])
        return self.o_proj(torch.cat(results, dim=-1))


class LayerWithKernels(nn.Module):
    norm: type[nn.Module] = RMSNormWithKernel
    attention: type[nn.Module] = AttentionSdpa
    feed_forward: type[nn.Module] = MLPFused

    def __init__(self, config: Config) -> None:
        super().__init__()
        D, eps = config.hidden_size, config.rms_norm_eps
        self.mlp, self.self_attn = self.feed_forward(config), self.attention(config)
        self.post_attention_layernorm, self.input_layernorm = self.norm(D, eps), self.norm(D, eps)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        residual = x
        x = self.self_attn(self.input_layernorm(x), table) + residual
        residual = x
        return self.mlp(self.post_attention_layernorm(x)) + residual


class LayerByHand(LayerWithKernels):
    norm, attention, feed_forward = RMSNormWithNorm, AttentionHeadByHead, MLPWithEinsum


class LayerWithGroups(LayerWithKernels):
    norm, attention = RMSNormWithEinsum, AttentionWithGroups


class ModelWithKernels(nn.Module):
    """The table is a buffer of the model's full length."""

    layer: type[nn.Module] = LayerWithKernels
    norm_class: type[nn.Module] = RMSNormWithKernel
    table: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([self.layer(config) for _ in range(config.num_hidden_layers)])
        self.norm = self.norm_class(config.hidden_size, config.rms_norm_eps)
        theta = config["rope_parameters"]["rope_theta"] if "rope_parameters" in config else config.rope_theta
        width = config.get("head_dim") or config.hidden_size // config.num_attention_heads
        table = table_by_outer(torch.arange(config.max_position_embeddings), width, theta)
        self.register_buffer("table", table, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = F.embedding(ids, self.embed_tokens.weight)
        for layer in self.layers:
            x = layer(x, self.table[:, : ids.shape[1]])
        return self.norm(x)


class ModelCountingFromOne(ModelWithKernels):
    """Only distances matter to RoPE, so the first token may have any position."""

    layer, norm_class = LayerByHand, RMSNormWithNorm

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed_tokens.weight[ids]
        for layer in self.layers:
            x = layer(x, self.table[:, 1 : ids.shape[1] + 1])
        return self.norm(x)


class HeadWithoutModule(nn.Module):
    """A tied head as a product with the embedding's weight; lm_head exists where the head is its own only."""

    body: type[nn.Module] = ModelWithKernels

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.model = self.body(config)
        self.tied = config.get("tie_word_embeddings", False)
        if not self.tied:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        weight = self.model.embed_tokens.weight if self.tied else self.lm_head.weight
        return self.model(ids) @ weight.T


class EmbeddingTiedToHead(nn.Module):
    """Tied the other way round: the embedding takes the head's weight."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.model = ModelCountingFromOne(config)
        if "tie_word_embeddings" in config and config.tie_word_embeddings:
            self.model.embed_tokens.weight = self.lm_head.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.lm_head(self.model(ids))


def generate_into_a_list(model: nn.Module, ids: Tensor, max_new_tokens: int, end_tokens: Any = ()) -> list[int]:
    text, prompt = ids[0].tolist(), ids.shape[1]
    with torch.inference_mode():
        while len(text) < prompt + max_new_tokens:
            text.append(int(model(torch.tensor([text]))[0, -1].argmax()))
            if text[-1] in set(end_tokens):
                break
    return text[prompt:]


def generate_tensors(model: nn.Module, ids: Tensor, max_new_tokens: int, end_tokens: Any = ()) -> Iterator[Tensor]:
    for _ in range(max_new_tokens):
        best = model(ids).softmax(-1)[:, -1:].topk(1)
        ids = torch.cat([ids, best.indices[:, :, 0]], dim=1)
        yield ids[0, -1]
        if any(ids[0, -1] == end for end in end_tokens):
            break


ALTERNATIVES: dict[str, tuple[Callable[..., Any], ...]] = {
    "qwen3.rms_norm": (RMSNormWithKernel, RMSNormWithNorm, RMSNormWithEinsum),
    "qwen3.rope_table": (table_by_outer, table_in_float64),
    "qwen3.rope": (rope_with_halves, rope_with_complex_numbers, rope_with_roll),
    "qwen3.mlp": (MLPFused, MLPWithEinsum),
    "qwen3.attention": (AttentionSdpa, AttentionWithGroups, AttentionHeadByHead),
    "qwen3.decoder_layer": (LayerWithKernels, LayerByHand, LayerWithGroups),
    "qwen3.model": (ModelWithKernels, ModelCountingFromOne),
    "qwen3.causal_lm": (HeadWithoutModule, EmbeddingTiedToHead),
    "qwen3.generate": (generate_into_a_list, generate_tensors),
}


def test_there_are_alternatives_for_every_exercise() -> None:
    assert set(ALTERNATIVES) == set(SOLVED.exercises)


@pytest.mark.parametrize(
    ("name", "other"), [(name, other) for name, others in ALTERNATIVES.items() for other in others]
)
def test_another_right_program_passes(name: str, other: Any) -> None:
    verdict = SOLVED.verdict_on(other, SOLVED.exercises[name])
    assert verdict.right, verdict.first_wrong


WITH_BFLOAT16 = ["qwen3.rms_norm", "qwen3.rope", "qwen3.mlp", "qwen3.attention", "qwen3.decoder_layer"]


@pytest.mark.parametrize("name", WITH_BFLOAT16)
def test_every_part_has_a_bfloat16_case(name: str) -> None:
    assert {case.dtype for case in SOLVED.exercises[name].cases} == {torch.float32, torch.bfloat16}


def test_the_lesson_knows_at_least_thirty_five_mistakes() -> None:
    assert sum(len(exercise.mistakes) for exercise in SOLVED.exercises.values()) >= 35


# Programs that are right only by chance do not pass


class RMSNormOfThreeAxes(RMSNormWithKernel):
    def forward(self, x: Tensor) -> Tensor:
        square = x.float().pow(2).mean(dim=2, keepdim=True)
        return (x.float() * torch.rsqrt(square + self.eps)).to(x.dtype) * self.weight


class ModelOfThreeLayers(ModelWithKernels):
    def __init__(self, config: Config) -> None:
        super().__init__(config.replace(num_hidden_layers=3))


class ModelWithItsOwnEps(ModelWithKernels):
    def __init__(self, config: Config) -> None:
        super().__init__(config.replace(rms_norm_eps=1e-6))


class AttentionOfEqualHeads(AttentionWithGroups):
    """Groups are as large as there are groups."""

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        q, k, v = self.heads(x, table)
        k, v = (t.repeat_interleave(self.KV, dim=1) for t in (k, v))
        return self.o_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("qwen3.rms_norm", RMSNormOfThreeAxes),
        ("qwen3.model", ModelOfThreeLayers),
        ("qwen3.model", ModelWithItsOwnEps),
        ("qwen3.attention", AttentionOfEqualHeads),
    ],
)
def test_a_program_that_fits_only_some_inputs_does_not_pass(name: str, wrong: Any) -> None:
    assert not SOLVED.verdict_on(wrong, SOLVED.exercises[name]).right


# The layer comparison finds the culprit


def trace() -> Trace:
    recorded = Recording.read(LESSON.recording).trace
    assert recorded is not None
    return recorded


def test_every_row_of_the_solution_is_zero() -> None:
    report = layer_report(SOLVED.solutions["CausalLM"], trace())
    assert report.ok and all(row.outcome.max == 0 for row in report.rows)


@pytest.mark.parametrize("other", ALTERNATIVES["qwen3.causal_lm"])
def test_another_right_program_is_right_in_every_row(other: Any) -> None:
    assert layer_report(other, trace()).ok


def test_the_layer_comparison_shows_a_forgotten_eps() -> None:
    class WithItsOwnEps(SOLVED.solutions["CausalLM"]):  # type: ignore[misc]
        def __init__(self, config: Config) -> None:
            super().__init__(config.replace(rms_norm_eps=1e-6))

    report = layer_report(WithItsOwnEps, trace())
    assert report.culprit is not None and report.culprit.path == "model.layers.0.input_layernorm"


def broken(part: str, forward: Callable[..., Tensor]) -> type[nn.Module]:
    """The solution, in which the module at `part` has another forward."""

    class Broken(SOLVED.solutions["CausalLM"]):  # type: ignore[misc]
        def __init__(self, config: Config) -> None:
            super().__init__(config)
            module = self.get_submodule(part)
            module.__class__ = type(type(module).__name__, (type(module),), {"forward": forward})

    return Broken


def centred(self: Any, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], self.weight, None, self.eps)


def swapped_gate(self: Any, x: Tensor) -> Tensor:
    return self.down_proj(self.gate_proj(x) * F.silu(self.up_proj(x)))  # type: ignore[no-any-return]


def heads_in_another_order(self: Any, x: Tensor, table: Tensor) -> Tensor:
    q, k, v = (
        p(x).unflatten(-1, (-1, table.shape[-1])).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
    )
    q, k = rope_with_halves(self.q_norm(q), table), rope_with_halves(self.k_norm(k), table)
    k, v = (t.repeat(1, q.shape[1] // k.shape[1], 1, 1) for t in (k, v))
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return self.o_proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def without_the_second_sum(self: Any, x: Tensor, table: Tensor) -> Tensor:
    x = x + self.self_attn(self.input_layernorm(x), table)
    return self.mlp(self.post_attention_layernorm(x))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("part", "forward"),
    [
        ("model.layers.0.input_layernorm", centred),
        ("model.layers.1.self_attn.q_norm", centred),
        ("model.layers.2.self_attn.k_norm", centred),
        ("model.layers.2.post_attention_layernorm", centred),
        ("model.norm", centred),
        ("model.layers.0.mlp", swapped_gate),
        ("model.layers.1.self_attn", heads_in_another_order),
        ("model.layers.1", without_the_second_sum),
    ],
)
def test_the_layer_comparison_finds_a_planted_bug(part: str, forward: Callable[..., Tensor]) -> None:
    report = layer_report(broken(part, forward), trace())
    assert report.culprit is not None and report.culprit.path == part


# The lesson's own cells run with other right programs


def as_ints_in_a_list(programs: dict[str, Any]) -> None:
    programs["generate"] = generate_into_a_list


def with_kernels(programs: dict[str, Any]) -> None:
    """Parts that keep no `head_dim`, have no q_norm where a Llama has none, and a table as long as the config says."""
    others = ModelWithKernels, AttentionSdpa, LayerWithKernels, RMSNormWithKernel, MLPFused, HeadWithoutModule
    names = "Model", "Attention", "DecoderLayer", "RMSNorm", "MLP", "CausalLM"
    programs |= dict(zip(names, others, strict=True))
    programs |= {"rope_table": table_by_outer, "apply_rope": rope_with_halves, "generate": generate_tensors}


@pytest.mark.parametrize("change", [as_ints_in_a_list, with_kernels])
def test_the_lessons_own_cells_run_with_another_right_program(
    change: Callable[[dict[str, Any]], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every cell in between, with the shipped checkpoint in place of each."""
    matplotlib.use("Agg")
    monkeypatch.chdir(LESSON.folder)
    programs = dict(SOLVED.lesson.namespace())
    change(programs)
    austen = load_checkpoint("austen-qwen3")
    programs |= {"load_checkpoint": lambda name, optional: austen, "check_generation": lambda *_, **__: None}
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    for cell in LESSON.cells():
        if cell.kind == "other" and "AutoModelForCausalLM" not in cell.source:  # token 2 ends SmolLM2's turns alone
            exec(compile(cell.source, cell.title, "exec"), programs)
    shown = capsys.readouterr().out
    assert "tokens so far   ms for the next" in shown and "without QK-norm" in shown
    refused = "your program says" in shown
    assert refused == (change is with_kernels)  # a table of 10 rows is too short for the text


# What the engine does for this lesson


def test_a_tied_head_is_recorded_once_and_must_be_tied() -> None:
    exercise = SOLVED.exercises["qwen3.causal_lm"]
    task, answer = record_exercise(LESSON.name, exercise)
    assert ["lm_head.weight" in case.weights for case in task.cases] == [False, True, True]

    class Untied(SOLVED.solutions["CausalLM"]):  # type: ignore[misc]
        def __init__(self, config: Config) -> None:
            super().__init__(config.replace(tie_word_embeddings=False))

    verdict = judge(task, answer, probe(task, Untied))
    assert [case.right for case in verdict.cases] == [False, True, True]
    assert verdict.cases[0].finding is not None
    assert "`lm_head.weight` is not in the checkpoint" in " ".join(verdict.cases[0].finding.detail)


def test_the_table_stays_float32_in_bfloat16_cases_and_needs_no_gradient() -> None:
    exercise = SOLVED.exercises["qwen3.attention"]
    task, answer = record_exercise(LESSON.name, exercise)
    x, table = task.cases[-1].args
    assert (x.dtype, table.dtype) == (torch.bfloat16, torch.float32)

    class WithFixedTable(AttentionSdpa):
        def forward(self, x: Tensor, table: Tensor) -> Tensor:
            return super().forward(x, table.detach())

    assert judge(task, answer, probe(task, WithFixedTable)).right


def verdict_with(exercise: str, wrong: str, find: str, replacement: str) -> Verdict:
    """What is said of the solution of `exercise` on top of another one, `wrong`, in which `find` is replaced."""
    source = LESSON.source_of(wrong)
    assert source.count(find) == 1
    recording = Recording.read(LESSON.recording)
    programs = LESSON.namespace((wrong, source.replace(find, replacement)))
    return examine(recording, exercise, programs[recording.task(exercise).solution])


def test_a_tied_head_keeps_its_points_where_the_model_below_it_is_wrong() -> None:
    verdict = verdict_with("qwen3.causal_lm", "qwen3.rope_table", "1.0 / theta", "0.5 / theta")
    assert not verdict.right and verdict.points == verdict.max_points
    assert "Your code here is right. It fails because `model` is not" in to_text(report(verdict))


@pytest.mark.parametrize(
    ("exercise", "wrong", "find", "replacement"),
    [
        ("qwen3.attention", "qwen3.rope", "[-b, a]", "[b, -a]"),
        ("qwen3.attention", "qwen3.rope", "return x * cos + turned * sin", "raise NotImplementedError()"),
        ("qwen3.model", "qwen3.rope_table", "1.0 / theta", "0.5 / theta"),
    ],
)
def test_a_function_that_is_wrong_by_itself_is_named_where_it_is_used(
    exercise: str, wrong: str, find: str, replacement: str
) -> None:
    text = to_text(report(verdict_with(exercise, wrong, find, replacement)))
    assert f"Mend `{wrong}` first" in text or f"`{SOLVED.exercises[wrong].solution}` is not written yet" in text


# Configs and real weights


@pytest.mark.parametrize(
    ("name", "sha256"),
    [
        ("qwen3-0.6b", "660db3b73d788119c04535e48cf9be5f55bc3100841a718637ae695b442f27dd"),
        ("qwen3-8b", "f7c4eadfbbf522470667b797a3c89be2524832d2d599797248dc304fff447c30"),
    ],
)
def test_the_lessons_config_is_the_hubs(name: str, sha256: str) -> None:
    assert hashlib.sha256((LESSON.folder / "configs" / f"{name}.json").read_bytes()).hexdigest() == sha256


@pytest.mark.parametrize(("name", "parameters"), [("qwen3-0.6b", 596_049_920), ("qwen3-8b", 8_190_735_360)])
def test_the_models_size_is_known_from_its_config(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = SOLVED.solutions["CausalLM"](Config.read(LESSON.folder / "configs" / f"{name}.json"))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def cell_that_defines(name: str) -> str:
    return next(cell.source for cell in LESSON.cells() if f"def {name}(" in cell.source)


def test_the_chat_template_by_hand_is_the_models_own() -> None:
    """SmolLM2's template as its file has it; of Qwen3's the part that a first question uses."""
    from jinja2 import Environment

    smollm2 = (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
        "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    qwen3 = (
        "{%- for message in messages %}"
        "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
        "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}"
        "{%- endif %}{%- endif %}"
    )
    cell: dict[str, Any] = {}
    exec(cell_that_defines("chat_prompt"), cell)
    by_hand, question = cell["chat_prompt"], [{"role": "user", "content": "Why?"}]

    def rendered(template: str, **settings: bool) -> str:
        return Environment().from_string(template).render(messages=question, add_generation_prompt=True, **settings)

    assert by_hand("Why?", cell["SMOL"]) == rendered(smollm2)
    assert by_hand("Why?") == rendered(qwen3) == rendered(qwen3, enable_thinking=True)
    assert by_hand("Why?", thinking=False) == rendered(qwen3, enable_thinking=False)
    checkpoint = load_checkpoint("smollm2-135m-instruct", optional=True)
    assert checkpoint is None or (checkpoint.folder / "chat_template.jinja").read_text() == smollm2


def small_reference(tied: bool, kind: str) -> nn.Module:
    config = Config(SOLVED.reference.SMALL if kind == "qwen3" else SOLVED.reference.LLAMA).replace(
        tie_word_embeddings=tied
    )
    model = SOLVED.exercises["qwen3.causal_lm"].reference(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
@pytest.mark.parametrize(("tied", "keep_copy"), [(True, False), (True, True), (False, False)])
def test_the_hubs_layout_loads_and_writes_what_transformers_does(
    tied: bool, kind: str, keep_copy: bool, tmp_path: Path
) -> None:
    """Sharded, in bfloat16, with or without the copy of a tied head that Qwen3-0.6B's file has."""
    from safetensors.torch import load_file, save_file

    model = small_reference(tied, kind).to(torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="1GB" if keep_copy else "8KB")
    assert keep_copy == (tmp_path / "model.safetensors").exists()
    if keep_copy:
        state = load_file(tmp_path / "model.safetensors")
        state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
        save_file(state, tmp_path / "model.safetensors")
    known = replace(entry("qwen3-0.6b"), drop=("lm_head.weight",) if tied else ())
    checkpoint = Checkpoint(known, tmp_path, "hub")
    own = SOLVED.solutions["CausalLM"](checkpoint.config).eval()
    checkpoint.load_into(own)
    assert (own.lm_head.weight is own.model.embed_tokens.weight) == tied
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager").eval()
    assert isinstance(theirs, Qwen3ForCausalLM | LlamaForCausalLM)
    ids = torch.randint(53, (1, 5))
    with torch.no_grad():
        assert torch.equal(own(ids), theirs(input_ids=ids, use_cache=False).logits)
    assert list(SOLVED.solutions["generate"](own, ids, 20)) == written_by_transformers(theirs, ids, 20)


def test_an_untied_model_does_not_take_a_tied_checkpoint(tmp_path: Path) -> None:
    small_reference(True, "qwen3").save_pretrained(tmp_path)
    checkpoint = Checkpoint(entry("qwen3-0.6b"), tmp_path, "hub")
    with pytest.raises(GraderError, match=r"lm_head\.weight"):
        checkpoint.load_into(SOLVED.solutions["CausalLM"](checkpoint.config.replace(tie_word_embeddings=False)))


@pytest.fixture(scope="module")
def austen() -> Any:
    return SOLVED.trained("CausalLM", "austen-qwen3")


@pytest.fixture(scope="module")
def smollm2() -> Any:
    return SOLVED.trained("CausalLM", "smollm2-135m-instruct")


@pytest.fixture
def real(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("real", ["austen", "smollm2"], indirect=True)
def test_trained_weights_give_the_references_logits(real: Any) -> None:
    checkpoint, model, theirs = real
    ids = torch.randint(checkpoint.config.vocab_size, (2, 40))
    with torch.no_grad():
        assert torch.equal(model(ids), theirs(input_ids=ids, use_cache=False).logits)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("real", "prompt"),
    [
        ("austen", "It is a truth universally acknowledged"),
        ("austen", "Anne"),
        ("austen", "Captain Wentworth"),
        ("smollm2", "The capital of France is"),
        ("smollm2", "def fibonacci(n):"),
        ("smollm2", "<|im_start|>user\nWhat is a language model?<|im_end|>\n<|im_start|>assistant\n"),
    ],
    indirect=["real"],
)
def test_64_greedy_tokens_are_those_of_transformers(real: Any, prompt: str) -> None:
    checkpoint, model, theirs = real
    ids = torch.tensor([checkpoint.tokenizer.encode(prompt).ids])
    assert list(SOLVED.solutions["generate"](model, ids, 64)) == written_by_transformers(theirs, ids, 64)
