"""Sparse attention with an indexer: a cache of rows and index keys of the check's own, what is chosen, and such caches.

A cache's class takes config, batch, capacity, dtype, and whether it has room for index keys.
"""

from typing import Any

import torch
from torch import Tensor, nn

from grader.authoring.drives.rows import Rows, append_rows_or_refuse, rows_given, sizes_between
from grader.authoring.drives.use import MultiplyAdds, in_chunks, in_turns, memory_behind, tensor_given


class IndexedRows(Rows):
    """As `Rows`, with index keys [B, T, width] beside the rows, which `append_keys` appends and returns."""

    def __init__(self) -> None:
        super().__init__()
        self.index_keys = torch.zeros(0)
        self.indexed = 0

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"this check's cache has `append`, `append_keys` and `length`, and no `{name}`")

    def append_keys(self, new: Tensor) -> Tensor:
        self.index_keys = torch.cat([self.index_keys, new], dim=1) if self.indexed else new
        self.indexed = self.index_keys.shape[1]
        return self.index_keys


# The indexer


def use_vectors(module: Any, latent: Tensor, x: Tensor, table: Tensor) -> Tensor:
    """Queries [B, H, T, width] and, behind them as one head more, keys [B, T, width]."""
    queries = tensor_given(module.queries(latent, table), "queries")
    keys = tensor_given(module.keys(x, table), "keys")
    batch, length, width = x.shape[0], x.shape[1], queries.shape[-1]
    if queries.ndim != 4 or queries.shape[0] != batch or queries.shape[2] != length:
        wanted = f"[{batch}, heads, {length}, width] belongs there"
        raise ValueError(f"queries returned a tensor of shape {list(queries.shape)}; {wanted}")
    if keys.shape != (batch, length, width):
        wanted = f"[{batch}, {length}, {width}] belongs there: one key for all heads"
        raise ValueError(f"keys returned a tensor of shape {list(keys.shape)}; {wanted}")
    return torch.cat([queries, keys[:, None]], dim=1)


def use_scores(module: Any, x: Tensor, latent: Tensor, keys: Tensor, table: Tensor) -> Tensor:
    """The scores of the queries of x with keys: [B, T, S]."""
    return tensor_given(module.scores(x, latent, keys, table), "scores")


def as_counts(chosen: Any, batch: int, queries: int, slots: int, who: str) -> Tensor:
    """How often each slot was chosen, later ones apart: [B, queries, slots] float32, whatever the order was.

    The queries belong to the last `queries` of `slots` tokens. A later token that was chosen counts as nothing.
    """
    given = tensor_given(chosen, who)
    if given.dtype != torch.int64:
        raise TypeError(f"{who} returned a tensor of {given.dtype}; numbers of tokens belong there, int64")
    if given.ndim != 3 or given.shape[:2] != (batch, queries):
        wanted = f"[{batch}, {queries}, k] belongs there"
        raise ValueError(f"{who} returned a tensor of shape {list(given.shape)}; {wanted}")
    if given.numel() and not 0 <= int(given.min()) <= int(given.max()) < slots:
        raise ValueError(f"{who} chose numbers from {int(given.min())} to {int(given.max())}; there are {slots} tokens")
    counts = torch.zeros(batch, queries, slots, dtype=torch.int64).scatter_add(
        2, given.long(), torch.ones_like(given).long()
    )
    return counts.tril(slots - queries)


def chosen_slots(select: Any, scores: Tensor, k: int) -> Tensor:
    """Which slots a selection chooses by scores [B, T, S], as counts."""
    batch, queries, slots = scores.shape
    return as_counts(select(scores, k), batch, queries, slots, "select")


def scores_chosen(select: Any, scores: Tensor, k: int) -> Tensor:
    """The scores of the slots that a selection chooses once, in order; -9 where there is none: [B, T, S]."""
    return torch.where(chosen_slots(select, scores, k) == 1, scores, -9.0).sort(descending=True).values


def how_many_are_chosen(select: Any, scores: Tensor, k: int) -> int:
    """How many numbers a selection gives for each query."""
    return int(tensor_given(select(scores, k), "select").shape[-1])


# Attention


def both_given(given: Any) -> tuple[Tensor, Tensor]:
    """The output and the choice, once it is sure that these two came back."""
    if not isinstance(given, tuple | list) or len(given) != 2 or not all(isinstance(part, Tensor) for part in given):
        hint = "; does it end with `return`?" if given is None else ""
        parts = f" of {', '.join(type(part).__name__ for part in given)}" if isinstance(given, tuple | list) else ""
        raise TypeError(
            f"the attention returned a {type(given).__name__}{parts}; two tensors belong there, the output and the"
            f" numbers of the chosen tokens{hint}"
        )
    return given[0], given[1]


