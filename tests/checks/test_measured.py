"""What is measured of a result that matches no known mistake: facts, at most two lines, and never beside a name."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from grader.checks.examine import examine_here
from grader.checks.judge.diagnose import Context
from grader.checks.judge.measured import MOST_LINES, measured
from grader.checks.judge.verdict import Verdict
from grader.checks.judge.wording import report
from grader.lessons.lesson import Lesson
from grader.recordings.recording import Recording
from grader.report import to_text

SOLUTIONS = Path(__file__).resolve().parents[2] / "solutions"
LESSONS = {path.parent.name: path.parent for path in sorted(SOLUTIONS.glob("*/reference.safetensors"))}


@cache
def lesson(name: str) -> tuple[Lesson, Recording]:
    found = Lesson(LESSONS[name])
    return found, Recording.read(found.recording)


def verdict_with(name: str, exercise: str, find: str, replace: str) -> Verdict:
    """The verdict on a lesson's solution with one change."""
    found, recording = lesson(name)
    source = found.source_of(exercise)
    assert source.count(find) == 1, find
    namespace = found.namespace((exercise, source.replace(find, replace)))
    return examine_here(recording, exercise, namespace[recording.task(exercise).solution])


def lines_of(verdict: Verdict) -> tuple[str, ...]:
    return next((case.finding.measured for case in verdict.cases if case.finding and case.finding.measured), ())


WITHOUT_MEAN = "(x - mean)"
CENTRED = "(x - mean) / torch.sqrt(variance + self.eps)"
SCALED = "x32 * torch.rsqrt(mean_square + self.eps)"
GELU = "0.5 * x * (1.0 + torch.tanh(inner))"
ATTENTION = "F.scaled_dot_product_attention(q, k, v, attn_mask=seen)"
SCORES = "(q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5"
EMBEDDED = "super().forward(ids) * scale"


@pytest.mark.parametrize(
    ("name", "exercise", "find", "replace", "told"),
    [
        (
            *("01-gpt2", "gpt2.layer_norm", CENTRED),
            f"{WITHOUT_MEAN} / ({WITHOUT_MEAN}.abs().mean(-1, keepdim=True) + self.eps)",
            "Each row along D, before `weight` and `bias`, has standard deviation 1 in the reference; yours have"
            " standard deviation 1.16 to 1.31, and each has mean absolute value 1.",
        ),
        (
            *(
                "01-gpt2",
                "gpt2.layer_norm",
                CENTRED,
                f"{WITHOUT_MEAN} / {WITHOUT_MEAN}.abs().amax(-1, keepdim=True).clamp_min(1e-9)",
            ),
            "and each has largest absolute value 1.",
        ),
        (
            *("01-gpt2", "gpt2.layer_norm", "return normed * self.weight", "return normed.abs() * self.weight"),
            "has mean 0 and standard deviation 1 in the reference; yours have mean 0.764 to 0.861",
        ),
        (
            *("01-gpt2", "gpt2.layer_norm", "(x - mean) /", "(x - x.median(-1, keepdim=True).values) /"),
            "has mean 0 and root mean square 1 in the reference; yours have mean -0.167 to 0.319",
        ),
        ("01-gpt2", "gpt2.gelu", GELU, "torch.tanh(x)", "Yours all lie between -1 and 1; the reference's reach 3.75."),
        (
            *("01-gpt2", "gpt2.gelu", GELU, "torch.nn.functional.softplus(x)"),
            "No value of yours is below 0; of the reference's 176 of 336 are, down to -0.17.",
        ),
        (
            *("01-gpt2", "gpt2.attention", ".softmax(dim=-1)", ".exp()"),
            "Each row of a head is the reference's times a factor of its own: 0.0696 to 30.2.",
        ),
        (
            *("02-kv-cache", "kv_cache.grouped", ATTENTION, f"({SCORES}).exp().masked_fill(~seen, 0) @ v"),
            "Each row along head_dim is the reference's times a factor of its own: 0.16 to 68.",
        ),
        (
            *("03-qwen3", "qwen3.rms_norm", SCALED, "x32 / (x32.abs().amax(-1, keepdim=True) + self.eps)"),
            "Each row along D, before `weight`, has root mean square 1 in the reference",
        ),
        (
            *("03-qwen3", "qwen3.rope", "x * cos + rotated * sin", "x + rotated * sin"),
            "Each row along head_dim has the norm of the input's row in the reference; yours do not: theirs is 1.01 to"
            " 1.33 times that.",
        ),
        (
            *("04-gemma3", "gemma3.rms_norm", SCALED, "x32 / (x32.abs().mean(-1, keepdim=True) + self.eps)"),
            "yours have root mean square 1.15 to 1.28, and each has mean absolute value 1.",
        ),
        (
            *("04-gemma3", "gemma3.rms_norm", SCALED, "x32 / (x32.abs().sum(-1, keepdim=True) + self.eps)"),
            "Each row along D is the reference's times a factor of its own: 0.0288 to 0.0321.",
        ),
        (
            *("04-gemma3", "gemma3.embedding", EMBEDDED, "torch.nn.functional.normalize(super().forward(ids), dim=-1)"),
            "Each row along D has norm 1 in yours; the reference's have norm 3.43 to 6.22.",
        ),
        ("04-gemma3", "gemma3.embedding", EMBEDDED, f"0 * {EMBEDDED}", "Every value of yours is 0"),
    ],
)
def test_what_an_unlisted_mistake_does_to_the_numbers_is_said(
    name: str, exercise: str, find: str, replace: str, told: str
) -> None:
    verdict = verdict_with(name, exercise, find, replace)
    text = to_text(report(verdict))
    assert not any(case.finding and case.finding.mistake for case in verdict.cases)
    assert told in text, text
    assert 1 <= len(lines_of(verdict)) <= MOST_LINES


