"""A learner's own program with a checkpoint's weights."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from grader.checkpoints.checkpoint import Checkpoint
from grader.checks.probe.running import learner_traceback, stub_of
from grader.errors import GraderError
from grader.layers.own_model import load_model
from grader.tolerance import distance

CLOSE = 1e-3  # of logits of a whole model in float32, as of `distance`: rounding alone reaches 1e-5
PROBE = "It is a truth universally acknowledged, that a single man in possession of 20,000 pounds"


def model_with(target: str, checkpoint: Checkpoint) -> nn.Module:
    """The model that `target` names (``qwen3.ipynb:CausalLM``), with the checkpoint's weights, in eval mode.

    Raises GraderError where there is no such model, where it is not written yet, and where the weights do not fit.
    """
    made = load_model(target)
    if isinstance(made, nn.Module):
        checkpoint.load_into(made)
        return made.eval()
    try:
        built: nn.Module = checkpoint.build(made)
    except GraderError:
        raise
    except Exception as error:  # the learner's code may raise anything
        if isinstance(error, NotImplementedError) and (name := stub_of(error)):
            raise GraderError(f"{target} can't be built: {name} is not written yet.") from None
        raise GraderError("\n  ".join((f"{target} can't be built:", *learner_traceback(error)))) from None
    return built


def called(function: Any, *arguments: Any) -> Any:
    """What the learner's code returns. Raises GraderError with their own lines where it fails."""
    try:
        return function(*arguments)
    except NotImplementedError as error:
        if name := stub_of(error):
            raise GraderError(f"{name} is not written yet. Write it first.") from None
        raise GraderError("\n  ".join(("your model fails:", *learner_traceback(error)))) from None
    except Exception as error:  # the learner's code may raise anything
        raise GraderError("\n  ".join(("your model fails:", *learner_traceback(error)))) from None


def agreement(model: nn.Module, target: str, checkpoint: Checkpoint) -> Callable[[Any], None]:
    """What `export_model` asks of transformers' model: the learner's logits of a text, [1, T, vocab_size].

    It raises GraderError where they are others, and says how to find the layer.
    """
    ids = torch.tensor([checkpoint.tokenizer.encode(PROBE).ids])

    def require(theirs: Any) -> None:
        with torch.no_grad():
            mine, wanted = called(model, ids), theirs(ids).logits
        if not isinstance(mine, Tensor) or mine.shape != wanted.shape:
            got = tuple(mine.shape) if isinstance(mine, Tensor) else type(mine).__name__
            raise GraderError(f"{target} gives {got} for ids of [1, {ids.shape[1]}], not {tuple(wanted.shape)}.")
        apart = distance(mine.float(), wanted.float())
        if apart > CLOSE:
            raise GraderError(
                f"with these weights {target} computes other logits than transformers' {type(theirs).__name__}: up to"
                f" {float((mine - wanted).abs().max()):.2g} apart. Nothing was written. To find the layer:\n"
                f"  grader trace {checkpoint.folder} --weights --to trace.safetensors\n"
                f"  grader compare {target} trace.safetensors"
            )

    return require
