"""What a submission loses that leaves out one exercise, or breaks it: the table in docs/points-lost.md.

python scripts/points_lost.py            # writes the table; a few minutes
python scripts/points_lost.py 07-moe     # writes that lesson's rows, and leaves the others
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from grader.grading.running.bundle import Bundle, pack_bundle
from grader.grading.running.submission import parse
from grader.grading.running.worker import close_jails, grade_one
from grader.lessons.lesson import Lesson, lessons

PROJECT = Path(__file__).resolve().parent.parent
PAGE = PROJECT / "docs" / "points-lost.md"
HEAD = """# What one missing exercise costs

Each row is a submission in which all exercises are right but one: its cell is as released, deleted, or holds a syntax
error. The last three columns are the points that the submission loses. None is more than the exercise is worth.
Written by `python scripts/points_lost.py`.

| lesson | exercise | worth | as released | deleted | syntax error |
|---|---|---|---|---|---|
"""
Change = Callable[[list[dict[str, Any]], int], None]


def _deleted(cells: list[dict[str, Any]], at: int) -> None:
    del cells[at]


def _broken(cells: list[dict[str, Any]], at: int) -> None:
    cells[at]["source"] += "\n)"


WAYS: dict[str, Change] = {"as released": lambda cells, at: None, "deleted": _deleted, "syntax error": _broken}


def bundle_of(lesson: Lesson) -> Bundle:
    return pack_bundle(PROJECT / "course" / lesson.name, None, solved=lesson.folder)


def lost(bundle: Bundle, exercise: str, way: str) -> float:
    """The points that a right submission loses with one exercise left out in that way."""
    notebook = json.loads(bundle.plan.notebook)
    cells = notebook["cells"]
    for cell in cells:
        name = cell["metadata"].get("exercise")
        if name and (name != exercise or way == "syntax error"):
            cell["source"] = bundle.solutions[name]
    WAYS[way](cells, next(i for i, cell in enumerate(cells) if cell["metadata"].get("exercise") == exercise))
    result = grade_one(bundle, parse(json.dumps(notebook).encode(), bundle.plan))
    return round(result.max_points - result.points, 2)


def rows(lesson: Lesson) -> list[str]:
    """The table's rows of one lesson."""
    bundle = bundle_of(lesson)
    found = []
    for check in bundle.plan.checks:
        each = " | ".join(f"{lost(bundle, check.exercise, way):g}" for way in WAYS)
        found.append(f"| {lesson.name} | {check.exercise} | {check.points:g} | {each} |")
    close_jails()
    return found


def main(only: list[str]) -> None:
    """Write the page. only: the lessons whose rows are made anew; all if there are none."""
    before = PAGE.read_text().splitlines() if only else []
    found: list[str] = []
    for lesson in lessons(PROJECT):
        kept = [line for line in before if line.startswith(f"| {lesson.name} |")]
        found += kept if only and lesson.name not in only else rows(lesson)
    PAGE.write_text(HEAD + "\n".join(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
