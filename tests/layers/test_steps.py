"""Steps inside a module that a program names, functions that are steps, and arguments that are not the reference's."""

import sys
import types
from functools import cache, partial
from typing import Any

import pytest
import torch
from own_ports import CONFIGS, program
from small_references import small
from torch import Tensor, nn

import grader
from grader.calls import record_calls, watch
from grader.layers.arguments import of_masks, of_tables
from grader.layers.debugger import layer_report
from grader.layers.rows import LayerReport
from grader.layers.wording import report_lines
from grader.porting.comparing import program_report
from grader.porting.reference import Reference
from grader.report import to_text
from grader.steps import functions_as_steps, step

pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("small_references")


@cache
def reference(family: str) -> Reference:
    return small(CONFIGS[family])


def compared(family: str, *changes: tuple[str, str]) -> LayerReport:
    return program_report(program(family, *changes), reference(family).trace)


def text(report: LayerReport) -> str:
    return to_text(report_lines(report, "all"))


# Naming a step


class Doubling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        first, second = step("rotated", x, x + 1)
        return step("double", first * 2) + second


def test_a_step_gives_back_what_it_is_given_and_notes_nothing_by_itself() -> None:
    x = torch.ones(2)
    assert step("any", x) is x and step("any", x, 3) == (x, 3)
    assert grader.step is step
    outer = nn.Sequential(Doubling())
    returned, calls = record_calls(outer, lambda: outer(x))
    assert torch.equal(returned, 2 * x + x + 1)
    assert [(call.path, call.index) for call in calls] == [("0", 0), ("0:rope", 0), ("0:rope", 1), ("0:double", 0)]
    assert torch.equal(calls[2].output, x + 1) and calls[1].type == "Step"  # type: ignore[arg-type]
    assert [call.path for call in record_calls(outer, lambda: outer(x), ["0"])[1]] == ["0"]
    assert [call.path for call in watch(outer, lambda: outer(x), {"0"})[0]] == ["", "0"]


def test_the_references_functions_are_steps() -> None:
    paths = [call.path for call in reference("Qwen3").trace.calls if call.path.startswith("model.layers.0.self_attn:")]
    steps = [path.partition(":")[2] for path in paths]
    assert steps == ["rope", "rope", "weights", "attention"]


def test_functions_are_put_back() -> None:
    model = reference("Qwen3").model
    home = sys.modules[type(model).__module__]
    before = home.apply_rotary_pos_emb
    with functions_as_steps(model):
        assert home.apply_rotary_pos_emb is not before
    assert home.apply_rotary_pos_emb is before


TURNING = """
from torch import nn


def apply_rope(x):
    return 2 * x


class Turning(nn.Module):
    def forward(self, x):
        return apply_rope(x)
"""


def test_functions_are_those_of_the_file_that_was_loaded_and_not_of_a_later_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = types.ModuleType("turning"), types.ModuleType("turning")
    for module in (first, second):
        monkeypatch.setitem(sys.modules, "turning", module)
        exec(TURNING, module.__dict__)
    for module in (first, second):
        outer = nn.Sequential(module.Turning())
        with functions_as_steps(outer):
            calls = record_calls(outer, partial(outer, torch.ones(2)))[1]
        assert [call.path for call in calls] == ["0", "0:rope"]


# In a program

IMPORT = ("import torch\nfrom torch import nn", "import torch\nfrom grader import step\nfrom torch import nn")
TURNED = "q, k = turn_halves(self.norm_a(q), angle), turn_halves(self.norm_b(k), angle)"
NAMED = (TURNED, f"{TURNED}\n        q, k = step('rope', q, k)")
TURN = "(a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin())"
SCORES = ("scores = (q @ k.mT * scale).masked_fill", "scores = (q @ k.mT * scale * 1.05).masked_fill")
IN_THE_FIRST = (  # a wrong scale
    ("self.head_dim**-0.5))", "self.head_dim**-0.5 * self.factor))"),
    ("self.head_dim = c.head_dim", "self.head_dim, self.factor = c.head_dim, 1.0"),
    ("self.ln_f =", "self.decoder[0].gqa.factor = 1.05\n        self.ln_f ="),
)
WEIGHTS = (
    "return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)",
    "p = step('probs', scores.softmax(-1))\n    return step('attention', (p @ v).transpose(1, 2)).flatten(2)",
)


def test_steps_that_a_program_names_are_compared() -> None:
    report = compared("Qwen3", IMPORT, NAMED, WEIGHTS)
    assert report.ok, text(report)
    rows = [row.name for row in report.rows if row.name.startswith("decoder.0.gqa:")]
    assert rows == [f"decoder.0.gqa:{name}" for name in ("rope[0]", "rope[1]", "weights", "attention")]


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ((f"return torch.cat({TURN}", f"return torch.cat({TURN.replace(' + ', ' - ')}"), "rope"),
        (SCORES, "weights"),
        (("(p @ v).transpose(1, 2))", "(p @ v.flip(1)).transpose(1, 2))"), "attention"),
    ],
)
def test_the_first_wrong_step_is_the_culprit(change: tuple[str, str], culprit: str) -> None:
    changes = [IMPORT, NAMED, WEIGHTS]
    if culprit == "attention":
        changes[2] = (WEIGHTS[0], WEIGHTS[1].replace(*change))
    else:
        changes.append(change)
    report = compared("Qwen3", *changes)
    assert report.culprit is not None and report.culprit.path == f"decoder.0.gqa:{culprit}", text(report)
    assert "which is right" in report.culprit.reasons[0]


