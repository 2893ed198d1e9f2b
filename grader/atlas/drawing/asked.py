"""The figure of a model that transformers alone knows: what its layers hold, and not how that is joined."""

from grader.atlas.arbiter import Asked, Block
from grader.atlas.drawing.header import WIDTH, draw_header
from grader.atlas.drawing.svg import Box, Canvas, fitted
from grader.atlas.drawing.words import short
from grader.atlas.fields import shown

LEFT, TOP, ROW, GAP = 30, 76, 34, 8
NOT_TOLD = "what a layer holds; how it is joined is not told"


def figure_of_asked(asked: Asked, name: str = "") -> str:
    """An SVG file: head, the kinds of layers with their parts and parameters, embedding."""
    canvas, title = Canvas(), name or asked.kind
    draw_header(canvas, title, _subtitle(asked), second=NOT_TOLD)
    y = _box(canvas, "token", "Output head", TOP + 14.0) + GAP
    for block in reversed(asked.blocks):
        y = _block(canvas, block, y) + GAP
    y = _box(canvas, "token", f"Token embedding, {shown(asked.facts['vocabulary'].value)} tokens", y)
    words = f"{title}: {_subtitle(asked)}. " + " ".join(
        f"{block.layers} layer{'s hold' if block.layers > 1 else ' holds'} {block.words}." for block in asked.blocks
    )
    return canvas.written(WIDTH, y + 20, title, words)


def _subtitle(asked: Asked) -> str:
    size = f"{short(asked.parameters)} parameters"
    if asked.active and asked.active != asked.parameters:
        size = f"{short(asked.parameters)}, {short(asked.active)} active"
    return f"{size} · width {shown(asked.facts['width'].value)} · transformers' {asked.model_class}"


def _box(canvas: Canvas, role: str, words: str, y: float) -> float:
    box = Box(LEFT, y, WIDTH - 2 * LEFT, ROW - 4)
    canvas.area(box, role)
    canvas.text(box.cx, y + 20, words, "", fitted(words, 12, box.w - 16))
    return box.bottom


def _block(canvas: Canvas, block: Block, y: float) -> float:
    area = Box(LEFT - 10, y, WIDTH - 2 * LEFT + 20, 26 + ROW * len(block.parts) + 4)
    canvas.area(area, "block", 12)
    canvas.text(area.x + 12, y + 18, f"{block.layers} ×", "b", 13, "start")
    y += 26
    for part, size in block.parts:
        words = f"{part}: {short(size)}" if size else part
        _box(canvas, _role(part), words + ", the same in several layers" * (part in block.shared), y)
        y += ROW
    return area.bottom


def _role(part: str) -> str:
    """The colour of a part, by what its name says: a norm, what mixes tokens, or what works on each alone."""
    words = part.lower()
    if "norm" in words:
        return "norm"
    if any(word in words for word in ("attn", "attention", "mixer", "conv", "mamba")):
        return "mixer"
    if any(word in words for word in ("mlp", "moe", "feed_forward", "ffn", "expert")):
        return "mlp"
    return "white"
