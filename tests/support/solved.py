"""This project's lessons, as `grader.authoring.kit.solved` has them. Tests find them by listing ``solutions/``."""

from pathlib import Path

from grader.authoring.kit.solved import Solved, lesson_at
from grader.lessons.lesson import lessons

PROJECT = Path(__file__).resolve().parents[2]


def solved(name: str) -> Solved:
    """The lesson of that name, one object in a process."""
    return lesson_at(PROJECT / "solutions" / name)


def every_lesson() -> list[Solved]:
    """All lessons, in order."""
    return [lesson_at(lesson.folder) for lesson in lessons(PROJECT)]
