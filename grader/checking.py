"""`check`: the one line under every exercise."""

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from grader.config import ALL_FIELDS
from grader.errors import CheckFailed
from grader.judge import CaseVerdict, Finding, Verdict, judge, with_others_wrong
from grader.probe import feed_parts, part_of, part_types, probe, replace_parts, used_by
from grader.recording import FILE_NAME, Recording, Task, part_inputs, part_outputs
from grader.report import Line, shipped_line, show

_STARTED_IN = Path.cwd()  # a notebook that changes folder still finds what lies beside it


def check(exercise: str, solution: Any, *, recording: str | Path | None = None) -> float | None:
    """Check a learner's class or function against the recorded reference, and show a report.

    exercise: its name, as in "gpt2.layer_norm". solution: the class or function itself, not an instance.
    recording: a ``reference.safetensors``; by default the one beside the notebook.

    Returns None. While nbgrader autogrades, it returns the points earned instead, and raises nothing.
    Raises CheckFailed where a case is wrong, RecordingError where there is nothing to check against.
    """
    verdict = examine(find_recording(recording), exercise, solution)
    show(report(verdict), summary(verdict))
    if autograding():
        return verdict.points
    if not verdict.right:
        raise CheckFailed(f"{exercise} is not right yet: see the report above.")
    return None


def examine(recording: Recording, exercise: str, solution: Any) -> Verdict:
    """Probe a learner's class or function in this process, and judge it.

    A composite that is wrong is run twice more, to tell its own error from its parts'; its parts' classes are
    examined then as well, and what else it uses. Raises RecordingError for an exercise that the recording has not.
    """
    task, answer = recording.task(exercise), recording.answer(exercise)
    observations = probe(task, solution)
    verdict = judge(task, answer, observations)
    if verdict.right:
        return verdict
    if task.parts:
        fed = feed_parts(task, solution, part_inputs(answer))
        replaced = replace_parts(task, solution, part_outputs(answer))
        unfinished, others = _parts_classes(recording, task, solution)
        verdict = judge(task, answer, observations, fed, replaced, unfinished, others)
    return with_others_wrong(verdict, _wrong_ones_used(recording, task, solution))


def _parts_classes(recording: Recording, task: Task, solution: Any) -> tuple[set[str], dict[str, str]]:
    """The exercises among a composite's parts that are not right by themselves; and the parts that are of another
    class than the one with the name of the exercise's solution, by path, with their own class's name.

    What is graded is the class of that name, where the composite's notebook has one. A part that is no class of the
    learner's, such as nn.LayerNorm, is taken to be right by itself.
    """
    wrong: set[str] = set()
    others: dict[str, str] = {}
    examined: set[tuple[str, Any]] = set()
    for path, kind in part_types(task, solution).items():
        exercise = part_of(task.parts, path)
        if exercise not in recording.exercises or kind.__module__.startswith("torch."):
            continue
        graded = used_by(solution).get(recording.task(exercise).solution, kind)
        if graded is not kind:
            others[path] = kind.__name__
        if (exercise, graded) not in examined and not examine(recording, exercise, graded).right:
            wrong.add(exercise)
        examined.add((exercise, graded))
    return wrong, others


def _wrong_ones_used(recording: Recording, task: Task, solution: Any) -> dict[str, str]:
    """The exercises that this one uses and that are not right by their own checks, each with its solution's name."""
    wrong: dict[str, str] = {}
    for exercise in task.uses:
        name = recording.task(exercise).solution
        own = used_by(solution).get(name)
        if own is not None and not examine(recording, exercise, own).right:
            wrong[exercise] = name
    return wrong


def autograding() -> bool:
    """Whether nbgrader is grading this notebook, and takes the last value of a check's cell as its points."""
    return os.environ.get("NBGRADER_EXECUTION") == "autograde"


def find_recording(path: str | Path | None = None) -> Recording:
    """The recording at `path`, or the one beside the notebook. Raises RecordingError where there is none."""
    if path is None:
        path = next(
            (p for p in (Path.cwd() / FILE_NAME, _STARTED_IN / FILE_NAME) if p.exists()), Path.cwd() / FILE_NAME
        )
    path = Path(path)
    try:
        stamp = path.stat().st_mtime_ns
    except OSError:
        stamp = 0
    return _read(path, stamp)


@lru_cache(maxsize=4)
def _read(path: Path, stamp: int) -> Recording:
    """The recording; `stamp` is its time of change, so that a new file is read anew."""
    return Recording.read(path)


