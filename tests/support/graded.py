"""What a graded class earned: in memory, in nbgrader's export, and in the journal."""

import csv
import json
from pathlib import Path

from attack_course import LESSON
from nbgrader.api import Gradebook
from nbgrader.plugins.export import CsvExportPlugin

from grader.grading.classroom.engine import Graded


def points(graded: list[Graded]) -> dict[str, float]:
    return {g.student: g.result.points for g in graded if g.result}


def scores(root: Path) -> dict[str, float]:
    """What nbgrader exports."""
    with gradebook(root) as book:
        CsvExportPlugin(to=str(root / "grades.csv")).export(book)
    with (root / "grades.csv").open() as file:
        return {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}


def journal(root: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (root / "journal" / f"{LESSON}.jsonl").read_text().splitlines()]


def gradebook(root: Path) -> Gradebook:
    return Gradebook(f"sqlite:///{root}/gradebook.db")
