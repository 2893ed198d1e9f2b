"""The web edition: what Sphinx is given, and, where Sphinx is installed, what it makes of that."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest

from grader.cli.atlas import lessons_here
from grader.learning.museum import one_line, page_name
from grader.learning.site import FOLDED, write_excerpts, write_site_sources
from grader.lessons.lesson import lessons

pytestmark = pytest.mark.slow
NEEDED = ("myst_nb", "furo", "sphinx-mathjax-offline")


@pytest.fixture(scope="module")
def sources(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "sources"
    with pytest.MonkeyPatch.context() as moved:
        moved.chdir(request.config.rootpath)
        write_site_sources(request.config.rootpath, folder, lessons_here)
    return folder


def test_every_lesson_has_a_page_with_its_solutions_folded_and_its_outputs(project: Path, sources: Path) -> None:
    for lesson in lessons(project):
        page = nbformat.read(sources / lesson.name / lesson.notebook.name, as_version=4)
        for cell in page.cells:
            if "exercise" in cell.metadata:
                assert FOLDED in cell.metadata["tags"]
                assert cell.metadata["mystnb"]["code_prompt_show"] == "Show the solution"
            assert "### BEGIN SOLUTION" not in cell.source
        worked = nbformat.read(lesson.notebook, as_version=4)
        assert [cell.get("outputs") for cell in page.cells] == [cell.get("outputs") for cell in worked.cells]
        for page in ("index.md", "syllabus.md"):
            assert f"{lesson.name}/{lesson.notebook.stem}" in (sources / page).read_text("utf-8")


def test_every_known_mistake_has_a_page_in_the_museum(project: Path, sources: Path) -> None:
    filtered = (sources / "_own" / "mistakes.js").read_text("utf-8")
    pages = set()
    for lesson in lessons(project):
        text = (sources / "mistakes" / f"{lesson.name}.md").read_text("utf-8")
        for exercise in lesson.exercises()[0]:
            for mistake in exercise.mistakes:
                page = f"mistakes/{exercise.name}/{page_name(mistake.name)}.md"
                assert f"- **[{mistake.name}]({page.removeprefix('mistakes/')}).**" in text
                assert f'"{page.removesuffix(".md")}.html"' in filtered
                told = (sources / page).read_text("utf-8")
                assert f"This is what comes out when {mistake.name}" in told and one_line(mistake.hint) in told
                assert "```diff" in told and (
                    re.search(r"\| [\d,]+ of [\d,]+ \|", told) or "learns badly" in told or "is right" in told
                )
                assert all(f"[{each}](https://github.com/" in told for each in mistake.shipped)
                pages.add(page)
    written = list(sources.glob("mistakes/*/*.md"))
    assert len(pages) == len(written), "two mistakes of one page"
    titles = {re.search(r"^# (.+)$", page.read_text("utf-8"), re.MULTILINE)[1] for page in written}
    assert len(titles) == len(written), "a search shows two pages under one title"


def test_the_gallery_is_inside_and_leads_to_the_lessons(project: Path, sources: Path) -> None:
    gallery = sources / "_extra" / "atlas"
    assert '<a href="../index.html">From Scratch to Scale</a>' in (gallery / "index.html").read_text("utf-8")
    for lesson in lessons(project):
        page = gallery / "lessons" / f"{lesson.name}.html"
        teaches = "teaches" in tomllib.loads((lesson.folder / "lesson.toml").read_text("utf-8"))
        assert page.exists() == teaches
        if teaches:
            assert f'href="../../{lesson.name}/{lesson.notebook.stem}.html"' in page.read_text("utf-8")


def test_the_map_and_the_picture_of_the_syllabus_are_inside(sources: Path) -> None:
    text = (sources / "in-production.md").read_text("utf-8")
    assert "(syllabus.md)" in text and "(README.md)" not in text
    for link in re.findall(r"\]\((?!https:)([^)]+)\)", text + (sources / "syllabus.md").read_text("utf-8")):
        assert (sources / link).exists(), link


def links(page: Path) -> Iterator[str]:
    text = page.read_text("utf-8")
    yield from re.findall(r'(?:href|src)="([^"#?]+)', text)


def test_what_the_search_shows_of_a_page_is_its_words_alone(tmp_path: Path) -> None:
    heading = '<h1>Masks<a class="headerlink" href="#masks" title="Link to this heading">¶</a></h1>'
    body = "<style>p { margin: 0 }</style><p>A window of <b>4</b> &lt; 5 tokens.</p><script>var x = 1;</script>"
    (tmp_path / "_static").mkdir()
    (tmp_path / "page.html").write_text(f"<nav>Menu</nav><article>{heading}{body}</article>", encoding="utf-8")
    write_excerpts(tmp_path)
    shown = (tmp_path / "_static" / "excerpts.js").read_text(encoding="utf-8")
    assert '{"page.html": "Masks A window of 4 &lt; 5 tokens."}' in shown


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in NEEDED), reason="Sphinx is not installed (pip install '.[site]')"
)
def test_the_built_site_has_no_broken_link_and_asks_nothing_of_the_network(sources: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", str(sources), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for page in tmp_path.rglob("*.html"):
        for link in links(page):
            if not re.match(r"[a-z]+:", link):
                assert (page.parent / unquote(link)).exists(), f"{page}: {link}"
        text = page.read_text("utf-8")
        assert not re.findall(r'<(?:script|img)[^>]+src="https?:', text)
        pictures = re.findall(r"<img[^>]+>", text)
        assert all(re.search(r'alt="(?!\S+\.png")[^"]', picture) for picture in pictures), f"{page}: no words"
