"""What is measured of a result whose error no known mistake explains: facts about numbers, and no guess at a cause."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from grader.checks.judge.diagnose import Context, axis_names
from grader.tolerance import Tolerance, tolerance_for, wrong_values

SAME = 1e-3  # of a statistic's size: rows that are this near have the same; float32's rounding is far below
APART = 2e-2  # of its size: what is further from the reference's differs. In between nothing is said
LEAST_ROWS = 3  # fewer that have something in common say nothing
LEAST_WEIGHT = 0.02  # what was multiplied by less can't be measured without it
OFTEN = 0.1  # of the values
MOST_LINES = 2

STATISTICS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda rows: rows.mean(-1),
    "sum": lambda rows: rows.sum(-1),
    "standard deviation": lambda rows: rows.std(-1, correction=0),
    "root mean square": lambda rows: rows.square().mean(-1).sqrt(),
    "norm": lambda rows: rows.square().sum(-1).sqrt(),
    "mean absolute value": lambda rows: rows.abs().mean(-1),
    "largest absolute value": lambda rows: rows.abs().amax(-1),
}
PLACES = ("mean", "sum")  # where a row's values lie; the others say how large they are


@dataclass(frozen=True)
class Rows:
    """Both results as rows along one axis: [rows, values], float64. what: what is measured there, in words."""

    got: Tensor
    want: Tensor
    what: str


def measured(got: Tensor, want: Tensor, context: Context) -> tuple[str, ...]:
    """At most two sentences on what is the same in every row of one result and not of the other; none if nothing is.

    What a `weight` and a `bias` along the last axis did is undone before, where nothing is told otherwise.
    """
    if got.shape != want.shape or got.dtype != want.dtype or want.dtype not in (torch.float32, torch.float64):
        return ()
    if not want.ndim or want.numel() < 8 or not got.isfinite().all() or not want.isfinite().all():
        return ()
    own, right, axes = got.detach().double(), want.detach().double(), axis_names(want, context)
    same = _all_alike(own, right)
    if same:
        return (same,)
    found = [*_of_rows(own, right, axes, context), *_beside_input(own, right, axes, context.input)]
    return tuple([*found, *_of_values(own, right, context.tolerance or tolerance_for(want.dtype))][:MOST_LINES])


def _all_alike(got: Tensor, want: Tensor) -> str | None:
    rows, right = (t.reshape(-1, t.shape[-1]) for t in (got, want))
    if _alike(got, 0.0) and not _alike(want, APART * float(want.abs().max())):
        return f"Every value of yours is {_number(float(got.flatten()[0]))}; the reference's differ."
    if len(rows) > 1 and bool((rows == rows[0]).all()) and _distinct(right) == len(right):
        return "All rows of yours are one and the same; no two of the reference's are."
    return None


def _of_rows(got: Tensor, want: Tensor, axes: Sequence[str], context: Context) -> Iterator[str]:
    found = [_invariant(rows) for rows in _as_rows(got, want, axes, context.weights)]
    yield from (next(filter(None, kind), "") for kind in zip(*found, strict=True) if any(kind))
    each = [_rows(got, want, axis, f"along {axes[axis]}") for axis in reversed(range(want.ndim))]
    head_dim = (context.sizes or {}).get("head_dim", 0)
    if head_dim and want.shape[-1] % head_dim == 0:
        heads = (*want.shape[:-1], -1, head_dim)
        each.insert(1, _rows(got.reshape(heads), want.reshape(heads), -1, "of a head"))
    for one in each:
        if one and (said := _multiples(one) or _in_proportion(one)):
            yield said
            break


def _as_rows(got: Tensor, want: Tensor, axes: Sequence[str], weights: Mapping[str, Tensor]) -> Iterator[Rows]:
    """Both results along every axis, the last one first; then along the last one without what weights did."""
    for axis in reversed(range(want.ndim)):
        if rows := _rows(got, want, axis, f"along {axes[axis]}"):
            yield rows
    fitting = {name: w.double() for name, w in weights.items() if w.shape == want.shape[-1:]}
    weight, bias = fitting.get("weight"), fitting.get("bias")
    if weight is None:
        return
    shift = 0.0 if bias is None else bias
    for scale in (weight, 1 + weight):
        if scale.abs().min() < LEAST_WEIGHT:
            continue
        names = "`weight`" if bias is None else "`weight` and `bias`"
        rows = _rows((got - shift) / scale, (want - shift) / scale, -1, f"along {axes[-1]}, before {names},")
        if rows:
            yield rows


def _rows(got: Tensor, want: Tensor, axis: int, what: str) -> Rows | None:
    own, right = (t.movedim(axis, -1).reshape(-1, t.shape[axis]) for t in (got, want))
    return Rows(own, right, what) if right.shape[-1] > 1 and _distinct(right) >= LEAST_ROWS else None


def _distinct(rows: Tensor) -> int:
    return len(set(map(tuple, rows.tolist())))


# What is the same in every row


def _invariant(rows: Rows) -> tuple[str, str]:
    """What is the same in every row of the reference and otherwise in the learner's; else the other way round."""
    own = {name: _constant(name, rows.got) for name in STATISTICS}
    right = {name: _constant(name, rows.want) for name in STATISTICS}
    positive = rows.got.min() >= 0 and rows.want.min() >= 0  # then the mean says the same
    differing = [n for n in STATISTICS if _differ(n, rows) and not (positive and n == "mean absolute value")]
    of_reference = _chosen({n: c for n in differing if (c := right[n]) is not None})
    of_own = _chosen({n: c for n in differing if (c := own[n]) is not None and n not in of_reference})
    if of_reference:
        wanted = _and([f"{name} {_number(c)}" for name, c in of_reference.items()])
        came = [f"{name} {_range(STATISTICS[name](rows.got))}" for name in of_reference]
        besides = _and([f"{name} {_number(c)}" for name, c in of_own.items() if c in (0.0, 1.0)])
        told = f"Each row {rows.what} has {wanted} in the reference; yours have {_and(came)}"
        return f"{told}, and each has {besides}." if besides else f"{told}.", ""
    if not of_own:
        return "", ""
    came = [f"{name} {_number(c)}" for name, c in of_own.items()]
    wanted = _and([f"{name} {_range(STATISTICS[name](rows.want))}" for name in of_own])
    return "", f"Each row {rows.what} has {_and(came)} in yours; the reference's have {wanted}."


