"""The panel of the MLP: its gate, or its experts and their router."""

from grader.atlas.drawing.attention import GAP, LEFT, PROJ_H, RIGHT, THIN_H, TOP, footer, fork
from grader.atlas.drawing.header import WIDTH, draw_header
from grader.atlas.drawing.svg import Box, Canvas
from grader.atlas.drawing.words import ACTIVATIONS, biased, choice_words, short
from grader.atlas.layer import Mlp, count

# Source: Gemma4TextDecoderLayer.forward in transformers.
BOTH_NORMED = (
    "x is the stream: router, experts and dense MLP norm it apart,",
    "and the outputs of both are normed before they are added",
)


def draw(mlp: Mlp, width: int, title: str) -> tuple[Canvas, float]:
    """The panel, and its height."""
    canvas = Canvas()
    if mlp.experts:
        draw_header(
            canvas, title, f"{short(mlp.parameters)} parameters a layer, {short(mlp.active)} of them for a token"
        )
        return canvas, _experts(canvas, mlp, width)
    draw_header(canvas, title, f"{short(count(mlp.shapes))} parameters a layer")
    return canvas, footer(canvas, [one.line for one in mlp.told], _dense(canvas, mlp, width, TOP))


def _dense(canvas: Canvas, mlp: Mlp, width: int, y: float) -> float:
    cx, wide, bias = WIDTH / 2, mlp.width, ", bias" if mlp.bias else ""
    gate_name, up_name, down_name = mlp.names
    down = Box(cx - 100, y + 16, 200, PROJ_H)
    canvas.line((cx, down.y), (cx, y))
    canvas.box(down, "mlp", [down_name, f"{wide:,} → {width:,}{bias}"])
    top = down.bottom
    if "ffn_sub_norm" in mlp.shapes:
        top = canvas.box(Box(cx - 100, top + GAP, 200, THIN_H), "norm", ["ffn_sub_norm"], top).bottom
    activation = ACTIVATIONS.get(mlp.activation, mlp.activation)
    if not mlp.gated:
        act = canvas.box(Box(cx - 100, top + GAP, 200, THIN_H), "white", [activation], top)
        lines = [up_name, f"{width:,} → {wide:,}{bias}"]
        up = canvas.box(Box(cx - 100, act.bottom + GAP, 200, PROJ_H), "mlp", lines, act.bottom)
        return fork(canvas, [up], width, up.bottom)
    times = top + 30
    canvas.plus(cx, times, "×")
    canvas.line((cx, times - 10), (cx, top))
    gate, up = Box(LEFT + 12, times + 64, 170, PROJ_H), Box(RIGHT - 182, times + 64, 170, PROJ_H)
    act = Box(gate.x + 15, times + 18, gate.w - 30, THIN_H)
    canvas.box(act, "white", [activation])
    joined = Box(gate.x, gate.y, up.right - gate.x, PROJ_H)
    if mlp.gate_up:
        canvas.box(joined, "mlp", [mlp.gate_up, f"{width:,} → 2 × {wide:,}{bias}"])
    else:
        canvas.box(gate, "router", [gate_name, f"{width:,} → {wide:,}{bias}"])
        canvas.box(up, "mlp", [up_name, f"{width:,} → {wide:,}{bias}"])
    canvas.line((gate.cx, gate.y), (gate.cx, act.bottom))
    canvas.line((gate.cx, act.y), (gate.cx, times), (cx - 10, times))
    canvas.line((up.cx, up.y), (up.cx, times), (cx + 10, times))
    return fork(canvas, [joined] if mlp.gate_up else [gate, up], width, gate.bottom)


def _experts(canvas: Canvas, mlp: Mlp, width: int) -> float:
    cx = WIDTH / 2
    canvas.line((cx, TOP + 16), (cx, TOP))
    beside, plus = bool(mlp.shared or mlp.dense_beside), TOP + 26.0
    if beside:
        canvas.plus(cx, plus)
        top = plus + 10
    else:
        top = canvas.box(Box(cx - 100, TOP + 16, 200, THIN_H), "white", ["weighted sum"]).bottom
    frame_w = 268 if beside else RIGHT - LEFT
    rows, columns = _grid(mlp.experts)
    step = (frame_w - 24) / columns
    height = rows * min(step, 16) + 68
    gated = PROJ_H + GAP if "shared_gate" in mlp.shapes else 0  # room for the gate of what runs beside
    frame = Box(LEFT, top + (40 + gated if beside else GAP), frame_w, height)
    canvas.area(frame, "white", 8)
    tall = min(step, 16)
    tiles = [
        Box(frame.x + 12 + i % columns * step, frame.y + 12 + i // columns * tall, step * 0.84, tall * 0.84)
        for i in range(mlp.experts)
    ]
    chosen = {(i * mlp.experts // max(mlp.chosen, 1) + i * 7 % 5) % mlp.experts for i in range(mlp.chosen)}
    canvas.tiles([tile for i, tile in enumerate(tiles) if i not in chosen], "faint")
    canvas.tiles([tile for i, tile in enumerate(tiles) if i in chosen], "mlp")
    under, inner = frame.y + 12 + rows * tall, mlp.latent or width
    canvas.text(frame.cx, under + 16, f"{mlp.experts} experts, {mlp.chosen} for each token", "b", 12)
    canvas.text(
        frame.cx,
        under + 32,
        f"each {'gated' if mlp.gated else 'plain'}, {inner:,} → {mlp.expert_width:,} → {inner:,}"
        + ", bias" * biased(mlp),
        "",
        11.5,
    )
    activation = ACTIVATIONS.get(mlp.activation, mlp.activation)
    words = f"{activation}, in a latent of {inner:,}" if mlp.latent else f"activation: {activation}"
    if mlp.limit:
        words = f"{activation}; gate and up clamped at {mlp.limit:g}"
    canvas.text(frame.cx, under + 47, words, "m", 11.5)
    lines = ["Router", f"{width:,} → {mlp.experts + mlp.empty}, {mlp.router}", *choice_words(mlp)]
    router = Box(frame.x + 20, frame.bottom + GAP, frame.w - 40, PROJ_H + 15 * (len(lines) - 2))
    canvas.box(router, "router", lines, frame.bottom)
    if not beside:
        canvas.line((cx, frame.y), (cx, top))
        return fork(canvas, [router], width, router.bottom)
    canvas.line((frame.cx, frame.y), (frame.cx, plus), (cx - 10, plus))
    always = Box(frame.right + 14, frame.y, RIGHT - frame.right - 14, frame.h)
    name = [f"{mlp.shared_count} shared", f"of {mlp.shared // max(mlp.shared_count, 1):,}"]
    if mlp.dense_beside:
        name = ["Dense MLP", f"of {mlp.dense_beside:,}"]
    canvas.box(always, "mlp", [*name, "for every", "token"])
    if gated:
        gate = Box(always.x, always.y - gated, always.w, PROJ_H)
        canvas.box(gate, "router", ["× sigmoid", f"gate: {width:,} → 1"])
        canvas.line((gate.cx, always.y), (gate.cx, gate.bottom))
    canvas.line((always.cx, always.y - gated), (always.cx, plus), (cx + 10, plus))
    end = fork(canvas, [router, always], width, router.bottom)
    return footer(canvas, BOTH_NORMED if mlp.dense_beside else (), end)


def _grid(number: int) -> tuple[int, int]:
    """Rows and columns of tiles."""
    columns = next((c for c in (8, 16, 32, 48, 64) if -(-number // c) <= 8), 64)
    return -(-number // columns), columns
