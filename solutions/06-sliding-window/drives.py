"""How rings, attention and models with windows, and generation that reads in chunks are used and counted."""

from typing import Any

import torch
from torch import Tensor, nn

from grader.authoring.drives.caches import fill
from grader.authoring.drives.generation import CachedToy, python_ints
from grader.authoring.drives.use import after_another_text, in_chunks, in_turns, memory_behind, rows_through

# A ring, which keeps the last `window` tokens. Its class takes the window in place of the capacity.


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


# Attention and models


def attend(
    module: Any, x: Tensor, table: Tensor, window: Any, chunks: list[int], kept: Any
) -> tuple[list[Tensor], LaidOut]:
    """Attention's results for x [B, T, D] that comes in chunks, and the cache of the check's own that it used."""
    memory, start, seen = LaidOut(kept, sum(chunks) if kept is None else kept + 1), 0, []
    for size in chunks:
        part = slice(start, start + size)
        memory.coming = size
        seen.append(module(x[:, part], table[:, part], window, memory))
        start += size
    return seen, memory


def attention_results(module: Any, x: Tensor, table: Tensor, window: Any, chunks: list[int], kept: Any) -> Tensor:
    """With a cache; without one for no chunks."""
    return torch.cat(attend(module, x, table, window, chunks, kept)[0], dim=1) if chunks else module(x, table, window)


def numbers_stored(module: Any, x: Tensor, table: Tensor, window: Any, chunks: list[int], kept: Any) -> Tensor:
    """How many numbers the cache was handed."""
    return torch.tensor([attend(module, x, table, window, chunks, kept)[1].stored])


def vectors(model: Any, ids: Tensor, chunks: Any = None) -> Tensor:
    """The final vectors of ids [B, T] that come in chunks, with the model's own cache; without one for no chunks."""
    return in_chunks(model, ids, model.new_cache(*ids.shape), chunks) if chunks else model(ids)


def vectors_with_more_room(model: Any, ids: Tensor, chunks: list[int]) -> Tensor:
    return in_chunks(model, ids, model.new_cache(len(ids), ids.shape[1] + 20), chunks)


def vectors_after_reset(model: Any, ids: Tensor, chunks: list[int]) -> Tensor:
    return after_another_text(model, ids, model.new_cache(*ids.shape), chunks)


def vectors_of_texts_in_turns(model: Any, ids: Tensor, chunks: list[int]) -> Tensor:
    return in_turns(model, ids, [model.new_cache(1, ids.shape[1]) for _ in ids], chunks)


def tokens_too_many(model: Any, cache: Any, batch: int, capacity: int) -> list[int]:
    """For how many tokens more than it needs each layer's cache holds memory."""
    config, every = model.config, model.config.get("sliding_window_pattern", 6)
    kinds = config.get("layer_types") or [
        "sliding_attention" if (i + 1) % every else "full_attention" for i in range(len(model.layers))
    ]
    a_token = 2 * batch * config.num_key_value_heads * config.head_dim * model.embed_tokens.weight.element_size()
    needed = [capacity if kind == "full_attention" else min(config.sliding_window, capacity) for kind in kinds]
    held = [-(-sum(memory_behind(layer).values()) // a_token) for layer in cache]
    return [max(0, tokens - need) for tokens, need in zip(held, needed, strict=True)]


def memory_of_caches(model: Any, ids: Tensor, chunks: list[int]) -> Tensor:
    """What is too much in a long text's caches, before and after it was read, and in those of two short texts."""
    found, (batch, length), window = [], ids.shape, model.config.sliding_window
    for capacity in (length, window, window - 1):
        cache = model.new_cache(batch, capacity)
        found += tokens_too_many(model, cache, batch, capacity)
        if capacity == length:
            in_chunks(model, ids, cache, chunks)
            found += tokens_too_many(model, cache, batch, capacity)
    return torch.tensor(found)


def rows_of_chunks(model: Any, ids: Tensor, chunks: list[int]) -> Tensor:
    """How many rows the layers compute for each chunk."""
    cache, mlps, counts = model.new_cache(*ids.shape), [layer.mlp for layer in model.layers], []
    for piece in torch.split(ids, chunks, dim=1):

        def run(piece: Tensor = piece) -> Any:
            return model(piece, cache)

        counts.append(rows_through(mlps, run))
    return torch.tensor(counts)


# Generation with a prompt that is read in chunks


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


def watched_despite_config(generate: Any, toy: Any, ids: Tensor, new_tokens: int, end: int, chunk: int) -> list[int]:
    """The tokens that `generate` writes where no end token is given, and the config has one."""
    model = Watched(toy, ids, None).eval()
    model.config = toy.config.replace(eos_token_id=end)
    return python_ints(generate(model, ids, new_tokens, chunk=chunk))


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


# How far back a model looks


class SmallReader(nn.Module):
    """A recurrent language model, so that every token before counts: ids [B, T] -> logits [B, T, vocab_size]."""

    def __init__(self, embedding: Tensor, mixing: Tensor) -> None:
        super().__init__()
        self.embedding, self.mixing = nn.Parameter(embedding.clone()), nn.Parameter(mixing.clone())

    def forward(self, ids: Tensor) -> Tensor:
        states = [torch.zeros(len(ids), len(self.mixing))]
        for x in self.embedding[ids].unbind(1):
            states.append(torch.tanh(x + states[-1] @ self.mixing))
        return torch.stack(states[1:], dim=1) @ self.embedding.T


def nats_of_contexts(
    nats_by_context: Any, ids: Tensor, embedding: Tensor, mixing: Tensor, contexts: list[int]
) -> list[float]:
    """What a small model loses with each of the contexts."""
    model = SmallReader(embedding, mixing).eval()
    return [float(nats) for nats in nats_by_context(model, ids, list(contexts))]
