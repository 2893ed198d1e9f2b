"""The first panel: the residual stream from the embedding to the head, and the block that is repeated."""

from grader.atlas.architecture import Architecture
from grader.atlas.drawing.header import WIDTH, draw_header, stretched, subtitle
from grader.atlas.drawing.plan import (
    BETWEEN,
    GAP,
    LEAVE,
    NORM_H,
    PER_LAYER,
    PLUS,
    Plan,
    Slot,
    box_height,
    heights_of,
    plan,
)
from grader.atlas.drawing.strip import legend, strip
from grader.atlas.drawing.svg import Box, Canvas, fitted

SPINE = 384
LEFT, RIGHT = 96, 352  # of the boxes beside the spine
TOP = 84


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
    draw_header(drawing.canvas, model.name, subtitle(model), other.name if other else None, stretched(model))
    return drawing.canvas, drawing.rows(model)


class _Drawing:
    """Draws a plan from the top down."""

    def __init__(self, mine: Plan, theirs: Plan | None, heights: dict[str, float]) -> None:
        self.mine, self.theirs, self.heights = mine, theirs, heights
        self.canvas = Canvas()

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
            left = "attention" if i + 1 == len(order) else part
            canvas.bands[f"leave {left}"] = (y - 6, y + 5, y + 5, y + 5)
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
        self._repeats(block)
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
            here = [slot.key for slot in mine[0]]
            mixing = here.index("mixer")  # the MLP, and its norm where it has one, stand before it
            above, between = upper[: upper.index("mlp")], [k for k in upper[upper.index("mlp") + 1 :] if k not in here]
            gap = [*between, BETWEEN, *lower[: lower.index("mixer")]]
            return 0.0, [[*above, *mine[0][:mixing], *gap, *mine[0][mixing:]]]
        alone = theirs[: -len(mine)] if len(mine) == 2 else ()  # branches that the other has and mine has not
        lead = sum(PLUS + LEAVE + sum(self.heights[slot.key] + GAP for slot in branch) for branch in alone)
        rows: list[list[Slot | str]] = []
        for i, branch in enumerate(mine, -len(mine)):
            row: list[Slot | str] = list(branch)
            if min(len(theirs), len(mine)) > 1 and -i <= len(theirs):
                own = {slot.key for slot in branch}
                for slot in theirs[i]:
                    if slot.key not in own and slot.key.startswith("norm"):
                        row.insert(0 if "after" in slot.key else len(row), slot.key)
            rows.append(row)
        return lead, rows

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
        if self.mine.parallel:
            return "MLP"
        return (PER_LAYER, "MLP", "attention")[branch - len(self.mine.branches)]

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
                    wide = 124 if len(thing.boxes[0][1][0]) < 14 else 190
                    box = Box(cx - wide / 2, y, wide, NORM_H)
                if self.mine.on_stream and thing.key.startswith("norm before") and last_bottom is not None:
                    self._slot(thing, Box(SPINE - 52, y, 84, NORM_H))
                    left = y - GAP / 2  # what leaves the stream is normed, and so is what stays
                    canvas.line((SPINE, left), (cx, left), (cx, last_bottom))
                    continue
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
            elif what == "leave" and not self.mine.on_stream:
                assert last_bottom is not None
                canvas.line((SPINE, y), (cx, y), (cx, last_bottom))
                if self.mine.parallel and hasattr(self, "_side"):
                    mlp_bottom, mixer_bottom = self._side
                    shared = any(slot.key == "norm both" for slot in self.mine.branches[0])
                    fork, left = mixer_bottom + GAP / 2 if shared else y, LEFT - 14
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
            free = box.h - 36 - 10 * (len(slot.boxes) - 1) - sum(box_height(lines) for _, lines in slot.boxes)
            y = box.y + 22 + free / 2
            for role, lines in slot.boxes:
                inner = Box(box.x + 7, y, box.w - 14, box_height(lines))
                canvas.box(inner, role, lines)
                y = inner.bottom + 10
        self._compared(slot.key, slot.boxes, box)

    def _repeats(self, block: Box) -> None:
        """How often, over the strip of layers."""
        number = self.mine.repeated
        colour = "r" if self.differs("repeated", number) else ""
        self.canvas.text(38, block.y + 16, f"{number} ×", f"b {colour}".strip(), 17 if len(number) < 3 else 14)
