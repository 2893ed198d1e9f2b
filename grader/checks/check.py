"""`check`: the one line under every exercise."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from grader.checks.examine import examine_here
from grader.checks.stale import not_from_the_last_cell
from grader.checks.whose import is_given
from grader.checks.wording import report, summary
from grader.devices import comparing_on_cpu
from grader.errors import CheckFailed
from grader.recordings.format import RECORDING
from grader.recordings.recording import Recording
from grader.report import Line, show

_STARTED_IN = Path.cwd()  # a notebook that changes folder still finds what lies beside it


def check(exercise: str, solution: Any, *, recording: str | Path | None = None) -> float | None:
    """Check a learner's class or function against the recorded reference, and show a report.

    exercise: its name, as in "gpt2.layer_norm". solution: the class or function itself, not an instance.
    recording: a ``reference.safetensors``; by default the one beside the notebook. A class that puts its parameters on
    another device gets its inputs there, and so does everything under `torch.set_default_device`; values are
    compared on the CPU.

    Returns None. While nbgrader autogrades, it returns the points earned instead, and raises nothing.
    Raises CheckFailed where a case is wrong or the solution is this package's own, RecordingError where there is
    nothing to check against.
    """
    if is_given(solution):
        name = getattr(solution, "__name__", exercise)
        raise CheckFailed(f"{exercise} needs code of your own: `{name}` is the grader's, and is no answer to it.")
    with comparing_on_cpu():
        verdict = examine_here(find_recording(recording), exercise, solution)
        older = not_from_the_last_cell(getattr(solution, "__name__", ""))
        show([*([Line(older, "bad")] if older else []), *report(verdict)], summary(verdict))
    if autograding():
        return verdict.points
    if not verdict.right:
        raise CheckFailed(f"{exercise} is not right yet: see the report above.")
    return None


def autograding() -> bool:
    """Whether nbgrader is grading this notebook, and takes the last value of a check's cell as its points."""
    return os.environ.get("NBGRADER_EXECUTION") == "autograde"


def find_recording(path: str | Path | None = None) -> Recording:
    """The recording at `path`, or the one beside the notebook. Raises RecordingError where there is none."""
    if path is None:
        path = next(
            (p for p in (Path.cwd() / RECORDING, _STARTED_IN / RECORDING) if p.exists()), Path.cwd() / RECORDING
        )
    path = Path(path)
    try:
        stamp = path.stat().st_mtime_ns
    except OSError:
        stamp = 0
    return _read(path, stamp)


@lru_cache(maxsize=4)
def _read(path: Path, stamp: int) -> Recording:
    """The recording; `stamp` is its time of change, so that a new file is read anew."""
    return Recording.read(path)
