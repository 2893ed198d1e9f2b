"""A causal language model in a few lines, on which decoding code is checked apart from any real model."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from grader.config import Config

MOST_CALLS = 1000  # far more than any case has tokens to write


class ToyLM(nn.Module):
    """Next-token logits from a fading memory of every token so far and of where it stood.

    vocab_size, n_positions, dim: sizes. ids: [B, T] int64 -> logits [B, T, vocab_size] float32, where
    logits[:, t] depends on ids[:, :t + 1]. ``config.n_positions`` is the longest T it can read; a longer
    one raises IndexError, as a learned position embedding does. left: how often it may still be called; None: without
    end. Beyond that it raises RuntimeError (see `ending`).
    """

    def __init__(self, vocab_size: int, n_positions: int, dim: int = 8) -> None:
        super().__init__()
        self.left: int | None = None
        # n_ctx is an older name, which says nothing beside n_positions.
        self.config = Config(
            {"vocab_size": vocab_size, "n_positions": n_positions, "n_ctx": n_positions // 2, "dim": dim}
        )
        self.token = nn.Parameter(torch.zeros(vocab_size, dim))
        self.position = nn.Parameter(torch.zeros(n_positions, dim))
        self.head = nn.Parameter(torch.zeros(vocab_size, dim))

    def forward(self, ids: Tensor) -> Tensor:
        length = ids.shape[-1]
        if self.left is not None:
            self._count()
        if length > self.config.n_positions:
            raise IndexError(f"{length} tokens given, but this model reads at most {self.config.n_positions}")
        state = _memory(length, self.token.device) @ torch.tanh(self.token[ids] + self.position[:length])  # [B, T, dim]
        return state @ self.head.T

    def _count(self) -> None:
        assert self.left is not None
        self.left -= 1
        if self.left < 0:
            raise RuntimeError(
                f"the model was called {MOST_CALLS:,} times, and the loop still goes on: where does it end?"
            )


def _memory(length: int, device: torch.device) -> Tensor:
    """How much of each token is left at each later one: [length, length]."""
    return _memory_of_more(-(-length // 64) * 64, device)[:length, :length]


@lru_cache(maxsize=4)
def _memory_of_more(length: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        steps = torch.arange(length, device=device)
        age = (steps[:, None] - steps[None, :]).clamp(min=0)
        return torch.tril(0.7 ** age.float())


@contextlib.contextmanager
def ending(args: Sequence[Any]) -> Iterator[None]:
    """Among arguments, let a `ToyLM` be called `MOST_CALLS` times only: a loop that does not end is ended."""
    toys = [arg for arg in args if isinstance(arg, ToyLM)]
    for toy in toys:
        toy.left = MOST_CALLS
    try:
        yield
    finally:
        for toy in toys:
            toy.left = None
