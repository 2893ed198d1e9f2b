"""How long a lesson takes, by a rule: an estimate, the same for every lesson.

Words are read at 200 a minute, visible code that is not the learner's own at 10 lines a minute, and each exercise takes
the minutes that stand above it (its stub, hints and check included). Folded cells and hints are not counted; an answer
that is folded below a question is read, and counts. What a lesson says is 80 to 120 % of that, in tens of minutes.
"""

import re

from grader.lessons.cells import EXERCISE_MINUTES, cell_from
from grader.lessons.lesson import Lesson, read_filled

WORDS, LINES = 200, 10  # a minute
FASTER, SLOWER, STEP = 0.8, 1.2, 10
STOP_AFTER = 150  # a lesson that may take longer has a marked place to stop for the day
STOP = "## A place to stop for the day"

_FOLDED = re.compile(r"<details><summary>Hint.*?</details>|<!--.*?-->|!\[.*?\]\(.*?\)", re.DOTALL)


def estimated(lesson: Lesson) -> float:
    """Minutes for one who reads and writes at the rule's pace."""
    words = lines = exercises = 0
    for cell in read_filled(lesson.twin).cells:
        kind = cell_from(cell.cell_type, cell.source, cell.metadata).kind
        if kind == "markdown":
            words += len(_FOLDED.sub(" ", cell.source).split())
            exercises += sum(map(int, EXERCISE_MINUTES.findall(cell.source)))
        elif kind in ("setup", "given", "prediction", "other") and not cell.metadata.get("jupyter", {}).get(
            "source_hidden"
        ):
            lines += sum(1 for line in cell.source.splitlines() if line.strip())
    return words / WORDS + lines / LINES + exercises


def minutes_by_rule(lesson: Lesson) -> tuple[int, int]:
    """From and to, as lesson.toml says it."""
    middle = estimated(lesson)
    return STEP * round(FASTER * middle / STEP), STEP * round(SLOWER * middle / STEP)
