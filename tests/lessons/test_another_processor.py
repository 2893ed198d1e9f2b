"""What is right here is right on any processor: lessons, recordings and texts, with the roundings of other machines.

`grader.instruments.rounding` simulates them. test_mistakes.py asks the same of every known mistake; with
ANOTHER_PROCESSOR=2 in the environment any test runs on such a machine.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from solved import solved
from test_every_lesson import each, planted, programs
from torch import Tensor, nn

from conftest import PROJECT
from grader import check_generation, load_checkpoint
from grader.authoring.differences import as_drawn, equal, same_answer
from grader.authoring.kit.declared import Trained
from grader.authoring.kit.solved import Solved
from grader.authoring.recorder import record_exercise
from grader.authoring.reference_run import record_trace
from grader.checkpoints import entry
from grader.checkpoints.checkpoint import Checkpoint
from grader.checks.examine import examine_here
from grader.instruments.rounding import another_processor
from grader.layers.debugger import layer_report
from grader.lessons.lesson import Lesson, lessons
from grader.recordings.recording import Recording
from grader.tolerance import distance

LESSONS = lessons(PROJECT)
every_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
X = torch.randn(4, 6, 32, generator=torch.Generator().manual_seed(3))
W = torch.randn(32, 32, generator=torch.Generator().manual_seed(4))


# The simulation itself


@pytest.mark.parametrize(
    "compute",
    [
        lambda: X @ W,
        lambda: F.linear(X, W, W[0]),
        lambda: torch.einsum("bti,bsi->bts", X, X),
        lambda: X.softmax(-1),
        lambda: X.mean(-1),
        lambda: X.sum((0, 2)),
        lambda: X.var(1),
        lambda: F.normalize(X, dim=-1),
        lambda: X.logsumexp(-1),
        lambda: F.layer_norm(X, (32,)),
        lambda: F.rms_norm(X, (32,)),
        lambda: F.scaled_dot_product_attention(X, X, X),
        lambda: F.gelu(X),
        lambda: X.cos(),
        lambda: X.exp(),
        lambda: 10_000.0 ** -X.sigmoid(),
    ],
)
def test_another_processor_moves_a_result_by_a_few_roundings(compute: Callable[[], torch.Tensor]) -> None:
    here = compute()
    moved = []
    for seed in (1, 2, 3):
        with another_processor(seed):
            there, again = compute(), compute()
        assert there.shape == here.shape and there.dtype == here.dtype
        assert distance(there, again) == 0, "the same call gives the same"
        moved.append(distance(there, here))
    assert max(moved) > 0
    assert max(moved) < 1e-5


def test_what_every_processor_agrees_on_stays() -> None:
    whole = torch.arange(12.0).view(3, 4)
    with another_processor(1):
        assert torch.equal(whole @ whole.T, whole.double().mul(1).matmul(whole.T.double()).float())
        assert torch.equal(torch.zeros(3).exp(), torch.ones(3))
        assert torch.equal(X * X + X, X.mul(X).add(X))
        assert torch.equal(X[0] / 3, X.div(3)[0])


def test_two_machines_differ_and_gradients_are_rounded_too() -> None:
    def gradient() -> torch.Tensor:
        x = X.clone().requires_grad_()
        (x @ W).softmax(-1).square().sum().backward()
        assert x.grad is not None
        return x.grad

    here = gradient()
    there = []
    for seed in (1, 2):
        with another_processor(seed):
            there.append(gradient())
    assert 0 < distance(there[0], here) < 1e-4
    assert distance(there[0], there[1]) > 0


# Lessons


def every_second(declared: Any) -> Iterator[tuple[str, Any]]:
    """Of each exercise's right programs the first, the third and so on."""
    for exercise, others in dict(declared).items():
        yield from programs({exercise: others[::2]})


@every_lesson
@pytest.mark.parametrize("seed", [1, 2])
def test_every_solution_is_right(lesson: Lesson, seed: int) -> None:
    recorded, solutions = solved(lesson.name).recording, solved(lesson.name).solutions
    for name in recorded.exercises:
        with another_processor(seed):
            verdict = examine_here(recorded, name, solutions[recorded.task(name).solution])
        assert verdict.right, (name, verdict)


