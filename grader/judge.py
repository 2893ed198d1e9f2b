"""Compare what a probe observed with what is right, and give a verdict. Runs no learner's code."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from grader.diagnose import Context, Difference, describe, difference, known_as
from grader.probe import Fed, Observation, PartKey, Replaced, layout_between, part_of
from grader.recording import Answer, MistakeAnswer, Task, TaskCase
from grader.tolerance import Tolerance, agree
from grader.tracing import Call


@dataclass(frozen=True)
class Finding:
    """Why a case is not right: what is wrong in a sentence, what to look at, and lines of detail.

    mistake: the name of the known mistake it is. carried: the composite's own code is right, and it is wrong
    only because a part is.
    """

    what: str
    hint: str = ""
    detail: tuple[str, ...] = ()
    mistake: str = ""
    carried: bool = False


@dataclass(frozen=True)
class CaseVerdict:
    """A case: right or not, to the last bit or not, how far off, and why."""

    name: str
    right: bool
    exact: bool = False
    difference: Difference | None = None
    finding: Finding | None = None
    remarks: tuple[str, ...] = ()

    @property
    def earned(self) -> bool:
        """Whether the case's points are given: for a right answer, and for one spoilt by a part alone."""
        return self.right or (self.finding is not None and self.finding.carried)


@dataclass(frozen=True)
class Verdict:
    """What the judge found for an exercise."""

    exercise: str
    cases: tuple[CaseVerdict, ...]
    max_points: int

    @property
    def right(self) -> bool:
        """Whether every case is right."""
        return all(case.right for case in self.cases)

    @property
    def exact(self) -> bool:
        """Whether every case equals the reference bit for bit."""
        return all(case.exact for case in self.cases)

    @property
    def points(self) -> float:
        """Points earned, split evenly between the cases."""
        return self.max_points * sum(case.earned for case in self.cases) / len(self.cases)

    @property
    def first_wrong(self) -> CaseVerdict | None:
        """The first case that is not right."""
        return next((case for case in self.cases if not case.right), None)


@dataclass(frozen=True)
class PartEvidence:
    """What was observed of a composite's parts in one case, beside what the reference's were given and gave back."""

    exercises: Mapping[str, str]
    calls: Sequence[Call]
    fed: Mapping[PartKey, Fed]
    replaced: Replaced


def judge(
    task: Task,
    answer: Answer,
    observations: Sequence[Observation],
    fed: Sequence[Mapping[PartKey, Fed]] = (),
    replaced: Sequence[Replaced] = (),
) -> Verdict:
    """The verdict on what a probe observed. An observation that is missing counts as wrong.

    fed, replaced: for a composite, what `feed_parts` and `replace_parts` observed, where they ran.
    """
    by_case = {observation.case: observation for observation in observations}
    mistakes = _possible_mistakes(task, answer, by_case)
    cases = []
    for i, case in enumerate(task.cases):
        observation = by_case.get(case.name)
        if observation is None:
            finding = Finding("the case did not run")
            cases.append(CaseVerdict(case.name, right=False, finding=finding))
            continue
        context = Context(answer.axes, answer.sizes[i], _first_float(case), answer.tolerances[i])
        parts = PartEvidence(task.parts, answer.part_calls[i], fed[i], replaced[i]) if fed and replaced else None
        outputs = [(mistake, mistake.outputs[i]) for mistake in mistakes]
        cases.append(_judge_case(observation, answer.outputs[i], context, outputs, parts))
    return Verdict(task.exercise, tuple(cases), answer.points)


def _first_float(case: TaskCase) -> Tensor | None:
    return next((arg for arg in case.args if isinstance(arg, Tensor) and arg.is_floating_point()), None)


def _possible_mistakes(task: Task, answer: Answer, by_case: Mapping[str, Observation]) -> list[MistakeAnswer]:
    """The known mistakes, those first that explain the most cases."""

    def explained(mistake: MistakeAnswer) -> int:
        count = 0
        for case, output, tolerance in zip(task.cases, mistake.outputs, answer.tolerances, strict=True):
            got = by_case[case.name].output if case.name in by_case else None
            count += got is not None and agree(got, output, tolerance)
        return count

    return sorted(answer.mistakes, key=explained, reverse=True)


def _judge_case(
    observation: Observation,
    want: Tensor,
    context: Context,
    mistakes: Sequence[tuple[MistakeAnswer, Tensor]],
    parts: PartEvidence | None,
) -> CaseVerdict:
    got, name = observation.output, observation.case
    if got is None:
        problem = observation.problem
        finding = Finding(problem.message, detail=problem.detail) if problem else Finding("it gave no output")
        carried = _find_in_parts(parts, want, context) if parts else None
        if carried is not None and carried.carried:
            finding = carried
        return CaseVerdict(name, right=False, finding=finding, remarks=observation.remarks)
    tolerance = context.tolerance
    assert tolerance is not None
    measured = difference(got, want, tolerance) if got.shape == want.shape else None
    if agree(got, want, tolerance):
        misbehaviour = _misbehaviour(observation, tolerance)
        exact = want.is_floating_point() and torch.equal(got, want)
        return CaseVerdict(name, misbehaviour is None, exact, measured, misbehaviour, observation.remarks)
    finding = _find(observation, got, want, context, mistakes, parts)
    return CaseVerdict(name, right=False, difference=measured, finding=finding, remarks=observation.remarks)


