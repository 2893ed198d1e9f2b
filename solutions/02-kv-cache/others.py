"""What tests/lessons/test_every_lesson.py asks of the KV cache: other right programs and wrong ones, random configs."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import GPT2Model

from grader import Config
from grader.authoring.kit import Case
from grader.authoring.kit.declared import Change, Numbers, Prompt, Told, Trained
from grader.authoring.kit.engine import entry
from grader.authoring.kit.programs import written
from grader.authoring.kit.solved import lesson_of

from . import exercises
from .reference import reference_config

LESSON = lesson_of(__file__)

MISTAKES = 217
VARIES = ["kv_cache.cache"]
WITHOUT = {
    "RANDOM": {
        "kv_cache.cache": "test_kv_cache.py fills it at random, and asks more",
        "kv_cache.model": "test_kv_cache.py splits texts at random, and asks more",
        "kv_cache.generate": "a generation is random as it is: its cases draw the model that writes",
    },
    "bfloat16": {
        "kv_cache.work": "it counts whole numbers",
        "kv_cache.generate": "it handles whole numbers",
        "kv_cache.bytes": "it counts whole numbers",
        "kv_cache.pays": "it counts whole numbers",
    },
    "RERUNS": "its cells read `keys` and `values` of the lesson's own cache, which other right caches need not have",
}


# Random configs


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    heads = draw(st.integers(1, 5))
    return {
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "vocab_size": draw(st.integers(2, 60)),
        "n_positions": draw(st.integers(20, 40)),
        # With head_dim 1 the merged heads lie in memory in another order, and the product rounds differently.
        "n_embd": heads * draw(st.integers(2, 9)),
        "n_head": heads,
        "n_layer": draw(st.integers(1, 3)),
        "n_inner": draw(st.sampled_from([None, 17])),
        "layer_norm_epsilon": draw(st.sampled_from([1e-5, 1e-2])),
    }


# exercise -> a random case of it


def of_work(config: dict[str, Any], n: Numbers) -> Case:
    return Case(str(n.seed), lambda draw: [Config(config), n.seed % 8 + 1, n.seed // 8 % 13])


def of_attention(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.attention_case(str(n.seed), config, n.chunks)


def of_bytes(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.config_case(str(n.seed), config, n.length, n.batch, 4)


def of_devices(config: dict[str, Any], n: Numbers) -> Case:
    others = n.batch, n.seed % 4 + 1
    return exercises.pays_case(str(n.seed), config, [[1e4 * (1.37 + n.seed % 7), 1e3 * (0.39 + n.seed % 3)]], *others)


def of_groups(config: dict[str, Any], n: Numbers) -> Case:
    kv_heads, group = n.seed % 4 + 1, n.seed // 4 % 4 + 1
    return exercises.grouped_case(str(n.seed), kv_heads * group, kv_heads, n.chunks)


CONFIGS = configs()
RANDOM = {
    "kv_cache.work": of_work,
    "kv_cache.attention": of_attention,
    "kv_cache.bytes": of_bytes,
    "kv_cache.pays": of_devices,
    "kv_cache.grouped": of_groups,
}


# Other right programs


def work_by_lists(config: Config, new: int, past: int = 0) -> int:
    D, inner = config.n_embd, config.get("n_inner") or 4 * config.n_embd
    products = [(new, D, 3 * D), (new, D, D), (new, D, inner), (new, inner, D)]
    width = D // config.n_head
    products += [(new, width, new + past), (new, new + past, width)] * config.n_head
    return sum(a * b * c for a, b, c in products * config.n_layer) + new * D * config.vocab_size


class StackedCache:
    """Keys and values in one tensor."""

    def __init__(self, batch: int, heads: int, capacity: int, head_dim: int, dtype: Any = None, device: Any = None):
        self.both = torch.empty(2, batch, heads, capacity, head_dim, dtype=dtype, device=device)
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        room = self.both.shape[3]
        if self.length + k.shape[2] > room:
            raise ValueError(f"full: capacity {room}")
        self.both.narrow(3, self.length, k.shape[2]).copy_(torch.stack([k, v]))
        self.length += k.shape[2]
        keys, values = self.both[..., : self.length, :]
        return keys, values

    def reset(self) -> None:
        self.length = 0


class TokensFirstCache:
    """Memory in which a token's heads lie side by side; the length is counted elsewhere and asked for."""

    def __init__(self, batch: int, heads: int, capacity: int, head_dim: int, dtype: Any = None, device: Any = None):
        self.k = torch.zeros(batch, capacity, heads, head_dim, dtype=dtype, device=device)
        self.v = torch.zeros(batch, capacity, heads, head_dim, dtype=dtype, device=device)
        self.free = list(range(capacity))

    @property
    def length(self) -> int:
        return self.k.shape[1] - len(self.free)

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if k.shape[2] > len(self.free):
            raise ValueError(f"{k.shape[2]} tokens, and room for {len(self.free)} of {self.k.shape[1]}")
        places = torch.tensor(self.free[: k.shape[2]])
        del self.free[: k.shape[2]]
        self.k.index_copy_(1, places, k.transpose(1, 2))
        self.v.index_copy_(1, places, v.transpose(1, 2))
        return self.k[:, : self.length].transpose(1, 2), self.v[:, : self.length].transpose(1, 2)

    def reset(self) -> None:
        self.free = list(range(self.k.shape[1]))


