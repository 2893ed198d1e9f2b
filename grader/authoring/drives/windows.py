"""Attention and models with windows and a cache for each layer, which are given a text in chunks."""

from typing import Any

import torch
from torch import Tensor

from grader.authoring.drives.caches import LaidOut
from grader.authoring.drives.use import after_another_text, in_chunks, in_turns, memory_behind, rows_through


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
