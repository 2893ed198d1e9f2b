"""Which of the learner's calls is compared with which of the reference's."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from torch import Tensor

from grader.calls import Call, WatchedCall
from grader.checks.layout import arranged
from grader.layers.outcome import outcome, outcome_of


def argument_for(call: WatchedCall, recorded: Call) -> int | None:
    """The leaf that corresponds to the recorded input: the first tensor of its shape, else the first tensor."""
    tensors = call.tensors()
    shaped = [i for i in tensors if recorded.input is not None and call.leaves[i].shape == recorded.input.shape]
    return next(iter([*shaped, *tensors]), None)


def residual_for(call: WatchedCall, recorded: Call, argument: int | None) -> Tensor | None:
    """The further argument that a module adds to its first, as a norm that is handed the residual: where the two make
    up the recorded input, or come nearer to it than the first alone.
    """
    want = recorded.input
    if argument is None or want is None or not want.is_floating_point():
        return None
    given = call.leaves[argument]
    if given.shape != want.shape or given.dtype != want.dtype:
        if given.numel() != want.numel() or given.dtype != want.dtype:
            return None
        want = arranged(want, given)
    alone = (given - want).abs().mean()
    for i in call.tensors():
        other: Tensor = call.leaves[i]
        alike = i != argument and other.shape == given.shape and other.dtype == given.dtype
        if alike and 2 * (given + other - want).abs().mean() < alone:
            return other
    return None


def given_right(call: WatchedCall, recorded: Call) -> bool:
    """Whether a call was given the recorded input, in one tensor or in two that it adds."""
    argument, want = argument_for(call, recorded), recorded.input
    if argument is None or want is None:
        return True
    residual = residual_for(call, recorded, argument)
    given = call.leaves[argument] if residual is None else call.leaves[argument] + residual
    return outcome(given, want, {}).ok


def partners_of(calls: Sequence[WatchedCall], recorded: Mapping[str, Sequence[Call]]) -> dict[WatchedCall, Call]:
    """Which recorded call each of the learner's is compared with: the one of equal output, else of equal number.

    A model may call one module in an order of its own, or more often.
    """
    by_path: dict[str, list[WatchedCall]] = defaultdict(list)
    for call in calls:
        by_path[call.path].append(call)
    partners: dict[WatchedCall, Call] = {}
    for path, own in by_path.items():
        free = list(recorded[path])
        if len(own) == len(free) == 1:
            partners[own[0]] = free[0]
            continue
        for call in own:
            equal = [r for r in free if _equal_output(call, r)]
            if equal:
                partners[call] = min(equal, key=lambda r: abs(r.index - call.index))
                free.remove(partners[call])
        left = [c for c in own if c not in partners and not any(_equal_output(c, r) for r in recorded[path])]
        partners.update(zip(left, free, strict=False))
    return partners


def _equal_output(call: WatchedCall, recorded: Call) -> bool:
    return recorded.output is not None and outcome_of(call.outputs, recorded, {}).ok