def summary(verdict: Verdict) -> dict[str, Any]:
    """The verdict for programs: what ``grader check`` reads from a notebook's output."""
    first = verdict.most_telling
    return {
        "exercise": verdict.exercise,
        "passed": verdict.right,
        "points": verdict.points,
        "max_points": verdict.max_points,
        "waits_for": list(dict.fromkeys(name for case in verdict.cases for name in _waits_for(case))),
        "cases": [{"name": case.name, "passed": case.right} for case in verdict.cases],
        "summary": _headline(verdict) if first is None else f"{_headline(verdict)}: {_first_sentence(first)}",
    }


def _waits_for(case: CaseVerdict) -> tuple[str, ...]:
    return case.finding.waits_for if case.finding else ()


def _headline(verdict: Verdict) -> str:
    right = sum(case.right for case in verdict.cases)
    return f"{right} of {len(verdict.cases)} cases right"


def _first_sentence(case: CaseVerdict) -> str:
    return case.finding.what.rstrip(".") if case.finding else case.name


def report(verdict: Verdict) -> list[Line]:
    """The verdict for a person: every case in a line, the first wrong one in full."""
    if verdict.right:
        badge = ", bit-exact" if verdict.exact else ""
        lines = [Line(f"{verdict.exercise}   {_headline(verdict)}{badge}", "ok")]
        return lines + _remarks(verdict.cases)
    lines = [Line(f"{verdict.exercise}   {_headline(verdict)}", "bad")]
    if _same_problem_everywhere(verdict):
        first = verdict.cases[0]
        assert first.finding is not None
        return lines + _finding(first.finding, 1) + _remarks(verdict.cases)
    shown = verdict.most_telling
    for case in verdict.cases:
        in_full = case is shown
        lines.append(_case_line(case, in_full))
        if in_full and case.finding:
            lines += _finding(case.finding, 2)
    if verdict.carried:
        lines.append(Line("This exercise's own points are not lost.", "muted", 1))
    return lines + _remarks(verdict.cases)


def _same_problem_everywhere(verdict: Verdict) -> bool:
    """Whether no case ran at all, for one and the same reason."""
    problems = {(case.finding.what, case.difference is None) for case in verdict.cases if case.finding}
    return (
        len(verdict.cases) > 0
        and len(problems) == 1
        and not any(case.right or case.difference for case in verdict.cases)
    )


def _case_line(case: CaseVerdict, in_full: bool) -> Line:
    """A case in a line; `in_full` says that what was found stands below it."""
    if case.right:
        return Line(f"{case.name}: right{', bit-exact' if case.exact else ''}", "text", 1)
    difference = case.difference
    if difference is None or not difference.wrong:
        told = "wrong" if difference is None else "the values are right, and yet"
        short = _first_sentence(case).partition(ALL_FIELDS)[0]
        return Line(f"{case.name}: {told if in_full else short}", "text", 1)
    if difference.total == 1 and difference.values is None:
        return Line(f"{case.name}: {'wrong' if in_full else _first_sentence(case)}", "text", 1)
    what = f"{difference.wrong:,} of {difference.total:,} values differ ({difference.wrong / difference.total:.0%})"
    if difference.wrong == difference.total:
        what = f"all {difference.total:,} values differ"
    if difference.values is not None and difference.largest:
        what += f", by up to {difference.largest:.2g} (on average {difference.mean:.2g})"
    if difference.nan:
        what += f"; {difference.nan:,} {'is' if difference.nan == 1 else 'are'} NaN"
    what += f"; first at {list(difference.first)}"
    if difference.values is not None:
        what += ": {:.4g} instead of {:.4g}".format(*difference.values)
    return Line(f"{case.name}: {what}", "text", 1)


def _finding(finding: Finding, indent: int) -> list[Line]:
    what = finding.what[:1].upper() + finding.what[1:]
    if not what.endswith((".", ":", "?")):
        what += "."
    lines = [Line(what, "text", indent)]
    lines += [Line(detail, "code", indent + 1) for detail in finding.detail]
    if finding.hint:
        lines.append(Line(finding.hint, "hint", indent))
    return lines + [shipped_line(reference, indent) for reference in finding.shipped]


def _remarks(cases: Sequence[CaseVerdict]) -> list[Line]:
    remarks = dict.fromkeys(remark for case in cases for remark in case.remarks)
    return [Line(remark, "muted", 1) for remark in list(remarks)[:3]]
