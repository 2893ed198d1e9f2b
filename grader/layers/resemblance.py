"""Which of the reference's tensors a wrong one resembles: one of them, or a sum in which one is missing."""

from collections.abc import Mapping

import torch
from torch import Tensor

from grader.calls import Call
from grader.layers.comparison import Comparison
from grader.layers.node import Node
from grader.tolerance import agree


def in_a_sum(got: Tensor, want: Tensor, known: Mapping[str, Tensor]) -> str | None:
    """Which of the reference's tensors is missing from a sum, or taken too often or in the wrong size."""
    if got.shape != want.shape or got.dtype != want.dtype or not got.isfinite().all():
        return None
    rest = (got - want).double()
    parts = {n: t.double() for n, t in known.items() if t.shape == got.shape and t.dtype == got.dtype}
    for name, part in parts.items():
        factor = _factor(rest, part, got.dtype)
        if factor is None or abs(factor) < 1e-3:
            continue
        alone = _factor(want.double(), part, got.dtype)
        if alone is not None:
            return f"{name} is taken {alone + factor:.4g} times, and should be taken {alone:.4g} times"
        due = _due(want.double(), part, parts, got.dtype)
        if abs(due + factor) < 1e-3:
            return f"{name} is missing from a sum"
        if abs(due - 1) > 1e-3:
            return f"in a sum, {name} is taken {due + factor:.4g} times, and should be taken {due:.4g} times"
        if abs(factor - 1) < 1e-3:
            return f"{name} is once too often in a sum"
        return f"in a sum, {name} is taken {1 + factor:.4g} times"
    return None


def _factor(whole: Tensor, part: Tensor, dtype: torch.dtype) -> float | None:
    """What a part is multiplied by, where that is all of the whole; both float64, compared in dtype."""
    factor = ((whole * part).sum() / part.square().sum().clamp_min(1e-30)).item()
    return factor if agree((factor * part).to(dtype), whole.to(dtype)) else None


def _due(want: Tensor, part: Tensor, parts: Mapping[str, Tensor], dtype: torch.dtype) -> float:
    """What a part is multiplied by in the reference's sum of it and another; 1 where no such sum is known."""
    found = [_factor(want - other, part, dtype) for other in parts.values() if other is not part]
    factors = [factor for factor in found if factor is not None and abs(factor) > 1e-3]
    return factors[0] if factors else 1.0


def known_tensors(comparison: Comparison, node: Node, kind: str = "") -> dict[str, Tensor]:
    """The reference's tensors by name: those of the modules that `node` calls directly first, and of these
    the ones of the class `kind`, then the nearest."""
    direct = {other.path for other in comparison.nodes if other.parent is node}
    prefix = f"{node.path}." if node.path else ""

    def distance(call: Call) -> tuple[bool, bool, bool, int]:
        inside = call.path.startswith(prefix)
        return call.path not in direct, call.type != kind, not inside, call.path.count(".")

    known: dict[str, Tensor] = {}
    for call in sorted(comparison.recorded[1:], key=distance):
        if call.output is not None:
            known.setdefault(output_of(call.path), call.output)
        if call.input is not None:
            known.setdefault(f"the input of `{call.path}`", call.input)
    return known


def output_of(path: str) -> str:
    """What the output of a module is called."""
    return f"the output of `{path}`"
