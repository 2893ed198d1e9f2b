"""What the KV cache alone must hold; tests/lessons/test_every_lesson.py asks the rest."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import DynamicCache, GPT2LMHeadModel

from grader import Config
from grader.authoring.kit import agree, one_thread
from grader.authoring.kit.solved import lesson_of, written_by_transformers
from grader.authoring.kit.toy import random_toy_lm

LESSON = lesson_of(__file__)
DRIVES, REFERENCE = LESSON.module("drives"), LESSON.module("reference")
OTHERS = LESSON.others

splits = st.lists(st.integers(1, 6), min_size=1, max_size=8).filter(lambda chunks: sum(chunks) <= 20)


def both_models(config: dict[str, Any], seed: int) -> tuple[Any, Any]:
    """transformers' model with random weights and the solution's with the same."""
    torch.manual_seed(seed)
    theirs: Any = GPT2LMHeadModel(REFERENCE.reference_config(config)).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    own = LESSON.solutions["CachedGPT2"](Config(config)).eval()
    renamed = LESSON.exercises["kv_cache.model"].renamed
    named = {renamed(name): tensor for name, tensor in theirs.state_dict().items()}
    own.load_state_dict({name: tensor for name, tensor in named.items() if name})
    return theirs, own


@settings(max_examples=60)
@given(config=OTHERS.CONFIGS, chunks=splits, batch=st.integers(1, 3), seed=st.integers(0, 10**6))
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
        assert agree(own(ids), whole)


@settings(max_examples=60)
@given(config=OTHERS.CONFIGS, chunks=splits, batch=st.integers(1, 3), seed=st.integers(0, 10**6))
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
            assert agree(layer.keys[:, :, : layer.length], their_layer.keys)  # type: ignore[arg-type]
            assert agree(layer.values[:, :, : layer.length], their_layer.values)  # type: ignore[arg-type]


@settings(max_examples=60)
@given(chunks=splits, spare=st.integers(0, 3), batch=st.integers(1, 3), heads=st.integers(1, 4))
def test_the_cache_gives_back_what_went_in(chunks: list[int], spare: int, batch: int, heads: int) -> None:
    capacity = sum(chunks) + spare
    cache = LESSON.solutions["KVCache"](batch, heads, capacity, 5)
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


@settings(max_examples=20)
@given(chunks=splits, kv_heads=st.integers(1, 4), group=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_grouped_attention_with_the_lessons_own_cache_is_transformers(
    chunks: list[int], kv_heads: int, group: int, seed: int
) -> None:
    torch.manual_seed(seed)
    q, kv = torch.randn(2, kv_heads * group, sum(chunks), 6), torch.randn(2, 2, kv_heads, sum(chunks), 6)
    cache = LESSON.solutions["KVCache"](2, kv_heads, sum(chunks), 6)
    start, seen = 0, []
    for size in chunks:
        part = slice(start, start + size)
        seen.append(LESSON.solutions["grouped_attention"](q[:, :, part], *kv[:, :, :, part], cache))
        start += size
    assert agree(torch.cat(seen, dim=2), REFERENCE.right_groups(q, kv, chunks))


@settings(max_examples=15)
@given(config=OTHERS.CONFIGS, prompt=st.integers(1, 6), tokens=st.integers(1, 9), seed=st.integers(0, 10**6))
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
        list(LESSON.solutions["generate_cached"](own, ids, tokens))
    assert rows["own"] == rows["theirs"] == prompt + tokens - 1


def test_a_model_that_computes_everything_again_is_rejected_by_its_work_alone() -> None:
    exercise = LESSON.exercises["kv_cache.model"]
    verdict = LESSON.verdict_on(OTHERS.ModelThatReadsAgain, exercise)
    wrong = [case.name for case in verdict.cases if not case.right]
    assert "how many rows all blocks compute together" in wrong
    assert not [name for name in wrong if "rows" not in name and "room" not in name]


@pytest.mark.parametrize(
    ("name", "kib"), [("gpt2", 36), ("gpt2-xl", 300), ("qwen3-0.6b", 112), ("qwen3-4b", 144), ("qwen3-8b", 144)]
)
def test_bytes_a_token_are_the_published_ones(name: str, kib: int) -> None:
    config = LESSON.config(name)
    assert LESSON.solutions["cache_bytes"](config, 1) == kib * 1024


@settings(max_examples=20)
@given(config=OTHERS.CONFIGS, batch=st.integers(1, 3), capacity=st.integers(1, 20), half=st.booleans())
def test_the_formula_is_what_the_tensors_occupy(config: dict[str, Any], batch: int, capacity: int, half: bool) -> None:
    model = LESSON.solutions["CachedGPT2"](Config(config)).to(torch.bfloat16 if half else torch.float32)
    cache = model.new_cache(batch, capacity)
    measured = sum(t.untyped_storage().nbytes() for layer in cache for t in (layer.keys, layer.values))
    assert measured == LESSON.solutions["cache_bytes"](Config(config), capacity, batch, 2 if half else 4)


def test_trained_weights_give_the_references_logits_in_chunks() -> None:
    checkpoint, model, theirs = LESSON.trained("CachedGPT2", "austen-gpt2")
    ids = torch.randint(checkpoint.config.vocab_size, (2, 40))
    with torch.no_grad():
        whole = theirs(input_ids=ids, use_cache=False).logits
        assert agree(model(ids), whole)
        cache = model.new_cache(2, 40)
        assert agree(torch.cat([model(piece, cache) for piece in ids.split([17, 1, 1, 20, 1], dim=1)], dim=1), whole)


def test_a_text_that_does_not_fit_is_refused_before_anything_is_computed() -> None:
    checkpoint, model, _ = LESSON.trained("CachedGPT2", "austen-gpt2")
    ids = torch.randint(checkpoint.config.vocab_size, (1, 100))
    with pytest.raises(ValueError, match="257 tokens, but this model has only 256 positions"):
        next(LESSON.solutions["generate_cached"](model, ids, 158))


# How its cache and its generation are used


def test_keys_and_values_have_room_behind_what_is_given_back() -> None:
    cache, kv = DRIVES.KeysAndValues(), torch.randn(2, 1, 1, 3, 2)
    for t in range(3):
        k, v = cache.append(*kv[:, :, :, t : t + 1])
    assert torch.allclose(torch.stack([k, v]), kv)
    assert cache.keys.shape[2] > cache.length == cache.appended == 3
    assert cache.stored == kv.numel()


def test_rows_that_are_read_are_counted() -> None:
    toy = random_toy_lm(11, 20, torch.Generator().manual_seed(0))
    ids = torch.tensor([[1, 2, 3, 4]])

    def generate(model: Any, ids: Tensor, new_tokens: int, end: Any) -> Any:
        for _ in range(new_tokens):
            token = model(ids)[:, -1].argmax(dim=-1, keepdim=True)
            ids = torch.cat([ids, token], dim=1)
            yield token

    assert DRIVES.rows_read(generate, toy, ids, 3, None) == 4 + 5 + 6
    with pytest.raises(TypeError, match="does it `yield` each token"):
        DRIVES.rows_read(lambda *_: None, toy, ids, 3, None)