def _misbehaviour(observation: Observation, tolerance: Tolerance) -> Finding | None:
    """What is wrong with a module whose output is right."""
    got, again = observation.output, observation.again
    if observation.changed_input is not None:
        return Finding(
            "the output is right, but the input was modified in place",
            "Whoever called the module still needs its input: a residual connection does. Look for `+=`, or a name"
            " that ends in `_`.",
        )
    if got is not None and again is not None and not agree(again, got, tolerance):
        return _not_deterministic()
    if observation.no_gradient:
        names = ", ".join(f"`{name}`" for name in observation.no_gradient[:4])
        more = len(observation.no_gradient) - 4
        return Finding(
            f"the output is right, but no gradient reaches {names}" + (f" and {more} more" if more > 0 else ""),
            "It could not be trained. Look for `.detach()`, `.data`, `.item()`, `no_grad`, or a tensor made anew"
            " from numbers.",
        )
    return None


def _not_deterministic() -> Finding:
    return Finding(
        "running it twice on the same input gives two different outputs",
        "Look for something random that stays on in eval mode, or for state that the first call leaves behind.",
    )


def _find(
    observation: Observation,
    got: Tensor,
    want: Tensor,
    context: Context,
    mistakes: Sequence[tuple[MistakeAnswer, Tensor]],
    parts: PartEvidence | None,
) -> Finding:
    """Why an output is wrong: a known mistake, a wrong part, wrong wiring, or what it looks like."""
    tolerance = context.tolerance
    for mistake, output in mistakes:
        if agree(got, output, tolerance) and not agree(output, want, tolerance):
            return Finding(f"This is what comes out when {mistake.name}.", mistake.hint, mistake=mistake.name)
    again = observation.again
    if again is not None and again.shape == got.shape and not agree(again, got, tolerance):
        return _not_deterministic()
    by_parts = _find_in_parts(parts, want, context) if parts else None
    if by_parts is not None:
        return by_parts
    if observation.first_nan is not None and not want.isnan().any():
        return Finding(f"there is NaN in the output; it first appears {observation.first_nan}")
    sentence = describe(got, want, context)
    if sentence is None and got.is_floating_point() and got.isnan().any():
        sentence = "there is NaN in the output"
    changed = "the input was modified in place" if observation.changed_input is not None else None
    return Finding(
        sentence or changed or "it matches no known mistake", detail=(changed,) if sentence and changed else ()
    )


def _find_in_parts(parts: PartEvidence, want: Tensor, context: Context) -> Finding | None:
    """Tell a composite's own error from its parts'."""
    own = parts.replaced.output
    own_right = own is not None and agree(own, want, context.tolerance)
    culprits = [call for call in parts.calls if not _part_right(call, parts.fed.get((call.path, call.index)))]
    miswired = next((call for call in parts.calls if _given_wrong(call, parts.replaced)), None)
    if miswired is not None:
        return _miswired(miswired, parts, context)
    all_called = all((call.path, call.index) in parts.replaced.given for call in parts.calls)
    if own_right and all_called and culprits:
        return _carried_forward(culprits, parts)
    if own is not None and not own_right and culprits:
        what = describe(own, want, context) or "its own steps give something else"
        besides = f"Besides, {_exercise_names(culprits, parts)} is not right yet."
        return Finding(f"Even with right parts, the result is wrong: {what}", detail=(besides,))
    return None


def _part_right(call: Call, fed: Fed | None) -> bool:
    """Whether the learner's part gives the reference's output for the reference's input; True where unknown."""
    if fed is None or call.output is None:
        return True
    return fed.output is not None and (
        agree(fed.output, call.output) or layout_between(fed.output, call.output) is not None
    )


def _given_wrong(call: Call, replaced: Replaced) -> bool:
    """Whether a part was given something else than the reference's; False where it was not called at all."""
    given = replaced.given.get((call.path, call.index))
    if given is None or call.input is None:
        return False
    return not agree(given, call.input) and layout_between(given, call.input) is None


def _exercise_names(calls: Sequence[Call], parts: PartEvidence) -> str:
    names = dict.fromkeys(part_of(parts.exercises, call.path) or call.path for call in calls)
    return " and ".join(f"`{name}`" for name in names)


def _carried_forward(culprits: Sequence[Call], parts: PartEvidence) -> Finding:
    paths = list(dict.fromkeys(f"`{call.path}`" for call in culprits))
    shown = ", ".join(paths[:3]) + (", ..." if len(paths) > 3 else "")
    verb = "is" if len(paths) == 1 else "are"
    problems = [parts.fed[call.path, call.index].problem for call in culprits]
    messages = dict.fromkeys(problem.message for problem in problems if problem is not None)
    return Finding(
        f"Your code here is right. It fails because {shown} {verb} not:"
        " with the reference's parts, the output is right.",
        f"Mend {_exercise_names(culprits, parts)} first, then run this check again.",
        detail=tuple(messages)[:1],
        carried=True,
    )


def _miswired(call: Call, parts: PartEvidence, context: Context) -> Finding:
    """What a part was given instead of what the reference gives it."""
    given, right = parts.replaced.given[call.path, call.index], call.input
    assert given is not None and right is not None
    known: dict[str, Tensor] = {}
    if context.input is not None:
        known["the module's own input"] = context.input
    for other in parts.calls:
        if other.output is not None:
            known.setdefault(f"the output of `{other.path}`", other.output)
        if other.input is not None:
            known.setdefault(f"the hidden state before `{other.path}`", other.input)
    name = known_as(given, known)
    if name:
        what = f"`{call.path}` was given {name}, and that is not what it needs"
    else:
        axes = context.axes if given.ndim == len(context.axes) else ()
        looks = describe(given, right, Context(axes, context.sizes, context.input))
        what = f"`{call.path}` was given something else than it should be" + (f": {looks}" if looks else "")
    return Finding(what, f"Look at what is computed between the module's input and `{call.path}`.")
