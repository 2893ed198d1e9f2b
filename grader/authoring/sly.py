"""A lesson's sly.toml: wrong programs that a handful of cases lets through, as changes of its own solutions."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from grader.authoring.kit.solved import Solved
from grader.errors import RecordingError


@dataclass(frozen=True)
class Sly:
    """A wrong program. wrong: what is wrong with it. edits: places in the solution's cell, and what stands there."""

    exercise: str
    wrong: str
    edits: tuple[tuple[str, str], ...]

    def program(self, lesson: Solved) -> Any:
        """The class or function. Raises RecordingError where a change does not fit the solution."""
        source = lesson.lesson.source_of(self.exercise)
        for find, put in self.edits:
            if find not in source:
                raise RecordingError(f"{self.exercise}, {self.wrong!r}: {find!r} is not in the solution")
            source = source.replace(find, put)
        return lesson.lesson.namespace((self.exercise, source))[lesson.exercises[self.exercise].solution]


def sly_programs(lesson: Solved) -> Iterator[Sly]:
    """The programs of a lesson's sly.toml; none where it has no such file."""
    path = lesson.folder / "sly.toml"
    tables = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for exercise, programs in tables.items():
        for wrong, edits in programs.items():
            yield Sly(exercise, wrong, tuple((find, put) for find, put in edits))
