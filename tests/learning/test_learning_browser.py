"""A learner's JupyterLab in a real browser: quiet, with links, and a page that says where they are."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest

from conftest import PROJECT, chromium, why_no_browser
from grader.learning.home import start_home
from grader.learning.status import PAGE
from grader.lessons.cells import without_markers

if TYPE_CHECKING or not why_no_browser():
    from jupyterlab_driver import Lab, running_browser, running_jupyterlab

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NOTEBOOK = "00-orientation/orientation.ipynb"
FIRST = "orientation.linear"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return start_home(tmp_path_factory.mktemp("learner") / "lessons", "1").folder


@pytest.fixture(scope="module")
def lab(folder: Path) -> "Iterator[Lab]":
    with running_jupyterlab(folder) as address, running_browser(chromium() or "") as browser:
        lab = Lab.shown_in(browser, address)
        lab.page.set_viewport_size({"width": 1280, "height": 720})
        lab.open()
        yield lab


def show_page(lab: "Lab", says: str) -> None:
    """Bring the page's tab to the front, and wait until it says that."""
    lab.run_command("docmanager:open", path=PAGE, factory="Markdown Preview")
    lab.page.locator(".jp-MarkdownViewer:visible", has_text=says).wait_for()


def test_it_opens_at_the_syllabus_without_an_instructors_menus_and_panes(lab: "Lab", test_output: Path) -> None:
    lab.page.locator(".jp-MarkdownViewer h1").first.wait_for()
    lab.page.screenshot(path=test_output / "learner-start.png")
    menus = lab.page.locator(".lm-MenuBar-itemLabel").all_inner_texts()
    assert "File" in menus and not [menu for menu in menus if "grader" in menu.lower()]
    titles = lab.page.locator(".jp-SideBar .lm-TabBar-tab").evaluate_all("tabs => tabs.map(tab => tab.title)")
    assert titles and not [title for title in titles if "Debugger" in title or "Extension" in title]


def test_the_theme_follows_the_system(lab: "Lab") -> None:
    lab.page.emulate_media(color_scheme="dark")
    lab.page.wait_for_function("document.body.dataset.jpThemeLight == 'false'")
    lab.page.emulate_media(color_scheme="light")
    lab.page.wait_for_function("document.body.dataset.jpThemeLight == 'true'")


def test_a_theme_that_is_chosen_is_taken_whatever_the_system_has(lab: "Lab") -> None:
    """JupyterLab alone would stop following the system, and stay as it was until the theme is chosen once more."""
    lab.run_command("apputils:change-theme", theme="JupyterLab Dark")
    lab.page.wait_for_function("document.body.dataset.jpThemeLight == 'false'")
    lab.run_command("apputils:change-theme", theme="JupyterLab Light")
    lab.page.wait_for_function("document.body.dataset.jpThemeLight == 'true'")


def test_the_page_says_where_i_am_and_is_read_again_when_its_tab_comes_to_the_front(
    lab: "Lab", test_output: Path
) -> None:
    notebook = lab.open_notebook(NOTEBOOK)
    show_page(lab, "0 of 2")
    lab.run_command("docmanager:open", path=NOTEBOOK)
    worked = nbformat.read(PROJECT / "solutions" / NOTEBOOK, as_version=4)
    solution = next(cell.source for cell in worked.cells if cell.metadata.get("exercise") == FIRST)
    check = notebook.cell("check", FIRST)
    notebook.write(notebook.cell("exercise", FIRST), without_markers(solution))
    notebook.run_from_the_top(check)
    show_page(lab, "1 of 2")
    lab.page.screenshot(path=test_output / "learner-where-am-i.png")
    lab.page.locator(".jp-MarkdownViewer:visible a", has_text="Exercise 2").click()
    lab.page.wait_for_function(
        f"document.title.includes('{Path(NOTEBOOK).name}') || location.href.includes('{NOTEBOOK}')"
    )


def test_a_check_that_is_run_first_of_all_says_which_cell_comes_before(lab: "Lab", test_output: Path) -> None:
    notebook = lab.open_notebook("01-gpt2/gpt2.ipynb")
    check = notebook.cell("check", "gpt2.mlp")
    notebook.run(check)
    shown = notebook.shown(check)
    lab.page.screenshot(path=test_output / "learner-undefined.png")
    assert "`check` comes from the lesson's first code cell" in shown


def test_a_double_click_does_not_open_every_hint(lab: "Lab", test_output: Path) -> None:
    notebook = lab.open_notebook(NOTEBOOK)
    index = notebook._evaluate("return cells.findIndex(c => c.sharedModel.source.includes('<details'))")
    panel = notebook._evaluate("await panel.content.scrollToItem(argument, 'start'); return panel.id", index)
    cell = lab.page.locator(f"[id='{panel}'] .jp-Cell[data-windowed-list-index='{index}']")
    cell.locator(".jp-MarkdownOutput").dblclick()
    lab.page.wait_for_timeout(500)
    lab.page.screenshot(path=test_output / "learner-hint.png")
    assert "jp-mod-rendered" in (cell.get_attribute("class") or "")
    assert "<details" not in cell.inner_text()


def test_the_terminal_says_where_it_is_and_nothing_that_a_learner_can_not_use(lab: "Lab", folder: Path) -> None:
    lab.open_notebook(NOTEBOOK)
    (log,) = folder.glob(".home-*/jupyterlab.log")
    said = log.read_text("utf-8")
    assert said.count("JupyterLab: http") == 1
    assert not [line for line in said.splitlines() if "trusted" in line or "websocket" in line]
