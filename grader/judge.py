"""Compare what a probe observed with what is right, and give a verdict. Runs no learner's code."""

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

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

    mistake: the name of the known mistake it is. shipped: where that was published. waits_for: the exercises that a
    composite waits for, whose own code is right.
    """

    what: str
    hint: str = ""
    detail: tuple[str, ...] = ()
    mistake: str = ""
    waits_for: tuple[str, ...] = ()
    shipped: tuple[str, ...] = ()

    @property
    def carried(self) -> bool:
        """Whether only a part is wrong."""
        return bool(self.waits_for)


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
    def carried(self) -> bool:
        """Whether no points are lost, although it need not be right: what is wrong are its parts alone."""
        return all(case.earned for case in self.cases)

    @property
    def most_telling(self) -> CaseVerdict | None:
        """The wrong case to show in full, if any: the first that gave nothing to compare, else the first."""
        wrong = [case for case in self.cases if not case.right]
        return next((case for case in wrong if case.difference is None), wrong[0] if wrong else None)


@dataclass(frozen=True)
class PartEvidence:
    """What was observed of a composite's parts in one case, beside what the reference's were given and gave back.

    exercises: which exercise built a part, by path or pattern. unfinished: those of them that are not right yet.
    other_classes: the parts that are not of the class that their exercise checks, with the name of their own.
    """

    exercises: Mapping[str, str]
    calls: Sequence[Call]
    fed: Mapping[PartKey, Fed]
    replaced: Replaced
    unfinished: Container[str]
    other_classes: Mapping[str, str]


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
    mistakes = _by_cases_explained(task, answer, by_case)
    ruled_out = {mistake.name for mistake in mistakes if _ruled_out(mistake, task, answer, by_case)}
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
            PartEvidence(task.parts, answer.part_calls[i], fed[i], replaced[i], unfinished, other_classes)
            if fed and replaced
            else None
        )
        # A few whole numbers are soon the same by chance: there a mistake is not named that shows where all is right.
        possible = (
            mistakes if answer.outputs[i].is_floating_point() else [m for m in mistakes if m.name not in ruled_out]
        )
        outputs = [(mistake, mistake.outputs[i]) for mistake in possible]
        cases.append(_judge_case(observation, answer.outputs[i], context, outputs, parts))
    return Verdict(task.exercise, tuple(cases), answer.points)


def _first_float(case: TaskCase) -> Tensor | None:
    return next((arg for arg in case.args if isinstance(arg, Tensor) and arg.is_floating_point()), None)


def _by_cases_explained(task: Task, answer: Answer, by_case: Mapping[str, Observation]) -> list[MistakeAnswer]:
    """The known mistakes; those that explain the most cases come first."""

    def explained(mistake: MistakeAnswer) -> int:
        count = 0
        for case, output, tolerance in zip(task.cases, mistake.outputs, answer.tolerances, strict=True):
            got = by_case[case.name].output if case.name in by_case else None
            count += got is not None and agree(got, output, tolerance)
        return count

    return sorted(answer.mistakes, key=explained, reverse=True)


def _ruled_out(mistake: MistakeAnswer, task: Task, answer: Answer, by_case: Mapping[str, Observation]) -> bool:
    """Whether a case in which the mistake would show is right."""
    for case, output, want, tolerance in zip(
        task.cases, mistake.outputs, answer.outputs, answer.tolerances, strict=True
    ):
        got = by_case[case.name].output if case.name in by_case else None
        if got is not None and agree(got, want, tolerance) and not agree(output, want, tolerance):
            return True
    return False


def with_others_wrong(verdict: Verdict, wrong: Mapping[str, str]) -> Verdict:
    """The verdict, whose wrong cases say which exercises that were used are wrong by themselves.

    wrong: the exercises, each with the name of its solution. A case whose mistake is known keeps its finding.
    """
    if not wrong:
        return verdict
    solutions, names = (" and ".join(f"`{name}`" for name in kind) for kind in (wrong.values(), wrong))
    verb, checks = ("do", "their own checks") if len(wrong) > 1 else ("does", "its own check")

    def said(finding: Finding | None) -> Finding:
        if finding is not None and (finding.mistake or finding.carried):
            return replace(finding, detail=(*finding.detail, f"Besides, {names} {verb} not pass {checks}."))
        return Finding(
            f"Your {solutions} {verb} not pass {checks}, and this exercise uses what you wrote there",
            f"Mend {names} first, then run this check again: what is wrong here may come from there.",
            detail=(f"Here: {finding.what}", *finding.detail) if finding else (),
        )

    cases = (case if case.right else replace(case, finding=said(case.finding)) for case in verdict.cases)
    return replace(verdict, cases=tuple(cases))


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
    mistakes: Sequence[tuple[MistakeAnswer, Tensor]],
    parts: PartEvidence | None,
) -> Finding:
    """Why an output is wrong: a wrong part, a known mistake, wrong wiring, or what it looks like."""
    tolerance = context.tolerance
    in_parts = _find_in_parts(parts, want, context) if parts else None
    if in_parts is not None and in_parts.carried:
        return in_parts
    for mistake, output in mistakes:
        if agree(got, output, tolerance) and not agree(output, want, tolerance):
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


def _find_in_parts(parts: PartEvidence, want: Tensor, context: Context) -> Finding | None:
    """Tell a composite's own error from its parts'."""
    own = parts.replaced.output
    own_right = own is not None and agree(own, want, context.tolerance)
    present = [call for call in parts.calls if call.path in parts.replaced.present]
    culprits = [call for call in present if not _part_right(call, parts.fed.get((call.path, call.index)))]
    miswired = next((call for call in present if _given_wrong(call, parts.replaced)), None)
    if own_right and miswired is None:
        # Errors that a part's own tolerance covers can add up to one that the composite's does not.
        culprits = culprits or [c for c in present if part_of(parts.exercises, c.path) in parts.unfinished]
        if not culprits or not all(_was_given(call, parts.replaced) for call in present):
            return None
        finished = [call for call in culprits if part_of(parts.exercises, call.path) not in parts.unfinished]
        return _wrongly_used(finished[0], parts) if finished else _carried_forward(culprits, parts)
    if own is not None:
        count = _wrong_call_count(present, parts)
        if count:
            return Finding(count)
    if miswired is not None:
        return _miswired(miswired, parts, context)
    if own is None or own_right:
        return None
    besides = (f"Besides, {_exercise_names(culprits, parts)} is not right yet.",) if culprits else ()
    lacking = _lacking(own, want, parts, context)
    if lacking:
        return Finding(lacking, detail=besides)
    if culprits:
        what = describe(own, want, context) or "its own steps give something else"
        return Finding(f"Even with right parts, the result is wrong: {what}", detail=besides)
    return None


def _wrong_call_count(present: Sequence[Call], parts: PartEvidence) -> str | None:
    """Which part is called too often or not at all."""
    wanted = Counter(call.path for call in present)
    counted = Counter(path for path, _ in parts.replaced.given)
    for path, times in wanted.items():
        if counted[path] == 0:
            return f"`{path}` is never called"
        if counted[path] > times:
            return f"`{path}` is called {counted[path]} times, and should be called {'once' if times == 1 else times}"
    return None


def _lacking(own: Tensor, want: Tensor, parts: PartEvidence, context: Context) -> str | None:
    """Which known tensor has to be added to the output, or is in it and should not be."""
    if own.shape != want.shape or own.dtype != want.dtype or not want.is_floating_point() or not own.isfinite().all():
        return None
    known = _known_tensors(parts, context)
    missing, extra = known_as(want - own, known), known_as(own - want, known)
    if missing:
        return f"the output lacks {missing}: it has to be added"
    if extra:
        return f"the output contains {extra} once too often"
    return None


def _known_tensors(parts: PartEvidence, context: Context) -> dict[str, Tensor]:
    """The tensors that a report can name."""
    known: dict[str, Tensor] = {}
    if context.input is not None:
        known["the module's own input"] = context.input
    for call in parts.calls:
        if call.output is not None:
            known.setdefault(f"the output of `{call.path}`", call.output)
        if call.input is not None:
            known.setdefault(f"the hidden state before `{call.path}`", call.input)
    return known


def _part_right(call: Call, fed: Fed | None) -> bool:
    """Whether the learner's part gives the reference's output for the reference's input; True where unknown."""
    if fed is None or call.output is None:
        return True
    return (
        fed.output is not None
        and not fed.changed_input
        and (agree(fed.output, call.output) or layout_between(fed.output, call.output) is not None)
    )


