"""Whether a norm's eps is right: each is given an input so small that it shows, which a pass over texts has not."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from grader.calls import Call, tensors_in
from grader.capstone.counterparts import Counterparts
from grader.capstone.model import GatedNorm, GroupedAttention, LatentAttention, LayerCache, LinearAttention, Norm
from grader.checks.layout import arranged, arrangements
from grader.layers.node import Node
from grader.layers.outcome import Outcome, outcome
from grader.layers.pairing import residual_for
from grader.layers.rows import Culprit, LayerRow, summarised
from grader.porting.report import PortReport
from grader.tolerance import Tolerance, agree

SMALL = 1e-3  # times the input that was recorded: its mean square is about an eps then
LEAST = 1e-9  # a smaller eps is taken for none
MIXERS = (GroupedAttention, LatentAttention, LinearAttention)
NEARLY = Tolerance(1e-3)  # how near an eps that is read off an output has to explain it


@dataclass(frozen=True)
class SmallInput:
    """What a module that is right on the recorded input gives on a small one. said: what is wrong, a sentence."""

    node: Node
    outcome: Outcome
    said: str
    of_a_norm: bool

    @property
    def row(self) -> LayerRow:
        """What stands for it in a report."""
        name = f"{self.node.name}, on a small input"
        return LayerRow(name, self.node.type, self.outcome, "own error", name, 0)


def wrong_on_small_inputs(found: Counterparts) -> Iterator[SmallInput]:
    """The norms that are wrong on small inputs. Where a program has a norm that is no module of its own, and for the
    lengths that linear layers divide by, the attention around it is tried, too, unless a norm in it is wrong.
    """
    for path in found.of(Norm, GatedNorm, *MIXERS):
        node, module = found.nodes.get(path), found.modules[path]
        if node is None:
            continue
        if isinstance(module, MIXERS):
            inner = [other for other in found.of(Norm, GatedNorm) if other.startswith(f"{path}.")]
            seen = all(other in found.nodes for other in inner) and not isinstance(module, LinearAttention)
            if seen or not (node.seen.ok or _alone(node)):
                continue
            if any(_tried(found.nodes[other], found.modules[other]) for other in inner if other in found.nodes):
                continue
        wrong = _tried(node, module)
        if wrong is not None:
            yield wrong


def with_small_inputs(report: PortReport, found: list[SmallInput]) -> PortReport:
    """The report with a row for each of them. The first is where to start, unless something else is wrong by far."""
    if not found:
        return report
    first, paths, culprit = found[0], [one.node.path for one in found], report.culprit
    rows = {row.name: row for row in report.rows}
    row = rows.get(culprit.row or culprit.name) if culprit else None
    named = [one for one in found if culprit and one.node.path == culprit.path]
    if culprit is None or named or (row is not None and not row.outcome.in_kind):
        first = (named or found)[0]
        culprit = Culprit(first.node.path, first.node.name, first.node.type, (first.said,), row=first.row.name)
        paths.remove(first.node.path)
    more = [path for path in summarised(paths) if path not in report.own_errors]
    return replace(report, rows=(*report.rows, *(one.row for one in found)), culprit=culprit,
                   own_errors=(*report.own_errors, *more))  # fmt: skip


def _alone(node: Node) -> bool:
    return node.alone is not None and node.alone.ok


def _tried(node: Node, module: nn.Module) -> SmallInput | None:
    """What is wrong of a module on a small input; None where nothing is, or it can't be told."""
    pair = _answers(node, module, SMALL)
    if pair is None or (found := outcome(*pair, {})).ok:
        return None
    assert node.recorded.input is not None
    eps = None if isinstance(module, MIXERS) else _eps_of(module, SMALL * node.recorded.input, node.recorded, *pair)
    if eps is None and not (node.seen.ok or _alone(node)):
        return None  # that is told already
    return SmallInput(node, found, _said(module, eps), not isinstance(module, MIXERS))


def norm_is_right(node: Node, module: nn.Module) -> bool:
    """Whether a norm is right on all that the reference's is given, its gate included."""
    pair = _answers(node, module, 1.0)
    return pair is not None and outcome(*pair, {}).ok


def _answers(node: Node, module: nn.Module, factor: float) -> tuple[Tensor, Tensor] | None:
    """What a program's module and the reference's give for the recorded input, which is taken so many times; None where
    that can't be told.
    """
    given, right = node.given, node.recorded.input
    if node.argument is None or given is None or right is None or not node.call.finished:
        return None
    if given.numel() != right.numel() or residual_for(node.call, node.recorded, node.argument) is not None:
        return None
    x, places = factor * right, _places(right, given)
    want = _reference_gives(module, x, node.recorded)
    mine, theirs = node.other_tensors(), [other for _, other in node.recorded.others]
    pairs = zip(mine, theirs, strict=True) if len(mine) == len(theirs) else ()
    others = {i: arranged(t, node.call.leaves[i]) for i, t in pairs if t.numel() == node.call.leaves[i].numel()}
    try:
        gave = tensors_in(node.call.again({**others, node.argument: x.flatten()[places]}))[0]
    except Exception:  # learner's code may raise anything
        return None
    if gave.numel() != want.numel() or want.shape != x.shape:
        return None
    got = torch.empty_like(want).flatten()
    got[places.flatten()] = gave.to(want.dtype).flatten()
    return got.view_as(want), want


def _places(right: Tensor, given: Tensor) -> Tensor:
    """Where each value of what a program gives a module stands in what the reference gives it."""
    places = torch.arange(right.numel()).view(right.shape)
    if right.shape == given.shape:
        return places
    options = zip(arrangements(right, given.shape), arrangements(places, given.shape), strict=True)
    return min(options, key=lambda option: float((option[0] - given).abs().mean().nan_to_num(torch.inf)))[1]


def _reference_gives(module: nn.Module, x: Tensor, recorded: Call) -> Tensor:
    if isinstance(module, MIXERS):
        return module(x, 0, LayerCache())  # type: ignore[no-any-return]
    return module(x, *(other for _, other in recorded.others))  # type: ignore[no-any-return]


def _eps_of(module: nn.Module, x: Tensor, recorded: Call, got: Tensor, want: Tensor) -> float | None:
    """The eps with which the reference's norm gives what a program's gave; None where there is none."""
    own = module.eps
    assert isinstance(own, float)
    bias = getattr(module, "bias", None)
    bias = 0 if bias is None else bias
    centred = x - x.mean(-1, keepdim=True) if getattr(module, "layer", False) else x
    square = centred.double().square().mean(-1)
    due, gave = (want - bias).double(), (got - bias).double()
    share = (gave * due).sum(-1) / due.square().sum(-1)
    eps = float((((square + own) / share.square()) - square).median())
    eps = eps if abs(eps) > LEAST else 0.0
    module.eps = eps  # type: ignore[assignment]
    explains = eps >= 0 and agree(_reference_gives(module, x, recorded), got, NEARLY)
    module.eps = own
    return eps if explains else None


def _said(module: nn.Module, eps: float | None) -> str:
    lead = "it is right on the recorded input, and wrong on one a thousandth as large"
    if isinstance(module, LinearAttention):
        return f"{lead}: look at the eps with which queries and keys are brought to length 1."
    if isinstance(module, MIXERS):
        return f"{lead}: look at the eps of the norms in it."
    due = f"{module.eps:g}"
    if eps is None:
        return f"{lead}: look at its eps, {due} in the config, and at what that is added to."
    return f"its eps is {eps:.2g} and should be {due}, which shows on small inputs."
