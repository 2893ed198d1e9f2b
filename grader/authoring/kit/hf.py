"""What reads a reference of transformers': its config and its names, and what it gives for a text."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import create_causal_mask


def config(kind: type[Any], fields: Mapping[str, Any], **more: Any) -> Any:
    """transformers' config of class `kind` for a learner's fields: eager attention, and experts one after the other.

    A field that is None is left out, for `kind` fills in a value; there are no tokens that begin or end a text, which a
    small vocabulary lacks. more: what overrides both.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    made = kind(**(given | {"bos_token_id": None, "eos_token_id": None, "attn_implementation": "eager"} | more))
    made._experts_implementation = "eager"
    return made


def hidden_states(module: nn.Module, ids: Tensor, *_: Any) -> Tensor:
    """What a model without a head gives for ids [B, T], all at once: [B, T, hidden_size]. _: what else drives get."""
    found: Tensor = module(input_ids=ids, use_cache=False).last_hidden_state
    return found


def logits(module: nn.Module, ids: Tensor, *_: Any) -> Tensor:
    """As `hidden_states`, of a model with a head: [B, T, vocab_size]."""
    found: Tensor = module(input_ids=ids, use_cache=False).logits
    return found


def without(*parts: str, endings: tuple[str, ...] = ()) -> Callable[[str], str | None]:
    """`renamed` of an exercise whose solution lacks some modules of the reference: names with a part, or an ending."""
    return lambda name: None if name.endswith(endings) or any(part in name for part in parts) else name


NO_MODULES = ("act_fn", "rotary_emb")  # what is a module in transformers alone: the activation, the rotations


def rope_table(rotary: nn.Module, positions: Tensor) -> Tensor:
    """The cosines and sines of one of transformers' rotary embeddings at positions [T]: [2, T, channels]."""
    cos, sin = rotary(torch.zeros(()), positions[None])
    return torch.stack([cos[0], sin[0]])


def causal_mask(config: Any, x: Tensor) -> Tensor:
    """The mask that a model hands its layers for x [B, T, hidden_size], written out: [1 or B, 1, T, T]."""
    more = {"attention_mask": None, "cache": None, "allow_is_causal_skip": False}
    mask: Tensor = create_causal_mask(config=config, inputs_embeds=x, **more)
    return mask
