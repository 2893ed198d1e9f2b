"""What the first lesson alone must hold; tests/lessons/test_every_lesson.py asks the rest."""

from collections.abc import Mapping
from typing import Any

import pytest

from grader.authoring.kit import Draw
from grader.authoring.kit.engine import judge, probe
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
    assert LESSON.solutions["parameter_count"](config) == REFERENCE.reference_count(config) == PUBLISHED[name]


def test_every_published_config_is_a_case() -> None:
    assert {path.stem for path in (LESSON.folder / "configs").glob("*.json")} == set(PUBLISHED)
    exercise = LESSON.exercises["orientation.parameter_count"]
    counts = [exercise.reference(*case.args(Draw(case.name))) for case in exercise.cases]
    assert set(PUBLISHED.values()) <= set(counts)


@pytest.mark.parametrize("done", [("gpt2",), ("llama", "qwen3", "gemma3_text")])
def test_a_count_for_some_families_gets_their_points(done: tuple[str, ...]) -> None:
    right = LESSON.solutions["parameter_count"]

    def only(config: Mapping[str, Any]) -> int:
        if config["model_type"] not in done:
            raise NotImplementedError(config["model_type"])
        return int(right(config))

    task, answer = LESSON.recorded("orientation.parameter_count")
    verdict = judge(task, answer, probe(task, only))
    assert not verdict.right
    assert 0 < verdict.points < verdict.max_points
