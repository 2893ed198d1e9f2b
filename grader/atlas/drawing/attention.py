"""The panel of what happens inside attention: from a token's vector up to the output."""

from collections.abc import Sequence

from grader.atlas.drawing.header import SECOND, WIDTH, draw_header
from grader.atlas.drawing.svg import Box, Canvas, fitted
from grader.atlas.layer import Index, Mixer
from grader.atlas.told import SCALE
from grader.atlas.whole import turned_words

PROJ_H, THIN_H, GAP = 42, 28, 18
TOP = 76  # where what a panel's part gives leaves it, under a header of one line
LEFT, RIGHT = 24, WIDTH - 24
FRAME = 7  # around what is cached
FORK, INPUT = 22, 42  # below the lowest boxes: to the line that forks, and from it to the panel's edge


def draw(mixer: Mixer, width: int, title: str, seen: str = "") -> tuple[Canvas, float]:
    """The panel of one kind of attention, and its height.

    width: of the residual stream. title: over the panel. seen: which tokens the mask leaves, where not all.
    """
    canvas = Canvas()
    draw_header(canvas, title, cached_line(mixer), second=entries_line(mixer))
    y, scores = _top(canvas, mixer, width, seen)
    frame = tile_frame(canvas, mixer, y + GAP)
    canvas.line((scores[0], frame.y), scores)
    draw_below = _latent if mixer.kind == "latent" else _heads
    end = draw_below(canvas, mixer, width, frame.bottom)
    return canvas, footer(canvas, [one.line for one in mixer.told if one.label != SCALE], end)


def footer(canvas: Canvas, lines: Sequence[str], end: float) -> float:
    """Lines under a panel that ends there, of what no box shows. Returns where it ends with them."""
    for words in lines:
        canvas.text(WIDTH / 2, end + 6, words, "m", fitted(words, 11.5, WIDTH - 40))
        end += 17
    return end


def cached_line(mixer: Mixer) -> str:
    """What a layer keeps of a token, worked out."""
    if mixer.shared:
        return "keeps nothing: an earlier layer's keys and values are used"
    if mixer.kind == "latent":
        index = f" + {mixer.index.dim}" if mixer.index and not mixer.index.shared else ""
        total = mixer.kv_rank + mixer.rope_dim + (mixer.index.dim if index and mixer.index else 0)
        return f"cached per token: {mixer.kv_rank} + {mixer.rope_dim}{index} = {total:,} numbers"
    if mixer.kind == "compressed":
        return f"cached per token in the window: {mixer.key_dim:,} numbers"
    key, value = mixer.key_dim, mixer.value_dim
    if key == value:
        return f"cached per token: 2 × {mixer.kv_heads} × {key} = {2 * mixer.kv_heads * key:,} numbers"
    return f"cached per token: {mixer.kv_heads} × ({key} + {value}) = {mixer.kv_heads * (key + value):,} numbers"


def entries_line(mixer: Mixer) -> str:
    """What a layer of DeepSeek-V4 keeps of the whole text."""
    if not mixer.rate:
        return ""
    index = f" + {mixer.index.dim} for the index" if mixer.index else ""
    return f"and for every {mixer.rate} tokens of the text: {mixer.key_dim:,}{index}"


