"""A learner's forward pass beside a recorded one: which modules differ, and which of them by their own fault.

Where a module differs in the pass, it is called again on the reference's own input: what is wrong even then
is wrong by itself, and what is right only passes on what went wrong before it.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from grader.calls import Call, WatchedCall, first_tensor, tensors_in, watch
from grader.layers.contracts import excused
from grader.layers.forms import form_of, is_share
from grader.layers.node import Node, own_way
from grader.layers.outcome import Outcome, outcome, outcome_of
from grader.layers.pairing import argument_for, partners_of
from grader.padding import without_padding
from grader.recordings.traces import Trace
from grader.steps import functions_as_steps
from grader.tolerance import agree

MAX_ALTERNATIVES = 12
CONTAINERS = nn.ModuleList | nn.ModuleDict


class Comparison:
    """The learner's pass beside the reference's.

    nodes: calls in both, in the order in which the learner's began; the first is the model itself. faulty: those
    that are wrong by themselves. holders: those that a faulty one lies in. error: what the pass raised.
    """

    def __init__(
        self,
        model: nn.Module,
        trace: Trace,
        run: Callable[[], Any] | None = None,
        rewind: Callable[[], None] | None = None,
    ) -> None:
        """run: one pass of the model, where it is not simply called. rewind: as of `WatchedCall`."""
        self.model = model
        self.sizes = _sizes(trace.build)
        self.kinds = _kinds(trace.build)
        whole = Call("", 0, type(model).__name__, first_tensor(trace.args), trace.output, floor=trace.floor)
        self.recorded = [whole, *(call for call in trace.calls if call.output is not None)]
        self.paths = {call.path for call in self.recorded}
        run = run or (lambda: model(*copy.deepcopy(trace.args)))
        self.calls, self.error = self.watched(run)
        self.last_alone = bool(self.calls) and _of_the_last_token(self.calls[0].output, trace.output)
        if self.last_alone:
            self.recorded = [_last_token(call, trace.output, self.calls[0].output) for call in self.recorded]
        for call in self.calls:
            call.rewind = rewind
        is_logits = trace.output.shape[-1:] == (self.sizes.get("vocab_size"),)
        self.nodes = self._pair_up("logits" if is_logits else "output")
        for node in self.nodes:
            node.alone = None if node.call.is_step else self._alone(node)
        for node in self.nodes:
            node.compensated = self._compensated(node) if node.wrong else None
        self.excused = excused(self.nodes, self.calls, self.watched)
        for node in self.nodes:
            if node.call.is_step:
                node.alone = self._alone_in_its_module(node)
        self.faulty = {n for n in self.nodes if n.wrong and not own_way(n) and n not in self.excused}
        modules = (node for node in self.faulty if not node.call.is_step)
        self.holders = {ancestor for node in modules for ancestor in node.ancestors()}

    def watched(self, run: Callable[[], Any]) -> tuple[list[WatchedCall], Exception | None]:
        """The calls and steps of one run of the model, and what it raised."""
        with functions_as_steps(self.model):
            return watch(self.model, run, self.paths, steps=True)

    def _pair_up(self, result_name: str) -> list[Node]:
        raising = next((call for call in reversed(self.calls) if not call.finished), None)
        recorded: dict[str, list[Call]] = defaultdict(list)
        for call in self.recorded:
            recorded[call.path].append(call)
        partners = partners_of(self.calls, recorded)
        nodes: dict[WatchedCall, Node] = {}
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

    def _compensated(self, node: Node) -> Node | None:
        """The module that takes this one's output in the reference, if it is given the right thing all the same.

        A program may do a step elsewhere than the reference, as scale queries after a projection and not in it. What
        follows is right then, and nothing is wrong.
        """
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

    def uncalled(self, prefix: str = "") -> list[str]:
        """The modules below `prefix` that the reference calls, and the learner's model has but never calls.

        Of a module and what is inside it, only the outer one. A container of modules that are called is none of them.
        """
        called = {node.path for node in self.nodes} | {call.path for call in self.calls}
        own = {path for path, module in self.model.named_modules() if not isinstance(module, CONTAINERS)}
        holders = {path[:i] for path in called for i, letter in enumerate(path) if letter == "."}
        missed = [path for path in dict.fromkeys(c.path for c in self.recorded) if path in own - called - holders]
        return [p for p in missed if p.startswith(prefix) and not any(p.startswith(f"{outer}.") for outer in missed)]

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

    def _alone_in_its_module(self, node: Node) -> Outcome | None:
        """The outcome of a step where its module is given the reference's input. None where that module is right, or
        what comes before the step is wrong already.
        """
        module = node.parent
        if node.seen.ok or module is None:
            return node.seen
        before = self.nodes[: self.nodes.index(node)]
        blamed = (other for other in before if other.parent is module and other.wrong)
        if not module.wrong or module in self.excused or any(other not in self.excused for other in blamed):
            return None
        calls, _ = self.watched(lambda: module.call.again(module.right_input()))
        again = [call for call in calls if call.path == node.path]
        number = sum(other.parent is module and other.path == node.path for other in before)
        outputs = again[number].outputs if number < len(again) else []
        found = outcome_of(outputs, node.recorded, self.sizes, "it is not reached")
        own = form_of(node.call, outputs, node.recorded) or is_share(outputs, node.recorded)
        return found if found.ok or not own else replace(found, ok=True)

    def _again(self, node: Node, others: Mapping[int, Tensor]) -> Outcome:
        try:
            given = tensors_in(node.call.again({**node.right_input(), **others}))
            outputs = [without_padding(tensor) for tensor in given]
        except Exception as error:  # learner's code may raise anything
            return Outcome(False, note=f"raised {type(error).__name__}", in_kind=True, raised=True)
        return outcome_of(outputs, node.recorded, self.sizes, "no tensor")

    def _given_a_wrong_output(self, node: Node) -> bool:
        """Whether one of its further arguments is the output of a module that is wrong already."""
        makers = {maker for i, (maker, _) in node.call.made_by.items() if i != node.argument}
        return any(other.call in makers and not other.seen.ok for other in self.nodes)

    def _alternatives(self, node: Node) -> Iterator[tuple[str, dict[int, Tensor]]]:
        """Other tensors for its further arguments, each with where it is from: what the same maker gives in other
        calls, what other modules of its class are given, and what the reference's module is given.

        A module that is wrong on the right input need not be wrong itself: a model may hand it another layer's mask or
        table of angles, or make these wrongly. If it is right with one of these, the error is its caller's. What is
        nearest to such a mix-up is tried first, and the reference's own last, which would excuse the most.
        """
        others = node.other_tensors()
        if not node.unequal_tensors():
            return  # it is handed all that the reference hands over, so an error is its own
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


def _alike(new: Any, old: Tensor) -> bool:
    return isinstance(new, Tensor) and new.shape == old.shape and new.dtype == old.dtype


def _of_the_last_token(got: Tensor | None, want: Tensor) -> bool:
    """Whether a model gives what the reference gives for the last token of each text alone: [B, V] or [B, 1, V]."""
    if got is None or want.ndim != 3 or want.shape[1] == 1:
        return False
    return got.shape in (want[:, -1].shape, want[:, -1:].shape)


def _last_token(call: Call, whole: Tensor, got: Tensor | None) -> Call:
    """A call that gives the logits, cut to the last token as `got` is; another one as it is."""
    assert got is not None
    if call.output is None or call.output.shape != whole.shape:
        return call
    given = call.input if call.path else None  # the model itself is given ids
    cut = [t if t is None or t.ndim != 3 else (t[:, -1] if got.ndim == 2 else t[:, -1:]) for t in (given, call.output)]
    return replace(call, input=cut[0] if call.path else call.input, output=cut[1])


def _sizes(build: Mapping[str, Any]) -> dict[str, int]:
    """The named whole numbers among the build arguments, those inside a config included."""
    flat: dict[str, Any] = {}
    for name, value in build.items():
        flat.update(value if isinstance(value, Mapping) else {name: value})
    return {name: value for name, value in flat.items() if type(value) is int and value > 1}


def _kinds(build: Mapping[str, Any]) -> list[str]:
    """The kinds of the layers, where the config names them."""
    fields = build.get("config", build)
    kinds = fields.get("layer_types") if isinstance(fields, Mapping) else None
    return [str(kind) for kind in kinds] if isinstance(kinds, list | tuple) else []
