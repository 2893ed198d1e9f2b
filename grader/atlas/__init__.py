"""Any config.json as facts, a figure, a difference and a gallery."""

from grader.atlas.architecture import Architecture, read
from grader.atlas.cache import caches
from grader.atlas.fields import Fact

__all__ = ["Architecture", "Fact", "caches", "read"]
