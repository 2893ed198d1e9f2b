"""How many parameters transformers' own model of a config has: built on the meta device, so that nothing is allocated."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.initialization import no_init_weights


def parameters(kind: str, fields: Mapping[str, Any]) -> int:
    """The parameters of the model that the class of `kind` makes of these fields, a tied weight counted once."""
    return _counted(kind, json.dumps(dict(fields), sort_keys=True))


@cache
def _counted(kind: str, written: str) -> int:
    """One build for each config: lessons and the gallery name some more than once."""
    config = AutoConfig.for_model(kind, **json.loads(written))
    config.pad_token_id = None  # by default it may lie beyond a small vocabulary
    with torch.device("meta"), no_init_weights():
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()  # transformers ties in its initialization, which was skipped
    return sum(parameter.numel() for parameter in model.parameters())
