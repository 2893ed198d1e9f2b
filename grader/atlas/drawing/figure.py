"""Puts the panels of a figure together: the model, its kinds of attention, its kinds of MLP."""

from collections.abc import Sequence
from dataclasses import dataclass

from grader.atlas.architecture import Architecture
from grader.atlas.drawing import attention, mlp, model, state
from grader.atlas.drawing.header import WIDTH, stretched, subtitle
from grader.atlas.drawing.svg import Canvas, document
from grader.atlas.drawing.words import Group, alike, all_mlps, group_lines, mixer_lines, mlp_lines, pattern_words

PANEL = WIDTH


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

    def placed(self, x: float, y: float) -> str:
        """The panel as a part of a larger figure, on a card of its own with its corner there."""
        card = f'<rect class="card" x="0.5" y="0.5" width="{PANEL - 1}" height="{self.height - 1:.0f}" rx="10"/>'
        return f'<g transform="translate({x:.0f} {y:.0f})">\n{card}\n{self.canvas.shapes()}\n</g>'


def parts(architecture: Architecture, against: Architecture | None = None) -> list[Part]:
    """The panels of a figure, each 440 pixels wide. against: what is not as there has an orange ring."""
    canvas, height = model.draw(architecture, against)
    found = [Part("model", architecture.name, describe(architecture), canvas, height)]
    groups, mixing = alike(architecture), 0
    for group in groups:
        mixer, number = group[0][0], sum(count for _, count in group)
        title = mixer.label if len(groups) == 1 else f"{mixer.label}, in {number} layer{'s' * (number > 1)}"
        if architecture.traits.double:
            title += ", two a layer"
        if mixer.has_state:
            drawn, height = state.draw(mixer, architecture.width, title)
        else:
            drawn, height = attention.draw(mixer, architecture.width, title, _seen(group))
        panels = [(title, "; ".join(mixer_lines(mixer)), drawn, height)]
        if mixer.beside:  # Falcon-H1's
            title = f"{mixer.beside.label}, beside attention"
            words = "; ".join(mixer_lines(mixer.beside))
            panels.append((title, words, *state.draw(mixer.beside, architecture.width, title)))
        for title, words, drawn, height in panels:
            mixing += 1
            name = "attention" if mixing == 1 else f"attention-{mixing}"
            found.append(Part(name, f"{architecture.name}: {title}", f"{words}.", drawn, height))
    for i, (part, _) in enumerate(all_mlps(architecture)):
        title = part.label if not part.experts else f"{part.experts} {part.label}"
        title += ", by the token's id" * part.hashed
        if architecture.traits.double and not part.experts:
            title += ", behind each attention"
        drawn, height = mlp.draw(part, architecture.width, title)
        name = "mlp" if i == 0 else f"mlp-{i + 1}"
        words = "; ".join(mlp_lines(part, architecture.width))
        found.append(Part(name, f"{architecture.name}: {title}", f"{words}.", drawn, height))
    return found


def row_names(*figures: Sequence[Part]) -> list[str]:
    """The names of all panels of these figures, in a figure's order: attention stands beside attention."""
    names = {part.name: None for found in figures for part in found}
    kinds = ("model", "attention", "mlp")
    return sorted(names, key=lambda name: (kinds.index(name.partition("-")[0]), name))


def _seen(group: Group) -> str:
    """Which tokens the layers of a panel see, where not all of them see all."""
    if not any(mixer.window for mixer, _ in group):
        return ""
    if len(group) == 1:
        return attention.seen_by(group[0][0])
    return ", ".join(f"{attention.seen_by(mixer) or 'all'} in {number} layers" for mixer, number in group)


def figure(architecture: Architecture, against: Architecture | None = None) -> str:
    """All panels in one SVG file, in at most three columns: each goes below what ends highest."""
    found, gap = parts(architecture, against), 12.0
    bottoms = [0.0] * min(len(found), 3)
    shapes = []
    for part in found:
        column = bottoms.index(min(bottoms))
        shapes.append(part.placed(column * (PANEL + gap), bottoms[column]))
        bottoms[column] += part.height + gap
    size = (len(bottoms) * (PANEL + gap) - gap, max(bottoms) - gap)
    words = " ".join(part.description for part in found)
    return document("\n".join(shapes), size, architecture.name, words)


def describe(architecture: Architecture) -> str:
    """The first panel in words."""
    mixing = " or ".join(", ".join(group_lines(group)) for group in alike(architecture))
    working = " or ".join(", ".join(mlp_lines(part, architecture.width)) for part, _ in all_mlps(architecture))
    pattern = pattern_words(architecture)
    layers = f"{len(architecture.layers)} layers{f' ({pattern})' if pattern else ''}"
    size = ", ".join(filter(None, [subtitle(architecture), stretched(architecture)]))
    return (
        f"{architecture.name}: {size}."
        f" From the token embedding the residual stream runs through {layers} to the output head."
        f" Each layer adds: {mixing}; and: {working or 'no MLP'}."
        f" {architecture.facts['norm'].value} {architecture.facts['norms stand'].value}."
    )
