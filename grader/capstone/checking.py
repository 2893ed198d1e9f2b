"""How much of a capstone a program gets right, as rows and as points."""

from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from grader.calls import first_tensor
from grader.capstone.counterparts import counterparts
from grader.capstone.folder import NOT_STARTED, PROGRAM, TRACE
from grader.capstone.making import ROOM, parameters
from grader.capstone.model import Model
from grader.capstone.parts import WORTH, decodes_as_itself, shares_of
from grader.capstone.shrinking import change, shrinking
from grader.capstone.small import with_small_inputs, wrong_on_small_inputs
from grader.checks.probe.building import load_weights
from grader.checks.probe.running import quietly
from grader.config import Config
from grader.errors import GraderError
from grader.instruments.work import multiply_adds
from grader.layers.comparison import Comparison
from grader.layers.loading import made_model
from grader.layers.own_model import load_model
from grader.porting.comparing import program_report
from grader.porting.decoding import Decoder
from grader.porting.own_names.alignment import Alignment
from grader.porting.own_names.loading import OwnNames, loaded_program
from grader.porting.report import PortReport, as_json
from grader.recordings.tracefile import read_trace
from grader.recordings.traces import Run, Trace
from grader.tolerance import agree

POINTS, OF_CACHE = 100, 30  # how many of them are for decoding with a cache
WITHOUT_CACHE = "`new_cache` gives None: one pass is compared, and decoding with a cache is still to come."
MOST_WORK = 0.5  # of a pass over all tokens; a cached step of the reference takes up to 0.13 of it
OTHER_EPS = (
    "Where weights are such that every norm is given small numbers, the logits are wrong: a norm that is no module of"
    " its own has another eps than the config's, or adds it elsewhere."
)
RECOMPUTES = (
    "A step with the cache computes everything again: its products are as many as those of a pass over all tokens."
)
FORBIDDEN = ("grader.capstone", "transformers")


