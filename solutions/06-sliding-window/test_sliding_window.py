"""What sliding windows alone must hold; tests/lessons/test_every_lesson.py asks the rest."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import DynamicCache, Gemma3TextModel

from grader import Config
from grader.authoring.kit import agree, one_thread
from grader.authoring.kit.declared import Change
from grader.authoring.kit.engine import entry
from grader.authoring.kit.solved import continued_by_transformers, lesson_of, same_tokens_but_for_near_ties
from grader.kv import bytes_at, known_model

LESSON = lesson_of(__file__)
DRIVES, EXERCISES, REFERENCE = (LESSON.module(name) for name in ("drives", "exercises", "reference"))
OTHERS = LESSON.others

splits = st.lists(st.integers(1, 12), min_size=1, max_size=8).filter(lambda chunks: sum(chunks) <= 30)


def both_models(config: dict[str, Any], seed: int) -> tuple[Any, Any]:
    """transformers' model with random weights and the solution's with the same."""
    torch.manual_seed(seed)
    theirs: Any = Gemma3TextModel(REFERENCE.reference_config(config)).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    own = LESSON.solutions["CachedModel"](Config(config)).eval()
    named = {EXERCISES.learners_name(name): tensor for name, tensor in theirs.state_dict().items()}
    own.load_state_dict({name: tensor for name, tensor in named.items() if name})
    return theirs, own


def held(cache: list[Any]) -> int:
    """The bytes behind a cache's tensors."""
    return sum(t.untyped_storage().nbytes() for layer in cache for t in (layer.keys, layer.values))


@settings(max_examples=80)
@given(
    config=OTHERS.CONFIGS, chunks=splits, spare=st.integers(0, 9), batch=st.integers(1, 3), seed=st.integers(0, 10**6)
)
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
            assert agree(own(ids), whole)
            for layer in cache:
                layer.reset()
    assert held(cache) == bytes_at(Config(config), length + spare, batch, 4)
    assert held(cache) == LESSON.solutions["cache_bytes"](Config(config), length + spare, batch, 4)


@settings(max_examples=60)
@given(config=OTHERS.CONFIGS, chunks=splits, batch=st.integers(1, 3), seed=st.integers(0, 10**6))
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
    cache = LESSON.solutions["RollingCache"](batch, heads, window, 5)
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


@settings(max_examples=15)
@given(config=OTHERS.CONFIGS, seed=st.integers(0, 10**6))
def test_reach_is_how_far_a_gradient_comes(config: dict[str, Any], seed: int) -> None:
    _, own = both_models(config, seed)
    length = 30
    x = torch.randn(1, length, config["hidden_size"], requires_grad=True)
    rotations, state = LESSON.solutions["RotaryEmbedding"](own.config), x
    for layer, kind in zip(own.layers, config["layer_types"], strict=True):
        state = layer(
            state, rotations(torch.arange(length), kind), config["sliding_window"] if kind == OTHERS.SLIDING else None
        )
    (gradient,) = torch.autograd.grad((state[0, -1] * torch.randn(config["hidden_size"])).sum(), x)
    farthest = int(gradient[0].abs().sum(-1).nonzero().min())
    assert length - 1 - farthest == LESSON.solutions["reach"](own.config, length)


def test_the_mistakes_of_public_projects_are_named() -> None:
    shipped = {place for exercise in LESSON.exercises.values() for m in exercise.mistakes for place in m.shipped}
    assert shipped >= {
        "rasbt/LLMs-from-scratch#925",
        "rasbt/LLMs-from-scratch#1013",
        "karpathy/nanochat#452",
    }


@pytest.mark.parametrize("wrong", [OTHERS.KeepsEverything, OTHERS.KeepsAList, OTHERS.KeepsAView])
def test_a_cache_that_is_never_trimmed_is_rejected_by_its_memory_alone(wrong: Any) -> None:
    exercise = LESSON.exercises["sliding_window.rolling_cache"]
    verdict = LESSON.verdict_on(wrong, exercise)
    bad = [case.name for case in verdict.cases if not case.right]
    assert "for how many tokens more than 4 it holds memory" in bad
    if wrong is not OTHERS.KeepsAView:  # a view of the check's own tensors, which it empties, is found out twice
        assert len(bad) == 1


def test_a_model_that_masks_and_never_trims_is_rejected_by_its_memory_alone() -> None:
    exercise = LESSON.exercises["sliding_window.model"]
    bad = [case.name for case in LESSON.verdict_on(OTHERS.ModelThatNeverTrims, exercise).cases if not case.right]
    assert bad == ["tokens too many in each layer's memory, in bfloat16"]


def test_attention_must_take_what_append_gives_back() -> None:
    """What lies in a ring after a chunk is neither in order nor all that the chunk sees."""
    taken = "k, v = cache.append(k, v)"
    read = (
        "cache.append(k, v); n = min(cache.length, cache.keys.shape[2]);"
        " k, v = cache.keys[:, :, :n], cache.values[:, :, :n]"
    )
    changed = LESSON.changed(Change("sliding_window.attention", taken, read))
    exercise = LESSON.exercises["sliding_window.attention"]
    assert not LESSON.verdict_on(changed["CachedAttention"], exercise).right


