"""Compare what a probe observed with what is right, and give a verdict. Runs no learner's code."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from grader.checks.judge.axes import FACTOR_OF_ITS_OWN
from grader.checks.judge.composite import PartEvidence, find_in_parts
from grader.checks.judge.counting import hold_back_counts
from grader.checks.judge.diagnose import Context, describe
from grader.checks.judge.difference import Difference, difference
from grader.checks.judge.gradients import gradient_finding, leaf_in_words, unreached
from grader.checks.judge.insensitive import mark_insensitive
from grader.checks.judge.known_mistakes import FEWEST, Suspects, known_in, suspects
from grader.checks.judge.measured import measured
from grader.checks.judge.torch_errors import hint_for
from grader.checks.judge.transcript import EVENTS
from grader.checks.judge.variants import changed_in_words, modified_in_place, right_in, with_variants
from grader.checks.judge.verdict import UNKNOWN, CaseVerdict, Finding, Verdict
from grader.checks.observation import SECOND_RUN, Fed, Observation, PartKey, Problem, Replaced
from grader.recordings.answers import Answer
from grader.recordings.tasks import Task, TaskCase
from grader.tolerance import Tolerance, agree


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
    outputs = [by_case[case.name].output if case.name in by_case else None for case in task.cases]
    right = tuple(_is_right(answer, i, output) for i, output in enumerate(outputs))
    found = suspects(answer, outputs, right)
    cases = []
    for i, case in enumerate(task.cases):
        observation = by_case.get(case.name)
        if observation is None:
            finding = Finding("the case did not run")
            cases.append(CaseVerdict(case.name, right=False, finding=finding))
            continue
        observation = replace(observation, no_gradient=unreached(task, answer, i, observation.no_gradient))
        numbers = _names_of_numbers(answer, i, case.name)
        context = Context(answer.axes, answer.sizes[i], _first_float(case), answer.tolerances[i], case.weights, numbers)
        parts = (
            PartEvidence(task.parts, answer.part_calls[i], fed[i], replaced[i], unfinished, other_classes, case.weights)
            if fed and replaced
            else None
        )
        if right[i]:
            cases.append(_judge_right(observation, answer.outputs[i], answer.tolerances[i]))
            continue
        suspected = _named(found, answer, i, outputs[i], alone=right.count(False) == 1)
        cases.append(_judge_wrong(observation, answer.outputs[i], context, suspected, parts))
    if any(found.in_part):  # a name says more
        cases = [replace(c, finding=c.finding and replace(c.finding, measured=())) for c in cases]
    named = bool(found.fitting) and not all(right)
    seen = []
    for i, verdict in enumerate(mark_insensitive(cases, answer, by_case)):
        wrong = gradient_finding(task, answer, i, by_case[verdict.name], unfinished) if right[i] else None
        asked = right_in(answer, i)
        verdict = _with_gradients(verdict, wrong)
        asks = verdict.right and not named  # a known mistake that explains the wrong cases is told alone
        seen.append(with_variants(verdict, task.cases[i], by_case[verdict.name], asked) if asks else verdict)
    judged = Verdict(task.exercise, tuple(hold_back_counts(task, answer, seen)), answer.points)
    return replace(judged, notes=_notes(task, judged, found))


def _is_right(answer: Answer, i: int, got: Tensor | None) -> bool:
    """Whether an output is right in a case. Everything else about the case is told from that."""
    return got is not None and agree(got, answer.outputs[i], answer.tolerances[i])


def _names_of_numbers(answer: Answer, index: int, case: str) -> tuple[str, ...]:
    """What each of a few numbers is: by the exercise's axis, as in "total/active", or by the case's own name, as in
    "room: numbers, bytes". The last name may end in "...", as in "norm/gradients...": all that is left. Empty where
    neither says."""
    want = answer.outputs[index]
    if want.ndim != 1 or len(want) < 2:
        return ()
    by_case = case.partition(": ")[2].replace(" and ", " ")
    for said in (answer.axes[0].split("/") if len(answer.axes) == 1 else [], by_case.split(", ")):
        rest = want.is_floating_point() and len(want) >= len(said) > 1 and said[-1].endswith("...")
        if all(said) and (len(said) == len(want) or rest):
            return tuple(name.strip() for name in said)
    return ()


def _with_gradients(verdict: CaseVerdict, wrong: Finding | None) -> CaseVerdict:
    """The verdict on a case, once its gradients are looked at too. wrong: what is wrong with them."""
    if wrong is None or not (verdict.right or wrong.mistake or wrong.carried):
        return verdict
    return replace(verdict, right=False, finding=wrong)


def _first_float(case: TaskCase) -> Tensor | None:
    return next((arg for arg in case.args if isinstance(arg, Tensor) and arg.is_floating_point()), None)


def _named(found: Suspects, answer: Answer, i: int, got: Tensor | None, alone: bool) -> Finding | None:
    """The known mistakes that a case's output is, if they explain every other wrong case too.

    alone: whether no other case is wrong: a few whole numbers may be the same for another reason.
    """
    if got is None or not found.fitting:
        return None
    known = known_in(found.fitting[0], i, answer.tolerances[i])
    if known is None or not agree(got, known.output, known.tolerance):
        return None
    names = ", or when ".join(mistake.name for mistake in found.fitting)
    rest = "" if len(found.fitting) == 1 else " The cases do not tell which."
    if alone and not got.is_floating_point() and got.numel() < FEWEST and answer.axes != EVENTS:
        rest += " So few numbers can have another cause, too."
    return Finding(
        f"This is what comes out when {names}.{rest}",
        " ".join(dict.fromkeys(mistake.hint for mistake in found.fitting)),
        mistake=found.fitting[0].name,
        shipped=tuple(dict.fromkeys(page for mistake in found.fitting for page in mistake.shipped)),
    )


LARGE = 0.1  # of a value: far above what a cast to bfloat16 does to it, errors that add up included
TINY = 0.05  # inputs whose root mean square is below this are tiny, beside ordinary ones of about 1


def _notes(task: Task, verdict: Verdict, found: Suspects) -> tuple[str, ...]:
    """What else may help where no known mistake explains everything: what the wrong cases share, what comes near."""
    wrong = [i for i, case in enumerate(verdict.cases) if not case.right]
    findings = [case.finding for case in verdict.cases if case.finding is not None]
    if not wrong or any(finding.mistake or finding.carried for finding in findings):
        return ()
    if any(verdict.cases[i].difference is None for i in wrong):
        return ()
    seen = [verdict.cases[i].difference for i in wrong]
    alike = all(difference is not None and difference.wrong for difference in seen)  # else only a gradient is wrong
    hidden = any(case.insensitive for case in verdict.cases)  # other cases may have the error, and can't show it
    notes = [note for note in (_only_in(task, wrong, seen),) if note and alike and not hidden]
    in_part: dict[str, list[str]] = {}
    for i in wrong:
        for mistake in found.in_part[i][:1]:
            in_part.setdefault(mistake.name, []).append(f"“{task.cases[i].name}”")
    for name, cases in list(in_part.items())[:2]:
        where = f"the case {cases[0]}" if len(cases) == 1 else f"the cases {', '.join(cases[:-1])} and {cases[-1]}"
        partly = len(cases) < len(wrong)
        but = (
            ", but that does not explain the other wrong cases."
            if partly
            else ". But that mistake makes other cases wrong too, which are right here: what is different in them?"
        )
        notes.append(f"In {where} it is what comes out when {name}{but}")
    scaled = all(finding.what.startswith("every value is") for finding in findings)  # a question would guess past it
    if len(notes) < 2 and not scaled:
        notes += [f"Could it be that {m.name}?" for m in found.near if m.name not in in_part]
    return tuple(notes[:3])


def _large(seen: Sequence[Difference | None]) -> bool:
    """Whether values are off by more than a cast can do, which keeps 8 bits at least."""
    pairs = [one.values for one in seen if one is not None and one.values is not None]
    return any(abs(own - right) > LARGE * abs(right) for own, right in pairs)


def _only_in(task: Task, wrong: Sequence[int], seen: Sequence[Difference | None]) -> str:
    """In what the wrong cases differ from the right ones, or nothing. seen: how far the wrong ones are off."""
    right = [i for i in range(len(task.cases)) if i not in wrong]
    if not right:
        return ""
    dtypes = [{task.cases[i].dtype for i in group} for group in (wrong, right)]
    counted = any(one is not None and one.whole for one in seen)  # bytes, say: no cast makes them wrong
    only = len(dtypes[0]) == 1 and not dtypes[0] & dtypes[1] and not counted
    if only and not (torch.float32 in dtypes[0] and _large(seen)):
        name = str(next(iter(dtypes[0]))).removeprefix("torch.")
        if torch.float32 in dtypes[0]:
            return "Only what is in float32 is wrong: in a coarser dtype so small an error does not show."
        return f"Only what is in {name} is wrong: look at where values are cast, and in which order."
    sizes = [[_rms(task.cases[i]) for i in group] for group in (wrong, right)]
    if max(sizes[0]) < TINY <= min(sizes[1]):
        return "Only tiny inputs are wrong: look at what is added to them, such as an epsilon."
    return ""


def _rms(case: TaskCase) -> float:
    """The root mean square of a case's input; 1 where it has none."""
    given = _first_float(case)
    return 1.0 if given is None or not given.numel() else float(given.double().square().mean().sqrt())


