"""The first panel: the residual stream from the embedding to the head, and the block that is repeated."""

from dataclasses import dataclass

from grader.atlas.architecture import Architecture
from grader.atlas.drawing.strip import legend, strip
from grader.atlas.drawing.svg import Box, Canvas, fitted
from grader.atlas.drawing.words import (
    Group,
    alike,
    first_dense,
    group_lines,
    mlp_lines,
    mlps,
    norm_word,
    pattern_words,
    short,
)
from grader.atlas.layer import Layer

WIDTH = 440
SPINE = 384
LEFT, RIGHT = 96, 352  # of the boxes beside the spine
GAP = 18
NORM_H = 28
TOP = 84
PLUS, LEAVE = 10 + 18, 2 + 24  # from a branch's sum down to its first box, from its last box's gap to the next sum
BETWEEN = "between branches"
SECOND = 17  # pixels of a header's second line


@dataclass(frozen=True)
class Slot:
    """A place in a branch: one box, or several of which each layer has one. boxes: role and lines of each."""

    key: str
    boxes: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def height(self) -> float:
        if self.key.startswith("norm"):
            return NORM_H
        inner = sum(_box_height(lines) for _, lines in self.boxes)
        return inner if len(self.boxes) == 1 else inner + 10 * (len(self.boxes) - 1) + 36


def _box_height(lines: tuple[str, ...]) -> float:
    return 16 + 15 * (len(lines) - 1) + 18


@dataclass(frozen=True)
class Plan:
    """What is drawn, from the head down. branches: each a list of slots from top to bottom.

    stretched: whether the header has a second line, of a context that scaled RoPE reaches.
    """

    head: tuple[str, ...]
    embedding: tuple[str, ...]
    norm: str
    repeated: str
    notes: tuple[str, ...]
    branches: tuple[tuple[Slot, ...], ...]
    parallel: bool
    stretched: bool


def plan(model: Architecture) -> Plan:
    """The rows of a model's first panel."""
    layer = _typical(model)
    norm = norm_word(model)
    here = set(layer.norms)
    mixing = Slot("mixer", tuple(_mixer_box(model, group) for group in alike(model)))
    working = Slot("mlp", tuple(("mlp", tuple(_counted(mlp_lines(m, model.width), n, model))) for m, n in mlps(model)))
    parallel = "before both" in here or model.traits.norms == "parallel with two norms"
    if model.traits.one_norm:
        boxes = mixing.boxes + working.boxes
        branches: tuple[tuple[Slot, ...], ...] = ((Slot("mixer", boxes), _norm("before", norm)),)
    else:
        branches = (_branch("MLP", working, here, norm), _branch("attention", mixing, here, norm))
        if parallel:
            branches = ((working, mixing, _norm("both", norm)),)
    told = (*pattern_words(model).split("; "), first_dense(model), *_oddities(model))
    notes = tuple(note for note in told if note)
    return Plan(
        head=("Output head", *_head_lines(model)),
        embedding=("Token embedding", *_embedding_lines(model)),
        norm=norm,
        repeated=str(len(model.layers)),
        notes=notes,
        branches=branches,
        parallel=parallel,
        stretched=bool(stretched(model)),
    )


def _typical(model: Architecture) -> Layer:
    return next((layer for layer in reversed(model.layers) if layer.mixer), model.layers[0])


def _mixer_box(model: Architecture, group: Group) -> tuple[str, tuple[str, ...]]:
    lines = _counted(group_lines(group), sum(number for _, number in group), model)
    return ("state" if group[0][0].has_state else "mixer", tuple(lines))


def _counted(lines: list[str], number: int, model: Architecture) -> list[str]:
    """With the number of layers, where not all have it."""
    if number == len(model.layers):
        return lines
    return [lines[0], f"in {number} layer{'s' if number > 1 else ''}", *lines[1:]]


def _norm(where: str, name: str) -> Slot:
    return Slot(f"norm {where}", (("norm", (name,)),))


