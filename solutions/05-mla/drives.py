"""How a latent cache, attention and a model that use it, and generation with it are used and counted.

A cache's class takes config, batch, capacity and dtype.
"""

from typing import Any

import torch
from torch import Tensor, nn

from grader.authoring.drives.generation import CachedToy, python_ints
from grader.authoring.drives.rows import Rows, append_rows_or_refuse, rows_given, sizes_between, tensors_of
from grader.authoring.drives.use import MultiplyAdds, in_chunks, in_turns, memory_behind


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


def fill_rows(cache: Any, parts: list[Tensor], append: Any = None) -> FilledRows:
    """Append parts [B, T, width] to a new cache.

    append: what appends, if it is not the cache alone, and returns what came back and a code, 0 for none.
    """
    filled = FilledRows()
    for part in parts:
        own = part.clone()
        given, refused = append(cache, own) if append else (cache.append(own), 0)
        own.zero_()  # a cache that only remembers the caller's tensor loses its rows
        if not refused:
            filled.contents.append(rows_given(given, part))
        filled.codes += [refused, int(cache.length)]
    return filled


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


# A part of attention by itself, and which class a model uses


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


# Generation with a model whose method is called `caches`


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


def generated_despite_config(generate: Any, toy: Any, ids: Tensor, new_tokens: int, ends: list[int]) -> list[int]:
    """The tokens that `generate` writes where no end token is given, and the config has one."""
    reader = Reader(toy, ids).eval()
    reader.config = toy.config.replace(eos_token_id=ends[0])
    return python_ints(generate(reader, ids, new_tokens))


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