@dataclass(frozen=True)
class Checked:
    """What was found. parts: how much is right of each of WORTH, 0 to 1. cached: the same of decoding with a cache.

    failings: what no row shows, a sentence each.
    """

    report: PortReport
    parts: dict[str, float]
    cached: float
    failings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every row is right, and nothing else is wrong."""
        return self.report.ok and not self.failings

    @property
    def shares(self) -> dict[str, tuple[float, int]]:
        """For each part, and for decoding, the points that it has, and how many there are."""
        found = {name: (self.parts[name], worth) for name, worth in WORTH.items()}
        found["decoding"] = self.cached, OF_CACHE
        return {name: (round(share * worth, 1), worth) for name, (share, worth) in found.items()}

    @property
    def points(self) -> float:
        """Of POINTS, all only where nothing is wrong."""
        if self.ok:
            return POINTS
        return min(round(sum(points for points, _ in self.shares.values()), 1), POINTS - 1)

    def as_json(self) -> dict[str, Any]:
        """The same for other programs."""
        parts = {name: round(share, 4) for name, share in self.parts.items()}
        found = as_json(self.report) | {"ok": self.ok, "failings": list(self.failings)}
        return {"points": self.points, "of": POINTS, "parts": parts, "cached": round(self.cached, 4), **found}


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
    built = _built(model, Config(trace.build["config"]))
    failings = [] if built is None else [*_failings(built, trace)]
    try:
        report = program_report(model, trace)
    except GraderError as error:
        report = program_report(model, replace(trace, runs=()))  # what there is without a cache
        failings.append(WITHOUT_CACHE if built is not None and _gives_no_cache(built) else str(error))
    with quietly([]), torch.no_grad():
        loaded, own, alignment = loaded_program(model, trace, OwnNames())
        comparison = Comparison(loaded, own)
        found = counterparts(comparison, trace)
        small = list(wrong_on_small_inputs(found))
        parts = shares_of(comparison, found, {one.node.path for one in small if one.of_a_norm})
        cached = _cached(loaded, trace, report, parts["attention"])
        if report.ok and not small and not _right_on_small_numbers(model, trace, alignment):
            failings.append(OTHER_EPS)
    cached = 0.0 if RECOMPUTES in failings else cached
    return Checked(with_small_inputs(report, small), parts, cached, tuple(failings))


def _right_on_small_numbers(model: type[nn.Module], trace: Trace, alignment: Alignment | None) -> bool:
    """Whether logits are right with weights with which each norm is given small numbers, wherever it is computed."""
    reference, (ids,) = Model(Config(trace.build["config"])).eval(), trace.args
    reference.load_state_dict(dict(trace.weights), strict=False)  # a tied head has no weights of its own
    change(reference, shrinking(reference, ids))
    weights = {name: tensor for name, tensor in reference.state_dict().items() if name in trace.weights}
    if alignment is None:
        program = loaded_program(model, replace(trace, weights=weights), OwnNames())[0]
    else:
        program = made_model(model, trace)
        load_weights(program, {name: recipe.make(weights) for name, recipe in alignment.recipes.items()})
    got = first_tensor(program(ids))
    return got is not None and agree(got, reference(ids), ROOM)


def _cached(model: nn.Module, trace: Trace, report: PortReport, attention: float) -> float:
    """The share of steps with a cache that are right: while one pass is not, of those that are as the program's own,
    times that of attention that is right, without which there is nothing to keep.
    """
    titles = [f"{run.name}, {step.name}" for run in trace.runs for step in run.steps]
    right = {row.name for row in report.rows if row.name in titles and row.outcome.ok}
    share = len(right) / max(len(titles), 1)
    whole = next((row for row in report.rows if row.name in ("logits", "output")), None)
    wrong = trace.runs and whole is not None and not whole.outcome.ok
    return max(share, attention * decodes_as_itself(model, trace.runs[0])) if wrong else share


def _built(model: type[nn.Module], config: Config) -> nn.Module | None:
    """The program's model, or None where it fails: the comparison says how.

    Raises GraderError where it is not started, or not its author's.
    """
    try:
        with redirect_stdout(StringIO()):
            built = model(config)
    except NotImplementedError as error:
        if NOT_STARTED in str(error):
            raise GraderError(f"{NOT_STARTED} Write Model's parts in {PROGRAM}: README.md says how to start.") from None
        return None
    except Exception:
        return None
    homes = {kind.__module__ for module in built.modules() for kind in type(module).__mro__}
    if strange := sorted(home for home in homes if home.startswith(FORBIDDEN)):
        raise GraderError(f"{PROGRAM} has modules of {strange[0]}: write them yourself.")
    return built


def _failings(model: nn.Module, trace: Trace) -> Iterator[str]:
    """What a comparison of tensors can't show: weights that are there twice, and a cache that is not a new one."""
    own, due = parameters(model), sum(tensor.numel() for tensor in trace.weights.values())
    if own > due:
        tied = " With tie_word_embeddings the head's weight is the embedding's." if _tied(trace) else ""
        yield f"Your model has {own:,} parameters, and the model of this folder {due:,}.{tied}"
    if trace.runs and not _caches_are_new(model, trace.runs[0].steps[0].ids):
        yield "`new_cache` has to make a cache without tokens each time: the second one holds what the first was given."
    if trace.runs and _recomputes(model, trace.runs[0]):
        yield RECOMPUTES


def _gives_no_cache(model: nn.Module) -> bool:
    try:
        return model.new_cache(1, 1) is None  # type: ignore[operator]
    except Exception:  # learner's code may raise anything
        return False


def _tied(trace: Trace) -> bool:
    return bool(trace.build["config"].get("tie_word_embeddings"))


def _caches_are_new(model: nn.Module, ids: Tensor) -> bool:
    """Whether two new caches give the same logits for the same tokens; True where it can't be told."""
    try:
        with quietly([]), torch.no_grad():
            model.eval()
            first, second = (model(ids, cache=model.new_cache(*ids.shape)) for _ in range(2))  # type: ignore[operator]
            return agree(second, first)
    except Exception:  # learner's code may raise anything; the comparison says what
        return True


def _recomputes(model: nn.Module, run: Run) -> bool:
    """Whether the last step with a cache takes as much work as all tokens at once; False where it can't be told."""
    ids = torch.cat([step.ids for step in run.steps], dim=1)
    try:
        with quietly([]), torch.no_grad():
            model.eval()
            decoder = Decoder(model, True, *ids.shape)
            for step in run.steps[:-1]:
                decoder(step.ids, None, step.positions)
            last = run.steps[-1]
            work = multiply_adds(lambda: decoder(last.ids, None, last.positions))
            return work > MOST_WORK * multiply_adds(lambda: model(ids))
    except Exception:  # learner's code may raise anything; the comparison says what
        return False
