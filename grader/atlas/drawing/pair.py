"""Two figures side by side, with rings where they differ."""

from grader.atlas.architecture import Architecture
from grader.atlas.drawing.figure import PANEL, parts, row_names
from grader.atlas.drawing.svg import document


def pair(left: Architecture, right: Architecture) -> str:
    """One SVG file: left's panels in the first column, right's in the second, rings on what is not as in the other."""
    columns = [parts(left, right), parts(right, left)]
    shapes, gap, y = [], 12.0, 0.0
    for name in row_names(*columns):
        tallest = 0.0
        for which, column in enumerate(columns):
            for part in column:
                if part.name == name:
                    card = f'<rect class="card" x="0.5" y="0.5" width="{PANEL - 1}" height="{part.height - 1:.0f}"'
                    x = which * (PANEL + gap)
                    moved = f'<g transform="translate({x:.0f} {y:.0f})">'
                    shapes.append(f'{moved}\n{card} rx="10"/>\n{part.canvas.shapes()}\n</g>')
                    tallest = max(tallest, part.height)
        y += tallest + gap
    words = " ".join(part.description for column in columns for part in column[:1])
    return document("\n".join(shapes), (2 * PANEL + gap, y - gap), f"{left.name} and {right.name}", words)
