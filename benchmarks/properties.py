"""What asking cases in other ways notices and costs: `python benchmarks/properties.py [LESSON ...]`.

For each kind of variant: of how many exercises it is asked, how many of the wrong programs in the lessons' sly.toml
that the cases alone let through it notices, and what it costs where the lesson's own solution is checked.
"""

import contextlib
import io
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from grader.authoring.kit.figures import Figure, show
from grader.authoring.kit.solved import Solved, lesson_at
from grader.authoring.sly import sly_programs
from grader.checks.judge import judge
from grader.checks.judge.variants import right_in, with_variants
from grader.checks.judge.verdict import CaseVerdict
from grader.checks.observation import Observation
from grader.checks.probe import probe
from grader.checks.probe.running import quietly
from grader.checks.probe.variants import vary
from grader.lessons.lesson import lessons
from grader.recordings.answers import Answer
from grader.recordings.tasks import Task

ROOT = Path(__file__).resolve().parent.parent


def main(names: list[str]) -> None:
    """Measure, and print a table."""
    asked, noticed, costs = Counter[str](), Counter[str](), defaultdict[str, list[float]](list)
    sly, alone, together = 0, 0, 0
    for lesson in [lesson_at(one.folder) for one in lessons(ROOT) if not names or one.name in names]:
        for exercise in lesson.exercises:
            for kind, seconds in costs_of(lesson, exercise):
                asked[kind] += 1
                costs[kind].append(seconds)
        for wrong in sly_programs(lesson):
            sly += 1
            with contextlib.redirect_stdout(io.StringIO()):
                kinds = noticed_by(lesson, wrong.exercise, wrong.program(lesson))
            alone += kinds is None
            together += kinds is None or bool(kinds)
            noticed.update(kinds or ())
    rows = [
        Figure(kind, f"{asked[kind]} asked, {noticed[kind]} notice, {1000 * statistics.mean(costs[kind]):.2f} ms each")
        for kind in sorted(asked, key=lambda kind: -sum(costs[kind]))
    ]
    cases, all_of_it = (1000 * statistics.mean(each) for each in zip(*whole, strict=True))
    rows.append(Figure("a right program: its cases alone, all of it", f"{cases:.1f}, {all_of_it:.1f} ms", "< 20 ms"))
    rows.append(Figure("sly programs that are noticed", f"{together} of {sly}; by the cases alone {alone}"))
    show(rows)


whole: list[tuple[float, float]] = []  # for each exercise the seconds that its cases take alone, and with variants


def without_variants(task: Task) -> Task:
    """The task with its cases alone."""
    return replace(task, cases=tuple(replace(case, variants=()) for case in task.cases))


def costs_of(lesson: Solved, exercise: str) -> Iterator[tuple[str, float]]:
    """For each variant of an exercise its kind, and the seconds that it takes by itself."""
    task, solution = lesson.recording.task(exercise), lesson.solution(exercise)
    whole.append((least(lambda: probe(without_variants(task), solution)), least(lambda: probe(task, solution))))
    outputs = {one.case: one.output for one in probe(without_variants(task), solution, outputs_only=True)}
    for case in task.cases:
        for variant in case.variants:
            one = replace(case, variants=(variant,))
            with quietly([]):
                seconds = least(lambda one=one, own=outputs[case.name]: vary(task, one, solution, own))  # type: ignore[misc]
            yield type(variant).__name__, seconds


def least(run: Callable[[], Any]) -> float:
    """The least seconds of the processor that a call takes, of three: other programs may run, too."""
    seconds = []
    for _ in range(3):
        started = time.process_time()
        run()
        seconds.append(time.process_time() - started)
    return min(seconds)


def noticed_by(lesson: Solved, exercise: str, program: Any) -> set[str] | None:
    """The kinds of variants that notice a program; None where its cases do already."""
    task, answer = lesson.recording.task(exercise), lesson.recording.answer(exercise)
    bare = without_variants(task)
    observations = probe(bare, program)
    if not judge(bare, answer, observations).right:
        return None
    return set(kinds_that_notice(task, answer, program, observations))


def kinds_that_notice(task: Task, answer: Answer, program: Any, observations: Sequence[Observation]) -> Iterator[str]:
    """The kinds of variants that notice a program, whose outputs are right."""
    for i, (case, observation) in enumerate(zip(task.cases, observations, strict=True)):
        right = right_in(answer, i)
        for variant in case.variants:
            one = replace(case, variants=(variant,))
            with quietly([]):
                varied = vary(task, one, program, observation.output)
            verdict = with_variants(CaseVerdict(case.name, True), one, Observation(case.name, varied=varied), right)
            if not verdict.right:
                yield type(variant).__name__


if __name__ == "__main__":
    main(sys.argv[1:])
