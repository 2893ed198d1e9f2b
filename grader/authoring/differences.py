"""How two recordings of a lesson differ: whether the one that is stored is what would be recorded now."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from torch import Tensor, nn

from grader.calls import Call
from grader.checks.judge.known_mistakes import known_in
from grader.recordings.answers import Answer, MistakeAnswer
from grader.recordings.recording import Recording
from grader.recordings.tasks import Task, TaskCase
from grader.recordings.traces import Trace
from grader.tolerance import agree


def differences(old: Recording, new: Recording) -> list[str]:
    """How two recordings of a lesson differ, a line each.

    Values are compared within tolerance, not bit by bit, and a mistake that amplifies rounding with as much more room
    as was measured for the old recording. What was measured is not compared, nor in which other ways a case is asked.
    """
    found = []
    for name in dict.fromkeys((*old.exercises, *new.exercises)):
        if name not in old.exercises or name not in new.exercises:
            found.append(f"{name} is in one of them only")
            continue
        if not equal(as_drawn(old.task(name)), as_drawn(new.task(name))):
            found.append(f"{name}: the cases, their inputs or their weights are different")
        elif what := _answers_differ(old.answer(name), new.answer(name)):
            found.append(f"{name}: {what}")
    if not found and not equal(old.trace, new.trace):
        found.append("the trace is different")
    return found


def as_drawn(task: Task) -> Task:
    """A task without what was measured: in which other ways its cases are asked."""
    return replace(task, cases=tuple(replace(case, variants=()) for case in task.cases))


def same_answer(old: Answer, new: Answer) -> bool:
    """Whether two answers say the same is right, within each case's tolerance. Mistakes and noise play no part."""
    kept = [replace(answer, outputs=(), mistakes=(), noise=(), ends=(), large=(), other=()) for answer in (old, new)]
    outputs = zip(old.outputs, new.outputs, old.tolerances, strict=True)
    return equal(*kept) and all(agree(a, b, tolerance) for a, b, tolerance in outputs)


def _answers_differ(old: Answer, new: Answer) -> str:
    """What differs between two answers; empty where nothing does."""
    if not same_answer(old, new):
        return "the right outputs or the points are different"
    if [(m.name, m.hint) for m in old.mistakes] != [(m.name, m.hint) for m in new.mistakes]:
        return "the mistakes' names or hints are different"
    for mistake, other in zip(old.mistakes, new.mistakes, strict=True):
        for i, output in enumerate(other.outputs):
            known = known_in(mistake, i, old.tolerances[i])
            if known is not None and not agree(output, known.output, known.tolerance):
                return f"the mistake {mistake.name!r} gives something else in case {i + 1}"
    return ""


def equal(a: Any, b: Any) -> bool:
    """Whether two things of a recording are the same, tensors within tolerance."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return agree(a, b)
    if isinstance(a, nn.Module) and isinstance(b, nn.Module):
        return equal(dict(a.state_dict()), dict(b.state_dict()))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, Call | TaskCase | MistakeAnswer | Task | Answer | Trace) and type(a) is type(b):
        return all(equal(getattr(a, field.name), getattr(b, field.name)) for field in fields(a))
    return bool(a == b)
