"""Mutants of a second kind: gradients cut off, values rounded, state that outlives a text, numbers written down.

`test_mutants.py` changes the text of a solution. These changes look right in it, and most of them are right in the
first case that comes. A few of each solution's are tried, always the same ones.
"""

import ast
import contextlib
import inspect
import io
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from mutants_at_run import Kept, altering, cut, lowered, with_constants, wrapped
from solved import every_lesson
from test_mutants import known_equivalents, right, time_limit

from grader.authoring.kit.solved import Solved
from grader.lessons.exercise import Exercise
from grader.recordings.recording import Recording

pytestmark = pytest.mark.sampled(16)

TRIED = 4  # of a solution's places, for each kind


def equivalents(lesson: Solved, exercise: str) -> dict[str, str]:
    """What may be let through, and why: the lesson's equivalent_mutants.toml says it under "at run"."""
    known: Any = known_equivalents(lesson.folder).get("at run", {})
    return dict(known.get(exercise, {}))


def exercises() -> Iterator[Any]:
    for lesson in every_lesson():
        for exercise in lesson.exercises.values():
            yield pytest.param(lesson, exercise, id=f"{lesson.name} {exercise.name}")


def passes(recording: Recording, exercise: str, target: Any) -> bool:
    try:
        with time_limit(), contextlib.redirect_stdout(io.StringIO()):
            return right(recording, exercise, target)
    except TimeoutError:
        return False


@pytest.mark.parametrize(("lesson", "exercise"), list(exercises()))
@pytest.mark.parametrize("kind", ["cut", "lowered", "kept"])
def test_what_is_altered_while_a_solution_runs_is_noticed(lesson: Solved, exercise: Exercise, kind: str) -> None:
    task = lesson.recording.task(exercise.name)
    if kind == "cut" and not task.differentiable:
        pytest.skip("no gradients are looked at")
    if kind == "lowered" and exercise.name.endswith(".generate"):
        pytest.skip("of logits that rounding made equal, each processor takes its own")
    source, places = wrapped(lesson.lesson.source_of(exercise.name))
    target = lesson.lesson.changed(exercise.name)(source)[task.solution]
    tried = Random(exercise.name).sample(range(len(places)), min(TRIED, len(places)))
    alters: dict[str, Callable[[], Any]] = {"cut": lambda: cut, "lowered": lambda: lowered, "kept": Kept}
    for place in tried:
        with altering(place, alters[kind]()) as now:
            passed = passes(lesson.recording, exercise.name, target)
        known = f"{kind}: {places[place]}" in equivalents(lesson, exercise.name)
        assert not (passed and now.effect) or known, f"let pass: {kind}: {places[place]}"


@pytest.mark.parametrize(("lesson", "exercise"), list(exercises()))
def test_a_number_of_the_first_case_written_down_is_noticed(lesson: Solved, exercise: Exercise) -> None:
    task, case = lesson.recording.task(exercise.name), lesson.recording.task(exercise.name).cases[0]
    source = lesson.lesson.source_of(exercise.name)
    names = [name for name in parameters(source) if name != "self"]
    given = case.args if task.function and not task.drive else list(case.build.values())
    found = with_constants(source, dict(zip(names, given, strict=False)))
    changed = lesson.lesson.changed(exercise.name)
    for mutant in found:
        passed = passes(lesson.recording, exercise.name, changed(mutant.source)[task.solution])
        assert not passed or mutant.change in equivalents(lesson, exercise.name), f"let pass: {mutant.change}"


def parameters(source: str) -> list[str]:
    """The parameters of the function, or of the class's __init__; none where it has no own one."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    first = next((f for f in functions if f.name == "__init__"), functions[0])
    return [argument.arg for argument in first.args.args] if first.name == "__init__" or len(functions) == 1 else []


def test_each_kind_of_change_shows_in_a_plain_program() -> None:
    source = inspect.cleandoc(
        """
        def twice(x):
            ### BEGIN SOLUTION
            y = 2 * x
            return y
            ### END SOLUTION
        """
    )
    text, places = wrapped(source)
    assert places == ["y = 2 * x", "return y"] and text.count("_touched(") == 2
    [mutant] = with_constants(source.replace("2 * x", "x + x"), {"x": 3})
    assert mutant.change == "`x` is 3" and "y = 3 + 3" in mutant.source
