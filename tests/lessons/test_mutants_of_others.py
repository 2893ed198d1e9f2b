"""Mutants of a third kind: another right program, as a learner could have written it, changed in one place.

`test_mutants.py` changes the lesson's own solutions. Here the programs of others.py are changed, with other lines,
other names and other kernels: a few places of each, always the same ones. What is let through stands in the lesson's
equivalent_mutants.toml, under "other programs", with the reason why it changes nothing that could be noticed.
"""

import inspect
import json
import textwrap
from collections.abc import Iterator
from functools import partial
from random import Random
from typing import Any

import pytest
from mutants import mutants
from solved import every_lesson
from test_mutants import known_equivalents, passes

from grader.authoring.kit.solved import Solved
from grader.errors import RecordingError

pytestmark = pytest.mark.sampled(16)

TRIED = 3  # of a program's places


def programs() -> Iterator[Any]:
    """With their sources, which nobody finds any more once a test has had the lesson's files read anew."""
    for lesson in every_lesson():
        for exercise, right in getattr(lesson.others, "RIGHT", {}).items():
            for program in right:
                name, source = program.__name__, textwrap.dedent(inspect.getsource(program))
                yield pytest.param(lesson, exercise, name, source, id=f"{lesson.name} {exercise} {name}")


def changed_program(lesson: Solved, exercise: str, name: str, source: str) -> dict[str, Any]:
    """The program of others.py with that name, from a changed source, under the name that the exercise has for it."""
    namespace = {**vars(lesson.others), "__name__": "changed"}
    try:
        exec(compile(source, f"<{name}, changed>", "exec"), namespace)
    except Exception as error:  # a changed program may raise anything
        raise RecordingError(f"{name} does not run") from error
    return {lesson.exercises[exercise].solution: namespace[name]}


@pytest.mark.parametrize(("lesson", "exercise", "name", "source"), list(programs()))
def test_a_change_of_another_right_program_is_noticed(lesson: Solved, exercise: str, name: str, source: str) -> None:
    changed = mutants(f"### BEGIN SOLUTION\n{source}\n### END SOLUTION\n")
    tried = Random(name).sample(changed, min(TRIED, len(changed)))
    make = partial(changed_program, lesson, exercise, name)
    survivors = {f"{name}: {m.change}" for m in tried if passes(lesson.recording, exercise, make, m)}
    known = {
        change
        for change in known_equivalents(lesson.folder).get("other programs", {})
        if change.startswith(f"{name}: ")
    }
    unknown = [f'{json.dumps(change, ensure_ascii=False)} = "why"' for change in sorted(survivors - known)]
    assert not unknown, "\n".join(
        ["let pass, as equivalent_mutants.toml would have them:", '["other programs"]', *unknown]
    )
    assert not known - survivors, "listed, but noticed or gone:\n" + "\n".join(sorted(known - survivors))
