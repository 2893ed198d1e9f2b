"""Cases that can't see an error: where one case shows it, another whose tolerance is wider than it proves nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from grader.checks.judge.verdict import CaseVerdict
from grader.checks.observation import Observation
from grader.recordings.answers import Answer
from grader.tolerance import distance

REMARK = "it can't see the error that another case shows, so it earns nothing"


def mark_insensitive(
    cases: Sequence[CaseVerdict], answer: Answer, observed: Mapping[str, Observation]
) -> tuple[CaseVerdict, ...]:
    """The cases, of which those are marked that are right and would be with the error that the wrong ones show.

    An error is seen in a number alone: where a wrong case gave no output, another shape, or NaN, none is marked. An
    error that a part brought in is the part's, and marks nothing.
    """
    errors = [
        distance(output, want) if (output := _output(case, observed)) is not None else float("inf")
        for case, want in zip(cases, answer.outputs, strict=True)
        if not case.right and not (case.finding is not None and case.finding.carried)
    ]
    if not errors or max(errors) == float("inf"):
        return tuple(cases)
    return tuple(
        replace(case, insensitive=True, remarks=(*case.remarks, REMARK))
        if case.right and tolerance.share == 1 and max(errors) <= tolerance.relative
        else case
        for case, tolerance in zip(cases, answer.tolerances, strict=True)
    )


def _output(case: CaseVerdict, observed: Mapping[str, Observation]) -> Tensor | None:
    return observed[case.name].output if case.name in observed else None
