"""Plots: lines, bars and grids of numbers, each from plain Python values in one call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from typing import Any

import matplotlib.axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, NullLocator

from grader.instruments.picture import COLOURS, FAINT, Drawing, Picture, beside

__all__ = ["Axes", "Picture", "bars", "beside", "grid", "lines", "maps", "squares"]

Curve = tuple[Sequence[float], Sequence[float]]  # x and y of each point
MARKERS = "os^DvxP"  # a curve has a colour and a marker of its own, so that no reader needs the colour
MOST_MARKERS = 40  # points of a curve that are marked one by one
DASHES = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Axes:
    """What stands around a plot.

    x, y, title: in words. log: which axes are logarithmic, "", "x", "y" or "xy"; with
    "symlog" y is logarithmic on both sides of zero. xticks, yticks: the values that are
    named, or value -> name. ylim: lowest and highest y, None for what fits. marks: dashed lines with a name, at
    an x ("x" in front of a number, as in {"x512": "the window"}) or at a y ({"y0": ""}). size: inches.
    colours: of a grid, the values of the first and the last colour, where several grids are compared.
    """

    x: str = ""
    y: str = ""
    title: str = ""
    log: str = ""
    xticks: Sequence[float] | Mapping[float, str] = ()
    yticks: Sequence[float] | Mapping[float, str] = ()
    ylim: tuple[float | None, float | None] | None = None
    marks: Mapping[str, str] = field(default_factory=dict)
    size: tuple[float, float] = (6.4, 3.2)
    colours: tuple[float, float] | None = None

    def _around(self, axes: matplotlib.axes.Axes) -> None:
        axes.set(xlabel=self.x, ylabel=self.y, title=self.title)
        for mark, name in self.marks.items():
            place, value = mark[0], float(mark[1:])
            draw = axes.axvline if place == "x" else axes.axhline
            draw(value, color=FAINT, ls="--", lw=1, label=name or None, zorder=1)
        if self.log == "symlog":
            axes.set_yscale("symlog")
        for scale in self.log if self.log in ("x", "y", "xy") else "":
            axes.set(**{f"{scale}scale": "log"})
        if self.ylim is not None:
            axes.set_ylim(*self.ylim)
        for ticks, axis in ((self.xticks, axes.xaxis), (self.yticks, axes.yaxis)):
            if ticks:
                names = list(ticks.values()) if isinstance(ticks, Mapping) else [f"{tick:,}" for tick in ticks]
                axis.set_ticks(list(ticks), labels=names)
                axis.set_minor_locator(NullLocator())
                if axis is axes.xaxis and max(map(len, names)) * len(names) > 60:
                    axes.tick_params(axis="x", labelrotation=90)


def lines(curves: Mapping[str, Curve], around: Axes | None = None) -> Picture:
    """Curves over one pair of axes.

    curves: what a curve is called -> its x values and its y values, as many of each. A name that begins with "_" has
    no entry in the legend. Raises ValueError where a curve has no points, or not as many x as y.
    """
    around = around or Axes()
    points = {name: (_numbers(xs), _numbers(ys)) for name, (xs, ys) in curves.items()}
    for name, (xs, ys) in points.items():
        if not xs or len(xs) != len(ys):
            raise ValueError(f"The curve {name!r} has {len(xs)} x values and {len(ys)} y values.")

    def draw(axes: matplotlib.axes.Axes) -> None:
        looks = zip(cycle(COLOURS), cycle(MARKERS), cycle(DASHES), strict=False)
        for (name, (xs, ys)), (colour, marker, dash) in zip(points.items(), looks, strict=False):
            marks = {"marker": marker, "ms": 4} if len(xs) <= MOST_MARKERS else {"ls": dash}
            axes.plot(xs, ys, color=colour, label=name, **marks)
        around._around(axes)
        if any(not label.startswith("_") for label in axes.get_legend_handles_labels()[1]):
            axes.legend()

    said = [
        f"{name.strip('_') or 'y'}: from {_short(ys[0])} at {_short(xs[0])} to {_short(ys[-1])} at {_short(xs[-1])}"
        for name, (xs, ys) in points.items()
    ]
    return _picture(draw, around, f"{around.y or 'values'} over {around.x or 'x'}. " + "; ".join(said), "Lines")


def bars(values: Mapping[str, float | Mapping[str, float]], around: Axes | None = None) -> Picture:
    """Horizontal bars from the top down, each with its value at its end.

    values: what a bar is called -> its length; or -> its pieces, by name, which are then put end to end.
    """
    around = around or Axes(size=(6.4, 0.7 + 0.35 * len(values)))
    stacked = {name: value for name, value in values.items() if isinstance(value, Mapping)}
    plain = {name: float(value) for name, value in values.items() if not isinstance(value, Mapping)}

    def draw(axes: matplotlib.axes.Axes) -> None:
        axes.barh(list(plain), list(plain.values()), color=COLOURS[0])
        for name, length in plain.items():
            axes.annotate(_short(length), (max(length, 0), name), (4, 0), textcoords="offset points", va="center")
        axes.margins(x=0.12 if plain else 0)
        ends = dict.fromkeys(stacked, 0.0)
        for piece, colour in zip(_pieces(stacked), cycle(COLOURS), strict=False):
            lengths = [float(pieces.get(piece, 0)) for pieces in stacked.values()]
            axes.barh(list(stacked), lengths, left=list(ends.values()), color=colour, label=piece)
            ends = {name: end + length for (name, end), length in zip(ends.items(), lengths, strict=True)}
        around._around(axes)
        axes.invert_yaxis()
        if stacked:
            axes.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.45, 1.0))

    said = [f"{name} {_short(length)}" for name, length in plain.items()]
    for name, pieces in stacked.items():
        said.append(f"{name}: " + ", ".join(f"{piece} {_short(length)}" for piece, length in pieces.items()))
    return _picture(draw, around, f"{around.x or 'lengths'}. " + "; ".join(said), "Bars")


def grid(values: Any, around: Axes | None = None, label: str = "", numbers: str = "") -> Picture:
    """A grid of numbers as colours: the darker the larger; or, around zero, blue below it and red above.

    values: rows of numbers, or a tensor [rows, columns]. label: what the colours mean, at the bar beside them.
    numbers: a format such as "+.2f", where each number is to stand in its square.
    """
    around = around or Axes()
    rows = [_numbers(row) for row in values]
    flat = [value for row in rows for value in row]
    limit = max(map(abs, flat))
    signed = min(flat) < 0 < max(flat)

    def draw(axes: matplotlib.axes.Axes) -> None:
        low, high, colours = (-limit, limit, "RdBu_r") if signed else (min(flat), max(flat), "Blues")
        low, high = around.colours or (low, high)
        image = axes.imshow(rows, cmap=colours, vmin=low, vmax=max(high, low + 1e-12), aspect="auto")
        for i, row in enumerate(rows) if numbers else ():
            for j, value in enumerate(row):
                ink = "white" if (abs(value) if signed else value) > 0.6 * limit else "#101010"
                axes.text(j, i, format(value, numbers), ha="center", va="center", fontsize=9, color=ink)
        axes.spines[:].set_visible(False)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
        around._around(axes)
        bar = axes.figure.colorbar(image, ax=axes, label=label)
        bar.outline.set_visible(False)

    text = f"{label or 'values'}, {len(rows)} rows of {len(rows[0])}, from {_short(min(flat))} to {_short(max(flat))}"
    place = flat.index(max(flat))
    text += f"; the largest in row {place // len(rows[0])}, column {place % len(rows[0])}"
    return _picture(draw, around, text, "Grid")


def maps(values: Any, title: str = "{row}, {column}") -> Picture:
    """Many small grids of numbers between 0 and 1, in rows and columns: the attention of every head, for one.

    values: a tensor [rows, columns, height, width]. title: of each, from its `row` and its `column`.
    """
    rows = [list(row) for row in values]

    def drawing(image: Any, row: int, column: int) -> Drawing:
        def draw(axes: matplotlib.axes.Axes) -> None:
            axes.imshow([_numbers(line) for line in image], cmap="Blues", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
            axes.set_title(title.format(row=row, column=column), fontsize=8)

        return Drawing(draw, "", 1.5, 1.3)

    drawings = [drawing(image, i, j) for i, row in enumerate(rows) for j, image in enumerate(row)]
    words = f"{len(drawings)} grids, from {title.format(row=0, column=0)} to "
    words += title.format(row=len(rows) - 1, column=len(rows[0]) - 1) + "."
    return Picture([replace(drawings[0], text=words), *drawings[1:]], columns=len(rows[0]))


def squares(seen: Any, queries: Sequence[Any], keys: Sequence[Any], title: str = "", split: int = 0) -> Picture:
    """Which query sees which key: a filled square where it does, an empty one where not.

    seen: rows of booleans, or a tensor [queries, keys]. queries, keys: what rows and columns are called. split: before
    which key a line stands, as between a cache and the new tokens; 0 for none.
    """
    rows = [[bool(value) for value in row] for row in seen]
    small = max(len(queries), len(keys)) <= 16  # then each row and column has its name

    def draw(axes: matplotlib.axes.Axes) -> None:
        for i, row in enumerate(rows):
            for j, filled in enumerate(row):
                colour = COLOURS[0] if filled else "none"
                axes.add_patch(Rectangle((j, i), 0.9, 0.9, edgecolor=FAINT, lw=0.5, facecolor=colour))
        axes.set(xlim=(-0.1, len(keys)), ylim=(len(queries), -0.1), aspect="equal", title=title)
        axes.set_xticks([j + 0.45 for j in range(len(keys) if small else 0)], list(keys) if small else [], rotation=45)
        axes.set_yticks([i + 0.45 for i in range(len(queries) if small else 0)], list(queries) if small else [])
        axes.set(xlabel="key", ylabel="query")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        if split:
            axes.axvline(split - 0.05, color=COLOURS[1], lw=1.5)

    said = [f"{query} sees {_seen(row, keys)}" for query, row in zip(queries, rows, strict=True)]
    text = f"{title or 'Mask'}: {sum(map(sum, rows))} of {len(queries) * len(keys)} pairs. "
    text += "; ".join(said) if small else f"The last query sees {sum(rows[-1])} keys"
    width = 1.2 + 0.33 * len(keys) if small else 3.2
    return Picture([Drawing(draw, text + ".", width, 1.2 + 0.33 * len(queries) if small else 3.0)])


def _picture(draw: Any, around: Axes, text: str, kind: str) -> Picture:
    words = f"{around.title}: {text}" if around.title else f"{kind}: {text}"
    return Picture([Drawing(draw, words + ".", *around.size)])


def _seen(row: Sequence[bool], keys: Sequence[Any]) -> str:
    return ", ".join(str(key) for key, filled in zip(keys, row, strict=True) if filled) or "nothing"


def _pieces(stacked: Mapping[str, Mapping[str, float]]) -> list[str]:
    return list(dict.fromkeys(piece for pieces in stacked.values() for piece in pieces))


def _numbers(values: Any) -> list[float]:
    return [float(value) for value in values]


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
