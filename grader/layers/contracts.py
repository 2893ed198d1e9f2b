"""Modules that give something else than the reference's by a contract of their own, while the error lies elsewhere.

A gated norm may leave its gate to its caller, a router may return other things. On the reference's input such a module
gives something else than the reference's, and still it is right. So a module is to blame for an error around it only
where that goes with the reference's answer in its place, or where nothing else explains it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import nn

from grader.calls import WatchedCall, tensors_in
from grader.layers.answers import answering
from grader.layers.forms import form_of
from grader.layers.node import Node, own_way
from grader.layers.outcome import outcome, outcome_of
from grader.layers.pairing import given_right

Watched = Callable[[Callable[[], Any]], tuple[list[WatchedCall], Exception | None]]
Key = tuple[str, int]  # a path, and how often it was called before


def excused(nodes: Sequence[Node], calls: Sequence[WatchedCall], watched: Watched) -> dict[Node, str]:
    """Of the modules that are wrong on the reference's input, those that are not to blame; each with a reason.

    nodes: of a whole pass, in the order in which they began. calls: all of it. watched: as of `Comparison`.
    """
    found: dict[Node, str] = {}
    holders: dict[Node, _Holder] = {}
    for node in nodes:
        if not _suspect(node):
            continue
        around = next((a for a in node.ancestors() if a.wrong and a not in found), None)
        if around is None:
            continue
        holder = holders.setdefault(around, _Holder(around, nodes, calls, watched))
        reason = holder.excuse_of(node)
        if reason:
            found[node] = reason
    return found


def _suspect(node: Node) -> bool:
    return node.wrong and not node.call.is_step and node.call.finished and not own_way(node)


class _Holder:
    """A module that is wrong on the reference's input, and what happens in it when it is called again on that."""

    def __init__(self, node: Node, nodes: Sequence[Node], calls: Sequence[WatchedCall], watched: Watched) -> None:
        self.node, self.watched = node, watched
        inside = [call for call in calls if node.call in call.ancestors()]
        keys = dict(zip(inside, _keys(inside), strict=True))
        self.inside = {n: keys[n.call] for n in nodes if n.call in keys}
        numbers = Counter[nn.Module]()
        self.places: dict[WatchedCall, tuple[nn.Module, int]] = {}
        for call in inside:
            self.places[call] = (call.module, numbers[call.module])
            numbers[call.module] += 1
        self.calls, self.points = self._run(())

    def excuse_of(self, node: Node) -> str:
        """Why a module in it is not to blame; "" where it is."""
        try:
            outputs = tensors_in(node.call.again(node.right_input()))
        except Exception:  # learner's code may raise anything
            return ""
        if not outputs:
            return ""
        form = form_of(node.call, outputs, node.recorded)
        if form.startswith("what is yet"):  # it can't do what it is not handed the means for
            return form
        if any(self._mended_by(group) for group in self._groups(node)):
            return ""
        if form:
            return form
        call = self.calls.get(self.inside[node])
        if call is None or self._is_taken_rightly(call, node):
            return "what is made of it is right"
        like = [t.shape for t in outputs] == [t.shape for t in node.recorded.outputs]
        if like:
            return f"`{self.node.name}` is wrong with the reference's output in its place, too"
        return "" if self.points.get(self.inside[node], True) else "what it is given is wrong already"

    def _groups(self, node: Node) -> list[list[Node]]:
        """Nodes that may be wrong together: by itself, with those of its class, with all."""
        suspects = [n for n in self.inside if _suspect(n) and not self._lies_in(n, node) and not self._lies_in(node, n)]
        alike = [n for n in suspects if n.type == node.type and n is not node]
        others = [n for n in suspects if n is not node]
        groups = [[node], [node, *alike], [node, *others]]
        return [group for i, group in enumerate(groups) if i == 0 or len(group) > len(groups[i - 1])]

    def _lies_in(self, inner: Node, outer: Node) -> bool:
        return outer in inner.ancestors()

    def _mended_by(self, nodes: Sequence[Node]) -> bool:
        """Whether the reference's answers in the place of theirs mend something, and spoil nothing."""
        calls, points = self._run(nodes)
        after = list(calls)
        first = min((after.index(key) for n in nodes if (key := self.inside[n]) in calls), default=None)
        if first is None:
            return False
        later = [*after[first + 1 :], ("", 0)]
        pairs = [(self.points[key], points[key]) for key in later if key in points and key in self.points]
        return any(now and not before for before, now in pairs) and all(now or not before for before, now in pairs)

    def _is_taken_rightly(self, call: WatchedCall, node: Node) -> bool:
        """Whether a module that is given what this one gives is right, or what the reference hands on is right."""
        right = {n for n, key in self.inside.items() if (c := self.calls.get(key)) and _is_right(c, n)}
        takers = [n for n in right if call in {maker for maker, _ in self.calls[self.inside[n]].made_by.values()}]
        if takers:
            return True
        want = node.recorded.output
        order = list(self.inside)
        for other in order[order.index(node) + 1 :]:
            handed = other.recorded.input if other.parent is node.parent else None
            same = want is not None and handed is not None and handed.shape == want.shape
            if same and outcome(handed, want, {}).ok:  # type: ignore[arg-type]
                return self.points.get(self.inside[other], False)
        return False

    def _run(self, answered: Iterable[Node]) -> tuple[dict[Key, WatchedCall], dict[Key, bool]]:
        """One more run: its calls, and what is right in it. A module's point is what it is given, a step's is what it
        gives; the last is what the whole gives.
        """
        answers = {self.places[n.call]: n.recorded.outputs for n in answered}
        with answering(answers):
            calls, error = self.watched(lambda: self.node.call.again(self.node.right_input()))
        mine = [call for call in calls if call is not calls[0]]
        found = dict(zip(_keys(mine), mine, strict=True))
        points = {key: _point(found[key], n) for n, key in self.inside.items() if key in found}
        points["", 0] = error is None and bool(calls) and _is_right(calls[0], self.node)
        return found, points


def _keys(calls: Sequence[WatchedCall]) -> list[Key]:
    count, keys = Counter[str](), list[Key]()
    for call in calls:
        keys.append((call.path, count[call.path]))
        count[call.path] += 1
    return keys


def _point(call: WatchedCall, node: Node) -> bool:
    return _is_right(call, node) if call.is_step else given_right(call, node.recorded)


def _is_right(call: WatchedCall, node: Node) -> bool:
    return outcome_of(call.outputs, node.recorded, {}).ok
