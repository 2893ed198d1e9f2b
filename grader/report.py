"""How a person sees a result: the same lines as text, in a terminal with colours, and as HTML in a notebook.

A report is a card with a background of its own, so that its contrast does not depend on the page that it stands in.
What carries meaning is words and marks (✓ ✗): where a page removes styles, as GitHub does, nothing is lost.
"""

import html
import itertools
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from grader.columns import aligned

VERDICT_MIME = "application/vnd.grader.verdict+json"

LineKind = Literal[
    "ok", "bad", "idle", "text", "named", "hint", "code", "muted", "link",
    "head", "right", "wrong", "row_ok", "row_bad", "row_dim", "row_guilty",
]  # fmt: skip
MARKS = {"✓": "right", "✗": "wrong"}
_NUMBER = re.compile(
    r"(all )?[-+]?[\d.,]+(e[-+]?\d+)?( of [\d,]+)?(, [\d,]+ NaN)?|nan|-?inf|\[[\d, ]*\]|", re.IGNORECASE
)


@dataclass(frozen=True)
class Line:
    """One line of a report: what it says, what part it plays, and how deep it is indented.

    cells: those of a table's row, where it is one; rows that follow each other make one table, and a row of the kind
    "head" stands over it. Leading spaces in a cell indent it.
    """

    text: str
    kind: LineKind = "text"
    indent: int = 0
    cells: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "cells", tuple(self.cells))  # read from JSON it is a list


def row(kind: LineKind, *cells: str, indent: int = 0) -> Line:
    """A row of a table."""
    return Line("", kind, indent, cells)


def shipped_line(reference: str, indent: int) -> Line:
    """Where a mistake was published: "owner/repo#123" or "owner/repo@commit", with its address."""
    page = reference.replace("#", "/issues/").replace("@", "/commit/")
    return Line(f"This shipped in {reference}: https://github.com/{page}", "link", indent)


def _blocks(lines: Sequence[Line]) -> Iterator[tuple[bool, list[Line]]]:
    """The lines, with the rows of each table together; whether they are a table's."""
    for is_table, group in itertools.groupby(lines, key=lambda line: bool(line.cells)):
        yield is_table, list(group)


def _numeric(rows: Sequence[Line]) -> list[bool]:
    """For each column of a table, whether it holds numbers, which stand to the right."""
    columns = max(len(line.cells) for line in rows)
    body = [line.cells for line in rows if line.kind != "head"]
    return [
        any(cells[i : i + 1] != ("",) and i < len(cells) for cells in body)
        and all(_NUMBER.fullmatch(cells[i]) for cells in body if i < len(cells))
        for i in range(columns)
    ]


def to_text(lines: Sequence[Line]) -> str:
    """The report as plain text: one line each, the columns of a table aligned."""
    return "\n".join(
        text
        for is_table, block in _blocks(lines)
        for text in (_table_text(block) if is_table else ["  " * line.indent + line.text for line in block])
    )


def _table_text(rows: Sequence[Line]) -> list[str]:
    texts = aligned([line.cells for line in rows], _numeric(rows))
    return [("  " * line.indent + text).rstrip() for line, text in zip(rows, texts, strict=True)]


# As HTML

