"""`compare_layers`: the layer debugger as a notebook calls it."""

from typing import TYPE_CHECKING, Any

from grader.checks.check import autograding, find_recording
from grader.devices import comparing_on_cpu
from grader.errors import CheckFailed, RecordingError
from grader.recordings.format import RECORDING
from grader.report import show

if TYPE_CHECKING:
    from grader.layers.rows import LayerReport
    from grader.layers.shown import Open
    from grader.recordings.traces import Trace


def compare_layers(model: Any, trace: "Trace | None" = None, open: "Open" = "first") -> None:
    """Compare a model with the reference, module by module, and show where to start looking.

    model: the class, or an instance, which is left as it is: a copy gets the reference's weights. Both are run on
    the CPU, whatever device they are on.
    trace: the reference's pass; that of the notebook's lesson if None. Compared with one that is given, the model may
    have names of its own.
    open: whether to show what is inside the first block with an error, inside all blocks, or inside none.
    Raises CheckFailed if a row differs (not while nbgrader autogrades), and GraderError if the model can't be
    compared at all.
    """
    from grader.layers.debugger import layer_report  # late: its parts take as long to import as all that a check needs
    from grader.layers.shown import report_lines

    with comparing_on_cpu():
        report = layer_report(model, _lesson_trace()) if trace is None else _under_its_own_names(model, trace)
    culprit = report.culprit.path if report.culprit else None
    show(report_lines(report, open), {"rows": len(report.rows), "passed": report.ok, "culprit": culprit})
    if not report.ok and not autograding():
        raise CheckFailed("The model differs from the reference: see the report above.")


def _under_its_own_names(model: Any, trace: "Trace") -> "LayerReport":
    from grader.layers.debugger import layer_report
    from grader.layers.own_names.naming import OwnNames

    return layer_report(model, trace, OwnNames())


def _lesson_trace() -> "Trace":
    trace = find_recording().trace
    if trace is None:
        raise RecordingError(f"{RECORDING} holds no trace of a whole model, so there are no layers to compare.")
    return trace
