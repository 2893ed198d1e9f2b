"""What the layer debugger says about models that are right, and about models with one planted mistake."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from grader.calls import record_calls
from grader.config import Config
from grader.errors import CheckFailed, GraderError
from grader.layers.debugger import layer_report
from grader.layers.rows import LayerReport
from grader.layers.wording import report_lines
from grader.lessons.exercise import Draw, random_weights
from grader.porting.compare import compare_layers
from grader.recordings.traces import Trace
from grader.recordings.tracing import trace_of
from grader.report import to_html, to_text

CONFIG = {"vocab_size": 50, "n_positions": 16, "n_embd": 24, "n_layer": 3, "n_head": 4}

# A transformer with what real ones have: a fused projection, a position table made by a shared module that is
# called twice in a pass, masks made by the model and handed down, and a tied head.
MODEL = """
import torch
from torch import nn
from torch.nn import functional as F


class Norm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x):
        mean = x.mean(-1, keepdim=True)
        var = x.var(-1, keepdim=True, unbiased=False)
        return (x - mean) / torch.sqrt(var + 1e-5) * self.weight + self.bias


class Act(nn.Module):
    def forward(self, x):
        return F.gelu(x, approximate="tanh")


class Heads(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class Turns(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, x, theta):
        inv_freq = 1.0 / theta ** (torch.arange(0, self.dim, 2).float() / self.dim)
        angles = torch.outer(torch.arange(x.shape[1]).float(), inv_freq)
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos()[None].to(x.dtype), angles.sin()[None].to(x.dtype)


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.n_head = config.n_head
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.q_norm = Heads(config.n_embd // config.n_head)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)

    def forward(self, x, mask, turns):
        B, T, D = x.shape
        q, k, v = self.c_attn(x).split(D, dim=2)
        q, k, v = (t.view(B, T, self.n_head, -1) for t in (q, k, v))
        q = self.q_norm(q)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        cos, sin = turns
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
        weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
        return self.c_proj((weights @ v).transpose(1, 2).reshape(B, T, D))


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.act = Act()
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x):
        return self.c_proj(self.act(self.c_fc(x)))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.ln_1 = Norm(config.n_embd)
        self.attn = Attention(config)
        self.ln_2 = Norm(config.n_embd)
        self.mlp = MLP(config)

    def forward(self, x, mask, turns):
        x = x + self.attn(self.ln_1(x), mask, turns)
        x = x + self.mlp(self.ln_2(x))
        return x


class Model(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.turns = Turns(config.n_embd // config.n_head)
        self.h = nn.ModuleList([Block(config) for _ in range(config.n_layer)])
        self.ln_f = Norm(config.n_embd)

    def forward(self, ids):
        T = ids.shape[1]
        x = self.wte(ids) + self.wpe(torch.arange(T))
        causal = torch.ones(T, T).tril().bool()
        window = causal.triu(-3)
        local, far = self.turns(x, 100.0), self.turns(x, 10000.0)
        for i in range(len(self.h)):
            mask, turns = (causal, far) if i == 2 else (window, local)
            x = self.h[i](x, mask, turns)
        x = self.ln_f(x)
        return x @ self.wte.weight.T
"""


def patched(*changes: tuple[str, str]) -> type[nn.Module]:
    """The model's class with parts of its source replaced."""
    source = MODEL
    for find, replace in changes:
        assert source.count(find) == 1, f"{find!r} occurs {source.count(find)} times"
        source = source.replace(find, replace)
    names: dict[str, Any] = {"__name__": "learner"}
    exec(compile(source, "<learner>", "exec"), names)
    model: type[nn.Module] = names["Model"]
    return model


def trace_with(
    model: nn.Module, args: tuple[Any, ...], build: dict[str, Any], dtype: torch.dtype = torch.float32
) -> Trace:
    """A recording of one pass of `model` with random weights."""
    random_weights(model, Draw("layers"))
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    model.eval()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        output, calls = record_calls(model, lambda: model(*args))
    return Trace(build, weights, args, tuple(calls), output, dtype)


def reference_trace(dtype: torch.dtype = torch.float32) -> Trace:
    ids = Draw("ids").tokens(CONFIG["vocab_size"], 2, 9)
    return trace_with(patched()(Config(CONFIG)), (ids,), {"config": CONFIG}, dtype)


@pytest.fixture(scope="module")
def trace() -> Trace:
    return reference_trace()


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """These models are so small that threads only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def text(report: LayerReport, **options: Any) -> str:
    return to_text(report_lines(report, **options))


def rows_of(report: LayerReport, **options: Any) -> list[str]:
    """The rows of the table, with single spaces."""
    return [" ".join(" ".join(line.cells).split()) for line in report_lines(report, **options) if line.cells][1:]


def row(report: LayerReport, name: str) -> Any:
    return next(row for row in report.rows if row.name == name)


# Right models


def test_a_right_model_is_right_to_the_last_bit_in_every_row(trace: Trace) -> None:
    report = layer_report(patched(), trace)
    assert report.ok and report.culprit is None
    assert all(row.outcome.max == 0 for row in report.rows)
    assert rows_of(report) == [
        *(f"[OK] {name} 0 0" for name in ("wte", "wpe", "turns[0]", "turns[1]", "h.0", "h.1", "h.2", "ln_f", "logits")),
    ]


OTHER_WAYS = {
    "heads before time in the norm of the heads": (
        ("        q = self.q_norm(q)\n", ""),
        ("        cos, sin = turns\n", "        cos, sin = turns\n        q = self.q_norm(q)\n"),
    ),
    "one activation for all layers": (
        ("class MLP(", "SHARED = Act()\n\n\nclass MLP("),
        ("        self.act = Act()", "        self.act = SHARED"),
    ),
    "functions in the place of modules": (
        ("        self.act = Act()\n", ""),
        ("self.act(self.c_fc(x))", 'F.gelu(self.c_fc(x), approximate="tanh")'),
        ("        q = self.q_norm(q)\n", "        q = F.rms_norm(q, q.shape[-1:], self.q_norm.weight, 1e-6)\n"),
    ),
    "tables made in another order": (
        (
            "local, far = self.turns(x, 100.0), self.turns(x, 10000.0)",
            "far = self.turns(x, 10000.0)\n        local = self.turns(x, 100.0)",
        ),
    ),
    "tables made anew for every block": (
        ("        local, far = self.turns(x, 100.0), self.turns(x, 10000.0)\n", ""),
        (
            "(causal, far) if i == 2 else (window, local)",
            "(causal, self.turns(x, 10000.0)) if i == 2 else (window, self.turns(x, 100.0))",
        ),
    ),
    "the hidden state is not the first argument": (
        ("def forward(self, x, mask, turns):\n        B, T", "def forward(self, mask, turns, x):\n        B, T"),
        ("self.attn(self.ln_1(x), mask, turns)", "self.attn(mask, x=self.ln_1(x), turns=turns)"),
    ),
    "modules of its own around the reference's": (
        ("        self.act = Act()", "        self.act = Act()\n        self.drop = nn.Dropout(0.5)"),
        ("self.act(self.c_fc(x))", "self.drop(self.act(self.c_fc(x)))"),
    ),
    "the block leaves the last sum to the model": (
        ("        x = x + self.mlp(self.ln_2(x))\n        return x", "        return self.mlp(self.ln_2(x)), x"),
        (
            "            x = self.h[i](x, mask, turns)",
            "            y, x = self.h[i](x, mask, turns)\n            x = x + y",
        ),
    ),
    "in place where nobody minds": (("        x = x + self.mlp(self.ln_2(x))", "        x += self.mlp(self.ln_2(x))"),),
    "flat activations": (
        (
            "return self.c_proj(self.act(self.c_fc(x)))",
            "return self.c_proj(self.act(self.c_fc(x.flatten(0, 1)))).view(x.shape)",
        ),
    ),
    "relative positions counted from 1": (
        ("torch.arange(x.shape[1]).float()", "torch.arange(1, x.shape[1] + 1).float()"),
    ),
    "blocks in a dict": (
        ("nn.ModuleList([Block(config) for _ in", "nn.ModuleDict({str(i): Block(config) for i in"),
        ("range(config.n_layer)])", "range(config.n_layer)})"),
        ("x = self.h[i](x, mask, turns)", "x = self.h[str(i)](x, mask, turns)"),
    ),
}


@pytest.mark.parametrize("way", OTHER_WAYS)
def test_another_right_program_is_right(trace: Trace, way: str) -> None:
    report = layer_report(patched(*OTHER_WAYS[way]), trace)
    assert report.ok, text(report, open="all")
    assert report.culprit is None


# One planted mistake

# fmt: off
# ruff: noqa: E501
MISTAKES = {
    # the name of the mistake: where it is, and the change that makes it
    "norm: eps ten times too large": ("h.0.ln_1", "1e-5", "1e-4"),
    "norm: unbiased variance": ("h.0.ln_1", "unbiased=False", "unbiased=True"),
    "norm: mean not taken off": ("h.0.ln_1", "(x - mean) /", "x /"),
    "norm: bias forgotten": ("h.0.ln_1", " * self.weight + self.bias", " * self.weight"),
    "norm: NaN": ("h.0.ln_1", "torch.sqrt(var + 1e-5)", "torch.sqrt(var - 1e5)"),
    "activation: relu": ("h.0.mlp.act", 'F.gelu(x, approximate="tanh")', "F.relu(x)"),
    "activation: exact gelu": ("h.0.mlp.act", 'F.gelu(x, approximate="tanh")', "F.gelu(x)"),
    "activation: returns None": ("h.0.mlp.act", 'return F.gelu(x, approximate="tanh")', "F.gelu(x)"),
    "activation: raises": ("h.0.mlp.act", 'F.gelu(x, approximate="tanh")', "F.gelou(x)"),
    "activation: double precision": ("h.0.mlp.act", 'F.gelu(x, approximate="tanh")', "F.gelu(x, approximate='tanh').double()"),
    "head norm: over the wrong axis": ("h.0.attn.q_norm", "x.pow(2).mean(-1, keepdim=True)", "x.pow(2).mean(-2, keepdim=True)"),
    "head norm: weight forgotten": ("h.0.attn.q_norm", " + 1e-6) * self.weight", " + 1e-6)"),
    "turns: twice as fast": ("turns", "torch.arange(x.shape[1]).float()", "2 * torch.arange(x.shape[1]).float()"),
    "turns: pairs for halves": ("turns", "torch.cat((angles, angles), dim=-1)", "angles.repeat_interleave(2, dim=-1)"),
    "turns: the second output alone": ("turns", "angles.sin()[None]", "-angles.sin()[None]"),
    "attention: not scaled": ("h.0.attn", " / q.shape[-1] ** 0.5", ""),
    "attention: scaled twice": ("h.0.attn", "q.shape[-1] ** 0.5", "q.shape[-1]"),
    "attention: q and k swapped": ("h.0.attn", "q, k, v = self.c_attn(x)", "k, q, v = self.c_attn(x)"),
    "attention: heads merged without transpose": ("h.0.attn", "(weights @ v).transpose(1, 2)", "(weights @ v)"),
    "attention: heads split in the wrong order": ("h.0.attn", "t.view(B, T, self.n_head, -1)", "t.view(B, T, -1, self.n_head).transpose(2, 3)"),
    "attention: softmax over queries": ("h.0.attn", "softmax(-1)", "softmax(-2).nan_to_num()"),
    "attention: k not turned": ("h.0.attn", "rotate(q, cos, sin), rotate(k, cos, sin)", "rotate(q, cos, sin), k"),
    "attention: cos and sin swapped": ("h.0.attn", "cos, sin = turns", "sin, cos = turns"),
    "attention: mask ignored": ("h.0.attn", "masked_fill(~mask, ", "masked_fill(mask & ~mask, "),
    "attention: mask turned round": ("h.0.attn", "masked_fill(~mask, ", "masked_fill(~mask.T, "),
    "attention: window too short": ("h.0.attn", "masked_fill(~mask, ", "masked_fill(~mask.triu(-2), "),
    "attention: projection forgotten": ("h.0.attn", "return self.c_proj((weights @ v).transpose(1, 2).reshape(B, T, D))", "return (weights @ v).transpose(1, 2).reshape(B, T, D)"),
    "attention: head norm forgotten": ("h.0.attn", "        q = self.q_norm(q)\n", ""),
    "mlp: activation forgotten": ("h.0.mlp", "self.c_proj(self.act(self.c_fc(x)))", "self.c_proj(self.c_fc(x))"),
    "mlp: activation twice": ("h.0.mlp", "self.c_proj(self.act(self.c_fc(x)))", "self.c_proj(self.act(self.act(self.c_fc(x))))"),
    "mlp: input added": ("h.0.mlp", "return self.c_proj(self.act(", "return x + self.c_proj(self.act("),
    "mlp: another shape": ("h.0.mlp", "return self.c_proj(self.act(self.c_fc(x)))", "return self.act(self.c_fc(x))"),
    "block: first residual missing": ("h.0", "x = x + self.attn(", "x = self.attn("),
    "block: second residual missing": ("h.0", "x = x + self.mlp(", "x = self.mlp("),
    "block: residual of the normed state": ("h.0", "x = x + self.attn(self.ln_1(x), mask, turns)", "x = self.ln_1(x)\n        x = x + self.attn(x, mask, turns)"),
    "block: mlp without its norm": ("h.0", "self.mlp(self.ln_2(x))", "self.mlp(x)"),
    "block: mlp given the first norm": ("h.0", "self.mlp(self.ln_2(x))", "self.mlp(self.ln_1(x))"),
    "block: attention without its norm": ("h.0", "self.attn(self.ln_1(x), mask, turns)", "self.attn(x, mask, turns)"),
    "block: norms swapped": ("h.0", "self.attn(self.ln_1(x), mask, turns)", "self.attn(self.ln_2(x), mask, turns)"),
    "block: norm after the sublayer": ("h.0", "self.mlp(self.ln_2(x))", "self.ln_2(self.mlp(x))"),
    "block: parallel sublayers": ("h.0", "x = x + self.attn(self.ln_1(x), mask, turns)\n        x = x + self.mlp(self.ln_2(x))", "x = x + self.attn(self.ln_1(x), mask, turns) + self.mlp(self.ln_2(x))"),
    "block: forgets to return": ("h.0", "        x = x + self.mlp(self.ln_2(x))\n        return x", "        x = x + self.mlp(self.ln_2(x))"),
    "block: raises": ("h.0", "x = x + self.mlp(", "x = x + self.mpl("),
    "model: embeddings scaled": ("", "x = self.wte(ids) +", "x = 24 ** 0.5 * self.wte(ids) +"),
    "model: no positions": ("", " + self.wpe(torch.arange(T))", ""),
    "model: positions from 1": ("", "self.wpe(torch.arange(T))", "self.wpe(torch.arange(1, T + 1))"),
    "model: blocks in reverse": ("", "x = self.h[i](", "x = self.h[len(self.h) - 1 - i]("),
    "model: last block left out": ("", "for i in range(len(self.h)):", "for i in range(len(self.h) - 1):"),
    "model: first block twice": ("", "for i in range(len(self.h)):", "for i in (0, 0, 1, 2):"),
    "model: tables mixed up": ("", "(causal, far) if i == 2 else (window, local)", "(causal, local) if i == 2 else (window, far)"),
    "model: one table for all": ("", "(causal, far) if i == 2 else (window, local)", "(causal, local) if i == 2 else (window, local)"),
    "model: masks mixed up": ("", "(causal, far) if i == 2 else (window, local)", "(window, far) if i == 2 else (causal, local)"),
    "model: another order of layers": ("", "(causal, far) if i == 2", "(causal, far) if i == 0"),
    "model: final norm forgotten": ("", "        x = self.ln_f(x)\n", ""),
    "model: final norm twice": ("", "        x = self.ln_f(x)\n", "        x = self.ln_f(self.ln_f(x))\n"),
    "model: head is scaled": ("", "return x @", "return 2 * x @"),
    "model: head left out": ("", "return x @ self.wte.weight.T", "return x"),
    "model: probabilities for logits": ("", "return x @ self.wte.weight.T", "return (x @ self.wte.weight.T).softmax(-1)"),
    "model: raises at the end": ("", "return x @ self.wte.weight.T", "return x @ self.wte.weight"),
}
# fmt: on


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_named_as_the_culprit(trace: Trace, mistake: str) -> None:
    culprit, find, replace = MISTAKES[mistake]
    report = layer_report(patched((find, replace)), trace)
    assert not report.ok
    assert report.culprit is not None, text(report)
    assert report.culprit.path == culprit, text(report, open="all")


def reasons(trace: Trace, *changes: tuple[str, str]) -> str:
    report = layer_report(patched(*changes), trace)
    assert report.culprit is not None
    return "\n".join(report.culprit.reasons)


def test_what_a_module_was_given_instead_is_named(trace: Trace) -> None:
    assert (
        "`h.0.mlp` was given something else than in the reference: it equals the input of `h.0.ln_2`,"
        " and should equal the output of `h.0.ln_2`."
    ) in reasons(trace, ("self.mlp(self.ln_2(x))", "self.mlp(x)"))


def test_a_forgotten_residual_is_named(trace: Trace) -> None:
    assert "it returns the output of `h.0.mlp`" in reasons(trace, ("x = x + self.mlp(", "x = self.mlp("))
    assert "`h.0.ln_2` was given something else than in the reference: it equals the output of `h.0.attn`" in reasons(
        trace, ("x = x + self.attn(", "x = self.attn(")
    )


def test_a_scaled_part_of_a_sum_is_named(trace: Trace) -> None:
    scaled = ("x = self.wte(ids) +", "x = 24 ** 0.5 * self.wte(ids) +")
    assert (
        "`h.0` was given something else than in the reference: in a sum, the output of `wte` is taken 4.899 times"
        in (reasons(trace, scaled))
    )


def test_modules_called_too_seldom_or_too_often_are_named(trace: Trace) -> None:
    assert "`ln_f` is never called." in reasons(trace, ("        x = self.ln_f(x)\n", ""))
    assert "`h.0` is called 2 times, and in the reference once." in reasons(
        trace, ("for i in range(len(self.h)):", "for i in (0, 0, 1, 2):")
    )


def test_blocks_in_another_order_are_named(trace: Trace) -> None:
    assert "`h.2` was given something else than in the reference: it equals the input of `h.0`" in reasons(
        trace, ("x = self.h[i](", "x = self.h[len(self.h) - 1 - i](")
    )


def test_positions_that_start_elsewhere_are_shown(trace: Trace) -> None:
    changed = ("self.wpe(torch.arange(T))", "self.wpe(torch.arange(1, T + 1))")
    assert "`wpe` was given something else than in the reference: 1, 2, 3, 4, … for 0, 1, 2, 3, …" in (
        reasons(trace, changed)
    )


def test_an_argument_meant_for_another_layer_is_named(trace: Trace) -> None:
    choice = "(causal, far) if i == 2 else (window, local)"
    assert "`h.2` needs another `turns`: it is right with what `turns[1]` gives." in reasons(
        trace, (choice, "(causal, local) if i == 2 else (window, local)")
    )
    assert "`h.0` needs another `mask`: it is right with what `h.2` is given." in reasons(
        trace, (choice, "(window, far) if i == 2 else (causal, local)")
    )


def test_a_mask_that_the_model_makes_wrongly_is_not_blamed_on_the_attention(trace: Trace) -> None:
    report = layer_report(patched(("causal.triu(-3)", "causal.triu(-2)")), trace)
    assert report.culprit is not None
    assert report.culprit.path == "", text(report)
    assert "`h.0` needs another `mask`: it is right with the reference's `mask`." in report.culprit.reasons


MASKS = {
    "true where one may not look": ("~causal, ~window", "masked_fill(mask, "),
    "added": ("add(causal), add(window)", "masked_fill(mask < 0, "),
    "with axes for batch and heads": ("causal[None, None], window[None, None]", "masked_fill(~mask, "),
}


@pytest.mark.parametrize("form", MASKS)
@pytest.mark.parametrize("wrong", [False, True])
def test_a_mask_may_have_another_form_than_the_references(trace: Trace, form: str, wrong: bool) -> None:
    given, use = MASKS[form]
    model = patched(
        (
            "class Norm(",
            "def add(mask):\n    return torch.zeros(mask.shape).masked_fill(mask.logical_not(), -1e9)\n\n\nclass Norm(",
        ),
        (
            "window = causal.triu(-3)\n",
            f"window = causal.triu({-2 if wrong else -3})\n        causal, window = {given}\n",
        ),
        ("masked_fill(~mask, ", use),
    )
    report = layer_report(model, trace)
    assert report.ok != wrong
    if wrong:
        assert report.culprit is not None and report.culprit.path == "", text(report)


@pytest.mark.parametrize("theta", [100.0, 50.0])
def test_cosines_and_sines_may_be_one_tensor(trace: Trace, theta: float) -> None:
    """As in the course, where attention is given a table [2, T, head_dim], and no module makes it."""
    tables = f"local, far = Turns(6)(x, {theta}), Turns(6)(x, 10000.0)"
    report = layer_report(
        patched(
            ("local, far = self.turns(x, 100.0), self.turns(x, 10000.0)", tables),
            ("self.h[i](x, mask, turns)", "self.h[i](x, mask, torch.cat(turns))"),
        ),
        trace,
    )
    assert report.ok == (theta == 100.0), text(report)
    if not report.ok:
        assert report.culprit is not None and report.culprit.path == "", text(report)
        assert "`h.0` needs another `turns`: it is right with the reference's `turns`." in report.culprit.reasons


def test_an_argument_that_is_not_the_references_is_named_beside_an_error_of_the_modules_own(trace: Trace) -> None:
    report = layer_report(
        patched(
            ("local, far = self.turns(x, 100.0), self.turns(x, 10000.0)", "local, far = [Turns(6)(x, 50.0)] * 2"),
            ("/ q.shape[-1] ** 0.5", "/ q.shape[-1]"),
        ),
        trace,
    )
    assert report.culprit is not None and report.culprit.path == "h.0.attn", text(report)
    assert report.culprit.reasons[0].endswith("in its own forward, or in the `turns` that it was given.")
    assert "It is also given another `turns` than in the reference." in report.culprit.reasons


def test_an_argument_that_the_reference_does_not_have_is_brought_to_mind(trace: Trace) -> None:
    bare = Trace(trace.build, trace.weights, trace.args, tuple(dataclasses.replace(c, others=()) for c in trace.calls),
                 trace.output, trace.dtype)  # fmt: skip
    report = layer_report(patched(("causal.triu(-3)", "causal.triu(-2)")), bare)
    assert report.culprit is not None
    assert report.culprit.path == "h.0.attn"
    assert report.culprit.reasons[0].endswith("in its own forward, or in the `mask` that it was given.")
    assert "It is also given `mask`, which can't be compared: make sure of that, too." in report.culprit.reasons


def test_a_module_that_spoils_its_input_is_the_culprit_although_its_output_is_right(trace: Trace) -> None:
    """A norm does not mind that its input is doubled in place; the residual connection does."""
    report = layer_report(patched(("        mean = x.mean(", "        x *= 2\n        mean = x.mean(")), trace)
    assert row(report, "h.0.ln_1").outcome.ok
    assert report.culprit is not None and report.culprit.path == "h.0.ln_1"
    assert report.culprit.reasons == ("it changes its input in place, and `h.0` still needs that input afterwards.",)


def scaled_in(model: type[nn.Module], path: str) -> type[nn.Module]:
    """The class with the output of one module, or of the model itself, one percent too large."""

    class Planted(model):  # type: ignore[misc,valid-type]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            module = self.get_submodule(path)
            forward = module.forward

            def too_large(*args: Any, **kwargs: Any) -> Any:
                output = forward(*args, **kwargs)
                return (output[0] * 1.01, *output[1:]) if isinstance(output, tuple) else output * 1.01

            module.forward = too_large

    return Planted


PATHS = ["", *(name for name, module in patched()(Config(CONFIG)).named_modules() if name not in ("", "h"))]


@pytest.mark.parametrize("path", PATHS)
def test_whichever_module_is_wrong_is_the_culprit(trace: Trace, path: str) -> None:
    report = layer_report(scaled_in(patched(), path), trace)
    assert report.culprit is not None, text(report)
    assert report.culprit.path == path, text(report, open="all")


def off_by(model: type[nn.Module], path: str, offset: Tensor) -> type[nn.Module]:
    """The class with something added to the output of one module."""

    class Planted(model):  # type: ignore[misc,valid-type]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            module = self.get_submodule(path)
            forward = module.forward
            module.forward = lambda *args: forward(*args) + offset

    return Planted


def test_a_part_whose_error_its_tolerance_hides_is_named_where_it_makes_the_whole_wrong(trace: Trace) -> None:
    """The head adds up what is within tolerance in each value: nobody's own forward is to blame but the norm's."""
    off = 2e-5 * trace.weights["wte.weight"][0].sign()
    report = layer_report(off_by(patched(), "ln_f", off), trace)
    assert row(report, "ln_f").outcome.ok and not row(report, "logits").outcome.ok
    assert report.culprit is not None and report.culprit.path == "ln_f", text(report)
    assert "its error is small (max=2.0" in report.culprit.reasons[0]
    assert "`Planted` is right with the reference's output in its place" in report.culprit.reasons[0]


def test_a_hidden_error_that_shows_only_in_a_later_part_is_named() -> None:
    model, trace = gpt2()

    class Planted(model):  # type: ignore[misc,valid-type]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.h[1].ln_1.eps = 3e-4

    report = layer_report(Planted, trace)
    assert row(report, "h.1.ln_1").outcome.ok and row(report, "logits").outcome.ok and not report.ok
    assert report.culprit is not None and report.culprit.path == "h.1.ln_1"
    assert any(line.startswith("[DIFF] h.1.attn ") for line in rows_of(report))


def test_a_hidden_error_in_the_second_of_a_modules_outputs_is_named(trace: Trace) -> None:
    report = layer_report(patched(("angles.sin()[None]", "1.00006 * angles.sin()[None]")), trace)
    assert row(report, "turns[0]").outcome.ok and not report.ok
    assert report.culprit is not None and report.culprit.path == "turns", text(report, open="all")


@pytest.mark.parametrize("mistake", [name for name in MISTAKES if name.startswith(("block", "model"))])
def test_mistakes_in_wiring_are_never_blamed_on_a_part_with_a_small_error(trace: Trace, mistake: str) -> None:
    culprit, find, replace = MISTAKES[mistake]
    report = layer_report(off_by(patched((find, replace)), "h.2.mlp", torch.tensor(1e-6)), trace)
    assert report.culprit is not None and report.culprit.path == culprit, text(report, open="all")


# What the rows say


def test_own_errors_are_told_from_inherited_ones_and_only_the_failing_block_is_opened(trace: Trace) -> None:
    """A mistake in one layer only: the blocks after it are victims."""

    class Model(patched()):  # type: ignore[misc]
        def __init__(self, config: Config) -> None:
            super().__init__(config)
            self.h[1].mlp.act.forward = lambda x: x.relu()

    report = layer_report(Model, trace)
    rows = {
        line.cells[1]: (line.kind, line.cells[-1]) for line in report_lines(report) if line.cells[0:1] == ("[DIFF]",)
    }
    assert rows == {
        "h.1": ("row_dim", "error inside"),
        "  h.1.mlp": ("row_dim", "error inside"),
        "    h.1.mlp.act": ("row_guilty", "own error"),
        "    h.1.mlp.c_proj": ("row_dim", "inherited"),
        "h.2": ("row_dim", "inherited"),
        "ln_f": ("row_dim", "inherited"),
        "logits": ("row_dim", "error inside"),
    }
    assert "Start here: `h.1.mlp.act` (Act): it is wrong even on the reference's own input." in text(report)
    assert "h.1.ln_1" in text(report) and "h.1.ln_1" not in text(report, open="none")
    assert "h.2.mlp.c_fc" in text(report, open="all") and "h.2.mlp.c_fc" not in text(report)


def test_without_a_diagnosis_the_rows_alone_are_shown(trace: Trace) -> None:
    report = layer_report(patched(("1e-5", "1e-1")), trace)
    assert report.culprit is not None and report.own_errors
    alone = report_lines(report, diagnosis=False)
    assert "Start here" not in to_text(alone) and "Wrong by themselves" not in to_text(alone)
    assert "row_guilty" not in {line.kind for line in alone}
    rows = [line.cells for line in report_lines(report) if line.cells]
    assert rows == [line.cells for line in alone if line.cells]


def test_the_diagnosis_comes_first_and_the_columns_align(trace: Trace) -> None:
    shown = text(layer_report(patched(("1e-5", "1e-1")), trace), open="all").splitlines()
    assert shown[0].startswith("✗ Start here: `h.0.ln_1` (Norm): ")
    head = next(line for line in shown if "module" in line)
    table = [line for line in shown[shown.index(head) + 1 :] if line.startswith("[")]
    assert len(table) > 20
    number = r"(0|\d\.\de[+-]\d\d)"
    for line in table:
        assert re.fullmatch(
            rf"\[(OK|DIFF)\] +[\w.\[\]]+ +{number} +{number}(  (own error|error inside|inherited))?", line
        ), line
        assert line[: head.index("max") + 3][-1].isdigit() and line[: head.index("mean") + 4][-1].isdigit(), line


def test_one_row_alone_is_tinted_red_is_for_own_errors_and_grey_for_what_is_inherited(trace: Trace) -> None:
    report = layer_report(patched(("1e-5", "1e-1")), trace)
    lines = [line for line in report_lines(report, "all") if line.cells and line.kind != "head"]
    origins = {row.name: row.origin for row in report.rows}
    assert [line.cells[1].strip() for line in lines if line.kind == "row_guilty"] == ["h.0.ln_1"]
    for line in lines:
        if line.kind == "row_dim":
            assert origins[line.cells[1].strip()] in ("inherited", "error inside")
        if line.kind == "row_bad":
            assert origins[line.cells[1].strip()] == "own error"
    assert {line.kind for line in lines} >= {"row_ok", "row_dim", "row_bad", "row_guilty"}


def test_nan_wrong_shapes_and_wrong_dtypes_are_said_in_the_row(trace: Trace) -> None:
    nan = layer_report(patched(("torch.sqrt(var + 1e-5)", "torch.sqrt(var - 1e5)")), trace)
    assert row(nan, "h.0.ln_1").outcome.note == "NaN in 432 of 432 values"
    shape = layer_report(patched(("return x @ self.wte.weight.T", "return x")), trace)
    assert "[2, 9, 24], and should be [2, 9, 50]" in row(shape, "logits").outcome.note
    assert "n_embd" in row(shape, "logits").outcome.note
    dtype = layer_report(patched(("return x @ self.wte.weight.T", "return (x @ self.wte.weight.T).double()")), trace)
    assert row(dtype, "logits").outcome.note == "float64 instead of float32"


def test_after_an_error_the_rows_go_up_to_it_and_the_learners_lines_are_shown(trace: Trace) -> None:
    report = layer_report(patched(("x = x + self.mlp(", "x = x + self.mpl(")), trace)
    assert row(report, "h.0.attn").outcome.ok
    assert row(report, "h.0").outcome.note == "raised AttributeError"
    assert row(report, "logits").outcome.note == "not finished"
    assert not any(r.name.startswith("h.1") for r in report.rows)
    assert report.traceback[-1] == "AttributeError: 'Block' object has no attribute 'mpl'"
    assert len(report.traceback) == 3  # the model's forward, the block's, and the message: nothing of torch's
    assert "Never called" not in text(report)


def test_an_error_caused_by_an_earlier_module_is_not_blamed_on_the_one_that_raised_it(trace: Trace) -> None:
    report = layer_report(
        patched(("return self.c_proj(self.act(self.c_fc(x)))", "return self.act(self.c_fc(x))")), trace
    )
    assert row(report, "h.0").outcome.note == "raised RuntimeError"
    assert report.culprit is not None and report.culprit.path == "h.0.mlp"


def test_modules_of_one_side_are_listed_in_a_muted_line_and_layers_are_summed_up(trace: Trace) -> None:
    report = layer_report(patched(*OTHER_WAYS["functions in the place of modules"]), trace)
    assert report.one_sided == ("Only in the reference: h.*.mlp.act", "Never called by your model: h.*.attn.q_norm")
    assert [line.kind for line in report_lines(report)][-2:] == ["muted", "muted"]


def test_another_layout_is_noted(trace: Trace) -> None:
    report = layer_report(patched(*OTHER_WAYS["heads before time in the norm of the heads"]), trace)
    assert row(report, "h.0.attn.q_norm").outcome.note == "other layout, [2, 4, 9, 6] for [2, 9, 4, 6]"


def test_a_mistake_before_a_module_in_another_layout_is_not_blamed_on_it(trace: Trace) -> None:
    heads_first = OTHER_WAYS["heads before time in the norm of the heads"]
    report = layer_report(patched(*heads_first, ("1e-5", "1e-2")), trace)
    assert report.culprit is not None and report.culprit.path == "h.0.ln_1"
    assert row(report, "h.0.attn.q_norm").origin == "inherited"


def test_a_small_error_that_the_whole_hides_is_still_an_error(trace: Trace) -> None:
    """The block's tolerance is wide against a branch that adds little to it."""
    quiet = {n: t * 1e-4 if n.endswith("attn.c_proj.weight") else t for n, t in trace.weights.items()}
    quiet = {n: t * 0 if n.endswith("attn.c_proj.bias") else t for n, t in quiet.items()}
    model = patched()(Config(CONFIG))
    model.load_state_dict(quiet)
    with torch.no_grad():
        output, calls = record_calls(model, lambda: model(*trace.args))
    hushed = Trace(trace.build, quiet, trace.args, tuple(calls), output, trace.dtype)
    report = layer_report(patched(("+ 1e-6) * self.weight", "+ 1e-2) * self.weight")), hushed)
    assert row(report, "h.0").outcome.ok
    assert not report.ok
    assert report.culprit is not None and report.culprit.path == "h.0.attn.q_norm"


# Dtypes


def test_a_right_model_is_right_in_bfloat16_and_a_cast_in_the_wrong_place_is_found() -> None:
    trace = reference_trace(torch.bfloat16)
    assert layer_report(patched(), trace).ok
    wider = layer_report(patched(("        mean = x.mean(", "        x = x.float()\n        mean = x.mean(")), trace)
    assert wider.culprit is not None and wider.culprit.path == "h.0.ln_1"
    assert row(wider, "h.0.ln_1").outcome.note == "float32 instead of bfloat16"


@pytest.mark.parametrize("mistake", ["norm: bias forgotten", "attention: not scaled", "block: mlp without its norm"])
def test_mistakes_are_found_in_bfloat16(mistake: str) -> None:
    culprit, find, replace = MISTAKES[mistake]
    report = layer_report(patched((find, replace)), reference_trace(torch.bfloat16))
    assert report.culprit is not None and report.culprit.path == culprit


# What it takes, and what it leaves alone


def test_an_instance_is_compared_as_a_copy_and_left_as_it_was(trace: Trace) -> None:
    model = patched()(Config(CONFIG)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    assert layer_report(model, trace).ok
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_weights_that_do_not_fit_are_named_with_the_closest_name(trace: Trace) -> None:
    with pytest.raises(GraderError, match=r"did you mean `h\.\*\.attn\.c_attn\.weight`"):
        layer_report(
            patched(("self.c_attn = nn", "self.c_atn = nn"), ("self.c_attn(x).split", "self.c_atn(x).split")), trace
        )
    with pytest.raises(GraderError, match=r"`wpe\.weight` has shape \[17, 24\]"):
        layer_report(patched(("nn.Embedding(config.n_positions,", "nn.Embedding(config.n_positions + 1,")), trace)


def test_an_instance_of_another_size_is_told_from_a_class_that_does_not_fit(trace: Trace) -> None:
    large = CONFIG | {"n_embd": 48, "n_layer": 12}
    with pytest.raises(GraderError) as error:
        layer_report(patched()(Config(large)), trace)
    assert str(error.value).count("\n") == 0 and len(str(error.value)) < 200
    assert "another config" in str(error.value) and "compare_layers(Model)" in str(error.value)
    wrong = patched(("nn.Embedding(config.n_positions,", "nn.Embedding(config.n_positions + 1,"))
    with pytest.raises(GraderError, match=r"`wpe\.weight` has shape \[17, 24\]"):
        layer_report(wrong(Config(CONFIG)), trace)


def test_a_model_that_can_not_be_built_is_a_clear_error(trace: Trace) -> None:
    with pytest.raises(GraderError, match="Model can't be compared") as raised:
        layer_report(patched(("self.ln_f = Norm(config.n_embd)", "self.ln_f = Norm(config.n_embed)")), trace)
    assert "did you mean `n_embd`" in str(raised.value)


@pytest.mark.parametrize("thing", [None, "model", torch.zeros(2), int, lambda x: x])
def test_anything_else_than_a_model_is_a_clear_error(trace: Trace, thing: Any) -> None:
    with pytest.raises(GraderError, match=r"compare_layers needs an nn\.Module"):
        layer_report(thing, trace)


def test_compare_layers_shows_the_report_and_raises_without_a_traceback(
    trace: Trace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    assert compare_layers(patched(), trace) is None  # type: ignore[func-returns-value]
    assert capsys.readouterr().out.startswith("✓ All ")
    wrong = patched(("1e-5", "1e-1"))
    with pytest.raises(CheckFailed):
        compare_layers(wrong, trace)
    shown = capsys.readouterr()
    assert "Start here: `h.0.ln_1` (Norm)" in shown.out
    assert shown.err == ""
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    assert compare_layers(wrong, trace) is None  # type: ignore[func-returns-value]


def test_the_report_is_html_in_a_notebook(trace: Trace) -> None:
    page = to_html(report_lines(layer_report(patched(("1e-5", "1e-1")), trace)))
    assert "Start here: <code>h.0.ln_1</code> (Norm)" in page


def test_without_a_recording_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("grader.checks.check._STARTED_IN", tmp_path)
    with pytest.raises(GraderError, match=r"reference\.safetensors"):
        compare_layers(patched())


# Other shapes of models


def test_a_net_without_blocks_shows_every_row() -> None:
    def net(hidden: nn.Module) -> nn.Sequential:
        return nn.Sequential(nn.Linear(4, 8), hidden, nn.Linear(8, 2))

    trace = trace_with(net(nn.Tanh()), (Draw("net").normal(3, 4),), {})
    assert [r.name for r in layer_report(net(nn.Tanh()), trace).rows] == ["0", "1", "2", "output"]
    report = layer_report(net(nn.ReLU()), trace)
    assert report.culprit is not None and report.culprit.path == "1"
    assert "Start here: `1` (ReLU)" in text(report)


def test_blocks_inside_a_wrapper_or_a_sequential_are_still_blocks() -> None:
    class Layer(nn.Module):
        def __init__(self, act: nn.Module) -> None:
            super().__init__()
            self.parts = nn.ModuleDict({"up": nn.Linear(4, 8), "act": act, "down": nn.Linear(8, 4)})

        def forward(self, x: Tensor) -> tuple[Tensor, None]:
            return x + self.parts["down"](self.parts["act"](self.parts["up"](x))), None

    class Body(nn.Module):
        def __init__(self, acts: list[nn.Module]) -> None:
            super().__init__()
            self.layers = nn.ModuleList([Layer(act) for act in acts])

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = layer(x)[0]
            return x

    class Whole(nn.Module):
        def __init__(self, *acts: nn.Module) -> None:
            super().__init__()
            self.model = Body(list(acts))
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.model(x))

    trace = trace_with(Whole(nn.Tanh(), nn.Tanh()), (Draw("net").normal(3, 4),), {})
    report = layer_report(Whole(nn.Tanh(), nn.ReLU()), trace)
    assert report.culprit is not None and report.culprit.path == "model.layers.1.parts.act"
    shown = [" ".join(line.split()[:2]) for line in rows_of(report, open="none")]
    assert shown == ["[DIFF] model", "[OK] model.layers.0", "[DIFF] model.layers.1", "[DIFF] head", "[DIFF] output"]
    assert "model.layers.1.parts.up" in text(report) and "model.layers.0.parts.up" not in text(report)


# Against transformers


def gpt2() -> Any:
    """transformers' GPT2LMHeadModel, a class with the same modules and no prefix, and a trace for it."""
    transformers = pytest.importorskip("transformers")

    class GPT2(transformers.GPT2Model):  # type: ignore[misc,name-defined]
        def __init__(self, config: Any) -> None:
            super().__init__(transformers.GPT2Config(**config, attn_implementation="eager", use_cache=False))

        def forward(self, ids: Tensor) -> Tensor:
            return super().forward(ids).last_hidden_state @ self.wte.weight.T

    sizes = {"vocab_size": 60, "n_positions": 16, "n_embd": 32, "n_layer": 3, "n_head": 4}
    config = transformers.GPT2Config(**sizes, attn_implementation="eager", use_cache=False)
    reference = transformers.GPT2LMHeadModel(config)
    random_weights(reference, Draw("gpt2"))

    def renamed(name: str) -> str | None:
        short = name.removeprefix("transformer.")
        return None if short.startswith(("lm_head", "transformer")) or "drop" in short else short

    ids = Draw("ids").tokens(60, 2, 7)
    return GPT2, trace_of(reference, ids, build={"config": sizes}, renamed=renamed)


def test_transformers_gpt2_is_right_and_names_without_a_counterpart_are_muted() -> None:
    model, trace = gpt2()
    report = layer_report(model, trace)
    assert report.ok, text(report)
    assert rows_of(report, open="none")[:7] == [
        f"[OK] {name} 0 0" for name in ("wte", "wpe", "h.0", "h.1", "h.2", "ln_f", "logits")
    ]
    assert report.one_sided == (
        "Only in your model: drop, h.*.attn.attn_dropout, h.*.attn.resid_dropout, h.*.mlp.dropout",
    )


def test_a_mistake_in_any_module_of_transformers_gpt2_is_named() -> None:
    model, trace = gpt2()
    for path in ["", *dict.fromkeys(call.path for call in trace.calls)]:
        report = layer_report(scaled_in(model, path), trace)
        assert report.culprit is not None and report.culprit.path == path, f"{path}\n{text(report, open='all')}"
