"""Caches of the check's own, and what a cache of keys and values does when it is filled."""

from typing import Any

import torch
from torch import Tensor

from grader.authoring.drives.use import memory_behind


class KeysAndValues:
    """Keys and values of all tokens so far, each [B, H, T, head_dim].

    As in a KVCache there is room for more, and what is returned is less. appended: how many tokens came in all;
    stored: how many numbers.
    """

    def __init__(self) -> None:
        self.keys = self.values = torch.zeros(0)
        self.length = self.appended = self.stored = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.appended += k.shape[2]
        self.stored += k.numel() + v.numel()
        both = torch.stack([k, v])
        if self.length:
            both = torch.cat([torch.stack([self.keys, self.values])[:, :, :, : self.length], both], dim=3)
        self.length = both.shape[3]
        self.keys, self.values = torch.cat([both, torch.zeros_like(both)], dim=3)
        return both[0], both[1]

    def reset(self) -> None:
        self.length = 0


class LaidOut:
    """A cache that returns at most `kept` old tokens (None: all) and the new ones.

    What lies in its memory is laid out as in the caches that the lesson has: in `places`, with room or as a ring.
    """

    def __init__(self, kept: Any, places: int) -> None:
        self.kept, self.places = kept, places
        self.keys = self.values = self.given = torch.zeros(0)
        self.length = self.coming = self.stored = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        old = self.length if self.kept is None else min(self.length, self.kept)
        self.stored += k.numel() + v.numel()
        both = torch.stack([k, v])
        if self.length:
            both = torch.cat([self.given[:, :, :, self.given.shape[3] - old :], both], dim=3)
        self.given = both.clone()
        self.length += self.coming
        laid = both.new_zeros(*both.shape[:3], self.places, both.shape[4])
        for p in range(max(0, self.length - min(self.places, both.shape[3])), self.length):
            laid[:, :, :, p % self.places] = both[:, :, :, p - self.length]
        self.keys, self.values = laid
        return both[0], both[1]


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


def append_or_refuse(cache: Any, k: Tensor, v: Tensor, capacity: int) -> tuple[Any, int]:
    """How an append is refused: 1 by a ValueError that names the capacity, 2 by another, 3 by another error; 0: not."""
    import re

    try:
        return cache.append(k, v), 0
    except NotImplementedError:
        raise
    except Exception as error:
        named = isinstance(error, ValueError) and re.search(rf"\b{capacity}\b", str(error))
        return None, 1 if named else 2 if isinstance(error, ValueError) else 3


def all_contents(made: Any, kv: Tensor, capacity: int, chunks: list[int]) -> Tensor:
    """What every append since the last reset returned, one behind the other."""
    return torch.cat(fill(made, kv, capacity, chunks).contents, dim=2)


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


def last_contents(made: Any, kv: Tensor, capacity: int, chunks: list[int]) -> Tensor:
    """What the last append returned."""
    return fill(made, kv, capacity, chunks).last


def contents_after_refusals(made: Any, kv: Tensor, capacity: int, chunks: list[int]) -> Tensor:
    """What the last append returned that was not refused."""
    return fill(made, kv, capacity, chunks, append_or_refuse).last


def refusals(made: Any, kv: Tensor, capacity: int, chunks: list[int]) -> list[int]:
    """After every append whether it was refused, and the length."""
    return fill(made, kv, capacity, chunks, append_or_refuse).codes


def lengths(made: Any, kv: Tensor, capacity: int, chunks: list[int]) -> list[int]:
    """The length at first, and after every chunk."""
    return fill(made, kv, capacity, chunks).lengths


def copies(made: Any, kv: Tensor, capacity: int, chunks: list[int]) -> list[int]:
    """For keys and values of every append but the first, whether they lie elsewhere in memory than the first's."""
    first, *others = fill(made, kv, capacity, chunks).given
    return [int(tensor.data_ptr() != first[i].data_ptr()) for pair in others for i, tensor in enumerate(pair)]


# A ring, which keeps the last `window` tokens. Its class takes the window in place of the capacity.


def append_and_copy(cache: Any, k: Tensor, v: Tensor, capacity: int) -> tuple[Any, int]:
    keys, values = cache.append(k, v)
    return (keys.clone(), values.clone()), 0


def ring_contents(made: Any, kv: Tensor, window: int, chunks: list[int]) -> Tensor:
    """What every append since the last reset returned, one behind the other."""
    return torch.cat(fill(made, kv, window, chunks, append_and_copy).contents, dim=2)


def tokens_held(made: Any, kv: Tensor, window: int, chunks: list[int]) -> list[int]:
    """For how many tokens more than the window the cache holds memory, after every append."""
    a_token = 2 * kv.shape[1] * kv.shape[2] * kv.shape[4] * kv.element_size()
    enough = window * a_token + 64 * window + 1024  # a few numbers more are no token

    def too_many(cache: Any) -> int:
        return max(0, -(-(sum(memory_behind(cache).values()) - enough) // a_token))

    return fill(made, kv, window, chunks, measure=too_many).measured
