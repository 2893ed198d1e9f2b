"""How a cache of keys and values, attention and a model that use it, and generation with it are used and counted."""

from typing import Any

import torch
from torch import Tensor

from grader.authoring.drives.caches import fill
from grader.authoring.drives.generation import CachedToyOfOneText, ints_among, tokens_written
from grader.authoring.drives.use import after_another_text, in_chunks, in_turns, rows_through, tensor_given

# A cache of keys and values


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
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]  # not copies, as in a KVCache

    def reset(self) -> None:
        self.length = 0


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


def last_contents(made: Any, kv: Tensor, capacity: int, chunks: list[int]) -> Tensor:
    """What the last append returned."""
    return fill(made, kv, capacity, chunks).last


def contents_after_refusals(made: Any, kv: Tensor, capacity: int, chunks: list[int]) -> Tensor:
    """What the last append returned that was not refused."""
    return fill(made, kv, capacity, chunks, append_or_refuse).last


def refusals(made: Any, kv: Tensor, capacity: int, chunks: list[int]) -> list[int]:
    """After every append whether it was refused, and the length."""
    return fill(made, kv, capacity, chunks, append_or_refuse).codes


def copies(made: Any, kv: Tensor, capacity: int, chunks: list[int]) -> list[int]:
    """For keys and values of every append but the first, whether they lie elsewhere in memory than the first's."""
    first, *others = fill(made, kv, capacity, chunks).given
    return [int(tensor.data_ptr() != first[i].data_ptr()) for pair in others for i, tensor in enumerate(pair)]


# Attention and models that are given a text in chunks


class Expecting(KeysAndValues):
    """Refuses keys and values of other shapes than those of the chunk that comes."""

    def expect(self, *shape: int) -> None:
        self.wanted = list(shape)

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        for name, given in (("keys", k), ("values", v)):
            wanted = list(self.wanted)
            if given.ndim == 4:  # not all tokens need come at once
                wanted[2] = min(wanted[2], given.shape[2])
            if list(given.shape) != wanted:
                raise ValueError(f"append was given {name} of shape {list(given.shape)}; {self.wanted} belongs there")
        return super().append(k, v)


def attend(module: Any, x: Tensor, chunks: list[int]) -> tuple[Tensor, Expecting]:
    """Attention's results for x [B, T, D] that comes in chunks, and the cache of the check's own that it used."""
    memory, seen = Expecting(), []
    for piece in torch.split(x, chunks, dim=1):
        memory.expect(len(x), module.num_heads, piece.shape[1], module.head_dim)
        seen.append(tensor_given(module(piece, memory), "forward"))
    return torch.cat(seen, dim=1), memory


def attention_results(module: Any, x: Tensor, chunks: list[int]) -> Tensor:
    """With a cache; without one for no chunks."""
    return attend(module, x, chunks)[0] if chunks else module(x)


def tokens_appended(module: Any, x: Tensor, chunks: list[int]) -> Tensor:
    """How many tokens were appended to the cache in all."""
    return torch.tensor(attend(module, x, chunks)[1].appended)


def rows_computed(module: Any, x: Tensor, chunks: list[int]) -> Tensor:
    """How many rows went through c_attn in all; where it is never called, as many as there are tokens."""
    return torch.tensor(rows_through([module.c_attn], lambda: attend(module, x, chunks)) or x.shape[1])


def new_cache(model: Any, batch: int, capacity: int = 40) -> Any:
    """The caches that a model makes, once it is sure that there is one for each layer."""
    made = model.new_cache(batch, capacity)
    if made is None:
        raise TypeError("new_cache returned None; does it end with `return`?")
    if not hasattr(made, "__len__") or len(made) != len(model.h):
        what = f"{len(made)} of them" if hasattr(made, "__len__") else f"a {type(made).__name__}"
        raise TypeError(
            f"new_cache returned {what}; a list of {len(model.h)} caches, one for each layer, belongs there"
        )
    return made


def logits(model: Any, ids: Tensor, chunks: Any = None) -> Tensor:
    """With caches of the check's own; without any for no chunks."""
    return in_chunks(model, ids, [KeysAndValues() for _ in model.h], chunks) if chunks else model(ids)


def logits_with_new_cache(model: Any, ids: Tensor, chunks: list[int]) -> Tensor:
    return in_chunks(model, ids, new_cache(model, len(ids)), chunks)