def attended(module: Any, x: Tensor, table: Tensor, cuts: list[int], chosen: Any = None) -> list[tuple[Tensor, Tensor]]:
    """The output and the choice of every piece. Pieces end at the cuts, and go through a cache if there are any.

    chosen: what an earlier layer has chosen for every token, for a layer without an indexer.
    """
    cache = IndexedRows() if cuts else None
    parts = []
    for start, end in zip([0, *cuts], [*cuts, x.shape[1]], strict=True):
        given = None if chosen is None else chosen[:, start:end]
        parts.append(both_given(module(x[:, start:end], table[:, start:end], cache, given)))
        if cache is not None:
            in_cache(cache, end, chosen is None)
    return parts


def in_cache(cache: IndexedRows, tokens: int, indexed: bool) -> None:
    """Raises ValueError where a cache does not have one row and one index key of each token."""
    for what, count, wanted in (("rows", cache.length, tokens), ("index keys", cache.indexed, tokens * indexed)):
        if count != wanted:
            raise ValueError(f"after {tokens} tokens there are {count} {what} in the cache; {wanted} belong there")


def sparse_in_pieces(module: Any, x: Tensor, table: Tensor, cuts: list[int], chosen: Any = None) -> Tensor:
    """The outputs of a text in pieces: [B, T, D]."""
    return torch.cat([output for output, _ in attended(module, x, table, cuts, chosen)], dim=1)


def choices_in_pieces(module: Any, x: Tensor, table: Tensor, cuts: list[int], chosen: Any = None) -> Tensor:
    """What each token of a text in pieces chooses among all tokens, as counts: [B, T, T] int64."""
    counts, start = [], 0
    for output, picked in attended(module, x, table, cuts, chosen):
        end = start + output.shape[1]
        found = as_counts(picked, x.shape[0], output.shape[1], end, "the attention")
        counts.append(torch.nn.functional.pad(found, (0, x.shape[1] - end)))
        start = end
    return torch.cat(counts, dim=1)


def sparse_and_its_work(module: Any, x: Tensor, table: Tensor, cuts: list[int], most: int) -> Tensor:
    """The output for what follows the cut; behind it whether it took at most so many multiply-adds."""
    cache, count = IndexedRows(), MultiplyAdds()  # type: ignore[no-untyped-call]
    module(x[:, : cuts[0]], table[:, : cuts[0]], cache, None)
    with count:
        output, _ = both_given(module(x[:, cuts[0] :], table[:, cuts[0] :], cache, None))
    return torch.cat([output.flatten(), output.new_full((1,), float(count.total <= most))])


# The cache


def fill_both(
    made: Any, config: Any, batch: int, capacity: int, parts: list[Tensor], steps: list[int], refuse: bool = False
) -> Any:
    """What came back from a new cache that was filled step by step, and the lengths after each step.

    parts: rows and index keys in turns. steps: above 0, so many tokens are appended, the next two parts, in every
    second step the rows first; else the cache is cropped to minus this number. refuse: errors become numbers, as in
    `append_rows_or_refuse`.
    """
    cache = made(config, batch, capacity, parts[0].dtype)
    given: list[Tensor] = []
    codes: list[int] = []
    coming = iter(parts)
    for number, step in enumerate(steps):
        if step <= 0:
            cache.crop(-step)
            codes.append(int(cache.length))
            continue
        pair = [next(coming), next(coming)]
        for kind in (0, 1) if number % 2 else (1, 0):
            append = (cache.append, cache.append_keys)[kind]
            code, back = one_or_refused(cache, append, pair[kind]) if refuse else (0, append(pair[kind].clone()))
            codes += [code] if refuse else []
            if not code:
                given.append(rows_given(back, pair[kind]).flatten())
        codes.append(int(cache.length))
    return given, codes


def one_or_refused(cache: Any, append: Any, part: Tensor) -> tuple[int, Any]:
    """What an append returns, and how it was refused: see `append_rows_or_refuse`."""

    class Appends:
        """The cache with this one of its two ways to append."""

        def __init__(self) -> None:
            self.__dict__.update(vars(cache))

        def append(self, new: Tensor) -> Any:
            return append(new)

    back, code = append_rows_or_refuse(Appends(), part)
    return code, back


def both_contents(made: Any, config: Any, batch: int, capacity: int, parts: list[Tensor], steps: list[int]) -> Tensor:
    """Everything that came back, one behind the other."""
    return torch.cat(fill_both(made, config, batch, capacity, parts, steps)[0])


def both_in_turns(made: Any, config: Any, batch: int, capacity: int, parts: list[Tensor], steps: list[int]) -> Tensor:
    """What two caches give back that are filled in turns, the second with the negatives."""
    caches = [made(config, batch, capacity, parts[0].dtype) for _ in range(2)]
    seen: list[Tensor] = []
    for rows, keys in zip(parts[::2], parts[1::2], strict=True):
        for cache, sign in zip(caches, (1, -1), strict=True):
            seen.append(rows_given(cache.append_keys(sign * keys), keys).flatten())
            seen.append(rows_given(cache.append(sign * rows), rows).flatten())
    return torch.cat(seen)


