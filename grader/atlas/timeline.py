"""When which kind of attention came: a line of dots for each kind."""

from collections.abc import Sequence
from datetime import date
from html import escape
from itertools import groupby

from grader.atlas.architecture import Architecture
from grader.atlas.layer import Mixer
from grader.atlas.shown_models import GalleryModel

# From the oldest to the newest idea; a model stands in the last row that it belongs to.
KINDS = (
    "multi-head",
    "multi-query",
    "grouped-query",
    "sliding window",
    "state space",
    "latent (MLA)",
    "linear",
    "sparse",
    "compressed",
)
LABELS = {"Multi-head attention": "multi-head", "Multi-query attention": "multi-query"}
LEFT, ROW, WIDTH = 130, 40, 1180


def kinds_of(model: Architecture) -> list[str]:
    """Which of KINDS its layers are, in the order of KINDS."""
    found = {kind for layer in model.layers for kind in kinds_of_mixer(layer.mixer)}
    return [kind for kind in KINDS if kind in found]


def kinds_of_mixer(mixer: Mixer | None) -> list[str]:
    """Which of KINDS one layer is, the most particular last; nothing without attention or a state."""
    if mixer is None or mixer.kind == "conv":
        return []
    if mixer.kind in ("delta", "kda", "lightning"):
        return ["linear"]
    if mixer.kind in ("mamba", "mamba2"):
        return ["state space"]
    if mixer.kind == "compressed":
        return ["compressed"]
    if mixer.kind == "latent":
        return ["latent (MLA)", *(["sparse"] if mixer.index else [])]
    return [LABELS.get(mixer.label, "grouped-query"), *(["sliding window"] if mixer.window else [])]


# The colours of a thumbnail, by what a layer does with tokens; a class of style.css each.
SHADES = {
    **dict.fromkeys(("multi-head", "multi-query", "grouped-query"), "full"),
    "sliding window": "window",
    "latent (MLA)": "latent",
    **dict.fromkeys(("sparse", "compressed"), "sparse"),
    **dict.fromkeys(("state space", "linear"), "state"),
}


def thumbnail(model: Architecture) -> str:
    """Layers as an SVG, the first on the left: how each mixes tokens, and below it its MLP or experts."""
    shapes = []
    for top, height, shades in (
        (0, 15, [_shade(layer.mixer) for layer in model.layers]),
        (16, 8, ["" if layer.mlp is None else "experts" if layer.mlp.experts else "dense" for layer in model.layers]),
    ):
        at = 0
        for shade, run in groupby(shades):
            count = len(list(run))
            if shade:
                shapes.append(f'<path class="{shade}" d="M{at} {top}h{count}v{height}h-{count}z"/>')
            at += count
    drawn = "".join(shapes)
    return f'<svg viewBox="0 0 {len(model.layers)} 24" preserveAspectRatio="none" aria-hidden="true">{drawn}</svg>'


def _shade(mixer: Mixer | None) -> str:
    kinds = kinds_of_mixer(mixer)
    return SHADES[kinds[-1]] if kinds else "state" if mixer else ""


def timeline(models: Sequence[GalleryModel]) -> str:
    """Two SVGs side by side: the kinds, which stay in sight, and a dot for each model whose date is known.

    A dot is a link to the model's page. Both are drawn at their own size, so that rows and names stay level.
    """
    dated = [(model, _day(model.date)) for model in models if model.architecture and model.date]
    first, last = min(day for _, day in dated).year, max(day for _, day in dated).year + 1
    span = (date(last, 1, 1) - date(first, 1, 1)).days
    height = ROW * len(KINDS) + 40
    shapes, names_of_firsts = [], []
    for year in range(first, last + 1):
        x = _x(date(year, 1, 1), first, span)
        shapes.append(f'<line x1="{x:.0f}" x2="{x:.0f}" y1="8" y2="{height - 28}"/>')
        shapes.append(f'<text class="m" x="{x:.0f}" y="{height - 10}" text-anchor="middle">{year}</text>')
    names = "".join(
        f'<text x="{LEFT - 14}" y="{_y(row) + 4}" text-anchor="end">{escape(kind)}</text>'
        for row, kind in enumerate(KINDS)
    )
    taken: set[tuple[int, int]] = set()
    named = {model.slug for model in _first_of_each(models).values()}
    for model, day in sorted(dated, key=lambda found: (found[1], found[0].name)):
        assert model.architecture
        row = KINDS.index(kinds_of(model.architecture)[-1])
        x, lift = round(_x(day, first, span)), 0
        while any((x + dx, row * 100 + lift) in taken for dx in range(-9, 10)):
            x, lift = (x, (1, -1)[lift]) if lift >= 0 else (x + 3, 0)  # above, below, then to the right
        taken.add((x, row * 100 + lift))
        name = escape(f"{model.name}, {model.date}: {kinds_of(model.architecture)[-1]}")
        shapes.append(
            f'<a href="models/{model.slug}.html" aria-label="{name}"><title>{name}</title>'
            f'<circle cx="{x}" cy="{_y(row) + lift * 8}" r="6"/></a>'
        )
        if model.slug in named:
            side = f'x="{x}" text-anchor="start"' if x < WIDTH / 2 else f'x="{x + 6}" text-anchor="end"'
            names_of_firsts.append(f'<text class="first" {side} y="{_y(row) - 11}">{escape(model.name)}</text>')
    return (
        f'<svg class="timeline kinds" width="{LEFT}" height="{height}" aria-hidden="true">{names}</svg>'
        f'<svg class="timeline" viewBox="{LEFT - 20} 0 {WIDTH - LEFT + 20} {height}" width="{WIDTH - LEFT + 20}"'
        f' height="{height}" role="group" aria-label="Models by date and attention">'
        + "".join(shapes + names_of_firsts)
        + "</svg>"
    )


def firsts(models: Sequence[GalleryModel]) -> str:
    """List items: of each kind of attention the earliest model with it, by when it came."""
    found = _first_of_each(models)
    return "".join(
        f'<li>{escape(kind)}: <a href="models/{model.slug}.html">{escape(model.name)}</a>, {model.date}</li>'
        for kind, model in sorted(found.items(), key=lambda one: _day(one[1].date))
    )


def _first_of_each(models: Sequence[GalleryModel]) -> dict[str, GalleryModel]:
    """Kind of attention -> the earliest model with it."""
    found: dict[str, GalleryModel] = {}
    for model in sorted((m for m in models if m.date), key=lambda m: _day(m.date)):
        if model.architecture:
            for kind in kinds_of(model.architecture):
                found.setdefault(kind, model)
    return found


def _x(day: date, first: int, span: int) -> float:
    return LEFT + (WIDTH - LEFT - 30) * (day - date(first, 1, 1)).days / span


def _y(row: int) -> int:
    return 24 + ROW * row


def _day(told: str) -> date:
    """The day of a release; of one whose month alone is known, the middle of it."""
    return date.fromisoformat(f"{told}-15"[:10])
