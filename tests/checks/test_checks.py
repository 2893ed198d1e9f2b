"""What a learner is told: right answers, wrong ones of every kind, and input that is no answer at all."""

import dataclasses
import math
import pdb
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from recorded import recorded, recording_of
from safetensors.torch import save_file
from torch import Tensor, nn
from toy_course import write_course

from grader import check
from grader.authoring.recorder import record, record_exercise
from grader.checks.examine import InProcess, examine, examine_here
from grader.checks.judge.diagnose import Context, describe
from grader.checks.judge.verdict import Verdict
from grader.checks.judge.wording import report, summary
from grader.checks.probe.running import unseen
from grader.checks.probe.values import canonical
from grader.config import Config
from grader.errors import CheckFailed, RecordingError
from grader.lessons.exercise import Case, Exercise
from grader.lessons.lesson import Lesson
from grader.names import TIED, explain_names
from grader.recordings.answers import MistakeAnswer, part_inputs
from grader.recordings.codec import Encoder
from grader.recordings.format import FORMAT
from grader.recordings.recording import Recording, encoded_exercise
from grader.report import to_html, to_text
from grader.tolerance import BY_DTYPE, ROUNDED_ONCE, agree, wrong_values

ROOT = Path(__file__).resolve().parents[2]
GPT2 = ROOT / "solutions" / "01-gpt2" / "reference.safetensors"
SOLUTIONS = Lesson(GPT2.parent).namespace()


def layer_norm_exercise(points: int = 4) -> Exercise:
    return Exercise(
        name="toy.layer_norm",
        solution="LayerNorm",
        reference=lambda dim: nn.LayerNorm(dim, eps=1e-5),
        points=points,
        axes="B T D",
        sizes=lambda build: {"D": build["dim"]},
        cases=[
            Case("ordinary inputs", lambda draw: [draw.normal(2, 5, 12)], {"dim": 12}),
            Case("as many tokens as values", lambda draw: [draw.normal(2, 12, 12)], {"dim": 12}),
        ],
    )


class LayerNorm(nn.Module):
    """A right one, for wrong ones to differ from."""

    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Any:
        centred = x - x.mean(-1, keepdim=True)
        return centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + 1e-5) * self.weight + self.bias


def verdict_on(target: Any) -> Verdict:
    return examine_here(recorded(layer_norm_exercise()), "toy.layer_norm", target)


def text_on(target: Any) -> str:
    return to_text(report(verdict_on(target)))


def changed(forward: Callable[[LayerNorm, Tensor], Any]) -> type[LayerNorm]:
    """The right LayerNorm with another forward."""
    return type("LayerNorm", (LayerNorm,), {"forward": forward})


def right(module: LayerNorm, x: Tensor) -> Tensor:
    return LayerNorm.forward(module, x)  # type: ignore[no-any-return]


def test_another_order_of_operations_passes_and_only_bit_equality_gets_the_badge() -> None:
    assert verdict_on(LayerNorm).right
    assert "bit-exact" not in text_on(LayerNorm) or verdict_on(LayerNorm).exact
    exact = text_on(changed(lambda self, x: F.layer_norm(x, x.shape[-1:], self.weight, self.bias, 1e-5)))
    assert exact == "✓ toy.layer_norm · 2 of 2 cases right, bit-exact"


def test_points_are_split_between_the_cases() -> None:
    half = verdict_on(changed(lambda self, x: right(self, x) if x.shape[1] == 5 else x))
    assert not half.right
    assert half.points == 2
    assert "1 of 2 cases right" in to_text(report(half))
    assert summary(half)["passed"] is False


def lossy(module: LayerNorm, x: Tensor) -> Tensor:
    x += 0.0
    x *= 2.0
    return right(module, x / 2)


@pytest.mark.parametrize(
    ("forward", "told"),
    [
        (lambda self, x: right(self, x) * 0.25, "Every value is 0.25 times what it should be"),
        (lambda self, x: right(self, x) / math.sqrt(12), "that is 1/√D"),
        (lambda self, x: -right(self, x), "that is the wrong sign"),
        (lambda self, x: right(self, x) + 1.5, "off by the same +1.5"),
        (lambda self, x: right(self, x) - self.bias, "every position is off by the same vector"),
        (lambda self, x: x, "the output is the input, unchanged"),
        (lambda self, x: right(self, x) + x, "a residual connection is doubled"),
        (lambda self, x: right(self, x) - x, "a residual connection is missing"),
        (lambda self, x: right(self, x).roll(1, dims=1), "shifted right by one"),
        (lambda self, x: right(self, x).roll(-1, dims=1), "shifted left by one"),
        (lambda self, x: right(self, x).roll(6, dims=-1), "the two halves of the last axis are swapped"),
        (lambda self, x: right(self, x).flip(-1), "along D they are in reverse"),
        (lambda self, x: right(self, x).transpose(1, 2), "the axes are in the order B, D, T; the values are right"),
        (lambda self, x: right(self, x)[:, :-1], "axis T has 4 entries instead of 5"),
        (lambda self, x: right(self, x).flatten(1), "axes are merged"),
        (lambda self, x: right(self, x)[None], "only an axis of size 1 is too many"),
        (lambda self, x: right(self, x).double(), "the dtype is float64, and should be float32; the values are right"),
        (lambda self, x: torch.cat([right(self, x)[:, :3], x[:, 3:]], 1), "wrong at index 3 and later of T"),
        (lambda self, x: torch.cat([right(self, x)[:1], x[1:]]), "wrong at index 1 of B"),
        (lossy, "the input `x` was modified in place"),
        (lambda self, x: right(self, x) + torch.rand(()), "gives another output in a second run"),
        (lambda self, x: F.dropout(right(self, x), 0.5), "gives another output in a second run"),
        (lambda self, x: right(self, x.detach()), "no gradient reaches the input"),
        (lambda self, x: F.layer_norm(x, x.shape[-1:], self.weight, self.bias.data), "no gradient reaches `bias`"),
        (lambda self, x: right(self, x) + torch.log(-x.abs()), "NaN in the output; it first appears in line"),
        (lambda self, x: (right(self, x), None), "forward returned a tuple, where a tensor belongs"),
        (lambda self, x: right(self, x).detach().numpy(), "forward returned a NumPy array"),
        (lambda self, x: print(end=""), "forward returned None"),
        (lambda self, x: right(self, x).to("meta"), "the input is on the cpu, and the output on meta"),
        (lambda self, x: self.wait(x), "'LayerNorm' object has no attribute 'wait'"),
    ],
)
def test_a_wrong_output_is_described(forward: Callable[[LayerNorm, Tensor], Any], told: str) -> None:
    verdict = verdict_on(changed(forward))
    text = to_text(report(verdict))
    assert not verdict.right
    assert told.lower() in text.lower(), text


