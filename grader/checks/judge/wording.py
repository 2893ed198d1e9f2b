"""A verdict in words: for a person, and for programs."""

import re
from collections.abc import Sequence
from math import isfinite
from typing import Any

from grader.checks.judge.difference import Difference
from grader.checks.judge.verdict import UNKNOWN, CaseVerdict, Finding, Verdict
from grader.checks.observation import RAISED
from grader.config import ALL_FIELDS
from grader.report import Line, shipped_line

SAID = "see above"


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
    if verdict.unwritten:
        return "not started"
    right = sum(case.right for case in verdict.cases)
    return f"{right} of {len(verdict.cases)} cases right"


def _first_sentence(case: CaseVerdict) -> str:
    return case.finding.what.rstrip(".") if case.finding else case.name


def report(verdict: Verdict) -> list[Line]:
    """The verdict for a person: what is wrong, why where that is known, and then all cases in a table."""
    if verdict.right:
        badge = ", bit-exact" if verdict.exact else ""
        lines = [Line(f"✓ {verdict.exercise} · {_headline(verdict)}{badge}", "ok")]
        return lines + _remarks(verdict.cases)
    shown = verdict.most_telling
    assert shown is not None
    head = f"{verdict.exercise} · {_headline(verdict)}"
    lines = [Line(f"○ {head}", "idle") if verdict.unwritten else Line(f"✗ {head}", "bad")]
    if shown.finding and not (shown.finding.what == UNKNOWN and verdict.notes):
        others = [case for case in verdict.cases if not case.right and case.finding != shown.finding]
        alone = others or (
            len(verdict.cases) > 1 and shown.finding.what.startswith("it gave ") and not shown.finding.stopped
        )
        lines += _finding(shown.finding, f"In the case “{shown.name}”: " if alone else "")
        further = sum(case is not shown and _same_error(case, shown) for case in verdict.cases)
        if further and alone:
            lines.append(Line(f"The same error in {further} further case{'s' if further > 1 else ''}.", "text", 1))
    elif shown.finding and shown.finding.measured:
        lines.append(Line(f"In the case “{shown.name}”:", "text", 1))
        lines += [Line(said, "text", 1) for said in shown.finding.measured]
    lines += [Line(note, "text", 1) for note in verdict.notes]
    if not _same_problem_everywhere(verdict):
        lines += _table(verdict, shown)
    if verdict.carried:
        lines.append(Line("This exercise's own points are not lost.", "muted", 1))
    if _is_puzzling(verdict):
        code = f'from grader import case; case("{verdict.exercise}", "{shown.name}")'
        lines.append(Line(f"To try it yourself: `{code}`", "muted", 1))
    return lines + _remarks(verdict.cases)


def _is_puzzling(verdict: Verdict) -> bool:
    """Whether there are numbers to look at, and no name for what is wrong with them."""
    findings = [case.finding for case in verdict.cases if case.finding]
    numbers = any(case.difference is not None and case.difference.wrong for case in verdict.cases)
    return numbers and not any(finding.mistake or finding.carried or finding.notes for finding in findings)


def _same_problem_everywhere(verdict: Verdict) -> bool:
    """Whether no case gave anything to compare, for one and the same reason."""
    first, *others = verdict.cases
    if any(case.right or case.difference for case in verdict.cases):
        return False
    return len({case.finding.what for case in verdict.cases if case.finding}) == 1 or (
        all(_same_error(case, first) for case in others)
    )


def _same_error(case: CaseVerdict, other: CaseVerdict) -> bool:
    """Whether both cases stopped for one reason, in one line, whatever the numbers and shapes in the message."""
    both = [each.finding for each in (case, other) if each.finding]
    found = [finding for finding in both if finding.stopped or finding.what.startswith(RAISED)]
    messages = {_NUMBERS.sub("#", finding.what) for finding in found}
    lines = {tuple(line for line in finding.detail if line.startswith("line ")) for finding in found}
    return len(found) == 2 and len(messages) == len(lines) == 1


_NUMBERS = re.compile(r"\[[\d, ]*\]|\d+")


