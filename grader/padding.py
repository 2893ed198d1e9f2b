"""Where texts of unequal length are filled up with padding, what stands there does not matter.

While `left_out` is active, zeros stand for it in all that is recorded and compared, the reference's and the learner's.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

_masks: list[Tensor] = []


@contextlib.contextmanager
def left_out(mask: Tensor | None) -> Iterator[None]:
    """Leave padding out. mask: [B, T], True where a token stands; None for no padding."""
    if mask is None or bool(mask.all()):
        yield
        return
    _masks.append(mask.bool())
    try:
        yield
    finally:
        _masks.pop()


def without_padding(tensor: Tensor) -> Tensor:
    """The tensor, with zeros in the place of padding: of [B, T, ...], [B * T, ...] or [B, heads, T, ...] in floats."""
    if not _masks or not tensor.is_floating_point():
        return tensor
    mask = _masks[-1].to(tensor.device)
    B, T = mask.shape
    if tensor.ndim >= 2 and tuple(tensor.shape[:2]) == (B, T):
        return torch.where(_widened(mask, tensor.ndim), tensor, 0)
    if tensor.ndim >= 2 and tensor.shape[0] == B * T:
        return torch.where(_widened(mask.flatten(), tensor.ndim), tensor, 0)
    if tensor.ndim >= 4 and tensor.shape[0] == B and tensor.shape[2] == T:
        return torch.where(_widened(mask[:, None], tensor.ndim), tensor, 0)
    return tensor


def _widened(mask: Tensor, ndim: int) -> Tensor:
    return mask.reshape(*mask.shape, *(1,) * (ndim - mask.ndim))
