"""What latent attention alone must hold; tests/lessons/test_every_lesson.py asks the rest."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from grader import Config
from grader.authoring.kit import agree
from grader.authoring.kit.solved import lesson_of
from grader.kv import bytes_at, bytes_per_token, known_model

LESSON = lesson_of(__file__)
OTHERS, EXERCISES, REFERENCE = LESSON.others, LESSON.module("exercises"), LESSON.module("reference")


def test_the_scale_of_v3_is_the_known_one() -> None:
    v3 = LESSON.config("deepseek-v3")
    assert round(LESSON.solutions["softmax_scale"](v3), 6) == 0.135234


@pytest.mark.parametrize("case", ["7 tokens", "no narrow query, no YaRN"])
def test_the_absorbed_forms_weights_have_the_checkpoints_names(case: str) -> None:
    exercise = LESSON.exercises["mla.model"]
    config = Config(next(c for c in exercise.cases if c.name == case).build["config"])  # type: ignore[index]
    wanted = exercise.reference(config).state_dict()
    own = LESSON.solutions["Model"](config, LESSON.solutions["AbsorbedAttention"]).state_dict()
    assert {name: tensor.shape for name, tensor in own.items()} == {name: t.shape for name, t in wanted.items()}


@settings(max_examples=60)
@given(config=OTHERS.CONFIGS, positions=st.lists(st.integers(0, 40_000), min_size=1, max_size=9))
def test_the_table_of_rotations_is_that_of_transformers(config: dict[str, Any], positions: list[int]) -> None:
    """It is given, and no exercise: neither a recording nor a check looks at it."""
    table = LESSON.solutions["rope_table"](torch.tensor(positions), Config(config))
    assert agree(table, REFERENCE.rope_table(torch.tensor(positions), config))


def test_both_forms_keep_the_rows_that_transformers_keeps() -> None:
    config = Config(EXERCISES.SMALL)
    theirs = LESSON.exercises["mla.model"].reference(config)
    ids, cache = torch.randint(53, (2, 9)), DynamicCache(config=theirs.config)
    with torch.no_grad():
        theirs(input_ids=ids, cache=cache, use_cache=True)
        for form in ("Attention", "AbsorbedAttention"):
            own = LESSON.solutions["Model"](config, LESSON.solutions[form])
            own.load_state_dict(theirs.state_dict())
            caches = [LESSON.solutions["LatentCache"](config, 2, 9) for _ in range(3)]
            own(ids[:, :6], caches)
            own(ids[:, 6:], caches)
            for layer, kept in zip(cache.layers, caches, strict=True):
                rows = torch.cat([layer.keys, layer.values], dim=-1)[:, 0]
                assert agree(kept.rows, rows)
                assert kept.rows.nbytes == rows.nbytes


@pytest.mark.parametrize(("T", "S"), [(1, 40), (7, 40), (12, 12)])
@pytest.mark.parametrize("form", ["Attention", "AbsorbedAttention"])
def test_the_lessons_formula_counts_every_multiplication(form: str, T: int, S: int) -> None:
    source = LESSON.cell_with("def by_formula(")
    body = source[source.index("def by_formula(") :].split("\n\n\n")[0].replace("= lite", "")
    namespace: dict[str, Any] = {"Config": Config}
    exec(body, namespace)
    config = Config(EXERCISES.PLAIN)
    cache = LESSON.solutions["LatentCache"](config, 1, S)
    cache.length = S - T
    table = REFERENCE.rope_table(torch.arange(S - T, S), config)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        LESSON.solutions[form](config)(torch.randn(1, T, config.hidden_size), table, cache)
    name = "expanded" if form == "Attention" else "absorbed"
    assert counter.get_total_flops() == 2 * namespace["by_formula"](name, T, S, config)


@pytest.mark.parametrize("S", [1, 16, 146, 1024, 32_768])
def test_the_lessons_crossing_is_where_the_formula_says_that_both_forms_cost_the_same(S: int) -> None:
    source = LESSON.cell_with("def by_formula(")
    body = source[source.index("def by_formula(") :].split("\n\n\n")[0].replace("= lite", "")
    crossing = LESSON.cell_with("def crossing(")
    crossing = crossing[: crossing.index("print(")]
    v3 = LESSON.config("deepseek-v3")
    namespace: dict[str, Any] = {"Config": Config, "lite": v3}
    exec(f"{body}\n{crossing}", namespace)
    for T in {1, S // 2, S, *range(140, 175)} & set(range(1, S + 1)):
        expanded, absorbed = (namespace["by_formula"](form, T, S, v3) for form in ("expanded", "absorbed"))
        assert (expanded < absorbed) == (namespace["crossing"](S) < T)


def test_the_talks_chart_is_exact_at_131_072_tokens() -> None:
    cache_bytes = LESSON.solutions["cache_bytes"]
    talk = Config({"num_hidden_layers": 48, "num_key_value_heads": 1, "head_dim": 2048})
    bare = [cache_bytes(talk.replace(kv_lora_rank=r, qk_rope_head_dim=0), 131_072) for r in (1024, 512, 256, 64)]
    assert [round(n / 1e9, 2) for n in (cache_bytes(talk, 131_072), *bare)] == [51.54, 12.88, 6.44, 3.22, 0.81]
    assert round(cache_bytes(talk.replace(kv_lora_rank=512, qk_rope_head_dim=64), 131_072) / 1e9, 2) == 7.25


def test_the_lessons_config_agrees_with_the_calculators() -> None:
    config = LESSON.config("deepseek-v3")
    known = known_model("DeepSeek V3")
    same = {field: config[field] for field in known}
    assert same | {"rope_scaling": {**known.rope_scaling, **same["rope_scaling"]}} == dict(
        known
    )  # that one has RoPE's base
    assert bytes_per_token(config) == LESSON.solutions["cache_bytes"](config, 1) == 70_272


@pytest.mark.parametrize("form", ["expanded_lm", "absorbed_lm"])
def test_the_trained_models_cache_has_the_formulas_bytes(form: str) -> None:
    checkpoint, model, _ = LESSON.trained(form, "austen-mla")
    caches = model.caches(3, 50)
    measured = sum(cache.rows.nbytes for cache in caches)
    assert measured == bytes_at(checkpoint.config, 50, 3, 4)
    assert measured == LESSON.solutions["cache_bytes"](checkpoint.config, 50, 3, 4)
