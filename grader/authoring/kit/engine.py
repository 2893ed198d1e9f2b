"""What others.py and tests of a lesson ask of the engine itself: a probe and its judge, reports, calls, checkpoints."""

from grader.calls import record_calls
from grader.checkpoints.checkpoint import Checkpoint
from grader.checkpoints.registry import entry
from grader.checks.examine import examine_here
from grader.checks.judge import judge
from grader.checks.judge.wording import report
from grader.checks.probe import probe
from grader.layers.debugger import layer_report
from grader.report import to_text

__all__ = ["Checkpoint", "entry", "examine_here", "judge", "layer_report", "probe", "record_calls", "report", "to_text"]
