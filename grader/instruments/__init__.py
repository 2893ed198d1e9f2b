"""What lessons and authors measure and draw with."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grader.instruments.panel import Panel, Shown

__all__ = ["Panel", "Shown"]


def __getattr__(name: str) -> Any:
    """Panels on first use: they need widgets and matplotlib, and what else stands here does not."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from grader.instruments import panel

    return getattr(panel, name)
