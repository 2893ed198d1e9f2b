"""Puts the panels of a figure together: the model, its kinds of attention, its kinds of MLP."""

from dataclasses import dataclass

from grader.atlas.architecture import Architecture
from grader.atlas.drawing import attention, mlp, model, state
from grader.atlas.drawing.svg import Canvas, document
from grader.atlas.drawing.words import mixer_lines, mixers, mlp_lines, mlps, pattern_words

PANEL = model.WIDTH


@dataclass(frozen=True)
class Part:
    """One panel. name: ``model``, ``attention``, ``mlp``, with a number from the second of a kind on."""

    name: str
    title: str
    description: str
    canvas: Canvas
    height: float

    @property
    def svg(self) -> str:
        """The panel as a file."""
        return self.canvas.written(PANEL, self.height, self.title, self.description)


def parts(architecture: Architecture, against: Architecture | None = None) -> list[Part]:
    """The panels of a figure, each 440 pixels wide. against: what is not as there has an orange ring."""
    canvas, height = model.draw(architecture, against)
    found = [Part("model", architecture.name, describe(architecture), canvas, height)]
    for i, (mixer, _) in enumerate(_distinct(architecture)):
        title = _mixer_title(architecture, i)
        kind = state if mixer.has_state else attention
        drawn, height = kind.draw(mixer, architecture.width, title)
        name = "attention" if i == 0 else f"attention-{i + 1}"
        found.append(Part(name, f"{architecture.name}: {title}", kind.describe(mixer), drawn, height))
    for i, (part, _) in enumerate(mlps(architecture)):
        title = part.label if not part.experts else f"{part.experts} {part.label}"
        drawn, height = mlp.draw(part, architecture.width, title)
        name = "mlp" if i == 0 else f"mlp-{i + 1}"
        words = mlp.describe(part, architecture.width)
        found.append(Part(name, f"{architecture.name}: {title}", words, drawn, height))
    return found


def _distinct(architecture: Architecture) -> list[tuple[object, int]]:  # type: ignore[type-arg]
    """Kinds of mixers whose panels differ: a window alone makes no other panel when heads are the same."""
    return list(mixers(architecture))  # type: ignore[return-value]


def _mixer_title(architecture: Architecture, index: int) -> str:
    found = mixers(architecture)
    mixer, number = found[index]
    if len(found) == 1:
        return mixer.label
    return f"{mixer.label}, in {number} layers"


def figure(architecture: Architecture, against: Architecture | None = None) -> str:
    """All panels in one SVG file, side by side, at most three in a row."""
    found = parts(architecture, against)
    gap, shapes, x, y, row = 12.0, [], 0.0, 0.0, 0.0
    columns = min(len(found), 3)
    heights = []
    for i, part in enumerate(found):
        if i and i % columns == 0:
            y, x, row = y + row + gap, 0.0, 0.0
        card = f'<rect class="card" x="0.5" y="0.5" width="{PANEL - 1}" height="{part.height - 1:.0f}" rx="10"/>'
        shapes.append(f'<g transform="translate({x:.0f} {y:.0f})">\n{card}\n{part.canvas.shapes()}\n</g>')
        x, row = x + PANEL + gap, max(row, part.height)
        heights.append(y + part.height)
    width = columns * PANEL + (columns - 1) * gap
    words = " ".join(part.description for part in found)
    return document("\n".join(shapes), (width, max(heights)), architecture.name, words)


def describe(architecture: Architecture) -> str:
    """The first panel in words."""
    mixing = " or ".join(", ".join(mixer_lines(mixer)) for mixer, _ in mixers(architecture))
    working = " or ".join(", ".join(mlp_lines(part, architecture.width)) for part, _ in mlps(architecture))
    pattern = pattern_words(architecture)
    return (
        f"{architecture.name}: {model.subtitle(architecture)}. From the token embedding the residual stream runs through"
        f" {len(architecture.layers)} layers{f' ({pattern})' if pattern else ''} to the output head. Each layer adds:"
        f" {mixing}; and: {working or 'no MLP'}. {architecture.facts['norm'].value}"
        f" {architecture.facts['norms stand'].value}."
    )
