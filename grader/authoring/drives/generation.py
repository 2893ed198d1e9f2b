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
    """All that a generator gives; one that doesn't stop is stopped."""
    if given is None:
        raise TypeError("it returned None; does it `yield` each token?")
    tokens = [token for _, token in zip(range(2000), given, strict=False)]
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


def generated_without_cache(generate: Any, *given: Any) -> list[int]:
    """The tokens that `generate` writes with a model that has no cache."""
    return python_ints(generate(*given))


class CachedToyOfOneText(CachedToy):
    """Refuses caches for several texts."""

    def new_cache(self, batch: int, capacity: int) -> list[Any]:
        if batch != len(self.prompt):
            raise ValueError(f"new_cache was asked for room for {batch} texts, and there is {len(self.prompt)}")
        return super().new_cache(batch, capacity)


def generated(generate: Any, toy: Any, ids: Tensor, new_tokens: int, end: Any) -> list[int]:
    """The tokens that `generate` writes."""
    return tokens_written(generate(CachedToyOfOneText(toy, ids).eval(), ids, new_tokens, end))


def generated_again(generate: Any, toy: Any, ids: Tensor, new_tokens: int, end: Any) -> list[int]:
    """The tokens that `generate` writes, after it has written others with the same model for another prompt."""
    model = CachedToyOfOneText(toy, ids).eval()
    tokens_written(generate(model, ids.flip(1), new_tokens, None))
    return tokens_written(generate(model, ids, new_tokens, end))


def generated_despite_config(generate: Any, toy: Any, ids: Tensor, new_tokens: int, end: int) -> list[int]:
    """The tokens that `generate` writes where no end token is given, and the config has one."""
    model = CachedToyOfOneText(toy, ids).eval()
    model.config = toy.config.replace(eos_token_id=end)
    return tokens_written(generate(model, ids, new_tokens))


def ints_generated(generate: Any, toy: Any, ids: Tensor, new_tokens: int, end: Any) -> list[int]:
    """Which of the tokens that `generate` writes are Python ints."""
    return ints_among(generate(CachedToyOfOneText(toy, ids).eval(), ids, new_tokens, end))


def model_after_generation(generate: Any, toy: Any, ids: Tensor, new_tokens: int, end: Any) -> CachedToyOfOneText:
    """The model with which `generate` wrote its tokens."""
    model = CachedToyOfOneText(toy, ids).eval()
    tokens_written(generate(model, ids, new_tokens, end))
    return model


def rows_read(generate: Any, toy: Any, ids: Tensor, new_tokens: int, end: Any) -> int:
    """How many ids the model was given in all."""
    return sum(model_after_generation(generate, toy, ids, new_tokens, end).pieces)


def rows_without_room(generate: Any, toy: Any, ids: Tensor, new_tokens: int, end: Any) -> int:
    """For how many ids the cache had no room."""
    return model_after_generation(generate, toy, ids, new_tokens, end).without_room


def room_asked(generate: Any, toy: Any, ids: Tensor, new_tokens: int, end: Any) -> int:
    """For how many tokens caches were made in all."""
    return sum(capacity for _, capacity in model_after_generation(generate, toy, ids, new_tokens, end).rooms)


# With a prompt that is read in chunks


class Watched(CachedToy):
    """Takes caches of every size, and counts how often it is called after the end token has come out."""

    def __init__(self, toy: Any, prompt: Tensor, end: Any) -> None:
        super().__init__(toy, prompt)
        self.end, self.ended, self.after = end, False, 0

    def forward(self, ids: Tensor, cache: Any = None) -> Tensor:
        self.after += self.ended
        logits = super().forward(ids, cache)
        reads_prompt = cache is not None and cache[0].length < self.prompt.shape[1]
        self.ended = self.ended or (not reads_prompt and int(logits[0, -1].argmax()) == self.end)
        return logits


def watched_model(generate: Any, toy: Any, ids: Tensor, new_tokens: int, end: Any, chunk: int) -> Watched:
    """The model with which `generate` wrote its tokens."""
    model = Watched(toy, ids, end).eval()
    python_ints(generate(model, ids, new_tokens, end, chunk))
    return model