def test_a_factor_near_1_is_told_with_its_digits() -> None:
    want = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(1))
    assert "every value is 1.00022 times" in str(describe(want * 1.00022, want, Context()))


def test_one_wrong_value_gathers_along_no_axis() -> None:
    want = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(1))
    got = want.clone()
    got[0, 3, 2] += 1
    assert describe(got, want, Context(("B", "T", "D"))) is None
    got[0, 3, 3] += 1
    assert "wrong at index 0 of B" in str(describe(got, want, Context(("B", "T", "D"))))


def test_where_too_many_values_are_rounded_otherwise_they_all_count() -> None:
    """And not only the one among them that is further off than the others."""
    want = torch.ones(100).bfloat16()
    got = want.clone()
    got[:50] += 2**-7
    got[7] = 1.5
    assert wrong_values(got, want, ROUNDED_ONCE).sum() == 50
    got[8:50] = 1.0
    got[:7] = 1.0
    assert wrong_values(got, want, ROUNDED_ONCE).nonzero().tolist() == [[7]]


def test_all_the_fields_of_a_config_are_listed_once() -> None:
    class Lost(nn.Module):
        def __init__(self, config: Any):
            super().__init__()
            self.linear = nn.Linear(config.width, config.breadth)

    cases = [Case(str(n), lambda draw: [draw.normal(3, 4)], {"config": {"width": n, "height": 5}}) for n in (4, 6)]
    cases[1] = dataclasses.replace(cases[1], build={"config": {"width": 4, "height": 5, "depth": 6}})
    exercise = Exercise("toy.lost", "Lost", lambda config: nn.Linear(config.width, 5), cases)
    text = to_text(report(examine_here(recorded(exercise), "toy.lost", Lost)))
    assert text.count("this config has no field `breadth`") == 2
    assert text.count("it has: ") == 1


def test_asking_whether_a_config_has_a_field_words_no_complaint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sought among the fields for every one of a model's layers, a close match makes a calculator slow."""
    monkeypatch.setattr(Config, "_complaint", lambda config, name: pytest.fail("worded"))
    config = Config({"height": 5})
    assert config.get("heigth") is None and config.get("heigth", 3) == 3 and "heigth" not in config
    assert config.get("height") == 5 and "height" in config


def test_a_module_of_another_kind_is_not_taken_for_misspelt_parts() -> None:
    own = {f"layers.{i}.mlp.{name}_proj.weight": (14, 24) for i in range(2) for name in ("gate", "up")}
    wanted = {f"layers.{i}.mlp.gate.weight": torch.zeros(7, 24) for i in range(2)}
    assert explain_names(own, wanted, list(own)) == [
        "`layers.*.mlp.gate_proj.weight` is not in the checkpoint",
        "`layers.*.mlp.up_proj.weight` is not in the checkpoint",
        "`layers.*.mlp.gate.weight` [7, 24] is in the checkpoint, and missing here",
    ]


def test_a_name_of_another_layer_is_not_what_is_meant() -> None:
    own, wanted = {"layers.0.mlp.up.weight": (5, 4)}, {"layers.1.mlp.up.weight": torch.zeros(5, 4)}
    lines = explain_names(own, wanted, list(own))
    assert lines[0] == "`layers.0.mlp.up.weight` is not in the checkpoint" and len(lines) == 2


def test_a_misspelt_name_is_known_by_its_sizes_in_any_order() -> None:
    (line,) = explain_names({"h.0.mlp.up_poj": (4, 5)}, {"h.0.mlp.up_proj": torch.zeros(5, 4)}, ["h.0.mlp.up_poj"])
    assert line == "`h.0.mlp.up_poj` is not in the checkpoint; did you mean `h.0.mlp.up_proj`?"


def test_a_head_that_no_checkpoint_has_is_asked_about() -> None:
    lines = explain_names({"lm_head.weight": (5, 4)}, {}, ["lm_head.weight"])
    assert lines == [f"`lm_head.weight` is not in the checkpoint{TIED}"]


def test_a_square_transposition_is_described() -> None:
    square = changed(lambda self, x: right(self, x).transpose(1, 2) if x.shape[1] == 12 else right(self, x))
    assert "T and D are swapped: the result is transposed" in text_on(square)


def test_permuted_and_interleaved_heads_are_described() -> None:
    want = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(1))
    context = Context(("B", "T", "D"), {"head_dim": 3})
    heads = want.view(2, 5, 4, 3)
    assert "in the order [1, 0, 2, 3]" in str(describe(heads[:, :, [1, 0, 2, 3]].flatten(2), want, context))
    assert "interleaved" in str(describe(heads.transpose(2, 3).flatten(2), want, context))
    unmerged = heads.transpose(1, 2).reshape(2, 5, 12)
    assert "without swapping T and the heads" in str(describe(unmerged, want, context))


