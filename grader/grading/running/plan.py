"""What a lesson's released notebook says about grading: which cells run, which are the student's, what they earn."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grader.digest import digest
from grader.errors import GraderError
from grader.lessons.cells import cell_from
from grader.lessons.notebooks import read_notebook, released_hash


@dataclass(frozen=True)
class PlanStep:
    """A cell that runs when a submission is graded.

    grade_id: what nbgrader calls it. exercise: whose solution it is, or empty for one of the instructor's. source:
    the instructor's; for a solution the stub, which is not run.
    """

    grade_id: str
    exercise: str
    source: str


@dataclass(frozen=True)
class CheckCell:
    """A cell that earns points. It is never executed."""

    grade_id: str
    exercise: str
    points: float


@dataclass(frozen=True)
class Plan:
    """A lesson as it is graded. notebook: the released one, as JSON. digest: of everything in it that counts."""

    lesson: str
    name: str
    steps: tuple[PlanStep, ...]
    checks: tuple[CheckCell, ...]
    solutions: tuple[str, ...]
    notebook: str
    digest: str

    @property
    def exercises(self) -> tuple[str, ...]:
        """The exercises that earn points, in the notebook's order."""
        return tuple(check.exercise for check in self.checks)


def read_plan(released: Path) -> Plan:
    """The plan in a lesson's released folder. Raises GraderError where there is no notebook, or one worked in."""
    notebooks = sorted(released.glob("*.ipynb"))
    if len(notebooks) != 1:
        raise GraderError(f"{released} must hold one notebook, and holds {len(notebooks)}. Run: grader build")
    notebook = read_notebook(notebooks[0])
    hashed = notebook.metadata.get("grader", {}).get("released")
    if hashed is not None and hashed != released_hash(notebook):
        raise GraderError(
            f"{notebooks[0]} has been worked in since it was released. Grading takes the instructor's cells from it:"
            f" build it again with `grader build {released.name} --force`."
        )
    return plan_of(notebook, released.name, notebooks[0].stem)


def plan_of(notebook: dict[str, Any], lesson: str, name: str) -> Plan:
    """The plan in a released notebook."""
    steps, checks, solutions = [], [], []
    for cell in notebook["cells"]:
        marked = cell["metadata"].get("nbgrader", {})
        role = cell_from(cell["cell_type"], cell["source"], cell["metadata"])
        if marked.get("solution"):
            solutions.append(marked["grade_id"])
        if role.kind in ("setup", "given", "exercise"):
            exercise = role.name if role.kind == "exercise" else ""
            steps.append(PlanStep(marked.get("grade_id", ""), exercise, cell["source"]))
        elif role.kind == "check" and marked.get("grade"):
            checks.append(CheckCell(marked["grade_id"], role.name, float(marked["points"])))
    if not checks:
        raise GraderError(f"{name}.ipynb of {lesson} has no cell that earns points. Run: grader build {lesson}")
    text = json.dumps(notebook, sort_keys=True)
    return Plan(lesson, name, tuple(steps), tuple(checks), tuple(solutions), text, digest(text))
