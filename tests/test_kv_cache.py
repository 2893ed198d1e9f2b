"""Lesson 02: its solutions against transformers for every split into chunks, other right programs, trained weights."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from solved import Solved, written_by_transformers
from torch import Tensor, nn
from transformers import DynamicCache, GPT2LMHeadModel

from grader import Config
from grader.checking import examine, report
from grader.checkpoints import entry
from grader.layers import layer_report
from grader.probe import one_thread
from grader.recorder import record
from grader.recording import Recording
from grader.report import to_text
from grader.tolerance import agree

SOLVED = Solved("02-kv-cache")
LESSON = SOLVED.lesson
EXERCISES = [
    "kv_cache.work",
    "kv_cache.cache",
    "kv_cache.attention",
    "kv_cache.model",
    "kv_cache.generate",
    "kv_cache.bytes",
    "kv_cache.grouped",
]


# Solutions are the reference's program, however a text is cut into pieces


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


splits = st.lists(st.integers(1, 6), min_size=1, max_size=8).filter(lambda chunks: sum(chunks) <= 20)


def both_models(config: dict[str, Any], seed: int) -> tuple[Any, Any]:
    """transformers' model with random weights and the solution's with the same."""
    torch.manual_seed(seed)
    theirs: Any = GPT2LMHeadModel(SOLVED.reference.reference_config(config)).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    own = SOLVED.solutions["CachedGPT2"](Config(config)).eval()
    named = {SOLVED.reference.checkpoints_name(name): tensor for name, tensor in theirs.state_dict().items()}
    own.load_state_dict({name: tensor for name, tensor in named.items() if name})
    return theirs, own


@settings(max_examples=60)
@given(config=configs(), chunks=splits, batch=st.integers(1, 3), seed=st.integers(0, 10**6))
def test_cached_equals_uncached_for_every_split(
    config: dict[str, Any], chunks: list[int], batch: int, seed: int
) -> None:
    """Within tolerance: one row goes through another kernel than many rows do."""
    theirs, own = both_models(config, seed)
    ids = torch.randint(config["vocab_size"], (batch, sum(chunks)))
    with torch.no_grad(), one_thread():
        whole = theirs(input_ids=ids, use_cache=False).logits
        cache = own.new_cache(batch, sum(chunks))
        pieces = torch.cat([own(piece, cache) for piece in ids.split(chunks, dim=1)], dim=1)
        assert [layer.length for layer in cache] == [sum(chunks)] * config["n_layer"]
        assert agree(pieces, whole)
        assert torch.equal(own(ids), whole)


@settings(max_examples=60)
@given(config=configs(), chunks=splits, batch=st.integers(1, 3), seed=st.integers(0, 10**6))
def test_cached_equals_transformers_with_its_own_cache(
    config: dict[str, Any], chunks: list[int], batch: int, seed: int
) -> None:
    """Within tolerance: transformers' keys lie in new tensors, these in a part of a larger one."""
    theirs, own = both_models(config, seed)
    ids = torch.randint(config["vocab_size"], (batch, sum(chunks)))
    dynamic, cache = DynamicCache(), own.new_cache(batch, config["n_positions"])
    with torch.no_grad(), one_thread():
        for piece in ids.split(chunks, dim=1):
            want = theirs(input_ids=piece, cache=dynamic, use_cache=True).logits
            assert agree(own(piece, cache), want)
        for layer, their_layer in zip(cache, dynamic.layers, strict=True):
            assert agree(layer.keys[:, :, : layer.length], their_layer.keys)
            assert agree(layer.values[:, :, : layer.length], their_layer.values)


