"""Compare a learner's model with the trace of the notebook's lesson, and show what was found."""

from typing import TYPE_CHECKING, Any

from grader.checks.check import autograding, find_recording
from grader.devices import comparing_on_cpu
from grader.errors import CheckFailed, RecordingError
from grader.recordings.format import RECORDING
from grader.report import show

if TYPE_CHECKING:
    from grader.layers.rows import LayerReport
    from grader.layers.wording import Open


def compare_with_lesson(model: Any, open: "Open" = "first", diagnosis: bool = True) -> None:
    """`compare_layers` without a trace of one's own. Raises RecordingError where the lesson has none."""
    from grader.layers.debugger import layer_report  # late: its parts take as long to import as all that a check needs

    trace = find_recording().trace
    if trace is None:
        raise RecordingError(f"{RECORDING} holds no trace of a whole model, so there are no layers to compare.")
    with comparing_on_cpu():
        report = layer_report(model, trace)
    show_report(report, open, diagnosis)


def show_report(report: "LayerReport", open: "Open", diagnosis: bool = True) -> None:
    """Show what a comparison found. Raises CheckFailed if a row differs, but not while nbgrader autogrades."""
    from grader.layers.wording import report_lines

    culprit = report.culprit.path if report.culprit else None
    show(report_lines(report, open, diagnosis), {"rows": len(report.rows), "passed": report.ok, "culprit": culprit})
    if not report.ok and not autograding():
        raise CheckFailed("The model differs from the reference: see the report above.")