def _table(verdict: Verdict, shown: CaseVerdict) -> list[Line]:
    """A row for each case. Columns in which no case has anything to say are left out."""
    titles = ("", "case", "wrong", "by up to", "first at", "yours", "reference", "")
    rows = [("right" if case.right else "wrong", _cells(case, shown)) for case in verdict.cases]
    if any(any(cells[2:]) for _, cells in rows):
        rows = [(kind, cells if kind == "right" or any(cells[2:]) else (*cells[:-1], SAID)) for kind, cells in rows]
    used = [i for i in range(len(titles)) if i < 2 or any(cells[i] for _, cells in rows)]
    head = Line("", "head", 1, tuple(titles[i] for i in used))
    body = [Line("", "right" if kind == "right" else "wrong", 1, tuple(cells[i] for i in used)) for kind, cells in rows]
    if len(used) == 2:  # marks alone, which say something only where cases differ
        return body if any(case.right for case in verdict.cases) else []
    return [head, *body]


def _cells(case: CaseVerdict, shown: CaseVerdict) -> tuple[str, ...]:
    """The case's row; what the finding of another case says already is not said again."""
    if case.right:
        return ("✓", case.name, "", "", "", "", "", "")
    said = case is shown or (case.finding and shown.finding and case.finding.what == shown.finding.what)
    said = said or _same_error(case, shown)
    short = "" if said or not case.finding else _first_sentence(case).partition(ALL_FIELDS)[0]
    difference = case.difference
    if difference is None or not difference.wrong:
        return ("✗", case.name, "", "", "", "", "", short)
    # A name stands for numbers, as does the line that gave NaN; other descriptions are for the case that is shown.
    more = short if case.finding and (case.finding.mistake or case.finding.waits_for or difference.nan) else ""
    wrong = f"{difference.wrong:,} of {difference.total:,}"
    if difference.wrong == difference.total:
        wrong = f"all {difference.total:,}" if difference.total > 1 else ""
    if difference.nan:
        wrong += f", {difference.nan:,} NaN"
    by = f"{difference.largest:,}".removesuffix(".0") if difference.whole else f"{difference.largest:.2g}"
    # Of whole numbers in a list, such as tokens, the distance means nothing; nor beside values that are all NaN.
    infinite = difference.values is not None and not all(isfinite(value) for value in difference.values)
    listed = difference.whole and difference.total > 1
    if difference.nan == difference.wrong or not difference.largest or listed or infinite:
        by = ""
    at = str(list(difference.first)) if difference.first else ""
    own, right = _apart(difference) if difference.values else ("", "")
    return ("✗", case.name, wrong, by, at, own, right, more)


def _apart(difference: Difference) -> tuple[str, str]:
    """The two values with as many digits as it takes to tell them apart."""
    assert difference.values is not None
    own, right = difference.values
    if difference.whole:
        return f"{own:,}", f"{right:,}"
    for digits in range(4, 17):
        texts = f"{own:.{digits}g}", f"{right:.{digits}g}"
        if texts[0] != texts[1]:
            break
    return texts


def _finding(finding: Finding, where: str) -> list[Line]:
    first = finding.what.partition(" ")[0]
    what = finding.what
    if "_" not in first and first not in ("forward", "None"):  # names from code stay as they are
        what = what[:1].upper() + what[1:]
        if where and what.partition(" ")[0].istitle():  # it goes on after a colon; names such as NaN stay as they are
            what = what[:1].lower() + what[1:]
    if not what.endswith((".", ":", "?")):
        what += "."
    lines = [Line(where + what, "named" if finding.mistake else "text", 1)]
    lines += [Line(detail, "code", 2) for detail in finding.detail]
    lines += [Line(note, "text", 1) for note in (*finding.measured, *finding.notes)]
    if finding.hint:
        lines.append(Line(finding.hint, "hint", 1))
    return lines + [shipped_line(reference, 1) for reference in finding.shipped]


def _remarks(cases: Sequence[CaseVerdict]) -> list[Line]:
    remarks = dict.fromkeys(remark for case in cases for remark in case.remarks)
    return [Line(remark, "muted", 1) for remark in list(remarks)[:3]]
