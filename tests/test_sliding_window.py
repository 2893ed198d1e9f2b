"""Lesson 06: its solutions against transformers for every split into chunks, other right programs, trained weights."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from solved import Solved, written_by_transformers
from torch import Tensor, nn
from transformers import DynamicCache, Gemma3TextModel

from grader import Config
from grader.authoring.recorder import record
from grader.checkpoints import entry
from grader.checks.examine import examine
from grader.checks.running import one_thread
from grader.checks.wording import report
from grader.kv import bytes_at, known_model
from grader.layers.compare import layer_report
from grader.recordings.recording import Recording
from grader.report import to_text
from grader.tolerance import agree

SOLVED = Solved("06-sliding-window")
LESSON = SOLVED.lesson
EXERCISES = [
    "sliding_window.mask",
    "sliding_window.reach",
    "sliding_window.rolling_cache",
    "sliding_window.attention",
    "sliding_window.model",
    "sliding_window.generate",
    "sliding_window.bytes",
]
SLIDING, FULL = "sliding_attention", "full_attention"


# Solutions are the reference's program, however a text is cut into pieces


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    heads = draw(st.integers(1, 3)) * (kv_heads := draw(st.integers(1, 3)))
    layers = draw(st.integers(1, 4))
    return {
        "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "vocab_size": draw(st.integers(2, 60)),
        "hidden_size": heads * draw(st.integers(2, 8)),
        "intermediate_size": draw(st.integers(2, 30)),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": 2 * draw(st.integers(1, 6)),
        "query_pre_attn_scalar": draw(st.integers(1, 50)),
        "sliding_window": draw(st.integers(1, 9)),
        "layer_types": draw(st.lists(st.sampled_from([SLIDING, SLIDING, FULL]), min_size=layers, max_size=layers)),
        "max_position_embeddings": 64,
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-3])),
        "rope_theta": draw(st.sampled_from([1e4, 1e6])),
        "rope_local_base_freq": draw(st.sampled_from([1e2, 1e4])),
    }


splits = st.lists(st.integers(1, 12), min_size=1, max_size=8).filter(lambda chunks: sum(chunks) <= 30)


def both_models(config: dict[str, Any], seed: int) -> tuple[Any, Any]:
    """transformers' model with random weights and the solution's with the same."""
    torch.manual_seed(seed)
    theirs: Any = Gemma3TextModel(SOLVED.reference.reference_config(config)).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    own = SOLVED.solutions["CachedModel"](Config(config)).eval()
    named = {SOLVED.reference.learners_name(name): tensor for name, tensor in theirs.state_dict().items()}
    own.load_state_dict({name: tensor for name, tensor in named.items() if name})
    return theirs, own


def held(cache: list[Any]) -> int:
    """The bytes behind a cache's tensors."""
    return sum(t.untyped_storage().nbytes() for layer in cache for t in (layer.keys, layer.values))


@settings(max_examples=80)
@given(config=configs(), chunks=splits, spare=st.integers(0, 9), batch=st.integers(1, 3), seed=st.integers(0, 10**6))
def test_cached_equals_uncached_for_every_split(
    config: dict[str, Any], chunks: list[int], spare: int, batch: int, seed: int
) -> None:
    """Also for a second text after a reset, and never with more memory than the formula says."""
    theirs, own = both_models(config, seed)
    length = sum(chunks)
    cache = own.new_cache(batch, length + spare)
    with torch.no_grad(), one_thread():
        for _ in range(2):
            ids = torch.randint(config["vocab_size"], (batch, length))
            whole = theirs(input_ids=ids, use_cache=False).last_hidden_state
            pieces = torch.cat([own(piece, cache) for piece in ids.split(chunks, dim=1)], dim=1)
            assert [layer.length for layer in cache] == [length] * config["num_hidden_layers"]
            assert agree(pieces, whole)
            assert torch.equal(own(ids), whole)
            for layer in cache:
                layer.reset()
    assert held(cache) == bytes_at(Config(config), length + spare, batch, 4)
    assert held(cache) == SOLVED.solutions["cache_bytes"](Config(config), length + spare, batch, 4)


