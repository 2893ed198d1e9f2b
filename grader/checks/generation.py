"""Does a model write what the reference wrote? Greedy, token for token, with the text shown as it comes."""

import contextlib
import operator
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from torch import Tensor, nn

from grader.checkpoints import Golden, load_checkpoint
from grader.checkpoints.checkpoint import Checkpoint
from grader.checks.check import autograding
from grader.checks.probe.running import learner_traceback
from grader.errors import CheckFailed, GraderError
from grader.instruments.progress import steps
from grader.report import Line, show
from grader.tolerance import tolerance_for

Generate = Callable[..., Any]
SECONDS_BETWEEN_FLUSHES = 0.2  # the text is shown as it comes, and not token by token
LONGEST_PROMPT = 100  # characters of a prompt in a report


@dataclass(frozen=True)
class Attempt:
    """What one golden generation came to: `right` tokens agree; `problem` says in lines what stopped it.

    passed: also where it stopped at a near-tie, at which another right program may choose otherwise.
    advice: what to do about it, where that can be told from the token.
    """

    golden: Golden
    right: int
    passed: bool
    problem: tuple[Line, ...] = ()
    advice: str = ""


def check_generation(
    model: Any, checkpoint: str | Checkpoint | None, *, generate: Generate, points: float | None = None
) -> float | None:
    """Compare what the learner's `generate` writes with every golden generation of a checkpoint.

    model: a model that holds the checkpoint's weights; or its class, which is built and loaded here.
    checkpoint: its name; where it can't be had now one line says so and nothing is checked; nor is it for None.
    generate: called as ``generate(model, ids, n)``, ids [1, T] int64; gives n whole numbers, one by one or at once.
    Raises CheckFailed where a token differs. When nbgrader grades and `points` are given it never raises, and
    returns the points for the share of generations that agree.
    """
    if isinstance(checkpoint, str):
        checkpoint = load_checkpoint(checkpoint, optional=True)
    if checkpoint is None:
        return None
    if not checkpoint.goldens:
        raise GraderError(f"{checkpoint.name} has no recorded generations to compare with.")
    foreign = ""
    try:
        with contextlib.redirect_stderr(sys.stdout), torch.no_grad():  # nbgrader takes stderr for a failure
            ready = _ready(model, checkpoint)
            with _in_eval_mode(ready):
                goldens = steps(checkpoint.goldens, "texts")
                attempts = [_follow(ready, checkpoint.tokenizer, golden, generate) for golden in goldens]
            if not all(attempt.passed for attempt in attempts):
                foreign = _foreign_weights(ready, checkpoint)
    except GraderError as error:
        problem = tuple(Line(line, "bad") for line in str(error).splitlines())
        attempts = [Attempt(golden, 0, False, problem) for golden in checkpoint.goldens]
    share = sum(attempt.passed for attempt in attempts) / len(attempts)
    lines = report(checkpoint.name, attempts, foreign)
    show(lines, _summary(checkpoint.name, attempts, points or 0.0, lines[0].text))
    if points is not None and autograding():
        return share * points
    if share < 1:
        raise CheckFailed(f"{checkpoint.name} is not right yet: see the report above.")
    return None


def _ready(model: Any, checkpoint: Checkpoint) -> nn.Module:
    """The model; a class is built with the checkpoint's config and loaded."""
    if isinstance(model, nn.Module):
        return model
    if not callable(model):
        raise GraderError(f"check_generation was given a {type(model).__name__}: hand over your model, or its class.")
    try:
        ready: nn.Module = checkpoint.build(model)
    except GraderError:
        raise
    except Exception as error:  # learner's code may raise anything
        raise GraderError("\n".join(["the model can't be built:", *learner_traceback(error)])) from error
    return ready


@contextlib.contextmanager
def _in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Every module of the model in eval mode for a while; then in the mode that each was in."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


def _foreign_weights(model: nn.Module, checkpoint: Checkpoint) -> str:
    """What to do where the model's weights are not the checkpoint's; "" where they are."""
    name = checkpoint.unlike(model)
    if name is None:
        return ""
    load = f'load_checkpoint("{checkpoint.name}").load_into(model)'
    return f"This model's weights are not {checkpoint.name}'s (`{name}` differs): call `{load}` first."


