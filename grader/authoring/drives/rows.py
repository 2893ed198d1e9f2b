"""A cache of one row a token, as latent attention has it: one of the check's own, and what such a cache does.

A cache's class takes config, batch, capacity and dtype.
"""

from typing import Any

import torch
from torch import Tensor, nn

from grader.authoring.drives.use import MultiplyAdds, in_chunks, in_turns, memory_behind, tensor_given


class Rows:
    """One row a token, [B, T, width], with the interface of a latent cache: `append` and `length`."""

    def __init__(self) -> None:
        self.kept = torch.zeros(0)
        self.length = 0

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"this check's cache has `append` and `length`, and no `{name}`")

    def append(self, new: Tensor) -> Tensor:
        self.kept = torch.cat([self.kept, new], dim=1) if self.length else new
        self.length = self.kept.shape[1]
        return self.kept


class FilledRows:
    """What came back from a cache that was filled part by part, and how long it was."""

    def __init__(self) -> None:
        self.contents: list[Tensor] = []  # of every append that was not refused
        self.codes: list[int] = []  # after every append whether it was refused, and the length

    @property
    def last(self) -> Tensor:
        if not self.contents:
            raise ValueError("no append was accepted")
        return self.contents[-1]


def rows_given(given: Any, part: Tensor) -> Tensor:
    """A copy of what an append of a part [B, T, width] returned, once it is sure that it is rows of that width."""
    rows = tensor_given(given, "append")
    batch, _, width = part.shape
    if rows.ndim != 3 or rows.shape[0] != batch or rows.shape[2] != width:
        wanted = f"[{batch}, length, {width}] belongs there"
        raise ValueError(f"append returned a tensor of shape {list(rows.shape)}; {wanted}")
    return rows.clone()


def fill_rows(cache: Any, parts: list[Tensor], append: Any = None) -> FilledRows:
    """Append parts [B, T, width] to a new cache.

    append: what appends, if it is not the cache alone, and returns what came back and a code, 0 for none.
    """
    filled = FilledRows()
    for part in parts:
        given, refused = append(cache, part) if append else (cache.append(part.clone()), 0)
        if not refused:
            filled.contents.append(rows_given(given, part))
        filled.codes += [refused, int(cache.length)]
    return filled


def tensors_of(cache: Any) -> list[Tensor]:
    """The tensors that a cache keeps."""
    return [value for value in vars(cache).values() if isinstance(value, Tensor)]


def append_rows_or_refuse(cache: Any, part: Tensor) -> tuple[Any, int]:
    """How an append is refused: 1 by a ValueError, 2 by one after something was written, 3 by another error; 0: not."""

    def memory() -> list[Tensor]:
        return [tensor.detach().clone().contiguous().view(torch.uint8) for tensor in tensors_of(cache)]

    before = memory()
    try:
        return cache.append(part.clone()), 0
    except NotImplementedError:
        raise
    except Exception as error:
        after = memory()
        same = len(before) == len(after) and all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        return None, 3 if not isinstance(error, ValueError) else 1 if same else 2


def contents_of_two(made: Any, config: Any, batch: int, capacity: int, parts: list[Tensor]) -> Tensor:
    """What every append returns, and what the last part does in a second cache."""
    contents = fill_rows(made(config, batch, capacity, parts[0].dtype), parts).contents
    return torch.cat([*contents, *fill_rows(made(config, batch, capacity, parts[0].dtype), parts[-1:]).contents], dim=1)


def rows_in_turns(made: Any, config: Any, batch: int, capacity: int, parts: list[Tensor]) -> Tensor:
    """What every append returned in two caches that are filled in turns, the second with the negatives."""
    caches = [made(config, batch, capacity, parts[0].dtype) for _ in range(2)]
    seen: list[list[Tensor]] = [[], []]
    for part in parts:
        for cache, sign, given in zip(caches, (1, -1), seen, strict=True):
            given.append(rows_given(cache.append(sign * part), part))
    return torch.cat([*seen[0], *seen[1]], dim=1)


def row_lengths(made: Any, config: Any, batch: int, capacity: int, parts: list[Tensor]) -> list[int]:
    """The length after every append."""
    return fill_rows(made(config, batch, capacity, parts[0].dtype), parts).codes[1::2]


def row_refusals(made: Any, config: Any, batch: int, capacity: int, parts: list[Tensor]) -> list[int]:
    """After every append whether it was refused, and the length."""
    return fill_rows(made(config, batch, capacity, parts[0].dtype), parts, append_rows_or_refuse).codes


def rows_after_refusals(made: Any, config: Any, batch: int, capacity: int, parts: list[Tensor]) -> Tensor:
    """What the last append returned that was not refused."""
    return fill_rows(made(config, batch, capacity, parts[0].dtype), parts, append_rows_or_refuse).last


