"""Tables in plain text."""

from collections.abc import Mapping, Sequence
from typing import Any


def table(rows: Mapping[str, Sequence[Any]], head: Sequence[str] = (), least: int = 0) -> None:
    """Print rows of values in columns as wide as their widest value, right-aligned.

    rows: what a row is called -> its values. head: what each column is called. Whole numbers get commas; another float
    prints as it is, so round it, or format it, beforehand. least: the least width of a column.
    """
    lines = [["", *map(str, head)]] if head else []
    lines += [[name, *map(shown, values)] for name, values in rows.items()]
    columns = max(map(len, lines), default=0)
    widths = [max(least, *(len(line[i]) for line in lines if i < len(line))) for i in range(columns)]
    for line in lines:
        print("  ".join(value.rjust(width) for value, width in zip(line, widths, strict=False)))


def shown(value: Any) -> str:
    """One value as a table has it: 12,288 for a whole number, also for 12288.0; "-" for None."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value == int(value):
        return f"{value:,.0f}"
    return "-" if value is None else str(value)
