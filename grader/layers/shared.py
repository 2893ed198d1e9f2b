"""A cache that several modules use, where each should have one of its own."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_unflatten

from grader.calls import WatchedCall, tensors_in
from grader.layers.comparison import Comparison
from grader.layers.node import Node
from grader.layers.outcome import outcome_of
from grader.layers.pairing import given_right
from grader.layers.rows import Culprit

Slot = int | str  # a position among the arguments, or a name


def shared_cache(comparison: Comparison) -> Culprit | None:
    """The first module that is wrong on its right input because another one has written into what it is given."""
    modules = [node for node in comparison.nodes if not node.call.is_step and node.parent is not None]
    for number, node in enumerate(modules):
        if node.seen.ok or not node.call.finished or not given_right(node.call, node.recorded):
            continue
        for slot, value in kept_in(node.call):
            other = next(users(value, node, modules[:number]), None)
            if other is not None and _is_right_with(node, slot, _before(other, value)):
                return told(node, other, "on what that was given before it wrote there, it is right.")
    return None


def told(node: Node, other: Node, reason: str) -> Culprit:
    """What is said of a module that has no cache of its own."""
    lead = f"it is given the same cache as `{other.path}`: {reason}"
    return Culprit(node.path, node.name, node.type, (lead, "Each layer needs a cache of its own, a new object."))


def kept_in(call: WatchedCall) -> Iterator[tuple[Slot, Any]]:
    """The arguments of a call that may keep something: objects, lists and dicts, and no tensors."""
    args, kwargs = call.given
    slots: list[tuple[Slot, Any]] = [*enumerate(args), *kwargs.items()]
    yield from ((slot, value) for slot, value in slots if isinstance(value, list | dict) or _is_object(value))


def users(value: Any, node: Node, among: list[Node]) -> Iterator[Node]:
    """Other modules of a node's class that are given the same object."""
    for other in among:
        alike = other.type == node.type and other.call.module is not node.call.module
        if alike and any(given is value for _, given in kept_in(other.call)):
            yield other


def _is_object(value: Any) -> bool:
    return hasattr(value, "__dict__") and not isinstance(value, Tensor | nn.Module | type) and not callable(value)


def _before(node: Node, value: Any) -> Any:
    """A copy of an object as it was before a call that was given it."""
    slot = next(slot for slot, given in kept_in(node.call) if given is value)
    args, kwargs = _copies(node.call)
    return args[slot] if isinstance(slot, int) else kwargs[slot]


def _copies(call: WatchedCall) -> tuple[list[Any], dict[str, Any]]:
    args, kwargs = tree_unflatten(call.fresh_leaves({}), call.spec)
    return list(args), kwargs


def _is_right_with(node: Node, slot: Slot, value: Any) -> bool:
    args, kwargs = _copies(node.call)
    if isinstance(slot, int):
        args[slot] = value
    else:
        kwargs[slot] = value
    if node.call.rewind is not None:
        node.call.rewind()
    try:
        return outcome_of(tensors_in(node.call.module(*args, **kwargs)), node.recorded, {}).ok
    except Exception:  # learner's code may raise anything
        return False
