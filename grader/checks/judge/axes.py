"""What happened along one axis of a wrong tensor: its entries are moved, reordered, or each has a factor of its own."""

from collections.abc import Sequence

import torch
from torch import Tensor

from grader.tolerance import agree

LONGEST = 64  # an axis with more entries is not tried for another order
FACTOR_OF_ITS_OWN = "the values are right but for a factor that depends on"
CHANGES = 2  # along an axis: where almost all entries are the same, a shift fits by chance
FEWEST = 3  # values that an entry must have for a factor of its own to say something


def moved(got: Tensor, want: Tensor, names: Sequence[str]) -> str | None:
    """Whether every entry along an axis holds what belongs one entry before or after it."""
    for axis, name in enumerate(names):
        n = want.shape[axis] - 1
        if n < 2 or name == "B":
            continue
        for text, (start_got, start_want) in {"right": (1, 0), "left": (0, 1)}.items():
            right = want.narrow(axis, start_want, n)
            if _changes(right, axis) >= CHANGES and _same(got.narrow(axis, start_got, n), right):
                if want.ndim == 1:
                    return f"every value is what belongs one place {'earlier' if text == 'right' else 'later'}"
                where = "one position" if name == "T" else f"one place of {name}"
                side = "earlier" if text == "right" else "later"
                return f"every {_entry(name)} holds what belongs {where} {side}: shifted {text} by one"
    return None


def reordered(got: Tensor, want: Tensor, names: Sequence[str]) -> str | None:
    """Whether the entries along an axis are the right ones in another order."""
    for axis, name in enumerate(names):
        size = want.shape[axis]
        if not 1 < size <= LONGEST:
            continue
        own, right = got.unbind(axis), want.unbind(axis)
        order: list[int] = []
        for one in own:
            place = next((k for k in range(size) if _same(one, right[k])), None)
            if place is None:
                break
            order.append(place)
        if len(set(order)) < size or order == list(range(size)):
            continue
        along = "" if want.ndim == 1 else f"along {name} "
        if order == list(range(size))[::-1]:
            return f"the values are right, but {along}they are in reverse"
        shown = ", ".join(map(str, order[:8])) + (", ..." if size > 8 else "")
        return f"the values are right, but {along}they are in another order: {shown}"
    return None


def scaled(got: Tensor, want: Tensor, names: Sequence[str]) -> str | None:
    """Whether the values are right but for a factor that depends on the place along one axis alone."""
    if not got.isfinite().all() or not want.isfinite().all():
        return None
    for axis, name in enumerate(names):
        size = want.shape[axis]
        if size < 2 or want.numel() < FEWEST * size:
            continue
        a, b = got.double().movedim(axis, 0).flatten(1), want.double().movedim(axis, 0).flatten(1)
        factors = (a * b).sum(1) / b.square().sum(1).clamp_min(1e-300)
        if not _same(got.movedim(axis, 0).flatten(1), (factors[:, None] * b).to(want.dtype)):
            continue
        low, high = float(factors.min()), float(factors.max())
        if high - low > 1e-3 * max(abs(low), abs(high)):
            return f"{FACTOR_OF_ITS_OWN} {name} alone: {low:.3g} to {high:.3g}"
    return None


def _changes(tensor: Tensor, axis: int) -> int:
    """How many entries along an axis are others than those before them."""
    apart = tensor.narrow(axis, 1, tensor.shape[axis] - 1) != tensor.narrow(axis, 0, tensor.shape[axis] - 1)
    return int(apart.movedim(axis, 0).reshape(apart.shape[axis], -1).any(1).sum())


def _entry(name: str) -> str:
    return "position" if name == "T" else f"entry along {name}"


def _same(got: Tensor, want: Tensor) -> bool:
    return bool(want.numel()) and bool(torch.any(want != 0)) and agree(got, want)
