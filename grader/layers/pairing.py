"""Which of the learner's calls is compared with which of the reference's."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from grader.calls import Call, WatchedCall
from grader.layers.outcome import outcome_of


def argument_for(call: WatchedCall, recorded: Call) -> int | None:
    """The leaf that corresponds to the recorded input: the first tensor of its shape, else the first tensor."""
    tensors = call.tensors()
    shaped = [i for i in tensors if recorded.input is not None and call.leaves[i].shape == recorded.input.shape]
    return next(iter([*shaped, *tensors]), None)


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