@settings(max_examples=60)
@given(chunks=splits, spare=st.integers(0, 3), batch=st.integers(1, 3), heads=st.integers(1, 4))
def test_the_cache_gives_back_what_went_in(chunks: list[int], spare: int, batch: int, heads: int) -> None:
    capacity = sum(chunks) + spare
    cache = SOLVED.solutions["KVCache"](batch, heads, capacity, 5)
    for _ in range(2):
        k, v = torch.randn(2, batch, heads, sum(chunks), 5)
        start = 0
        for size in chunks:
            keys, values = cache.append(k[:, :, start : start + size], v[:, :, start : start + size])
            start += size
            assert torch.equal(keys, k[:, :, :start]) and torch.equal(values, v[:, :, :start])
            assert cache.length == start
        one = torch.ones(batch, heads, spare + 1, 5)
        with pytest.raises(ValueError, match=f"room for {capacity} tokens"):
            cache.append(one, one)
        assert cache.length == start and torch.equal(cache.keys[:, :, :start], k)
        cache.reset()
        assert cache.length == 0


@settings(max_examples=40)
@given(config=configs(), new=st.integers(1, 8), past=st.integers(0, 12))
def test_the_work_is_that_which_transformers_does(config: dict[str, Any], new: int, past: int) -> None:
    counted = SOLVED.reference.count_products(Config(config), new, past)
    assert SOLVED.solutions["multiply_adds"](Config(config), new, past) == counted


