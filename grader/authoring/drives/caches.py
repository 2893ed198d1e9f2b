"""Caches of the check's own, and what a cache of keys and values does when it is filled."""

from typing import Any

import torch
from torch import Tensor

# A cache of keys and values that is filled in chunks. Its class takes batch, heads, capacity, head_dim and dtype.


class Filled:
    """What came back from a cache that was filled in chunks, and how long it was."""

    def __init__(self) -> None:
        self.given: list[tuple[Tensor, Tensor]] = []  # keys and values of every append that was not refused
        self.contents: list[Tensor] = []  # copies of those since the last reset, side by side
        self.lengths: list[int] = []  # at first, and after every chunk
        self.codes: list[int] = []  # after every append whether it was refused, and the length
        self.measured: list[int] = []  # after every append

    @property
    def last(self) -> Tensor:
        if not self.contents:
            raise ValueError("no append was accepted")
        return self.contents[-1]


def fill(made: Any, kv: Tensor, capacity: int, chunks: list[int], append: Any = None, measure: Any = None) -> Filled:
    """Append kv [2, B, H, T, head_dim] to a new cache in chunks; a chunk of 0 is a reset.

    append: what appends, if it is not the cache alone, and returns what came back and a code, 0 for none.
    measure: called with the cache after every append.
    """
    cache = made(kv.shape[1], kv.shape[2], capacity, kv.shape[4], dtype=kv.dtype)
    filled, start = Filled(), 0
    filled.lengths.append(int(cache.length))
    for size in chunks:
        if size == 0:
            cache.reset()
            filled.lengths.append(int(cache.length))
            filled.contents.clear()
            continue
        k, v = kv[:, :, :, start : start + size].clone()
        given, refused = append(cache, k, v, capacity) if append else (cache.append(k, v), 0)
        filled.lengths.append(int(cache.length))
        filled.codes += [refused, int(cache.length)]
        if refused:
            continue
        if not isinstance(given, tuple | list | Tensor) or len(given) != 2:
            raise TypeError(f"append returned a {type(given).__name__}; two tensors belong there: keys, values")
        keys, values = given
        k.zero_(), v.zero_()  # a cache that only remembers the caller's tensors loses its contents
        filled.contents.append(torch.cat([keys, values], dim=-1).clone())
        filled.given.append((keys, values))
        filled.measured += [measure(cache)] if measure else []
        start += size
    return filled


def contents_in_turns(made: Any, kv: Tensor, capacity: int, chunks: list[int]) -> Tensor:
    """What every append returned in two caches that are filled in turns, the second with the negatives."""
    caches = [made(kv.shape[1], kv.shape[2], capacity, kv.shape[4], dtype=kv.dtype) for _ in range(2)]
    seen: list[list[Tensor]] = [[], []]
    for chunk in torch.split(kv, chunks, dim=3):
        for cache, sign, given in zip(caches, (1, -1), seen, strict=True):
            k, v = sign * chunk
            keys, values = cache.append(k, v)
            given.append(torch.cat([keys, values], dim=-1).clone())
    return torch.cat([*seen[0], *seen[1]], dim=2)


def lengths(made: Any, kv: Tensor, capacity: int, chunks: list[int]) -> list[int]:
    """The length at first, and after every chunk."""
    return fill(made, kv, capacity, chunks).lengths
