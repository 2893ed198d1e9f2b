"""Which of the reference's tensors a wrong one resembles: one of them, or a sum in which one is missing."""

from collections.abc import Mapping

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
    for name, tensor in known.items():
        if tensor.shape != got.shape or tensor.dtype != got.dtype or not tensor.is_floating_point():
            continue
        part = tensor.double()
        factor = ((rest * part).sum() / part.square().sum().clamp_min(1e-30)).item()
        if abs(factor) < 1e-3 or not agree((factor * part).to(got.dtype), rest.to(got.dtype)):
            continue
        if abs(factor + 1) < 1e-3:
            return f"{name} is missing from a sum"
        if abs(factor - 1) < 1e-3:
            return f"{name} is once too often in a sum"
        return f"in a sum, {name} is taken {1 + factor:.4g} times"
    return None


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
