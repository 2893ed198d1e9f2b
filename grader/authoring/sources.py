"""What a recording is made from."""

from grader.digest import digest
from grader.lessons.cells import RUN_BY_EVERY_EXERCISE
from grader.lessons.lesson import Lesson


def made_from(lesson: Lesson) -> dict[str, str]:
    """Hashes of the sources that a recording is made from: when one changes, the recording is stale."""
    cells = [cell.source for cell in lesson.cells() if cell.kind in RUN_BY_EVERY_EXERCISE]
    return {
        "solutions": digest("\0".join(cells)),
        lesson.exercises_file.name: digest(lesson.exercises_file.read_text(encoding="utf-8")),
    }