def _constant(name: str, rows: Tensor) -> float | None:
    """A statistic's value where it is the same in every row; exactly 0 or 1 where it is that but for rounding."""
    values, unit = STATISTICS[name](rows), _unit(name, rows)
    if not unit or not _alike(values, SAME * unit):
        return None
    mean = float(values.mean())
    return next((whole for whole in (0.0, 1.0) if abs(mean - whole) <= SAME * unit), mean)


def _unit(name: str, rows: Tensor) -> float:
    """A statistic's size, also where it is 0 because what is added up cancels."""
    return max(float(STATISTICS[name](one).abs().mean()) for one in (rows, rows.abs()))


def _alike(values: Tensor, within: float) -> bool:
    return bool(values.max() - values.min() <= within)


def _differ(name: str, rows: Rows) -> bool:
    apart = (STATISTICS[name](rows.got) - STATISTICS[name](rows.want)).abs().max()
    return bool(apart > APART * max(_unit(name, rows.got), _unit(name, rows.want)))


def _chosen(constants: Mapping[str, float]) -> dict[str, float]:
    """Of what is the same in every row, one that says where values lie, and one that says how large they are.

    A sum of 1 is a mean of 1/n: that which is 0 or 1 is said.
    """
    chosen = {}
    for kind in (True, False):
        of_kind = {name: c for name, c in constants.items() if (name in PLACES) == kind}
        name = next((n for n, c in of_kind.items() if c in (0.0, 1.0)), next(iter(of_kind), None))
        if name is not None:
            chosen[name] = of_kind[name]
    return chosen


# What is in proportion


