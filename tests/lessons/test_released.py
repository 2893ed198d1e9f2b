"""A lesson as it is built and released: up to date, without solutions, and its checks tell stubs from answers."""

import contextlib
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

from conftest import PROJECT
from grader.authoring.stale import check_build
from grader.errors import CheckFailed
from grader.lessons.cells import BEGIN_SOLUTION, END_SOLUTION, RUN_BY_EVERY_EXERCISE, cell_from
from grader.lessons.lesson import Lesson, lessons
from grader.lessons.results import check_results as results

BUILT = lessons(PROJECT)
every_lesson = pytest.mark.parametrize("lesson", BUILT, ids=lambda lesson: lesson.name)


def released_folder(lesson: Lesson) -> Path:
    return PROJECT / "course" / lesson.name


def solution_lines(sources: Iterable[str]) -> set[str]:
    """The lines between the solution markers that are long enough to be nobody's by chance."""
    inside, lines = False, set()
    for line in (line.strip() for source in sources for line in source.splitlines()):
        if line in (BEGIN_SOLUTION, END_SOLUTION):
            inside = line == BEGIN_SOLUTION
        elif inside and len(line) >= 25:
            lines.add(line)
    return lines


# Lines of a solution that a cell of the text shows too: to start from, or in an experiment that walks the same way.
SHOWN = {
    "11-new-models": {
        "for layer, kind in zip(self.layers, layer_types(config), strict=True):",
        "k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))  # [B, H, T, width]",
    },
    "12-training": {
        "for left, right in merges:",
        "losses.append(loss.item())",
        "tokens.append(tokens[left] + tokens[right])",
        "tokens = [bytes([byte]) for byte in BYTES]",
    },
    "16-serving": {"self.scheduler.remove(request)"},
}


def run_checks(
    lesson: Lesson, answers: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> tuple[dict[str, bool], dict[str, str]]:
    """Which checks of the released notebook fail with these answers in it, and the report of each."""
    module = ModuleType("released_lesson")
    sys.modules[module.__name__] = module  # where dataclasses look their own module up
    failed, reports = {}, {}
    with contextlib.chdir(released_folder(lesson)):
        for loaded in nbformat.read(lesson.notebook.name, as_version=4).cells:
            cell = cell_from(loaded.cell_type, loaded.source, loaded.metadata)
            if cell.kind not in (*RUN_BY_EVERY_EXERCISE, "check"):
                continue
            source = answers.get(cell.name, cell.source) if cell.kind == "exercise" else cell.source
            capsys.readouterr()
            try:
                exec(compile(source, f"<{cell.title}>", "exec", dont_inherit=True), module.__dict__)
            except CheckFailed:
                failed[cell.name] = True
            if cell.kind == "check":
                reports[cell.name] = capsys.readouterr().out
    return failed, reports


@pytest.mark.sampled(1)
@every_lesson
def test_what_is_built_is_up_to_date(lesson: Lesson) -> None:
    assert check_build([lesson], record_again=False) == []


@pytest.mark.sampled(0)
@every_lesson
def test_the_reference_still_gives_what_is_recorded(lesson: Lesson) -> None:
    assert check_build([lesson]) == []


@pytest.mark.sampled(1)
@every_lesson
def test_a_released_lesson_holds_no_solution(lesson: Lesson) -> None:
    folder = released_folder(lesson)
    answers = solution_lines(cell.source for cell in lesson.cells() if cell.kind == "exercise")
    # What an earlier lesson built is given here, and a solution may change one line of it.
    answers -= {line.strip() for c in lesson.cells() if c.kind == "given" for line in c.source.splitlines()}
    # Nor is it a secret where the text shows it, to start from.
    for earlier in (other for other in BUILT if other.name < lesson.name):
        answers -= solution_lines(cell.source for cell in earlier.cells() if cell.kind == "exercise")
    answers -= SHOWN.get(lesson.name, set())
    assert answers
    notebook = nbformat.read(folder / lesson.notebook.name, as_version=4)
    shown = {line.strip() for cell in notebook.cells for line in cell.source.splitlines()}
    assert not answers & shown
    assert not [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]
    assert not list(folder.rglob("*.py"))


@pytest.mark.sampled(1)
@every_lesson
def test_a_released_lesson_is_the_solved_one_with_stubs(lesson: Lesson) -> None:
    """So what nbval shows of every solved notebook holds for the released one once the right answers are in it."""
    folder = released_folder(lesson)
    solved = nbformat.read(lesson.notebook, as_version=4).cells
    released = nbformat.read(folder / lesson.notebook.name, as_version=4).cells
    assert [cell.cell_type for cell in released] == [cell.cell_type for cell in solved]
    for stub, answer in zip(released, solved, strict=True):
        assert (stub.source == answer.source) == ("exercise" not in answer.metadata)
        assert stub.metadata.get("exercise") == answer.metadata.get("exercise")
    for path in (path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder)
        assert name.name == lesson.notebook.name or path.read_bytes() == (lesson.folder / name).read_bytes(), name


@pytest.mark.sampled(1)
@every_lesson
def test_the_stored_outputs_of_a_solved_lesson_pass_every_check(lesson: Lesson) -> None:
    stored = results(nbformat.read(lesson.notebook, as_version=4))
    assert [result.exercise for result in stored] == checks_of(lesson)
    assert all(result.passed for result in stored)


@every_lesson
def test_every_check_of_a_released_lesson_fails_on_its_stub_and_passes_on_the_solution(
    lesson: Lesson, capsys: pytest.CaptureFixture[str]
) -> None:
    """The cells that exercises rely on, run in this process from the released notebook, in the released folder."""
    solutions = {cell.name: cell.source for cell in lesson.cells() if cell.kind == "exercise"}
    for answers, word in (({}, "not written yet"), (solutions, "cases right")):
        failed, reports = run_checks(lesson, answers, capsys)
        assert failed == ({} if answers else dict.fromkeys(checks_of(lesson), True))
        for name, report in reports.items():
            assert report[2:].startswith(f"{name} · ") and word in report and "Traceback" not in report, report


def checks_of(lesson: Lesson) -> list[str]:
    return [cell.name for cell in lesson.cells() if cell.kind == "check"]