def _judge_right(observation: Observation, want: Tensor, tolerance: Tolerance) -> CaseVerdict:
    """The verdict on a case whose output is right: the module may misbehave all the same."""
    got, name = observation.output, observation.case
    assert got is not None
    misbehaviour = _misbehaviour(observation, tolerance)
    exact = want.is_floating_point() and torch.equal(got, want)
    measured = difference(got, want, tolerance)
    return CaseVerdict(name, misbehaviour is None, exact, measured, misbehaviour, observation.remarks)


def _judge_wrong(
    observation: Observation,
    want: Tensor,
    context: Context,
    named: Finding | None,
    parts: PartEvidence | None,
) -> CaseVerdict:
    """The verdict on a case whose output is wrong, or that gave none."""
    got, name = observation.output, observation.case
    if got is None:
        problem = observation.problem
        finding = _stopped(problem) if problem else Finding("it gave no output")
        carried = find_in_parts(parts, want, context) if parts else None
        if carried is not None and carried.carried:
            finding = carried
        return CaseVerdict(name, right=False, finding=finding, remarks=observation.remarks)
    assert context.tolerance is not None
    comparable = got.shape == want.shape and context.axes != EVENTS
    measured = difference(got, want, context.tolerance) if comparable else None
    finding = _find(observation, got, want, context, named, parts)
    return CaseVerdict(name, right=False, difference=measured, finding=finding, remarks=observation.remarks)


