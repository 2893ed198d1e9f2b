"""A lesson's own solutions, as grading uses them: in place of a student's that is wrong, for what builds on it."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from grader.grading.running.plan import Plan
from grader.grading.running.submission import ProgramCell
from grader.grading.sandbox.dependencies import bound_names, used_names
from grader.recordings.recording import Recording


def read_solutions(folder: Path, plan: Plan) -> dict[str, str]:
    """The source of each exercise's solution in a lesson's solved notebook; nothing where there is no such notebook."""
    try:
        notebook = json.loads((folder / f"{plan.name}.ipynb").read_text(encoding="utf-8"))
        found = {cell["metadata"].get("exercise"): cell["source"] for cell in notebook["cells"]}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}
    sources = {name: found[name] for name in plan.exercises if name in found}
    return {name: text if isinstance(text, str) else "".join(text) for name, text in sources.items()}


def builds_on(plan: Plan, solutions: Mapping[str, str], recording: Recording) -> dict[str, frozenset[str]]:
    """For each exercise, the other exercises whose solutions its own uses, directly or through another cell."""
    behind: dict[str, frozenset[str]] = {}  # the exercises behind each name, so far
    found: dict[str, frozenset[str]] = {}
    for step in plan.steps:
        source = solutions.get(step.exercise, step.source)
        used = frozenset[str]().union(*(behind.get(name, frozenset()) for name in used_names(source)))
        if step.exercise in recording.exercises:
            task = recording.task(step.exercise)
            direct = {*task.parts.values(), *task.uses}
            used = used.union(direct, *(found.get(name, frozenset()) for name in direct)) - {step.exercise}
            found[step.exercise] = used
        for name in bound_names(source):
            behind[name] = used | ({step.exercise} if step.exercise else set())
    return found


def uses(cell: ProgramCell, names: Mapping[str, str]) -> set[str]:
    """The exercises whose solutions a student's cell names. names: of the solutions, by exercise."""
    return {e for e, name in names.items() if e != cell.exercise and re.search(rf"\b{re.escape(name)}\b", cell.source)}


def with_solutions(plan: Plan, cells: Sequence[ProgramCell], sources: Mapping[str, str]) -> tuple[ProgramCell, ...]:
    """A submission's cells, in which a solution of the lesson's follows each of the student's that it replaces."""
    own = {cell.exercise: cell for cell in cells if cell.exercise}
    found = []
    for step in plan.steps:
        if not step.exercise:
            found.append(ProgramCell("", step.grade_id, step.source))
        if step.exercise in own:
            found.append(own[step.exercise])
        if step.exercise in sources:
            found.append(ProgramCell("", f"solution of {step.exercise}", sources[step.exercise]))
    return tuple(found)