def test_an_unknown_error_is_shown_without_a_diagnosis() -> None:
    noise = torch.randn(1, 1, 12, generator=torch.Generator().manual_seed(2))
    text = text_on(changed(lambda self, x: right(self, x) * noise + x.square()))
    assert "It matches no known mistake." in text
    assert re.search(r"✗  ordinary inputs +all 120 +\d", text)


def test_an_exception_shows_the_learners_lines_only() -> None:
    text = text_on(changed(lambda self, x: self.weight @ x @ x))
    assert "RuntimeError" in text
    assert "grader/" not in text and "site-packages" not in text


class WithMisspeltParameter(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.wieght = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.ones(1, dim))


class Unwritten(LayerNorm):
    def __init__(self, dim: int):
        super().__init__(dim)
        raise NotImplementedError()


class WithBuffer(LayerNorm):
    def __init__(self, dim: int):
        super().__init__(dim)
        self.register_buffer("mask", torch.ones(dim))


def test_parameters_that_no_checkpoint_has_are_named() -> None:
    text = text_on(WithMisspeltParameter)
    assert "`wieght` is not in the checkpoint; did you mean `weight`?" in text
    assert "`bias` has shape [1, 12]; in the checkpoint it is [12]" in text


def test_a_buffer_of_ones_own_passes_with_a_remark() -> None:
    verdict = verdict_on(WithBuffer)
    assert verdict.right
    assert "persistent=False" in to_text(report(verdict))


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (LayerNorm(12), 'already built; hand over the class: check("toy.layer_norm", LayerNorm), without calling it'),
        (None, "check was given None, but needs a class"),
        (F.layer_norm, "check was given the function layer_norm, but needs a class"),
        (np.zeros(3), "check was given a NumPy array"),
        (dict, "the class dict is no nn.Module"),
        (Unwritten, "`Unwritten.__init__` is not written yet: replace `raise NotImplementedError()`"),
        (changed(lambda self: None), "takes 1 positional argument but 2 were given"),  # type: ignore[arg-type, misc]
    ],
)
def test_what_is_no_answer_gets_a_clear_message(target: Any, told: str) -> None:
    verdict = verdict_on(target)
    assert not verdict.right
    assert told.lower() in to_text(report(verdict)).lower()


def test_one_reason_for_all_cases_is_said_once() -> None:
    assert text_on(Unwritten).count("not written yet") == 1


def test_warnings_become_remarks_and_nothing_is_written_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    def forward(self: LayerNorm, x: Tensor) -> Tensor:
        warnings.warn("this is deprecated", stacklevel=1)
        return right(self, x)

    verdict = verdict_on(changed(forward))
    assert verdict.right
    assert "warning: this is deprecated" in to_text(report(verdict))
    assert capfd.readouterr().err == ""


def test_html_and_text_say_the_same() -> None:
    lines = report(verdict_on(changed(lambda self, x: x)))
    html = to_html(lines)
    assert "the input, unchanged" in html
    assert "<script" not in to_html(report(verdict_on(changed(lambda self, x: self.__getattr__("<script>")))))


def test_functions_give_numbers_and_lists_and_generators_that_end() -> None:
    assert canonical(3).dtype == torch.int64
    assert canonical(iter([1, 2])).tolist() == [1, 2]
    assert canonical([torch.tensor(4), 5]).tolist() == [4, 5]
    seven = recorded(Exercise("toy.f", "f", lambda: 7, [Case("no input", lambda draw: [])], function=True))

    def told(function: Any) -> str:
        return to_text(report(examine_here(seven, "toy.f", function)))

    def endless() -> Any:
        while True:
            yield 1

    assert "1 of 1 cases right" in told(lambda: 7)
    assert "It is 2 too high (+29 %)" in told(lambda: 9)
    assert "It is 693 too high (+9,900 %)" in told(lambda: 700)
    assert "It is 7 too low (-100 %)" in told(lambda: 0)
    assert "did not stop" in told(endless)
    assert "it returned None" in told(lambda: None).replace("It", "it")
    assert "it returned a str" in told(lambda: "7").replace("It", "it")
    both = torch.ones(2), torch.ones(2)
    assert "It gave a tuple of 2 tensors, where one tensor or plain numbers belong" in told(lambda: both)
    assert "It gave a list that holds a str, where a number belongs" in told(lambda: [1, "2"])
    assert "needs a function" in told(LayerNorm)


# Composites


def on_gpt2(exercise: str, target: Any) -> Verdict:
    return examine_here(recording_of_gpt2(), exercise, target)


@cache
def recording_of_gpt2() -> Recording:
    return Recording.read(GPT2)


def solution_with(patches: dict[str, str], exercise: str) -> Any:
    """The lesson's solution of `exercise` on top of other classes: {"Conv1D": "class Conv1D(Conv1D): ..."}."""
    lesson = Lesson(GPT2.parent)
    space = lesson.namespace()
    names = {cell.name: cell.source for cell in lesson.cells() if cell.kind == "exercise"}
    order = list(names)
    for source in patches.values():
        exec(source, space)
    for later in order[order.index(exercise) :][:1]:
        exec(names[later], space)
    return space[recording_of_gpt2().task(exercise).solution]


WRONG_CONV1D = """
_Right = Conv1D
class Conv1D(_Right):
    def forward(self, x):
        return super().forward(x) - self.bias
"""
WRONG_ATTENTION = """
_Right = Attention
class Attention(_Right):
    def forward(self, x):
        return super().forward(x.flip(1)).flip(1)
"""