LIGHT = {
    "page": "#ffffff", "tint": "#fdecea", "code": "#f1f3f5",
    "text": "#1f2328", "ok": "#1a6b2b", "bad": "#b3261e", "dim": "#5e656d", "link": "#0b57d0", "rule": "#d8dee4",
}  # fmt: skip
DARK = {
    "page": "#111111", "tint": "#3d1512", "code": "#24272b",
    "text": "#e8eaed", "ok": "#7fd18b", "bad": "#ff9a91", "dim": "#a8adb4", "link": "#8ab4f8", "rule": "#3c4043",
}  # fmt: skip
# The pages that say that they are dark: JupyterLab, VS Code, Colab.
_DARK_PAGES = (
    "[data-jp-theme-light=false]",
    "[data-vscode-theme-kind$=dark]",
    "[data-vscode-theme-kind=vscode-high-contrast]",
    "html[theme=dark]",
)
# The class is said twice where a notebook's own style for tables has to be outdone.
_RULES = """
.G{background:var(--g-page);color:var(--g-text);font:14px/1.5 system-ui,sans-serif;padding:.5em .8em;
 border-radius:6px;max-width:60em;overflow-wrap:anywhere}
.G code,.G .code,.G .num,.G .path{font-family:ui-monospace,Menlo,Consolas,monospace;font-size:13px}
.G code{background:var(--g-code);color:var(--g-text);padding:0 .25em;border-radius:3px}
.G .code{white-space:pre-wrap}
.G .ok,.G .bad,.G .idle{font-weight:600;font-size:15px}
.G .named,.G strong{font-weight:600}
.G .ok,.G .m-ok{color:var(--g-ok)}
.G .bad,.G .m-bad{color:var(--g-bad)}
.G .muted,.G .idle,.G .link{color:var(--g-dim)}
.G a{color:var(--g-link)}
.G .hint{border-left:3px solid var(--g-link);padding-left:.6em;margin:.35em 0}
.G .table{overflow-x:auto;margin:.4em 0}
.G.G table{border-collapse:collapse;margin:0;font-size:13px;color:inherit;table-layout:auto;overflow-wrap:normal}
.G.G tr{background:none!important}
.G.G th,.G.G td{text-align:left;font-weight:400;padding:.2em .9em .2em 0;border:0;
 border-top:1px solid var(--g-rule);vertical-align:top;max-width:none;color:inherit;white-space:normal}
.G.G [role=rowheader]{min-width:7em}
@media(max-width:520px){.G.G th,.G.G td{padding-right:.45em;font-size:12px}.G.G .place{display:none}}
.G.G .num{text-align:right;white-space:nowrap}
.G.G .mark{white-space:nowrap}
.G.G .path{min-width:7em}
.G{container-type:inline-size}@container(min-width:48em){.G.G .path{white-space:nowrap}}
.G.G thead th{color:var(--g-dim);border-top:0;font-family:inherit;font-size:12px}
.G.G .row_ok td:first-child{color:var(--g-ok)}
.G.G .row_dim td{color:var(--g-dim)}
.G.G .row_bad td,.G.G .row_guilty td{color:var(--g-bad)}
.G.G .row_guilty td{background:var(--g-tint);font-weight:600}
"""


def _style() -> str:
    def set_to(colours: dict[str, str]) -> str:
        return "{" + ";".join(f"--g-{name}:{colour}" for name, colour in colours.items()) + "}"

    dark = ",".join(f"{page} .G" for page in _DARK_PAGES)
    return f".G{set_to(LIGHT)}{dark}{set_to(DARK)}{_RULES}".replace("\n", "").replace(".G", ".grader-report")


def to_html(lines: Sequence[Line]) -> str:
    """The report as an HTML fragment, light or dark as its page is: a style of its own, no script."""
    body = "".join(
        _table_html(block) if is_table else "".join(map(_line_html, block)) for is_table, block in _blocks(lines)
    )
    return f'<style>{_style()}</style><div class="grader-report" role="group" aria-label="report">{body}</div>'


STRONG = ("ok", "bad", "idle", "named", "row_guilty")  # bold even in an untrusted notebook, which has no style of ours


def _line_html(line: Line) -> str:
    indent = f' style="margin-left:{1.4 * line.indent:.1f}em"' if line.indent else ""
    return f'<div class="{line.kind}"{indent}>{_strong(inline_html(line.text, line.kind), line.kind)}</div>'


def _strong(shown: str, kind: LineKind) -> str:
    return f"<strong>{shown}</strong>" if kind in STRONG and shown else shown


def _table_html(rows: Sequence[Line]) -> str:
    columns = max(i + 1 for line in rows for i, cell in enumerate(line.cells) if cell)  # none that is empty at the end
    numbers = _numeric(rows)[:columns]
    # Where a value stands in a tensor is the first thing that a phone has no room for.
    places = {
        i for line in rows for i, cell in enumerate(line.cells) if cell.startswith("[") and cell.endswith("]") and i
    }
    head = "".join(_row_html(line, numbers, places) for line in rows if line.kind == "head")
    body = "".join(_row_html(line, numbers, places) for line in rows if line.kind != "head")
    indent = f' style="margin-left:{1.4 * rows[0].indent:.1f}em"' if rows[0].indent else ""
    name = "rows of modules" if rows[-1].kind.startswith("row_") else "cases"
    name = "guesses" if "your guess" in rows[0].cells else name
    return (
        f'<div class="table"{indent}><table aria-label="{name}" data-columns="{columns}">'
        f"{f'<thead>{head}</thead>' if head else ''}<tbody>{body}</tbody></table></div>"
    )


