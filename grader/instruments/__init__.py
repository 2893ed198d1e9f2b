"""What lessons and authors measure and draw with.

clock      milliseconds of a call, several calls in turns
work       multiply-adds, bytes copied, bytes held, the largest tensor, the operators of a call
patch      a program with one part exchanged; what goes in and out of a model's parts
plots      lines, bars, grids and masks, as pictures with words
progress   a bar with the time that is left
writing    text as it is generated
tables     tables in plain text
reference  transformers' model for a checkpoint, where transformers is installed
panel      controls over a picture
rounding   another processor, simulated

A notebook takes what it needs: `from grader.instruments import clock, plots`. Nothing is imported before.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grader.instruments import clock, patch, plots, progress, reference, rounding, tables, work, writing
    from grader.instruments.panel import Panel, Shown

MODULES = ("clock", "patch", "plots", "progress", "reference", "rounding", "tables", "work", "writing")

__all__ = [
    "Panel",
    "Shown",
    "clock",
    "patch",
    "plots",
    "progress",
    "reference",
    "rounding",
    "tables",
    "work",
    "writing",
]


def __getattr__(name: str) -> Any:
    """On first use: panels and plots need widgets and matplotlib, and what else stands here does not."""
    if name in MODULES:
        return import_module(f"grader.instruments.{name}")
    if name not in ("Panel", "Shown"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from grader.instruments import panel

    return getattr(panel, name)