@settings(max_examples=60)
@given(config=configs(), chunks=splits, batch=st.integers(1, 3), seed=st.integers(0, 10**6))
def test_cached_equals_transformers_with_its_own_cache(
    config: dict[str, Any], chunks: list[int], batch: int, seed: int
) -> None:
    theirs, own = both_models(config | {"sliding_window": config["sliding_window"] + 1}, seed)
    ids = torch.randint(config["vocab_size"], (batch, sum(chunks)))
    dynamic, cache = DynamicCache(config=theirs.config), own.new_cache(batch, sum(chunks))
    with torch.no_grad(), one_thread():
        for piece in ids.split(chunks, dim=1):
            want = theirs(input_ids=piece, cache=dynamic, use_cache=True).last_hidden_state
            assert agree(own(piece, cache), want)


@settings(max_examples=100)
@given(chunks=splits, window=st.integers(1, 9), batch=st.integers(1, 3), heads=st.integers(1, 3))
def test_the_ring_gives_back_what_the_new_tokens_see(chunks: list[int], window: int, batch: int, heads: int) -> None:
    cache = SOLVED.solutions["RollingCache"](batch, heads, window, 5)
    memory = cache.keys.data_ptr(), cache.values.data_ptr()
    for _ in range(2):
        k, v = torch.randn(2, batch, heads, sum(chunks), 5)
        start = 0
        for size in chunks:
            keys, values = cache.append(k[:, :, start : start + size], v[:, :, start : start + size])
            first = max(0, start - window + 1)
            start += size
            assert torch.equal(keys, k[:, :, first:start]) and torch.equal(values, v[:, :, first:start])
            assert cache.length == start
            for p in range(max(0, start - window), start):
                assert torch.equal(cache.keys[:, :, p % window], k[:, :, p])
        assert memory == (cache.keys.data_ptr(), cache.values.data_ptr())
        cache.reset()
        assert cache.length == 0


@settings(max_examples=60)
@given(old=st.integers(0, 12), queries=st.integers(1, 12), window=st.one_of(st.none(), st.integers(1, 25)))
def test_a_mask_is_the_last_rows_of_transformers(old: int, queries: int, window: int | None) -> None:
    keys = old + queries
    assert torch.equal(
        SOLVED.solutions["window_mask"](queries, keys, window), SOLVED.reference.right_mask(queries, keys, window)
    )


@settings(max_examples=40)
@given(config=configs(), length=st.integers(1, 40))
def test_reach_is_what_the_masks_let_through(config: dict[str, Any], length: int) -> None:
    assert SOLVED.solutions["reach"](Config(config), length) == SOLVED.reference.walk_back(Config(config), length)


@settings(max_examples=15)
@given(config=configs(), seed=st.integers(0, 10**6))
def test_reach_is_how_far_a_gradient_comes(config: dict[str, Any], seed: int) -> None:
    _, own = both_models(config, seed)
    length = 30
    x = torch.randn(1, length, config["hidden_size"], requires_grad=True)
    rotations, state = SOLVED.solutions["RotaryEmbedding"](own.config), x
    for layer, kind in zip(own.layers, config["layer_types"], strict=True):
        state = layer(
            state, rotations(torch.arange(length), kind), config["sliding_window"] if kind == SLIDING else None
        )
    (gradient,) = torch.autograd.grad((state[0, -1] * torch.randn(config["hidden_size"])).sum(), x)
    farthest = int(gradient[0].abs().sum(-1).nonzero().min())
    assert length - 1 - farthest == SOLVED.solutions["reach"](own.config, length)


def test_without_a_cache_it_is_bit_exact_on_the_lessons_own_cases() -> None:
    for name in ("sliding_window.attention", "sliding_window.model"):
        exercise = SOLVED.exercises[name]
        verdict = SOLVED.verdict_on(SOLVED.solutions[exercise.solution], exercise, exercise.cases[0])
        assert verdict.exact


# Other right programs pass


def mask_by_triangles(queries: int, keys: int, window: int | None = None) -> Tensor:
    ones = torch.ones(queries, keys, dtype=torch.bool)
    seen = ones.tril(keys - queries)
    return seen if window is None else seen & ones.triu(keys - queries - window + 1)


