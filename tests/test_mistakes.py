"""Every named mistake is rejected, and the report names it: here, and with the roundings of another processor."""

import contextlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from grader.authoring.recorder import patched_source
from grader.checks.examine import examine_here
from grader.checks.wording import report
from grader.instruments.rounding import another_processor
from grader.lessons.lesson import Lesson
from grader.recordings.recording import Recording
from grader.report import to_text

ROOT = Path(__file__).parent.parent
SEEDS = 3  # of other processors; each mistake is tried on one of them
LESSONS = [Lesson(path.parent) for path in sorted((ROOT / "solutions").glob("*/reference.safetensors"))]


def mistakes() -> Iterator[Any]:
    for lesson in LESSONS:
        for exercise in lesson.exercises()[0]:
            for mistake in exercise.mistakes:
                yield pytest.param(lesson, exercise.name, mistake, id=f"{exercise.name}: {mistake.name}")


@lru_cache(maxsize=1)
def started(lesson: Lesson, exercise: str) -> tuple[Recording, Callable[[str], dict[str, Any]]]:
    """What all mistakes of an exercise share: the recording, and the lesson run as far as the exercise."""
    return Recording.read(lesson.recording), lesson.changed(exercise)


@pytest.mark.parametrize(("lesson", "exercise", "mistake"), list(mistakes()))
def test_a_named_mistake_is_rejected_and_named(lesson: Lesson, exercise: str, mistake: Any) -> None:
    recorded, changed = started(lesson, exercise)
    task = recorded.task(exercise)
    source = patched_source(lesson.source_of(exercise), exercise, mistake)
    target = changed(source)[task.solution]
    another = 1 + sum(map(ord, mistake.name)) % SEEDS
    for machine in (contextlib.nullcontext(), another_processor(another)):
        with machine:
            verdict = examine_here(recorded, exercise, target)
        text = to_text(report(verdict))
        assert not verdict.right
        assert mistake.name in text
        assert mistake.hint in text


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_hints_do_not_give_the_answer_away(lesson: Lesson) -> None:
    for exercise in lesson.exercises()[0]:
        solution = lesson.source_of(exercise.name)
        for mistake in exercise.mistakes:
            lines = [line.strip() for line in solution.splitlines() if len(line.strip()) > 12]
            assert not [line for line in lines if line in mistake.hint], mistake.name
