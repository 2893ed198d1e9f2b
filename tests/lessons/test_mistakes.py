"""Every named mistake gives what is recorded of it, is rejected and named: here, and half of them on others too."""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from solved import solved

from grader.authoring.recorder import patched_source
from grader.checks.examine import InProcess, examine
from grader.checks.judge.known_mistakes import Known, known_in, suspects
from grader.checks.judge.wording import report
from grader.checks.observation import Observation
from grader.checks.probe import probe, probe_further
from grader.checks.probe.second_run import use_for_other_numbers
from grader.instruments.rounding import another_processor
from grader.lessons.lesson import Lesson
from grader.recordings.recording import Recording
from grader.recordings.tasks import Task
from grader.report import to_text
from grader.tolerance import agree

ROOT = Path(__file__).resolve().parents[2]
SEEDS = 3  # of other processors; every second mistake is tried on one of them: it takes twice as long as here
HERE = 0
LESSONS = [Lesson(path.parent) for path in sorted((ROOT / "solutions").glob("*/reference.safetensors"))]


def mistakes() -> Iterator[Any]:
    for lesson in LESSONS:
        for exercise in solved(lesson.name).exercises.values():
            for mistake in exercise.mistakes:
                yield pytest.param(lesson, exercise.name, mistake, id=f"{lesson.name} {exercise.name}: {mistake.name}")


class Remembering(InProcess):
    """Observes as a check does, and remembers it."""

    observed: tuple[Observation, ...] = ()

    def observe(self, task: Task) -> tuple[Observation, ...]:
        """All that a check observes; but where some outputs are wrong, which is enough, of those cases no more.

        Where known mistakes explain these, a verdict tells them alone: how the other cases are asked in other ways has
        no part in it, so they are not.
        """
        answer = self._recording.answer(task.exercise)
        found = list(probe(task, self._solution, outputs_only=True))
        cases = enumerate(zip(found, answer.outputs, answer.tolerances, strict=True))
        right = [i for i, (one, output, bound) in cases if one.output is not None and agree(one.output, output, bound)]
        if len(right) == len(found):
            self.observed = super().observe(task)
            return self.observed
        if right:
            use_for_other_numbers(task, task.cases[0], self._solution)
        named = suspects(answer, [one.output for one in found], [i in right for i in range(len(found))]).fitting
        for i in right:
            case = replace(task.cases[i], variants=()) if named else task.cases[i]
            found[i] = probe_further(replace(task, cases=(case,)), case, self._solution, found[i])
        self.observed = tuple(found)
        return self.observed


@dataclass(frozen=True)
class Started:
    """What all mistakes of an exercise share: the recording, the lesson run as far as the exercise, what was found.

    known: for each machine, which programs of other exercises are right: they are examined once for all mistakes.
    """

    recorded: Recording
    changed: Callable[[str], dict[str, Any]]
    known: dict[int, dict[tuple[str, Any], bool]] = field(default_factory=lambda: defaultdict(dict))

    def known_outputs(self, exercise: str, mistake: str) -> list[Known | None]:
        """What the recording has of a mistake, for each case; None where rounding alone makes it another output."""
        answer = self.recorded.answer(exercise)
        (found,) = (one for one in answer.mistakes if one.name == mistake)
        return [known_in(found, i, tolerance) for i, tolerance in enumerate(answer.tolerances)]


@lru_cache(maxsize=1)
def started(lesson: Lesson, exercise: str) -> Started:
    return Started(Recording.read(lesson.recording), lesson.changed(exercise))


@pytest.mark.parametrize(("lesson", "exercise", "mistake"), list(mistakes()))
def test_a_named_mistake_is_rejected_and_named(lesson: Lesson, exercise: str, mistake: Any) -> None:
    shared = started(lesson, exercise)
    task = shared.recorded.task(exercise)
    source = patched_source(lesson.source_of(exercise), exercise, mistake)
    target = shared.changed(source)[task.solution]
    draw = sum(map(ord, mistake.name))
    for seed in (HERE, 1 + draw % SEEDS)[: 1 + draw // SEEDS % 2]:
        with another_processor(seed) if seed else contextlib.nullcontext():
            prober = Remembering(shared.recorded, target, shared.known[seed])
            verdict = examine(shared.recorded, exercise, prober)
        for i, known in enumerate(shared.known_outputs(exercise, mistake.name)):
            given = prober.observed[i].output
            assert known is None or (given is not None and agree(given, known.output, known.tolerance))
        text = to_text(report(verdict))
        assert not verdict.right
        assert mistake.name in text
        assert mistake.hint in text, text


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_hints_do_not_give_the_answer_away(lesson: Lesson) -> None:
    for exercise in lesson.exercises()[0]:
        solution = lesson.source_of(exercise.name)
        for mistake in exercise.mistakes:
            lines = [line.strip() for line in solution.splitlines() if len(line.strip()) > 12]
            assert not [line for line in lines if line in mistake.hint], mistake.name