def _top(canvas: Canvas, mixer: Mixer, width: int, seen: str) -> tuple[float, tuple[float, float]]:
    """Output projection, gate, softmax and index, from the top down. Returns their bottom, and where heads go in."""
    y = float(TOP + (SECOND if mixer.rate else 0))
    cx = WIDTH / 2
    canvas.line((cx, y + 16), (cx, y))
    out = Box(cx - 90, y + 16, 180, PROJ_H)
    inner = mixer.heads * mixer.value_dim
    if mixer.kind == "compressed":
        canvas.box(out, "mixer", ["o_a_proj, o_b_proj", f"{inner:,} → {width:,} in groups"])
    else:
        canvas.box(out, "mixer", [mixer.out, f"{inner:,} → {width:,}"])
    y = out.bottom
    if "attn_sub_norm" in mixer.shapes:
        y = canvas.box(Box(cx - 90, y + GAP, 180, THIN_H), "norm", ["attn_sub_norm"], y).bottom
    if mixer.kind == "compressed":  # the values are turned as keys are, so what is read out is turned back
        back = f"RoPE backwards on {mixer.rotary} of {mixer.value_dim}"
        y = canvas.box(Box(cx - 150, y + GAP, 300, THIN_H), "white", [back], y).bottom
    if mixer.gate:
        y = canvas.box(Box(cx - 150, y + GAP, 300, THIN_H), "router", [_gate_words(mixer)], y).bottom
    lines = _softmax_lines(mixer)
    scores = Box(LEFT + 16, y + GAP, RIGHT - LEFT - 32, THIN_H + 16 * (len(lines) - 1))
    canvas.box(scores, "white", lines, y)
    y, into, room = scores.bottom, (cx, scores.bottom), float(RIGHT - LEFT)
    if mixer.index:
        index = _index(canvas, mixer, mixer.index, width, y + GAP)
        canvas.line((index.cx, index.y), (index.cx, y))
        y, into, room, cx = index.bottom, (index.right + 10, y), index.w, index.cx
    if seen:
        words = f"mask: {seen}"
        canvas.text(cx, y + 15, words, "m", fitted(words, 11.5, room))
        y += 20
    return y, into if mixer.index else (cx, y)


def _gate_words(mixer: Mixer) -> str:
    """What the heads' outputs are multiplied by, and the projection that it comes from where it has one."""
    own = next((name for name in ("gate_proj", "g_proj") if name in mixer.shapes), "gate")
    return f"× {mixer.gate_activation}( {own} ), for {mixer.gate}"


def _softmax_lines(mixer: Mixer) -> list[str]:
    scores = "q · kᵀ" if mixer.unscaled else "q · kᵀ × scale"
    lines = [f"softmax( {scores} + mask ) · v"]
    if cap := mixer.score_cap:
        lines = [
            f"softmax( {cap:g} · tanh( s / {cap:g} ) + mask ) · v",
            f"scores s = {scores}, capped at ±{cap:g}",
        ]
    if "lambda_q1" in mixer.shapes:  # DiffLlama; source: DiffLlamaAttention in transformers
        lines = [
            "( softmax₁ − λ · softmax₂ ) · v",
            f"of each pair of heads; softmax( {scores} + mask )",
            "RMSNorm over the pair, × (1 − λ₀)",
        ]
    lines += [one.line for one in mixer.told if one.label == SCALE]
    if mixer.sinks:
        lines.append("with a learned sink for each head")
    return lines


def _index(canvas: Canvas, mixer: Mixer, index: Index, width: int, y: float) -> Box:
    """What chooses the tokens that the softmax sees: its projections, and their scores over them. Returns its frame.

    Source: DeepSeek-V3.2's report, lightning indexer.
    """
    of = "entries" if mixer.rate else "tokens"
    frame = Box(LEFT, y, 356, PROJ_H)
    if index.shared:
        return canvas.box(frame, "router", ["Index", f"an earlier layer chose {index.topk:,} {of} to look at"])
    frame = Box(LEFT, y, 356, 2 * PROJ_H + 54)
    canvas.area(frame, "faint", 9, dashed=True)
    scores = Box(frame.x + 8, y + 8, frame.w - 16, PROJ_H)
    counted = f"{index.heads} index heads of {index.dim} choose {index.topk:,} {of} to look at"
    canvas.box(scores, "router", [f"Index: the {index.topk:,} best of Σ w · ReLU( q · kᵀ )", counted])
    names = ("q_b_proj", "compressor", "weights_proj") if mixer.rate else ("wq_b", "wk, k_norm", "weights_proj")
    key = f"{mixer.rate} tokens → 1" if mixer.rate else f"→ {index.dim}, cached"
    columns = (
        (116, "query", f"{mixer.q_rank:,} → {index.heads} × {index.dim}", "query latent"),
        (100, "key", key, "x"),
        (108, "router", f"{width:,} → {index.heads}", "x"),
    )
    x = scores.x
    for name, (wide, role, sizes, source) in zip(names, columns, strict=True):
        box = canvas.box(Box(x, scores.bottom + 16, wide, PROJ_H), role, [name, sizes], scores.bottom)
        canvas.line((box.cx, box.bottom + 13), (box.cx, box.bottom))
        canvas.text(box.cx, box.bottom + 24, source, "m", 11)
        x = box.right + 8
    return frame


