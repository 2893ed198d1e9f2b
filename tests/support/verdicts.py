"""What a check says of every program that the lessons know, a line each, to compare before and after a change.

    PYTHONPATH=tests/lessons python tests/support/verdicts.py build/before.tsv [LESSON ...]

A line holds the exercise, the kind of program and its name, the points, whether it is right, the mistake that is named,
and a digest of the report's words without numbers. Kinds: solution, right, wrong (BY_CHANCE), mistake, sly, mutant.
"""

import contextlib
import hashlib
import io
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from mutants import mutants
from solved import every_lesson, solved
from test_mutants import time_limit

from grader.authoring.recorder import patched_source
from grader.authoring.sly import sly_programs
from grader.checks.examine import examine_here
from grader.checks.judge.wording import report
from grader.report import to_text

Program = tuple[str, str, str, Callable[[], Any]]  # exercise, kind, name, and what makes it


def programs(name: str) -> Iterator[Program]:
    """Every program of a lesson."""
    lesson = solved(name)
    for exercise in lesson.exercises:
        yield exercise, "solution", "", lambda exercise=exercise: lesson.solution(exercise)  # type: ignore[misc]
    for kind, declared in (("right", "RIGHT"), ("wrong", "BY_CHANCE")):
        for exercise, found in dict(getattr(lesson.others, declared, {})).items():
            yield from ((exercise, kind, one.__name__, lambda one=one: one) for one in found)
    for sly in sly_programs(lesson):
        yield sly.exercise, "sly", sly.wrong, lambda sly=sly: sly.program(lesson)  # type: ignore[misc]
    for exercise, of in lesson.exercises.items():
        changed, source = lesson.lesson.changed(exercise), lesson.lesson.source_of(exercise)
        sources = [("mistake", one.name, patched_source(source, exercise, one)) for one in of.mistakes]
        sources += [("mutant", one.change, one.source) for one in mutants(source)]
        for kind, title, text in sources:
            yield exercise, kind, title, lambda text=text, of=of, changed=changed: changed(text)[of.solution]  # type: ignore[misc]


def line(name: str, program: Program) -> str:
    """What is said of one program."""
    exercise, kind, title, make = program
    torch.manual_seed(0)
    try:
        with time_limit(), contextlib.redirect_stdout(io.StringIO()):
            verdict = examine_here(solved(name).recording, exercise, make())
    except BaseException as error:
        said = [type(error).__name__]
    else:
        words = re.sub(r"[-+]?[\d.,]+(e-?\d+)?", "#", to_text(report(verdict)))
        named = next((case.finding.mistake for case in verdict.cases if case.finding and case.finding.mistake), "")
        said = [f"{verdict.points:g}", str(verdict.right), named, hashlib.sha256(words.encode()).hexdigest()[:8]]
    return "\t".join([exercise, kind, " ".join(title.split()), *said])


def lines(name: str) -> list[str]:
    """The lines of a lesson."""
    torch.set_num_threads(1)
    return [line(name, program) for program in programs(name)]


def main() -> None:
    """Write the file."""
    names = sys.argv[2:] or [lesson.name for lesson in every_lesson()]
    with ProcessPoolExecutor(2) as pool, Path(sys.argv[1]).open("w", encoding="utf-8") as file:
        for found in pool.map(lines, names):
            file.write("\n".join(found) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