def _was_given(call: Call, replaced: Replaced) -> bool:
    """Whether a part was called, and given a tensor where the reference's was: only then is its input known right."""
    key = (call.path, call.index)
    return key in replaced.given and (replaced.given[key] is not None or call.input is None)


def _given_wrong(call: Call, replaced: Replaced) -> bool:
    """Whether a part was given something else than the reference's; False where it was given no tensor at all."""
    given = replaced.given.get((call.path, call.index))
    if given is None or call.input is None:
        return False
    return not agree(given, call.input) and layout_between(given, call.input) is None


def _exercises(calls: Sequence[Call], parts: PartEvidence) -> tuple[str, ...]:
    """The exercises that built these parts."""
    return tuple(dict.fromkeys(part_of(parts.exercises, call.path) or call.path for call in calls))


def _exercise_names(calls: Sequence[Call], parts: PartEvidence) -> str:
    return " and ".join(f"`{name}`" for name in _exercises(calls, parts))


def _problems(calls: Sequence[Call], parts: PartEvidence) -> tuple[str, ...]:
    """The first thing that stopped a part, if any was stopped."""
    fed = (parts.fed.get((call.path, call.index)) for call in calls)
    return tuple(f.problem.message for f in fed if f is not None and f.problem is not None)[:1]


def _carried_forward(culprits: Sequence[Call], parts: PartEvidence) -> Finding:
    paths = list(dict.fromkeys(f"`{call.path}`" for call in culprits))
    shown = ", ".join(paths[:3]) + (", ..." if len(paths) > 3 else "")
    verb = "is" if len(paths) == 1 else "are"
    return Finding(
        f"Your code here is right. It fails because {shown} {verb} not:"
        " with the reference's parts, the output is right.",
        f"Mend {_exercise_names(culprits, parts)} first, then run this check again.",
        detail=_problems(culprits, parts),
        waits_for=_exercises(culprits, parts),
    )