def test_a_full_layer_refuses_what_does_not_fit() -> None:
    config = Config(EXERCISES.SMALL)
    model = LESSON.solutions["CachedModel"](config)
    cache = model.new_cache(1, 6)
    model(torch.zeros(1, 6, dtype=torch.int64), cache)
    with pytest.raises(ValueError, match="room for 6 tokens"):
        model(torch.zeros(1, 1, dtype=torch.int64), cache)


def test_the_panel_counts_what_its_masks_let_through() -> None:
    (source,) = (cell.source for cell in LESSON.lesson.cells() if "def show_stack" in cell.source)
    namespace = dict(LESSON.solutions)
    exec(source, namespace)
    for length, window, layers, ratio, back, held in (
        (24, 4, 3, 12, 9, 12),
        (24, 4, 3, 2, 23, 32),
        (5, 9, 2, 12, 4, 10),
    ):
        text = namespace["show_stack"](length, window, layers, ratio).text
        assert f"influenced by {back} earlier ones" in text and f"hold {held} tokens" in text


@pytest.mark.parametrize(
    ("heads", "windows", "gigabytes"), [(32, False, 77.31), (32, True, 13.89), (8, False, 19.33), (8, True, 3.47)]
)
def test_the_talks_chart(heads: int, windows: bool, gigabytes: float) -> None:
    config = Config(EXERCISES.TALK | {"num_key_value_heads": heads})
    if not windows:
        config = config.replace(layer_types=[OTHERS.FULL] * 36)
    assert round(LESSON.solutions["cache_bytes"](config, 131_072) / 1e9, 2) == gigabytes


@pytest.mark.parametrize(("name", "before", "after"), [("Gemma 3 270M", 18, 3), ("Gemma 3 27B", 496, 80)])
def test_bytes_a_token_before_and_after_the_window(name: str, before: int, after: int) -> None:
    size = LESSON.solutions["cache_bytes"]
    config = known_model(name)
    assert size(config, 1) == before * 1024
    assert size(config, 5000) - size(config, 4999) == after * 1024


def test_the_question() -> None:
    config = known_model("Gemma 3 27B")
    assert LESSON.solutions["reach"](config.replace(layer_types=[OTHERS.SLIDING] * 62), 131_072) == 62 * 1023 == 63_426
    assert LESSON.solutions["reach"](config, 131_072) == 131_071


@pytest.mark.parametrize("chunks", [[200], [50, 100, 1, 1, 48], [10] * 20, [1] * 200, [33, 32, 31, 104]])
def test_trained_weights_give_the_references_logits_across_the_windows_edge(chunks: list[int]) -> None:
    checkpoint, model, theirs = LESSON.trained("CachedLM", "austen-gemma3")
    ids = torch.randint(checkpoint.config.vocab_size, (2, 200))
    with torch.no_grad():
        whole = theirs(input_ids=ids, use_cache=False).logits
        cache = model.new_cache(2, 200)
        assert agree(torch.cat([model(piece, cache) for piece in ids.split(chunks, dim=1)], dim=1), whole)


@pytest.mark.slow
def test_gemma_270m_across_its_window_is_the_reference() -> None:
    checkpoint, model, theirs = LESSON.trained("CachedLM", "gemma-3-270m")
    golden = next(g for g in entry("gemma-3-270m").goldens if len(g.prompt_ids or ()) > 512)
    ids = torch.tensor([list(golden.prompt_ids or ())])
    for chunk in (128, 600):
        written = list(LESSON.solutions["generate_rolling"](model, ids, golden.n_tokens, chunk=chunk))
        assert same_tokens_but_for_near_ties(written, golden.new_ids or (), theirs, ids)
    cache, everything = model.new_cache(1, 2048), checkpoint.config.replace(sliding_window=2048)
    assert held(cache) == LESSON.solutions["cache_bytes"](checkpoint.config, 2048, 1, 4)
    assert held(cache) * 2.6 < LESSON.solutions["cache_bytes"](everything, 2048, 1, 4)


@pytest.mark.slow
def test_a_continuation_of_gemma_270m_that_crosses_its_window_is_what_transformers_writes() -> None:
    checkpoint, model, theirs = LESSON.trained("CachedLM", "gemma-3-270m")
    ids = torch.tensor([list(entry("gemma-3-270m").goldens[-1].prompt_ids or ())[:500]])
    written = list(LESSON.solutions["generate_rolling"](model, ids, 40))
    assert ids.shape[1] < checkpoint.config.sliding_window < ids.shape[1] + len(written)
    by_transformers = continued_by_transformers(theirs, ids, 40, written)
    assert same_tokens_but_for_near_ties(written, by_transformers, theirs, ids)
    text = checkpoint.tokenizer.decode(by_transformers)  # the lesson shows it, in two pieces
    cell = LESSON.cell_with("by_transformers = (")
    namespace: dict[str, str] = {}
    exec(cell[: cell.index("if gemma_model")], namespace)
    assert namespace["by_transformers"] == text


def test_a_cache_that_rolls_is_laid_out_as_a_ring() -> None:
    cache, kv = DRIVES.LaidOut(kept=2, places=3), torch.arange(5.0).view(1, 1, 5, 1)
    for t in range(5):
        cache.coming = 1
        k, _ = cache.append(kv[:, :, t : t + 1], kv[:, :, t : t + 1])
    assert k.flatten().tolist() == [2, 3, 4]
    assert cache.keys.flatten().tolist() == [3, 4, 2]