def test_a_right_composite_with_a_wrong_part_keeps_its_points_and_names_the_part() -> None:
    block = on_gpt2("gpt2.block", solution_with({"Attention": WRONG_ATTENTION}, "gpt2.block"))
    text = to_text(report(block))
    assert not block.right
    assert block.points == block.max_points
    assert "Your code here is right. It fails because `attn` is not" in text
    assert "Mend `gpt2.attention` first" in text
    attention = on_gpt2("gpt2.attention", solution_with({"Conv1D": WRONG_CONV1D}, "gpt2.attention"))
    assert attention.points == attention.max_points
    assert "`gpt2.conv1d`" in to_text(report(attention))


def patched(exercise: str, find: str, replace: str) -> Any:
    lesson = Lesson(GPT2.parent)
    source = lesson.source_of(exercise)
    assert source.count(find) == 1
    return lesson.namespace((exercise, source.replace(find, replace)))[recording_of_gpt2().task(exercise).solution]


def test_a_wrongly_wired_composite_is_told_what_its_part_was_given() -> None:
    target = patched("gpt2.block", "self.mlp(self.ln_2(x))", "self.mlp(1.5 * self.ln_2(x))")
    text = to_text(report(on_gpt2("gpt2.block", target)))
    assert "`mlp` was given something else than it should be" in text
    assert on_gpt2("gpt2.block", target).points == 0


def test_a_wrong_composite_with_a_wrong_part_gets_no_points_for_the_part() -> None:
    source = Lesson(GPT2.parent).source_of("gpt2.block").replace("return x + self.mlp", "return 1.2 * x + self.mlp")
    space = Lesson(GPT2.parent).namespace()
    exec(WRONG_ATTENTION, space)
    exec(source, space)
    verdict = on_gpt2("gpt2.block", space["Block"])
    assert verdict.points == 0
    assert "the output contains the hidden state before `ln_2` 1.2 times" in to_text(report(verdict))
    assert "`gpt2.attention` is not right yet" in to_text(report(verdict))


class LayoutOfItsOwn(nn.Module):
    """An attention whose projections see [T, B, D], which is nobody's business."""

    def __init__(self, config: Any):
        super().__init__()
        self.num_heads = config.n_head
        self.c_attn = SOLUTIONS["Conv1D"](3 * config.n_embd, config.n_embd)
        self.c_proj = SOLUTIONS["Conv1D"](config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.c_attn(x.transpose(0, 1)).chunk(3, dim=-1)  # 3 x [T, B, D]
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)).permute(1, 2, 0, 3) for t in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(mixed.permute(2, 0, 1, 3).flatten(-2)).transpose(0, 1)


def test_a_layout_of_ones_own_passes_and_its_parts_errors_are_carried_too() -> None:
    assert on_gpt2("gpt2.attention", LayoutOfItsOwn).right

    class WithWrongPart(LayoutOfItsOwn):
        def __init__(self, config: Any):
            super().__init__(config)
            space = dict(SOLUTIONS)
            exec(WRONG_CONV1D, space)
            self.c_proj = space["Conv1D"](config.n_embd, config.n_embd)

    verdict = on_gpt2("gpt2.attention", WithWrongPart)
    assert not verdict.right
    assert verdict.points == verdict.max_points


def block_with(find: str, replace: str) -> str:
    return to_text(report(on_gpt2("gpt2.block", patched("gpt2.block", find, replace))))


MLP_LINE = "return x + self.mlp(self.ln_2(x))"


@pytest.mark.parametrize(
    ("find", "replace", "told"),
    [
        ("ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)", "ln_1 = nn.LayerNorm(config.n_embd, 0.1)",
         "Look at how `ln_1` is built and called"),
        ("self.attn(self.ln_1(x))", "self.attn(self.ln_1(x), None)", "takes 2 positional arguments but 3 were given"),
        (MLP_LINE, "return x + self.mlp(self.ln_2(self.ln_2(x)))", "`ln_2` is called 2 times, and should be called"),
        (MLP_LINE, "return x + self.ln_2(x)", "`mlp` is never called"),
    ],
)  # fmt: skip
def test_a_right_part_that_is_wrongly_used_is_the_composites_own_error(find: str, replace: str, told: str) -> None:
    text = block_with(find, replace)
    assert told in text, text
    assert "points are not lost" not in text


def test_a_part_of_another_class_than_the_one_that_is_checked_is_the_composites_own_error() -> None:
    """As in grading, where the class that the exercise names is judged; only where that is wrong too is it carried."""
    source = Lesson(GPT2.parent).source_of("gpt2.block")
    assert source.count("= Attention(config)") == 1
    for also_wrong in (False, True):
        space = Lesson(GPT2.parent).namespace()
        exec(WRONG_ATTENTION.replace("Attention", "Other").replace("= Other", "= Attention"), space)
        exec(source.replace("= Attention(config)", "= Other(config)"), space)
        if also_wrong:
            exec(WRONG_ATTENTION, space)
        verdict = on_gpt2("gpt2.block", space["Block"])
        text = to_text(report(verdict))
        other = "its class is `Other`, and not the one that `gpt2.attention` checks" in text
        assert (other, verdict.points > 0) == (not also_wrong, also_wrong), text


def test_what_is_added_once_too_often_is_named() -> None:
    text = block_with(MLP_LINE, "m = self.mlp(self.ln_2(x))\n        return x + m + m")
    assert "The output contains the output of `mlp` once too often." in text


PARTS_OF = {
    "gpt2.conv1d": ["gpt2.attention", "gpt2.mlp", "gpt2.block", "gpt2.model"],
    "gpt2.gelu": ["gpt2.mlp", "gpt2.block", "gpt2.model"],
    "gpt2.attention": ["gpt2.block", "gpt2.model"],
    "gpt2.mlp": ["gpt2.block", "gpt2.model"],
    "gpt2.block": ["gpt2.model"],
}


