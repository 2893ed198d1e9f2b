"""How a person sees a result: the same lines as plain text in a terminal and as HTML in a notebook."""

import html
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

VERDICT_MIME = "application/vnd.grader.verdict+json"

LineKind = Literal["ok", "bad", "text", "hint", "code", "row_ok", "row_bad", "muted", "link"]


@dataclass(frozen=True)
class Line:
    """One line of a report: what it says, what part it plays, and how deep it is indented."""

    text: str
    kind: LineKind = "text"
    indent: int = 0


def to_text(lines: Sequence[Line]) -> str:
    """The report as plain text, one line each."""
    return "\n".join("  " * line.indent + line.text for line in lines)


# Colours that keep a contrast of 4.5:1 on JupyterLab's light and dark backgrounds alike come from its own
# variables; the values after the comma serve where those are not defined (feedback pages, other viewers).
_CODE = "font-family:var(--jp-code-font-family,monospace);white-space:pre-wrap"
_STYLES: dict[LineKind, str] = {
    "ok": "color:var(--jp-success-color0,#1b7a2f);font-weight:600",
    "bad": "color:var(--jp-error-color1,#b71c1c);font-weight:600",
    "text": "",
    "hint": "border-left:3px solid var(--jp-brand-color1,#1976d2);padding-left:0.6em;margin-block:0.3em",
    "code": _CODE,
    "row_ok": f"{_CODE};color:var(--jp-success-color0,#1b7a2f)",
    "row_bad": f"{_CODE};color:var(--jp-error-color1,#b71c1c)",
    "muted": "color:var(--jp-ui-font-color2,#616161)",
    "link": "color:var(--jp-ui-font-color2,#616161)",
}


def shipped_line(reference: str, indent: int) -> Line:
    """Where a mistake was published: "owner/repo#123" or "owner/repo@commit", with its address."""
    page = reference.replace("#", "/issues/").replace("@", "/commit/")
    return Line(f"This shipped in {reference}: https://github.com/{page}", "link", indent)


def to_html(lines: Sequence[Line]) -> str:
    """The report as an HTML fragment that follows JupyterLab's light or dark theme."""
    rows = []
    for line in lines:
        style = f"margin-left:{1.4 * line.indent:.1f}em;{_STYLES[line.kind]}".rstrip(";")
        rows.append(f'<div style="{style}">{_inline_code(line)}</div>')
    frame = "font-size:var(--jp-content-font-size1,14px);line-height:1.45;color:var(--jp-content-font-color1,inherit)"
    return f'<div class="grader-report" style="{frame}">{"".join(rows)}</div>'


def _inline_code(line: Line) -> str:
    """Escape the text; outside code lines, show `names in backticks` in the code font."""
    escaped = html.escape(line.text, quote=False)
    if line.kind in ("code", "row_ok", "row_bad"):
        return escaped
    if line.kind == "link":
        return re.sub(r"https://[\w./-]+", lambda found: f'<a href="{found[0]}">{found[0]}</a>', escaped)
    pieces = escaped.split("`")
    if len(pieces) % 2 == 0:
        return escaped
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(pieces))


def in_notebook() -> bool:
    """Whether this process is a Jupyter kernel, which can show HTML."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


def show(lines: Sequence[Line], verdict: dict[str, Any] | None = None) -> None:
    """Display the report where the reader is; `verdict` travels with it for programs to read."""
    if not in_notebook():
        print(to_text(lines), flush=True)
        return
    from IPython.display import display

    bundle: dict[str, Any] = {"text/plain": to_text(lines), "text/html": to_html(lines)}
    if verdict is not None:
        bundle[VERDICT_MIME] = json.loads(json.dumps(verdict))
    display(bundle, raw=True)  # type: ignore[no-untyped-call]
