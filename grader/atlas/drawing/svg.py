"""A small SVG writer: boxes with text, lines with rounded corners, rows of tiles. Same input, same bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,'DejaVu Sans',sans-serif"
# Roles of things, each with the colours of its area and its edge. A page may give others (--atlas-...-area).
ROLES = {
    "card": ("#fdfcf8", "#d9d6cc"),
    "block": ("#f1f2f4", "#c9ced6"),
    "white": ("#ffffff", "#8a929c"),
    "token": ("#ece8f8", "#6b57b0"),
    "norm": ("#fdf0cc", "#a87f10"),
    "query": ("#e4dff6", "#6b57b0"),
    "key": ("#cfe3f7", "#2d6fb0"),
    "value": ("#fadfd2", "#b5532a"),
    "mixer": ("#dcebfa", "#2d6fb0"),
    "state": ("#d6f0ec", "#1c7a70"),
    "mlp": ("#dff2e3", "#3a8450"),
    "router": ("#fbe0ec", "#b0447c"),
    "faint": ("#e6e8eb", "#c3c8cf"),
}
# The same on a dark page, for a figure that is a file of its own, as in a notebook. `static/style.css` has them too.
DARK = {
    "card": ("#1e2125", "#3a3f46"),
    "block": ("#272b30", "#454b54"),
    "white": ("#1a1c1f", "#7d858f"),
    "token": ("#322d4a", "#a394e0"),
    "norm": ("#41371a", "#d6ad3c"),
    "query": ("#38315a", "#a394e0"),
    "key": ("#1d3a56", "#6fb0ee"),
    "value": ("#4d2d1f", "#ee9368"),
    "mixer": ("#1c334a", "#6fb0ee"),
    "state": ("#163f3a", "#56c2b4"),
    "mlp": ("#1f3d29", "#74c48b"),
    "router": ("#4a2438", "#e58ab8"),
    "faint": ("#33383e", "#555c65"),
}
DARK_LINES = {"ink": "#e8e6e1", "muted": "#a7adb5", "line": "#a7adb5", "ring": "#ff9466"}
# Widths of characters in thousandths of the font's size: DejaVu Sans, the widest font that a reader is likely to have.
NARROW, WIDE = "iIjl.,:;'|!·[]()", "mMWw%—@×→"
RING = "#d9480f"


def text_width(text: str, size: float, bold: bool = False) -> float:
    """Pixels that a line of text takes at most."""
    units = 0
    for letter in text:
        if letter in NARROW:
            units += 370
        elif letter in WIDE:
            units += 930
        elif letter == " ":
            units += 330
        else:
            units += 680 if letter.isupper() else 625
    return units * size / 1000 * (1.1 if bold else 1.0)


def fitted(text: str, size: float, room: float, bold: bool = False) -> float:
    """The largest font size up to `size`, and at least 9, at which the line fits."""
    return max(9.0, min(size, round(size * room / max(text_width(text, size, bold), 1), 1)))


@dataclass(frozen=True)
class Box:
    """A rectangle, in pixels from the top left."""

    x: float
    y: float
    w: float
    h: float

    @property
    def cx(self) -> float:
        return self.x + self.w / 2

    @property
    def bottom(self) -> float:
        return self.y + self.h

    @property
    def right(self) -> float:
        return self.x + self.w


class Canvas:
    """Collects shapes. Sizes are pixels; y grows downwards.

    spots: where a figure may differ from another's, by name: what it says there, and the box to ring.
    bands: its rows by name, for a page that sets two figures side by side (grader/atlas/static/align.js): of each its
    top and bottom, and the two heights between them at which it may grow. Only upright lines cross those heights and
    the pixel over a band, so that space can be inserted there.
    """

    def __init__(self) -> None:
        self.spots: dict[str, tuple[str, Box]] = {}
        self.bands: dict[str, tuple[float, float, float, float]] = {}
        self._shapes: list[str] = []

    def area(self, box: Box, role: str, radius: float = 7, dashed: bool = False) -> None:
        """A rounded rectangle."""
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self._shapes.append(
            f'<rect class="{role}" x="{_n(box.x)}" y="{_n(box.y)}" width="{_n(box.w)}" height="{_n(box.h)}"'
            f' rx="{_n(radius)}"{dash}/>'
        )

    def ring(self, box: Box) -> None:
        """The mark of what is not as in the other model."""
        self.area(Box(box.x - 3, box.y - 3, box.w + 6, box.h + 6), "ring", 9)

    def text(self, x: float, y: float, text: str, style: str = "", size: float = 12, anchor: str = "middle") -> None:
        """A line of text around (x, y), its baseline. style: words of b (bold), m (muted), r (the ring's colour)."""
        where = "" if anchor == "middle" else f' text-anchor="{anchor}"'
        look = f' class="{style}"' if style else ""
        big = "" if size == 12 else f' font-size="{_n(size)}"'
        self._shapes.append(f'<text x="{_n(x)}" y="{_n(y)}"{look}{where}{big}>{escape(text)}</text>')

    def box(self, box: Box, role: str, lines: Sequence[str], up: float | None = None) -> Box:
        """A box with a bold first line and others under it, in its middle. up: where an arrow from its top ends."""
        self.area(box, role)
        heights = [16.0] + [15.0] * (len(lines) - 1)
        y = box.y + (box.h - sum(heights)) / 2
        for i, (line, height) in enumerate(zip(lines, heights, strict=True)):
            bold = i == 0
            size = fitted(line, 13 if bold else 12, box.w - 12, bold)
            self.text(box.cx, y + height - 3.5, line, "b" if bold else "", size)
            y += height
        if up is not None:
            self.line((box.cx, box.y), (box.cx, up))
        return box

    def line(self, *points: tuple[float, float], arrow: bool = True, style: str = "line") -> None:
        """A line through these points, with rounded corners and, unless told otherwise, an arrow at its end."""
        path = f"M{_n(points[0][0])} {_n(points[0][1])}"
        for before, corner, after in zip(points, points[1:], points[2:], strict=False):
            a, b = _towards(corner, before, 7), _towards(corner, after, 7)
            path += f"L{_n(a[0])} {_n(a[1])}Q{_n(corner[0])} {_n(corner[1])} {_n(b[0])} {_n(b[1])}"
        end = _towards(points[-1], points[-2], 5) if arrow else points[-1]
        path += f"L{_n(end[0])} {_n(end[1])}"
        self._shapes.append(f'<path class="{style}" d="{path}"/>')
        if arrow:
            self._head(points[-1], points[-2])

    def _head(self, tip: tuple[float, float], before: tuple[float, float]) -> None:
        back = _towards(tip, before, 7)
        dx, dy = (tip[1] - back[1]) / 7 * 3.5, (tip[0] - back[0]) / 7 * 3.5
        spots = [tip, (back[0] + dx, back[1] - dy), (back[0] - dx, back[1] + dy)]
        self._shapes.append(f'<path class="tip" d="M{"L".join(f"{_n(x)} {_n(y)}" for x, y in spots)}Z"/>')

    def tiles(self, boxes: Sequence[Box], role: str) -> None:
        """Many small rectangles of one role, as one path."""
        path = "".join(f"M{_n(b.x)} {_n(b.y)}h{_n(b.w)}v{_n(b.h)}h-{_n(b.w)}z" for b in boxes)
        self._shapes.append(f'<path class="{role} tile" d="{path}"/>')

    def plus(self, x: float, y: float, sign: str = "+") -> None:
        """A circle with an operation's sign."""
        self._shapes.append(f'<circle class="white" cx="{_n(x)}" cy="{_n(y)}" r="10"/>')
        arms = f"M{_n(x - 5)} {_n(y)}h10M{_n(x)} {_n(y - 5)}v10"
        if sign == "×":
            arms = f"M{_n(x - 4)} {_n(y - 4)}l8 8M{_n(x - 4)} {_n(y + 4)}l8 -8"
        self._shapes.append(f'<path class="sign" d="{arms}"/>')

    def shapes(self) -> str:
        """What was drawn so far."""
        return "\n".join(self._shapes)

    def written(self, width: float, height: float, title: str, description: str) -> str:
        """The whole file, on a card of its own."""
        card = f'<rect class="card" x="0.5" y="0.5" width="{_n(width - 1)}" height="{_n(height - 1)}" rx="10"/>'
        return document(card + "\n" + self.shapes(), (width, height), title, description)


def document(shapes: str, size: tuple[float, float], title: str, description: str) -> str:
    """An SVG file around these shapes, with a title and a description for screen readers."""
    used = [role for role in ROLES if f'class="{role}' in shapes]
    roles = "".join(
        f".{role}{{fill:var(--atlas-{role}-area,{ROLES[role][0]});stroke:var(--atlas-{role}-edge,{ROLES[role][1]})}}"
        for role in used
    )
    dark = "".join(f"--atlas-{name}:{colour};" for name, colour in DARK_LINES.items())
    dark += "".join(f"--atlas-{role}-area:{DARK[role][0]};--atlas-{role}-edge:{DARK[role][1]};" for role in used)
    width, height = size
    name = "a" + "".join(letter for letter in title.lower() if letter.isascii() and letter.isalnum())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(width)} {_n(height)}" width="{_n(width)}"'
        f' height="{_n(height)}" class="atlas" role="img" aria-labelledby="{name}-t {name}-d" font-size="12"'
        f' font-family="{FONT}" text-anchor="middle">\n'
        f'<title id="{name}-t">{escape(title)}</title>\n<desc id="{name}-d">{escape(description)}</desc>\n'
        f"<style>.atlas text{{fill:var(--atlas-ink,#1f2328)}}.atlas .b{{font-weight:600}}"
        f".atlas .m{{fill:var(--atlas-muted,#59616b)}}.atlas .r{{fill:var(--atlas-ring,{RING})}}"
        f".line,.spine,.sign,.ring{{fill:none;stroke:var(--atlas-line,#59616b);stroke-width:1.3}}"
        f".spine{{stroke-width:5;stroke-linecap:round}}.sign{{stroke-width:1.6}}"
        f".tip{{fill:var(--atlas-line,#59616b)}}.tile{{stroke-width:.7}}"
        f".ring{{stroke:var(--atlas-ring,{RING});stroke-width:2.2}}{roles}"
        f"@media(prefers-color-scheme:dark){{.atlas:root{{{dark}}}}}</style>\n{shapes}\n</svg>\n"
    )


def _towards(here: tuple[float, float], there: tuple[float, float], distance: float) -> tuple[float, float]:
    dx, dy = there[0] - here[0], there[1] - here[1]
    length = max((dx * dx + dy * dy) ** 0.5, 1e-9)
    share = min(distance, length / 2 if distance > 5 else length) / length
    return here[0] + dx * share, here[1] + dy * share


def _n(value: float) -> str:
    """A coordinate with a decimal at most."""
    return f"{value:.1f}".removesuffix(".0")
