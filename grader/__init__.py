"""Check modules against recorded activations, compare models layer by layer, and match generated text.

from grader import case, check, check_generation, compare_layers, load_checkpoint, measured, predict, step
"""

from typing import TYPE_CHECKING

from grader.lazy import on_first_use

if TYPE_CHECKING:
    from grader.checkpoints import load_checkpoint as load_checkpoint
    from grader.checks.check import check as check
    from grader.checks.experiment import case as case
    from grader.checks.generation import check_generation as check_generation
    from grader.config import Config as Config
    from grader.errors import CheckFailed as CheckFailed
    from grader.errors import GraderError as GraderError
    from grader.instruments.prediction import measured as measured
    from grader.instruments.prediction import predict as predict
    from grader.instruments.prediction import predictions as predictions
    from grader.layers.own_model import load_model as load_model
    from grader.porting.compare import compare_layers as compare_layers
    from grader.recordings.tracefile import read_trace as read_trace
    from grader.recordings.tracing import trace_of as trace_of
    from grader.steps import step as step

__getattr__, __all__ = on_first_use(__name__, __file__)