def logits_of_texts_in_turns(model: Any, ids: Tensor, chunks: list[int]) -> Tensor:
    return in_turns(model, ids, [new_cache(model, 1) for _ in ids], chunks)


def logits_after_reset(model: Any, ids: Tensor, chunks: list[int]) -> Tensor:
    return after_another_text(model, ids, new_cache(model, len(ids)), chunks)


def tensors_in(thing: Any) -> list[Tensor]:
    """All tensors that hang on an object."""
    if isinstance(thing, Tensor):
        return [thing]
    if isinstance(thing, list | tuple):
        parts = list(thing)
    else:
        parts = list(vars(thing).values()) if hasattr(thing, "__dict__") and not isinstance(thing, type) else []
    return [tensor for part in parts for tensor in tensors_in(part)]


def tensors_elsewhere(model: Any, ids: Tensor, chunks: list[int]) -> Tensor:
    """How many tensors of numbers in a new cache are not on meta, where the weights are."""
    import copy

    held = tensors_in(new_cache(copy.deepcopy(model).to("meta"), len(ids), ids.shape[1]))
    return torch.tensor(sum(tensor.is_floating_point() and not tensor.is_meta for tensor in held))


def rows_of_blocks(model: Any, ids: Tensor, chunks: list[int]) -> Tensor:
    """How many rows the blocks compute in all."""
    cache = new_cache(model, len(ids))
    return torch.tensor(rows_through([block.mlp for block in model.h], lambda: in_chunks(model, ids, cache, chunks)))


def models_refusals(model: Any, ids: Tensor, chunks: list[int]) -> Tensor:
    """Whether new_cache refuses n_positions tokens, and one more; whether a cache refuses its last token, and one more.

    0: no, 1: by a ValueError, 2: by another error.
    """
    refused = []
    for asked in (model.config.n_positions, model.config.n_positions + 1):
        try:
            new_cache(model, 1, asked)
            refused.append(0)
        except NotImplementedError:
            raise
        except Exception as error:
            refused.append(1 if isinstance(error, ValueError) else 2)
    cache = new_cache(model, len(ids), ids.shape[1])
    for piece, sizes in ((ids, chunks), (ids[:, :1], [1])):
        try:
            in_chunks(model, piece, cache, sizes)
            refused.append(0)
        except ValueError:
            refused.append(1)
    return torch.tensor(refused)


# Generation with a toy model


def generated(generate: Any, toy: Any, ids: Tensor, new_tokens: int, end: Any) -> list[int]:
    """The tokens that `generate` writes."""
    return tokens_written(generate(CachedToyOfOneText(toy, ids).eval(), ids, new_tokens, end))


def generated_again(generate: Any, toy: Any, ids: Tensor, new_tokens: int, end: Any) -> list[int]:
    """The tokens that `generate` writes, after it has written others with the same model for another prompt."""
    model = CachedToyOfOneText(toy, ids).eval()
    tokens_written(generate(model, ids.flip(1), new_tokens, None))
    return tokens_written(generate(model, ids, new_tokens, end))


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


# Grouped queries


def group(function: Any, q: Tensor, kv: Tensor, chunks: list[int]) -> tuple[Tensor, KeysAndValues]:
    """Results for q [B, H, T, head_dim] and kv [2, B, KV, T, head_dim] that come in chunks, and the cache that was used."""
    memory, start, seen, kv = KeysAndValues(), 0, [], kv.to(q.dtype)
    for size in chunks:
        part = slice(start, start + size)
        given = tensor_given(function(q[:, :, part], *kv[:, :, :, part], memory), "it")
        if given.shape != q[:, :, part].shape:
            wanted = f"{list(q[:, :, part].shape)}, as the queries have it, belongs there"
            raise ValueError(f"it gave a tensor of shape {list(given.shape)}; {wanted}")
        seen.append(given)
        start += size
    return torch.cat(seen, dim=2), memory


def grouped_results(function: Any, q: Tensor, kv: Tensor, chunks: list[int]) -> Tensor:
    return group(function, q, kv, chunks)[0]


def numbers_stored(function: Any, q: Tensor, kv: Tensor, chunks: list[int]) -> int:
    return group(function, q, kv, chunks)[1].stored


def pays_on(
    pays_after: Any, config: Any, devices: list[list[float]], batch: int = 1, element_bytes: int = 2
) -> list[int]:
    """After how many tokens a cache pays on each of the devices."""
    return [int(pays_after(config, speed, bandwidth, batch, element_bytes)) for speed, bandwidth in devices]