def _stopped(problem: Problem) -> Finding:
    hint = hint_for(problem.message)
    return Finding(problem.message, hint, problem.detail, unwritten=problem.kind == "not_written", stopped=True)


def _misbehaviour(observation: Observation, tolerance: Tolerance) -> Finding | None:
    """What is wrong with a module whose output is right."""
    got, again = observation.output, observation.again
    if observation.changed is not None:
        return modified_in_place(observation.changed)
    if got is not None and again is not None and not agree(again, got, tolerance):
        return _not_deterministic(got)
    if observation.backward is not None and observation.backward.kind == SECOND_RUN:
        return Finding(
            f"the output is right, but a second run, after other inputs, gives none: {observation.backward.message}",
            SECOND_RUN_HINT,
            observation.backward.detail,
        )
    if observation.backward is not None:
        return Finding(
            f"the output is right, but no gradient can be computed: {observation.backward.message}",
            "The backward pass needs values that were overwritten. Write `x = x + ...` instead of `x += ...`."
            if "inplace" in observation.backward.message
            else "",
            observation.backward.detail,
        )
    if observation.no_gradient:
        names = ", ".join(map(leaf_in_words, observation.no_gradient[:4]))
        more = len(observation.no_gradient) - 4
        return Finding(
            f"the output is right, but no gradient reaches {names}" + (f" and {more} more" if more > 0 else ""),
            "It could not be trained. Look for `.detach()`, `.data`, `.item()`, `no_grad`, a tensor made anew from"
            " numbers, or a weight that is kept from an earlier call.",
        )
    return None


def _not_deterministic(got: Tensor) -> Finding:
    """That a second run gave another output than `got`."""
    if not got.is_floating_point():
        return Finding(
            "the same input gives another output in a second run, after other inputs",
            "Look for what an earlier call leaves behind, or for something random.",
        )
    return Finding(
        "the same input gives another output in a second run, after other inputs and where gradients count",
        SECOND_RUN_HINT,
    )


SECOND_RUN_HINT = (
    "Look for what an earlier call leaves behind, for numbers that are copied before the weights are loaded, as in"
    " `__init__`, for something random, such as dropout, or for what is only done under `torch.no_grad()`."
)
ANOTHER_TRANSCRIPT = (
    "A second run gives something else again. Is something random, left over from an earlier call, or does the name of"
    " a temporary folder stand where the check does not look for it, as in a tuple in place of a list?"
)


def _find(
    observation: Observation,
    got: Tensor,
    want: Tensor,
    context: Context,
    named: Finding | None,
    parts: PartEvidence | None,
) -> Finding:
    """Why an output is wrong: a wrong part, a known mistake, wrong wiring, or what it looks like."""
    tolerance = context.tolerance
    in_parts = find_in_parts(parts, want, context) if parts else None
    if in_parts is not None and in_parts.carried:
        return in_parts
    if named is not None:
        return named
    again = observation.again
    if again is not None and again.shape == got.shape and not agree(again, got, tolerance):
        if context.axes == EVENTS and (differs := describe(got, want, context)):
            return Finding(differs, ANOTHER_TRANSCRIPT)
        return _not_deterministic(got)
    if observation.first_nan is not None and not want.isnan().any():
        return Finding(f"there is NaN in the output; it first appears {observation.first_nan}")
    if in_parts is not None:
        return in_parts
    sentence = describe(got, want, context)
    if sentence is None and got.is_floating_point() and got.isnan().any():
        sentence = "there is NaN in the output"
    changed = changed_in_words(observation.changed) if observation.changed is not None else None
    unknown = sentence is None or FACTOR_OF_ITS_OWN in sentence
    told = measured(got, want, context) if unknown else ()
    return Finding(sentence or changed or UNKNOWN, detail=(changed,) if sentence and changed else (), measured=told)
