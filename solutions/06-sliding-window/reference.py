"""What is right in 06-sliding-window: transformers' Gemma 3, what a ring holds, and the pieces of a prompt."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Gemma3TextConfig
from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding

from grader.authoring.kit import Config, hf
from grader.authoring.kit.toy import reference_generate


def reference_config(config: Mapping[str, Any]) -> Any:
    return hf.config(Gemma3TextConfig, config)


def rotations(config: Mapping[str, Any], positions: Tensor, kind: str) -> Tensor:
    """transformers' cosines and sines for a kind of layer: [2, T, head_dim]."""
    return hf.rope_table(Gemma3RotaryEmbedding(reference_config(config)), positions, kind)


def right_mask(queries: int, keys: int, window: int | None = None) -> Tensor:
    """The last rows of transformers' mask for the whole text."""
    return hf.visible(keys, window)[keys - queries :]


def walk_back(config: Config, length: int) -> int:
    """Follows transformers' masks from layer to layer, and counts from where something arrives at the last token."""
    types = reference_config({**config}).layer_types
    known = torch.eye(length)
    for kind in types:
        known = (
            (hf.visible(length, config.sliding_window if kind == "sliding_attention" else None).float() @ known) > 0
        ).float()
    return int(known[-1].sum()) - 1


def call_attention(module: Any, x: Tensor, table: Tensor, window: Any, *_: Any) -> Tensor:
    """transformers' attention on the whole text at once."""
    return hf.call_part(module, x, table, hf.visible(x.shape[1], window))


def right_numbers(module: Any, x: Tensor, *_: Any) -> Tensor:
    return torch.tensor([2 * len(x) * x.shape[1] * module.config.num_key_value_heads * module.config.head_dim])


def right_ring_in_turns(kv: Tensor, window: int, chunks: list[int]) -> Tensor:
    """The same for rings."""
    return torch.cat([right_ring(sign * kv, window, chunks) for sign in (1, -1)], dim=2)


def right_ring(kv: Tensor, window: int, chunks: list[int]) -> Tensor:
    """What comes back from a cache that is right: slices of the whole since the last reset."""
    start, begin = 0, 0
    contents: list[Tensor] = []
    for size in chunks:
        if size == 0:
            begin = start
            contents.clear()
        else:
            first = max(begin, start - window + 1)
            contents.append(torch.cat([*kv[:, :, :, first : start + size]], dim=-1))
            start += size
    return torch.cat(contents, dim=2)


def right_pieces(toy: Any, ids: Tensor, new_tokens: int, end: Any, chunk: int) -> list[int]:
    """A prompt in pieces, then single tokens."""
    length, tokens = ids.shape[1], len(reference_generate(toy, ids, new_tokens, end))
    return [*[chunk] * (length // chunk), *([length % chunk] if length % chunk else []), *[1] * (tokens - 1)]


def right_written(toy: Any, ids: Tensor, new_tokens: int, end: Any, chunk: int) -> Any:
    return reference_generate(toy, ids, new_tokens, end)


def right_reading(toy: Any, ids: Tensor, new_tokens: int, end: Any, chunk: int) -> list[int]:
    """As few pieces as there can be; their lengths are free."""
    pieces = right_pieces(toy, ids, new_tokens, end, chunk)
    return [len(pieces), sum(pieces), 0]


def right_nats(ids: Tensor, embedding: Tensor, mixing: Tensor, contexts: Sequence[int]) -> list[float]:
    """The loss of `drives.SmallReader` in float64, one token and one context at a time."""
    rows, mixing, first = embedding.double(), mixing.double(), max(contexts)

    def surprise(t: int, context: int) -> float:
        state = torch.zeros(len(mixing), dtype=torch.float64)
        for token in ids[t - context : t]:
            state = torch.tanh(rows[token] + state @ mixing)
        return -float((rows @ state).log_softmax(dim=0)[ids[t]])

    predicted = range(first, len(ids))
    return [sum(surprise(t, context) for t in predicted) / len(predicted) for context in contexts]
