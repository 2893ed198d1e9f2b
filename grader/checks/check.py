"""`check`: the one line under every exercise."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from grader.checks.examine import examine_here
from grader.checks.judge.verdict import Verdict
from grader.checks.judge.wording import report, summary
from grader.checks.probe.provenance import is_given
from grader.checks.stale import not_from_the_last_cell
from grader.devices import comparing_on_cpu
from grader.errors import CheckFailed
from grader.progress import State, note
from grader.recordings.format import RECORDING
from grader.recordings.recording import Recording
from grader.report import Line, show

TRIES = 3  # from there on a report says how to see the solution
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
        recorded = find_recording(recording)
        verdict = examine_here(recorded, exercise, solution)
        name = getattr(solution, "__name__", "")
        older = not_from_the_last_cell(name)
        lines = [*([Line(older, "bad")] if older else []), *report(verdict)]
        own = recorded.solutions([exercise])[exercise] == name
        show(lines + (_kept_for_the_learner(verdict) if own else []), summary(verdict))
    if autograding():
        return verdict.points
    if not verdict.right:
        raise CheckFailed(f"{exercise} is not right yet: see the report above.")
    return None


def autograding() -> bool:
    """Whether nbgrader is grading this notebook, and takes the last value of a check's cell as its points."""
    return os.environ.get("NBGRADER_EXECUTION") == "autograde"


def _kept_for_the_learner(verdict: Verdict) -> list[Line]:
    """Keep what the check said, in a folder that `grader start` made; what to say of it in the report, if anything.

    Only of the exercise's own class: a lesson also checks classes that it breaks on purpose, under other names.
    """
    if autograding():
        return []
    first = verdict.most_telling
    unwritten = first is not None and first.finding is not None and first.finding.unwritten
    state: State = "right" if verdict.right else "unwritten" if unwritten else "wrong"
    kept = note(_STARTED_IN, verdict.exercise, state)
    if kept is None or state != "wrong" or kept.tries < TRIES:
        return []
    return [Line(f"To see how it can be done, run in a terminal: `grader solution {verdict.exercise}`", "muted")]


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