class AttentionBase(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        conv = LESSON.solutions["Conv1D"]
        self.num_heads, self.head_dim = config.n_head, config.n_embd // config.n_head
        self.c_proj = conv(config.n_embd, config.n_embd)
        self.c_attn = conv(3 * config.n_embd, config.n_embd)

    def all(self, x: Tensor, cache: Any) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.c_attn(x).unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        return (q, *cache.append(k, v)) if cache is not None else (q, k, v)


class AttentionSdpa(AttentionBase):
    """The fused kernel with a mask made of positions."""

    def forward(self, x: Tensor, cache: Any = None) -> Tensor:
        q, k, v = self.all(x, cache)
        keys = torch.arange(k.shape[2])
        seen = keys <= keys[-x.shape[1] :, None]
        return self.c_proj(F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(2))


class AttentionRowByRow(AttentionBase):
    """Each query by itself, which needs no mask."""

    def forward(self, x: Tensor, cache: Any = None) -> Tensor:
        q, k, v = self.all(x, cache)
        old, rows = k.shape[2] - x.shape[1], []
        for t in range(x.shape[1]):
            own_k, own_v = k[:, :, : old + t + 1], v[:, :, : old + t + 1]
            weights = torch.einsum("bhd,bhjd->bhj", q[:, :, t], own_k).div(self.head_dim**0.5).softmax(-1)
            rows.append(torch.einsum("bhj,bhjd->bhd", weights, own_v).flatten(1))
        return self.c_proj(torch.stack(rows, dim=1))


class OtherBlock(nn.Module):
    attention: type[nn.Module] = AttentionSdpa

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attn, self.mlp = self.attention(config), LESSON.solutions["MLP"](config)
        self.ln_1, self.ln_2 = (nn.LayerNorm(config.n_embd, config.layer_norm_epsilon) for _ in "12")

    def forward(self, x: Tensor, memory: Any) -> Tensor:
        x = self.attn(self.ln_1(x), memory) + x
        return self.mlp(self.ln_2(x)) + x


class ModelFromScratch(nn.Module):
    """Asks the last layer for the length, and reads positions off the table."""

    block: type[nn.Module] = OtherBlock
    memory: type = StackedCache

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.wpe, self.wte = (nn.Embedding(n, config.n_embd) for n in (config.n_positions, config.vocab_size))
        self.ln_f = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.h = nn.ModuleList([self.block(config) for _ in range(config.n_layer)])

    def new_cache(self, batch: int, capacity: int) -> Any:
        if not capacity <= self.config.n_positions:
            raise ValueError("too long")
        head_dim = self.config.n_embd // self.config.n_head
        made = self.config.n_head, capacity, head_dim, self.ln_f.weight.dtype, self.ln_f.weight.device
        return tuple(self.memory(batch, *made) for _ in self.h)

    def forward(self, ids: Tensor, caches: Any = None) -> Tensor:
        old = caches[-1].length if caches is not None else 0
        x = self.wte.weight[ids] + self.wpe.weight[old : old + ids.shape[1]]
        for block, memory in zip(self.h, caches or [None] * len(self.h), strict=True):
            x = block(x, memory)
        return self.ln_f(x) @ self.wte.weight.T


class BlockRowByRow(OtherBlock):
    attention = AttentionRowByRow


class ModelRowByRow(ModelFromScratch):
    block, memory = BlockRowByRow, TokensFirstCache


def generate_into_a_list(model: Any, ids: Tensor, max_new_tokens: int, eos_token_id: int | None = None) -> list[int]:
    """Reads the prompt one by one."""
    cache = model.new_cache(1, ids.shape[1] + max_new_tokens - 1)
    for token in ids[:, :-1].unbind(1):
        model(token[:, None], cache)
    return written(lambda new: model(new, cache), ids[:, -1:], max_new_tokens, [eos_token_id])


def generate_with_topk(model: Any, ids: Tensor, max_new_tokens: int, eos_token_id: int | None = None) -> Iterator[int]:
    """Asks the cache how much of the text it knows."""
    cache = model.new_cache(batch=1, capacity=ids.shape[1] + max_new_tokens - 1)
    for _ in range(max_new_tokens):
        best = model(ids[:, cache[0].length :], cache).softmax(-1)[:, -1:].topk(1)
        ids = torch.cat([ids, best.indices[:, :, 0]], dim=1)
        yield int(ids[0, -1])
        if ids[0, -1] == eos_token_id:
            break


def bytes_by_shape(config: Config, context: int, batch: int = 1, element_bytes: int = 2) -> int:
    gpt2 = "n_layer" in config
    heads = config["n_head" if gpt2 else "num_attention_heads"]
    kv_heads = heads if gpt2 else config.get("num_key_value_heads") or heads
    width = config["n_embd"] // heads if gpt2 else config.get("head_dim") or config["hidden_size"] // heads
    layers = range(config["n_layer" if gpt2 else "num_hidden_layers"])
    shape = (2, batch, kv_heads, context, width)
    return sum(torch.empty(shape, device="meta").numel() * element_bytes for _ in layers)


def grouped_by_kernel(q: Tensor, k: Tensor, v: Tensor, cache: Any) -> Tensor:
    k, v = cache.append(k, v)
    queries = torch.arange(k.shape[2] - q.shape[2], k.shape[2])
    mask = torch.zeros(q.shape[2], k.shape[2]).masked_fill(torch.arange(k.shape[2]) > queries[:, None], -1e9)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)


