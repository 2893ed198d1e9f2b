"""How far a right answer may be from the reference, per dtype. The only place that says so.

Two correct programs differ because floating-point addition depends on its order. One rounding moves a
value by at most u = eps/2 of itself (2^-24 in float32, 2^-8 in bfloat16). A sum of K products collects
about sqrt(K) such roundings, each relative to the size of the terms and not of the sum, and a block is a
few such sums in a row. So the bound is relative to the value *and* to the typical size (root mean square)
of the tensor it stands in:

    |got - want| <= relative * (|want| + rms(want))

float32: 5e-5 is 840 u. In lesson 01 other right programs were seen to reach 1.4e-6 on the left-hand side divided by
(|want| + rms), and the least of the named mistakes 3.5e-3.
bfloat16: 6e-2 is 15 u. Intermediate results are rounded at every step, in an order that is the program's own:
other right programs reach 2.2e-2.
Whole numbers must be equal.

What rounding does to a case is measured when it is recorded (`noise`), and a case in which it comes near its tolerance
is refused. A known mistake may amplify rounding, by dividing by what is nearly 0 or taking the cosine of what is large;
its own output is then compared with as much more margin.

A case in which everything is computed in float32 and rounded once at the end can ask for `ROUNDED_ONCE`:
then a value may be off by one unit in the last place where it sat on a rounding boundary, which happens to
few values, while a cast in the wrong place moves many.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tolerance:
    """`relative` as in the formula above; `share` is how many of the values may differ at all, 0 to 1."""

    relative: float
    share: float = 1.0


BY_DTYPE = {
    torch.float64: Tolerance(1e-9),
    torch.float32: Tolerance(5e-5),
    torch.bfloat16: Tolerance(6e-2),
    torch.float16: Tolerance(4e-3),
}
EXACT = Tolerance(0.0)
ROUNDED_ONCE = Tolerance(8e-3, share=0.05)
FAR = 2.1  # times a tolerance and the largest value: above every bound, and above what bfloat16 makes of one
NEAR = 0.95  # times the least that a tolerance can be for a value: below it, though all of this is rounded in the dtype
MARGIN = 4  # a tolerance is at least this many times what rounding alone is seen to do


def widened(tolerance: Tolerance, noise: float) -> Tolerance:
    """The tolerance for a value that rounding alone moves by up to `noise`, in units of `relative` (see `distance`).

    Where few values may differ at all, any may once there is noise, by two units in the last place instead of one.
    """
    if noise == 0:
        return tolerance
    margin = MARGIN if tolerance.share == 1 else 2
    return Tolerance(max(tolerance.relative, margin * noise))


def distance(got: Tensor, want: Tensor) -> float:
    """How far two tensors of one shape are apart, in units of a tolerance's `relative`: the largest of
    |got - want| / (|want| + rms(want)).

    0 where they are equal, infinite where only one of two values is finite, or whole numbers differ.
    """
    if got.shape != want.shape or got.dtype != want.dtype:
        return float("inf")
    if torch.equal(got, want) or not want.numel():
        return 0.0
    if not want.is_floating_point():
        return float("inf")
    got, want = got.detach().double(), want.detach().double()
    equal = (got == want) | (got.isnan() & want.isnan())
    if not bool((equal | (got.isfinite() & want.isfinite())).all()):
        return float("inf")
    size = want.abs() + _rms(want)
    return float(torch.where(equal, 0.0, (got - want).abs() / size).max())


def mean_distance(got: Tensor, want: Tensor) -> float:
    """As `distance`, the mean over all values that are finite in both."""
    if not want.is_floating_point() or torch.equal(got, want):
        return 0.0
    got, want = got.detach().double(), want.detach().double()
    apart = (got - want).abs() / (want.abs() + _rms(want))
    finite = apart[apart.isfinite()]
    return float(finite.mean()) if finite.numel() else 0.0


def tolerance_for(dtype: torch.dtype) -> Tolerance:
    """The tolerance of a dtype; whole numbers and booleans must be equal."""
    return BY_DTYPE.get(dtype, EXACT)


def wrong_values(got: Tensor, want: Tensor, tolerance: Tolerance) -> Tensor:
    """Where `got` is not right: a boolean tensor of their common shape. NaN and infinities must coincide."""
    got, want = got.detach().double(), want.detach().double()
    bound = tolerance.relative * (want.abs() + _rms(want))
    equal = (got == want) | (got.isnan() & want.isnan())
    close = got.isfinite() & want.isfinite() & ((got - want).abs() <= bound)
    wrong = ~(equal | close)
    # Where more differ than may, they all count, and not only those few that are also far off.
    too_many = tolerance.share < 1 and bool((~equal).double().mean() > tolerance.share)
    return ~equal if too_many else wrong


def _rms(values: Tensor) -> Tensor:
    whole = values.square().mean().sqrt()
    if bool(whole.isfinite()):  # as nearly always: then there is nothing to leave out
        return whole
    finite = values[values.isfinite()]
    return finite.square().mean().sqrt() if finite.numel() else values.new_zeros(())


def agree(got: Tensor, want: Tensor, tolerance: Tolerance | None = None) -> bool:
    """Whether two tensors of the same shape and dtype are equal within the tolerance of `want`'s dtype."""
    if got.shape != want.shape or got.dtype != want.dtype:
        return False
    tolerance = tolerance or tolerance_for(want.dtype)
    plain = _plainly(got, want, tolerance)
    return not bool(wrong_values(got, want, tolerance).any()) if plain is None else plain


def _plainly(got: Tensor, want: Tensor, tolerance: Tolerance) -> bool | None:
    """Whether two tensors agree, where a few operations tell: that they are equal, or near, or far apart in one value.

    None where these don't tell.
    """
    if torch.equal(got, want):
        return True
    if not want.is_floating_point() or not want.numel():
        return None
    got, want = got.detach(), want.detach()
    apart, largest = (got - want).abs().max().item(), want.abs().max().item()
    # Neither |want| nor rms(want) is above the largest, and rms(want) is at least this share of it. What is not finite
    # is told by nothing here.
    bound, least = tolerance.relative * largest, 1 / math.sqrt(want.numel())
    if apart > FAR * bound:
        return False
    return True if tolerance.share == 1 and apart <= NEAR * least * bound < math.inf else None
