"""Every lesson in a real JupyterLab: it opens as it says, and its first check tells a stub from an answer."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from solved import every_lesson

from conftest import PROJECT, chromium, why_no_browser
from grader.authoring.kit.solved import Solved
from grader.lessons.cells import without_markers

if TYPE_CHECKING or not why_no_browser():
    from jupyterlab_driver import Lab, copy_project, running_browser, running_jupyterlab

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.sampled(0)]


@pytest.fixture(scope="module")  # while a browser is driven no other test may have an event loop
def lab(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Lab]":
    copied = copy_project(PROJECT, tmp_path_factory.mktemp("project"))
    with running_browser(chromium() or "") as browser, running_jupyterlab(copied) as address:
        yield Lab.shown_in(browser, address)


@pytest.mark.parametrize(
    "lesson", [each for each in every_lesson() if hasattr(each.others, "OPENING")], ids=lambda each: each.name
)
def test_a_lesson_opens_with_a_table_of_red_rows(lesson: Solved, lab: "Lab", test_output: Path) -> None:
    """Its unsolved notebook from the top to its first table."""
    opening = lesson.others.OPENING
    notebook = lab.open_notebook(f"{lesson.name}/{lesson.lesson.notebook.name}")
    table = notebook.cell_that_ends_with(opening.cell)
    notebook.run_from_the_top(table)
    report = " ".join(notebook.shown(table).split())
    lab.page.screenshot(path=test_output / f"{lesson.name}-red.png")
    for words in opening.says:
        assert words in report
    for words in (*opening.never, "Traceback"):
        assert words not in report
    wide = lab.page.locator(".grader-report").evaluate_all(
        "all => all.filter(report => report.scrollWidth > report.clientWidth).map(report => report.innerText)"
    )
    assert not wide, "the table's last column is cut off"


@pytest.mark.parametrize("lesson", every_lesson(), ids=lambda each: each.name)
def test_a_lessons_first_exercise_is_told_unwritten_and_then_right(
    lesson: Solved, lab: "Lab", test_output: Path
) -> None:
    notebook = lab.open_notebook(f"{lesson.name}/{lesson.lesson.notebook.name}")
    first, index = next(iter(notebook.cells("check").items()))
    notebook.run_given(index)  # the experiments before it are nbval's
    notebook.run(notebook.cell("exercise", first))
    notebook.run(index)
    assert "not written yet" in notebook.shown(index)
    report = notebook.answer(first, without_markers(lesson.lesson.source_of(first)))
    lab.page.screenshot(path=test_output / f"{lesson.name}.png")
    assert "cases right" in report and "Traceback" not in report
    assert notebook.verdict(index)
