"""What reads a reference of transformers': its config and its names, and what it gives for a text."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Gemma3TextConfig
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask


def config(kind: type[Any], fields: Mapping[str, Any], **more: Any) -> Any:
    """transformers' config of class `kind` for a learner's fields: eager attention, and experts one after the other.

    A field that is None is left out, for `kind` fills in a value; there are no tokens that begin, end or fill a text,
    which a small vocabulary lacks. more: what overrides both.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    no_ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    made = kind(**(given | no_ends | {"attn_implementation": "eager"} | more))
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


def without(*parts: str, endings: tuple[str, ...] = (), prefix: str = "") -> Callable[[str], str | None]:
    """`renamed` of an exercise whose solution lacks some modules of the reference: names with a part, or an ending.

    prefix: what the other names are without.
    """

    def renamed(name: str) -> str | None:
        return None if name.endswith(endings) or any(part in name for part in parts) else name.removeprefix(prefix)

    return renamed


NO_MODULES = ("act_fn", "rotary_emb")  # what is a module in transformers alone: the activation, the rotations


def rope_table(rotary: nn.Module, positions: Tensor, *kind: str) -> Tensor:
    """The cosines and sines of one of transformers' rotary embeddings at positions [T]: [2, T, channels].

    kind: of the layer, where it has tables for several.
    """
    cos, sin = rotary(torch.zeros(()), positions[None], *kind)
    return torch.stack([cos[0], sin[0]])


def causal_mask(config: Any, x: Tensor) -> Tensor:
    """The mask that a model hands its layers for x [B, T, hidden_size], written out: [1 or B, 1, T, T]."""
    more = {"attention_mask": None, "cache": None, "allow_is_causal_skip": False}
    mask: Tensor = create_causal_mask(config=config, inputs_embeds=x, **more)
    return mask


def visible(length: int, window: int | None = None) -> Tensor:
    """transformers' mask for a whole text, True where a key may be seen: [length, length].

    window: how many tokens a query sees, itself included; all if None.
    """
    eager = config(Gemma3TextConfig, {"sliding_window": window or length})
    make = create_causal_mask if window is None else create_sliding_window_causal_mask
    mask = make(config=eager, inputs_embeds=torch.zeros(1, length, 1), attention_mask=None, cache=None)
    return torch.ones(length, length, dtype=torch.bool) if mask is None else mask[0, 0] == 0


def call_part(module: Any, x: Tensor, table: Tensor | None = None, seen: Tensor | None = None) -> Tensor:
    """What an attention or a layer gives for x [B, T, hidden_size] with the mask and rotations that a model hands it.

    table: cosines and sines [2, T, channels], if it rotates. seen: where a key may be seen, [T, T] bool; None: causal.
    """
    if seen is None:
        attention = getattr(module, "attn", None) or getattr(module, "self_attn", module)
        mask = causal_mask(attention.config, x)
    else:
        mask = torch.zeros(seen.shape, dtype=x.dtype).masked_fill(~seen, torch.finfo(x.dtype).min)[None, None]
    more = {} if table is None else {"position_embeddings": tuple(table.to(x.dtype)[:, None])}
    output = module(x, attention_mask=mask, **more)
    first: Tensor = output[0] if isinstance(output, tuple) else output
    return first
