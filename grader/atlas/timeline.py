"""When which kind of attention came: a line of dots for each kind."""

from collections.abc import Sequence
from datetime import date
from html import escape

from grader.atlas.architecture import Architecture
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
LEFT, ROW, WIDTH = 130, 34, 1180


def kinds_of(model: Architecture) -> list[str]:
    """Which of KINDS its layers are, in the order of KINDS."""
    found = set()
    for layer in model.layers:
        mixer = layer.mixer
        if mixer is None or mixer.kind == "conv":
            continue
        if mixer.kind in ("delta", "kda", "lightning"):
            found.add("linear")
        elif mixer.kind in ("mamba", "mamba2"):
            found.add("state space")
        elif mixer.kind == "compressed":
            found.add("compressed")
        elif mixer.kind == "latent":
            found |= {"latent (MLA)"} | ({"sparse"} if mixer.index else set())
        else:
            found.add(LABELS.get(mixer.label, "grouped-query"))
            found |= {"sliding window"} if mixer.window else set()
    return [kind for kind in KINDS if kind in found]


def timeline(models: Sequence[GalleryModel]) -> str:
    """Two SVGs side by side: the kinds, which stay in sight, and a dot for each model whose date is known.

    A dot is a link to the model's page. Both are drawn at their own size, so that rows and names stay level.
    """
    dated = [(model, _day(model.date)) for model in models if model.architecture and model.date]
    first, last = min(day for _, day in dated).year, max(day for _, day in dated).year + 1
    span = (date(last, 1, 1) - date(first, 1, 1)).days
    height = ROW * len(KINDS) + 40
    shapes = []
    for year in range(first, last + 1):
        x = _x(date(year, 1, 1), first, span)
        shapes.append(f'<line x1="{x:.0f}" x2="{x:.0f}" y1="8" y2="{height - 28}"/>')
        shapes.append(f'<text class="m" x="{x:.0f}" y="{height - 10}" text-anchor="middle">{year}</text>')
    names = "".join(
        f'<text x="{LEFT - 14}" y="{_y(row) + 4}" text-anchor="end">{escape(kind)}</text>'
        for row, kind in enumerate(KINDS)
    )
    taken: set[tuple[int, int]] = set()
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
    return (
        f'<svg class="timeline kinds" width="{LEFT}" height="{height}" aria-hidden="true">{names}</svg>'
        f'<svg class="timeline" viewBox="{LEFT - 20} 0 {WIDTH - LEFT + 20} {height}" width="{WIDTH - LEFT + 20}"'
        f' height="{height}" role="group" aria-label="Models by date and attention">' + "".join(shapes) + "</svg>"
    )


def firsts(models: Sequence[GalleryModel]) -> str:
    """List items: of each kind of attention the earliest model with it, by when it came."""
    found: dict[str, GalleryModel] = {}
    for model in sorted((m for m in models if m.date), key=lambda m: _day(m.date)):
        if model.architecture:
            for kind in kinds_of(model.architecture):
                found.setdefault(kind, model)
    return "".join(
        f'<li>{escape(kind)}: <a href="models/{model.slug}.html">{escape(model.name)}</a>, {model.date}</li>'
        for kind, model in sorted(found.items(), key=lambda one: _day(one[1].date))
    )


def _x(day: date, first: int, span: int) -> float:
    return LEFT + (WIDTH - LEFT - 30) * (day - date(first, 1, 1)).days / span


def _y(row: int) -> int:
    return 24 + ROW * row


def _day(told: str) -> date:
    """The day of a release; of one whose month alone is known, the middle of it."""
    return date.fromisoformat(f"{told}-15"[:10])
