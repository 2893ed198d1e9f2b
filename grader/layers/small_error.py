"""An error within its own module's tolerance that makes another module wrong."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import nn

from grader.calls import WatchedCall, watch
from grader.layers.answers import answering
from grader.layers.comparison import Comparison
from grader.layers.node import Node
from grader.layers.outcome import Outcome, outcome, outcome_of
from grader.layers.pairing import argument_for
from grader.layers.rows import Culprit


class SmallError:
    """Looks for the one module whose error, within its own tolerance, makes another one wrong.

    The other, `different`, is `whole` or lies in it. `whole` is called again on the reference's input, while some of
    its parts answer as the reference's did: where `different` is right if all of them do, and wrong if all but one
    do, it is that one's error.
    """

    def __init__(self, comparison: Comparison, whole: Node, different: Node) -> None:
        self.comparison, self.whole, self.different = comparison, whole, different
        own = (call for call in comparison.calls if not call.is_step)
        calls = [call for call in own if whole.call in (call, *call.ancestors())]
        numbered = dict(_numbered(calls))
        self.keys = {node: numbered[node.call] for node in comparison.nodes if node.call in numbered}

    def culprit(self) -> Culprit | None:
        """The innermost such module; None if there is none."""
        at_fault = None if self.different.seen.in_kind else self._search()
        if at_fault is None:
            return None
        node, largest = at_fault
        name = f"`{self.different.name if self.different.path else self.different.type}`"
        reasons = (
            f"its error is small (max={largest:.2e} on the reference's own input), but it grows: {name} is right with"
            " the reference's output in its place.",
            "Look for an inexact constant or step in it, such as an epsilon.",
        )
        return Culprit(node.path, node.name, node.type, reasons)

    def _search(self) -> tuple[Node, float] | None:
        holder, found = self.whole, None
        answering_too: set[Node] = set()
        around = set(self.different.ancestors())
        while True:
            parts = [n for n in self.keys if n.parent is holder and n is not self.different]
            if self._run({*answering_too, *parts}).different.ok:
                errors = ((part, self._own_error(part, {*answering_too, *parts} - {part})) for part in parts)
                next_found = next(((part, error) for part, error in errors if error), None)
                if next_found is None:
                    return found
                holder, found = next_found[0], next_found
            else:
                inside = next((part for part in parts if part in around), None)
                if inside is None:
                    return found
                holder = inside
            answering_too |= set(parts) - {holder}

    def _own_error(self, part: Node, others: set[Node]) -> float:
        """How far `part` is off while the others answer as the reference's do; 0.0 unless that is little, and the
        error that is looked for."""
        calls, different = self._run(others)
        call = calls.get(self.keys[part])
        given = part.recorded.input
        if different.ok or call is None:
            return 0.0
        argument = argument_for(call, part.recorded)
        if argument is not None and given is not None and not outcome(call.leaves[argument], given, {}).ok:
            return 0.0
        if not outcome_of(call.outputs, part.recorded, {}).ok:
            return 0.0
        pairs = zip(call.outputs, part.recorded.outputs, strict=False)
        return max(own.max for own in (outcome(got, want, {}) for got, want in pairs) if own.ok)

    def _run(self, answering_nodes: set[Node]) -> "_Trial":
        answers = {self.keys[n]: n.recorded.outputs for n in answering_nodes}
        again = lambda: self.whole.call.again(self.whole.right_input())  # noqa: E731
        with answering(answers):
            watched, _ = watch(self.comparison.model, again, self.comparison.paths)
        calls = {key: call for call, key in _numbered(watched)}
        call = calls.get(self.keys[self.different])
        return _Trial(calls, outcome_of(call.outputs if call else (), self.different.recorded, {}))


class _Trial(NamedTuple):
    """The calls of one run, and how right the module of interest was in it."""

    calls: dict[tuple[nn.Module, int], WatchedCall]
    different: Outcome


def _numbered(calls: Sequence[WatchedCall]) -> Iterator[tuple[WatchedCall, tuple[nn.Module, int]]]:
    """Each call with its module, and how often that was called before."""
    count: Counter[nn.Module] = Counter()
    for call in calls:
        yield call, (call.module, count[call.module])
        count[call.module] += 1