def watched_generation(generate: Any, toy: Any, ids: Tensor, new_tokens: int, end: Any, chunk: int) -> list[int]:
    """The tokens that `generate` writes."""
    return python_ints(generate(Watched(toy, ids, end).eval(), ids, new_tokens, end, chunk))


def watched_again(generate: Any, toy: Any, ids: Tensor, new_tokens: int, end: Any, chunk: int) -> list[int]:
    """The tokens that `generate` writes, after it has written others with the same model for another prompt."""
    model = Watched(toy, ids, None).eval()
    python_ints(generate(model, ids.flip(1), new_tokens, None, chunk))
    return python_ints(generate(model, ids, new_tokens, end, chunk))


def pieces_read(generate: Any, toy: Any, ids: Tensor, new_tokens: int, end: Any, chunk: int) -> list[int]:
    """In how many pieces the model was given how many tokens, and how many more than `chunk` the largest has."""
    pieces = watched_model(generate, toy, ids, new_tokens, end, chunk).pieces
    return [len(pieces), sum(pieces), max(0, max(pieces, default=0) - chunk)]


def rooms_asked(generate: Any, toy: Any, ids: Tensor, new_tokens: int, end: Any, chunk: int) -> list[int]:
    """For how many texts and tokens caches were made."""
    return [number for room in watched_model(generate, toy, ids, new_tokens, end, chunk).rooms for number in room]


def calls_after_end(generate: Any, toy: Any, ids: Tensor, new_tokens: int, end: Any, chunk: int) -> list[int]:
    """How often the model was called after the end token had come out."""
    return [watched_model(generate, toy, ids, new_tokens, end, chunk).after]


# With a model whose method is called `caches`


class Reader(CachedToy):
    """A toy model whose caches come from `caches`, and whose argument is called that. made: the latest caches."""

    def __init__(self, toy: Any, prompt: Tensor) -> None:
        super().__init__(toy, prompt)
        self.made: list[Any] = []

    def caches(self, batch: int, capacity: int) -> list[Any]:
        if batch != len(self.prompt):
            raise ValueError(f"caches was asked for room for {batch} texts, and there is {len(self.prompt)}")
        self.made = self.new_cache(batch, capacity)
        return self.made

    def forward(self, ids: Tensor, caches: Any = None) -> Tensor:
        return super().forward(ids, caches)


def generated_with_caches(generate: Any, toy: Any, ids: Tensor, new_tokens: int, ends: list[int]) -> list[int]:
    """The tokens that `generate` writes."""
    return python_ints(generate(Reader(toy, ids).eval(), ids, new_tokens, ends))


def generated_again_with_caches(generate: Any, toy: Any, ids: Tensor, new_tokens: int, ends: list[int]) -> list[int]:
    """The tokens that `generate` writes, after it has written others with the same model for another prompt."""
    reader = Reader(toy, ids).eval()
    python_ints(generate(reader, ids.flip(1), new_tokens, []))
    return python_ints(generate(reader, ids, new_tokens, ends))


def reading_of_the_text(generate: Any, toy: Any, ids: Tensor, new_tokens: int, ends: list[int]) -> list[int]:
    """How many tokens are read at first, how many at most later, and how many behind the first out of its place."""
    reader = Reader(toy, ids).eval()
    written = python_ints(generate(reader, ids, new_tokens, ends))
    read = [token for cache in reader.made for token in cache.ids[0].tolist()]
    text = ids[0].tolist() + written
    first_wrong = next((i for i, token in enumerate(read) if text[i : i + 1] != [token]), len(read))
    return [sum(reader.pieces[:1]), max(reader.pieces[1:], default=0), len(read) - first_wrong]


def room_short_and_spare(generate: Any, toy: Any, ids: Tensor, new_tokens: int, ends: list[int]) -> list[int]:
    """How many tokens find no room, and whether there is room that nobody needs. The last token may be read."""
    reader = Reader(toy, ids).eval()
    python_ints(generate(reader, ids, new_tokens, ends))
    asked = sum(capacity for _, capacity in reader.rooms)
    return [reader.without_room, int(asked > ids.shape[1] + new_tokens)]