@settings(max_examples=40)
@given(chunks=splits, kv_heads=st.integers(1, 4), group=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_grouped_attention_is_transformers(chunks: list[int], kv_heads: int, group: int, seed: int) -> None:
    torch.manual_seed(seed)
    q, kv = torch.randn(2, kv_heads * group, sum(chunks), 6), torch.randn(2, 2, kv_heads, sum(chunks), 6)
    cache = SOLVED.solutions["KVCache"](2, kv_heads, sum(chunks), 6)
    start, seen = 0, []
    for size in chunks:
        part = slice(start, start + size)
        seen.append(SOLVED.solutions["grouped_attention"](q[:, :, part], *kv[:, :, :, part], cache))
        start += size
    assert agree(torch.cat(seen, dim=2), SOLVED.reference.right_groups(q, kv, chunks))


@settings(max_examples=15)
@given(config=configs(), prompt=st.integers(1, 6), tokens=st.integers(1, 9), seed=st.integers(0, 10**6))
def test_generation_reads_as_many_rows_as_transformers(
    config: dict[str, Any], prompt: int, tokens: int, seed: int
) -> None:
    theirs, own = both_models(config, seed)
    rows: dict[str, int] = {"theirs": 0, "own": 0}

    def counting(name: str) -> Callable[..., None]:
        def count(module: nn.Module, args: Any) -> None:
            rows[name] += args[0].shape[1]

        return count

    theirs.transformer.h[0].mlp.register_forward_pre_hook(counting("theirs"))
    own.h[0].mlp.register_forward_pre_hook(counting("own"))
    ids = torch.randint(config["vocab_size"], (1, prompt))
    with one_thread():
        written_by_transformers(theirs, ids, tokens)
        list(SOLVED.solutions["generate_cached"](own, ids, tokens))
    assert rows["own"] == rows["theirs"] == prompt + tokens - 1


def test_without_a_cache_it_is_bit_exact_on_the_lessons_own_cases() -> None:
    for name in ("kv_cache.attention", "kv_cache.model"):
        exercise = SOLVED.exercises[name]
        verdict = SOLVED.verdict_on(SOLVED.solutions[exercise.solution], exercise, exercise.cases[0])
        assert verdict.exact


# Other right programs pass


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
        conv = SOLVED.solutions["Conv1D"]
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
        self.attn, self.mlp = self.attention(config), SOLVED.solutions["MLP"](config)
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
        return tuple(self.memory(batch, self.config.n_head, capacity, head_dim, self.ln_f.weight.dtype) for _ in self.h)

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
    text = ids[0].tolist()
    cache = model.new_cache(1, len(text) + max_new_tokens - 1)
    with torch.inference_mode():
        for token in text:
            logits = model(torch.tensor([[token]]), cache)
        new = [int(logits[0, -1].argmax())]
        while len(new) < max_new_tokens and new[-1] != eos_token_id:
            new.append(int(model(torch.tensor([new[-1:]]), cache)[0, -1].argmax()))
    return new


def generate_tensors(model: Any, ids: Tensor, max_new_tokens: int, eos_token_id: int | None = None) -> Iterator[Tensor]:
    """Asks the cache how much of the text it knows."""
    cache = model.new_cache(batch=1, capacity=ids.shape[1] + max_new_tokens - 1)
    for _ in range(max_new_tokens):
        best = model(ids[:, cache[0].length :], cache).softmax(-1)[:, -1:].topk(1)
        ids = torch.cat([ids, best.indices[:, :, 0]], dim=1)
        yield ids[0, -1]
        if ids[0, -1] == eos_token_id:
            break


def bytes_by_shape(config: Config, context: int, batch: int = 1, element_bytes: int = 2) -> int:
    gpt2 = "n_layer" in config
    heads = config["n_head" if gpt2 else "num_attention_heads"]
    kv_heads = heads if gpt2 else config.get("num_key_value_heads", heads)
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


ALTERNATIVES: dict[str, tuple[Callable[..., Any], ...]] = {
    "kv_cache.work": (work_by_lists,),
    "kv_cache.cache": (StackedCache, TokensFirstCache),
    "kv_cache.attention": (AttentionSdpa, AttentionRowByRow),
    "kv_cache.model": (ModelFromScratch, ModelRowByRow),
    "kv_cache.generate": (generate_into_a_list, generate_tensors),
    "kv_cache.bytes": (bytes_by_shape,),
    "kv_cache.grouped": (grouped_by_kernel, grouped_by_einsum),
}


def test_there_are_alternatives_for_every_exercise() -> None:
    assert list(ALTERNATIVES) == list(SOLVED.exercises) == EXERCISES


@pytest.mark.parametrize(
    ("name", "other"), [(name, other) for name, others in ALTERNATIVES.items() for other in others]
)
def test_another_right_program_passes(name: str, other: Any) -> None:
    verdict = SOLVED.verdict_on(other, SOLVED.exercises[name])
    assert verdict.right, verdict.most_telling


def test_the_lesson_knows_at_least_twenty_five_mistakes() -> None:
    assert sum(len(exercise.mistakes) for exercise in SOLVED.exercises.values()) >= 25


def test_hidden_cases_vary_and_show_every_mistake() -> None:
    """Recording checks that the solution is right, and that each mistake differs from it and from the others."""
    hidden = record(LESSON, secret="a secret of this test")
    shapes = [case.args[0].shape for case in hidden.task("kv_cache.cache").cases]
    assert shapes != [case.args[0].shape for case in Recording.read(LESSON.recording).task("kv_cache.cache").cases]


# Programs that are right only by chance, or by not using the cache, do not pass, and are told why


def told(name: str, target: Any) -> str:
    return to_text(report(examine(Recording.read(LESSON.recording), name, target)))


def generate_without_cache(model: Any, ids: Tensor, max_new_tokens: int, eos_token_id: int | None = None) -> Any:
    yield from SOLVED.solutions["generate"](model, ids, max_new_tokens, eos_token_id)


def test_lesson_01s_generate_writes_the_right_tokens_and_is_told_that_it_works_too_much() -> None:
    text = told("kv_cache.generate", generate_without_cache)
    assert "4 of 7 cases right" in text
    assert "the whole text is computed again at every step" in text


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


def test_a_model_that_computes_everything_again_is_rejected_by_its_work_alone() -> None:
    exercise = SOLVED.exercises["kv_cache.model"]
    verdict = SOLVED.verdict_on(ModelThatReadsAgain, exercise)
    wrong = [case.name for case in verdict.cases if not case.right]
    assert "how many rows all blocks compute together" in wrong
    assert not [name for name in wrong if "rows" not in name and "room" not in name]
    assert "the cache is kept, and everything is computed again" in told("kv_cache.model", ModelThatReadsAgain)


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
        self.parts = [*(self.parts if self.length else []), (k, v)]
        self.length += k.shape[2]
        if self.length > self.both.shape[3]:
            self.length -= k.shape[2]
            raise ValueError(f"room for {self.both.shape[3]}")
        keys, values = (torch.cat(parts, dim=2) for parts in zip(*self.parts, strict=True))
        return keys, values


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("kv_cache.attention", AttentionForDecodeOnly),
        ("kv_cache.cache", CacheWithoutCheck),
        ("kv_cache.cache", CacheThatKeepsTheCallersTensors),
    ],
)
def test_a_program_that_is_right_for_some_uses_does_not_pass(name: str, wrong: Any) -> None:
    assert not SOLVED.verdict_on(wrong, SOLVED.exercises[name]).right