@pytest.mark.parametrize(
    ("name", "exercise", "find", "replace"),
    [
        ("01-gpt2", "gpt2.layer_norm", "torch.sqrt(variance + self.eps)", "(variance + self.eps)"),
        ("01-gpt2", "gpt2.gelu", GELU, "torch.relu(x)"),
        ("01-gpt2", "gpt2.layer_norm", CENTRED, "torch.nn.functional.normalize(x - mean, dim=-1)"),  # in part
        ("07-moe", "moe.softmax_router", "weights.sum(dim=-1, keepdim=True)", "weights.amax(dim=-1, keepdim=True)"),
    ],
)
def test_nothing_is_measured_beside_a_known_mistakes_name(name: str, exercise: str, find: str, replace: str) -> None:
    verdict = verdict_with(name, exercise, find, replace)
    assert "it is what comes out when" in to_text(report(verdict)).replace("This is", "it is")
    assert not lines_of(verdict)


# Results as such


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


WANT = normal(2, 5, 8, seed=1)
ROWS = Context(("B", "T", "D"))


@pytest.mark.parametrize(
    ("got", "want", "told"),
    [
        (WANT.softmax(1), WANT.softmax(-1), "Each row along D has sum 1 in the reference; yours have sum "),
        (WANT.softmax(-1), WANT.softmax(1), "Each row along T has sum 1 in the reference; yours have sum "),
        (WANT.abs(), WANT, "Every value has the right size, and "),
        (WANT.where(WANT > 0, 2 * WANT), WANT, "Every value that should be above 0 is right"),
        (WANT, WANT.exp(), "No value of the reference's is below 0; "),
        (WANT[:1, :1].expand_as(WANT), WANT, "All rows of yours are one and the same"),
        (WANT.flip(-1) * 1.7, WANT, "Each row along D has 1.7 times the standard deviation of the reference's."),
    ],
)
def test_what_is_so_of_every_row_or_value_is_said(got: Tensor, want: Tensor, told: str) -> None:
    said = measured(got, want, ROWS)
    assert any(line.startswith(told) for line in said), said


@pytest.mark.parametrize("seed", range(20))
def test_of_results_that_have_nothing_in_common_nothing_is_said(seed: int) -> None:
    assert measured(normal(2, 5, 8, seed=seed + 2), WANT, ROWS) == ()


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (WANT.bfloat16(), WANT.bfloat16() * 2),
        (torch.arange(12), torch.arange(12) + 1),
        (WANT.log(), WANT),
        (WANT[0], WANT),
        (WANT.flatten(), normal(80)),
        (torch.tensor(1.0), torch.tensor(2.0)),
    ],
    ids=["coarse", "whole numbers", "NaN", "another shape", "one axis", "a number"],
)
def test_of_what_rows_say_nothing_about_nothing_is_said(got: Tensor, want: Tensor) -> None:
    assert measured(got, want, Context()) == ()


@pytest.mark.parametrize("name", LESSONS)
def test_what_rounding_does_to_a_right_result_is_nothing_to_speak_of(name: str) -> None:
    recording: Any = lesson(name)[1]
    for exercise in recording.exercises:
        task, answer = recording.task(exercise), recording.answer(exercise)
        for case, want, sizes in zip(task.cases, answer.outputs, answer.sizes, strict=True):
            if want.is_floating_point():
                context = Context(answer.axes, sizes, None, None, case.weights)
                rounded = (want.double() * (1 + 1e-6 * normal(*want.shape).double())).to(want.dtype)
                assert measured(rounded, want, context) == (), (exercise, case.name)
