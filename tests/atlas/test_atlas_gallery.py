"""The gallery as people use it: from its folder, offline, in Chromium."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from figure_measure import MEASURE
from jupyterlab_driver import CHROMIUM_FLAGS
from playwright.sync_api import Browser, Page, expect, sync_playwright

from conftest import chromium, why_no_browser
from grader.atlas import caches, gallery_models
from grader.atlas.cache import at
from grader.atlas.drawing import parts
from grader.atlas.site import Taught, cache_groups, write_site

TEACHING = {"03-qwen3": Taught("Qwen3", ["rope", "qk_norm"], "port Llama to Qwen3")}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("gallery")
    assert write_site(to, TEACHING) == len(gallery_models())
    return to


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if why := why_no_browser():
        pytest.skip(why)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_FLAGS)
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser, site: Path) -> Iterator[Page]:
    opened = browser.new_context(viewport={"width": 390, "height": 800}, offline=True).new_page()
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.goto(site.joinpath("index.html").as_uri())
    yield opened
    assert problems == []
    opened.context.close()


def test_filter_sort_and_the_slider_work(page: Page) -> None:
    assert page.locator(".card").count() == len(gallery_models())
    page.fill("#find", "deepseek")
    assert 0 < page.locator(".card").count() < 12
    page.select_option("#attention", "sparse")
    assert page.locator(".card h3").all_inner_texts() == ["DeepSeek V3.2"]
    assert "compressed: DeepSeek V4 Flash, 2026-04-24" in page.locator(".firsts").text_content()
    before = page.locator(".numbers").inner_text()
    page.locator("#context").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#tokens").inner_text() == "262,144 tokens"
    assert page.locator(".numbers").inner_text() != before


def test_two_models_are_compared(page: Page) -> None:
    page.select_option("#left", "gpt-2-xl")
    page.select_option("#right", "qwen3-4b")
    told = page.locator("#compared").inner_text()
    assert "≠ attention" in told and "= decoder" in told and "300 KiB" in told
    page.locator("#compared figcaption", has_text="Orange: not as in GPT-2 XL").wait_for()
    figures = page.locator("#compared figure svg")
    assert figures.count() == 6 and figures.nth(1).locator(".ring").count() >= 6
    page.select_option("#left", "deepseek-r1")
    page.select_option("#right", "deepseek-v3")
    page.locator("#compared figcaption", has_text="As in DeepSeek R1").wait_for()
    assert page.locator("#compared .ring").count() == 0


ROWS = """which => [...document.querySelectorAll('.pairs figure')[which].querySelectorAll('rect:not(.ring)')]
  .map(shape => ['y', 'height'].map(name => Number(shape.getAttribute(name))))"""
BOXES = re.compile(r'<rect class="(?!ring)[^>]* y="([\d.]+)"[^>]* height="([\d.]+)"')


def compared(page: Page, left: str, right: str) -> None:
    page.select_option("#left", "")  # so that what is waited for is new
    page.select_option("#right", right)
    page.select_option("#left", left)
    page.locator("#compared figcaption").nth(1).wait_for()


def test_the_rows_of_two_models_stand_where_the_command_sets_them(page: Page) -> None:
    """A norm more, a taller box, attention beside the MLP, one part a layer: each box is where `diff --to` has it."""
    page.set_viewport_size({"width": 1280, "height": 900})
    for pair in (
        ("gpt-2-xl", "qwen3-8b"),
        ("gpt-2-xl", "gemma-2-9b"),
        ("qwen3-next-80b-a3b", "gpt-2-xl"),
        ("falcon-7b", "llama-3-8b"),
        ("gpt-j-6b", "gemma-2-9b"),
        ("nemotron-3-nano-30b-a3b", "qwen3-8b"),
    ):
        compared(page, *pair)
        left, right = (gallery_models()[slug].architecture for slug in pair)
        assert left and right
        for which, (one, other) in enumerate([(left, right), (right, left)]):
            want = [[float(n) for n in found] for found in BOXES.findall(parts(one, other)[0].svg)]
            got = page.evaluate(ROWS, which)
            assert len(got) == len(want) > 6
            assert [y for box in got for y in box] == pytest.approx([y for box in want for y in box], abs=0.3)


APART = """all => Object.entries(all).flatMap(([one, a]) => Object.entries(all).flatMap(([two, b]) => {
  const [left, right] = [shifts(a, b), shifts(b, a)];
  return ROWS.filter(row => a[row] && b[row]).filter(row => [0, 1].some(edge =>
    Math.abs(moved(a[row][edge], left) - moved(b[row][edge], right)) > 0.1)).map(row => `${one}, ${two}: ${row}`);
}))"""


def test_every_two_models_of_the_gallery_have_their_rows_side_by_side(page: Page) -> None:
    found = {slug: parts(m.architecture)[0].canvas.bands for slug, m in gallery_models().items() if m.architecture}
    assert page.evaluate(APART, found) == []


def test_rows_of_unlike_models_stand_side_by_side_without_text_over_text(page: Page) -> None:
    """Attention beside the MLP, one part a layer, two parts a layer, contexts that RoPE is scaled for."""
    page.set_viewport_size({"width": 1280, "height": 900})
    for pair in (
        ("falcon-7b", "llama-3.1-8b"),
        ("nemotron-3-nano-30b-a3b", "deepseek-v4-flash"),
        ("gpt-j-6b", "gemma-4-e2b"),
        ("glm-5.2", "jamba-v0.1"),
        ("gpt-neox-20b", "kimi-linear-48b-a3b"),
    ):
        compared(page, *pair)
        left, right = page.evaluate("[0, 1].map(" + ROWS + ").map(boxes => boxes.map(box => box[0]))")
        head = 1  # after the card
        assert abs(left[head] - right[head]) < 0.3 and abs(max(left) - max(right)) < 0.3, pair
        assert page.evaluate(MEASURE) == []
    page.set_viewport_size({"width": 390, "height": 800})
    compared(page, "falcon-7b", "llama-3.1-8b")
    assert page.evaluate("document.querySelector('.pairs svg').getAttribute('height')") == str(
        round(parts(gallery_models()["falcon-7b"].architecture)[0].height)  # type: ignore[arg-type]
    )


def test_a_phone_shows_both_columns_of_a_comparison_and_where_facts_are_from(page: Page, site: Path) -> None:
    page.select_option("#left", "gpt-2-xl")
    page.select_option("#right", "qwen3-4b")
    assert page.locator("#compared td").last.bounding_box()["x"] < 300  # type: ignore[index]
    cut = "[...document.querySelectorAll('td')].filter(cell => cell.getBoundingClientRect().right > 390).length"
    assert page.evaluate(cut) == 0
    page.goto(site.joinpath("models/deepseek-v3.2.html").as_uri())
    assert page.get_by_text("rope_scaling", exact=True).first.is_visible() and page.evaluate(cut) == 0


def test_the_keyboard_keeps_its_place_when_models_are_picked(page: Page) -> None:
    page.fill("#find", "qwen3 dense")
    for slug in ("qwen3-8b", "qwen3-4b"):
        page.locator(f"#cards input[data-slug='{slug}']").focus()
        page.keyboard.press("Space")
        assert page.evaluate("document.activeElement.dataset.slug") == slug
    assert page.locator("#count").inner_text().endswith("to compare: Qwen3 8B and Qwen3 4B")
    page.get_by_role("link", name="see the comparison").press("Enter")
    page.wait_for_function("location.hash === '#compare'")
    assert page.locator("#compared td", has_text="= attention").is_visible()


def test_what_is_ticked_stays_in_sight_and_a_third_tick_drops_none(page: Page) -> None:
    for slug in ("gpt-2-xl", "qwen3-4b"):
        page.locator(f"#cards input[data-slug='{slug}']").check()
    page.locator("#cards li").last.scroll_into_view_if_needed()
    tray = page.locator("#tray")
    assert tray.locator("button").all_inner_texts() == ["GPT-2 XL ×", "Qwen3 4B ×"]
    box = tray.bounding_box()
    assert box and 0 <= box["y"] <= 800 - box["height"]
    assert page.locator("#cards input[data-slug='qwen3-8b']").is_disabled()
    tray.get_by_role("button", name="untick GPT-2 XL").click()
    page.locator("#cards input[data-slug='qwen3-8b']").check()
    assert tray.locator("button").all_inner_texts() == ["Qwen3 4B ×", "Qwen3 8B ×"]


def test_the_address_says_what_is_shown(page: Page) -> None:
    page.fill("#find", "moe")
    page.select_option("#sort", "largest")
    page.locator("#cards input[data-slug='qwen3-30b-a3b']").check()
    first = page.locator("#cards h3").all_text_contents()
    assert len(first) > 20  # mixtures of experts, under the name that everybody looks for
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    assert page.locator("#cards h3").all_text_contents() == first
    assert page.input_value("#sort") == "largest" and page.input_value("#left") == "qwen3-30b-a3b"


@pytest.mark.parametrize("words", ["moe", "mla", "gqa", "mamba", "swa"])
def test_the_search_knows_what_people_call_it(page: Page, words: str) -> None:
    page.fill("#find", words)
    assert page.locator(".card").count() >= 2


def test_the_overview_has_a_picture_of_every_models_layers_and_fits_a_few_screens(page: Page) -> None:
    page.set_viewport_size({"width": 1280, "height": 900})
    seen = sum(model.verified for model in gallery_models().values())
    assert page.locator(".card .thumbnail svg").count() == seen
    assert page.locator("#cards").bounding_box()["height"] < 80 * len(gallery_models())  # type: ignore[index]
    assert page.evaluate("document.querySelector('#time').compareDocumentPosition(document.querySelector('#all'))") == 4
    assert page.locator(".timeline .first", has_text="GPT-2 124M").is_visible()


def test_a_cache_beyond_a_models_context_says_so(page: Page, site: Path) -> None:
    """GPT-2 XL reads 1,024 tokens: 40.3 GB at 131,072 are of a model that there is not."""
    page.fill("#find", "gpt-2 xl")
    expect(page.locator(".card")).to_contain_text("40.3 GB, beyond its context")
    page.locator("#context").fill("10")
    expect(page.locator(".card")).not_to_contain_text("beyond")
    page.goto(site.joinpath("models/gpt-2-xl.html").as_uri())
    assert "its context is shorter, 1,024" in page.locator("tr", has_text="131,072").inner_text()
    assert page.get_by_text("rope_parameters").count() == 0  # it has no RoPE to stretch


def test_a_date_or_a_licence_that_was_not_found_is_said(page: Page, site: Path) -> None:
    for slug, model in gallery_models().items():
        text = (site / "models" / f"{slug}.html").read_text()
        assert ("date not found" in text) == (not model.date) and ("licence not found" in text) == (not model.licence)
    page.fill("#find", "cwm")
    assert "date not found" in (page.locator(".card").text_content() or "")


def test_nothing_is_wider_than_a_phone(page: Page, site: Path) -> None:
    for path in ("index.html", "models/deepseek-v3.2.html", "models/intellect-3.html", "lessons/03-qwen3.html"):
        page.goto(site.joinpath(path).as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_model_that_was_not_seen_shows_nothing_computed(site: Path) -> None:
    text = (site / "models" / "intellect-3.html").read_text()
    assert "not verified" in text and "<svg" not in text and "parameters</td>" not in text


def test_what_is_off_a_classs_defaults_says_so_on_its_card_its_page_and_in_a_comparison(page: Page, site: Path) -> None:
    of_class = {slug for slug, model in gallery_models().items() if model.of_class}
    assert len(of_class) >= 19
    for slug in gallery_models():
        said = "Read off the defaults of transformers&#x27;" in (site / "models" / f"{slug}.html").read_text()
        assert said == (slug in of_class), slug
    marked = page.locator(".card", has=page.locator(".mark", has_text="from its class's defaults"))
    assert marked.count() == len(of_class)
    page.fill("#find", "command r")
    assert "8,192 (its class's default)" in (page.locator(".card").text_content() or "")
    compared(page, "command-r-35b", "qwen3-8b")
    assert page.locator("#compared th .mark", has_text="from its class's defaults").count() == 1


def test_a_model_and_the_lessons_that_lead_to_it_link_each_other(page: Page, site: Path) -> None:
    page.goto(site.joinpath("models/qwen3-8b.html").as_uri())
    assert "rope, qk norm: 03 Qwen3" in page.locator("main").inner_text()  # what of it the lesson teaches
    page.get_by_role("link", name="03 Qwen3").click()
    assert "port Llama to Qwen3" in page.locator("main").inner_text()
    page.get_by_role("link", name="Qwen3 8B").click()
    assert page.locator("h1").inner_text() == "Qwen3 8B"
    page.get_by_text("Where this was seen").click()
    assert "QwenLM/Qwen3, README.md at" in page.locator("details").inner_text()


def test_every_link_of_the_gallery_leads_somewhere(site: Path) -> None:
    for file in [*site.glob("*.html"), *site.glob("*/*.html")]:
        for link in re.findall(r'(?:href|src)="([^"#:]+)"', file.read_text()):
            assert (file.parent / link).is_file(), (file.name, link)


def test_the_slider_counts_as_the_cache_does() -> None:
    for model in gallery_models().values():
        if not model.architecture:
            continue
        for context in (511, 131_072):
            told = 0
            for number, values, window, state, rate, waiting in cache_groups(model.architecture):
                kept = values * ((min(context, window) if window else context) // rate)
                told += number * (2 * (kept + waiting * (context % rate)) + state)
            assert told == at(caches(model.architecture), context)
