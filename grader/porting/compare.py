"""`compare_layers`: the layer debugger as a notebook calls it."""

from typing import TYPE_CHECKING, Any

from grader.layers.compare import compare_with_lesson, show_report

if TYPE_CHECKING:
    from grader.layers.wording import Open
    from grader.recordings.traces import Trace


def compare_layers(model: Any, trace: "Trace | None" = None, open: "Open" = "first", diagnosis: bool = True) -> None:
    """Compare a model with the reference, module by module, and show where to start looking.

    model: the class, or an instance, which is left as it is: a copy gets the reference's weights. Both are run on
    the CPU, whatever device they are on.
    trace: the reference's pass; that of the notebook's lesson if None. Compared with one that is given, the model may
    have names of its own.
    open: whether to show what is inside the first block with an error, inside all blocks, or inside none.
    diagnosis: whether to say above the rows where to start, and why; without it the rows alone are shown.
    Raises CheckFailed if a row differs (not while nbgrader autogrades), and GraderError if the model can't be
    compared at all.
    """
    if trace is None:
        compare_with_lesson(model, open, diagnosis)
        return
    from grader.devices import comparing_on_cpu
    from grader.porting.comparing import program_report  # late: a lesson's comparison has no use for it

    with comparing_on_cpu():
        report = program_report(model, trace)
    show_report(report, open, diagnosis)
