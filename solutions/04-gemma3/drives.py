"""How the verdicts on a comparison's rows are asked for."""

from typing import Any

from torch import Tensor


def verdicts_by_number(
    verdicts: Any, exact: list[Tensor], rounded: list[Tensor], alone: list[Tensor], whole: list[Tensor], times: float
) -> list[int]:
    """Of each row: 0 right, 1 inherited, 2 own; -1 for any other word, or none."""
    rows = [{f"layers.{i}": t for i, t in enumerate(each)} for each in (exact, rounded, alone, whole)]
    rows[1:] = [dict(reversed(each.items())) for each in rows[1:]]  # a row is known by its name, not by its place
    said = verdicts(*rows, times)
    words = ["right", "inherited", "own"]
    return [words.index(said[name]) if said.get(name) in words else -1 for name in rows[0]]
