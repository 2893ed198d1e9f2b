"""A learner's forward pass beside a recorded one: which modules differ, and which of them by their own fault.

Where a module differs in the pass, it is called again on the reference's own input: what is wrong even then
is wrong by itself, and what is right only passes on what went wrong before it.
"""

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from grader.calls import Call, Watched, first_tensor, tensors_in, watch
from grader.checks.layout import arranged
from grader.layers.counterparts import counterparts, is_in_another_dtype
from grader.layers.outcome import Outcome, outcome, outcome_of
from grader.layers.pairing import argument_for, partners_of
from grader.recordings.traces import Trace
from grader.tolerance import agree

MAX_ALTERNATIVES = 12


@dataclass(eq=False)
class Node:
    """A call of the learner's and the recorded call that it is compared with.

    argument: the position of the leaf that corresponds to the recorded input. seen: the outcome in the pass.
    alone: the outcome on the reference's input; None where that can't be told. misgiven: the names of arguments
    with which it is wrong, while it is right with `better` in their place. mended: what is given the right thing all
    the same, where the reference hands on what this one should have given.
    """

    name: str
    call: Watched
    recorded: Call
    parent: "Node | None"
    argument: int | None
    seen: Outcome
    alone: Outcome | None = None
    misgiven: tuple[str, ...] = ()
    better: str = ""
    mended: "Node | None" = None

    @property
    def path(self) -> str:
        return self.call.path

    @property
    def type(self) -> str:
        return type(self.call.module).__name__

    @property
    def wrong(self) -> bool:
        """Whether it is wrong even on the reference's input."""
        return self.alone is not None and not self.alone.ok

    @property
    def given(self) -> Tensor | None:
        """What it was given in the place of the recorded input."""
        return None if self.argument is None else self.call.leaves[self.argument]

    def ancestors(self) -> "Iterator[Node]":
        """What it was called in, innermost first, the model last."""
        node = self.parent
        while node is not None:
            yield node
            node = node.parent

    def right_input(self) -> dict[int, Tensor]:
        """The recorded input in the place and the layout in which the learner's program gives it."""
        given, right = self.given, self.recorded.input
        if self.argument is None or given is None or right is None:
            return {}
        return {self.argument: arranged(right, given)}

    def other_tensors(self) -> list[int]:
        """The positions of its further tensor arguments."""
        return [i for i in self.call.tensors() if i != self.argument]

    def unequal_tensors(self) -> list[int]:
        """The positions of its further tensor arguments that are not among the reference's."""
        return counterparts(self.call, self.other_tensors(), self.recorded.others)[1]

    def other_dtypes(self) -> dict[int, tuple[Tensor, Tensor]]:
        """The further tensor arguments that are the reference's but for their dtype, each with the reference's."""
        found = {}
        for i in self.other_tensors():
            like = self.call.leaves[i]
            for _, tensor in self.recorded.others:
                if is_in_another_dtype(tensor, like):
                    found[i] = (like, tensor)
        return found

    def right_others(self) -> dict[int, tuple[str, Tensor]]:
        """For each of those, where the reference has something that can stand for it: its name there, and itself."""
        return counterparts(self.call, self.other_tensors(), self.recorded.others)[0]


