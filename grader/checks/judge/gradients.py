"""Whether gradients are the reference's: told from their fingerprints (see `checks.fingerprint`)."""

import math
from collections.abc import Container, Sequence

import torch
from torch import Tensor

from grader.checks.fingerprint import leaf_names
from grader.checks.judge.verdict import Finding
from grader.checks.observation import Observation
from grader.recordings.answers import Answer, MistakeAnswer
from grader.recordings.tasks import Task, part_of

# Of a gradient's root mean square. What is cut off moves it by a third and more; a right softmax by way of logsumexp
# loses 4 % where scores are far from 0.
RELATIVE = 6e-2
LEAST = 1e-4  # of the largest gradient: what is smaller is taken for rounding


def gradient_distance(got: Tensor, want: Tensor) -> Tensor:
    """How far each is from the right one, in units of its size; 0 where the reference has none: [gradients]."""
    size = want[:, 0].nan_to_num()
    size = size.clamp(min=max(LEAST * float(size.max()), torch.finfo(torch.float32).tiny))
    apart = (got - want).abs().amax(dim=1) / size
    return torch.where(want[:, 0].isnan(), 0.0, apart.nan_to_num(nan=math.inf))


def wrong_gradients(got: Tensor | None, want: Tensor | None) -> list[int]:
    """The positions of the gradients that are not the reference's; none where the reference's were not recorded."""
    if want is None:
        return []
    if got is None or got.shape != want.shape or got.dtype != want.dtype:
        return list(range(len(want)))
    return (gradient_distance(got, want) > RELATIVE).nonzero().flatten().tolist()


def unreached(task: Task, answer: Answer, index: int, names: Sequence[str]) -> tuple[str, ...]:
    """Those of the names without a gradient that the reference has one for. index: the case's.

    A router's bias for the choice has none there either: it decides which numbers are picked, and is in none of them.
    """
    want = answer.gradients[index] if answer.gradients else None
    if want is None:
        return tuple(names)
    without = {n for n, row in zip(leaf_names(task, task.cases[index]), want, strict=True) if bool(row[0].isnan())}
    return tuple(name for name in names if name not in without)


def gradient_finding(
    task: Task, answer: Answer, index: int, observation: Observation, unfinished: Container[str] = ()
) -> Finding | None:
    """What is wrong with the gradients of a case whose output is right.

    index: the case's. unfinished: the exercises that are not right by themselves: a part of theirs is to blame.
    """
    want = answer.gradients[index] if answer.gradients else None
    wrong = wrong_gradients(observation.gradients, want)
    if not wrong:
        return None
    mistake = mistake_of_gradients(observation.gradients, index, answer.mistakes)
    if mistake is not None:
        what = f"The output is right, and the gradients are those that come out when {mistake.name}."
        return Finding(what, mistake.hint, mistake=mistake.name, shipped=mistake.shipped)
    names = [leaf_names(task, task.cases[index])[i] for i in wrong]
    waits_for = _to_blame(task, answer, index, names, unfinished)
    shown = ", ".join(map(leaf_in_words, names[:4])) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    got = observation.gradients
    unknown = [n for i, n in zip(wrong, names, strict=True) if got is None or not bool(got[i, 0].isnan())]
    if not unknown and not set(names) & set(observation.no_gradient):
        return Finding(f"the output is right, but the gradient of {shown} is NaN", OF_NAN, waits_for=waits_for)
    return Finding(
        f"the output is right, but the gradient of {shown} is not the reference's",
        "Training would go astray. Look for `.detach()`, `.data`, `.item()` or `no_grad` on the way from there to the"
        " output, and in an embedding for `padding_idx`.",
        waits_for=waits_for,
    )


OF_NAN = (
    "What is masked or left out afterwards has a gradient all the same, and 0 times infinity is NaN. Look for an `exp`"
    " that overflows, a `log` or a root of 0, or a division by 0."
)


def leaf_in_words(name: str) -> str:
    """What has a gradient, for a person: a name as code has it, or which argument it is."""
    return f"the {name}" if name == "input" else name if name.startswith("argument ") else f"`{name}`"


def _to_blame(
    task: Task, answer: Answer, index: int, names: Sequence[str], unfinished: Container[str]
) -> tuple[str, ...]:
    """The unfinished exercises whose parts can have made these gradients wrong.

    A part changes the gradients of its own weights, and of what comes before it. If those of a part that is called
    after all unfinished ones are wrong too, the error is the composite's own, and nobody else is to blame.
    """
    order = list(dict.fromkeys(call.path for call in answer.part_calls[index])) if answer.part_calls else []
    last = max((i for i, path in enumerate(order) if part_of(task.parts, path) in unfinished), default=len(order))
    if any(name.startswith(f"{path}.") for path in order[last + 1 :] for name in names):
        return ()
    return tuple(sorted({name for name in task.parts.values() if name in unfinished}))


def mistake_of_gradients(got: Tensor | None, index: int, mistakes: Sequence[MistakeAnswer]) -> MistakeAnswer | None:
    """The known mistake of which only the gradients are wrong and that gives these in a case. index: the case's.

    What has no gradient with the mistake has none here either: there, `wrong_gradients` alone would let anything pass.
    """
    for mistake in mistakes:
        known = mistake.gradients[index] if mistake.gradients else None
        if got is None or known is None or wrong_gradients(got, known):
            continue
        if torch.equal(got.isnan(), known.isnan()):
            return mistake
    return None
