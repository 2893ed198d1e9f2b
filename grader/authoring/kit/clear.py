"""Inputs of which a choice is clear. Where a module picks the largest of some numbers, two right programs may pick
differently in a near-tie, and no check may hang on that.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

CLEAR = 0.08  # by how much a choice is clear, in units of what the scores differ by
TRIES = 2000  # for each input that is wanted


def gap(values: Tensor, k: int) -> Tensor:
    """By how much the k largest are ahead of the next: [N, M] -> [N]. Infinity where there is no next."""
    if k >= values.shape[-1]:
        return torch.full(values.shape[:-1], math.inf)
    best = values.topk(k + 1, dim=-1).values
    return best[..., -2] - best[..., -1]


def clear(draw: Callable[[], Tensor], is_clear: Callable[[Tensor], bool], count: int) -> Tensor:
    """The first `count` of the tensors [1, ...] drawn one after the other whose choices are clear: [count, ...].

    Raises ValueError where hardly any is.
    """
    found: list[Tensor] = []
    for _ in range(TRIES * count):
        if is_clear(drawn := draw()):
            found.append(drawn)
        if len(found) == count:
            return torch.cat(found)
    raise ValueError(f"of {TRIES * count} inputs that were drawn, {len(found)} have clear choices; {count} are needed")