def cropped_while_unequal(
    made: Any, config: Any, batch: int, capacity: int, parts: list[Tensor], steps: list[int]
) -> Tensor:
    """What comes back where a crop finds one index key for all rows of the first step, and more are appended then."""
    cache = made(config, batch, capacity, parts[0].dtype)
    one = parts[1][:, :1]
    given = [rows_given(cache.append(parts[0].clone()), parts[0]), rows_given(cache.append_keys(one.clone()), one)]
    cache.crop(-steps[1])
    for append, part in ((cache.append, parts[2]), (cache.append_keys, parts[3])):
        own = part.clone()
        given.append(rows_given(append(own), part))
        own.zero_()  # a cache that only remembers the caller's tensor loses its rows
        given.append(rows_given(append(part[:, :1].clone()), part))
    return torch.cat([tensor.flatten() for tensor in given])


def without_index_keys(
    made: Any, config: Any, batch: int, capacity: int, parts: list[Tensor], steps: list[int]
) -> list[int]:
    """Of a cache for a layer without an indexer: whether index keys are refused, and rows are not; the length."""
    cache = made(config, batch, capacity, parts[0].dtype, False)
    keys, rows = one_or_refused(cache, cache.append_keys, parts[1]), one_or_refused(cache, cache.append, parts[0])
    return [keys[0], rows[0], int(cache.length)]


def lengths_of_both(
    made: Any, config: Any, batch: int, capacity: int, parts: list[Tensor], steps: list[int]
) -> list[int]:
    """The length after every step."""
    return list(fill_both(made, config, batch, capacity, parts, steps)[1])


def refusals_of_both(
    made: Any, config: Any, batch: int, capacity: int, parts: list[Tensor], steps: list[int]
) -> list[int]:
    """After every step whether each of its two appends was refused, and the length."""
    return list(fill_both(made, config, batch, capacity, parts, steps, refuse=True)[1])


def room_of_both(made: Any, config: Any, batch: int, capacity: int, parts: list[Tensor], steps: list[int]) -> list[int]:
    """The bytes of a new cache with room for index keys, and of one without; and what appends add to the first."""
    dtype = parts[0].dtype
    sizes = []
    for indexed in (True, False):
        cache = made(config, batch, capacity, dtype, indexed)
        sizes.append(sum(memory_behind(cache).values()))
    cache = made(config, batch, capacity, dtype, True)
    before = sum(memory_behind(cache).values())
    for rows, keys in zip(parts[::2], parts[1::2], strict=True):
        cache.append_keys(keys.clone()), cache.append(rows.clone())
    return [*sizes, sum(memory_behind(cache).values()) - before]


# A model


def sparse_model_in_pieces(module: Any, ids: Tensor, cuts: Any = (), layers: int = 0) -> Any:
    """The ids in pieces that end at the cuts, through one cache for each layer; without cuts all at once."""
    caches = [IndexedRows() for _ in range(layers)]
    return in_chunks(module, ids, caches, sizes_between(cuts, ids.shape[1])) if cuts else module(ids)


def sparse_model_in_turns(module: Any, ids: Tensor, cuts: list[int], layers: int) -> Any:
    """As `sparse_model_in_pieces`, for texts that come in turns, piece by piece, each with caches of its own."""
    caches = [[IndexedRows() for _ in range(layers)] for _ in ids]
    return in_turns(module, ids, caches, sizes_between(cuts, ids.shape[1]))


class LayerAttention(nn.Module):
    """Another class that a model may be given for the attention of its layers."""

    def __init__(self, config: Any, layer: int = 0) -> None:
        super().__init__()


def layers_of_another_attention(module: Any, ids: Tensor, config: Any) -> Tensor:
    """In how many layers of such a model another class of attention is used, if that is given."""
    made = type(module)(config, LayerAttention)
    return torch.tensor(sum(isinstance(part, LayerAttention) for part in made.modules()))


def two_shares(recall: Any, scores: Tensor, weights: Tensor, k: int) -> list[float]:
    """What is found by weight, and what by number."""
    by_weight, by_number = recall(scores, weights, k)
    return [float(by_weight), float(by_number)]


def shares_of_one_text(recall: Any, scores: Tensor, weights: Tensor, k: int) -> list[float]:
    """As `two_shares`, for one text whose queries all give a token the same score and weight: [T] and [T]."""
    T = len(scores)
    return two_shares(recall, scores.repeat(1, T, 1), weights.repeat(1, T, 1).tril(), k)