@each("RIGHT", every_second)
def test_another_right_program_is_right(lesson: Solved, item: Any) -> None:
    """Of each exercise every second one; it takes several times as long as here."""
    name, other = item
    with another_processor(1):
        verdict = examine_here(lesson.recording, name, other)
    assert verdict.right, verdict.most_telling


@each("PLANTED", planted)
def test_the_culprit_of_a_planted_bug_is_the_same(lesson: Solved, item: Any) -> None:
    path, bug = item
    with another_processor(1):
        report = layer_report(bug if isinstance(bug, type) else lesson.with_forward(path, bug), lesson.trace)
    assert report.culprit is not None and report.culprit.path == path


@every_lesson
def test_what_is_right_is_what_it_would_be_there(lesson: Lesson) -> None:
    """The reference's answers, gradients and trace. test_mistakes.py compares what the mistakes give there."""
    recorded = Recording.read(lesson.recording)
    exercises, trace = lesson.exercises()
    with another_processor(1):
        for exercise in exercises:
            task, answer = record_exercise(lesson.name, exercise)
            assert equal(as_drawn(recorded.task(exercise.name)), task)
            assert same_answer(recorded.answer(exercise.name), answer)
            if exercise.name == trace:
                assert equal(recorded.trace, record_trace(lesson.name, exercise, measured=False))


@every_lesson
def test_every_case_has_a_measured_noise_floor_far_below_its_tolerance(lesson: Lesson) -> None:
    recorded = Recording.read(lesson.recording)
    answers = [recorded.answer(name) for name in recorded.exercises]
    for answer in answers:
        for noise, tolerance in zip(answer.noise, answer.tolerances, strict=True):
            assert 4 * noise <= tolerance.relative, answer.exercise
    computed = any(output.is_floating_point() for answer in answers for output in answer.outputs)
    assert not computed or any(noise for answer in answers for noise in answer.noise), "nothing was measured"


SHIPPED = [  # a checkpoint that ships, and the notebook's own model and generate for it
    pytest.param(lesson, trained, id=f"{lesson.name} {trained.title}")
    for lesson in (solved(lesson.name) for lesson in LESSONS)
    for trained in getattr(lesson.others, "TRAINED", ())
    if entry(trained.checkpoint).shipped_folder.is_dir()
    and not hasattr(lesson.others, trained.model)
    and not hasattr(lesson.others, trained.generate)
]


def in_one_pass(checkpoint: Checkpoint) -> Callable[[nn.Module, Tensor, int], list[int]]:
    """For each recorded prompt, the likeliest token after each beginning of the recorded text.

    As far as they are the recorded tokens, they are also what the model writes token by token.
    """
    texts = {golden.prompt_ids: golden.new_ids for golden in checkpoint.goldens}

    def generate(model: nn.Module, ids: Tensor, n_tokens: int) -> list[int]:
        new = texts[tuple(ids[0].tolist())]
        assert new is not None and len(new) == n_tokens
        logits = model(torch.cat([ids, torch.tensor([new[:-1]])], dim=1))
        tokens: list[int] = logits[0, ids.shape[1] - 1 :].argmax(dim=-1).tolist()
        return tokens

    return generate


@pytest.mark.parametrize(("seed", "threads"), [(None, 2), (1, 1)])
@pytest.mark.parametrize(("solved_lesson", "trained"), SHIPPED)
def test_trained_weights_write_the_references_text(
    solved_lesson: Solved, trained: Trained, seed: int | None, threads: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A near-tie would be said, and cost nothing. test_every_lesson.py has every model write token by token."""
    solutions = solved_lesson.solutions
    checkpoint = load_checkpoint(trained.checkpoint)
    generate = solutions[trained.generate]
    if trained.generate == "generate":  # it computes all of the text again for each token
        generate = in_one_pass(checkpoint)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with contextlib.nullcontext() if seed is None else another_processor(seed):
            check_generation(solutions[trained.model], checkpoint, generate=generate)
    finally:
        torch.set_num_threads(before)
    assert "3 of 3 texts are the reference's" in capsys.readouterr().out