def _row_html(line: Line, numbers: Sequence[bool], places: set[int]) -> str:
    cells = []
    for i, cell in enumerate((*line.cells[: len(numbers)], *("",) * (len(numbers) - len(line.cells)))):
        path = line.kind.startswith("row_") and i == 1
        kind = "num place" if i in places else "num" if numbers[i] else "mark" if i == 0 else "path" if path else ""
        tag = "th" if line.kind == "head" else "td"
        role = ' scope="col"' if tag == "th" else ' role="rowheader"' if i == 1 else ""
        text = cell.lstrip(" ")
        shown = "&nbsp;" * (len(cell) - len(text)) + inline_html(text, "code" if path else "text")
        if path:
            shown = re.sub(r"(?<=[._])(?=.)", "<wbr>", shown)  # where there is no room beside the numbers, it wraps
        if text in MARKS:
            colour = "m-ok" if text == "✓" else "m-bad"
            shown = f'<span class="{colour}" role="img" aria-label="{MARKS[text]}">{text}</span>'
        shown = _strong(shown, line.kind)
        # Said in the cell too: an untrusted notebook has no style of ours, and JupyterLab puts every cell to the right.
        side = "" if numbers[i] or i in places else ' style="text-align:left"'
        cells.append(f"<{tag}{role}{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}{side}>{shown}</{tag}>")
    return f'<tr class="{line.kind}">{"".join(cells)}</tr>'


def inline_html(text: str, kind: LineKind) -> str:
    """Escape the text; outside code lines, show `names in backticks` in the code font."""
    escaped = html.escape(text, quote=False)
    if kind == "code":
        return escaped
    if kind == "link":
        return re.sub(r"https://[\w./-]+", lambda found: f'<a href="{found[0]}">{found[0]}</a>', escaped)
    pieces = escaped.split("`")
    if len(pieces) % 2 == 0:
        return escaped
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(pieces))


# Where the reader is


def in_notebook() -> bool:
    """Whether this process is a Jupyter kernel, which can show HTML."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


def show(lines: Sequence[Line], verdict: dict[str, Any] | None = None) -> None:
    """Display the report where the reader is; `verdict` travels with it for programs to read."""
    if not in_notebook():
        print_report(lines)
        return
    from IPython.display import display

    bundle: dict[str, Any] = {"text/plain": to_text(lines), "text/html": to_html(lines)}
    if verdict is not None:
        bundle[VERDICT_MIME] = json.loads(json.dumps(verdict))
    display(bundle, raw=True)  # type: ignore[no-untyped-call]


def print_report(lines: Sequence[Line]) -> None:
    """Print the report: in a terminal with colours, unless NO_COLOR is set, and within its width; else as it is."""
    if not sys.stdout.isatty():
        print(_encodable(to_text(lines), getattr(sys.stdout, "encoding", None) or "utf-8"), flush=True)
        return
    from rich.console import Console

    print_to(Console(highlight=False), lines)


def _encodable(text: str, encoding: str) -> str:
    """The text with plain signs for those that an output can't have: a file or pipe on Windows has no check marks."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(PLAIN_SIGNS).encode(encoding, errors="replace").decode(encoding)
    return text


PLAIN_SIGNS = str.maketrans({"✓": "+", "✗": "x", "○": "o", "“": '"', "”": '"', "→": ">"})


def print_to(console: Any, lines: Sequence[Line]) -> None:
    """Print the report to rich's `console`, which knows the width, and whether there may be colours."""
    from rich.padding import Padding
    from rich.text import Text

    for is_table, block in _blocks(lines):
        if is_table:
            console.print(Padding(_grid(block), (0, 0, 0, 2 * block[0].indent)))
            continue
        for line in block:
            console.print(Padding(Text(line.text, _STYLES.get(line.kind, "")), (0, 0, 0, 2 * line.indent)))


def _grid(rows: Sequence[Line]) -> Any:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    # Marks and numbers keep their width; what is said in words is what wraps.
    for i, number in enumerate(_numeric(rows)):
        grid.add_column(justify="right" if number else "left", no_wrap=number or i == 0, overflow="fold")
    for line in rows:
        grid.add_row(*(Text(cell, _MARK_STYLES.get(cell, _STYLES.get(line.kind, ""))) for cell in line.cells))
    return grid


_STYLES: dict[LineKind, str] = {
    "ok": "bold green",
    "bad": "bold red",
    "idle": "bold",
    "named": "bold",
    "hint": "cyan",
    "muted": "dim",
    "link": "dim",
    "head": "dim",
    "row_ok": "green",
    "row_bad": "red",
    "row_dim": "dim",
    "row_guilty": "bold red",
}
_MARK_STYLES = {"✓": "green", "✗": "red"}