def _branch(part: str, slot: Slot, here: set[str], norm: str) -> tuple[Slot, ...]:
    after = [_norm(f"after {part}", norm)] if f"after {part}" in here else []
    before = [_norm(f"before {part}", norm)] if f"before {part}" in here else []
    return (*after, slot, *before)


def _head_lines(model: Architecture) -> list[str]:
    lines = ["weights of its own" if "head" in model.head else "the embedding's weights"]
    if cap := model.facts["soft cap of logits"].value:
        lines.append(f"logits capped at ±{cap:g}")
    return lines


def _embedding_lines(model: Architecture) -> list[str]:
    lines = [f"{model.vocabulary:,} tokens × {model.width:,}"]
    if model.traits.embedding_scale:
        lines.append(f"times √{model.width:,}")
    if "positions" in model.embedding:
        lines.append(f"+ {model.embedding['positions'][0]:,} learned positions")
    if str(model.facts["positions"].value).startswith("ALiBi"):
        lines.append("ALiBi: scores lose with distance")
    if "per-layer tokens" in model.embedding:
        lines.append("and one more of its own for each layer")
    return lines


def _oddities(model: Architecture) -> list[str]:
    found = []
    shared = sum(bool(layer.mixer and layer.mixer.shared) for layer in model.layers)
    if shared:
        found.append(f"the last {shared} use earlier keys and values")
    chosen = sum(bool(layer.mixer and layer.mixer.index and layer.mixer.index.shared) for layer in model.layers)
    if chosen:
        found.append(f"{chosen} look where an earlier index chose")
    if model.traits.double:
        found.append("two attentions, two dense MLPs a layer")
    if model.traits.hyper_connections:
        found.append("four streams, mixed around each part")
    if model.traits.altup:
        found.append("four streams (AltUp), LAuReL beside attention")
    return found


def heights_of(planned: Plan) -> dict[str, float]:
    """The height of each row, by its key."""
    found = {"head": _box_height(planned.head), "embedding": _box_height(planned.embedding)}
    found["notes"] = 17.0 * len(planned.notes)
    found[BETWEEN] = float(PLUS + LEAVE - GAP)
    found["header"] = float(SECOND * planned.stretched)
    for branch in planned.branches:
        for slot in branch:
            found[slot.key] = slot.height
    return found


def draw(model: Architecture, other: Architecture | None = None) -> tuple[Canvas, float]:
    """The panel, and its height in pixels. other: what is not as there is ringed, and rows stand at one height."""
    mine = plan(model)
    theirs = plan(other) if other else None
    heights = heights_of(mine)
    if not theirs:
        heights["header"] = float(8 * mine.stretched)  # no legend of rings: its place takes the second line
    else:
        for key, height in heights_of(theirs).items():
            heights[key] = max(heights.get(key, 0), height)
    drawing = _Drawing(mine, theirs, heights)
    drawing.header(model, other)
    return drawing.canvas, drawing.rows(model)