@pytest.mark.parametrize("part", PARTS_OF)
def test_no_mistake_of_a_part_costs_a_right_composite_its_points(part: str) -> None:
    lesson = Lesson(GPT2.parent)
    sources = {cell.name: cell.source for cell in lesson.cells() if cell.kind == "exercise"}
    exercise = next(e for e in lesson.exercises()[0] if e.name == part)
    recorded, changed = recording_of_gpt2(), lesson.changed(part)
    known: dict[tuple[str, Any], bool] = {}  # a part is examined once for all composites
    for mistake in exercise.mistakes[::3]:  # each runs every composite: a third of them is enough here
        space = changed(sources[part].replace(mistake.find, mistake.replace))
        for composite in PARTS_OF[part]:
            prober = InProcess(recorded, space[recorded.task(composite).solution], known)
            verdict = examine(recorded, composite, prober)
            assert verdict.points == verdict.max_points, (mistake.name, composite, to_text(report(verdict)))


@pytest.mark.parametrize("written", ["forward", "__init__"])
def test_an_unwritten_part_is_named_and_costs_a_right_composite_nothing(written: str) -> None:
    stub = f"class Attention(Attention):\n    def {written}(self, *args):\n        "
    stub += (
        "super().__init__(*args)\n        self.c_atn = self.c_attn; del self.c_attn"
        if written == "__init__"
        else "raise NotImplementedError()"
    )
    verdict = on_gpt2("gpt2.block", solution_with({"Attention": stub}, "gpt2.block"))
    assert not verdict.right
    assert verdict.points == verdict.max_points
    assert "because `attn` is not" in to_text(report(verdict))


def test_a_block_with_a_function_in_place_of_a_part_keeps_what_it_earned() -> None:
    source = Lesson(GPT2.parent).source_of("gpt2.mlp")
    source = source.replace("self.act = GELU()", "pass").replace("self.act(", "F.gelu(approximate='tanh', input=")
    space = Lesson(GPT2.parent).namespace(("gpt2.mlp", source))
    assert on_gpt2("gpt2.mlp", space["MLP"]).right
    exec(WRONG_CONV1D, space)
    verdict = on_gpt2("gpt2.mlp", space["MLP"])
    assert verdict.points == verdict.max_points


def test_blocks_that_are_one_and_the_same_are_noticed() -> None:
    shared = patched(
        "gpt2.model",
        "nn.ModuleList(Block(config) for _ in range(config.n_layer))",
        "nn.ModuleList([Block(config)] * config.n_layer)",
    )
    assert "are one and the same here" in to_text(report(on_gpt2("gpt2.model", shared)))
    plain = patched(
        "gpt2.model",
        "nn.ModuleList(Block(config) for _ in range(config.n_layer))",
        "[Block(config) for _ in range(config.n_layer)]",
    )
    text = to_text(report(on_gpt2("gpt2.model", plain)))
    assert "`h` is a plain list" in text
    assert text.count("\n") < 16


def test_a_tied_head_of_ones_own_passes() -> None:
    class Tied(SOLUTIONS["GPT2"]):  # type: ignore[misc, valid-type]
        def __init__(self, config: Any):
            super().__init__(config)
            self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
            self.lm_head.weight = self.wte.weight

    assert on_gpt2("gpt2.model", Tied).right


def keeps_a_list(config: Any) -> nn.Module:
    """What is right of a config: as many values as its list is long."""
    return nn.LayerNorm(len(config.kinds))


def of_a_list(name: str, kinds: int) -> Case:
    return Case(name, lambda draw: [draw.normal(2, kinds)], {"config": {"kinds": ["a"] * kinds}})


class ReadsTheList(nn.LayerNorm):
    def __init__(self, config: Config) -> None:
        super().__init__(len(config.kinds))


class PopsFromTheList(ReadsTheList):
    def __init__(self, config: Config) -> None:
        super().__init__(config)
        config.kinds.pop()


def test_what_a_program_does_to_its_configs_lists_reaches_no_other() -> None:
    exercise = Exercise("toy.list", "N", keeps_a_list, [of_a_list("two", 2), of_a_list("three", 3)])
    recording = recorded(exercise)
    examine_here(recording, "toy.list", PopsFromTheList)
    assert examine_here(recording, "toy.list", ReadsTheList).right


def test_a_functions_config_is_its_own_too() -> None:
    exercise = Exercise(
        "toy.count",
        "count",
        lambda config: len(config.kinds),
        [Case(str(n), lambda draw, n=n: [Config({"kinds": ["a"] * n})]) for n in (2, 3)],  # type: ignore[misc]
        function=True,
        differentiable=False,
    )
    recording = recorded(exercise)
    examine_here(recording, "toy.count", lambda config: len(config.kinds) + bool(config.kinds.pop()))
    assert examine_here(recording, "toy.count", lambda config: len(config.kinds)).right


def test_gradients_switched_off_in_the_notebook_play_no_part() -> None:
    with torch.no_grad():
        assert verdict_on(LayerNorm).right
    with torch.inference_mode():
        assert verdict_on(LayerNorm).right


def test_an_output_counts_as_it_was_when_it_was_returned() -> None:
    """Filled at the next call, it would be right in the end, and wrong for who uses it."""
    owed: list[tuple[Tensor, Tensor]] = []

    def forward(module: LayerNorm, x: Tensor) -> Tensor:
        while owed:
            output, values = owed.pop()
            output.copy_(values)
        if torch.is_grad_enabled():
            return right(module, x)
        owed.append((torch.zeros_like(x), right(module, x)))
        return owed[-1][0]

    assert not any(case.right for case in verdict_on(changed(forward)).cases)


def test_an_answer_kept_for_all_inputs_of_a_shape_is_not_right() -> None:
    kept: dict[torch.Size, Any] = {}
    # A gradient for each parameter and the input, so that only the numbers can tell.
    forward = changed(lambda self, x: right(self, x) * 0 + kept.setdefault(x.shape, right(self, x).detach()))
    assert verdict_on(forward).cases[0].right is False


