"""The strip beside the block: two tiles for each layer, what mixes its tokens and its MLP, and what they mean."""

from grader.atlas.architecture import Architecture
from grader.atlas.drawing.svg import Box, Canvas, text_width
from grader.atlas.layer import Layer

LEFT, WIDE = 25, 12
# What tiles mean, by their role. Where some layers see a window, the others' tiles mean all tokens.
LEGEND = {
    "state": "a state",
    "white": "a window",
    "key": "attention",
    "router": "experts",
    "mlp": "MLP",
    "faint": "neither",
}


def strip(canvas: Canvas, model: Architecture, block: Box) -> None:
    """A tile for what mixes tokens and one for the MLP of each layer, the first layer at the bottom."""
    top, room = block.y + 26, block.h - 28
    step = min(room / len(model.layers), 48)
    start = top + room - step * len(model.layers)
    boxes: dict[str, list[Box]] = {}
    for i, layer in enumerate(model.layers):
        y = start + step * (len(model.layers) - 1 - i)
        for x, role in zip((LEFT, LEFT + 14), _roles(layer), strict=True):
            boxes.setdefault(role, []).append(Box(x, y, WIDE, step * 0.84))
    for role, found in sorted(boxes.items()):
        canvas.tiles(found, role)


def legend(canvas: Canvas, model: Architecture, y: float) -> None:
    """What the strip's tiles mean, in a line around the baseline y."""
    roles = {role for layer in model.layers for role in _roles(layer)}
    meanings = LEGEND | ({"key": "all tokens"} if "white" in roles else {})
    x = float(LEFT)
    for role, words in meanings.items():
        if role in roles:
            canvas.tiles([Box(x, y - 8, WIDE, 9)], role)
            canvas.text(x + 17, y, words, "m", 11, "start")
            x += 29 + text_width(words, 11)


def _roles(layer: Layer) -> tuple[str, str]:
    mlp = layer.mlp
    return _mixing(layer), ("router" if mlp.experts else "mlp") if mlp else "faint"


def _mixing(layer: Layer) -> str:
    mixer = layer.mixer
    if mixer is None:
        return "faint"
    if mixer.has_state:
        return "state"
    return "white" if mixer.window and not mixer.rate else "key"  # compressed entries reach as far as the text