def seen_by(mixer: Mixer) -> str:
    """Which tokens a layer sees, where not all."""
    if not mixer.window:
        return ""
    entries = f", and entries of {mixer.rate} tokens" if mixer.rate else ""
    return f"{'its chunk of' if mixer.chunked else 'the last'} {mixer.window:,} tokens{entries}"


def tile_frame(canvas: Canvas, mixer: Mixer, y: float) -> Box:
    """Heads as tiles: each column is a key and a value, with the queries that use them above."""
    frame = Box(LEFT, y, RIGHT - LEFT, 86)
    canvas.area(frame, "white", 8)
    heads, groups = mixer.heads, max(mixer.kv_heads, 1)
    x, room = frame.x + 18, frame.w - 30
    space = 1.5 if groups > 24 else 3 if groups > 12 else 8
    wide = (room - space * (groups - 1)) / groups
    each = heads // groups
    q, k, v = [], [], []
    for group in range(groups):
        left = x + group * (wide + space)
        tile = min(wide / each, 22)
        start = left + (wide - tile * each) / 2
        q += [
            Box(start + i * tile + 0.2, frame.y + 12, max(tile - (1.4 if tile > 4 else 0.5), 0.8), 15)
            for i in range(each)
        ]
        body = min(wide, max(each * tile, 14))
        middle = left + (wide - body) / 2
        k.append(Box(middle, frame.y + 30, body, 13))
        v.append(Box(middle, frame.y + 45, body, 13))
    for role, boxes in (("query", q), ("key", k), ("value", v)):
        canvas.tiles(boxes, role)
    for letter, at in (("q", 24), ("k", 41), ("v", 56)):
        canvas.text(frame.x + 9, frame.y + at, letter, "m", 11)
    canvas.text(frame.cx, frame.bottom - 9, _tile_words(mixer), "m", 11.5)
    return frame


def _tile_words(mixer: Mixer) -> str:
    if mixer.kv_heads == mixer.heads:
        return f"{mixer.heads} heads, each with a key and a value of its own"
    if mixer.kv_heads == 1:
        return f"all {mixer.heads} query heads share one key and one value"
    each = mixer.heads // mixer.kv_heads
    return f"{mixer.heads} query heads, {each} to each of {mixer.kv_heads} keys and values"


def _columns(first: float, second: float, third: float, gap: float) -> list[Box]:
    """Three columns of these widths: a gap between the first two, and the third at the right edge."""
    return [Box(LEFT, 0, first, 0), Box(LEFT + first + gap, 0, second, 0), Box(RIGHT - third, 0, third, 0)]


