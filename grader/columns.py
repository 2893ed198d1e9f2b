"""Cells as text in columns."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], right: Sequence[bool], least: int = 0) -> list[str]:
    """Rows of a table as text: each column as wide as its widest cell, and at least `least`. A row may be short.

    right: for each column, whether its cells stand to the right.
    """
    widths = [max(least, *(len(row[i]) for row in rows if i < len(row))) for i in range(len(right))]
    padded = (
        [(c.rjust if to_right else c.ljust)(w) for c, w, to_right in zip(row, widths, right, strict=False)]
        for row in rows
    )
    return ["  ".join(cells) for cells in padded]