def _multiples(rows: Rows) -> str | None:
    """Whether every row is the reference's but for a factor."""
    size = rows.want.square().sum(-1)
    if rows.want.shape[-1] < 3 or size.min() <= 0:
        return None
    factors = (rows.got * rows.want).sum(-1) / size
    rest = (rows.got - factors[:, None] * rows.want).square().sum(-1)
    if _alike(factors, APART * float(factors.abs().max())) or (rest > SAME**2 * rows.got.square().sum(-1)).any():
        return None
    return f"Each row {rows.what} is the reference's times a factor of its own: {_range(factors)}."


def _in_proportion(rows: Rows) -> str | None:
    """Whether the rows of one result are so many times as spread, or as large, as the other's."""
    for name in ("standard deviation", "root mean square", "mean absolute value"):
        own, right = STATISTICS[name](rows.got), STATISTICS[name](rows.want)
        if right.min() <= SAME * float(right.max()):
            continue
        ratios = own / right
        ratio = float(ratios.mean())
        if _alike(ratios, SAME * ratio) and abs(ratio - 1) > APART:
            return f"Each row {rows.what} has {_number(ratio)} times the {name} of the reference's."
    return None


def _beside_input(got: Tensor, want: Tensor, axes: Sequence[str], given: Tensor | None) -> Iterator[str]:
    """What the reference keeps of every row of the input, and the learner's result does not."""
    if given is None or given.shape != want.shape or not given.is_floating_point():
        return
    for name in ("norm", "mean"):
        rows = _rows(got, given.double(), -1, f"along {axes[-1]}")
        kept = _rows(want, given.double(), -1, "")
        if rows is None or kept is None:
            return
        apart = (STATISTICS[name](kept.got) - STATISTICS[name](kept.want)).abs().max()
        if apart <= SAME * _unit(name, kept.want) and _differ(name, rows):
            ratios = STATISTICS[name](rows.got) / STATISTICS[name](rows.want)
            how = f": theirs is {_range(ratios)} times that" if name == "norm" else ""
            yield f"Each row {rows.what} has the {name} of the input's row in the reference; yours do not{how}."
            return


# Single values


def _of_values(got: Tensor, want: Tensor, tolerance: Tolerance) -> Iterator[str]:
    """What is so of every single value of one result and not of the other."""
    wrong = wrong_values(got, want, tolerance)
    if wrong.any() and not wrong_values(got.abs(), want.abs(), tolerance).any():
        yield f"Every value has the right size, and {int(wrong.sum()):,} of {wrong.numel():,} have the wrong sign."
    elif got.min() >= 0 and _often_below(want):
        yield f"No value of yours is below 0; of the reference's {_below(want)}."
    elif want.min() >= 0 and _often_below(got):
        yield f"No value of the reference's is below 0; of yours {_below(got)}."
    elif 0.9 < got.abs().max() <= 1 < 1.5 < want.abs().max():
        yield f"Yours all lie between -1 and 1; the reference's reach {_number(_largest(want))}."
    elif wrong.any() and _often_below(want) and _often_below(-want) and not (wrong & (want >= 0)).any():
        yield "Every value that should be above 0 is right: the wrong ones should all be below 0."


def _often_below(values: Tensor) -> bool:
    """Whether many values are below 0, and by more than rounding."""
    return bool((values < -APART * values.square().mean().sqrt()).double().mean() > OFTEN)


def _below(values: Tensor) -> str:
    return f"{int((values < 0).sum()):,} of {values.numel():,} are, down to {_number(float(values.min()))}"


def _largest(values: Tensor) -> float:
    """The value that is furthest from 0."""
    return float(values.flatten()[values.abs().argmax()])


# In words


def _number(value: float) -> str:
    return f"{value + 0.0:.3g}"  # never -0


def _range(values: Tensor) -> str:
    low, high = _number(float(values.min())), _number(float(values.max()))
    return low if low == high else f"{low} to {high}"


def _and(texts: Sequence[str]) -> str:
    return f"{', '.join(texts[:-1])} and {texts[-1]}" if len(texts) > 1 else "".join(texts)