def mask_by_loops(queries: int, keys: int, window: int | None = None) -> Tensor:
    rows = []
    for query in range(keys - queries, keys):
        first = 0 if window is None else max(0, query + 1 - window)
        rows.append([first <= key <= query for key in range(keys)])
    return torch.tensor(rows)


def reach_by_walking(config: Config, length: int) -> int:
    place = length - 1
    for kind in reversed(SOLVED.solutions["layer_types"](config)):
        place = max(0, place - config.sliding_window + 1) if kind == SLIDING else 0
    return length - 1 - place


class CatAndTrim:
    """No ring: new tensors at every step, of which only what the next token sees is kept."""

    def __init__(self, batch: int, heads: int, window: int, head_dim: int, dtype: Any = None, device: Any = None):
        self.window = window
        self.reset()

    def reset(self) -> None:
        self.kept: tuple[Tensor, Tensor] | None = None
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.kept is not None:
            k, v = (torch.cat([old, new], dim=2) for old, new in zip(self.kept, (k, v), strict=True))
            self.length += k.shape[2] - self.kept[0].shape[2]
        else:
            self.length = k.shape[2]
        first = max(0, k.shape[2] - self.window + 1)
        self.kept = k[:, :, first:].clone(), v[:, :, first:].clone()
        return k, v


class ShiftedCache:
    """The last W tokens at the right-hand end of the memory, moved to the left by every new one."""

    def __init__(self, batch: int, heads: int, window: int, head_dim: int, dtype: Any = None, device: Any = None):
        self.both = torch.zeros(2, batch, heads, window, head_dim, dtype=dtype, device=device)
        self.length = 0

    def reset(self) -> None:
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        window, new = self.both.shape[3], torch.stack([k, v])
        old = min(self.length, window - 1)
        keys, values = all_of_them = torch.cat([self.both[:, :, :, window - old :], new], dim=3)
        last = all_of_them[:, :, :, -window:]
        self.both = torch.cat([self.both[:, :, :, : window - last.shape[3]], last], dim=3)
        self.length += k.shape[2]
        return keys, values


class OneByOne:
    """A deque that drops by itself; tokens one by one."""

    def __init__(self, batch: int, heads: int, window: int, head_dim: int, dtype: Any = None, device: Any = None):
        self.tokens: deque[Tensor] = deque(maxlen=window)
        self.count = 0

    @property
    def length(self) -> int:
        return self.count

    def reset(self) -> None:
        self.tokens.clear()
        self.count = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        window = self.tokens.maxlen or 0
        seen = list(self.tokens)[-(window - 1) :] if window > 1 else []
        for token in torch.stack([k, v]).unbind(3):
            self.tokens.append(token.clone())
            seen.append(token)
            self.count += 1
        keys, values = torch.stack(seen, dim=3)
        return keys, values


class AttentionBase(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        D, self.H, self.KV = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
        self.hd, self.scalar = config["head_dim"], config["query_pre_attn_scalar"]
        self.q_norm, self.k_norm = (SOLVED.solutions["RMSNorm"](self.hd, config.rms_norm_eps) for _ in "qk")
        self.q_proj, self.o_proj = nn.Linear(D, self.H * self.hd, False), nn.Linear(self.H * self.hd, D, False)
        self.k_proj, self.v_proj = (nn.Linear(D, self.KV * self.hd, False) for _ in "kv")

    def heads(self, x: Tensor, table: Tensor, cache: Any) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (p(x).unflatten(-1, (-1, self.hd)).movedim(2, 1) for p in (self.q_proj, self.k_proj, self.v_proj))
        rope = SOLVED.solutions["apply_rope"]
        q, k = rope(self.q_norm(q), table), rope(self.k_norm(k), table)
        return (q, *cache.append(k, v)) if cache is not None else (q, k, v)


class AttentionSdpa(AttentionBase):
    """The fused kernel, which shares the key and value heads itself."""

    def forward(self, x: Tensor, table: Tensor, window: int | None = None, cache: Any = None) -> Tensor:
        q, k, v = self.heads(x, table, cache)
        mask = mask_by_triangles(q.shape[2], k.shape[2], window)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scalar**-0.5, enable_gqa=True)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class AttentionRowByRow(AttentionBase):
    """Each query with the keys that it sees, which needs no mask."""

    def forward(self, x: Tensor, table: Tensor, window: int | None = None, cache: Any = None) -> Tensor:
        q, k, v = self.heads(x, table, cache)
        q = q.unflatten(1, (self.KV, -1))  # [B, KV, group, T, head_dim]
        old, rows = k.shape[2] - x.shape[1], []
        for t in range(x.shape[1]):
            seen = slice(0 if window is None else max(0, old + t + 1 - window), old + t + 1)
            scores = torch.einsum("bkgd,bkjd->bkgj", q[:, :, :, t], k[:, :, seen]) / self.scalar**0.5
            weights = scores.float().softmax(-1).to(x.dtype)
            rows.append(torch.einsum("bkgj,bkjd->bkgd", weights, v[:, :, seen]).flatten(1))
        return self.o_proj(torch.stack(rows, dim=1))  # type: ignore[no-any-return]