def room_of_rows(made: Any, config: Any, batch: int, capacity: int, parts: list[Tensor]) -> list[int]:
    """How many numbers and how many bytes a new cache keeps."""
    kept = tensors_of(made(config, batch, capacity, parts[0].dtype))
    return [sum(tensor.numel() for tensor in kept), sum(tensor.nbytes for tensor in kept)]


def bytes_too_many(made: Any, config: Any, batch: int, capacity: int, parts: list[Tensor]) -> list[int]:
    """How many bytes more than at first a cache keeps after every append."""
    cache, found = made(config, batch, capacity, parts[0].dtype), []
    at_first = sum(memory_behind(cache).values())
    for part in parts:
        cache.append(part.clone())
        found.append(sum(memory_behind(cache).values()) - at_first)
    return found


# Attention and models that read a text in pieces. Each is called with x, the rotations, and a cache if there is one.


def attention_in_pieces(module: Any, x: Tensor, table: Tensor, cuts: list[int]) -> Any:
    """The text in pieces that end at the cuts, through a cache; without cuts all at once and without one."""
    if not cuts:
        return module(x, table)
    rows, parts = Rows(), []
    for start, end in zip([0, *cuts], [*cuts, x.shape[1]], strict=True):
        parts.append(module(x[:, start:end], table[:, start:end], rows))
        if rows.length != end:
            raise ValueError(f"after {end} tokens there are {rows.length} rows in the cache; each belongs there once")
    return torch.cat(parts, dim=1)


def attention_and_its_work(module: Any, x: Tensor, table: Tensor, cuts: list[int], most: int) -> Tensor:
    """As `attention_in_pieces`; behind it whether the last piece took at most so many multiply-adds."""
    rows, count = Rows(), MultiplyAdds()  # type: ignore[no-untyped-call]
    parts = [module(x[:, a:b], table[:, a:b], rows) for a, b in zip([0, *cuts[:-1]], cuts, strict=True)]
    with count:
        parts.append(module(x[:, cuts[-1] :], table[:, cuts[-1] :], rows))
    if rows.length != x.shape[1]:
        wanted = "each belongs there once"
        raise ValueError(f"after {x.shape[1]} tokens there are {rows.length} rows in the cache; {wanted}")
    output = torch.cat(parts, dim=1)
    return torch.cat([output.flatten(), output.new_full((1,), float(count.total <= most))])


def model_in_pieces(module: Any, ids: Tensor, cuts: Any = (), layers: int = 0) -> Any:
    """The ids in pieces that end at the cuts, through one cache for each layer; without cuts all at once."""
    caches = [Rows() for _ in range(layers)]
    return in_chunks(module, ids, caches, sizes_between(cuts, ids.shape[1])) if cuts else module(ids)


def model_of_texts_in_turns(module: Any, ids: Tensor, cuts: list[int], layers: int) -> Any:
    """As `model_in_pieces`, for texts that come in turns, piece by piece, each with caches of its own."""
    caches = [[Rows() for _ in range(layers)] for _ in ids]
    return in_turns(module, ids, caches, sizes_between(cuts, ids.shape[1]))


def sizes_between(cuts: list[int], length: int) -> list[int]:
    return [end - start for start, end in zip([0, *cuts], [*cuts, length], strict=True)]


# A part of attention by itself, and which class a model uses.


def use_compress(module: Any, x: Tensor) -> Tensor:
    """Latent and key side by side, once it is sure that it is these two that came back."""
    given = module.compress(x)
    if not isinstance(given, tuple | list) or len(given) != 2:
        what = f"{len(given)} values" if isinstance(given, tuple | list) else f"a {type(given).__name__}"
        hint = "; does it end with `return`?" if given is None else ""
        raise TypeError(f"compress returned {what}; two tensors belong there, the latent and the key{hint}")
    for name, tensor in zip(("latent", "key"), given, strict=True):
        if tensor.shape[:-1] != x.shape[:-1]:
            wanted = f"one vector for each token, [{x.shape[0]}, {x.shape[1]}, ...], belongs there"
            raise ValueError(f"compress returned a {name} of shape {list(tensor.shape)}; {wanted}")
    return torch.cat(list(given), dim=-1)


class AnotherAttention(nn.Module):
    """Another class that a model may be given for its attention."""

    def __init__(self, config: Any) -> None:
        super().__init__()

    def forward(self, x: Tensor, table: Tensor, cache: Any = None) -> Tensor:
        return x


def layers_of_another_class(module: Any, ids: Tensor, config: Any) -> Tensor:
    """In how many layers of such a model another class of attention is used, if that is given."""
    model = type(module)(config, AnotherAttention)
    return torch.tensor(sum(isinstance(part, AnotherAttention) for part in model.modules()))
