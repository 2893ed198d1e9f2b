"""Tensors that are equal but for their layout, which is a program's own choice: the order of axes, or pieces."""

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from grader.tolerance import agree


def layout_between(given: Tensor, recorded: Tensor) -> tuple[int, ...] | None:
    """The permutation of `recorded`'s axes that gives `given`, or None. Their order is a program's own choice."""
    if given.ndim != recorded.ndim or given.dtype != recorded.dtype or given.ndim > 5:
        return None
    for order in itertools.permutations(range(recorded.ndim)):
        if agree(given, recorded.permute(order)):
            return order
    return None


def arranged(tensor: Tensor, like: Tensor) -> Tensor:
    """`tensor` with its axes as `like` has them: in the order that comes nearest to it, or merged."""
    if tensor.shape == like.shape or tensor.numel() != like.numel():
        return tensor
    options = list(arrangements(tensor, like.shape))
    distances = [(option.double() - like.double()).abs().nan_to_num(torch.inf).mean().item() for option in options]
    return options[distances.index(min(distances))]


def arrangements(tensor: Tensor, shape: torch.Size) -> Iterator[Tensor]:
    """A tensor in a shape of as many values: as it is, and with its axes in other orders."""
    reordered = list(_reordered(tensor, shape))
    if not (reordered and is_transposed(tensor.shape, shape)):
        yield tensor.reshape(shape)
    yield from reordered


def is_transposed(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether one shape has the other's axes in another order, so that a plain reshape would mix up their values."""
    mine, theirs = ([size for size in shape if size != 1] for shape in (one, other))
    return mine != theirs and sorted(mine) == sorted(theirs)


def merges_to(tensor: Tensor, like: Tensor) -> bool:
    """Whether `like` is `tensor` with its axes in another order, some of them merged, as [B H T d] to [B T, H, d]."""
    if tensor.numel() != like.numel() or tensor.dtype != like.dtype or tensor.ndim <= like.ndim:
        return False
    return any(agree(like, option) for option in _reordered(tensor, like.shape))


def _reordered(tensor: Tensor, shape: torch.Size) -> Iterator[Tensor]:
    """`tensor` with its axes in every order in which neighbours can be merged to `shape`, but for the one it has."""
    if tensor.ndim > 5 or tensor.ndim < len(shape):
        return
    for order in itertools.permutations(range(tensor.ndim)):
        other = tensor.permute(order)
        if list(order) != sorted(order) and _can_merge(other.shape, shape):
            yield other.reshape(shape)


def _can_merge(shape: torch.Size, to: torch.Size) -> bool:
    """Whether neighbouring axes of one shape make up another."""
    left = list(shape)
    for size in to:
        product = 1
        while left and product * left[0] <= size and (product < size or left[0] == 1):
            product *= left.pop(0)
        if product != size:
            return False
    return not left


def are_pieces(pieces: Sequence[Tensor], wholes: Sequence[Tensor]) -> bool:
    """Whether the pieces, joined or stacked along one axis, are the wholes, joined along it."""
    if not wholes or len(pieces) <= len(wholes) or len({whole.ndim for whole in wholes}) > 1:
        return False
    for axis in range(wholes[0].ndim):
        stacked = [p.unsqueeze(axis) if p.ndim < wholes[0].ndim else p for p in pieces]
        try:
            if agree(torch.cat(stacked, axis), torch.cat(list(wholes), axis)):
                return True
        except (RuntimeError, IndexError):  # their other axes differ
            continue
    return False


def piece_of(given: Tensor, whole: Sequence[int], output: Tensor, start: int) -> tuple[Tensor, int, bool] | None:
    """What `output` has in the place of a piece that begins at `start` of an input of shape `whole`.

    Returns it, where the next piece begins, and whether the input ends there; None where `given` can't be a piece. The
    piece is shorter along one axis, or is without it.
    """
    shape, whole = tuple(given.shape), tuple(whole)
    for axis, size in enumerate(whole):
        if output.ndim != len(whole) or output.shape[axis] != size:
            continue
        if shape == whole[:axis] + whole[axis + 1 :] and start < size:
            return output.select(axis, start).clone(), start + 1, start + 1 == size
        if len(shape) != len(whole) or shape[:axis] + shape[axis + 1 :] != whole[:axis] + whole[axis + 1 :]:
            continue
        length = shape[axis]
        if 0 < length < size and start + length <= size:
            return output.narrow(axis, start, length).clone(), start + length, start + length == size
    return None
