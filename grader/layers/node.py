"""A call of the learner's beside the recorded one that it is compared with."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from grader.calls import Call, WatchedCall
from grader.checks.layout import arranged
from grader.layers.counterparts import counterparts, is_in_another_dtype
from grader.layers.forms import IN_ORDER, form_of
from grader.layers.outcome import Outcome
from grader.layers.pairing import residual_for


@dataclass(eq=False)
class Node:
    """A call of the learner's and the recorded call that it is compared with.

    argument: the position of the leaf that corresponds to the recorded input. seen: the outcome in the pass.
    alone: the outcome on the reference's input; None where that can't be told. misgiven: the names of arguments
    with which it is wrong, while it is right with `better` in their place. compensated: what is given the right
    thing all the same, where the reference hands on what this one should have given.
    """

    name: str
    call: WatchedCall
    recorded: Call
    parent: "Node | None"
    argument: int | None
    seen: Outcome
    alone: Outcome | None = None
    misgiven: tuple[str, ...] = ()
    better: str = ""
    compensated: "Node | None" = None

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
        residual = residual_for(self.call, self.recorded, self.argument)
        right = arranged(right, given)
        return {self.argument: right if residual is None else right - residual}

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


def own_way(node: Node) -> Node | None:
    """What is right because or though `node` differs from the reference's in kind: what contains it, or comes next."""
    if node.call.is_step and not node.wrong:
        return next((a for a in node.ancestors() if a.seen.ok), None)
    if node.wrong:
        assert node.alone is not None
        if node.compensated is not None and node.alone.in_kind:
            return node.compensated
        right = next((a for a in node.ancestors() if a.alone is not None and a.alone.ok), None)
        if right is None or node.alone.in_kind:
            return right
        # Weights that are nearly equal differ by little in another order, and are no small error.
        return right if form_of(node.call, node.call.outputs, node.recorded) == IN_ORDER else None
    return next((a for a in node.ancestors() if a.seen.ok), None) if node.seen.in_kind else None
