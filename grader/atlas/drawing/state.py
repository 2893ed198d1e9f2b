"""The panel of a mixer that keeps a state of fixed size."""

from dataclasses import dataclass

from grader.atlas.cache import state_values
from grader.atlas.drawing.attention import GAP, LEFT, PROJ_H, RIGHT, THIN_H, TOP, footer, fork
from grader.atlas.drawing.header import WIDTH, draw_header
from grader.atlas.drawing.svg import Box, Canvas, fitted
from grader.atlas.layer import Mixer


@dataclass(frozen=True)
class Steps:
    """inputs: names of the projections at the bottom, left to right. updates: how the state changes with each token,
    one after another.

    read: what is read out of it then. gate: what the output is multiplied by. normed: which inputs are divided by their
    L2 norm. scaled: whether what is read is divided by the root of a key's width.
    In a formula `·` multiplies number by number, and what stands side by side are matrices.
    """

    inputs: tuple[str, ...]
    updates: tuple[str, ...]
    read: str
    gate: str
    normed: str = ""
    scaled: bool = False


KINDS = {
    "delta": Steps(
        ("q, k, v", "a, b", "z"),
        ("S ← decay · S", "S ← S + β · (v − S k) kᵀ"),
        "S q",
        "RMSNorm, then × SiLU(z)",
        normed="q and k",
        scaled=True,
    ),
    "kda": Steps(
        ("q, k, v", "f, b", "g"),
        ("S ← S · decay of each channel", "S ← S + β · (v − S k) kᵀ"),
        "S q",
        "RMSNorm, then × sigmoid(g)",
        normed="q and k",
        scaled=True,
    ),
    "lightning": Steps(("q, k, v", "gate"), ("S ← decay · S + v kᵀ",), "S q", "RMSNorm, then × sigmoid(gate)"),
    "mamba2": Steps(("x, B, C", "dt", "z"), ("h ← decay · h + dt · x Bᵀ",), "h C + D · x", "× SiLU(z), then RMSNorm"),
    "mamba": Steps(("x", "z"), ("h ← decay · h + dt · B x",), "h C + D · x", "× SiLU(z)"),
}


def read_formula(mixer: Mixer) -> str:
    """What is read out of the state, as the figure writes it."""
    steps = KINDS[mixer.kind]
    return f"{steps.read} / √{mixer.key_dim}" if steps.scaled else steps.read


def gate_words(mixer: Mixer) -> str:
    """What the output is multiplied by, and its norm where it has one."""
    steps = KINDS[mixer.kind]
    if mixer.kind != "mamba2":
        return steps.gate
    product, norm = steps.gate.split(", then ")
    if "norm" not in mixer.shapes:
        return product
    return f"{norm}, then {product}" if mixer.norm_first else steps.gate


def draw(mixer: Mixer, width: int, title: str) -> tuple[Canvas, float]:
    """The panel, and its height."""
    canvas = Canvas()
    state, inputs = state_values(mixer)
    kept = f"the state, however long the text is: {state + inputs:,} numbers"
    draw_header(canvas, title, kept)
    if mixer.kind == "conv":
        return canvas, _convolution(canvas, mixer, width)
    steps, cx = KINDS[mixer.kind], WIDTH / 2
    out = Box(cx - 90, TOP + 16, 180, PROJ_H)
    canvas.line((cx, out.y), (cx, TOP))
    inner = mixer.heads * mixer.value_dim
    canvas.box(out, "state", [mixer.out, f"{inner:,} → {width:,}"])
    gate = Box(LEFT + 70, out.bottom + GAP, RIGHT - LEFT - 70, THIN_H)
    canvas.box(gate, "norm", [gate_words(mixer)])
    canvas.line((cx, gate.y), (cx, out.bottom))
    frame = Box(LEFT, gate.bottom + GAP, 330, 101 + 17 * len(steps.updates))
    canvas.area(frame, "white", 8)
    _tiles(canvas, mixer, frame)
    canvas.line((cx, frame.y), (cx, gate.bottom))
    for i, update in enumerate(steps.updates):
        words = f"then {update}" if i else update
        canvas.text(frame.cx, frame.y + 78 + 17 * i, words, "b", fitted(words, 12, frame.w - 16, True))
    canvas.text(frame.cx, frame.bottom - 23, f"read: {read_formula(mixer)}", "", 12)
    canvas.text(frame.cx, frame.bottom - 7, _numbers(mixer), "m", fitted(_numbers(mixer), 11, frame.w - 12))
    top = frame.bottom
    if steps.normed:
        top = canvas.box(Box(LEFT, top + GAP, 190, THIN_H), "norm", [f"L2 norm of {steps.normed}"], top).bottom
    if mixer.kind == "lightning":
        top = canvas.box(Box(LEFT, top + GAP, 190, THIN_H), "white", ["SiLU"], top).bottom
    if mixer.kind == "mamba":
        row = _selected(canvas, mixer, top)
        canvas.line((LEFT + 18, row), (LEFT + 18, top))
        top = row - GAP
    if mixer.conv:
        words = f"convolution over {mixer.conv}, SiLU"
        conv = canvas.box(Box(LEFT, top + GAP, 190, THIN_H), "white", [words], None if mixer.kind == "mamba" else top)
        top = conv.bottom
    row = top + GAP
    lines = [steps.inputs[0], "a projection each" if "q_proj" in mixer.shapes else "one projection"]
    first = canvas.box(Box(LEFT, row, 190, PROJ_H), "state", lines, top)
    boxes = [first]
    gate_box = Box(RIGHT - 66, row, 66, PROJ_H)
    if len(steps.inputs) == 3:
        lines = [steps.inputs[1], "decay, step" if mixer.kind == "mamba2" else f"decay, β{' < 2' * mixer.doubled}"]
        boxes.append(canvas.box(Box(LEFT + 214, row, 84, PROJ_H), "router", lines, frame.bottom))
    canvas.box(gate_box, "value", [steps.inputs[-1], "gate"])
    canvas.line((gate_box.cx + 10, gate_box.y), (gate_box.cx + 10, gate.bottom))
    end = fork(canvas, [*boxes, gate_box], width, first.bottom)
    return canvas, footer(canvas, [one.line for one in mixer.told], end)


