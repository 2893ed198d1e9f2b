"""Cases that count something: how many rows are computed, how much memory is taken.

Their answers are a few whole numbers, often the same whatever the input. A program that computes nothing can have them
right, so they count only beside a case that shows values.
"""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from grader.checks.judge.verdict import CaseVerdict, Finding
from grader.recordings.answers import Answer
from grader.recordings.tasks import Task, TaskCase

HELD_BACK = Finding(
    "what is counted here is right; it counts once a case is right that looks at the values",
    "Mend the other cases first.",
)


def counts(case: TaskCase, first: str, output: Tensor) -> bool:
    """Whether a case counts: the solution is used otherwise than in the first case, and gives whole numbers.

    first: the first case's drive. output: what is right in the case.
    """
    return case.drive != first and not output.is_floating_point()


def hold_back_counts(task: Task, answer: Answer, cases: Sequence[CaseVerdict]) -> list[CaseVerdict]:
    """The verdicts, where no case that shows values earns its points without those for what is counted."""
    first = task.cases[0].drive
    counted = [counts(case, first, output) for case, output in zip(task.cases, answer.outputs, strict=True)]
    if any(case.earned for case, m in zip(cases, counted, strict=True) if not m):
        return list(cases)
    return [
        replace(case, right=False, exact=False, finding=HELD_BACK) if m and case.right else case
        for case, m in zip(cases, counted, strict=True)
    ]
