"""What a cache of keys and values holds that is right, by transformers' own."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from grader.authoring.drives.caches import Filled


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
