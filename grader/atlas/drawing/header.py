"""The header of a panel: a name, and what is said under it in a line or two."""

from grader.atlas.architecture import Architecture
from grader.atlas.drawing.svg import Box, Canvas, fitted
from grader.atlas.drawing.words import short

WIDTH = 440
SECOND = 17  # pixels of a second line


def subtitle(model: Architecture) -> str:
    """Size and width in a line, and the context where it needs no line of its own."""
    size = f"{short(model.parameters)} parameters"
    if model.active != model.parameters:
        size = f"{short(model.parameters)}, {short(model.active)} active"
    context = "" if stretched(model) else _context(model)
    return f"{size} · width {model.width:,}" + (f" · {context}" if context else "")


def stretched(model: Architecture) -> str:
    """The context and how RoPE is scaled to reach it; empty where it is not scaled."""
    how, context = str(model.facts["positions stretched"].value), _context(model)
    return f"{context}, by {how}" if context and how != "no" else ""


def _context(model: Architecture) -> str:
    context = model.facts["context"].value
    return f"context {context:,}" if isinstance(context, int) else ""


def draw_header(canvas: Canvas, title: str, line: str, other: str | None = None, second: str = "") -> None:
    """A panel's name, and a line or two under it."""
    canvas.text(20, 34, title, "b", fitted(title, 19, WIDTH - 40, True), "start")
    canvas.text(20, 56, line, "m", fitted(line, 13, WIDTH - 40), "start")
    if second:
        canvas.text(20, 73, second, "m", fitted(second, 13, WIDTH - 40), "start")
    if other:
        words, y = f"not as in {other}", 75 + (SECOND if second else 0)
        canvas.ring(Box(25, y - 9, 9, 7))
        canvas.text(44, y, words, "r", fitted(words, 11.5, WIDTH - 60), "start")
