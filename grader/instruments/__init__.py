"""What lessons and authors measure and draw with."""

from grader.instruments.panel import Panel, Shown

__all__ = ["Panel", "Shown"]
