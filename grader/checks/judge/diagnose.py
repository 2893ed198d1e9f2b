"""What a wrong tensor looks like: a constant factor, a transposition, a shift, permuted heads, ...

Every finder compares tensors only. It gives one sentence for a person, or None where it does not apply.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from grader.checks.judge.axes import moved, reordered, scaled
from grader.checks.judge.transcript import EVENTS, describe_transcript
from grader.tolerance import Tolerance, agree, tolerance_for, wrong_values

MOST = 0.5  # of the values: what happens to a whole tensor makes at least as much of it wrong
SINGLE = 1.5e-7  # what rounding to float32 a few times leaves, of a value
SMALLEST_NAMED = 5  # a factor of 2 is also the root of a config's 4 heads; such small numbers name nothing


@dataclass(frozen=True)
class Context:
    """What a finder may use besides the two tensors.

    axes: names of the right tensor's axes, as in ("B", "T", "D"). sizes: named numbers, as in
    {"head_dim": 16}. input: the first tensor the module was given, if any. weights: the module's own, by name.
    numbers: what each of a few numbers is, where they have names; the last may stand for all that are left ("rows...").
    """

    axes: tuple[str, ...] = ()
    sizes: Mapping[str, int] | None = None
    input: Tensor | None = None
    tolerance: Tolerance | None = None
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    numbers: tuple[str, ...] = ()


def describe(got: Tensor, want: Tensor, context: Context) -> str | None:
    """What makes `got` wrong, in a sentence; None if nothing known fits. Shapes and dtypes come first."""
    if context.axes == EVENTS:
        return describe_transcript(got, want)
    if got.shape != want.shape:
        return describe_shape(got, want, context)
    if got.dtype != want.dtype:
        return _describe_dtype(got, want, context)
    if not got.is_floating_point():
        return _describe_whole_numbers(got, want, context)
    if got.isnan().any() and not want.isnan().any():
        return None  # the probe says where NaN came from
    if want.dtype == torch.float64 and bool(((got - want).abs() <= SINGLE * want.abs()).all()):
        return "every value is right to about 7 digits and no further: was it computed in float32?"
    wrong = wrong_values(got, want, context.tolerance or tolerance_for(want.dtype))
    # What happens to a whole tensor makes most of it wrong. Where less is, a finder could fit an error so small
    # that anything brings it below the tolerance.
    finders = _FINDERS if wrong.double().mean() >= MOST else ()
    for finder in (*finders, _told_of_parts if context.numbers else _wrong_places):
        sentence = finder(got.detach(), want.detach(), context)
        if sentence:
            return sentence
    return None


def describe_shape(got: Tensor, want: Tensor, context: Context) -> str:
    """Which axis is wrong, or in which order the axes came."""
    shapes = f"the shape is {list(got.shape)}, and should be {list(want.shape)}"
    if got.ndim == want.ndim == 1 and not context.axes:
        values = f": {_listed(got, want)}" if not want.is_floating_point() and not got.is_floating_point() else ""
        return f"it gave {len(got)} values, and should give {len(want)}{values}"
    if not want.ndim and got.numel() == 1 and want.dtype in (torch.float64, torch.int64):  # a Python number
        return "it is one number in a list or a tensor, and the number itself belongs there"
    names = context.axes if len(context.axes) == want.ndim else tuple(str(i) for i in range(want.ndim))
    labelled = f" ({', '.join(names)})" if context.axes else ""
    if got.ndim != want.ndim:
        squeezed = [n for n in got.shape if n != 1] == [n for n in want.shape if n != 1]
        if squeezed:
            return f"{shapes}{labelled}: only an axis of size 1 is too many or missing"
        if got.numel() == want.numel():
            return f"{shapes}{labelled}: the number of values is right; axes are merged, or were not"
        return f"{shapes}{labelled}: {got.ndim} axes instead of {want.ndim}"
    for order in itertools.permutations(range(want.ndim)):
        if tuple(want.shape[i] for i in order) == tuple(got.shape):
            values = "; the values are right" if agree(got, want.permute(order)) else ""
            return f"{shapes}{labelled}: the axes are in the order {', '.join(names[i] for i in order)}{values}"
    wrong = [i for i in range(want.ndim) if got.shape[i] != want.shape[i]]
    parts = [
        f"axis {names[i]} has {got.shape[i]} entries instead of {want.shape[i]}"
        # How long a text is has nothing to do with the module's sizes.
        + ("" if names[i] in ("B", "T") else _size_name(got.shape[i], context))
        for i in wrong
    ]
    return f"{shapes}{labelled}: {'; '.join(parts)}"


def _size_name(number: int, context: Context) -> str:
    """Which named size a number is, in brackets, or nothing."""
    names = [name for name, size in (context.sizes or {}).items() if size == number]
    return f" (that is {names[0]})" if names else ""


def _describe_dtype(got: Tensor, want: Tensor, context: Context) -> str:
    if got.ndim == 0 and got.dtype == torch.float64 and want.dtype == torch.int64:
        right = _also_right(got, want, ", and its value is right")
        return f"it is a float, and should be an int{right}: `/` always gives a float, and `//` an int"
    given = None if context.input is None else context.input.dtype
    if want.ndim < 2 and want.dtype == torch.float64 != given:  # Python's own floats
        one = want.ndim == 0
        right = _also_right(got, want, ", and its value is right" if one else ", and its values are right")
        belongs = "a Python float belongs" if one else "Python floats belong"
        if not got.is_floating_point():
            return f"it is {'a whole number' if one else 'whole numbers'} where {belongs}{right}"
        how = "`.item()` makes it one" if one else "`.tolist()` makes them"
        return f"it is a tensor of {_short(got.dtype)} where {belongs}{right}: {how}"
    return (
        f"the dtype is {_short(got.dtype)}, and should be {_short(want.dtype)}"
        f"{_also_right(got, want, '; the values are right')}"
    )


def _also_right(got: Tensor, want: Tensor, said: str) -> str:
    """`said`, where the values are right but for their dtype; how far, where that dtype is the coarser one."""
    same = got.to(want.dtype)
    if agree(same, want):
        return said
    both = got.is_floating_point() and want.is_floating_point()
    return f"{said} as far as {_short(got.dtype)} goes" if both and agree(same, want, tolerance_for(got.dtype)) else ""


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _describe_whole_numbers(got: Tensor, want: Tensor, context: Context) -> str | None:
    if len(context.numbers) == want.numel():
        pairs = zip(context.numbers, got.tolist(), want.tolist(), strict=True)
        return "; ".join(_told_of_number(name, own, right) for name, own, right in pairs)
    if got.ndim == 0:
        if {int(got), int(want)} == {0, 1}:  # a yes or no
            return f"it is {int(got)}, and should be {int(want)}"
        off = int(got - want)
        share = 100 * off / max(1, abs(int(want)))
        digits = f"{share:+.2g}" if abs(share) < 99.5 else f"{share:+,.0f}"
        return f"it is {abs(off):,} too {'high' if off > 0 else 'low'} ({digits} %){_size_name(abs(off), context)}"
    if got.ndim == 1:
        return f"it gave {_listed(got, want)}"
    return _wrong_places(got, want, context)


def _told_of_parts(got: Tensor, want: Tensor, context: Context) -> str | None:
    """Which of the numbers that a vector puts together are wrong, by their names."""
    wrong = wrong_values(got, want, context.tolerance or tolerance_for(want.dtype))
    *single, last = context.numbers
    told = []
    for i, name in enumerate(single if last.endswith("...") else context.numbers):
        is_wrong = f"is {got[i].item():.4g}, and should be {want[i].item():.4g}"
        told.append(f"“{name}” {is_wrong if wrong[i] else 'is right'}")
    if last.endswith("..."):
        rest = wrong[len(single) :]
        are_wrong = f"are wrong in {int(rest.sum()):,} of {len(rest):,} values"
        told.append(f"“{last.removesuffix('...')}” {are_wrong if rest.any() else 'are right'}")
    return "; ".join(told)


def _told_of_number(name: str, own: int, right: int) -> str:
    if own == right:
        return f"“{name}” is right"
    times = f"{own / right:.4g} times, " if right and own and abs(own / right - 1) >= 5e-4 else ""
    off = f"{abs(own - right):,} too {'many' if own > right else 'few'}"
    return f"“{name}” is {own:,}, and should be {right:,} ({times}{off})"


def _listed(got: Tensor, want: Tensor) -> str:
    """Two lists of whole numbers, from a little before their first difference."""
    own, right = got.tolist(), want.tolist()
    first = next((i for i, (a, b) in enumerate(zip(own, right, strict=False)) if a != b), min(len(own), len(right)))
    start = max(0, first - 3) if max(len(own), len(right)) > 10 else 0

    def shown(numbers: list[int]) -> str:
        dots = ["..."] if start else [], ["..."] if len(numbers) > start + 8 and len(numbers) > 10 else []
        part = numbers[start : start + 8] if len(numbers) > 10 or start else numbers
        return ", ".join([*dots[0], *map(str, part), *dots[1]]) or "nothing"

    where = f" (they differ from position {first} on, counted from 0)" if first else ""
    return f"{shown(own)}; {shown(right)} belongs there{where}"


def _same(got: Tensor, want: Tensor, context: Context) -> bool:
    """Whether the tensors agree, and not only because there is nothing to see."""
    tolerance = tolerance_for(want.dtype)
    return got.shape == want.shape and bool(want.abs().max() > 0) and agree(got, want, tolerance)


def _input_returned(got: Tensor, want: Tensor, context: Context) -> str | None:
    x = context.input
    if x is not None and x.shape == got.shape and _same(got, x.to(got.dtype), context):
        return "the output is the input, unchanged"
    return None


def _residual(got: Tensor, want: Tensor, context: Context) -> str | None:
    x = context.input
    if x is None or x.shape != want.shape or not x.is_floating_point():
        return None
    x = x.to(want.dtype)
    if _same(got + x, want, context):
        return "the input has to be added, and is not: a residual connection is missing"
    if _same(got - x, want, context):
        return "the input is added once too often: a residual connection is doubled, or has no place here"
    return None


def _constant_factor(got: Tensor, want: Tensor, context: Context) -> str | None:
    a, b = got.double(), want.double()
    if not a.isfinite().all() or not b.isfinite().all() or not b.square().sum() > 0:
        return None
    factor = ((a * b).sum() / b.square().sum()).item()
    if abs(factor) < 1e-6 or not _same(a.to(want.dtype), (factor * b).to(want.dtype), context):
        return None
    if abs(factor - 1) < 1e-4:
        return None
    name = _name_of_factor(factor, context.sizes or {})
    shown = f"{factor:.4g}" if abs(factor - 1) >= 5e-4 else f"{factor:.6g}"
    subject = "it" if want.numel() == 1 else "every value"
    return f"{subject} is {shown} times what it should be" + (f": that is {name}" if name else "")


def _name_of_factor(factor: float, sizes: Mapping[str, int]) -> str | None:
    if abs(factor + 1) < 1e-4:
        return "the wrong sign"
    for name, size in sizes.items():
        root = math.sqrt(size)
        candidates = {f"√{name}": root, f"1/√{name}": 1 / root, name: float(size), f"1/{name}": 1 / size}
        for text, value in candidates.items():
            if size >= SMALLEST_NAMED and math.isclose(abs(factor), value, rel_tol=1e-3):
                return text
    return None


def _constant_offset(got: Tensor, want: Tensor, context: Context) -> str | None:
    shift = got.double() - want.double()
    if want.numel() == 1:  # the table says by how much
        return None
    if not shift.isfinite().all() or not wrong_values(got, want, tolerance_for(want.dtype)).any():
        return None
    if _same((want.double() + shift.mean()).to(want.dtype), got, context):
        return f"every value is off by the same {shift.mean().item():+.4g}"
    if want.ndim < 2 or want.numel() == want.shape[-1]:
        return None
    last = shift.reshape(-1, shift.shape[-1]).mean(0)
    if _same((want.double() + last).to(want.dtype), got, context):
        return "every position is off by the same vector, as where a bias is missing, or another one is added"
    if want.ndim >= 3 and want.shape[0] > 1:
        by_position = shift.mean(0, keepdim=True)
        if _same((want.double() + by_position).to(want.dtype), got, context):
            return "what is missing or too much is the same in every batch entry: it depends on the position alone"
    return None


def _transposed(got: Tensor, want: Tensor, context: Context) -> str | None:
    for i, j in itertools.combinations(range(want.ndim), 2):
        if want.shape[i] == want.shape[j] and want.shape[i] > 1 and _same(got, want.transpose(i, j), context):
            names = axis_names(want, context)
            return f"the values are right, but {names[i]} and {names[j]} are swapped: the result is transposed"
    return None


def _head_splits(width: int, sizes: Mapping[str, int]) -> Iterator[tuple[int, int]]:
    """Ways to see the last axis as (heads, head_dim) in numbers that have a name."""
    for size in sorted(set(sizes.values())):
        if 1 < size < width and width % size == 0:
            yield width // size, size


def _permuted_heads(got: Tensor, want: Tensor, context: Context) -> str | None:
    width = want.shape[-1] if want.ndim else 0
    for heads, head_dim in _head_splits(width, context.sizes or {}):
        split = (*want.shape[:-1], heads, head_dim)
        w, g = want.reshape(split), got.reshape(split)
        if _same(got, w.transpose(-1, -2).flatten(-2), context):
            return f"the {heads} heads of {head_dim} are interleaved: heads and head_dim changed places"
        if want.ndim >= 3 and heads <= 16:
            order = [
                next((j for j in range(heads) if _same(g[..., i, :], w[..., j, :], context)), None)
                for i in range(heads)
            ]
            if None not in order and order != list(range(heads)):
                return f"the heads are right, but in the order {order}"
        if want.ndim >= 3:
            merged = w.transpose(1, -2).reshape(want.shape)
            if _same(got, merged, context):
                return "the heads were merged without swapping T and the heads back first"
    return None


def _swapped_halves(got: Tensor, want: Tensor, context: Context) -> str | None:
    width = want.shape[-1] if want.ndim else 0
    if width >= 2 and width % 2 == 0 and _same(got, want.roll(width // 2, dims=-1), context):
        return "the two halves of the last axis are swapped"
    if width >= 4 and width % 2 == 0:
        pairs = want.reshape(*want.shape[:-1], 2, width // 2).transpose(-1, -2).flatten(-2)
        halves = want.reshape(*want.shape[:-1], width // 2, 2).transpose(-1, -2).flatten(-2)
        if _same(got, pairs, context) or _same(got, halves, context):
            return "the last axis holds pairs where halves belong, or halves where pairs belong"
    return None


def _shifted(got: Tensor, want: Tensor, context: Context) -> str | None:
    return moved(got, want, axis_names(want, context))


def _reordered(got: Tensor, want: Tensor, context: Context) -> str | None:
    return reordered(got, want, axis_names(want, context))


def _scaled(got: Tensor, want: Tensor, context: Context) -> str | None:
    return scaled(got, want, axis_names(want, context))


def axis_names(want: Tensor, context: Context) -> tuple[str, ...]:
    """The names of the axes, or their numbers."""
    return context.axes if len(context.axes) == want.ndim else tuple(f"axis {i}" for i in range(want.ndim))


DISTINCT = 4  # fewer values that are not the same are soon found in any order
PLACED = 20  # times further apart in their places than when both are sorted: then it is the places that are wrong


def _another_order(got: Tensor, want: Tensor, context: Context) -> str | None:
    if want.numel() < 2:
        return None
    own, right = got.flatten().sort().values, want.flatten().sort().values
    if len(set(want.flatten().tolist())) < DISTINCT:
        return None
    if not _same(own, right, context):
        return None
    sorted_apart, apart = ((a.double() - b.double()).abs().max() for a, b in ((own, right), (got, want)))
    if apart > PLACED * sorted_apart:  # else each value is a little off where it is, as with a rounded constant
        return "all the right values are there, in another order"
    return None


def _wrong_places(got: Tensor, want: Tensor, context: Context) -> str | None:
    """Along which axis the wrong values gather, where they do not fill it."""
    wrong = wrong_values(got, want, context.tolerance or tolerance_for(want.dtype))
    if want.is_floating_point() and wrong.sum() == 1:
        return None  # one value lies somewhere on every axis, and gathers nowhere
    names = axis_names(want, context)
    for i in range(want.ndim):
        size = want.shape[i]
        bad = sorted({int(k) for k in wrong.nonzero()[:, i]})
        where = _ranges(bad, size)
        if not bad or len(bad) == size or where is None:
            continue
        return f"it is wrong at index {where} of {names[i]}, and right elsewhere (counted from 0, of {size})"
    return None


def _ranges(numbers: Sequence[int], size: int) -> str | None:
    """[3, 4, 5, 6] of 7 -> "3 and later"; a short list whole; None where too many are scattered."""
    if len(numbers) > 1 and numbers == list(range(numbers[0], size)):
        return f"{numbers[0]} and later"
    if len(numbers) > 1 and numbers == list(range(numbers[-1] + 1)):
        return f"{numbers[-1]} and earlier"
    if len(numbers) <= 6:
        return ", ".join(str(n) for n in numbers)
    return None


_FINDERS: tuple[Callable[[Tensor, Tensor, Context], str | None], ...] = (
    _input_returned,
    _residual,
    _constant_factor,
    _constant_offset,
    _transposed,
    _permuted_heads,
    _swapped_halves,
    _shifted,
    _reordered,
    _scaled,
    _another_order,
)


def known_as(given: Tensor, tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the tensor that `given` equals, or None. Tensors of another shape are passed over."""
    for name, tensor in tensors.items():
        if (
            tensor.shape == given.shape
            and tensor.dtype == given.dtype
            and torch.is_floating_point(tensor)
            and agree(given, tensor)
        ):
            return name
    return None