def test_only_the_run_that_is_watched_prints_and_stops_at_a_breakpoint(capsys: pytest.CaptureFixture[str]) -> None:
    def forward(module: LayerNorm, x: Tensor) -> Any:
        print("forward is called")
        return right(module, x)

    assert verdict_on(changed(forward)).right
    assert capsys.readouterr().out == "forward is called\n" * 2
    with unseen():
        pdb.Pdb().set_trace()  # would read from stdin, and raise BdbQuit at its end


class WithView(LayerNorm):
    """Keeps a view of its weight, which loading must fill too."""

    def __init__(self, dim: int):
        super().__init__(dim)
        self.view = self.weight.view(1, dim)

    def forward(self, x: Tensor) -> Any:
        return super().forward(x) - x.new_zeros(1) * self.view


class Frozen(LayerNorm):
    def __init__(self, dim: int):
        super().__init__(dim)
        self.bias.requires_grad_(False)


class OverridesEval(LayerNorm):
    def eval(self) -> Any:
        return None


def test_unusual_modules() -> None:
    assert verdict_on(WithView).right
    assert verdict_on(OverridesEval).right
    assert "no gradient reaches `bias`" in text_on(Frozen) or verdict_on(Frozen).right
    assert "wrong" in text_on(changed(lambda self, x: exit())) or "SystemExit" in text_on(
        changed(lambda self, x: exit())
    )
    assert "sparse, nested, quantized or complex" in text_on(changed(lambda self, x: right(self, x).to_sparse()))
    assert "sparse, nested, quantized or complex" in text_on(changed(lambda self, x: right(self, x) * 1j))
    deep = text_on(changed(lambda self, x: self.forward(x)))
    assert "RecursionError" in deep
    assert deep.count("\n") < 20


def test_a_report_gives_numbers_and_nan_their_place() -> None:
    text = text_on(changed(lambda self, x: torch.where(torch.arange(12) == 3, torch.nan, right(self, x))))
    assert re.search(r"10 of 120, 10 NaN  +\[0, 0, 3\] +nan +-?\d", text), text


def test_what_gave_nan_is_named_beside_its_case_too() -> None:
    def forward(self: LayerNorm, x: Tensor) -> Tensor:
        output = right(self, x)
        return output + 1 if x.shape[1] == 5 else (output - output) / 0.0

    text = text_on(changed(forward))
    assert re.search(r"\d NaN .*it first appears in line \d+ of forward \(div\):  return", text), text


# Recordings


def test_a_task_holds_no_answer() -> None:
    recorded = Recording.read(GPT2)
    for name in recorded.exercises:
        task, answer = recorded.task(name), recorded.answer(name)
        seen = [arg for case in task.cases for arg in case.args if isinstance(arg, Tensor)]
        seen += [tensor for case in task.cases for tensor in case.weights.values()]
        seen += [part.input for case in part_inputs(answer) for part in case]
        for output in answer.outputs:
            assert not any(t.shape == output.shape and torch.equal(t.to(output.dtype), output) for t in seen), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_a_slice_of_another_tensor_is_recorded_as_a_tensor_of_its_own_would_be(dtype: torch.dtype) -> None:
    """Also one of a single value, which counts as contiguous whatever its stride is."""
    encoder = Encoder()
    for rows in (1, 3):
        whole = torch.arange(2 * rows).reshape(rows, 2).to(dtype)
        assert encoder.tensor(whole[:, 1]) == encoder.tensor(whole[:, 1].clone())


def test_recording_twice_gives_the_same_bytes_and_the_header_says_from_what(tmp_path: Path) -> None:
    lesson, _ = write_course(tmp_path)
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    record(lesson).write(first)
    record(lesson).write(second)
    assert first.read_bytes() == second.read_bytes()
    header = Recording.read(first).header
    assert header["versions"].keys() == {"torch", "transformers"}
    assert header["made_from"].keys() >= {"solutions", "exercises.py"}
    of_gpt2 = Recording.read(GPT2).header["made_from"]
    assert of_gpt2.keys() >= {"solutions", "exercises.py", "mistakes.toml", "reference.py"}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "solutions").glob("*/reference.safetensors")), ids=lambda p: p.parent.name
)
def test_a_recording_has_at_most_two_megabytes(path: Path) -> None:
    assert path.stat().st_size <= 2_000_000


def test_a_missing_foreign_or_damaged_recording_is_explained(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="It travels with the notebook"):
        check("toy.layer_norm", LayerNorm, recording=tmp_path / "reference.safetensors")
    foreign = tmp_path / "foreign.safetensors"
    save_file({"x": torch.zeros(1)}, foreign)
    with pytest.raises(RecordingError, match="not a recording of this course"):
        Recording.read(foreign)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(GPT2.read_bytes()[:1000])
    with pytest.raises(RecordingError, match="It is damaged"):
        Recording.read(damaged)
    with pytest.raises(RecordingError, match=r"no exercise of lesson 01-gpt2. Its exercises are: gpt2.layer_norm"):
        check("gpt2.layernorm", LayerNorm, recording=GPT2)


# check


