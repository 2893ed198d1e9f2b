"""The model that transformers has for a checkpoint, where transformers is installed. A learner's `check` needs none."""

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def model(folder: Path, **settings: Any) -> Any:
    """transformers' model with the weights in `folder`, in float32 with eager attention; None without transformers.

    settings: of its generation, such as eos_token_id=None for a text without an end.
    """
    if importlib.util.find_spec("transformers") is None:
        return None
    from transformers import AutoModelForCausalLM, logging

    logging.disable_progress_bar()
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    loaded.eval()
    for name, value in settings.items():
        setattr(loaded.generation_config, name, value)
    return loaded


def written(reference: Any, ids: Tensor, tokens: int, pad_token_id: int = 0) -> list[int]:
    """What `model(...)` writes greedily after a prompt: ids [1, T] -> at most `tokens` new ids."""
    mask = torch.ones_like(ids)
    ids_and_new = reference.generate(
        ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False, pad_token_id=pad_token_id
    )
    new: list[int] = ids_and_new[0, ids.shape[1] :].tolist()
    return new
