"""What the checks of an executed notebook came to."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from grader.errors import GraderError
from grader.lessons.execution import one_line
from grader.report import VERDICT_MIME


@dataclass(frozen=True)
class CheckResult:
    """What one graded check of a notebook came to.

    reason: what is wrong where it did not pass. waits_for: the exercises that have to be mended for it to pass,
    where it is right by itself and only a part of it is wrong. report: what the check showed, or why it showed nothing.
    """

    exercise: str
    passed: bool
    points: float = 0.0
    max_points: float = 0.0
    reason: str = ""
    waits_for: tuple[str, ...] = ()
    report: str = ""

    @property
    def waits(self) -> bool:
        """Whether it has all its points, and does not pass only because a part from another exercise is wrong."""
        return not self.passed and 0 < self.max_points <= self.points


def check_results(notebook: NotebookNode) -> list[CheckResult]:
    """What each graded check of an executed notebook came to, in the notebook's order.

    In a notebook without graded cells every check that ran counts.
    """
    graded = [cell for cell in notebook.cells if _is_graded(cell)]
    cells = graded or [cell for cell in notebook.cells if _verdicts(cell)]
    return [result for cell in cells for result in _results_of(cell)]


def unchecked(results: Iterable[CheckResult], folder: Path) -> list[CheckResult]:
    """A result that did not pass for each exercise of the lesson in `folder` that no check of the notebook was about.

    None where no recording in it can be read: what is checked can't be right then.
    """
    from grader.recordings.format import RECORDING  # imports torch
    from grader.recordings.recording import Recording  # imports torch

    try:
        recorded = Recording.read(folder / RECORDING)
    except GraderError:
        return []
    checked = {result.exercise for result in results}
    return [
        CheckResult(
            name, passed=False, max_points=recorded.answer(name).points, reason="its check is not in this notebook"
        )
        for name in recorded.exercises
        if name not in checked
    ]


def unexpected_errors(notebook: NotebookNode) -> list[str]:
    """A line for each cell that raised, outside the graded checks and those tagged ``raises-exception``."""
    lines = []
    for index, cell in enumerate(notebook.cells):
        error = _error(cell)
        expected = _is_graded(cell) or "raises-exception" in cell.metadata.get("tags", [])
        if error and not expected:
            lines.append(f"cell {index + 1} raised {error}")
    return lines


def _results_of(cell: NotebookNode) -> list[CheckResult]:
    """One result per verdict the cell displayed; one that did not pass where it displayed none."""
    error = _error(cell)
    found = [
        CheckResult(
            exercise=str(verdict["exercise"]),
            passed=bool(verdict["passed"]),
            points=float(verdict.get("points", 0)),
            max_points=float(verdict.get("max_points", 0)),
            reason="" if verdict["passed"] else str(verdict.get("summary", "")),
            waits_for=tuple(str(name) for name in verdict.get("waits_for", ())),
            report=report,
        )
        for verdict, report in _verdicts(cell)
    ]
    if found and error and all(result.passed for result in found):
        return [*found, _without_verdict(cell, error)]
    return found or [_without_verdict(cell, error or "the check did not run")]


def _without_verdict(cell: NotebookNode, reason: str) -> CheckResult:
    name = cell.metadata.get("check") or cell.metadata.get("nbgrader", {}).get("grade_id", "a check")
    points = float(cell.metadata.get("nbgrader", {}).get("points", 0))
    return CheckResult(exercise=str(name), passed=False, max_points=points, reason=reason)


def _is_graded(cell: NotebookNode) -> bool:
    """Whether nbgrader gives points for this cell by running it."""
    return cell.cell_type == "code" and bool(cell.metadata.get("nbgrader", {}).get("grade", False))


def _verdicts(cell: NotebookNode) -> list[tuple[dict[str, Any], str]]:
    """What the checks in a cell displayed, each with its report as plain text.

    A comparison of layers, which is about no exercise, is left out.
    """
    shown = [output.get("data", {}) for output in cell.get("outputs", [])]
    checks = [data for data in shown if "exercise" in data.get(VERDICT_MIME, {})]
    return [(dict(data[VERDICT_MIME]), str(data.get("text/plain", ""))) for data in checks]


def _error(cell: NotebookNode) -> str:
    """The error a cell ended with, in one line, or an empty string."""
    for output in cell.get("outputs", []):
        if output.output_type == "error":
            return one_line(output.ename, output.evalue)
    return ""