def _wrongly_used(call: Call, parts: PartEvidence) -> Finding:
    """A part that is right by itself, and wrong as this composite builds or calls it."""
    exercise = part_of(parts.exercises, call.path) or call.path
    if call.path in parts.other_classes:
        kind = parts.other_classes[call.path]
        return Finding(
            f"`{call.path}` does not do what the reference's does: its class is `{kind}`, and not the one that"
            f" `{exercise}` checks",
            f"Look at where `{call.path}` is built in this class.",
            detail=_problems([call], parts),
        )
    return Finding(
        f"`{call.path}` does not do here what the reference's does, though `{exercise}` is right by itself",
        f"Look at how `{call.path}` is built and called in this class: which class, and which arguments?",
        detail=_problems([call], parts),
    )


def _miswired(call: Call, parts: PartEvidence, context: Context) -> Finding:
    """What a part was given instead of what the reference gives it."""
    given, right = parts.replaced.given[call.path, call.index], call.input
    assert given is not None and right is not None
    name = known_as(given, _known_tensors(parts, context))
    if name:
        what = f"`{call.path}` was given {name}, and that is not what it needs"
    else:
        axes = context.axes if given.ndim == len(context.axes) else ()
        looks = describe(given, right, Context(axes, context.sizes, context.input))
        what = f"`{call.path}` was given something else than it should be" + (f": {looks}" if looks else "")
    before = [c.path for c in parts.calls[: parts.calls.index(call)] if c.path in parts.replaced.present]
    start = f"`{before[-1]}`" if before else "the module's input"
    return Finding(what, f"Look at what is computed between {start} and `{call.path}`.")
