"""What a comparison found as JSON, for other programs."""

from typing import Any

from grader.layers.own_names.files import patterns
from grader.layers.rows import LayerReport


def as_json(report: LayerReport) -> dict[str, Any]:
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
        found["hints"] = report.alignment.hints
    return found