def grouped_by_einsum(q: Tensor, k: Tensor, v: Tensor, cache: Any) -> Tensor:
    old = cache.length
    k, v = cache.append(k, v)
    q = q.unflatten(1, (k.shape[1], -1)) / q.shape[-1] ** 0.5
    scores = torch.einsum("bkgid,bkjd->bkgij", q, k)
    later = torch.arange(k.shape[2])[None] > old + torch.arange(q.shape[3])[:, None]
    weights = torch.where(later, float("-inf"), scores).softmax(-1)
    return torch.einsum("bkgij,bkjd->bkgid", weights, v).flatten(1, 2)


class AttentionInTurn(AttentionSdpa):
    """Keys are appended one token after the other."""

    def all(self, x: Tensor, cache: Any) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().all(x, None)
        if cache is None:
            return q, k, v
        for t in range(x.shape[1]):
            keys, values = cache.append(k[:, :, t : t + 1], v[:, :, t : t + 1])
        return q, keys, values


def pays_by_doubling(config: Config, speed: float, bandwidth: float, batch: int = 1, element_bytes: int = 2) -> int:
    """A cache that pays once pays for good, so the first n is found by halving."""
    D, L, inner = config.n_embd, config.n_layer, config.get("n_inner") or 4 * config.n_embd
    a_row = L * (4 * D * D + 2 * D * inner) + D * config.vocab_size

    def pays(n: int) -> bool:
        row, kept = a_row + 2 * L * D * (n + 1), 2 * L * D * n * batch
        cached = max(batch * row / speed, element_bytes * (a_row + kept) / bandwidth)
        return cached < max(batch * (n + 1) * row / speed, element_bytes * a_row / bandwidth)

    low, high = 0, 1
    while not pays(high):
        low, high = high, 2 * high
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if pays(middle) else (middle + 1, high)
    return low


