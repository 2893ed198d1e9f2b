"""What a cache of keys and values, and a model that reads with it, must give."""

from collections.abc import Mapping, Sequence
from itertools import count
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel
from transformers.models.llama.modeling_llama import eager_attention_forward

from grader.authoring.kit import Config, hf
from grader.authoring.kit.caches import right_fill
from grader.authoring.kit.toy import ToyLM, reference_generate


def reference_config(config: Mapping[str, Any]) -> Any:
    return hf.config(GPT2Config, config)


def count_products(config: Config, new: int, past: int = 0) -> int:
    """The multiply-adds that transformers' GPT-2 makes for `new` tokens after `past` in its own cache."""
    model: Any = GPT2LMHeadModel(reference_config(config)).eval()
    cache = DynamicCache()
    with torch.no_grad():
        if past:
            model(input_ids=torch.zeros(1, past, dtype=torch.int64), cache=cache, use_cache=True)
        with FlopCounterMode(display=False) as counter:
            model(input_ids=torch.zeros(1, new, dtype=torch.int64), cache=cache, use_cache=True)
    operations = counter.get_total_flops()  # an addition and a multiplication are two
    assert operations % 2 == 0 and cache.get_seq_length() == past + new
    return operations // 2


def right_rows_read(toy: ToyLM, ids: Tensor, new_tokens: int, end: int | None) -> int:
    """How many ids a model with a cache is given: each token is read once, and the last need not be."""
    return ids.shape[1] + len(reference_generate(toy, ids, new_tokens, end)) - 1


def right_contents(kv: Tensor, capacity: int, chunks: Sequence[int]) -> Tensor:
    """What every append since the last reset returns, one behind the other."""
    return torch.cat(right_fill(kv, capacity, chunks).contents, dim=2)


def right_contents_in_turns(kv: Tensor, capacity: int, chunks: Sequence[int]) -> Tensor:
    """What every append returns in two caches that are filled in turns, the second with the negatives."""
    return torch.cat([right_contents(sign * kv, capacity, chunks) for sign in (1, -1)], dim=2)


def right_last(kv: Tensor, capacity: int, chunks: Sequence[int]) -> Tensor:
    """What the last append returns that fits."""
    return right_fill(kv, capacity, chunks).last


def right_groups(q: Tensor, kv: Tensor, chunks: list[int]) -> Any:
    """transformers' eager attention on everything at once."""
    k, v = kv.to(q.dtype)
    T, head_dim = q.shape[2:]
    later = torch.ones(T, T, dtype=torch.bool).triu(1)
    mask = torch.zeros(1, 1, T, T, dtype=q.dtype).masked_fill(later, torch.finfo(q.dtype).min)
    module: Any = SimpleNamespace(num_key_value_groups=q.shape[1] // k.shape[1], training=False)
    return eager_attention_forward(module, q, k, v, mask, scaling=head_dim**-0.5)[0].transpose(1, 2)


def right_pays(
    config: Mapping[str, Any], devices: Sequence[Sequence[float]], batch: int = 1, element_bytes: int = 2
) -> list[int]:
    """Product by product, and number by number of the cache."""
    D, L = config["n_embd"], config["n_layer"]
    inner = config.get("n_inner") or 4 * D
    matrices = [(D, 3 * D), (D, D), (D, inner), (inner, D)] * L + [(D, config["vocab_size"])]

    def pays(n: int, speed: float, bandwidth: float) -> bool:
        def seconds(rows: int, old: int) -> float:
            products = sum(batch * rows * a * b for a, b in matrices)
            products += sum(2 * batch * rows * (n + 1) * D for _ in range(L))
            fetched = sum(a * b for a, b in matrices) + sum(2 * D for _ in range(batch * old) for _ in range(L))
            return max(products / speed, element_bytes * fetched / bandwidth)

        return seconds(1, n) < seconds(n + 1, 0)

    return [next(n for n in count() if pays(n, speed, bandwidth)) for speed, bandwidth in devices]
