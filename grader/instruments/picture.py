"""A plot as a picture with words: drawn when a notebook shows it, readable in light and dark, and by a screen reader.

Where HTML is shown, the picture is an SVG whose paper and ink follow the reader's choice of light or dark, in an
`<img>` with the words as its alternative text. Elsewhere, as on GitHub, it is a PNG on white.
"""

import base64
import html
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Each stands out from white and from the dark paper by at least 3 to 1 (WCAG 2.2, 1.4.11; a test computes it). The
# hues are those of Okabe and Ito's palette for colour-blind readers, made darker or lighter until they did.
COLOURS = ("#1f7fc0", "#d0433b", "#2b9160", "#b97708", "#9a6bc9", "#7c858c")
PAPER, INK, FAINT = "#fdfdfe", "#1d1f23", "#8b9299"
DARK_PAPER, DARK_INK = "#17191c", "#e3e6ea"
WIDEST = 11.0  # inches
STYLE = (
    f"svg {{ --paper: #ffffff; --ink: {INK} }}\n"
    f"@media (prefers-color-scheme: dark) {{ svg {{ --paper: {DARK_PAPER}; --ink: {DARK_INK} }} }}\n"
)
SETTINGS: dict[str, Any] = {
    "axes.edgecolor": INK,
    "axes.facecolor": PAPER,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "figure.dpi": 90,
    "figure.facecolor": PAPER,
    "legend.edgecolor": "none",
    "legend.facecolor": PAPER,
    "legend.fontsize": 9,
    "legend.framealpha": 0.85,  # a line below it must not cross its words
    "legend.labelcolor": INK,
    "savefig.dpi": 90,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "path",
    "svg.hashsalt": "grader",
    "text.color": INK,
    "xtick.color": INK,
    "xtick.labelsize": 9,
    "ytick.color": INK,
    "ytick.labelsize": 9,
}
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it announces its first start


@dataclass(frozen=True)
class Drawing:
    """One plot of a picture. draw: draws it. text: the same in words. width, height: in inches."""

    draw: Callable[[Axes], None]
    text: str
    width: float = 6.4
    height: float = 3.2


class Picture:
    """One or more plots, as the last line of a cell, or for `display`. `text` has them in words.

    columns: how many plots stand in a row; all of them where it is 0.
    """

    def __init__(self, drawings: Sequence[Drawing], columns: int = 0) -> None:
        self._drawings, self._columns = tuple(drawings), columns or len(drawings)
        self.text = "\n".join(drawing.text for drawing in drawings if drawing.text)

    def figure(self) -> Figure:
        """The plots as a figure of matplotlib's, drawn anew."""
        first_row = self._drawings[: self._columns]
        rows = -(-len(self._drawings) // self._columns)
        widths = [drawing.width for drawing in first_row]
        size = (min(sum(widths), WIDEST), rows * max(drawing.height for drawing in first_row))
        with settings():
            figure = Figure(figsize=size, layout="constrained")
            places = figure.subplots(rows, self._columns, squeeze=False, width_ratios=widths).flatten()
            for drawing, axes in zip(self._drawings, places, strict=False):
                drawing.draw(axes)
            for axes in places[len(self._drawings) :]:
                axes.remove()
        return figure

    def svg(self) -> str:
        """The picture as SVG, with its words as title and description."""
        return as_svg(self.figure(), self.text)

    def png(self) -> bytes:
        """The picture as PNG, on white."""
        return as_png(self.figure())

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, str], dict[str, Any]]:
        data = {
            "text/plain": self.text,
            "text/html": as_image(self.figure(), self.text),
            "image/png": base64.b64encode(self.png()).decode(),
        }
        return data, {"image/png": {"alt": self.text}}


def beside(*pictures: Picture) -> Picture:
    """Several pictures as one, from left to right. At most 11 inches wide in all."""
    return Picture([drawing for picture in pictures for drawing in picture._drawings])


def settings() -> Any:
    """A context in which matplotlib draws on PAPER with INK, which `as_svg` makes follow light and dark."""
    return matplotlib.rc_context(SETTINGS)  # type: ignore[arg-type]


def as_svg(figure: Figure, text: str) -> str:
    """A figure that was drawn within `settings`, as SVG, with its words as title and description."""
    buffer = io.StringIO()
    with settings():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    drawn = buffer.getvalue()
    drawn = drawn[drawn.index("<svg") :].replace(PAPER, "var(--paper)").replace(INK, "var(--ink)")
    start, body = drawn.split(">", 1)
    first, _, rest = text.partition("\n")
    words = f"<title>{html.escape(first)}</title><desc>{html.escape(rest or first)}</desc>"
    return f'{start} role="img">{words}<style>{STYLE}</style>{body}'


def as_image(figure: Figure, text: str) -> str:
    """The same as an <img>, whose alternative text the words are."""
    source = base64.b64encode(as_svg(figure, text).encode()).decode()
    return f'<img alt="{html.escape(text)}" style="max-width: 100%" src="data:image/svg+xml;base64,{source}">'


def as_png(figure: Figure) -> bytes:
    """A figure as PNG, on white."""
    buffer = io.BytesIO()
    with settings():
        figure.savefig(buffer, format="png", facecolor="white")
    return buffer.getvalue()
