"""check_generation, on a small random GPT-2 whose generations transformers recorded."""

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub import write_tiny_gpt2
from torch import Tensor, nn
from transformers import GPT2Config, GPT2Model

from grader.checkpoints import generated, golden, load_checkpoint, registry
from grader.checkpoints.checkpoint import Checkpoint
from grader.checks import generation
from grader.checks.generation import check_generation
from grader.config import Config
from grader.errors import CheckFailed

PROMPTS, LENGTH = ["It is a truth", "the wheel", "there were"], 12


class LM(GPT2Model):  # type: ignore[misc]
    """A right model with the hub's names: ids [B, T] -> logits [B, T, V]."""

    def __init__(self, config: Config) -> None:
        super().__init__(GPT2Config(**config))

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids).last_hidden_state @ self.wte.weight.T


def generate(model: nn.Module, ids: Tensor, max_new_tokens: int, eos_token_id: int | None = None) -> Iterator[int]:
    for _ in range(max_new_tokens):
        token = model(ids)[0, -1].argmax()
        yield token.item()
        ids = torch.cat([ids, token.view(1, 1)], dim=1)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices this small are slower on several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for austen-gpt2 with its golden.json."""
    folder = tmp_path_factory.mktemp("generation")
    write_tiny_gpt2(folder / "austen-gpt2", "shipped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "SHIPPED", folder)
        generated.record_golden(load_checkpoint("austen-gpt2"), PROMPTS, LENGTH)
    return folder


@pytest.fixture
def checkpoint(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    monkeypatch.setattr(registry, "SHIPPED", shipped)
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    return load_checkpoint("austen-gpt2")


@pytest.fixture
def model(checkpoint: Checkpoint) -> LM:
    built = LM(checkpoint.config)
    checkpoint.load_into(built)
    return built


def failing(capfd: pytest.CaptureFixture[str], model: Any, checkpoint: Checkpoint, generate: Callable[..., Any]) -> str:
    """What is printed when the check fails; nothing may go to stderr."""
    capfd.readouterr()
    with pytest.raises(CheckFailed):
        check_generation(model, checkpoint, generate=generate)
    printed = capfd.readouterr()
    assert printed.err == ""
    return printed.out


def changed(place: int, to: Callable[[int], int]) -> Callable[..., Iterator[int]]:
    """A right generate but for the token at `place`."""

    def wrong(model: nn.Module, ids: Tensor, n: int) -> Iterator[int]:
        for i, token in enumerate(generate(model, ids, n)):
            yield to(token) if i == place else token

    return wrong


@pytest.mark.parametrize("given", ["a model", "its class", "the checkpoint's name"])
def test_the_right_text_passes_and_is_shown(
    checkpoint: Checkpoint, model: LM, capfd: pytest.CaptureFixture[str], given: str
) -> None:
    subject = LM if given == "its class" else model
    named = "austen-gpt2" if given == "the checkpoint's name" else checkpoint
    assert check_generation(subject, named, generate=generate) is None
    printed = capfd.readouterr()
    assert printed.err == ""
    assert "austen-gpt2   3 of 3 texts are the reference's" in printed.out
    for found in checkpoint.goldens:
        text = checkpoint.tokenizer.decode(list(found.new_ids or ()), skip_special_tokens=False)
        assert found.prompt + text.rstrip("\ufffd") in printed.out


@pytest.mark.parametrize(
    "form",
    [
        list,
        tuple,
        torch.tensor,
        lambda ids: torch.tensor([ids]),
        np.array,
        lambda ids: [torch.tensor(i) for i in ids],
        lambda ids: (torch.tensor([[i]]) for i in ids),
    ],
)
def test_tokens_in_any_form_are_accepted(model: LM, checkpoint: Checkpoint, form: Callable[[list[int]], Any]) -> None:
    check_generation(model, checkpoint, generate=lambda m, ids, n: form(list(generate(m, ids, n))))


def test_text_is_shown_while_it_is_written(
    model: LM, checkpoint: Checkpoint, capfd: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def watched(model: nn.Module, ids: Tensor, n: int) -> Iterator[int]:
        for token in generate(model, ids, n):
            yield token
            seen.append(capfd.readouterr().out)

    check_generation(model, checkpoint, generate=watched)
    assert sum(bool(piece) for piece in seen) > LENGTH


def test_characters_of_several_bytes_are_shown_whole(checkpoint: Checkpoint, capfd: pytest.CaptureFixture[str]) -> None:
    ids = checkpoint.tokenizer.encode("né 🙂 end").ids
    assert len(ids) > len("né 🙂 end")
    found = replace(checkpoint.goldens[0], new_ids=tuple(ids), n_tokens=len(ids), steps=())
    generation._follow(nn.Identity(), checkpoint.tokenizer, found, lambda *_: iter(ids))
    assert capfd.readouterr().out == "It is a truthné 🙂 end\n\n"


def test_a_wrong_token_is_reported_with_both_tokens_and_the_margin(
    model: LM, checkpoint: Checkpoint, capfd: pytest.CaptureFixture[str]
) -> None:
    out = failing(capfd, model, checkpoint, changed(5, lambda token: (token + 1) % 300))
    step = checkpoint.goldens[0].steps[5]
    assert "0 of 3 texts are the reference's" in out
    assert "token 5: " in out and f"(id {(step.token + 1) % 300}), where the reference has " in out
    assert f"(id {step.token})" in out and f"{step.margin:.4g} below" in out
    assert "a bug, not a near-tie" in out and "`compare_layers(LM)`, with the class, finds where" in out
    assert "weights are not" not in out
    assert "5 of 12 tokens agree" in out


def test_only_the_first_failure_is_explained(
    model: LM, checkpoint: Checkpoint, capfd: pytest.CaptureFixture[str]
) -> None:
    out = failing(capfd, model, checkpoint, changed(5, lambda token: (token + 1) % 300))
    assert out.count("where the reference has") == 1 and out.count("tokens agree") == 3


def with_goldens(checkpoint: Checkpoint, *goldens: golden.Golden) -> Checkpoint:
    """The checkpoint with other golden generations."""
    return type("Other", (Checkpoint,), {"goldens": goldens})(checkpoint.entry, checkpoint.folder, checkpoint.source)


def with_a_near_tie(checkpoint: Checkpoint, place: int) -> Checkpoint:
    """The checkpoint as if the reference had been undecided at one place of its first generation."""
    first = checkpoint.goldens[0]
    steps = [replace(step, margin=1e-5) if i == place else step for i, step in enumerate(first.steps)]
    return with_goldens(checkpoint, replace(first, steps=tuple(steps)))


def test_the_second_choice_at_a_near_tie_is_rounding_and_passes(
    model: LM, checkpoint: Checkpoint, capfd: pytest.CaptureFixture[str]
) -> None:
    runner_up = checkpoint.goldens[0].steps[4].runner_up
    check_generation(model, with_a_near_tie(checkpoint, 4), generate=changed(4, lambda _: runner_up))
    out = capfd.readouterr().out
    assert "1 of 1 texts" in out and "near-tie: rounding decides it" in out and "4 of 12 tokens agree" in out


def test_a_third_choice_at_a_near_tie_is_a_bug(
    model: LM, checkpoint: Checkpoint, capfd: pytest.CaptureFixture[str]
) -> None:
    step = checkpoint.goldens[0].steps[4]
    third = next(i for i in range(300) if i not in (step.token, step.runner_up))
    out = failing(capfd, model, with_a_near_tie(checkpoint, 4), changed(4, lambda _: third))
    assert "not its second choice: a bug" in out


def test_the_second_choice_far_from_a_tie_is_a_bug(
    model: LM, checkpoint: Checkpoint, capfd: pytest.CaptureFixture[str]
) -> None:
    runner_up = checkpoint.goldens[0].steps[4].runner_up
    out = failing(capfd, model, checkpoint, changed(4, lambda _: runner_up))
    assert "far more than rounding moves a logit: a bug" in out


def test_a_near_tie_in_bfloat16_asks_for_float32(
    model: LM, checkpoint: Checkpoint, capfd: pytest.CaptureFixture[str]
) -> None:
    runner_up = checkpoint.goldens[0].steps[4].runner_up
    ids = iter([*(checkpoint.goldens[0].new_ids or ())[:4], runner_up])
    out = failing(capfd, model.bfloat16(), with_a_near_tie(checkpoint, 4), lambda *_: ids)
    assert "In bfloat16 that is a near-tie" in out and "Compare in float32" in out


def too_few(model: nn.Module, ids: Tensor, n: int) -> Iterator[int]:
    return generate(model, ids, n - 2)


def without_end(model: nn.Module, ids: Tensor, n: int) -> Iterator[int]:
    yield from generate(model, ids, n)
    while True:
        yield 1


def with_prompt(model: nn.Module, ids: Tensor, n: int) -> list[int]:
    return [*ids[0].tolist(), *generate(model, ids, n)]


def raises(model: nn.Module, ids: Tensor, n: int) -> Iterator[int]:
    yield next(generate(model, ids, n))
    raise ValueError("too bad")


def stub(model: nn.Module, ids: Tensor, n: int) -> Iterator[int]:
    raise NotImplementedError()


def floats(model: nn.Module, ids: Tensor, n: int) -> Iterator[float]:
    return (float(token) for token in generate(model, ids, n))


def logits(model: nn.Module, ids: Tensor, n: int) -> Iterator[Tensor]:
    yield model(ids)[0, -1]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (too_few, "it was asked for 12 tokens, and stopped after 10"),
        (without_end, "it was asked for 12 tokens, and goes on after them"),
        (with_prompt, "it returns the prompt too; return only the new tokens"),
        (raises, "it raised ValueError after 1 tokens:"),
        (stub, "it is not written yet"),
        (floats, "token 0 is a float, where a whole number belongs"),
        (logits, "token 0 is a tensor of shape [300], where a whole number belongs"),
        (lambda model, ids, n: None, "generate returned None; does it `yield` each token?"),
        (lambda model, ids, n: "text", "generate gave a str, where token ids belong"),
        (lambda model, ids, n: 5, "generate gave a int, where token ids belong"),
        (lambda model, ids, n: [4711] * n, "token 0 is 4711, but the vocabulary has 300 entries"),
        (lambda model, ids: [1], "it raised TypeError after 0 tokens:"),
    ],
)
def test_what_is_wrong_with_generate_is_said(
    model: LM, checkpoint: Checkpoint, capfd: pytest.CaptureFixture[str], wrong: Callable[..., Any], words: str
) -> None:
    assert words in failing(capfd, model, checkpoint, wrong)


def test_a_traceback_shows_the_learners_lines_only(
    model: LM, checkpoint: Checkpoint, capfd: pytest.CaptureFixture[str]
) -> None:
    out = failing(capfd, model, checkpoint, raises)
    assert 'in raises:  raise ValueError("too bad")' in out
    assert "generation.py" not in out and "Traceback" not in out


def test_a_model_that_does_not_fit_is_explained(checkpoint: Checkpoint, capfd: pytest.CaptureFixture[str]) -> None:
    class Narrow(LM):
        def __init__(self, config: Config) -> None:
            super().__init__(config.replace(n_embd=16))

    out = failing(capfd, Narrow, checkpoint, generate)
    assert "does not fit this model" in out and "`wte.weight` has shape [300, 16]" in out


def test_weights_that_were_never_loaded_are_named_first(
    checkpoint: Checkpoint, capfd: pytest.CaptureFixture[str]
) -> None:
    out = failing(capfd, LM(checkpoint.config), checkpoint, generate)
    report = out[out.index("austen-gpt2   ") :].splitlines()
    assert "This model's weights are not austen-gpt2's" in report[1]
    assert 'load_checkpoint("austen-gpt2").load_into(model)' in report[1]
    assert "compare_layers" not in out


def test_weights_in_another_dtype_are_still_the_checkpoints(model: LM, checkpoint: Checkpoint) -> None:
    assert checkpoint.unlike(model) is None
    assert checkpoint.unlike(model.bfloat16()) is None
    with torch.no_grad():
        model.ln_f.bias += 1  # type: ignore[misc]
    assert checkpoint.unlike(model) == "ln_f.bias"


@pytest.mark.parametrize("generate", [generate, too_few])
def test_every_part_of_the_model_is_left_in_its_own_mode(
    model: LM, checkpoint: Checkpoint, generate: Callable[..., Any]
) -> None:
    model.train()
    model.h[1].eval()
    before = [module.training for module in model.modules()]
    seen = []

    def watched(model: nn.Module, ids: Tensor, n: int) -> Iterator[int]:
        seen.append(any(module.training for module in model.modules()))
        return generate(model, ids, n)

    with contextlib.suppress(CheckFailed):
        check_generation(model, checkpoint, generate=watched)
    assert seen == [False, False, False]
    assert [module.training for module in model.modules()] == before


def test_what_a_learner_prints_to_stderr_is_no_failure(
    model: LM, checkpoint: Checkpoint, capfd: pytest.CaptureFixture[str]
) -> None:
    import sys

    def chatty(model: nn.Module, ids: Tensor, n: int) -> Iterator[int]:
        print("hm", file=sys.stderr)
        return generate(model, ids, n)

    check_generation(model, checkpoint, generate=chatty)
    assert capfd.readouterr().err == ""


def test_while_grading_points_are_returned_in_proportion(
    model: LM, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    calls = iter(range(3))

    def wrong_once(model: nn.Module, ids: Tensor, n: int) -> Iterator[int]:
        return too_few(model, ids, n) if next(calls) == 1 else generate(model, ids, n)

    assert check_generation(model, checkpoint, generate=generate, points=3) == 3
    assert check_generation(model, checkpoint, generate=wrong_once, points=3) == 2
    assert check_generation(LM, checkpoint, generate=stub, points=3) == 0
    assert check_generation(None, checkpoint, generate=stub, points=3) == 0


# Where only the text is known, and where the weights are not here


def test_a_known_text_is_compared_as_text(model: LM, checkpoint: Checkpoint, capfd: pytest.CaptureFixture[str]) -> None:
    text = checkpoint.tokenizer.decode(list(checkpoint.goldens[0].new_ids or ()))
    known = golden.Golden(PROMPTS[0], None, None, text, LENGTH, "a public notebook")
    check_generation(model, with_goldens(checkpoint, known), generate=generate)
    other = replace(known, text=text[:-1] + "\N{SNOWMAN}")
    out = failing(capfd, model, with_goldens(checkpoint, other), generate)
    assert "the reference's with '\N{SNOWMAN}'" in out and "not recorded" in out


def test_absent_weights_are_skipped_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert check_generation(LM, "gpt2", generate=generate) is None
    printed = capfd.readouterr()
    assert printed.err == "" and re.fullmatch(r"Skipped: gpt2 is not on this machine.*\n", printed.out)
    assert check_generation(LM, load_checkpoint("gpt2", optional=True), generate=generate) is None


def test_the_verdict_travels_with_the_report(
    model: LM, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(generation, "show", lambda lines, verdict: shown.append(verdict))
    check_generation(model, checkpoint, generate=generate, points=3)
    assert json.loads(json.dumps(shown[0])) == {
        "exercise": "austen-gpt2",
        "passed": True,
        "points": 3,
        "max_points": 3,
        "cases": [{"name": prompt, "passed": True} for prompt in PROMPTS],
        "summary": "austen-gpt2   3 of 3 texts are the reference's",
    }
