"""What a ring, and a model that reads a prompt in pieces, must give."""

from typing import Any

import torch
from torch import Tensor

from grader.authoring.kit.toy import reference_generate


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
