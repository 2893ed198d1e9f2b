"""A toy model with a cache, which notes how generation uses it."""

from typing import Any

import torch
from torch import Tensor, nn


class ToyCache:
    """The ids that a `CachedToy` has read, and for how many of them there is room."""

    def __init__(self, ids: Tensor, capacity: int) -> None:
        self.ids, self.capacity = ids, capacity

    @property
    def length(self) -> int:
        return self.ids.shape[1]

    def reset(self) -> None:
        self.ids = self.ids[:, :0]


class CachedToy(nn.Module):
    """A `ToyLM` with a cache, which notes how it is used.

    prompt: the ids [1, T] with which generation starts. pieces: how many ids each call gave; rooms: the batch and the
    capacity of each cache that was asked for; without_room: how many ids came in all for which a cache had no room.
    """

    def __init__(self, toy: Any, prompt: Tensor) -> None:
        super().__init__()
        self.toy, self.config, self.prompt = toy, toy.config, prompt
        self.pieces: list[int] = []
        self.rooms: list[list[int]] = []
        self.without_room = 0

    def new_cache(self, batch: int, capacity: int) -> list[Any]:
        self.rooms.append([batch, capacity])
        return [ToyCache(self.prompt[:, :0], capacity)]

    def forward(self, ids: Tensor, cache: Any = None) -> Tensor:
        if ids.ndim != 2:
            raise ValueError(f"the model was given ids of shape {list(ids.shape)}; [1, T] belongs there")
        self.pieces.append(ids.shape[1])
        read = ids
        if cache is not None:
            memory = cache[0]
            memory.ids = read = torch.cat([memory.ids, ids], dim=1)
            self.without_room += max(0, min(ids.shape[1], memory.length - memory.capacity))
        logits: Tensor = self.toy(read[:, -self.config.n_positions :])
        return logits[:, -ids.shape[1] :]


def taken(given: Any) -> list[Any]:
    """All that a generator gives; one that doesn't stop is stopped, and so is one that leaves gradients off."""
    if given is None:
        raise TypeError("it returned None; does it `yield` each token?")
    gradients, tokens = torch.is_grad_enabled(), []
    for token in given:
        if torch.is_grad_enabled() != gradients:
            torch.set_grad_enabled(gradients)
            raise RuntimeError(
                "between two tokens gradients are switched off for the caller too: a `yield` stands in a `with"
                " torch.no_grad()`, or `torch.set_grad_enabled(False)` is called. Use `@torch.no_grad()` above the"
                " function, or `with` around the model's call alone"
            )
        tokens.append(token)
        if len(tokens) == 2000:
            raise ValueError("the generator did not stop after 2,000 values")
    return tokens


def tokens_written(given: Any) -> list[int]:
    """The tokens that a generator gives, each a number or a tensor that holds one."""
    return [int(token) for token in taken(given)]


def ints_among(given: Any) -> list[int]:
    """For each token that a generator gives, whether it is a Python int: 1, or 0."""
    return [int(isinstance(token, int)) for token in taken(given)]


def python_ints(given: Any) -> list[int]:
    """The tokens that a generator gives, which must be Python ints."""
    tokens = taken(given)
    for token in tokens:
        if not isinstance(token, int):
            raise TypeError(f"it gave a {type(token).__name__}; a Python int belongs there, as `.item()` makes it")
    return tokens


class CachedToyOfOneText(CachedToy):
    """Refuses caches for several texts."""

    def new_cache(self, batch: int, capacity: int) -> list[Any]:
        if batch != len(self.prompt):
            raise ValueError(f"new_cache was asked for room for {batch} texts, and there is {len(self.prompt)}")
        return super().new_cache(batch, capacity)


def generated_despite_config(generate: Any, toy: Any, ids: Tensor, new_tokens: int, ends: int | list[int]) -> list[int]:
    """The tokens that `generate` writes where no end token is given, and the config has one, or several.

    With several, the first of them alone is in the config, too; the shorter of the two texts is what counts.
    """
    written = []
    for end in [ends, *(ends[:1] if isinstance(ends, list) else [])]:
        model = CachedToyOfOneText(toy, ids).eval()
        model.config = toy.config.replace(eos_token_id=end)
        written.append(tokens_written(generate(model, ids, new_tokens)))
    return min(written, key=len)


def generated_in_turns(generate: Any, toy: Any, ids: Tensor, *others: Any) -> list[int]:
    """The tokens that `generate` writes, while the same model writes behind another prompt."""
    model = CachedToyOfOneText(toy, ids).eval()
    second = iter(generate(model, ids.flip(1), *others))
    tokens = []
    for token in generate(model, ids, *others):
        tokens.append(int(token))
        next(second, None)
    return tokens


def generated_after_other_weights(generate: Any, toy: Any, ids: Tensor, *others: Any) -> list[int]:
    """The tokens that `generate` writes, after it has written with the same model when that had other weights."""
    model = CachedToyOfOneText(toy, ids).eval()
    with torch.no_grad():
        toy.head.neg_()
    try:
        taken(generate(model, ids, *others))
    finally:
        with torch.no_grad():
            toy.head.neg_()
    return tokens_written(generate(model, ids, *others))


def left_in_training(generate: Any, toy: Any, ids: Tensor, *others: Any) -> int:
    """Whether a model that was in training mode still is: 1, or 0."""
    model = CachedToyOfOneText(toy, ids).train()
    try:
        taken(generate(model, ids, *others))
        return int(model.training and toy.training)
    finally:
        toy.eval()


# What is asked so: the drive, and what is right.
STILL_TRAINING: dict[str, Any] = {"drive": left_in_training, "right": lambda *_: 1}
