"""Any config.json as facts, a figure, a difference and a gallery.

`read` makes an `Architecture` of a config; `figure` draws it; `card` shows both in a notebook.
"""

from typing import TYPE_CHECKING, Any

from grader.atlas.architecture import Architecture, read
from grader.atlas.cache import caches
from grader.atlas.fields import Fact
from grader.atlas.gallery_models import GalleryModel, gallery_model, gallery_models
from grader.atlas.opening import architecture_of

if TYPE_CHECKING:
    from grader.atlas.drawing import figure
    from grader.atlas.panel import card

__all__ = [
    "Architecture",
    "Fact",
    "GalleryModel",
    "architecture_of",
    "caches",
    "card",
    "figure",
    "gallery_model",
    "gallery_models",
    "read",
]


def __getattr__(name: str) -> Any:
    """What draws, on first use."""
    if name == "figure":
        from grader.atlas.drawing import figure

        return figure
    if name == "card":
        from grader.atlas.panel import card

        return card
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