RIGHT: dict[str, tuple[Callable[..., Any], ...]] = {
    "kv_cache.work": (work_by_lists,),
    "kv_cache.cache": (StackedCache, TokensFirstCache),
    "kv_cache.attention": (AttentionSdpa, AttentionRowByRow, AttentionInTurn),
    "kv_cache.model": (ModelFromScratch, ModelRowByRow),
    "kv_cache.generate": (generate_into_a_list, generate_with_topk),
    "kv_cache.bytes": (bytes_by_shape,),
    "kv_cache.pays": (pays_by_doubling,),
    "kv_cache.grouped": (grouped_by_kernel, grouped_by_einsum),
}


# Programs that are right only by chance, or by not using the cache, do not pass, and are told why


def generate_without_cache(model: Any, ids: Tensor, max_new_tokens: int, eos_token_id: int | None = None) -> Any:
    yield from LESSON.solutions["generate"](model, ids, max_new_tokens, eos_token_id)


class ModelThatReadsAgain(ModelFromScratch):
    """Keeps the tokens in place of keys and values."""

    def forward(self, ids: Tensor, caches: Any = None) -> Tensor:
        if caches is None:
            return super().forward(ids)
        if caches[0].length == 0:
            caches[0].ids = ids[:, :0]
        caches[0].ids = torch.cat([caches[0].ids, ids], dim=1)
        caches[0].length = caches[0].ids.shape[1]
        return super().forward(caches[0].ids)[:, -ids.shape[1] :]


class AttentionForDecodeOnly(AttentionBase):
    """Right for a prompt and for single tokens, wrong for a chunk of several: a mask for squares only."""

    def forward(self, x: Tensor, cache: Any = None) -> Tensor:
        q, k, v = self.all(x, cache)
        square = q.shape[2] == k.shape[2]
        return self.c_proj(F.scaled_dot_product_attention(q, k, v, is_causal=square).transpose(1, 2).flatten(2))


class CacheWithoutCheck(StackedCache):
    """Leaves the check to PyTorch, which does not notice one token too many."""

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        end = self.length + k.shape[2]
        self.both[0, :, :, self.length : end], self.both[1, :, :, self.length : end] = k, v
        self.length = end
        keys, values = self.both[..., :end, :]
        return keys, values


class CacheThatKeepsTheCallersTensors(StackedCache):
    """A list of what it was given, put together when asked."""

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.parts = [*(self.parts if self.length else []), (k, v)]  # type: ignore[has-type]
        self.length += k.shape[2]
        if self.length > self.both.shape[3]:
            self.length -= k.shape[2]
            raise ValueError(f"room for {self.both.shape[3]}")
        keys, values = (torch.cat(parts, dim=2) for parts in zip(*self.parts, strict=True))
        return keys, values


class HeadsLater(AttentionBase):
    def forward(self, x: Tensor, cache: Any = None) -> Tensor:
        q, k, v = self.c_attn(x).chunk(3, dim=-1)
        cache.append(k, v)
        return self.c_proj(q)


class Stub(StackedCache):
    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError()


def pays_without_fetching_a_cache(
    config: Config, speed: float, bandwidth: float, batch: int = 1, element_bytes: int = 2
) -> int:
    """Right where the cache is small beside the weights."""
    weights = LESSON.solutions["multiply_adds"](config, 1) - 2 * config.n_layer * config.n_embd
    return max(1, int(element_bytes * weights / bandwidth * speed / batch / weights))


