"""How much code a learner sees at once: what is not the lesson stands in `grader.instruments`, or is folded."""

import ast
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from grader.authoring.assemble import AUTHORS
from grader.lessons.cells import BEGIN_SOLUTION, END_SOLUTION, cell_from
from grader.lessons.lesson import Lesson
from grader.lessons.twin import read_twin

pytestmark = pytest.mark.sampled(1)

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted(path.parent for path in (ROOT / "solutions").glob("*/lesson.toml"))
MOST_LINES = 15  # of a visible cell that is no exercise
MOST_IN_THE_MIDDLE = 7  # of the median cell, blank lines aside
HARNESS = (  # what instruments are for
    "perf_counter",
    "timeit",
    "TorchDispatchMode",
    "FlopCounterMode",
    "register_forward",
    "unittest.mock",
    "disable_progress_bar",
)
every_lesson = pytest.mark.parametrize("folder", LESSONS, ids=lambda folder: folder.name)


def code_cells(folder: Path) -> list[Any]:
    return [cell for cell in read_twin(Lesson(folder).twin).cells if cell.cell_type == "code"]


def kind(cell: Any) -> str:
    return cell_from(cell.cell_type, cell.source, cell.metadata).kind


def folded(cell: Any) -> bool:
    return bool(cell.metadata.get("jupyter", {}).get("source_hidden"))


def visible(folder: Path) -> list[Any]:
    """The cells whose code is seen and that are not the learner's own."""
    return [cell for cell in code_cells(folder) if kind(cell) in ("setup", "given", "other") and not folded(cell)]


def test_there_are_lessons() -> None:
    assert len(LESSONS) >= 7


@every_lesson
def test_a_visible_cell_has_at_most_15_lines_or_says_why_it_has_more(folder: Path) -> None:
    for cell in visible(folder):
        lines, why = len(cell.source.splitlines()), cell.metadata.get("long", "")
        assert lines <= MOST_LINES or why, f"{cell.id} has {lines} lines. Move what is not the lesson to instruments."
        assert lines > MOST_LINES or not why, f"{cell.id} is short: it needs no reason."
        assert not why or len(why.split()) >= 3, f"{cell.id}: {why!r} is no reason."


@every_lesson
def test_half_of_the_visible_cells_have_at_most_7_lines_of_code(folder: Path) -> None:
    lengths = [len([line for line in cell.source.splitlines() if line.strip()]) for cell in visible(folder)]
    assert statistics.median(lengths) <= MOST_IN_THE_MIDDLE


def stub_of(source: str) -> str:
    """An exercise without what stands between the solution's marks."""
    return re.sub(f"{BEGIN_SOLUTION}.*?{END_SOLUTION}", "", source, flags=re.DOTALL)


def written_in(source: str) -> set[str]:
    """The attributes of `self` that a cell assigns to."""
    targets = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute))
    return {n.attr for n in targets if isinstance(n.ctx, ast.Store) and getattr(n.value, "id", "") == "self"}


@every_lesson
def test_no_cell_reads_an_attribute_that_only_the_solution_has(folder: Path) -> None:
    """A learner's class has the names that the stub gives, and others of its own."""
    cells = code_cells(folder)
    own: set[str] = set()
    for cell in cells:
        if kind(cell) == "exercise":
            own |= written_in(cell.source) - set(re.findall(r"\w+", stub_of(cell.source)))
    for cell in cells:
        if kind(cell) != "other":
            continue
        private = own - written_in(cell.source)
        read = {node.attr for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Attribute)}
        assert not read & private, f"{cell.id} reads {sorted(read & private)}, which a learner may call otherwise."


@every_lesson
def test_given_cells_are_folded(folder: Path) -> None:
    assert all(folded(cell) for cell in code_cells(folder) if kind(cell) == "given")


@every_lesson
def test_clocks_counters_and_hooks_are_not_written_in_a_lesson(folder: Path) -> None:
    found = [(cell.id, word) for cell in code_cells(folder) for word in HARNESS if word in cell.source]
    assert not found


@every_lesson
def test_no_visible_cell_draws_with_matplotlib(folder: Path) -> None:
    assert not [cell.id for cell in visible(folder) if "plt." in cell.source or "matplotlib" in cell.source]


def test_the_reason_of_a_long_cell_survives_a_build() -> None:
    assert "long" in AUTHORS
