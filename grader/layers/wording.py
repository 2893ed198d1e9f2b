"""How a person sees what a comparison found."""

from dataclasses import replace
from typing import Literal

from grader.layers.rows import LayerReport, LayerRow
from grader.report import Line, LineKind

Open = Literal["first", "all", "none"]


def report_lines(report: LayerReport, open: Open = "first", diagnosis: bool = True) -> list[Line]:
    """Where to start, the table of rows, and what could not be compared; without a diagnosis, the rows alone."""
    opened = _opened(report, open)
    alone = not (diagnosis or report.ok or report.traceback)
    marked = replace(report, culprit=None) if alone else report
    rows = [row for row in report.rows if row.block == row.name or row.block in opened]
    table = [Line("", "head", 0, ("", "module", "max", "mean", "")), *(_row_line(row, marked) for row in rows)]
    if alone:
        return [Line("✗ Some rows differ from the reference.", "bad"), *table]
    lines = [*_diagnosis(report), *(Line(text, "code", 1) for text in report.traceback)]
    lines += [Line(text, "hint", 1) for text in (*report.hints, *report.remarks)]
    lines += table
    if report.own_errors:
        lines.append(Line(f"Wrong by themselves, too: {', '.join(report.own_errors)}", "muted"))
    lines.extend(Line(text, "muted") for text in report.one_sided)
    if report.ok and report.unseen:
        lines.append(Line(f"No row of this trace would change with: {', '.join(report.unseen)}", "muted"))
    return lines


def _diagnosis(report: LayerReport) -> list[Line]:
    culprit = report.culprit
    if report.ok:
        exact = all(row.outcome.max == 0 for row in report.rows)
        count = "The only row matches" if len(report.rows) == 1 else f"All {len(report.rows)} rows match"
        return [Line(f"✓ {count} the reference{', bit-exact' if exact else ''}.", "ok")]
    if culprit is None:
        return [Line("✗ No module is wrong by itself: small errors add up, as rounding does.", "bad")]
    kind = f" ({culprit.type})" if culprit.type else ""
    name = f"`{culprit.name}`{kind}" if culprit.name != culprit.type else f"`{culprit.type}` itself"
    first, *more = culprit.reasons
    where = f", in “{culprit.place}”" if culprit.place else ""
    return [Line(f"✗ Start here{where}: {name}: {first}", "bad"), *(Line(reason, "hint", 1) for reason in more)]


def _opened(report: LayerReport, open: Open) -> set[str]:
    """The names of the blocks whose inside is shown."""
    closed = [row for row in report.rows if row.block != row.name]
    if open == "all":
        return {row.block for row in closed}
    if open == "none":
        return set()
    wrong = {row.block for row in report.rows if row.origin in ("own error", "error inside")}
    wrong = wrong or {row.block for row in report.rows if not row.outcome.ok}
    return set(next(([row.block] for row in closed if row.block in wrong), []))


def _row_line(row: LayerRow, report: LayerReport) -> Line:
    outcome = row.outcome
    measured = outcome.ok or outcome.max != 0 or not outcome.note
    numbers = [_number(value) if measured else "" for value in (outcome.max, outcome.mean)]
    said = "; ".join(part for part in (row.origin, outcome.note) if part)
    indent = "" if row.block == row.name else "  " * row.depth
    mark = "[OK]" if outcome.ok else "[DIFF]"
    return Line("", _row_kind(row, report), 0, (mark, indent + row.name.removeprefix(f"{row.block}: "), *numbers, said))


def _row_kind(row: LayerRow, report: LayerReport) -> LineKind:
    """Green for right, red for wrong by itself, grey for what only suffers; the one to start with is tinted, too."""
    culprit = report.culprit
    if culprit and row.name == (culprit.row or (culprit.name if culprit.path else report.rows[-1].name)):
        return "row_guilty"
    if row.outcome.ok:
        return "row_ok"
    return "row_bad" if row.origin == "own error" else "row_dim"


def _number(value: float) -> str:
    return f"{value:.1e}" if value else "0"