def test_what_the_cache_is_handed_must_have_its_heads_cut_out() -> None:
    class HeadsLater(AttentionBase):
        def forward(self, x: Tensor, cache: Any = None) -> Tensor:
            q, k, v = self.c_attn(x).chunk(3, dim=-1)
            cache.append(k, v)
            return self.c_proj(q)

    assert "append was given keys of shape [2, 5, 24]; [2, 3, 5, 8] belongs there" in told(
        "kv_cache.attention", HeadsLater
    )


def test_a_stub_is_called_not_written() -> None:
    class Stub(StackedCache):
        def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            raise NotImplementedError()

    assert "Stub.append` is not written yet" in told("kv_cache.cache", Stub)


def test_the_layer_comparison_finds_a_scale_that_is_missing_in_one_layer() -> None:
    class Unscaled(SOLVED.solutions["CachedAttention"]):  # type: ignore[misc]
        def forward(self, x: Tensor, cache: Any = None) -> Tensor:
            self.head_dim, head_dim = self.head_dim, self.head_dim
            x = super().forward(x * 1.1, cache)
            self.head_dim = head_dim
            return x

    class WithABug(SOLVED.solutions["CachedGPT2"]):  # type: ignore[misc]
        def __init__(self, config: Config) -> None:
            super().__init__(config)
            self.h[1].attn = Unscaled(config)

    trace = Recording.read(LESSON.recording).trace
    assert trace is not None
    assert layer_report(SOLVED.solutions["CachedGPT2"], trace).ok
    found = layer_report(WithABug, trace)
    assert found.culprit is not None and found.culprit.path.startswith("h.1.attn")


# What slips of several kinds are told


@pytest.mark.parametrize(
    ("changed", "find", "replace", "checked", "sentence"),
    [
        ("attention", "triu(diagonal=later)", "triu(diagonal=1)", "model", "Mend `kv_cache.attention` first"),
        ("cache", "self.length = end", "self.length += 1", "model", "Mend `kv_cache.cache` first"),
        ("model", "return [KVCache", "[KVCache", "model", "new_cache returned None; does it end with `return`?"),
        ("model", "for _ in range(config.n_layer)]", "for _ in range(2)]", "model", "new_cache returned 2 of them"),
        ("model", "raise ValueError(", "raise RuntimeError(", "model", "with another error than the docstring says"),
        ("generate", ", keepdim=True", "", "generate", "given ids of shape [1]; [1, T] belongs there"),
        ("generate", "yield token", "print(token)", "generate", "does it `yield` each token?"),
        ("grouped", "return F.", "F.", "grouped", "does it end with `return`?"),
        (
            "grouped",
            "attn_mask=seen)",
            "attn_mask=seen).flatten(2)",
            "grouped",
            "as the queries have it, belongs there",
        ),
        (
            "attention",
            "k, v = cache.append(k, v)",
            "cache.append(k, v); k, v = cache.keys, cache.values",
            "attention",
            "the cache's whole memory is attended to",
        ),
        ("work", "2 * D * (past + new)", "4 * D * (past + new) / 2", "work", "should be an int"),
    ],
)
def test_a_slip_is_told_in_plain_words(changed: str, find: str, replace: str, checked: str, sentence: str) -> None:
    source = LESSON.source_of(f"kv_cache.{changed}")
    assert find in source
    namespace = LESSON.namespace((f"kv_cache.{changed}", source.replace(find, replace)))
    name = f"kv_cache.{checked}"
    assert sentence in told(name, namespace[SOLVED.exercises[name].solution])


def test_keys_may_be_appended_one_token_after_the_other() -> None:
    class InTurn(AttentionSdpa):
        def all(self, x: Tensor, cache: Any) -> tuple[Tensor, Tensor, Tensor]:
            q, k, v = super().all(x, None)
            if cache is None:
                return q, k, v
            for t in range(x.shape[1]):
                keys, values = cache.append(k[:, :, t : t + 1], v[:, :, t : t + 1])
            return q, keys, values

    assert SOLVED.verdict_on(InTurn, SOLVED.exercises["kv_cache.attention"]).right


