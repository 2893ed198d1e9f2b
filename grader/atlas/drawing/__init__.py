"""The figure of an architecture, as SVG."""

from grader.atlas.drawing.asked import figure_of_asked
from grader.atlas.drawing.figure import figure, parts

__all__ = ["figure", "figure_of_asked", "parts"]
