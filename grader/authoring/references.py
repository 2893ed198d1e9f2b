"""What several lessons' exercises are checked against: greedy generation with a toy model, the contents of a cache."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from grader.authoring.drives.caches import Filled
from grader.authoring.drives.rows import FilledRows
from grader.authoring.toy import random_toy_lm, reference_generate
from grader.config import Config
from grader.lessons.exercise import Draw
from grader.recordings.toy_lm import ToyLM


def toy_that_ends(
    draw: Draw, n_positions: int, prompt: int, new_tokens: int, *, vocabulary: int = 61, ends: str | bool = True
) -> tuple[ToyLM, Tensor, int]:
    """A toy model, ids [1, prompt], and an end token that it writes in the middle of what is new, and not before.

    ends: "prompt", where the end token stands in the prompt as well; "zero", where it is token 0; else any will do.
    """
    while True:
        toy = random_toy_lm(vocabulary, n_positions, draw.generator)
        ids = draw.tokens(vocabulary, 1, prompt)
        written: Sequence[int] = reference_generate(toy, ids, new_tokens).tolist()
        middle = new_tokens // 2
        if (ends == "prompt" and written[middle] not in ids[0, :-1].tolist()) or (
            ends == "zero" and written[middle] != 0
        ):
            continue
        if written.index(written[middle]) == middle and len(set(written)) > middle:  # else too repetitive
            return toy, ids, written[middle]


def generation_args(
    prompt: int, new_tokens: int, stop_at: int | None = None, last: bool = False, in_prompt: bool = False
) -> Any:
    """Draws ToyLM, ids [1, prompt], new_tokens, and for `stop_at` two end tokens, of which one comes.

    last: whether it is the last of the two. in_prompt: whether it stands in the prompt as well.
    """
    vocabulary = 47 if last else 61

    def draw_args(draw: Draw) -> Sequence[Any]:
        length = draw.size("prompt", prompt, prompt + 1, prompt + 3)
        while True:
            toy = random_toy_lm(vocabulary, vocabulary + 3, draw.generator)
            ids = draw.tokens(vocabulary, 1, length)
            if stop_at is None:
                return toy, ids, new_tokens, []
            written = reference_generate(toy, ids, new_tokens).tolist()
            if not in_prompt or (
                written[stop_at] in ids[0, :-1].tolist() and written[stop_at] not in written[:stop_at]
            ):
                break
        never = next(token for token in range(vocabulary) if token not in written)
        return toy, ids, new_tokens, [never, written[stop_at]] if last else [written[stop_at], never]

    return draw_args


def right_rows_read(toy: ToyLM, ids: Tensor, new_tokens: int, end: int | None) -> int:
    """How many ids a model with a cache is given: each token is read once, and the last need not be."""
    return ids.shape[1] + len(reference_generate(toy, ids, new_tokens, end)) - 1


def right_fill(kv: Tensor, capacity: int, chunks: Sequence[int]) -> Filled:
    """What `fill` finds in a cache with room for `capacity` tokens. transformers' DynamicCache holds the contents."""
    cache, filled, start = DynamicCache(), Filled(), 0
    filled.lengths.append(0)
    for size in chunks:
        if size == 0:
            cache = DynamicCache()
            filled.contents.clear()
        elif cache.get_seq_length() + size <= capacity:
            k, v = kv[:, :, :, start : start + size]
            filled.contents.append(torch.cat(cache.update(k, v, 0), dim=-1))
            start += size
            filled.codes += [0, cache.get_seq_length()]
        else:
            filled.codes += [1, cache.get_seq_length()]
        filled.lengths.append(cache.get_seq_length())
    return filled


def right_contents(kv: Tensor, capacity: int, chunks: Sequence[int]) -> Tensor:
    """What every append since the last reset returns, one behind the other."""
    return torch.cat(right_fill(kv, capacity, chunks).contents, dim=2)


def right_contents_in_turns(kv: Tensor, capacity: int, chunks: Sequence[int]) -> Tensor:
    """What every append returns in two caches that are filled in turns, the second with the negatives."""
    return torch.cat([right_contents(sign * kv, capacity, chunks) for sign in (1, -1)], dim=2)


def right_ring_in_turns(kv: Tensor, window: int, chunks: list[int]) -> Tensor:
    """The same for rings."""
    return torch.cat([right_ring(sign * kv, window, chunks) for sign in (1, -1)], dim=2)


def right_last(kv: Tensor, capacity: int, chunks: Sequence[int]) -> Tensor:
    """What the last append returns that fits."""
    return right_fill(kv, capacity, chunks).last


def right_ring(kv: Tensor, window: int, chunks: list[int]) -> Tensor:
    """What comes back from a cache that is right: slices of the whole since the last reset."""
    start, begin = 0, 0
    contents: list[Tensor] = []
    for size in chunks:
        if size == 0:
            begin = start
            contents.clear()
        else:
            first = max(begin, start - window + 1)
            contents.append(torch.cat([*kv[:, :, :, first : start + size]], dim=-1))
            start += size
    return torch.cat(contents, dim=2)


def right_pieces(toy: Any, ids: Tensor, new_tokens: int, end: Any, chunk: int) -> list[int]:
    """A prompt in pieces, then single tokens."""
    length, tokens = ids.shape[1], len(reference_generate(toy, ids, new_tokens, end))
    return [*[chunk] * (length // chunk), *([length % chunk] if length % chunk else []), *[1] * (tokens - 1)]


def right_fill_of_rows(capacity: int, parts: Sequence[Tensor]) -> FilledRows:
    """What `fill_rows` finds in a cache with room for `capacity` rows."""
    kept, filled = parts[0][:, :0], FilledRows()
    for part in parts:
        refused = kept.shape[1] + part.shape[1] > capacity
        if not refused:
            kept = torch.cat([kept, part], dim=1)
            filled.contents.append(kept)
        filled.codes += [int(refused), kept.shape[1]]
    return filled


def right_rows(config: Config, batch: int, capacity: int, parts: list[Tensor]) -> Tensor:
    """What every append returns, and what the last part does in a second cache."""
    return torch.cat([*right_fill_of_rows(capacity, parts).contents, parts[-1]], dim=1)


def right_rows_in_turns(config: Config, batch: int, capacity: int, parts: list[Tensor]) -> Tensor:
    """What every append returns in two caches that are filled in turns, the second with the negatives."""
    contents = right_fill_of_rows(capacity, parts).contents
    return torch.cat([*contents, *(-rows for rows in contents)], dim=1)


def right_room_of_rows(config: Config, batch: int, capacity: int, parts: list[Tensor]) -> list[int]:
    """How many numbers and how many bytes a cache of latents and keys keeps."""
    numbers = batch * capacity * (config.kv_lora_rank + config.qk_rope_head_dim)
    return [numbers, numbers * parts[0].element_size()]


def absorbed_work(config: Mapping[str, Any], rows: int) -> int:
    """Twice the multiply-adds of absorbed latent attention for one token: more than any order of it takes.

    Half of what rebuilding the keys and values of 40 rows takes.
    """
    D, H, r = config["hidden_size"], config["num_attention_heads"], config["kv_lora_rank"]
    n, p, v, q = (config[f] for f in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "q_lora_rank"))
    queries: int = D * q + q * H * (n + p) if q else D * H * (n + p)
    total: int = 2 * (queries + D * (r + p) + H * v * D + H * r * (n + v) + H * rows * (2 * r + p))
    return total
