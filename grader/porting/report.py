"""What a comparison of a port found, and the same as JSON, for other programs."""

from dataclasses import dataclass
from typing import Any

from grader.layers.rows import LayerReport
from grader.porting.own_names.alignment import Alignment
from grader.porting.own_names.files import patterns


@dataclass(frozen=True)
class PortReport(LayerReport):
    """A report, and which tensor is which, where the program has names of its own."""

    alignment: Alignment | None = None


def as_json(report: PortReport) -> dict[str, Any]:
    """A report as what JSON holds. max and mean are absolute differences; origin is empty where a row is right."""
    culprit = report.culprit
    found: dict[str, Any] = {
        "ok": report.ok,
        "culprit": None
        if culprit is None
        else {"path": culprit.path, "type": culprit.type, "reasons": culprit.reasons, "place": culprit.place},
        "rows": [
            {
                "name": row.name,
                "type": row.type,
                "ok": row.outcome.ok,
                "max": row.outcome.max,
                "mean": row.outcome.mean,
                "origin": row.origin,
                "note": row.outcome.note,
            }
            for row in report.rows
        ],
        "wrong_too": report.own_errors,
        "remarks": report.remarks,
        "unseen": report.unseen,
        "one_sided": report.one_sided,
        "traceback": report.traceback,
    }
    if report.alignment:
        found["names"] = patterns(report.alignment.recipes)
        found["hints"] = report.hints
    return found