def test_check_raises_without_a_traceback_and_returns_points_to_nbgrader(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    assert check("gpt2.gelu", SOLUTIONS["GELU"], recording=GPT2) is None
    assert "3 of 3 cases right" in capsys.readouterr().out
    with pytest.raises(CheckFailed) as failed:
        check("gpt2.gelu", nn.ReLU, recording=GPT2)
    assert failed.value._render_traceback_() == ["gpt2.gelu is not right yet: see the report above."]
    assert "This is what comes out when ReLU is computed." in capsys.readouterr().out
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    assert check("gpt2.gelu", SOLUTIONS["GELU"], recording=GPT2) == 3.0
    assert check("gpt2.gelu", nn.ReLU, recording=GPT2) == 0.0
    monkeypatch.setenv("NBGRADER_EXECUTION", "validate")
    with pytest.raises(CheckFailed):
        check("gpt2.gelu", nn.ReLU, recording=GPT2)


def test_the_random_state_of_the_notebook_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    verdict_on(LayerNorm)
    assert torch.equal(before, torch.random.get_rng_state())


def test_what_notebooks_import_is_what_they_mean_whatever_was_imported_before() -> None:
    for module in ("grader.checks.check", "grader.authoring.recorder"):
        program = f"import {module}, grader; assert all(callable(getattr(grader, name)) for name in grader.__all__)"
        subprocess.run([sys.executable, "-c", program], check=True)


# Exercises whose solution is used and not simply called


def append_in_turn(made: Any, capacity: int, parts: list[Tensor]) -> Tensor:
    memory = made(capacity)
    for part in parts[:-1]:
        memory.append(part)
    return torch.cat([memory.append(parts[-1]), torch.full((1,), float(memory.length))])


class Memory:
    """Not an nn.Module: no recorded weight goes in."""

    def __init__(self, capacity: int) -> None:
        self.rows = torch.zeros(capacity)
        self.length = 0

    def append(self, part: Tensor) -> Tensor:
        self.rows[self.length : self.length + len(part)] = part
        self.length += len(part)
        return self.rows[: self.length]


class Forgetful(Memory):
    def append(self, part: Tensor) -> Tensor:
        self.length = 0
        return super().append(part)


class Growing(Memory):
    def append(self, part: Tensor) -> Tensor:
        self.rows = torch.cat([self.rows[: self.length], part])
        self.length = len(self.rows)
        return self.rows


class UnwrittenMemory(Memory):
    def append(self, part: Tensor) -> Tensor:
        raise NotImplementedError()


def memory_exercise() -> Recording:
    return recorded(
        Exercise(
            name="toy.memory",
            solution="Memory",
            reference=lambda capacity, parts: torch.cat([*parts, torch.tensor([float(sum(map(len, parts)))])]),
            function=True,
            drive=append_in_turn,
            cases=[
                Case("all at once", lambda draw: [6, [draw.normal(4)]]),
                Case("one after the other", lambda draw: [6, [draw.normal(2), draw.normal(3)]]),
            ],
        )
    )


@pytest.mark.parametrize("target", [Memory, Growing])
def test_a_class_that_keeps_a_state_is_checked_by_using_it(target: Any) -> None:
    assert examine_here(memory_exercise(), "toy.memory", target).exact


def test_what_only_shows_in_use_is_noticed() -> None:
    verdict = examine_here(memory_exercise(), "toy.memory", Forgetful)
    assert "1 of 2 cases right" in to_text(report(verdict))


def test_a_stub_that_is_driven_is_called_not_written() -> None:
    text = to_text(report(examine_here(memory_exercise(), "toy.memory", UnwrittenMemory)))
    assert "`UnwrittenMemory.append` is not written yet" in text


def test_an_object_in_place_of_the_class_is_refused() -> None:
    text = to_text(report(examine_here(memory_exercise(), "toy.memory", Memory(3))))
    assert 'hand over the function or class: check("toy.memory", Memory)' in text


def test_the_drives_own_lines_are_not_shown_to_learners() -> None:
    class Short(Memory):
        def append(self, part: Tensor) -> Tensor:
            return super().append(part)[:, 0]

    text = to_text(report(examine_here(memory_exercise(), "toy.memory", Short)))
    assert "in append" in text
    assert "append_in_turn" not in text


class AddsUp(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.total: Tensor | float = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.total = self.total + x * self.weight
        return self.total


def call_for_each_row(module: nn.Module, x: Tensor) -> Tensor:
    return [module(row) for row in x][-1]


def test_a_module_is_driven_with_its_weights_and_must_not_keep_what_a_run_left() -> None:
    class Sum(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(dim))

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.weight).sum(0)

    exercise = Exercise(
        name="toy.adds_up",
        solution="AddsUp",
        reference=Sum,
        drive=call_for_each_row,
        differentiable=False,
        cases=[Case("three rows", lambda draw: [draw.normal(3, 4)], {"dim": 4})],
    )

    class Fresh(AddsUp):
        def forward(self, x: Tensor) -> Tensor:
            self.count = getattr(self, "count", 0) % 3
            self.total = self.total if self.count else 0.0
            self.count += 1
            return super().forward(x)

    assert examine_here(recorded(exercise), "toy.adds_up", Fresh).right
    assert not examine_here(recorded(exercise), "toy.adds_up", AddsUp).right


def test_no_gradient_is_asked_of_what_the_reference_has_none_for() -> None:
    class Chooses(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(dim))
            self.register_buffer("bias", torch.zeros(dim))

        def forward(self, x: Tensor) -> Tensor:
            best = (x + self.bias).argmax(dim=-1, keepdim=True)
            return (x * self.weight).gather(-1, best)

    class Cut(Chooses):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach()

    cases = [Case("3 rows", lambda draw: [draw.normal(3, 4)], {"dim": 4})]
    exercise = Exercise(name="toy.chooses", solution="Chooses", reference=Chooses, cases=cases)
    assert examine_here(recorded(exercise), "toy.chooses", Chooses).right
    assert not examine_here(recorded(exercise), "toy.chooses", Cut).right


def count_or_call(module: nn.Module, x: Tensor, look: str) -> Tensor:
    return module(x) if look == "result" else torch.tensor(len(x))


def test_no_gradient_is_asked_of_a_count() -> None:
    class Scale(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(dim))

        def forward(self, x: Tensor, look: str = "") -> Tensor:
            return torch.tensor(len(x)) if look == "count" else x * self.weight

    class WithoutGradient(Scale):
        def forward(self, x: Tensor, look: str = "") -> Tensor:
            return super().forward(x, look).detach()

    exercise = Exercise(
        name="toy.scale",
        solution="Scale",
        reference=Scale,
        drive=count_or_call,
        cases=[
            Case(look, lambda draw, look=look: [draw.normal(3, 4), look], {"dim": 4})  # type: ignore[misc]
            for look in ("result", "count")
        ],
    )
    assert examine_here(recorded(exercise), "toy.scale", Scale).right
    verdict = examine_here(recorded(exercise), "toy.scale", WithoutGradient)
    assert [case.right for case in verdict.cases] == [False, True]


# Exercises that use what others built


def memory_of_two(made: Any, capacity: int, parts: list[Tensor]) -> Tensor:
    return torch.cat([made(capacity, part) for part in parts])


WRITTEN = """
import torch
class Memory:
    def __init__(self, capacity):
        self.rows, self.length = torch.zeros(capacity), 0
    def append(self, part):
        self.rows[self.length : self.length + len(part)] = part
        self.length += len(part)
        return self.rows[: self.length]
def twice(capacity, part):
    memory = Memory(capacity)
    memory.append(part)
    return memory.append(part)
"""


@pytest.mark.parametrize(
    ("find", "replace", "told"),
    [
        ("", "", "1 of 1 cases right"),
        ("self.length += len(part)", "self.length += 1", "`Memory` does not pass its own check"),
        ("memory.append(part)\n    return", "return", "2 values, and should give 4"),
        (
            "+= len(part)\n        return self.rows[: self.length]\ndef twice(capacity, part):\n    memory =",
            "+= 1\n        return self.rows[: self.length]\ndef twice(capacity, part):\n    return part; memory =",
            "Mend `toy.memory` first",
        ),
    ],
)
def test_what_is_used_and_wrong_by_itself_is_named(find: str, replace: str, told: str) -> None:
    uses = Exercise(
        name="toy.twice",
        solution="twice",
        reference=lambda capacity, parts: torch.cat([part for part in parts for _ in range(2)]),
        function=True,
        drive=memory_of_two,
        uses=["toy.memory"],
        cases=[Case("one part", lambda draw: [6, [draw.normal(2)]])],
    )
    encoder = Encoder()
    memory = memory_exercise()
    exercises = {
        "toy.memory": encoded_exercise(encoder, memory.task("toy.memory"), memory.answer("toy.memory")),
        "toy.twice": encoded_exercise(encoder, *record_exercise("toy", uses)),
    }
    recording = Recording({"format": FORMAT, "lesson": "toy", "exercises": exercises, "trace": None}, encoder.tensors)
    assert recording.task("toy.twice").uses == ("toy.memory",)
    assert find in WRITTEN
    written: dict[str, Any] = {}
    exec(WRITTEN.replace(find, replace) if find else WRITTEN, written)
    assert told in to_text(report(examine_here(recording, "toy.twice", written["twice"])))


def test_a_mistake_that_a_right_case_rules_out_is_not_named_for_a_number_that_is_the_same_by_chance() -> None:
    exercise = Exercise(
        name="toy.count",
        solution="count",
        reference=lambda *numbers: sum(numbers),
        function=True,
        cases=[Case("2 and 3", lambda draw: [2, 3]), Case("4 and 4", lambda draw: [4, 4])],
    )
    task, answer = record_exercise("toy", exercise)
    product = MistakeAnswer("the numbers are multiplied", "Look.", (torch.tensor(6), torch.tensor(16)))
    answer = dataclasses.replace(answer, mistakes=(product,))
    recording = recording_of(task, answer)
    named = "This is what comes out when the numbers are multiplied"
    assert named in to_text(report(examine_here(recording, "toy.count", lambda a, b: a * b)))
    by_chance = to_text(report(examine_here(recording, "toy.count", lambda a, b: a + b + (a == 2))))
    assert named not in by_chance and "1 too high" in by_chance
    as_a_float = to_text(report(examine_here(recording, "toy.count", lambda a, b: (a + b) / 1)))
    assert "It is a float, and should be an int, and its value is right" in as_a_float


def test_how_long_a_text_is_gets_no_name_from_the_modules_sizes() -> None:
    context = Context(("B", "T", "D"), {"n_head": 3, "head_dim": 8})
    said = describe(torch.zeros(2, 3, 24), torch.zeros(2, 7, 24), context)
    assert said is not None and said.endswith("axis T has 3 entries instead of 7")
    said = describe(torch.zeros(2, 7, 8), torch.zeros(2, 7, 24), context)
    assert said is not None and said.endswith("axis D has 8 entries instead of 24 (that is head_dim)")


@pytest.mark.parametrize("dtype", list(BY_DTYPE))
@pytest.mark.parametrize("special", [None, math.nan, math.inf, -math.inf, 0.0])
def test_two_tensors_agree_where_no_value_is_wrong(dtype: torch.dtype, special: float | None) -> None:
    """Which takes a short cut where they are far apart."""
    tolerance = BY_DTYPE[dtype]
    seen = set()
    for i in range(300):
        scale = 10.0 ** (i % 9 - 6)
        want = (scale * torch.randn(1 + i % 7, dtype=torch.float64)).to(dtype)
        apart = tolerance.relative * (want.abs().double() + want.double().square().mean().sqrt())
        got = (want.double() + apart * torch.randn(len(want)) * (0.3, 1.0, 2.0, 50.0)[i % 4]).to(dtype)
        if special is not None:
            want[0] = special
            got[0] = special if i % 3 else 1.0
        for each in (tolerance, ROUNDED_ONCE):
            right = not bool(wrong_values(got, want, each).any())
            assert agree(got, want, each) == right
            seen.add(right)
    assert seen == {True, False}
