"""Mutants of a third kind: another right program, as a learner could have written it, changed in one place.

`test_mutants.py` changes the lesson's own solutions. Here the programs of others.py are changed, with other lines,
other names and other kernels: a few places of each, always the same ones. What is let through stands in the lesson's
equivalent_mutants.toml, under "other programs", with the reason why it changes nothing that could be noticed.
"""

import contextlib
import inspect
import io
import json
import textwrap
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from mutants import mutants
from solved import Solved, every_lesson
from test_mutants import gives_it, known_equivalents, time_limit

from grader.checks.examine import examine_here

TRIED = 3  # of a program's places


def programs() -> Iterator[Any]:
    for lesson in every_lesson():
        for exercise, right in getattr(lesson.others, "RIGHT", {}).items():
            for program in right:
                yield pytest.param(lesson, exercise, program, id=f"{exercise} {program.__name__}")


def passes(lesson: Solved, exercise: str, source: str, name: str) -> bool:
    task = lesson.recording.task(exercise)
    namespace = {**vars(lesson.others), "__name__": "changed"}
    try:
        with time_limit(), contextlib.redirect_stdout(io.StringIO()):
            exec(compile(source, f"<{name}, changed>", "exec"), namespace)
            program = namespace[name]
            return all(gives_it(lesson.recording, exercise, case, program) for case in range(len(task.cases))) and (
                examine_here(lesson.recording, exercise, program).right
            )
    except Exception:  # a changed program may raise anything
        return False


@pytest.mark.parametrize(("lesson", "exercise", "program"), list(programs()))
def test_a_change_of_another_right_program_is_noticed(lesson: Solved, exercise: str, program: Any) -> None:
    name = program.__name__
    source = textwrap.dedent(inspect.getsource(program))
    changed = mutants(f"### BEGIN SOLUTION\n{source}\n### END SOLUTION\n")
    tried = Random(name).sample(changed, min(TRIED, len(changed)))
    survivors = {f"{name}: {m.change}" for m in tried if passes(lesson, exercise, m.source, name)}
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
