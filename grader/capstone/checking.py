"""How much of a capstone a program gets right, as rows and as points."""

from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from torch import nn

from grader.capstone.folder import NOT_STARTED, PROGRAM, TRACE
from grader.config import Config
from grader.errors import GraderError
from grader.layers.own_model import load_model
from grader.porting.comparing import program_report
from grader.porting.report import PortReport, as_json
from grader.recordings.tracefile import read_trace
from grader.recordings.traces import Trace

POINTS, OF_CACHE = 100, 30  # how many of them are for decoding with a cache
FORBIDDEN = ("grader.capstone", "transformers")


@dataclass(frozen=True)
class Checked:
    """What was found. modules, cached: the share of rows that are right by themselves, and of steps with a cache."""

    report: PortReport
    modules: float
    cached: float

    @property
    def points(self) -> float:
        """Of POINTS, all only where every row is right."""
        if self.report.ok:
            return POINTS
        found = (POINTS - OF_CACHE) * self.modules + OF_CACHE * self.cached
        return min(round(found, 1), POINTS - 1)

    def as_json(self) -> dict[str, Any]:
        """The same for other programs."""
        shares = {"modules": round(self.modules, 4), "cached": round(self.cached, 4)}
        return {"points": self.points, "of": POINTS, **shares, **as_json(self.report)}


def check_folder(folder: Path, trace: Trace | None = None) -> Checked:
    """Check the program in a capstone's folder. trace: what it is compared with; None: the trace in the folder.

    Raises GraderError where there is no such folder, or no program that could be compared.
    """
    if not folder.is_dir():
        raise GraderError(f"{folder} is no folder. `grader capstone --seed 7 --to {folder}` makes one.")
    if not (folder / PROGRAM).is_file():
        raise GraderError(f"{folder} has no {PROGRAM}. Is it a capstone's folder?")
    return check_program(load_program(folder / PROGRAM), trace or read_trace(folder / TRACE))


def load_program(path: Path) -> type[nn.Module]:
    """The class Model of a program. Raises GraderError where it has none, or fails."""
    model = load_model(str(path), "Model")
    if not (isinstance(model, type) and issubclass(model, nn.Module)):
        raise GraderError(f"{path}: `Model` is no nn.Module class.")
    return model


def check_program(model: type[nn.Module], trace: Trace) -> Checked:
    """Check a class. Raises GraderError where it is not started, is not its author's, or can't be compared."""
    _require_own(model, Config(trace.build["config"]))
    report = program_report(model, trace)
    runs = tuple(f"{run.name}, " for run in trace.runs)
    plain = [row for row in report.rows if not row.name.startswith(runs) and ":" not in row.name]
    right = [row for row in plain if row.outcome.ok or row.origin == "inherited"]
    calls = sum(":" not in call.path for call in trace.calls)
    whole = plain and plain[-1].outcome.ok
    titles = [f"{run.name}, {step.name}" for run in trace.runs for step in run.steps]
    steps = {row.name for row in report.rows if row.name in titles and row.outcome.ok}
    return Checked(report, 1.0 if whole else min(1.0, len(right) / max(calls, 1)), len(steps) / max(len(titles), 1))


def _require_own(model: type[nn.Module], config: Config) -> None:
    try:
        with redirect_stdout(StringIO()):
            built = model(config)
    except NotImplementedError as error:
        if NOT_STARTED in str(error):
            raise GraderError(f"{NOT_STARTED} Write Model's parts in {PROGRAM}: README.md says how to start.") from None
        return  # the comparison says where it fails
    except Exception:
        return
    homes = {kind.__module__ for module in built.modules() for kind in type(module).__mro__}
    if strange := sorted(home for home in homes if home.startswith(FORBIDDEN)):
        raise GraderError(f"{PROGRAM} has modules of {strange[0]}: write them yourself.")
