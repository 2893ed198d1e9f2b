"""The course as a person meets it: JupyterLab in a browser. Screenshots are left in test-output/."""

import io
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from conftest import PROJECT, chromium, why_no_browser
from grader.lessons.cells import without_markers
from grader.lessons.exercise import Mistake
from grader.lessons.lesson import Lesson

if TYPE_CHECKING or not why_no_browser():
    from jupyterlab_driver import Lab, OpenNotebook, copy_project, running_browser, running_jupyterlab
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NOTEBOOK = "00-orientation/orientation.ipynb"  # the smallest lesson; nbval runs every lesson whole
FIRST_EXERCISE = "orientation.linear"
REPORT = "report"  # the field of a PNG that holds its reports as text
LINES = 105  # pixels of a solution that are shown above its check


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(PROJECT, tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    with running_browser(chromium() or "") as started:
        yield started


@pytest.fixture(scope="module")
def lab(copied: Path, browser: "Browser") -> "Iterator[Lab]":
    with running_jupyterlab(copied) as address:
        yield Lab.shown_in(browser, address)


@pytest.fixture(scope="module")
def instructors_lab(copied: Path, browser: "Browser") -> "Iterator[Lab]":
    with running_jupyterlab(copied, "--instructor") as address:
        lab = Lab.shown_in(browser, address)
        lab.open()  # logs in
        yield lab


@pytest.fixture(scope="module")
def notebook(lab: "Lab") -> "OpenNotebook":
    return lab.open_notebook(NOTEBOOK)


@pytest.fixture(scope="module")
def solutions() -> dict[str, str]:
    """Exercise -> its solution, as the worked notebook has it."""
    worked = nbformat.read(PROJECT / "solutions" / NOTEBOOK, as_version=4)
    return {
        cell.metadata["exercise"]: without_markers(cell.source) for cell in worked.cells if "exercise" in cell.metadata
    }


def test_the_syllabus_opens_rendered(lab: "Lab", test_output: Path) -> None:
    lab.open()
    heading = lab.page.locator(".jp-MarkdownViewer h1")
    heading.wait_for()
    lab.page.screenshot(path=test_output / "syllabus.png")
    assert heading.first.inner_text().startswith("From Scratch to Scale")
    assert lab.page.locator(".jp-MarkdownViewer a[href*='gpt2.ipynb']").count() > 0


def test_a_stub_is_told_that_it_is_not_written_yet(notebook: "OpenNotebook", test_output: Path) -> None:
    check = notebook.cell("check", FIRST_EXERCISE)
    notebook.run_from_the_top(check)
    report = notebook.shown(check)
    notebook.lab.page.screenshot(path=test_output / "stub.png")
    assert "not written yet" in report


def test_a_wrong_solution_is_shown_the_mistake_and_its_hint(
    notebook: "OpenNotebook", solutions: dict[str, str], test_output: Path
) -> None:
    mistake = first_mistake()
    report = notebook.answer(FIRST_EXERCISE, with_first_mistake(solutions))
    notebook.lab.page.screenshot(path=test_output / "wrong.png")
    assert mistake.name in report
    assert mistake.hint.replace("`", "") in report
    assert "Traceback" not in report


def test_the_right_solution_passes(notebook: "OpenNotebook", solutions: dict[str, str], test_output: Path) -> None:
    report = notebook.answer(FIRST_EXERCISE, solutions[FIRST_EXERCISE])
    notebook.lab.page.screenshot(path=test_output / "right.png")
    assert "cases right" in report
    assert "raise" not in report


def test_the_whole_lesson_runs_once_every_stub_is_filled(
    notebook: "OpenNotebook", solutions: dict[str, str], test_output: Path
) -> None:
    for exercise, index in notebook.cells("exercise").items():
        notebook.write(index, solutions[exercise])
    notebook.run_all()
    verdicts = {exercise: notebook.verdict(index) for exercise, index in notebook.cells("check").items()}
    notebook.lab.page.screenshot(path=test_output / "finished.png")
    assert verdicts == dict.fromkeys(solutions, True)


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_a_report_can_be_read_in_either_theme(
    theme: str, notebook: "OpenNotebook", solutions: dict[str, str], test_output: Path
) -> None:
    page = notebook.lab.page
    page.emulate_media(color_scheme="light" if "Light" in theme else "dark")  # the theme follows the system
    page.wait_for_function("light => document.body.dataset.jpThemeLight == light", arg=str("Light" in theme).lower())
    for name, source in {"wrong": with_first_mistake(solutions), "right": solutions[FIRST_EXERCISE]}.items():
        notebook.answer(FIRST_EXERCISE, source)
        page.screenshot(path=test_output / f"{theme.split()[1].lower()}-{name}.png")
        background = page.evaluate(
            "getComputedStyle([...document.querySelectorAll('.grader-report')].at(-1)).backgroundColor"
        )
        colours = page.locator(".grader-report :is(div, td, th)").evaluate_all(
            "lines => lines.map(line => [line.innerText, getComputedStyle(line).color])"
        )
        too_faint = {text: colour for text, colour in colours if contrast(colour, background) < 4.5}
        assert not too_faint, f"on {background}"


def test_the_picture_in_the_readme_shows_what_a_check_says_today(lab: "Lab", test_output: Path) -> None:
    """A known mistake, then the right solution. The picture holds its reports as text, to be compared by."""
    lesson, exercise = Lesson(PROJECT / "solutions" / "01-gpt2"), "gpt2.layer_norm"
    right = without_markers(lesson.source_of(exercise))
    notebook = lab.open_notebook(f"{lesson.name}/{lesson.notebook.name}")
    solution, check = notebook.cell("exercise", exercise), notebook.cell("check", exercise)
    notebook.run_given(check)
    pictures, reports = [], []
    for source in (right.replace("correction=0", "correction=1"), right):
        reports.append(notebook.answer(exercise, source))
        pictures += [notebook.picture(solution), notebook.picture(check)]
    assert "the variance is divided by D - 1" in reports[0] and "cases right" in reports[1]
    written = test_output / "check.png"
    words = [re.sub(r"[-\d.,]+", "#", report) for report in reports]  # a number's last digit is the processor's
    stacked(pictures, "\n".join(words), written)
    shown, now = (Image.open(path).info.get(REPORT) for path in (PROJECT / "docs" / "check.png", written))
    assert shown == now, f"the reports say something else now: cp {written} docs/check.png"


def test_the_formgrader_shows_every_lesson(instructors_lab: "Lab", test_output: Path) -> None:
    instructors_lab.run_command("nbgrader:open-formgrader-local")
    page = instructors_lab.page
    for folder in sorted((PROJECT / "course").glob("*/")):
        page.frame_locator("iframe").get_by_text(folder.name, exact=True).first.wait_for()
    page.screenshot(path=test_output / "formgrader.png")


def test_the_formgraders_button_grades_in_the_jail(instructors_lab: "Lab", copied: Path, test_output: Path) -> None:
    lesson = "00-orientation"
    shutil.copytree(copied / "course" / lesson, copied / "submitted" / "ada" / lesson)
    page = instructors_lab.page
    page.goto(f"{instructors_lab.address}/formgrader/manage_submissions/{lesson}")
    page.locator("tr", has_text="ada").locator(".autograde a").click()
    page.get_by_text("Successfully autograded").wait_for()
    page.screenshot(path=test_output / "formgrader-autograded.png")
    graded = (copied / "journal" / f"{lesson}.jsonl").read_text().splitlines()
    assert [json.loads(line)["entry"] for line in graded] == ["graded", "stored"]


def first_mistake() -> Mistake:
    """The first mistake that the first exercise knows by name."""
    exercises, _ = Lesson((PROJECT / "solutions" / NOTEBOOK).parent).exercises()
    return next(exercise for exercise in exercises if exercise.name == FIRST_EXERCISE).mistakes[0]


def with_first_mistake(solutions: dict[str, str]) -> str:
    """The first exercise's solution with that mistake in it."""
    mistake = first_mistake()
    return solutions[FIRST_EXERCISE].replace(mistake.find, mistake.replace)


def stacked(pictures: Sequence[bytes], report: str, path: Path) -> None:
    """Write pictures of cells as one, of each solution its last lines alone, with the reports as text in it."""
    images = [Image.open(io.BytesIO(each)).convert("RGB") for each in pictures]
    images = [each if i % 2 else each.crop((0, each.height - LINES, *each.size)) for i, each in enumerate(images)]
    whole = Image.new("RGB", (max(each.width for each in images), sum(each.height for each in images)), "white")
    top = 0
    for each in images:
        whole.paste(each, (0, top))
        top += each.height
    told = PngInfo()
    told.add_itxt(REPORT, report)
    whole.save(path, pnginfo=told, optimize=True)


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two CSS colours, rgb(r, g, b) (WCAG 2.1, success criterion 1.4.3)."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    """The relative luminance of a CSS colour, rgb(r, g, b)."""
    channels = [int(part) / 255 for part in colour.strip("rgba()").split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_slider_of_the_calculator_moves_with_the_keyboard_and_the_numbers_follow(
    lab: "Lab", copied: Path, test_output: Path
) -> None:
    cells = [nbformat.v4.new_code_cell("from grader.kv import kv_panel\n\nkv_panel('Qwen3 8B', context=32_768)")]
    metadata = nbformat.read(PROJECT / "course" / NOTEBOOK, as_version=4).metadata  # names the kernel
    page = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    nbformat.write(page, copied / "work" / "calculator.ipynb")
    lab.open_notebook("calculator.ipynb").run(0)
    rows = lab.page.locator(".jp-OutputArea tr")
    gqa = rows.filter(has=lab.page.get_by_role("cell", name="GQA", exact=True))
    gqa.wait_for()
    assert gqa.locator("td").all_inner_texts() == ["GQA", "144 KiB", "4.83 GB", "75.0%"]
    lab.page.locator(".widget-hslider", has_text="KV heads (GQA)").locator(".noUi-handle").press("ArrowLeft")
    gqa.get_by_text("126 KiB").wait_for()
    lab.page.screenshot(path=test_output / "calculator.png")
    assert gqa.locator("td").all_inner_texts() == ["GQA", "126 KiB", "4.23 GB", "78.1%"]
    assert rows.filter(has_text="as its config says").get_by_text("144 KiB").count() == 1
    pasted = lab.page.locator(".jp-OutputArea textarea")
    pasted.fill('{"model_type": "t5", "is_encoder_decoder": true}')
    pasted.press("Tab")
    lab.page.locator(".jp-OutputArea").get_by_text("is an encoder and a decoder").wait_for()
    assert rows.count() and lab.page.locator(".jp-OutputArea img").count() == 1  # what was shown before stays
    pasted.fill(
        '{"model_type": "gemma3_text", "num_hidden_layers": 48, "num_attention_heads": 16, "num_key_value_heads": 8}'
    )
    pasted.press("Tab")
    rows.filter(has_text="what the pasted config says").get_by_text("384 KiB").wait_for()  # 16 heads of 256
    pasted.fill("")
    model = lab.page.locator(".jp-OutputArea input[list]")
    model.press_sequentially("Gemma 3 27B")  # letters that JupyterLab would take for commands on a <select>
    model.press("Enter")
    rows.filter(has_text="Gemma 3 27B, as its config says").get_by_text("496 KiB").wait_for()
    assert lab.page.locator(".jp-Cell:visible").count() == 1  # other notebooks are open behind it
