"""Check modules against recorded activations, compare models layer by layer, and match generated text.

from grader import case, check, check_generation, compare_layers, load_checkpoint, step
"""

import gc
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grader.checkpoints import load_checkpoint
    from grader.checks.check import check
    from grader.checks.experiment import case
    from grader.checks.generation import check_generation
    from grader.config import Config
    from grader.errors import CheckFailed, GraderError
    from grader.layers.own_model import load_model
    from grader.porting.compare import compare_layers
    from grader.recordings.tracefile import read_trace
    from grader.recordings.tracing import trace_of
    from grader.steps import step

_HOMES = {
    "CheckFailed": "grader.errors",
    "Config": "grader.config",
    "GraderError": "grader.errors",
    "case": "grader.checks.experiment",
    "check": "grader.checks.check",
    "check_generation": "grader.checks.generation",
    "compare_layers": "grader.porting.compare",
    "load_checkpoint": "grader.checkpoints",
    "load_model": "grader.layers.own_model",
    "read_trace": "grader.recordings.tracefile",
    "step": "grader.steps",
    "trace_of": "grader.recordings.tracing",
}

__all__ = [
    "CheckFailed",
    "Config",
    "GraderError",
    "case",
    "check",
    "check_generation",
    "compare_layers",
    "load_checkpoint",
    "load_model",
    "read_trace",
    "step",
    "trace_of",
]


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import grader` alone is quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'grader' has no attribute {name!r}")
    collecting = gc.isenabled()
    gc.disable()  # else one collection in the middle walks through all of torch, which takes as long as the import
    try:
        value = getattr(import_module(_HOMES[name]), name)
    finally:
        if collecting:
            gc.enable()
    globals()[name] = value
    return value
