"""What a cache of keys and values, and a model that reads with it, must give."""

from collections.abc import Sequence

import torch
from torch import Tensor

from grader.authoring.kit.caches import right_fill
from grader.authoring.kit.toy import ToyLM, reference_generate


def right_rows_read(toy: ToyLM, ids: Tensor, new_tokens: int, end: int | None) -> int:
    """How many ids a model with a cache is given: each token is read once, and the last need not be."""
    return ids.shape[1] + len(reference_generate(toy, ids, new_tokens, end)) - 1


def right_contents(kv: Tensor, capacity: int, chunks: Sequence[int]) -> Tensor:
    """What every append since the last reset returns, one behind the other."""
    return torch.cat(right_fill(kv, capacity, chunks).contents, dim=2)


def right_contents_in_turns(kv: Tensor, capacity: int, chunks: Sequence[int]) -> Tensor:
    """What every append returns in two caches that are filled in turns, the second with the negatives."""
    return torch.cat([right_contents(sign * kv, capacity, chunks) for sign in (1, -1)], dim=2)


def right_last(kv: Tensor, capacity: int, chunks: Sequence[int]) -> Tensor:
    """What the last append returns that fits."""
    return right_fill(kv, capacity, chunks).last
