"""How many parameters transformers' own model of a config has, and what they are called: built on the meta device."""

import contextlib
import gc
import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.initialization import no_init_weights


def parameters(kind: str, fields: Mapping[str, Any]) -> int:
    """The parameters of the model that the class of `kind` makes of these fields, a tied weight counted once."""
    return _built(kind, json.dumps(dict(fields), sort_keys=True))[0]


def names(kind: str, fields: Mapping[str, Any]) -> frozenset[str]:
    """Every word in the names of its parameters: ``self_attn``, ``q_proj``, ``weight``."""
    return _built(kind, json.dumps(dict(fields), sort_keys=True))[1]


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without searches for garbage, which many new objects set off: a third of the time that a build takes."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@cache
def _built(kind: str, written: str) -> tuple[int, frozenset[str]]:
    """One build for each config: lessons and the gallery name some more than once."""
    config = AutoConfig.for_model(kind, **json.loads(written))
    config.pad_token_id = None  # by default it may lie beyond a small vocabulary
    with torch.device("meta"), no_init_weights(), _uncollected():
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()  # transformers ties in its initialization, which was skipped
    found = dict(model.named_parameters())
    words = frozenset(word for name in found for word in name.split("."))
    return sum(parameter.numel() for parameter in found.values()), words
