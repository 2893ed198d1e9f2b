"""Any config.json as facts, a figure, a difference and a gallery.

`read` makes an `Architecture` of a config; `figure` draws it; `card` shows both in a notebook.
"""

from typing import TYPE_CHECKING

from grader.lazy import on_first_use

if TYPE_CHECKING:
    from grader.atlas.architecture import Architecture as Architecture
    from grader.atlas.cache import caches as caches
    from grader.atlas.drawing import figure as figure
    from grader.atlas.fields import Fact as Fact
    from grader.atlas.opening import architecture_of as architecture_of
    from grader.atlas.panel import card as card
    from grader.atlas.reading import read as read
    from grader.atlas.shown_models import (
        GalleryModel as GalleryModel,
    )
    from grader.atlas.shown_models import (
        gallery_model as gallery_model,
    )
    from grader.atlas.shown_models import (
        gallery_models as gallery_models,
    )

__getattr__, __all__ = on_first_use(__name__, __file__)
