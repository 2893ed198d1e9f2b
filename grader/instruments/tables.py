"""Tables, in plain text and as HTML."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from grader.columns import aligned


def table(rows: Mapping[str, Sequence[Any]], head: Sequence[str] = (), least: int = 0) -> None:
    """Print rows of values in columns as wide as their widest value, right-aligned.

    rows: what a row is called -> its values. head: what each column is called. Whole numbers get commas; another float
    prints as it is, so round it, or format it, beforehand. least: the least width of a column.
    """
    lines = [["", *map(str, head)]] if head else []
    lines += [[name, *map(shown, values)] for name, values in rows.items()]
    for line in aligned(lines, [True] * max(map(len, lines), default=0), least):
        print(line)


def shown(value: Any) -> str:
    """One value as a table has it: 12,288 for a whole number, also for 12288.0; "-" for None."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value == int(value):
        return f"{value:,.0f}"
    return "-" if value is None else str(value)


def as_html(rows: Sequence[Sequence[str]], styles: Sequence[str], head: Sequence[str] = ()) -> str:
    """Rows of cells as an HTML table. styles: of the cells of each column."""

    def line(cells: Sequence[str], tag: str) -> str:
        each = zip(cells, styles, strict=True)
        return "<tr>" + "".join(f'<{tag} style="{style}">{html.escape(cell)}</{tag}>' for cell, style in each) + "</tr>"

    return f"<table>{line(head, 'th') if head else ''}{''.join(line(row, 'td') for row in rows)}</table>"