def _heads(canvas: Canvas, mixer: Mixer, width: int, y: float) -> float:
    columns = _columns(174, 90, 100, 14) if mixer.kind == "compressed" else _columns(168, 98, 98, 14)
    above = [y, y, y]
    if mixer.kind == "compressed":  # DeepSeek-V4: what is kept is key and value in one
        both = Box(columns[1].x, y + GAP, RIGHT - columns[1].x, THIN_H)
        canvas.box(both, "white", ["each is key and value" if mixer.rate else "it is key and value"], y)
        above[1:] = [both.bottom, both.bottom]
        y = both.bottom
        if not mixer.rate:
            columns[1:] = [Box(columns[1].x, 0, RIGHT - columns[1].x, 0)]
    draw = (_norms, _turn) if mixer.norm_after_rope else (_turn, _norms)  # from the top, so what comes last is first
    for one in draw:
        y = one(canvas, mixer, columns, above, y)
    if mixer.qkv:
        joined = Box(LEFT, y + GAP, columns[2].right - LEFT, PROJ_H)
        canvas.box(joined, "query", [mixer.qkv, f"{width:,} → {_joined_words(mixer)}"])
        for column, top in zip(columns, above, strict=True):
            canvas.line((column.cx, joined.y), (column.cx, top))
        return fork(canvas, [joined], width, joined.bottom)
    boxes = [Box(c.x, y + GAP, c.w, PROJ_H) for c in columns]
    drawn = (("query", "key", "value"), _projections(mixer, width), above)
    for box, role, lines, top in zip(boxes, *drawn, strict=False):  # DeepSeek-V4 has two in a window
        canvas.box(box, role, lines, top)
    fed = 1 if mixer.shared else 2 if mixer.k_is_v and not mixer.rate else 3  # q, and k and v that are not others'
    return fork(canvas, boxes[:fed], width, boxes[0].bottom)


def _turn(canvas: Canvas, mixer: Mixer, columns: list[Box], above: list[float], y: float) -> float:
    """RoPE over the columns that it turns. above: where each column's line ends; returns what is lowest then."""
    if not mixer.rotary:
        return y
    whole = mixer.key_dim
    part = "rotate by position" if mixer.rotary == whole else f"rotate {mixer.rotary} of {whole} numbers"
    if mixer.proportional:
        part = f"rotate {turned_words(mixer.rotary, whole, True)}, i and i + {whole // 2}"
    turned = 3 if mixer.rate else 2  # an entry is turned too
    rope = Box(LEFT, y + GAP, columns[turned - 1].right - LEFT, THIN_H)
    canvas.box(rope, "white", [f"RoPE: {part}"])
    for i in range(turned):
        canvas.line((columns[i].cx, rope.y), (columns[i].cx, above[i]))
        above[i] = rope.bottom
    return rope.bottom


def _norms(canvas: Canvas, mixer: Mixer, columns: list[Box], above: list[float], y: float) -> float:
    """The norms of queries, keys and values, as `_turn` draws."""
    if not mixer.qk_norm and not mixer.v_norm:
        return y
    names = ("q_b_norm", "kv_norm", "kv_norm") if mixer.kind == "compressed" else ("q_norm", "k_norm", "v_norm")
    for i, name in enumerate(names):
        third = mixer.v_norm or mixer.rate
        if (i < 2 and not mixer.qk_norm) or (i == 2 and not third) or (i == 1 and mixer.shared):
            continue
        column = columns[i]
        above[i] = canvas.box(Box(column.x, y + GAP, column.w, THIN_H), "norm", [name], above[i]).bottom
    return y + GAP + THIN_H


def _projections(mixer: Mixer, width: int) -> list[list[str]]:
    q = ["q_proj", f"{width:,} → {mixer.heads} × {mixer.key_dim}"]
    if mixer.gate and mixer.shapes.get("q_proj", ())[:1] == (2 * mixer.heads * mixer.key_dim,):
        q = ["q_proj: q and gate", f"{width:,} → {mixer.heads} × 2 × {mixer.key_dim}"]
    if mixer.kind == "compressed":
        q = ["q_a_proj, q_b_proj", f"→ {mixer.q_rank:,}, norm, → {mixer.heads} × {mixer.key_dim}"]
    if mixer.shared:
        return [q, ["an earlier", "layer's keys"], ["an earlier", "layer's values"]]
    k = ["kv_proj" if mixer.kind == "compressed" else "k_proj", f"→ {mixer.kv_heads} × {mixer.key_dim}"]
    v = ["v_proj", f"→ {mixer.kv_heads} × {mixer.value_dim}"]
    if mixer.rate:
        v = ["compressor", f"{mixer.rate} tokens → 1"]
    elif mixer.k_is_v:
        v = ["no v_proj", "v is k's output"]
    return [q, k, v]


