"""A verdict in words: for a person, and for programs."""

from collections.abc import Sequence
from typing import Any

from grader.checks.verdict import CaseVerdict, Finding, Verdict
from grader.config import ALL_FIELDS
from grader.report import Line, shipped_line


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
