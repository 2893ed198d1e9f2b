"""Which parts of a capstone's program are right, each judged by itself: on the reference's input, among right ones."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from grader.calls import first_tensor
from grader.capstone.counterparts import Counterparts, is_right
from grader.capstone.model import (
    MLP,
    Experts,
    GatedNorm,
    Layer,
    MoE,
    Norm,
    Router,
)
from grader.capstone.small import MIXERS, norm_is_right
from grader.layers.answers import answering
from grader.layers.comparison import Comparison
from grader.layers.node import Node
from grader.layers.outcome import outcome_of
from grader.layers.pairing import given_right
from grader.porting.decoding import Decoder
from grader.recordings.traces import Run
from grader.tolerance import Tolerance, agree

# What each is worth of the points for one pass.
WORTH = {
    "attention": 28,  # and linear layers
    "MLPs": 18,  # and experts
    "layers": 12,  # what goes where: norms' places, sums, factors
    "norms": 6,
    "ends": 6,  # the embedding, and what makes logits
}
STEPS = 1 / 3  # of a wrong attention's share, where its queries and keys are right up to RoPE, or its convolution is
PIECE = 1 / 3  # of wrong experts' share, for a right router, and for right experts
FIRST, LAST = "model.layers.0", "model.norm"
ITSELF = Tolerance(4e-4)  # a program's decoding against its own pass: rounding of all layers


def shares_of(comparison: Comparison, found: Counterparts, small: Collection[str]) -> dict[str, float]:
    """Of each part of WORTH, how much is right, 0 to 1. small: the program's paths of what is wrong on small inputs."""
    judge = _Judge(comparison, found, small)
    mlps = [path for path in found.of(MLP, MoE) if path.endswith(".mlp")]
    return {
        "attention": _mean([judge.mixer(path) for path in found.of(*MIXERS)]),
        "MLPs": _mean([judge.mlp(path) for path in mlps]),
        "layers": _mean([judge.wiring(path) for path in found.of(Layer)]),
        "norms": _mean([judge.norm(path) for path in found.of(Norm, GatedNorm)]),
        "ends": _mean([judge.embedding(), judge.logits()]),
    }


def _mean(shares: Sequence[float]) -> float:
    return sum(shares) / max(len(shares), 1)


class _Judge:
    def __init__(self, comparison: Comparison, found: Counterparts, small: Collection[str]) -> None:
        self.comparison, self.nodes, self.small, self.found = comparison, found.nodes, small, found

    def right(self, path: str) -> bool:
        """Whether a part is right; one that the program computes without a call of a module, if what it lies in is."""
        while path and path not in self.nodes:
            path = path.rpartition(".")[0]
        node = self.nodes.get(path)
        return node is not None and is_right(node) and node.path not in self.small

    def norm(self, path: str) -> bool:
        """Of a norm."""
        node = self.nodes.get(path)
        if node is None or node.path in self.small or is_right(node):
            return self.right(path)
        return norm_is_right(node, self.found.modules[path])

    def mixer(self, path: str) -> float:
        """Of attention or a linear layer."""
        if self.right(path):
            return 1
        steps = [node for name, node in self.nodes.items() if name.startswith(f"{path}:")]
        return STEPS if steps and all(map(is_right, steps)) else 0

    def mlp(self, path: str) -> float:
        """Of an MLP or experts."""
        if self.right(path):
            return 1
        pieces = [p for p in self.found.of(Router, Experts) if p.startswith(f"{path}.") and p in self.nodes]
        return PIECE * sum(map(self.right, pieces))

    def wiring(self, path: str) -> bool:
        """Whether a layer is right where its parts give what the reference's give."""
        node = self.nodes.get(path)
        if node is None or is_right(node):
            return self.right(path)
        inside = self.found.of(*MIXERS, MLP, MoE, Norm)
        return self._right_among(node, [p for p in inside if p.rpartition(".")[0] == path])

    def embedding(self) -> bool:
        """Whether the first layer is given what it should be."""
        node = self.nodes.get(FIRST)
        return given_right(node.call, node.recorded) if node is not None else self.right("")

    def logits(self) -> bool:
        """Whether logits are right where all layers are."""
        whole = self.nodes.get("")
        return whole is not None and (is_right(whole) or self._right_among(whole, [*self.found.of(Layer), LAST], 1))

    def _right_among(self, node: Node, paths: Sequence[str], unasked: int = 0) -> bool:
        """Whether a call is right, and its parts are given the right thing, where these give what the reference's do.

        unasked: of how many of the parts it does not matter what they are given.
        """
        parts = [self.nodes[path] for path in paths if path in self.nodes]
        if len(parts) < len(paths):
            return False
        answers = {(part.call.module, 0): part.recorded.outputs for part in parts}
        with answering(answers):
            calls, error = self.comparison.watched(lambda: node.call.again(node.right_input()))
        if error is not None or not calls or not outcome_of(calls[0].outputs, node.recorded, {}).ok:
            return False
        again = {id(call.module): call for call in reversed(calls)}
        return all((call := again.get(id(part.call.module))) is not None and given_right(call, part.recorded)
                   for part in parts[unasked:])  # fmt: skip


def decodes_as_itself(model: nn.Module, run: Run) -> float:
    """The share of a run's steps in which a program gives what it gives for all tokens at once, right or wrong."""
    ids = torch.cat([step.ids for step in run.steps], dim=1)
    try:
        whole = _logits(model(ids))
        decoder, done, right = Decoder(model, True, *ids.shape), 0, 0
        for step in run.steps:
            got = _logits(decoder(step.ids, None, step.positions))
            due = whole[:, done : done + step.ids.shape[1]]
            right += agree(got, due, ITSELF)
            done += step.ids.shape[1]
    except Exception:  # learner's code may raise anything
        return 0.0
    return right / len(run.steps)


def _logits(returned: object) -> Tensor:
    logits = first_tensor(returned)
    assert logits is not None
    return logits
