"""What a model keeps for every token it has read, told from its config.json: the size of its KV cache.

One number a token is enough for a model whose layers all see everything. With sliding windows, or layers that
keep a state of fixed size, there are two: bytes for one more token now, and bytes in total at a length. The atlas reads
the config; here it is counted, plotted and shown.
"""

from typing import TYPE_CHECKING

from grader.atlas.cache import LayerCache, readable
from grader.kv.models import known_model, known_models
from grader.kv.quantised import Quantised, quantised_bytes_at, quantised_bytes_per_token
from grader.kv.sizes import bytes_at, bytes_by_kind, bytes_per_token, layers
from grader.kv.ways import methods
from grader.lazy import on_first_use

if TYPE_CHECKING:
    from grader.kv.panel import kv_panel  # which needs widgets and matplotlib

__all__ = [
    "LayerCache",
    "Quantised",
    "bytes_at",
    "bytes_by_kind",
    "bytes_per_token",
    "known_model",
    "known_models",
    "kv_panel",
    "layers",
    "methods",
    "quantised_bytes_at",
    "quantised_bytes_per_token",
    "readable",
]
__getattr__, _ = on_first_use(__name__, __file__)