# One generation


class _NotTokens(Exception):
    """What generate gave are no token ids."""


def _follow(model: nn.Module, tokenizer: Tokenizer, golden: Golden, generate: Generate) -> Attempt:
    """Let `generate` write for as long as it agrees with the reference, showing the text."""
    prompt = list(golden.prompt_ids or tokenizer.encode(golden.prompt).ids)
    print(golden.prompt or tokenizer.decode(prompt), end="", flush=True)
    try:
        attempt = _compare(model, tokenizer, golden, _tokens(generate, model, prompt, golden.n_tokens))
    finally:
        print("\n", flush=True)
    return attempt


def _compare(model: nn.Module, tokenizer: Tokenizer, golden: Golden, tokens: Iterator[int]) -> Attempt:
    pieces = DecodeStream(skip_special_tokens=False)
    vocabulary = tokenizer.get_vocab_size()
    new: list[int] = []
    shown = time.monotonic()
    stopped: tuple[Line, ...] = ()
    try:
        for token in tokens:
            if len(new) == golden.n_tokens:
                wanted = f"it was asked for {golden.n_tokens} tokens, and goes on after them"
                return Attempt(golden, len(new), False, (Line(wanted, "bad"),))
            if not 0 <= token < vocabulary:
                what = f"token {len(new)} is {token}, but the vocabulary has {vocabulary:,} entries"
                return Attempt(golden, len(new), False, (Line(what, "bad"),))
            new.append(token)
            # Each flush is an output of its own in a notebook that is run from the command line.
            due = time.monotonic() - shown > SECONDS_BETWEEN_FLUSHES
            print(pieces.step(tokenizer, token) or "", end="", flush=due)
            shown = time.monotonic() if due else shown
            different = _difference(golden, tokenizer, new, model)
            if different is not None:
                return different
    except _NotTokens as error:
        stopped = (Line(str(error), "bad"),)
    except Exception as error:  # learner's code may raise anything
        stopped = _raised(error, len(new))
    if not stopped and len(new) < golden.n_tokens:
        stopped = (Line(f"it was asked for {golden.n_tokens} tokens, and stopped after {len(new)}", "bad"),)
    return Attempt(golden, len(new), not stopped, stopped)


def _tokens(generate: Generate, model: nn.Module, prompt: Sequence[int], n_tokens: int) -> Iterator[int]:
    """What generate gives, as whole numbers; at most one more than asked for is taken."""
    device = next((parameter.device for parameter in model.parameters()), None)
    given = generate(model, torch.tensor([prompt], device=device), n_tokens)
    if given is None:
        raise _NotTokens("generate returned None; does it `yield` each token?")
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise _NotTokens(f"generate gave a {type(given).__name__}, where token ids belong")
    if isinstance(given, Tensor):
        given = given.flatten().tolist()
    if isinstance(given, Sequence) and len(given) == len(prompt) + n_tokens and list(given[: len(prompt)]) == prompt:
        raise _NotTokens("it returns the prompt too; return only the new tokens")
    for place, item in enumerate(given):
        try:
            token = operator.index(item)
        except (TypeError, ValueError, RuntimeError):
            kind = f"a tensor of shape {list(item.shape)}" if isinstance(item, Tensor) else f"a {type(item).__name__}"
            raise _NotTokens(f"token {place} is {kind}, where a whole number belongs") from None
        yield token
        if place == n_tokens:
            break


def _raised(error: Exception, tokens: int) -> tuple[Line, ...]:
    if isinstance(error, NotImplementedError) and not str(error):
        return (Line("it is not written yet: `raise NotImplementedError()` was reached", "bad"),)
    head = Line(f"it raised {type(error).__name__} after {tokens} tokens:", "bad")
    return (head, *(Line(line, "code", 1) for line in learner_traceback(error)))


# The first difference

_NO_MARGIN = Line("How sure the reference was is not recorded: it may be a near-tie, which is rare.", "muted")


