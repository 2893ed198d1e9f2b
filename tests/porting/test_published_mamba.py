"""A Mamba as published code has it: the residual apart, matrices used without a call, the state's size in the code."""

import sys
from functools import cache
from types import ModuleType

import pytest
from own_ports import COMMON
from small_references import small

from grader.layers.wording import report_lines
from grader.porting.comparing import port_report
from grader.porting.own_names.loading import OwnNames
from grader.porting.reference import Reference
from grader.porting.report import PortReport
from grader.report import to_text

pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("small_references")
CONFIG = {
    **{"model_type": "mamba", "vocab_size": 50280, "hidden_size": 768, "num_hidden_layers": 24, "state_size": 16},
    **{"conv_kernel": 4, "expand": 2, "intermediate_size": 1536, "time_step_rank": 48, "use_bias": False},
    **{"use_conv_bias": True, "hidden_act": "silu", "tie_word_embeddings": True, "layer_norm_epsilon": 1e-5},
}
SOURCE = """
STATE = 16


def selective_scan(x, dt, A, B, C, D, z):
    y, state = [], 0.0
    for t in range(x.shape[-1]):
        state = torch.exp(dt[:, :, t, None] * A) * state + (dt * x)[:, :, t, None] * B[:, None, t]
        y.append((state * C[:, None, t]).sum(-1))
    return (torch.stack(y, -1) + D[:, None] * x) * F.silu(z)


class Mixer(nn.Module):
    def __init__(self, dim):
        super().__init__()
        inner, self.rank = 2 * dim, -(-dim // 16)
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, 4, groups=inner, padding=3)
        self.x_proj = nn.Linear(inner, self.rank + 2 * STATE, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner)
        self.A_log, self.D = nn.Parameter(torch.zeros(inner, STATE)), nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, u):
        x, z = (self.in_proj.weight @ u.mT).chunk(2, dim=1)
        x = F.silu(self.conv1d(x)[..., : u.shape[1]])
        dt, B, C = self.x_proj(x.mT.flatten(0, 1)).split((self.rank, STATE, STATE), dim=-1)
        dt = F.softplus(self.dt_proj.weight @ dt.unflatten(0, (len(u), -1)).mT + self.dt_proj.bias[:, None])
        B, C = B.unflatten(0, (len(u), -1)), C.unflatten(0, (len(u), -1))
        y = selective_scan(x, dt, -torch.exp(self.A_log), B, C, self.D, z)
        return self.out_proj(y.mT)


class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm, self.mixer = RMSNorm(dim, 1e-5), Mixer(dim)

    def forward(self, x, residual):
        residual = x if residual is None else x + residual
        return self.mixer(self.norm(residual)), residual


class Backbone(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embedding = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Block(c.hidden_size) for _ in range(c.num_hidden_layers))
        self.norm_f = RMSNorm(c.hidden_size, 1e-5)

    def forward(self, ids):
        x, residual = self.embedding(ids), None
        for layer in self.layers:
            x, residual = layer(x, residual)
        return self.norm_f(x + residual)


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.backbone = Backbone(c)
        self.lm_head = nn.Linear(c.hidden_size, c.vocab_size, bias=False)
        self.lm_head.weight = self.backbone.embedding.weight

    def forward(self, ids):
        return self.lm_head(self.backbone(ids))
"""
BUGS = {
    "B and C swapped": (("dt, B, C = self", "dt, C, B = self"), "backbone.layers.0.mixer:scan"),
    "A as it is": (("-torch.exp(self.A_log)", "-self.A_log"), "backbone.layers.0.mixer:scan"),
    "no bias of dt": ((" + self.dt_proj.bias[:, None]", ""), "backbone.layers.0.mixer:scan"),
    "norm of the branch alone": (("self.norm(residual)", "self.norm(x)"), "backbone.layers.1"),
    "a residual is lost": (("else x + residual", "else x"), "backbone.layers.1"),
    "another epsilon": (("self.norm, self.mixer = RMSNorm(dim, 1e-5)", "self.norm, self.mixer = RMSNorm(dim, 1e-3)"),
                        "backbone.layers.0.norm"),
    "the last residual is left out": (("self.norm_f(x + residual)", "self.norm_f(x)"), "backbone"),
}  # fmt: skip


@cache
def reference() -> Reference:
    return small(CONFIG)


def report_of(*changes: tuple[str, str]) -> PortReport:
    source = COMMON + SOURCE
    for old, new in changes:
        assert old in source
        source = source.replace(old, new)
    sys.modules["published_mamba"] = module = ModuleType("published_mamba")
    exec(compile(source, "published_mamba.py", "exec"), vars(module))
    return port_report(vars(module)["Model"], reference().trace, OwnNames())


def text(report: PortReport) -> str:
    return to_text(report_lines(report, "all"))


def test_a_right_program_with_the_published_state_in_its_code_is_right() -> None:
    report = report_of()
    assert report.ok, text(report)
    assert "a small reference with state_size 16 for 8" in text(report)


def test_its_head_is_the_references_and_no_projection_of_a_layer() -> None:
    assert "lm_head" in [row.name for row in report_of().rows]


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_is_named_where_it_is(bug: str) -> None:
    change, where = BUGS[bug]
    report = report_of(change)
    assert report.culprit is not None and report.culprit.path == where, text(report)


def test_a_matrix_that_is_used_without_a_call_is_no_reason() -> None:
    assert "is never called" not in text(report_of(BUGS["B and C swapped"][0]))
    unused = ("(self.in_proj.weight @ u.mT)", "torch.cat((u, u, u, u), -1).mT")
    assert "`backbone.layers.0.mixer.in_proj` is never called" in text(report_of(unused))


def test_what_a_step_is_made_of_is_looked_for_in_any_layout() -> None:
    said = text(report_of(("F.silu(self.conv1d(x)[..., : u.shape[1]])", "self.conv1d(x)[..., : u.shape[1]]")))
    assert "Look before `backbone.layers.0.mixer.x_proj`" in said, said