# Bytes


@pytest.mark.parametrize(
    ("name", "kib"), [("gpt2", 36), ("gpt2-xl", 300), ("qwen3-0.6b", 112), ("qwen3-4b", 144), ("qwen3-8b", 144)]
)
def test_bytes_a_token_are_the_published_ones(name: str, kib: int) -> None:
    config = Config.read(LESSON.folder / "configs" / f"{name}.json")
    assert SOLVED.solutions["cache_bytes"](config, 1) == kib * 1024


@settings(max_examples=20)
@given(config=configs(), batch=st.integers(1, 3), capacity=st.integers(1, 20), half=st.booleans())
def test_the_formula_is_what_the_tensors_occupy(config: dict[str, Any], batch: int, capacity: int, half: bool) -> None:
    model = SOLVED.solutions["CachedGPT2"](Config(config)).to(torch.bfloat16 if half else torch.float32)
    cache = model.new_cache(batch, capacity)
    measured = sum(t.untyped_storage().nbytes() for layer in cache for t in (layer.keys, layer.values))
    assert measured == SOLVED.solutions["cache_bytes"](Config(config), capacity, batch, 2 if half else 4)


@pytest.mark.parametrize(
    ("name", "sha256"),
    [
        ("qwen3-0.6b", "660db3b73d788119c04535e48cf9be5f55bc3100841a718637ae695b442f27dd"),
        ("qwen3-8b", "f7c4eadfbbf522470667b797a3c89be2524832d2d599797248dc304fff447c30"),
    ],
)
def test_the_lessons_config_is_the_hubs(name: str, sha256: str) -> None:
    assert hashlib.sha256((LESSON.folder / "configs" / f"{name}.json").read_bytes()).hexdigest() == sha256


def test_gpt2s_configs_are_those_of_lesson_01() -> None:
    known = entry("gpt2").files["config.json"].sha256
    for name in ("gpt2", "gpt2-xl"):
        content = (LESSON.folder / "configs" / f"{name}.json").read_bytes()
        assert content == (Path(LESSON.folder).parent / "01-gpt2" / "configs" / f"{name}.json").read_bytes()
        assert name != "gpt2" or known is None or hashlib.sha256(content).hexdigest() == known


# Trained weights


@pytest.fixture(scope="module")
def austen() -> Any:
    return SOLVED.trained("CachedGPT2", "austen-gpt2")


def test_trained_weights_give_the_references_logits(austen: Any) -> None:
    checkpoint, model, theirs = austen
    ids = torch.randint(checkpoint.config.vocab_size, (2, 40))
    with torch.no_grad():
        whole = theirs(input_ids=ids, use_cache=False).logits
        assert torch.equal(model(ids), whole)
        cache = model.new_cache(2, 40)
        assert agree(torch.cat([model(piece, cache) for piece in ids.split([17, 1, 1, 20, 1], dim=1)], dim=1), whole)


@pytest.mark.parametrize("prompt", ["It is a truth universally acknowledged", "Anne", "Mr. Darcy had never been so"])
def test_greedy_tokens_to_the_last_position_are_those_of_transformers(austen: Any, prompt: str) -> None:
    checkpoint, model, theirs = austen
    ids = torch.tensor([checkpoint.tokenizer.encode(prompt).ids])
    tokens = checkpoint.config.n_positions + 1 - ids.shape[1]
    assert list(SOLVED.solutions["generate_cached"](model, ids, tokens)) == written_by_transformers(theirs, ids, tokens)


def test_a_text_that_does_not_fit_is_refused_before_anything_is_computed(austen: Any) -> None:
    checkpoint, model, _ = austen
    ids = torch.randint(checkpoint.config.vocab_size, (1, 100))
    with pytest.raises(ValueError, match="257 tokens, but this model has only 256 positions"):
        next(SOLVED.solutions["generate_cached"](model, ids, 158))
