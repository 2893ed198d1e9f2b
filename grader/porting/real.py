"""A trace of a model with its real weights, from a folder on this machine."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from grader.config import Config
from grader.errors import GraderError, last_line
from grader.lessons.exercise import Draw
from grader.porting.filling import tokens
from grader.porting.floor import with_floors
from grader.porting.runs import ONE_PASS, Ways, traced
from grader.porting.sizes import TOKENS
from grader.quiet import quiet_transformers
from grader.recordings.traces import Trace

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True)
class RealModel:
    """A model of a folder. kind: its class. size: how many parameters it has. trace: a pass over random tokens."""

    kind: str
    size: int
    trace: Trace


def real_model(
    folder: Path, dtype: torch.dtype = torch.float32, length: int = TOKENS, ways: Ways = ONE_PASS
) -> RealModel:
    """Trace the model in a folder as transformers saves one: its config.json and its weights. Nothing is downloaded.

    length: how many random tokens it is given. ways: how it is run besides. Raises GraderError where the folder holds
    no such model.
    """
    if not folder.is_dir():
        raise GraderError(
            f"{folder} {'is no folder' if folder.exists() else 'does not exist'}. --weights takes a model's folder."
        )
    fields = dict(Config.read(folder / "config.json"))
    if not any(any(folder.glob(pattern)) for pattern in WEIGHTS):
        raise GraderError(
            f"{folder} holds a config.json and no weights ({', '.join(WEIGHTS)}). Without --weights none are needed."
        )
    with quiet_transformers():
        model = _loaded(folder, dtype)
        text = model.config.get_text_config(decoder=True)
        draw = Draw("trace", type(model).__name__)
        ids = tokens(text.vocab_size, draw, length)
        with contextlib.suppress(AttributeError):
            model.set_experts_implementation("eager")
        trace = with_floors(traced(model, ids, fields, ways), model)
    size = sum(parameter.numel() for parameter in model.parameters())
    return RealModel(type(model).__name__, size, trace)


def _loaded(folder: Path, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"local_files_only": True, "dtype": dtype, "attn_implementation": "eager"}
    options["trust_remote_code"] = False  # nothing in the folder is run, and nobody is asked
    try:
        return AutoModelForCausalLM.from_pretrained(folder, **options).eval()
    except Exception as error:  # transformers may refuse it in any way
        raise GraderError(
            f"transformers can't load {folder}: {last_line(error)} It needs the config.json and weights of a causal"
            " language model that this transformers knows; `grader trace` without --weights makes a small random one."
        ) from None