class _Drawing:
    """Draws a plan from the top down."""

    def __init__(self, mine: Plan, theirs: Plan | None, heights: dict[str, float]) -> None:
        self.mine, self.theirs, self.heights = mine, theirs, heights
        self.canvas = Canvas()

    def header(self, model: Architecture, other: Architecture | None) -> None:
        draw_header(self.canvas, model.name, subtitle(model), other.name if other else None, stretched(model))

    def differs(self, key: str, content: object) -> bool:
        if self.theirs is None:
            return False
        if key == "norm":
            return self.theirs.norm != self.mine.norm
        if key in ("head", "embedding", "repeated"):
            return bool(getattr(self.theirs, key) != content)
        found = [slot for branch in self.theirs.branches for slot in branch if slot.key == key]
        return not found or found[0].boxes != content

    def rows(self, model: Architecture) -> float:
        canvas, y = self.canvas, TOP + self.heights["header"]
        head = Box(LEFT, y, WIDTH - 20 - LEFT, self.heights["head"])
        y = head.bottom + GAP
        final = Box(SPINE - 56, y, 92, NORM_H)
        block_top = final.bottom + 22
        y, spine_from = block_top + 22, final.bottom
        lead, order = self._aligned()
        y += lead
        bottoms = []
        ys: list[tuple[str, object, float]] = []
        for i, branch in enumerate(order):
            plus, part = y, self._part(i)
            ys.append(("plus", branch, plus))
            canvas.bands[f"plus {part}"] = (plus - 10, plus + 10, plus - 10, plus + 10)
            y += PLUS
            for slot in branch:
                ys.append(("slot", slot, y))
                if isinstance(slot, Slot):
                    self._band(slot, y)
                y += self.heights[slot.key if isinstance(slot, Slot) else str(slot)] + GAP
            bottoms.append(y + 2)
            ys.append(("leave", branch, y + 2))
            canvas.bands["leave MLP" if len(order) > i + 1 else "leave attention"] = (y - 6, y + 5, y + 5, y + 5)
            y += LEAVE
        block_bottom = y + self.heights.get("notes", 0) - 4
        block = Box(62, block_top, WIDTH - 20 - 62, block_bottom - block_top)
        canvas.area(block, "block", 12)
        canvas.bands["block"] = (block.y, block.bottom, block.y, block.bottom)
        notes = block.bottom - 4 - self.heights.get("notes", 0)
        canvas.bands["notes"] = (notes, block.bottom - 2, notes, notes)
        embedding = Box(LEFT, block.bottom + 24, WIDTH - 20 - LEFT, self.heights["embedding"])
        canvas.line((SPINE, embedding.y), (SPINE, spine_from), arrow=False, style="spine")
        canvas.line((SPINE, final.y), (SPINE, head.bottom))
        self._boxed(head, "token", self.mine.head, "head")
        self._boxed(final, "norm", (self.mine.norm,), "norm")
        self._boxed(embedding, "token", self.mine.embedding, "embedding")
        canvas.line((SPINE, embedding.bottom + 24), (SPINE, embedding.bottom))
        canvas.text(SPINE - 12, embedding.bottom + 20, "token ids", "m", anchor="end")
        self._branches(ys)
        for i, note in enumerate(self.mine.notes):
            size = fitted(note, 11.5, SPINE - block.x - 24)
            middle = (block.x + SPINE - 6) / 2
            canvas.text(middle, block_bottom - 8 - 17 * (len(self.mine.notes) - 1 - i), note, "m", size)
        self._repeats(model, block)
        strip(canvas, model, block)
        legend(canvas, model, embedding.bottom + 52)
        return embedding.bottom + 66

    def _aligned(self) -> tuple[float, list[list[Slot | str]]]:
        """How far down my first branch starts, and my branches with empty places for rows that the other has alone."""
        mine, theirs = self.mine.branches, self.theirs.branches if self.theirs else ()
        if len(mine) == 1 and len(theirs) == 2:
            upper, lower = ([slot.key for slot in branch] for branch in theirs)
            if not self.mine.parallel:  # one part a layer: it stands beside the other's attention
                return PLUS + LEAVE + sum(self.heights[key] + GAP for key in upper), [[*mine[0]]]
            working, mixing, norm = mine[0]
            above, between = upper[: upper.index("mlp")], upper[upper.index("mlp") + 1 :]
            return 0.0, [[*above, working, *between, BETWEEN, *lower[: lower.index("mixer")], mixing, norm]]
        rows: list[list[Slot | str]] = []
        for i, branch in enumerate(mine):
            row: list[Slot | str] = list(branch)
            if len(theirs) == len(mine) > 1:
                own = {slot.key for slot in branch}
                for slot in theirs[i]:
                    if slot.key not in own and slot.key.startswith("norm"):
                        row.insert(0 if "after" in slot.key else len(row), slot.key)
            rows.append(row)
        return 0.0, rows

    def _boxed(self, box: Box, role: str, lines: tuple[str, ...], key: str) -> None:
        self.canvas.box(box, role, lines)
        self._compared(key, lines, box)

    def _compared(self, key: str, says: object, box: Box) -> None:
        self.canvas.spots[key] = (repr(says), box)
        if key in ("head", "norm", "embedding"):
            self.canvas.bands[key] = (box.y, box.bottom, box.y + 2, box.bottom - 2)
        if self.differs(key, says):
            self.canvas.ring(box)

    def _part(self, branch: int) -> str:
        """What a branch belongs to, counted from the head: the MLP, also where attention runs beside it."""
        return "MLP" if branch == 0 and (len(self.mine.branches) > 1 or self.mine.parallel) else "attention"

    def _band(self, slot: Slot, y: float) -> None:
        """A branch's row. A box of several says something at its top, which stays there."""
        bottom = y + self.heights[slot.key]
        key = "norm before attention" if slot.key in ("norm both", "norm before") else slot.key
        self.canvas.bands[key] = (y, bottom, y + (19 if len(slot.boxes) > 1 else 2), bottom - 2)

    def _branches(self, ys: list[tuple[str, object, float]]) -> None:
        canvas, cx = self.canvas, (LEFT + RIGHT) / 2
        last_bottom: float | None = None
        plus_y = 0.0
        for what, thing, y in ys:
            if what == "plus":
                plus_y, last_bottom = y, None
            elif what == "slot" and isinstance(thing, Slot):
                box = Box(LEFT, y, RIGHT - LEFT, self.heights[thing.key])
                if thing.key.startswith("norm"):
                    box = Box(cx - 62, y, 124, NORM_H)
                self._slot(thing, box)
                if last_bottom is None:
                    canvas.line((cx, box.y), (cx, plus_y), (SPINE - 10, plus_y))
                elif not (self.mine.parallel and thing.key == "mixer"):
                    canvas.line((cx, box.y), (cx, last_bottom))
                if self.mine.parallel and thing.key == "mixer" and last_bottom is not None:
                    side = RIGHT + 12  # attention's output joins the sum beside the MLP
                    middle = (box.y + last_bottom) / 2
                    canvas.line((cx + 40, box.y), (cx + 40, middle), (side, middle), (side, plus_y), arrow=False)
                    self._side = (last_bottom, y + box.h)
                last_bottom = box.bottom
            elif what == "leave":
                assert last_bottom is not None
                canvas.line((SPINE, y), (cx, y), (cx, last_bottom))
                if self.mine.parallel and hasattr(self, "_side"):
                    mlp_bottom, mixer_bottom = self._side
                    fork, left = mixer_bottom + GAP / 2, LEFT - 14
                    middle = mlp_bottom + GAP / 2
                    canvas.line((cx, fork), (left, fork), (left, middle), (cx - 40, middle), (cx - 40, mlp_bottom))
        for what, _, y in ys:
            if what == "plus":
                canvas.plus(SPINE, y)

    def _slot(self, slot: Slot, box: Box) -> None:
        canvas = self.canvas
        if len(slot.boxes) == 1:
            canvas.box(box, slot.boxes[0][0], slot.boxes[0][1])
        else:
            canvas.area(box, "white", 9, dashed=True)
            canvas.text(box.cx, box.y + 15, "each layer has one of these", "m", 11)
            free = box.h - 36 - 10 * (len(slot.boxes) - 1) - sum(_box_height(lines) for _, lines in slot.boxes)
            y = box.y + 22 + free / 2
            for role, lines in slot.boxes:
                inner = Box(box.x + 7, y, box.w - 14, _box_height(lines))
                canvas.box(inner, role, lines)
                y = inner.bottom + 10
        self._compared(slot.key, slot.boxes, box)

    def _repeats(self, model: Architecture, block: Box) -> None:
        """How often, over the strip of layers."""
        number = self.mine.repeated
        colour = "r" if self.differs("repeated", number) else ""
        self.canvas.text(38, block.y + 16, f"{number} ×", f"b {colour}".strip(), 17 if len(number) < 3 else 14)


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