def _joined_words(mixer: Mixer) -> str:
    """What one matrix for queries, keys and values gives."""
    if mixer.kv_heads == mixer.heads:
        return f"q, k, v: 3 × {mixer.heads} × {mixer.key_dim}"
    return f"q, k, v: ({mixer.heads} + 2 × {mixer.kv_heads}) × {mixer.key_dim}"


def fork(canvas: Canvas, boxes: list[Box], width: int, bottom: float) -> float:
    """The layer's input, forked to these boxes. Returns the height of the panel."""
    line, cx = bottom + FORK, WIDTH / 2
    for box in boxes:
        if abs(box.cx - cx) < 1:
            canvas.line((cx, line), (cx, box.bottom))
        else:
            canvas.line((cx, line), (box.cx, line), (box.cx, box.bottom))
    canvas.line((cx, line + 14), (cx, line), arrow=False)
    canvas.text(cx, line + 28, f"x [T, {width:,}]", "", 12.5)
    return line + INPUT


def _latent(canvas: Canvas, mixer: Mixer, width: int, y: float) -> float:
    nope = mixer.key_dim - mixer.rope_dim
    left, middle, right = _columns(156, 138, 76, 12)
    tiles = q_top = y
    if mixer.rotary:
        words = f"RoPE on {mixer.rope_dim} of {mixer.key_dim}"
        q_top = canvas.box(Box(left.x, y + GAP, left.w, THIN_H), "white", [words], y).bottom
    row = y + GAP + (THIN_H + GAP if mixer.rotary else 0)
    sizes = f"→ {mixer.heads} × ({nope} + {mixer.value_dim})"
    kv = canvas.box(Box(middle.x, row, middle.w, PROJ_H), "key", ["kv_b_proj", sizes], y)
    name = "q_b_proj" if mixer.q_rank else "q_proj"
    sizes = f"{mixer.q_rank or width:,} → {mixer.heads} × ({nope} + {mixer.rope_dim})"
    q = canvas.box(Box(left.x, row, left.w, PROJ_H), "query", [name, sizes], q_top)
    row = q.bottom + GAP + FRAME
    latent, rope = Box(middle.x, row, middle.w, PROJ_H), Box(right.x, row, right.w, PROJ_H)
    canvas.area(
        Box(middle.x - 6, row - FRAME, right.right - middle.x + 12, PROJ_H + 2 * FRAME), "faint", 9, dashed=True
    )
    canvas.box(latent, "value", ["latent", f"{mixer.kv_rank} numbers"])
    canvas.box(rope, "value", ["rope key", f"{mixer.rope_dim}, shared"])
    canvas.line((latent.cx, latent.y), (latent.cx, kv.bottom))
    canvas.line((rope.cx, rope.y), (rope.cx, tiles))
    canvas.text(middle.x - 12, row + 25, "cached", "m", 11.5, "end")
    row = latent.bottom + GAP + FRAME
    norm = canvas.box(Box(middle.x, row, middle.w, THIN_H), "norm", ["RMSNorm"], latent.bottom)
    turn = Box(right.x, row, right.w, THIN_H)
    if mixer.rotary:
        canvas.box(turn, "white", ["RoPE"], rope.bottom)
    row3 = norm.bottom + GAP
    down = Box(middle.x, row3, right.right - middle.x, PROJ_H)
    canvas.box(down, "key", ["kv_a_proj_with_mqa", f"{width:,} → {mixer.kv_rank} + {mixer.rope_dim}"])
    canvas.line((norm.cx, down.y), (norm.cx, norm.bottom))
    canvas.line((turn.cx, down.y), (turn.cx, turn.bottom if mixer.rotary else rope.bottom))
    low = q
    if mixer.q_rank:
        q_norm = canvas.box(Box(left.x, row, left.w, THIN_H), "norm", ["RMSNorm"], q.bottom)
        lines = ["q_a_proj", f"{width:,} → {mixer.q_rank:,}"]
        low = canvas.box(Box(left.x, row3, left.w, PROJ_H), "query", lines, q_norm.bottom)
    return fork(canvas, [low, down], width, down.bottom)
