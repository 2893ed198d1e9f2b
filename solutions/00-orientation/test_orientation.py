"""What the first lesson alone must hold; tests/lessons/test_every_lesson.py asks the rest."""

import pytest

from grader import atlas
from grader.authoring.kit.solved import lesson_of

LESSON = lesson_of(__file__)
REFERENCE = LESSON.module("reference")

# Counts of the published checkpoints, which transformers' counts must equal too.
PUBLISHED = {
    "gpt2": 124_439_808,
    "gpt2-xl": 1_557_611_200,
    "smollm2-135m": 134_515_008,
    "llama-3-8b": 8_030_261_248,
    "qwen3-0.6b": 596_049_920,
    "qwen3-8b": 8_190_735_360,
    "gemma-3-270m": 268_098_176,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_of_published_models_equal_transformers(name: str) -> None:
    config = LESSON.config(name)
    assert atlas.read(config).parameters == REFERENCE.reference_count(config) == PUBLISHED[name]


@pytest.mark.parametrize("name", ["gpt2", "gpt2-xl"])
def test_the_solution_counts_the_published_gpt2s(name: str) -> None:
    assert LESSON.solutions["parameter_count"](LESSON.config(name)) == PUBLISHED[name]


def test_the_lesson_ships_the_configs_that_it_names() -> None:
    assert {path.stem for path in (LESSON.folder / "configs").glob("*.json")} == set(PUBLISHED)
