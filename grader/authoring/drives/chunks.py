"""Attention and models with a cache of keys and values, which are given a text in chunks."""

from typing import Any

import torch
from torch import Tensor

from grader.authoring.drives.caches import KeysAndValues
from grader.authoring.drives.use import after_another_text, in_chunks, in_turns, rows_through, tensor_given


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
