"""What several lessons' exercises are checked against: greedy generation with a toy model, the contents of a cache."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from grader.authoring.drives.caches import Filled
from grader.exercise import Draw
from grader.toy import ToyLM, random_toy_lm
from grader.toy_reference import reference_generate

TOY_VOCABULARY = 61


def toy_that_ends(draw: Draw, n_positions: int, prompt: int, new_tokens: int) -> tuple[ToyLM, Tensor, int]:
    """A toy model, ids [1, prompt], and an end token that it writes in the middle of what is new, and not before."""
    while True:
        toy = random_toy_lm(TOY_VOCABULARY, n_positions, draw.generator)
        ids = draw.tokens(TOY_VOCABULARY, 1, prompt)
        written: Sequence[int] = reference_generate(toy, ids, new_tokens).tolist()
        middle = new_tokens // 2
        if written.index(written[middle]) == middle and len(set(written)) > middle:  # else too repetitive
            return toy, ids, written[middle]


def right_rows(toy: ToyLM, ids: Tensor, new_tokens: int, end: int | None) -> int:
    """How many ids a model with a cache is given: each token is read once, and the last need not be."""
    return ids.shape[1] + len(reference_generate(toy, ids, new_tokens, end)) - 1


def right_fill(kv: Tensor, capacity: int, chunks: Sequence[int]) -> Filled:
    """What `fill` finds in a cache with room for `capacity` tokens. transformers' DynamicCache holds the contents."""
    cache, filled, start = DynamicCache(), Filled(), 0
    filled.lengths.append(0)
    for size in chunks:
        if size == 0:
            cache = DynamicCache()
            filled.contents.clear()
        elif cache.get_seq_length() + size <= capacity:
            k, v = kv[:, :, :, start : start + size]
            filled.contents.append(torch.cat(cache.update(k, v, 0), dim=-1))
            start += size
            filled.codes += [0, cache.get_seq_length()]
        else:
            filled.codes += [1, cache.get_seq_length()]
        filled.lengths.append(cache.get_seq_length())
    return filled


def right_contents(kv: Tensor, capacity: int, chunks: Sequence[int]) -> Tensor:
    """What every append since the last reset gives back, one behind the other."""
    return torch.cat(right_fill(kv, capacity, chunks).contents, dim=2)


def right_last(kv: Tensor, capacity: int, chunks: Sequence[int]) -> Tensor:
    """What the last append gives back that fits."""
    return right_fill(kv, capacity, chunks).last