class Comparison:
    """The learner's pass beside the reference's.

    nodes: calls in both, in the order in which the learner's began; the first is the model itself. faulty: those
    that are wrong by themselves. holders: those that a faulty one lies in. error: what the pass raised.
    """

    def __init__(self, model: nn.Module, trace: Trace) -> None:
        self.model = model
        self.sizes = _sizes(trace.build)
        whole = Call("", 0, type(model).__name__, first_tensor(trace.args), trace.output, floor=trace.floor)
        self.recorded = [whole, *(call for call in trace.calls if call.output is not None)]
        self.paths = {call.path for call in self.recorded}
        self.calls, self.error = watch(model, lambda: model(*copy.deepcopy(trace.args)), self.paths)
        is_logits = trace.output.shape[-1:] == (self.sizes.get("vocab_size"),)
        self.nodes = self._pair_up("logits" if is_logits else "output")
        for node in self.nodes:
            node.alone = self._alone(node)
        for node in self.nodes:
            node.mended = self._mended(node) if node.wrong else None
        self.faulty = {node for node in self.nodes if node.wrong and not own_way(node)}
        self.holders = {ancestor for node in self.faulty for ancestor in node.ancestors()}

    def _pair_up(self, result_name: str) -> list[Node]:
        raising = next((call for call in reversed(self.calls) if not call.finished), None)
        recorded: dict[str, list[Call]] = defaultdict(list)
        for call in self.recorded:
            recorded[call.path].append(call)
        partners = partners_of(self.calls, recorded)
        nodes: dict[Watched, Node] = {}
        for watched in self.calls:
            partner = partners.get(watched)
            if partner is None or partner.output is None:
                continue
            name = watched.path or result_name
            if len(recorded[watched.path]) > 1:
                name += f"[{partner.index}]"
            parent = watched.parent
            while parent is not None and parent not in nodes:
                parent = parent.parent
            if watched.finished:
                instead = f"returned {watched.returned}, no tensor"
            else:
                instead = f"raised {type(self.error).__name__}" if watched is raising else "not finished"
            seen = outcome_of(watched.outputs, partner, self.sizes, instead)
            argument = argument_for(watched, partner)
            nodes[watched] = Node(name, watched, partner, nodes[parent] if parent else None, argument, seen)
        return list(nodes.values())

    def _mended(self, node: Node) -> Node | None:
        """What is given the right thing though this node gives a wrong one: a program may scale, say, elsewhere."""
        want = node.recorded.output
        for other in self.nodes[self.nodes.index(node) + 1 :]:
            right, given = other.recorded.input, other.given
            if other.parent is not node.parent or right is None or given is None or want is None:
                continue
            if right.shape == want.shape and agree(right, want) and outcome(given, right, {}).ok:
                return other
        return None

    def again(self, node: Node) -> Outcome:
        """The outcome of a module that was changed since, on the reference's own input; right if it is with any of
        the further arguments that it could have been given.
        """
        outcome = self._again(node, {})
        others = (self._again(node, tensors) for _, tensors in self._alternatives(node)) if not outcome.ok else ()
        return next((other for other in others if other.ok), outcome)

    def _alone(self, node: Node) -> Outcome | None:
        """The outcome of a module on the reference's own input."""
        right, given = node.recorded.input, node.given
        if node.seen.ok or right is None:
            return node.seen
        if given is None or self._given_a_wrong_output(node):
            return None
        same = given.dtype == right.dtype and torch.equal(given, right)
        alone = node.seen if same else self._again(node, {})
        if alone.ok:
            return alone
        if alone.raised and given.numel() != right.numel():
            return None  # it is called in a way of its own, and does not take the reference's input
        for description, tensors in self._alternatives(node):
            other = self._again(node, tensors)
            if other.ok:
                names = node.call.names()
                node.misgiven = tuple(dict.fromkeys(names[i] for i in tensors if i in names))
                node.better = description
                return other
        return alone

    def _again(self, node: Node, others: Mapping[int, Tensor]) -> Outcome:
        try:
            outputs = tensors_in(node.call.again({**node.right_input(), **others}))
        except Exception as error:  # learner's code may raise anything
            return Outcome(False, note=f"raised {type(error).__name__}", in_kind=True, raised=True)
        return outcome_of(outputs, node.recorded, self.sizes, "no tensor")

    def _given_a_wrong_output(self, node: Node) -> bool:
        """Whether one of its further arguments is the output of a module that is wrong already."""
        makers = {maker for i, (maker, _) in node.call.made_by.items() if i != node.argument}
        return any(other.call in makers and not other.seen.ok for other in self.nodes)

    def _alternatives(self, node: Node) -> Iterator[tuple[str, dict[int, Tensor]]]:
        """Other tensors for its further arguments: what the same maker gives in other calls, what other modules
        of its class are given, and what the reference's module is given. A model may mix up its layers' tables or
        masks, or make them wrongly.
        """
        others = node.other_tensors()
        options: list[tuple[str, dict[int, Tensor]]] = []
        for maker in {maker for i, (maker, _) in node.call.made_by.items() if i in others}:
            made = {i: k for i, (m, k) in node.call.made_by.items() if m is maker and i in others}
            for call in self.calls:
                if call.path == maker.path and call is not maker and len(call.outputs) == len(maker.outputs):
                    outputs = {i: call.outputs[k] for i, k in made.items()}
                    options.append((f"what `{call.path}[{call.index}]` gives", outputs))
        names = node.call.names()
        groups = [[i for i in others if names.get(i) == name] for name in dict.fromkeys(names.get(i) for i in others)]
        for sibling in self.nodes:
            if sibling is not node and sibling.type == node.type and sibling.call.spec == node.call.spec:
                for group in [*groups, others]:
                    tensors = {i: sibling.call.leaves[i] for i in group}
                    options.append((f"what `{sibling.name}` is given", tensors))
        options = [*options[:MAX_ALTERNATIVES], *_from_the_reference(node)]
        tried: list[dict[int, Tensor]] = [{i: node.call.leaves[i] for i in others}]
        for description, tensors in options:
            tensors = {i: tensor for i, tensor in tensors.items() if _alike(tensor, node.call.leaves[i])}
            whole = {**tried[0], **tensors}
            if not any(all(torch.equal(tensor, old[i]) for i, tensor in whole.items()) for old in tried):
                tried.append(whole)
                yield description, tensors


def _from_the_reference(node: Node) -> Iterator[tuple[str, dict[int, Tensor]]]:
    """The reference's own further tensors in the place of the learner's: argument by argument, then all."""
    right, names = node.right_others(), node.call.names()
    groups = [[i for i in right if names.get(i) == name] for name in dict.fromkeys(names.get(i) for i in right)]
    for group in [*groups, list(right)] if len(groups) > 1 else groups:
        own = " and ".join(dict.fromkeys(f"`{right[i][0]}`" for i in group))
        yield f"the reference's {own}", {i: right[i][1] for i in group}


def own_way(node: Node) -> Node | None:
    """What is right because or though `node` differs from the reference's in kind: what contains it, or comes next."""
    if node.wrong:
        assert node.alone is not None
        if node.mended is not None and node.alone.in_kind:
            return node.mended
        right = (a for a in node.ancestors() if a.alone is not None and a.alone.ok)
        return next(right, None) if node.alone.in_kind else None
    return next((a for a in node.ancestors() if a.seen.ok), None) if node.seen.in_kind else None


def _alike(new: Any, old: Tensor) -> bool:
    return isinstance(new, Tensor) and new.shape == old.shape and new.dtype == old.dtype


def _sizes(build: Mapping[str, Any]) -> dict[str, int]:
    """The named whole numbers among the build arguments, those inside a config included."""
    flat: dict[str, Any] = {}
    for name, value in build.items():
        flat.update(value if isinstance(value, Mapping) else {name: value})
    return {name: value for name, value in flat.items() if type(value) is int and value > 1}
