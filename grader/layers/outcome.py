"""What a module returned, against what it should have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from grader.calls import Call
from grader.checks.judge.diagnose import Context, describe_shape
from grader.checks.layout import arranged, is_transposed, layout_between, merges_to
from grader.tolerance import agree, tolerance_for, widened

# A mean difference above this share of a tensor's typical size is a difference in kind: the module returns
# something else than the reference's does. If what contains it is right all the same, that is the learner's own
# way. A smaller one may be an error that the tolerance hides in the larger whole, so it is never excused.
IN_KIND = 0.05
WITHIN_ROUNDING = "no further than rounding moves the reference's own"


@dataclass(frozen=True)
class Outcome:
    """What a module returned, against what it should have: right or not, absolute differences, and a remark.

    in_kind: whether the difference is one in kind (see IN_KIND). raised: whether there is only an error.
    """

    ok: bool
    max: float = 0.0
    mean: float = 0.0
    note: str = ""
    in_kind: bool = False
    raised: bool = False


def outcome_of(outputs: Sequence[Tensor], recorded: Call, sizes: Mapping[str, int], instead: str = "") -> Outcome:
    """All tensors that a module gave against the reference's: the first outcome that is wrong, or else the first.

    The first tensor is compared alone where the two modules do not give tensors of the same number and dtypes; but a
    module that gives several of the reference's tensors, and not all of them, is right.
    """
    assert recorded.output is not None
    floor = recorded.floor
    first = outcome(next(iter(outputs), None), recorded.output, sizes, instead, floor)
    if not first.ok and 1 < len(outputs) < len(recorded.outputs) and _are_among(outputs, recorded.outputs):
        return Outcome(True, note=f"{len(outputs)} of the {len(recorded.outputs)} tensors that the reference gives")
    if not first.ok and len(outputs) == 2 and _add_up(outputs, recorded.output):
        return Outcome(True, note="the sum of its 2 tensors")
    if not first.ok or [t.dtype for t in outputs] != [t.dtype for t in recorded.outputs]:
        return first
    for number, (got, want) in enumerate(zip(outputs[1:], recorded.further, strict=True), start=2):
        found = outcome(got, want, sizes, floor=floor)
        if not found.ok:
            note = f"output {number} of {len(outputs)}"
            return replace(found, note=f"{note}: {found.note}" if found.note else note)
    return first


def _add_up(outputs: Sequence[Tensor], want: Tensor) -> bool:
    """Whether a module leaves it to its caller to add what it gives to the residual that it gives besides."""
    one, other = outputs
    if not (one.is_floating_point() and one.shape == other.shape and one.dtype == other.dtype == want.dtype):
        return False
    return outcome(one + other, want, {}).ok


def _are_among(outputs: Sequence[Tensor], recorded: Sequence[Tensor]) -> bool:
    """Whether the reference gives these tensors, in this order."""
    left = iter(recorded)
    return all(any(outcome(got, want, {}).ok for want in left) for got in outputs)


def outcome(
    got: Tensor | None, want: Tensor, sizes: Mapping[str, int], instead: str = "", floor: float = 0.0
) -> Outcome:
    """`got` against `want`. instead: what there is where there is no tensor. floor: how far rounding alone moves it."""
    if got is None:
        return Outcome(False, note=instead, in_kind=True)
    if got.shape != want.shape:
        return _in_another_shape(got, want, sizes, floor)
    if got.numel() and got.dtype == want.dtype and torch.equal(got, want):  # as most are, of a copy with one bug
        return Outcome(True)
    equal = (got == want) | (got.isnan() & want.isnan())
    distance = (got.double() - want.double()).abs().masked_fill(equal, 0.0)
    largest, mean = (distance.max().item(), distance.mean().item()) if distance.numel() else (0.0, 0.0)
    if got.dtype != want.dtype:
        names = f"{got.dtype} instead of {want.dtype}".replace("torch.", "")
        return Outcome(False, largest, mean, names, in_kind=True)
    bad = int((got.isnan() & ~want.isnan()).sum())
    note = f"NaN in {bad} of {got.numel()} values" if bad else ""
    size = want.double().square().mean().sqrt().item()
    ok = agree(got, want)
    if not ok and floor and agree(got, want, widened(tolerance_for(want.dtype), floor)):
        ok, note = True, WITHIN_ROUNDING
    return Outcome(ok, largest, mean, note, in_kind=not mean <= IN_KIND * size)


def _in_another_shape(got: Tensor, want: Tensor, sizes: Mapping[str, int], floor: float) -> Outcome:
    """The outcome where shapes differ. As many values are compared in the order of axes that comes nearest."""
    shape = describe_shape(got, want, Context(sizes=sizes))
    if got.numel() != want.numel() or got.dtype != want.dtype:
        return Outcome(False, note=shape, in_kind=True)
    found = outcome(got, arranged(want, got), sizes, floor=floor)
    layout = f"other layout, {list(got.shape)} for {list(want.shape)}"
    moved = got.squeeze().shape != want.squeeze().shape
    if found.ok or _same_values(got, want):
        return replace(found, ok=True, note=layout if moved else found.note, in_kind=False)
    size = want.double().square().mean().sqrt().item()
    return found if found.mean < size and not moved else replace(found, note=layout if found.mean < size else shape)


def _same_values(got: Tensor, want: Tensor) -> bool:
    """Whether tensors of different shapes hold the same values: axes in another order, merged, or of size 1."""
    if got.numel() != want.numel() or got.dtype != want.dtype:
        return False
    as_it_is = not is_transposed(want.shape, got.shape) and agree(got, want.reshape(got.shape))
    if as_it_is or layout_between(got.squeeze(), want.squeeze()) is not None:
        return True
    return merges_to(want.squeeze(), got.squeeze())