class OtherLayer(nn.Module):
    attention: type[nn.Module] = AttentionSdpa

    def __init__(self, config: Config) -> None:
        super().__init__()
        norms = "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"
        for name in norms:
            self.add_module(name, SOLVED.solutions["RMSNorm"](config.hidden_size, config.rms_norm_eps))
        self.mlp, self.self_attn = SOLVED.solutions["MLP"](config), self.attention(config)

    def forward(self, x: Tensor, table: Tensor, window: int | None, cache: Any) -> Tensor:
        x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), table, window, cache))
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))  # type: ignore[no-any-return]


class ModelFromScratch(nn.Module):
    """Asks the last layer for the length; one kind of cache for both kinds of layer."""

    layer: type[nn.Module] = OtherLayer
    memory: type = CatAndTrim

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.kinds = config, SOLVED.solutions["layer_types"](config)
        self.norm = SOLVED.solutions["RMSNorm"](config.hidden_size, config.rms_norm_eps)
        self.layers = nn.ModuleList(self.layer(config) for _ in self.kinds)
        self.embed_tokens = SOLVED.solutions["ScaledEmbedding"](config.vocab_size, config.hidden_size)

    def new_cache(self, batch: int, capacity: int) -> Any:
        sizes = {SLIDING: min(capacity, self.config.sliding_window), FULL: capacity}
        heads, width, dtype = self.config.num_key_value_heads, self.config.head_dim, self.norm.weight.dtype
        return tuple(self.memory(batch, heads, sizes[kind], width, dtype) for kind in self.kinds)

    def forward(self, ids: Tensor, caches: Any = None) -> Tensor:
        old = caches[-1].length if caches is not None else 0
        x, rotations = self.embed_tokens(ids), SOLVED.solutions["RotaryEmbedding"](self.config)
        for kind, layer, cache in zip(self.kinds, self.layers, caches or [None] * len(self.kinds), strict=True):
            table = rotations(old + torch.arange(ids.shape[1]), kind)
            x = layer(x, table, None if kind == FULL else self.config.sliding_window, cache)
        return self.norm(x)  # type: ignore[no-any-return]


class LayerRowByRow(OtherLayer):
    attention = AttentionRowByRow


class ModelRowByRow(ModelFromScratch):
    layer, memory = LayerRowByRow, ShiftedCache


def generate_into_a_list(
    model: Any, ids: Tensor, max_new_tokens: int, eos_token_id: int | None = None, chunk: int = 64
) -> list[int]:
    cache, new = model.new_cache(1, ids.shape[1] + max_new_tokens - 1), []
    start = 0
    with torch.inference_mode():
        while start < ids.shape[1]:
            logits = model(ids[:, start : start + chunk], cache)
            start += chunk
        while True:
            new.append(int(logits[0, -1].argmax()))
            if len(new) == max_new_tokens or new[-1] == eos_token_id:
                return new
            logits = model(torch.tensor([new[-1:]]), cache)


