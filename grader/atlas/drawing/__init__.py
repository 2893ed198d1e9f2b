"""The figure of an architecture, as SVG."""

from grader.atlas.drawing.figure import figure, parts

__all__ = ["figure", "parts"]