BY_CHANCE = {
    "kv_cache.attention": [AttentionForDecodeOnly],
    "kv_cache.cache": [CacheWithoutCheck, CacheThatKeepsTheCallersTensors],
    "kv_cache.model": [ModelThatReadsAgain],
    "kv_cache.generate": [generate_without_cache],
    "kv_cache.pays": [pays_without_fetching_a_cache],
}
TOLD = [
    Told(
        "kv_cache.generate",
        generate_without_cache,
        ["11 of 14 cases right", "no cache is made, and the whole text read at every step"],
    ),
    Told("kv_cache.model", ModelThatReadsAgain, ["the cache is kept, and everything is computed again"]),
    Told(
        "kv_cache.attention",
        HeadsLater,
        ["append was given keys of shape [2, 5, 24]; [2, 3, 5, 8] belongs there"],
    ),
    Told("kv_cache.cache", Stub, ["Stub.append` is not written yet"]),
    Told(
        "kv_cache.model",
        Change("kv_cache.attention", "triu(diagonal=later)", "triu(diagonal=1)"),
        ["Mend `kv_cache.attention` first"],
    ),
    Told(
        "kv_cache.model",
        Change("kv_cache.cache", "self.length = end", "self.length += 1"),
        ["Mend `kv_cache.cache` first"],
    ),
    Told(
        "kv_cache.model",
        Change("kv_cache.model", "return [KVCache", "[KVCache"),
        ["new_cache returned None; does it end with `return`?"],
    ),
    Told(
        "kv_cache.model",
        Change("kv_cache.model", "for _ in range(config.n_layer)]", "for _ in range(2)]"),
        ["new_cache returned 2 of them"],
    ),
    Told(
        "kv_cache.model",
        Change("kv_cache.model", "raise ValueError(", "raise RuntimeError("),
        ["with another error than the docstring says"],
    ),
    Told(
        "kv_cache.generate",
        Change("kv_cache.generate", ", keepdim=True", ""),
        ["given ids of shape [1]; [1, T] belongs there"],
    ),
    Told(
        "kv_cache.generate", Change("kv_cache.generate", "yield token", "print(token)"), ["does it `yield` each token?"]
    ),
    Told("kv_cache.grouped", Change("kv_cache.grouped", "return F.", "F."), ["does it end with `return`?"]),
    Told(
        "kv_cache.grouped",
        Change("kv_cache.grouped", "attn_mask=seen)", "attn_mask=seen).flatten(2)"),
        ["as the queries have it, belongs there"],
    ),
    Told(
        "kv_cache.attention",
        Change(
            "kv_cache.attention", "k, v = cache.append(k, v)", "cache.append(k, v); k, v = cache.keys, cache.values"
        ),
        ["the cache's whole memory is attended to"],
    ),
    Told(
        "kv_cache.work",
        Change("kv_cache.work", "2 * D * (past + new)", "4 * D * (past + new) / 2"),
        ["should be an int"],
    ),
]


# The layer comparison, names, sizes and trained weights


def of_a_larger_input(self: Any, x: Tensor, cache: Any = None) -> Tensor:
    return LESSON.solutions["CachedAttention"].forward(self, x * 1.1, cache)


PLANTED = [("h.1.attn", of_a_larger_input)]


def hubs(config: Config) -> nn.Module:
    """The hub's files hold the model without a head."""
    return GPT2Model(reference_config(config))


HUB = {"kv_cache.model": hubs}
CONFIG_SHA256 = {
    "qwen3-0.6b": "660db3b73d788119c04535e48cf9be5f55bc3100841a718637ae695b442f27dd",
    "qwen3-8b": "f7c4eadfbbf522470667b797a3c89be2524832d2d599797248dc304fff447c30",
}
SIZES = {name: (LESSON.config(name), entry(name).parameters) for name in ("gpt2", "gpt2-xl")}
TEXTS = "It is a truth universally acknowledged", "Anne", "Mr. Darcy had never been so"
# To the last position.
TRAINED = [Trained("austen-gpt2", "CachedGPT2", "generate_cached", [Prompt(text, None) for text in TEXTS])]