def generate_tensors(
    model: Any, ids: Tensor, max_new_tokens: int, eos_token_id: int | None = None, chunk: int = 64
) -> Iterator[Tensor]:
    cache = model.new_cache(batch=1, capacity=ids.shape[1] + max_new_tokens - 1)
    pieces = list(ids.split(chunk, dim=1))
    for piece in pieces[:-1]:
        model(piece, cache)
    new = pieces[-1]
    for _ in range(max_new_tokens):
        new = model(new, cache)[:, -1:].topk(1).indices[:, :, 0]
        yield new[0, 0]
        if new[0, 0] == eos_token_id:
            break


def bytes_by_shape(config: Config, context: int, batch: int = 1, element_bytes: int = 2) -> int:
    total = 0
    for kind in SOLVED.solutions["layer_types"](config):
        tokens = context if kind == FULL or context < config.sliding_window else config.sliding_window
        shape = (2, batch, config.num_key_value_heads, tokens, config.head_dim)
        total += torch.empty(shape, device="meta").numel() * element_bytes
    return total


ALTERNATIVES: dict[str, tuple[Callable[..., Any], ...]] = {
    "sliding_window.mask": (mask_by_triangles, mask_by_loops),
    "sliding_window.reach": (reach_by_walking,),
    "sliding_window.rolling_cache": (CatAndTrim, ShiftedCache, OneByOne),
    "sliding_window.attention": (AttentionSdpa, AttentionRowByRow),
    "sliding_window.model": (ModelFromScratch, ModelRowByRow),
    "sliding_window.generate": (generate_into_a_list, generate_tensors),
    "sliding_window.bytes": (bytes_by_shape,),
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


def test_the_mistakes_of_public_projects_are_named() -> None:
    shipped = {reference for e in SOLVED.exercises.values() for mistake in e.mistakes for reference in mistake.shipped}
    assert shipped == {
        "rasbt/LLMs-from-scratch#1013",
        "rasbt/LLMs-from-scratch#925",
        "rasbt/LLMs-from-scratch#697",
        "karpathy/nanochat#452",
    }


def test_hidden_cases_vary_and_show_every_mistake() -> None:
    """Recording checks that the solution is right, and that each mistake differs from it and from the others."""
    for secret in ("a secret of this test", "another"):
        hidden = record(LESSON, secret=secret)
        shapes = [case.args[0].shape for case in hidden.task("sliding_window.rolling_cache").cases]
        usual = Recording.read(LESSON.recording).task("sliding_window.rolling_cache").cases
        if shapes != [case.args[0].shape for case in usual]:
            return
    raise AssertionError("the sizes never vary")


# Programs that are right only by chance, or by keeping everything, do not pass, and are told why


def told(name: str, target: Any) -> str:
    return to_text(report(examine(Recording.read(LESSON.recording), name, target)))


class KeepsEverything(CatAndTrim):
    """Masked and never trimmed."""

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        start = self.length
        if self.kept is not None:
            k, v = (torch.cat([old, new], dim=2) for old, new in zip(self.kept, (k, v), strict=True))
        self.kept = k.clone(), v.clone()
        self.length = k.shape[2]
        first = max(0, start - self.window + 1)
        return k[:, :, first:], v[:, :, first:]


class KeepsAList(CatAndTrim):
    """A list of all chunks."""

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.chunks = [*(self.chunks if self.length else []), (k.clone(), v.clone())]
        first = max(0, self.length - self.window + 1)
        self.length += k.shape[2]
        keys, values = (torch.cat(parts, dim=2) for parts in zip(*self.chunks, strict=True))
        return keys[:, :, first:], values[:, :, first:]


class KeepsAView(CatAndTrim):
    """As transformers' DynamicSlidingWindowLayer: what is kept is a view of what was put together."""

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        k, v = super().append(k, v)
        first = max(0, k.shape[2] - self.window + 1)
        self.kept = k[:, :, first:], v[:, :, first:]
        return k, v


@pytest.mark.parametrize("wrong", [KeepsEverything, KeepsAList, KeepsAView])
def test_a_cache_that_is_never_trimmed_is_rejected_by_its_memory_alone(wrong: Any) -> None:
    exercise = SOLVED.exercises["sliding_window.rolling_cache"]
    verdict = SOLVED.verdict_on(wrong, exercise)
    bad = [case.name for case in verdict.cases if not case.right]
    assert "for how many tokens more than 4 it holds memory" in bad
    if wrong is not KeepsAView:  # a view of the check's own tensors, which it empties, is found out twice
        assert len(bad) == 1
        assert "everything is kept, and only the last W are given back" in told(exercise.name, wrong)


class ModelThatNeverTrims(ModelFromScratch):
    def new_cache(self, batch: int, capacity: int) -> Any:
        return [
            SOLVED.solutions["KVCache"](batch, self.config.num_key_value_heads, capacity, self.config.head_dim, w.dtype)
            for w in [self.norm.weight] * len(self.kinds)
        ]


def test_a_model_that_masks_and_never_trims_is_named() -> None:
    exercise = SOLVED.exercises["sliding_window.model"]
    bad = [case.name for case in SOLVED.verdict_on(ModelThatNeverTrims, exercise).cases if not case.right]
    assert bad == ["for how many tokens too many each layer holds memory, in bfloat16"]
    assert "no layer is given a ring: masked, and never trimmed" in told(exercise.name, ModelThatNeverTrims)


class RightForDecodeOnly(CatAndTrim):
    """A ring as many write it: right for single tokens, while a long chunk loses what came before."""

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if k.shape[2] >= self.window:
            self.kept = None
            length = self.length
            super().append(k, v)
            self.length = length + k.shape[2]
            return k, v
        return super().append(k, v)


def test_a_ring_that_is_right_for_single_tokens_does_not_pass() -> None:
    assert not SOLVED.verdict_on(RightForDecodeOnly, SOLVED.exercises["sliding_window.rolling_cache"]).right


class TwiceTheRoom(CatAndTrim):
    """Right, and twice as large as it need be."""

    def __init__(self, batch: int, heads: int, window: int, head_dim: int, dtype: Any = None, device: Any = None):
        self.room = torch.zeros(2, batch, heads, window + 1, head_dim, dtype=dtype)
        super().__init__(batch, heads, window, head_dim)


def test_a_cache_that_is_too_large_is_not_said_to_keep_everything() -> None:
    said = told("sliding_window.rolling_cache", TwiceTheRoom)
    assert "8 of 9 cases right" in said and "everything is kept" not in said


def with_a_change(exercise: str, find: str, replace: str) -> Any:
    """The solutions, with a change in one of them."""
    source = LESSON.source_of(exercise)
    assert source.count(find) == 1
    return LESSON.namespace((exercise, source.replace(find, replace)))


def test_a_wrong_mask_is_found_behind_a_wrong_attention_and_a_wrong_model() -> None:
    changed = with_a_change("sliding_window.mask", "distance < window", "distance <= window")
    said = told("sliding_window.attention", changed["CachedAttention"])
    assert "Besides, `sliding_window.mask` does not pass its own check" in said
    said = told("sliding_window.model", changed["CachedModel"])
    assert "Mend `sliding_window.mask` and `sliding_window.attention` first" in said


def test_a_wrong_ring_is_found_behind_a_wrong_model() -> None:
    find = "        return keys, values"
    changed = with_a_change(
        "sliding_window.rolling_cache", find, "        return (k, v) if len(new) > 1 else (keys, values)"
    )
    said = told("sliding_window.model", changed["CachedModel"])
    assert "Your `RollingCache` does not pass its own check" in said


def test_attention_must_take_what_append_gives_back() -> None:
    """What lies in a ring after a chunk is neither in order nor all that the chunk sees."""
    taken = "k, v = cache.append(k, v)"
    read = (
        "cache.append(k, v); n = min(cache.length, cache.keys.shape[2]);"
        " k, v = cache.keys[:, :, :n], cache.values[:, :, :n]"
    )
    changed = with_a_change("sliding_window.attention", taken, read)
    exercise = SOLVED.exercises["sliding_window.attention"]
    assert not SOLVED.verdict_on(changed["CachedAttention"], exercise).right


@pytest.mark.parametrize(
    ("find", "replace"),
    [
        ("argmax(dim=-1, keepdim=True)", "topk(2, dim=-1).indices[:, 1:]"),
        ("model(next_id, cache)", "model(ids[:, -1:], cache)"),
    ],
)
def test_another_wrong_text_is_not_called_a_known_mistake(find: str, replace: str) -> None:
    changed = with_a_change("sliding_window.generate", find, replace)
    said = told("sliding_window.generate", changed["generate_rolling"])
    assert "cases right" in said and "comes out when" not in said


def test_a_head_of_another_width_is_not_taken_for_keys_alone() -> None:
    width = "(config.hidden_size // config.num_attention_heads)"
    changed = with_a_change("sliding_window.bytes", "config.head_dim", width)
    said = told("sliding_window.bytes", changed["cache_bytes"])
    assert "the width is divided among the heads" in said and "only the keys" not in said


def test_a_stub_is_called_not_written() -> None:
    class Stub(CatAndTrim):
        def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            raise NotImplementedError()

    assert "Stub.append` is not written yet" in told("sliding_window.rolling_cache", Stub)


def test_the_layer_comparison_finds_a_window_that_is_wrong_in_one_layer() -> None:
    class TooFar(SOLVED.solutions["CachedAttention"]):  # type: ignore[misc]
        def forward(self, x: Tensor, table: Tensor, window: int | None = None, cache: Any = None) -> Tensor:
            return super().forward(x, table, window and window + 1, cache)  # type: ignore[no-any-return]

    class WithABug(SOLVED.solutions["CachedModel"]):  # type: ignore[misc]
        def __init__(self, config: Config) -> None:
            super().__init__(config)
            self.layers[2].self_attn = TooFar(config)

    trace = Recording.read(LESSON.recording).trace
    assert trace is not None
    assert layer_report(SOLVED.solutions["CachedModel"], trace).ok
    found = layer_report(WithABug, trace)
    assert found.culprit is not None and found.culprit.path == "layers.2.self_attn"


def test_a_full_layer_refuses_what_does_not_fit() -> None:
    config = Config(SOLVED.reference.SMALL)
    model = SOLVED.solutions["CachedModel"](config)
    cache = model.new_cache(1, 6)
    model(torch.zeros(1, 6, dtype=torch.int64), cache)
    with pytest.raises(ValueError, match="room for 6 tokens"):
        model(torch.zeros(1, 1, dtype=torch.int64), cache)


def test_the_panel_counts_what_its_masks_let_through() -> None:
    source = {
        title: cell.source
        for cell in LESSON.cells()
        for title in ("def draw_mask", "def show_stack")
        if title in cell.source
    }
    namespace = dict(SOLVED.solutions)
    for title in ("def draw_mask", "def show_stack"):
        exec(source[title], namespace)
    for length, window, layers, ratio, back, held in (
        (24, 4, 3, 12, 9, 12),
        (24, 4, 3, 2, 23, 32),
        (5, 9, 2, 12, 4, 10),
    ):
        text = namespace["show_stack"](length, window, layers, ratio).text
        assert f"knows of {back} earlier ones" in text and f"holds {held} tokens" in text


# Bytes: the talk's chart


@pytest.mark.parametrize(
    ("heads", "windows", "gigabytes"), [(32, False, 77.31), (32, True, 13.89), (8, False, 19.33), (8, True, 3.47)]
)
def test_the_talks_chart(heads: int, windows: bool, gigabytes: float) -> None:
    config = Config(SOLVED.reference.TALK | {"num_key_value_heads": heads})
    if not windows:
        config = config.replace(layer_types=[FULL] * 36)
    assert round(SOLVED.solutions["cache_bytes"](config, 131_072) / 1e9, 2) == gigabytes


@pytest.mark.parametrize(("name", "before", "after"), [("Gemma 3 270M", 18, 3), ("Gemma 3 27B", 496, 80)])
def test_bytes_a_token_before_and_after_the_window(name: str, before: int, after: int) -> None:
    size = SOLVED.solutions["cache_bytes"]
    config = known_model(name)
    assert size(config, 1) == before * 1024
    assert size(config, 5000) - size(config, 4999) == after * 1024


def test_the_question() -> None:
    config = known_model("Gemma 3 27B")
    assert SOLVED.solutions["reach"](config.replace(layer_types=[SLIDING] * 62), 131_072) == 62 * 1023 == 63_426
    assert SOLVED.solutions["reach"](config, 131_072) == 131_071


def test_the_lessons_config_is_that_of_lesson_04() -> None:
    for lesson in ("04-gemma3", "06-sliding-window"):
        content = (LESSON.folder.parent / lesson / "configs" / "gemma-3-270m.json").read_bytes()
        assert content == (LESSON.folder / "configs" / "gemma-3-270m.json").read_bytes()


# Trained weights


@pytest.fixture(scope="module")
def austen() -> Any:
    return SOLVED.trained("CachedLM", "austen-gemma3")


@pytest.fixture(scope="module")
def gemma() -> Any:
    return SOLVED.trained("CachedLM", "gemma-3-270m")


@pytest.mark.parametrize("chunks", [[200], [50, 100, 1, 1, 48], [10] * 20, [1] * 200, [33, 32, 31, 104]])
def test_trained_weights_give_the_references_logits_across_the_windows_edge(austen: Any, chunks: list[int]) -> None:
    checkpoint, model, theirs = austen
    ids = torch.randint(checkpoint.config.vocab_size, (2, 200))
    with torch.no_grad():
        whole = theirs(input_ids=ids, use_cache=False).logits
        cache = model.new_cache(2, 200)
        assert agree(torch.cat([model(piece, cache) for piece in ids.split(chunks, dim=1)], dim=1), whole)


@pytest.mark.parametrize("chunk", [1, 7, 32, 100])
@pytest.mark.parametrize("prompt", ["It is a truth universally acknowledged", "Anne"])
def test_greedy_tokens_are_those_of_transformers(austen: Any, prompt: str, chunk: int) -> None:
    checkpoint, model, theirs = austen
    ids = torch.tensor([checkpoint.tokenizer.encode(prompt * (3 if chunk == 7 else 1)).ids])
    written = list(SOLVED.solutions["generate_rolling"](model, ids, 80, chunk=chunk))
    assert written == written_by_transformers(theirs, ids, 80)


@pytest.mark.slow
def test_gemma_270m_across_its_window_is_the_reference(gemma: Any) -> None:
    checkpoint, model, _ = gemma
    golden = next(g for g in entry("gemma-3-270m").goldens if len(g.prompt_ids or ()) > 512)
    ids = torch.tensor([list(golden.prompt_ids or ())])
    for chunk in (128, 600):
        written = list(SOLVED.solutions["generate_rolling"](model, ids, golden.n_tokens, chunk=chunk))
        assert written == list(golden.new_ids)
    cache, everything = model.new_cache(1, 2048), checkpoint.config.replace(sliding_window=2048)
    assert held(cache) == SOLVED.solutions["cache_bytes"](checkpoint.config, 2048, 1, 4)
    assert held(cache) * 2.6 < SOLVED.solutions["cache_bytes"](everything, 2048, 1, 4)


@pytest.mark.slow
def test_a_continuation_of_gemma_270m_that_crosses_its_window_is_what_transformers_writes(gemma: Any) -> None:
    checkpoint, model, theirs = gemma
    ids = torch.tensor([list(entry("gemma-3-270m").goldens[-1].prompt_ids or ())[:500]])
    written = list(SOLVED.solutions["generate_rolling"](model, ids, 40))
    assert ids.shape[1] < checkpoint.config.sliding_window < ids.shape[1] + len(written)
    assert written == written_by_transformers(theirs, ids, 40)
    text = checkpoint.tokenizer.decode(written)  # the lesson shows it, in two pieces
    (cell,) = (cell.source for cell in LESSON.cells() if "by_transformers = (" in cell.source)
    namespace: dict[str, str] = {}
    exec(cell[: cell.index("if gemma_model")], namespace)
    assert namespace["by_transformers"] == text


@pytest.mark.slow
@pytest.mark.parametrize("text", ["The capital of France is", "def add(a, b):"])
def test_gemma_270m_writes_what_transformers_writes(gemma: Any, text: str) -> None:
    checkpoint, model, theirs = gemma
    ids = torch.tensor([checkpoint.tokenizer.encode(text).ids])
    written = list(SOLVED.solutions["generate_rolling"](model, ids, 12, chunk=3))
    assert written == written_by_transformers(theirs, ids, 12)