def _dtype(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def _difference(golden: Golden, tokenizer: Tokenizer, new: Sequence[int], model: nn.Module) -> Attempt | None:
    """Why the last of `new` is not the reference's; None where it is."""
    step, token = len(new) - 1, new[-1]
    if golden.new_ids is None:
        return _text_difference(golden, tokenizer, new)
    want = golden.new_ids[step]
    if token == want:
        return None
    both = f"{_shown(tokenizer, token)}, where the reference has {_shown(tokenizer, want)}"
    lines = [Line(f"token {step}: {both}", "bad")]
    reference = golden.steps[step] if golden.steps else None
    if reference is None:
        return Attempt(golden, step, False, (*lines, _NO_MARGIN))
    runner_up = _shown(tokenizer, reference.runner_up)
    lines.append(Line(f"The reference's second choice was {runner_up}, {reference.margin:.4g} below in its logit."))
    dtype = _dtype(model)
    near_tie = reference.near_tie(tolerance_for(dtype).relative)
    if not near_tie or token != reference.runner_up:
        why = "not its second choice" if token != reference.runner_up else "far more than rounding moves a logit"
        where = f"`compare_layers({type(model).__name__})`, with the class, finds where."
        return Attempt(golden, step, False, tuple(lines), f"That is {why}: a bug, not a near-tie. {where}")
    if dtype == torch.float32:
        why = "That is a near-tie: rounding decides it, and other right programs choose as you do. Nothing to fix."
        return Attempt(golden, step, True, (replace(lines[0], kind="text"), lines[1], Line(why, "muted")))
    name = str(dtype).removeprefix("torch.")
    advice = f"In {name} that is a near-tie: rounding decides it. Compare in float32 to be sure."
    return Attempt(golden, step, False, tuple(lines), advice)


def _text_difference(golden: Golden, tokenizer: Tokenizer, new: Sequence[int]) -> Attempt | None:
    """As `_difference`, where only the reference's text is known, and not its tokens."""
    want = golden.text or ""
    got = tokenizer.decode(list(new), skip_special_tokens=False).rstrip("\ufffd")
    if want.startswith(got) or got.startswith(want):
        return None
    same = next(place for place, (a, b) in enumerate(zip(want, got, strict=False)) if a != b)
    both = f"goes on with {got[same:]!r}, the reference's with {want[same : same + 20]!r}"
    return Attempt(golden, len(new) - 1, False, (Line(f"token {len(new) - 1}: the text {both}", "bad"), _NO_MARGIN))


def _shown(tokenizer: Tokenizer, token: int) -> str:
    return f"{tokenizer.decode([token], skip_special_tokens=False)!r} (id {token})"


# The report


def report(name: str, attempts: Sequence[Attempt], foreign: str = "") -> list[Line]:
    """What a person sees: a line a generation, and what is wrong with the first that is wrong.

    foreign: what to do first where the weights are other ones; a token says nothing about the program then.
    """
    right = sum(attempt.passed for attempt in attempts)
    whole = right == len(attempts)
    lines = [Line(f"{name}   {right} of {len(attempts)} texts are the reference's", "ok" if whole else "bad")]
    if foreign:
        lines.append(Line(foreign, "hint", 1))
    explained = False
    for attempt in attempts:
        prompt = attempt.golden.prompt
        agree = f"{attempt.right} of {attempt.golden.n_tokens} tokens agree"
        lines.append(Line(f"{_shortened(prompt)!r}: {agree}", "ok" if attempt.passed else "bad", 1))
        if attempt.problem and (attempt.passed or not explained):
            lines.extend(replace(line, indent=line.indent + 2) for line in attempt.problem)
            if attempt.advice and not foreign:
                lines.append(Line(attempt.advice, "hint", 2))
            explained = explained or not attempt.passed
    return lines


def _shortened(prompt: str) -> str:
    """A long prompt's end, where prompts through a chat template differ."""
    return prompt if len(prompt) <= LONGEST_PROMPT else f"... {prompt[-LONGEST_PROMPT:]}"


def _summary(name: str, attempts: Sequence[Attempt], points: float, headline: str) -> dict[str, Any]:
    passed = [attempt.passed for attempt in attempts]
    return {
        "exercise": name,
        "passed": all(passed),
        "points": points * sum(passed) / len(passed),
        "max_points": points,
        "cases": [{"name": attempt.golden.prompt, "passed": ok} for attempt, ok in zip(attempts, passed, strict=True)],
        "summary": headline,
    }
