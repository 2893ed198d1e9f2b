"""How far a tensor is from the right one, in numbers."""

from dataclasses import dataclass

from torch import Tensor

from grader.tolerance import Tolerance, wrong_values


@dataclass(frozen=True)
class Difference:
    """How far a tensor is from the right one: counts, absolute differences, and the first wrong index.

    nan: how many values are NaN where they should not be. mean: over all values. values: the value at the first
    wrong index and the one that belongs there, if any value is wrong.
    """

    wrong: int
    total: int
    nan: int
    largest: float
    mean: float
    first: tuple[int, ...]
    values: tuple[float, float] | None
    whole: bool = False  # whether the values are whole numbers


def difference(got: Tensor, want: Tensor, tolerance: Tolerance) -> Difference:
    """Measure two tensors of one shape. NaN and infinite differences count as wrong and not in the numbers."""
    wrong = wrong_values(got, want, tolerance)
    distance = (got.detach().double() - want.detach().double()).abs()
    finite = distance[distance.isfinite()]
    first = tuple(int(i) for i in wrong.nonzero()[0]) if wrong.any() else ()
    return Difference(
        int(wrong.sum()),
        wrong.numel(),
        int((got.isnan() & ~want.isnan()).sum()),
        finite.max().item() if finite.numel() else 0.0,
        finite.mean().item() if finite.numel() else 0.0,
        first,
        (got[first].item(), want[first].item()) if wrong.any() else None,
        not want.is_floating_point(),
    )
