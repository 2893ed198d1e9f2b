"""Which of a program's calls stands for which module of a capstone's reference."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from grader.calls import Call
from grader.capstone.model import Model
from grader.config import Config
from grader.layers.comparison import Comparison
from grader.layers.node import Node, own_way
from grader.recordings.traces import Trace


@dataclass(frozen=True)
class Counterparts:
    """modules: the reference's, with its weights, by path. nodes: what the program has for those that it calls."""

    modules: Mapping[str, nn.Module]
    nodes: Mapping[str, Node]

    def of(self, *kinds: type[nn.Module]) -> list[str]:
        """The paths of the reference's modules of some classes."""
        return [path for path, module in self.modules.items() if isinstance(module, kinds)]


def counterparts(comparison: Comparison, trace: Trace) -> Counterparts:
    """trace: under the reference's own names, which a program need not have."""
    model = Model(Config(trace.build["config"])).eval()
    model.load_state_dict(dict(trace.weights), strict=False)  # a tied head has no weights of its own
    free = [call for call in trace.calls if call.output is not None]
    nodes: dict[str, Node] = {"": comparison.nodes[0]} if comparison.nodes else {}
    for node in comparison.nodes[1:]:
        call = next((call for call in free if _same(call, node.recorded)), None)
        if call is not None:
            free.remove(call)
            nodes.setdefault(call.path, node)
    return Counterparts(dict(model.named_modules()), nodes)


def is_right(node: Node) -> bool:
    """Whether a call gives what it should, or would on the reference's input, or goes a way of its own to it."""
    return node.seen.ok or (node.alone is not None and node.alone.ok) or own_way(node) is not None


def _same(call: Call, other: Call) -> bool:
    """Whether two recorded calls are one, which has another name in a program of other names."""
    one, two = call.output, other.output
    return call.type == other.type and one is not None and two is not None and torch.equal(one, two)
