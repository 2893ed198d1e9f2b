"""Compare what a probe observed with what is right, and give a verdict. Runs no learner's code."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from grader.checks.composite import PartEvidence, find_in_parts
from grader.checks.diagnose import Context, describe
from grader.checks.difference import difference
from grader.checks.gradients import gradient_finding
from grader.checks.measured import hold_back_measured
from grader.checks.observation import Fed, Observation, PartKey, Replaced
from grader.checks.verdict import CaseVerdict, Finding, Verdict
from grader.recordings.answers import Answer, Known, MistakeAnswer
from grader.recordings.tasks import Task, TaskCase
from grader.tolerance import Tolerance, agree, mean_distance


def judge(
    task: Task,
    answer: Answer,
    observations: Sequence[Observation],
    fed: Sequence[Mapping[PartKey, Fed]] = (),
    replaced: Sequence[Replaced] = (),
    unfinished: Container[str] = (),
    other_classes: Mapping[str, str] = {},
) -> Verdict:
    """The verdict on what a probe observed. An observation that is missing counts as wrong.

    fed, replaced: for a composite, what `feed_parts` and `replace_parts` observed, where they ran. unfinished:
    the exercises that are not right by their own verdict: only their errors are carried forward. other_classes: the
    paths of parts that are not of the class that their exercise checks, with the name of their own.
    """
    by_case = {observation.case: observation for observation in observations}
    right = _right_cases(task, answer, by_case)
    mistakes = [] if len(right) == len(task.cases) else _by_cases_explained(task, answer, by_case)
    ruled_out = {mistake.name for mistake in mistakes if _ruled_out(mistake, answer, right)}
    mistakes.sort(key=lambda mistake: mistake.name in ruled_out)
    cases = []
    for i, case in enumerate(task.cases):
        observation = by_case.get(case.name)
        if observation is None:
            finding = Finding("the case did not run")
            cases.append(CaseVerdict(case.name, right=False, finding=finding))
            continue
        context = Context(answer.axes, answer.sizes[i], _first_float(case), answer.tolerances[i])
        parts = (
            PartEvidence(task.parts, answer.part_calls[i], fed[i], replaced[i], unfinished, other_classes, case.weights)
            if fed and replaced
            else None
        )
        # A few whole numbers are soon the same by chance: there a mistake is not named that shows where all is right.
        possible = (
            mistakes if answer.outputs[i].is_floating_point() else [m for m in mistakes if m.name not in ruled_out]
        )
        known = [(mistake, mistake.in_case(i, answer.tolerances[i])) for mistake in possible]
        outputs = [(mistake, output) for mistake, output in known if output is not None]
        verdict = _judge_case(observation, answer.outputs[i], context, outputs, parts)
        wrong = gradient_finding(task, answer, i, observation, unfinished) if i in right else None
        if wrong is not None and (verdict.right or wrong.mistake or wrong.carried):
            verdict = replace(verdict, right=False, finding=wrong)
        cases.append(verdict)
    return Verdict(task.exercise, tuple(hold_back_measured(task, answer, cases)), answer.points)


def _first_float(case: TaskCase) -> Tensor | None:
    return next((arg for arg in case.args if isinstance(arg, Tensor) and arg.is_floating_point()), None)


def _right_cases(task: Task, answer: Answer, by_case: Mapping[str, Observation]) -> list[int]:
    """The positions of the cases whose output is right."""
    found = []
    for i, (case, want, tolerance) in enumerate(zip(task.cases, answer.outputs, answer.tolerances, strict=True)):
        got = by_case[case.name].output if case.name in by_case else None
        if got is not None and agree(got, want, tolerance):
            found.append(i)
    return found


def _by_cases_explained(task: Task, answer: Answer, by_case: Mapping[str, Observation]) -> list[MistakeAnswer]:
    """The known mistakes; those that explain the most cases come first, and of these the nearest."""

    def unlike(mistake: MistakeAnswer) -> tuple[int, float]:
        explained, apart = 0, 0.0
        for i, case in enumerate(task.cases):
            got = by_case[case.name].output if case.name in by_case else None
            known = mistake.in_case(i, answer.tolerances[i])
            if got is not None and known is not None and agree(got, known.output, known.tolerance):
                explained += 1
                apart += mean_distance(got, known.output)
        return -explained, apart

    return sorted(answer.mistakes, key=unlike)


def _ruled_out(mistake: MistakeAnswer, answer: Answer, right: Sequence[int]) -> bool:
    """Whether a case in which the mistake would show is right. right: the positions of the right cases."""
    for i in right:
        known = mistake.in_case(i, answer.tolerances[i])
        if known is not None and not agree(known.output, answer.outputs[i], known.tolerance):
            return True
    return False


def _judge_case(
    observation: Observation,
    want: Tensor,
    context: Context,
    mistakes: Sequence[tuple[MistakeAnswer, Known]],
    parts: PartEvidence | None,
) -> CaseVerdict:
    got, name = observation.output, observation.case
    if got is None:
        problem = observation.problem
        finding = Finding(problem.message, detail=problem.detail) if problem else Finding("it gave no output")
        carried = find_in_parts(parts, want, context) if parts else None
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
    if observation.backward is not None:
        return Finding(
            f"the output is right, but no gradient can be computed: {observation.backward.message}",
            "The backward pass needs values that were overwritten. Write `x = x + ...` instead of `x += ...`."
            if "inplace" in observation.backward.message
            else "",
            observation.backward.detail,
        )
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
    mistakes: Sequence[tuple[MistakeAnswer, Known]],
    parts: PartEvidence | None,
) -> Finding:
    """Why an output is wrong: a wrong part, a known mistake, wrong wiring, or what it looks like."""
    tolerance = context.tolerance
    in_parts = find_in_parts(parts, want, context) if parts else None
    if in_parts is not None and in_parts.carried:
        return in_parts
    for mistake, known in mistakes:
        if agree(got, known.output, known.tolerance) and not agree(known.output, want, tolerance):
            what = f"This is what comes out when {mistake.name}."
            return Finding(what, mistake.hint, mistake=mistake.name, shipped=mistake.shipped)
    again = observation.again
    if again is not None and again.shape == got.shape and not agree(again, got, tolerance):
        return _not_deterministic()
    if observation.first_nan is not None and not want.isnan().any():
        return Finding(f"there is NaN in the output; it first appears {observation.first_nan}")
    if in_parts is not None:
        return in_parts
    sentence = describe(got, want, context)
    if sentence is None and got.is_floating_point() and got.isnan().any():
        sentence = "there is NaN in the output"
    changed = "the input was modified in place" if observation.changed_input is not None else None
    return Finding(
        sentence or changed or "it matches no known mistake", detail=(changed,) if sentence and changed else ()
    )
