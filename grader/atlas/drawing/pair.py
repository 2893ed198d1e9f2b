"""Two figures side by side, with rings where they differ."""

from grader.atlas.architecture import Architecture
from grader.atlas.drawing.figure import PANEL, parts, row_names
from grader.atlas.drawing.svg import document


def pair(left: Architecture, right: Architecture) -> str:
    """One SVG file: left's panels in the first column, right's in the second, rings on what is not as in the other."""
    columns = [parts(left, right), parts(right, left)]
    shapes, gap, y = [], 12.0, 0.0
    for name in row_names(*columns):
        row = [(which, part) for which, column in enumerate(columns) for part in column if part.name == name]
        shapes += [part.placed(which * (PANEL + gap), y) for which, part in row]
        y += max(part.height for _, part in row) + gap
    words = " ".join(part.description for column in columns for part in column[:1])
    return document("\n".join(shapes), (2 * PANEL + gap, y - gap), f"{left.name} and {right.name}", words)
