"""Any config.json as facts, a figure, a difference and a gallery.

`read` makes an `Architecture` of a config; `figure` draws it; `card` shows both in a notebook.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grader.atlas.architecture import Architecture, read
    from grader.atlas.cache import caches
    from grader.atlas.drawing import figure
    from grader.atlas.fields import Fact
    from grader.atlas.opening import architecture_of
    from grader.atlas.panel import card
    from grader.atlas.shown_models import GalleryModel, gallery_model, gallery_models

_HOMES = {
    "Architecture": "grader.atlas.architecture",
    "Fact": "grader.atlas.fields",
    "GalleryModel": "grader.atlas.shown_models",
    "architecture_of": "grader.atlas.opening",
    "caches": "grader.atlas.cache",
    "card": "grader.atlas.panel",
    "figure": "grader.atlas.drawing",
    "gallery_model": "grader.atlas.shown_models",
    "gallery_models": "grader.atlas.shown_models",
    "read": "grader.atlas.architecture",
}

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
    """Import on first use, so that `import grader.atlas` alone is quick."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