def _selected(canvas: Canvas, mixer: Mixer, top: float) -> float:
    """What Mamba makes of x behind the convolution, beside x itself. Returns where the convolution's box begins."""
    x, wide = LEFT + 40.0, 150.0
    if mixer.parts_normed:
        top = canvas.box(Box(x, top + GAP, wide, THIN_H), "norm", ["RMSNorm of each"], top).bottom
    made = canvas.box(Box(x, top + GAP, wide, THIN_H), "router", ["x_proj: dt, B, C"], top)
    canvas.line((made.cx, made.bottom + GAP), (made.cx, made.bottom))
    return made.bottom + GAP


def _numbers(mixer: Mixer) -> str:
    if mixer.kind == "mamba":
        return f"{mixer.heads:,} channels, each a state of {mixer.key_dim}"
    shared = f", {mixer.kv_heads} keys" if mixer.kv_heads != mixer.heads and mixer.kind == "delta" else ""
    groups = f" in {mixer.kv_heads} group{'s' * (mixer.kv_heads > 1)}" if mixer.kind == "mamba2" else ""
    return f"{mixer.heads} heads{shared}{groups}, each a matrix of {mixer.value_dim} × {mixer.key_dim}"


def _tiles(canvas: Canvas, mixer: Mixer, frame: Box) -> None:
    """The states as small squares, at most 32."""
    shown = min(mixer.heads, 32)
    per_row = 16 if shown > 16 else shown
    size, space = 16.0, 3.0
    rows = -(-shown // per_row)
    start = frame.cx - (per_row * (size + space) - space) / 2
    top = frame.y + 12 + (0 if rows == 2 else 11)
    boxes = [
        Box(start + (i % per_row) * (size + space), top + i // per_row * (size + space), size, size)
        for i in range(shown)
    ]
    canvas.tiles(boxes, "state")


def _convolution(canvas: Canvas, mixer: Mixer, width: int) -> float:
    cx = WIDTH / 2
    out = Box(cx - 90, TOP + 16, 180, PROJ_H)
    canvas.line((cx, out.y), (cx, TOP))
    canvas.box(out, "state", [mixer.out, f"{width:,} → {width:,}"])
    canvas.line((cx, out.bottom + 20), (cx, out.bottom))
    second = out.bottom + 30
    canvas.plus(cx, second, "×")
    conv = Box(cx - 110, second + 30, 220, THIN_H)
    canvas.box(conv, "white", [f"convolution over {mixer.conv} tokens"], second + 10)
    first = conv.bottom + 30
    canvas.plus(cx, first, "×")
    canvas.line((cx, first - 10), (cx, conv.bottom))
    row = first + 34
    boxes = [Box(LEFT + i * 134, row, 124, PROJ_H) for i in range(3)]
    for box, (name, role) in zip(boxes, (("B", "key"), ("x", "state"), ("C", "value")), strict=True):
        canvas.box(box, role, [name, f"{width:,} → {width:,}"])
    canvas.line((boxes[1].cx, row), (cx, first + 10))
    canvas.line((boxes[0].cx, row), (boxes[0].cx, first), (cx - 10, first))
    canvas.line((boxes[2].cx, row), (boxes[2].cx, second), (cx + 10, second))
    return fork(canvas, boxes, width, boxes[0].bottom)