def test_without_names_the_module_is_the_culprit() -> None:
    report = compared("Qwen3", SCORES)
    assert report.culprit is not None and report.culprit.path == "decoder.0.gqa", text(report)


def test_a_step_elsewhere_in_a_right_program_is_a_way_of_its_own() -> None:
    report = compared("Qwen3", IMPORT, (TURNED, f"q, k = step('rope', q, k)\n        {TURNED}"))
    assert report.ok and "another way" in text(report)


def test_a_step_in_a_form_that_is_right_in_another_layer_is_not_blamed_for_its_shape() -> None:
    of_a_part = (TURNED, f"{TURNED}\n        step('rope', q[..., ::2], k[..., ::2])")
    assert compared("Qwen3", IMPORT, of_a_part).ok
    report = compared("Qwen3", IMPORT, of_a_part, *IN_THE_FIRST)
    assert report.culprit is not None and report.culprit.path == "decoder.0.gqa", text(report)
    assert "rope" not in report.culprit.reasons[0] and "the shape is" not in "".join(report.culprit.reasons)


def test_a_step_that_the_reference_has_not_is_said() -> None:
    report = compared("Qwen3", IMPORT, (TURNED, f"{TURNED}\n        step('thought', q)"))
    assert report.ok and "Steps that the reference has not: decoder.*.gqa:thought" in text(report)


# What a module is handed


def said(report: LayerReport) -> str:
    assert report.culprit is not None, text(report)
    return " ".join(report.culprit.reasons)


def window(**values: int) -> Any:
    import copy

    def plant(model: Any) -> Any:
        other = copy.deepcopy(model)
        for name, value in values.items():
            setattr(other.config, name, getattr(other.config, name) + value)
        return other

    return plant


@pytest.mark.parametrize(("by", "words"), [(1, "reaches one token too far back"), (-2, "reaches 2 tokens too short")])
def test_a_mask_is_told_in_tokens(by: int, words: str) -> None:
    found = reference("Gemma 3")
    report = layer_report(window(sliding_window=by)(found.model), found.trace)
    assert f"`model.layers.0` is handed a `attention_mask` that {words}" in said(report), text(report)


def test_tables_that_are_mixed_up_are_told() -> None:
    import copy

    found = reference("Gemma 3")
    mixed: Any = copy.deepcopy(found.model)
    mixed.config.layer_types = ["full_attention", "sliding_attention"]
    words = said(layer_report(mixed, found.trace))
    assert "that the reference hands to full attention layers, and it is one of the sliding attention layers" in words


def test_a_table_of_other_positions_and_a_scaled_one_are_told() -> None:
    table = torch.randn(1, 9, 6, generator=torch.Generator().manual_seed(0))
    assert of_tables(table[:, 2:], table[:, :-2]) == "is that of positions 2 later"
    assert of_tables(table[:, :-1], table[:, 1:]) == "is that of positions 1 earlier"
    assert of_tables(table * 1.25, table) == "is 1.25 times the reference's"
    assert of_tables(table.flip(1), table) == ""


def test_masks_are_told_in_words() -> None:
    blocked = ~torch.ones(6, 6, dtype=torch.bool).tril()
    assert of_masks(blocked.tril(1), blocked) == "lets tokens see later ones"
    padded = blocked.clone()
    padded[:, :2] = True
    assert of_masks(blocked, padded) == "lets tokens see what the reference's hides, as padding"
    assert of_masks(blocked | torch.eye(6, dtype=torch.bool), blocked) == "keeps tokens from themselves"


def test_a_programs_own_mask_is_told_too() -> None:
    start = "def forward(self, x, angle):\n        q, k, v = (heads_of(t"
    allowed = "torch.ones(len(local), len(local), dtype=torch.bool).tril(1).triu(-4 if self.sliding else -99)"
    own = [
        (start, start.replace("angle)", "angle, attention_mask)")),
        ("attend(q, k, v, self.scale, self.window)", "attend(q, k, v, self.scale, attention_mask)"),
        ("allowed = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()", "allowed = window"),
        ("    allowed = allowed.triu(1 - window) if window else allowed\n", ""),
        ("local if self.sliding else everywhere)", f"local if self.sliding else everywhere, {allowed})"),
    ]
    words = said(compared("Gemma 3", *own))
    assert "`blocks.0.attn` is handed a `attention_mask` that lets tokens see later ones" in words, words
