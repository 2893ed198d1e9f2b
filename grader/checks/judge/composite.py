"""Tell a composite's own error from its parts', and from those of the exercises that it uses."""

from collections import Counter
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from grader.calls import Call
from grader.checks.judge.diagnose import Context, describe, known_as
from grader.checks.judge.measured import measured
from grader.checks.judge.verdict import Finding, Verdict
from grader.checks.layout import are_pieces, arranged, layout_between
from grader.checks.observation import Fed, PartKey, Replaced
from grader.recordings.tasks import part_of
from grader.tolerance import agree


@dataclass(frozen=True)
class PartEvidence:
    """What was observed of a composite's parts in one case, beside what the reference's were given and returned.

    exercises: which exercise built a part, by path or pattern. unfinished: those of them that are not right yet.
    other_classes: the parts that are not of the class that their exercise checks, with the name of their own. weights:
    the names of the case's weights.
    """

    exercises: Mapping[str, str]
    calls: Sequence[Call]
    fed: Mapping[PartKey, Fed]
    replaced: Replaced
    unfinished: Container[str]
    other_classes: Mapping[str, str]
    weights: Collection[str]


def with_others_wrong(verdict: Verdict, wrong: Mapping[str, str]) -> Verdict:
    """The verdict, whose wrong cases say which exercises that were used are wrong by themselves.

    wrong: the exercises, each with the name of its solution. A case that waits for a part keeps its finding.
    """
    if not wrong:
        return verdict
    solutions, names = (" and ".join(f"`{name}`" for name in kind) for kind in (wrong.values(), wrong))
    verb, checks = ("do", "their own checks") if len(wrong) > 1 else ("does", "its own check")

    def said(finding: Finding | None) -> Finding:
        if finding is not None and finding.carried:
            return replace(finding, notes=(*finding.notes, f"Besides, {names} {verb} not pass {checks}."))
        return Finding(
            f"Your {solutions} {verb} not pass {checks}, and this exercise uses what you wrote there",
            f"Mend {names} first, then run this check again: what is wrong here may come from there.",
            detail=finding.detail if finding else (),
            notes=(f"Here: {finding.what}",) if finding else (),
        )

    cases = (case if case.right else replace(case, finding=said(case.finding)) for case in verdict.cases)
    return replace(verdict, cases=tuple(cases))


def find_in_parts(parts: PartEvidence, want: Tensor, context: Context) -> Finding | None:
    """Tell a composite's own error from its parts'."""
    own = parts.replaced.output
    own_right = own is not None and agree(own, want, context.tolerance)
    present = [call for call in parts.calls if call.path in parts.replaced.present]
    culprits = [call for call in present if not _part_right(call, parts.fed.get((call.path, call.index)))]
    miswired = next((call for call in present if _given_wrong(call, parts)), None)
    if own_right and miswired is None:
        # Errors that a part's own tolerance covers can add up to one that the composite's does not.
        culprits = culprits or [c for c in present if part_of(parts.exercises, c.path) in parts.unfinished]
        if not culprits or not all(_was_given(call, parts.replaced) for call in present):
            return None
        finished = [call for call in culprits if part_of(parts.exercises, call.path) not in parts.unfinished]
        if finished:
            return _wrongly_used(finished[0], parts)
        found = _carried_forward(culprits, parts)
        return found if _all_given_right(parts) else replace(found, waits_for=())
    if own is not None:
        count = _wrong_call_count(present, parts)
        if count:
            return Finding(count)
    if miswired is not None:
        return _miswired(miswired, parts, context)
    if own is None or own_right:
        return None
    besides = _besides(culprits, parts)
    lacking = _lacking(own, want, parts, context)
    if lacking:
        return Finding(lacking, detail=besides)
    if culprits:
        what = describe(own, want, context)
        return Finding(
            f"Even with right parts, the result is wrong: {what or 'its own steps give something else'}",
            detail=besides,
            measured=() if what else measured(own, want, context),
        )
    return None


def _besides(culprits: Sequence[Call], parts: PartEvidence) -> tuple[str, ...]:
    """What else is wrong: parts whose exercises are not right yet, or parts that are not as the reference's here."""
    unfinished = [call for call in culprits if part_of(parts.exercises, call.path) in parts.unfinished]
    if unfinished:
        verb = "is" if len(_exercises(unfinished, parts)) == 1 else "are"
        return (f"Besides, {_exercise_names(unfinished, parts)} {verb} not right yet.",)
    paths = list(dict.fromkeys(f"`{call.path}`" for call in culprits))
    verb = "does" if len(paths) == 1 else "do"
    return (f"Besides, {' and '.join(paths)} {verb} not do here what the reference's does.",) if paths else ()


