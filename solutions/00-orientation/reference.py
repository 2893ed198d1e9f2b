"""What is right in 00-orientation: how many parameters transformers makes."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM


def reference_count(config: Mapping[str, Any]) -> int:
    """How many parameters transformers makes for a config; a tied head is one tensor and counts once."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config, bos_token_id=None, eos_token_id=None))
    return sum(parameter.numel() for parameter in model.parameters())
