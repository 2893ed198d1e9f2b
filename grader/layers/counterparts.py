"""Which of the reference's further arguments stand for a learner's: masks and tables, in whatever form they come.

A mask may be boolean, true where one may look or where one may not, or a number that is added to the scores; its
batch and head axes may be missing. A table may lack axes of size 1; several that are handed over as one argument, as
cosines and sines are, may be one tensor with an axis more in front.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from grader.calls import WatchedCall
from grader.tolerance import agree

LOWEST_SCORE = -1e4  # what an additive mask adds where one may not look is at most this


def counterparts(
    call: WatchedCall, positions: Sequence[int], recorded: Sequence[tuple[str, Tensor]]
) -> tuple[dict[int, tuple[str, Tensor]], list[int]]:
    """For a call's leaves at `positions`: what the reference has in the place of those that it has not got.

    Returns, by position, the name and the tensor, in the form of the learner's; and the positions of all leaves
    that are not among the reference's.
    """
    forms = {i: list(_forms(recorded, call.leaves[i])) for i in positions}
    taken: set[int] = set()
    unequal = []
    for i in positions:
        equal = [own for own, _, form in forms[i] if agree(form, call.leaves[i])]
        taken = taken.union(*equal)
        if not equal:
            unequal.append(i)
    found: dict[int, tuple[str, Tensor]] = {}
    for i in unequal:
        for own, name, form in forms[i]:
            if not own & taken:
                taken |= own
                found[i] = (name, form)
                break
    return found, unequal


def _forms(recorded: Sequence[tuple[str, Tensor]], like: Tensor) -> Iterator[tuple[set[int], str, Tensor]]:
    """What of the reference can stand for `like`: which of the recorded tensors it is made of, its name, and itself."""
    by_name: dict[str, set[int]] = defaultdict(set)
    for k, (name, _) in enumerate(recorded):
        by_name[name].add(k)
    for name, own in by_name.items():  # before single ones, which could be repeated along the further axis
        if like.ndim and len(own) == like.shape[0] > 1:
            parts = [as_given(recorded[k][1], part) for k, part in zip(sorted(own), like, strict=True)]
            stacked = [part for part in parts if part is not None]
            if len(stacked) == len(parts):
                yield own, name, torch.stack(stacked)
    for k, (name, tensor) in enumerate(recorded):
        form = as_given(tensor, like)
        if form is not None:
            yield {k}, name, form


def as_given(tensor: Tensor, like: Tensor) -> Tensor | None:
    """The reference's `tensor` in the form of the learner's `like`, or None if it can't stand for it."""
    blocked, own_blocked = blocked_by(tensor), blocked_by(like)
    if blocked is None or own_blocked is None:
        comparable = blocked is None and own_blocked is None and tensor.dtype == like.dtype
        return _shaped(tensor, like.shape) if comparable else None
    shaped = _shaped(blocked, like.shape)
    shaped = _of_joined_texts(tensor, blocked, like.shape) if shaped is None else shaped
    if shaped is None:
        return None
    if torch.bool in (tensor.dtype, like.dtype):  # which of a boolean's values blocks is not said
        shaped = max((shaped, ~shaped), key=lambda option: int((option == own_blocked).sum()))
    if like.dtype == torch.bool:
        return shaped
    lowest = like.min() if own_blocked.any() else like.new_tensor(torch.finfo(like.dtype).min)
    return torch.where(shaped, lowest, like.new_zeros(()))


def _of_joined_texts(mask: Tensor, blocked: Tensor, shape: torch.Size) -> Tensor | None:
    """Where a mask of B texts [B, 1, T, T] keeps one from looking, for the same texts as one of B T tokens."""
    if len(shape) != 2 or blocked.ndim < 3 or blocked.shape[-1] != blocked.shape[-2] or shape[0] != shape[1]:
        return None
    T = blocked.shape[-1]
    texts, rest = divmod(shape[0], T)
    each = blocked.reshape(-1, T, T)
    if rest or texts < 2 or len(each) not in (1, texts):
        return None
    if mask.dtype == torch.bool and bool(mask[..., -1, -1].all()):  # a token sees itself, so True is where one may look
        each = ~each
    joined = torch.ones(texts, T, texts, T, dtype=torch.bool)
    for number, text in enumerate(each.expand(texts, T, T)):
        joined[number, :, number] = text
    return joined.reshape(shape)


def is_in_another_dtype(tensor: Tensor, like: Tensor) -> bool:
    """Whether `like` holds the numbers of the reference's `tensor` in another floating dtype. Masks are left out."""
    if not (tensor.is_floating_point() and like.is_floating_point()) or tensor.dtype == like.dtype:
        return False
    cast = tensor.to(like.dtype)
    form = as_given(cast, like) if blocked_by(cast) is None else None
    return form is not None and agree(form, like)


def blocked_by(tensor: Tensor) -> Tensor | None:
    """Where a mask keeps one from looking, as booleans; None if it is none. A boolean mask may mean the opposite."""
    if tensor.ndim < 2:
        return None
    if tensor.dtype == torch.bool:
        return tensor
    if not tensor.is_floating_point():
        return None
    low = tensor <= LOWEST_SCORE
    return low if bool((low | (tensor == 0)).all()) else None


def _shaped(tensor: Tensor, shape: torch.Size) -> Tensor | None:
    """`tensor` in another shape: axes of size 1 added or taken away, axes along which nothing changes added or cut."""
    while tensor.ndim > len(shape):
        if not bool((tensor == tensor[:1]).all()):
            return None
        tensor = tensor[0]
    for axis, (have, want) in enumerate(zip(tensor.shape, shape[len(shape) - tensor.ndim :], strict=True)):
        if want == 1 != have:
            first = tensor.narrow(axis, 0, 1)
            if not bool((tensor == first).all()):
                return None
            tensor = first
        elif have not in (1, want):
            return None
    return tensor.expand(shape).clone()