def _all_given_right(parts: PartEvidence) -> bool:
    """Whether every one of the reference's parts was given what it needs: only then are points for wiring kept.

    A learner's module may do without a part that has no weights, with a function; whether it does is only its own word,
    and what it hands to the other parts tells as much.
    """

    def optional(call: Call) -> bool:
        weighted = any(name.startswith(f"{call.path}.") for name in parts.weights)
        return call.path not in parts.replaced.present and not weighted

    calls = [c for c in parts.calls if c.input is not None and c.output is not None and not optional(c)]
    return all(_was_given(call, parts.replaced) and not _given_wrong(call, parts) for call in calls)


def _wrong_call_count(present: Sequence[Call], parts: PartEvidence) -> str | None:
    """Which part is called too often or not at all. One that is used without a call, or piece by piece, is neither."""
    wanted = Counter(call.path for call in present)
    counted = Counter(path for path, _ in parts.replaced.given)
    for path, times in wanted.items():
        if (counted[path] == 0 and path in parts.replaced.used) or _given_in_pieces(path, parts.calls, parts.replaced):
            continue
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
    return _taken_otherwise(own, want, known)


def _taken_otherwise(own: Tensor, want: Tensor, known: Mapping[str, Tensor]) -> str | None:
    """Which known tensor is in the output with another factor than 1."""
    rest = (own - want).double()
    for name, tensor in known.items():
        if tensor.shape != own.shape or not tensor.is_floating_point():
            continue
        part = tensor.double()
        factor = float((rest * part).sum() / part.square().sum().clamp_min(1e-300))
        if abs(factor) > 1e-3 and agree((factor * part).to(own.dtype), rest.to(own.dtype)):
            return f"the output contains {name} {1 + factor:.4g} times, and should contain it once"
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


def _given_wrong(call: Call, parts: PartEvidence) -> bool:
    """Whether a part was given something else than the reference's; False where it was given no tensor at all."""
    given = parts.replaced.given.get((call.path, call.index))
    if given is None or call.input is None or agree(given, call.input):
        return False
    if _given_in_pieces(call.path, parts.calls, parts.replaced):
        return False
    return layout_between(given, call.input) is None


def _given_in_pieces(path: str, calls: Sequence[Call], replaced: Replaced) -> bool:
    """Whether a part was given what the reference's was, but piece by piece, in more calls."""
    pieces = [tensor for (own, _), tensor in sorted(replaced.given.items(), key=lambda item: item[0]) if own == path]
    wholes = [call.input for call in calls if call.path == path]
    return are_pieces([p for p in pieces if p is not None], [w for w in wholes if w is not None])


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
    fed = parts.fed.get((call.path, call.index))
    others = " and ".join(f"`{name}`" for name in (fed.others if fed else ()))
    return Finding(
        f"`{call.path}` does not do here what the reference's does, though `{exercise}` is right by itself"
        + (f": the {others} that you hand to it may be wrong" if others else ""),
        f"Look at how `{call.path}` is built and called in this class: which class, and which arguments?",
        detail=_problems([call], parts),
    )


def _miswired(call: Call, parts: PartEvidence, context: Context) -> Finding:
    """What a part was given instead of what the reference gives it."""
    given, right = parts.replaced.given[call.path, call.index], call.input
    assert given is not None and right is not None
    name = known_as(given, _known_tensors(parts, context))
    told: tuple[str, ...] = ()
    if name:
        what = f"`{call.path}` was given {name}, and that is not what it needs"
    else:
        axes = context.axes if given.ndim == len(context.axes) else ()
        wanted, of_part = arranged(right, given), Context(axes, context.sizes, context.input)
        looks = describe(given, wanted, of_part)
        told = () if looks else measured(given, wanted, of_part)
        what = f"`{call.path}` was given something else than it should be" + (f": {looks}" if looks else "")
    before = [c.path for c in parts.calls[: parts.calls.index(call)] if c.path in parts.replaced.present]
    start = f"`{before[-1]}`" if before else "the module's input"
    return Finding(what, f"Look at what is computed between {start} and `{call.path}`.", measured=told)
