"""What is left of stored outputs and texts where a front end cleans HTML: GitHub, VS Code, an untrusted notebook.

Those can't be run here. Their allow-lists are public, and are imitated: GitHub's (of its html-pipeline) drops styles,
classes, scripts and data addresses; JupyterLab's and VS Code's keep `style` attributes and drop the rest.
"""

import re
from collections.abc import Iterator

import bleach
import nbformat
import pytest
from bleach.css_sanitizer import CSSSanitizer
from nbformat import NotebookNode

from conftest import PROJECT
from grader.lessons.lesson import Lesson, lessons

pytestmark = pytest.mark.sampled(1)

TEXT = "h1 h2 h3 h4 h5 h6 br b i strong em a pre code tt div ins del sup sub p ol ul li hr blockquote dl dt dd kbd samp"
TABLES = "table caption thead tbody tfoot tr td th"
FOLDS = "details summary figure figcaption abbr mark small span img"
TAGS = {*TEXT.split(), *TABLES.split(), *FOLDS.split()}
GITHUB = bleach.Cleaner(
    TAGS,
    {"*": ["align", "colspan", "rowspan", "title", "width", "height", "open"], "a": ["href"], "img": ["src", "alt"]},
    protocols={"http", "https", "mailto"},
    strip=True,
    strip_comments=True,
)
UNTRUSTED = bleach.Cleaner(
    TAGS,
    {
        "*": ["align", "class", "colspan", "rowspan", "title", "width", "height", "open", "style"],
        "a": ["href"],
        "img": ["src", "alt"],
    },
    protocols={"http", "https", "mailto", "data"},
    strip=True,
    strip_comments=True,
    css_sanitizer=CSSSanitizer(),
)
_DROPPED_WHOLE = re.compile(r"<(style|script)\b.*?</\1>", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"<[^>]+>")


def cleaned(cleaner: bleach.Cleaner, html: str) -> str:
    """As a front end shows it: of styles and scripts the text goes too, of other tags only the tag."""
    return str(cleaner.clean(_DROPPED_WHOLE.sub("", html)))


def words(html: str) -> list[str]:
    return _TAG.sub(" ", _DROPPED_WHOLE.sub("", html).replace("<wbr>", "")).split()


def outputs(lesson: Lesson) -> Iterator[NotebookNode]:
    for cell in nbformat.read(lesson.notebook, as_version=4).cells:
        for output in cell.get("outputs", []):
            if "text/html" in output.get("data", {}):
                yield output


@pytest.mark.parametrize("cleaner", [GITHUB, UNTRUSTED], ids=["GitHub", "untrusted"])
@pytest.mark.parametrize("lesson", lessons(PROJECT), ids=lambda lesson: lesson.name)
def test_a_stored_output_says_the_same_once_it_is_cleaned(lesson: Lesson, cleaner: bleach.Cleaner) -> None:
    found = list(outputs(lesson))
    assert found
    for output in found:
        html = output["data"]["text/html"]
        left = cleaned(cleaner, html)
        assert words(left) == words(html)
        assert left.count("<tr") == html.count("<tr") and left.count("<details") == html.count("<details")
        assert "text/plain" in output["data"], "nothing is left where no HTML is shown"


@pytest.mark.parametrize("lesson", lessons(PROJECT), ids=lambda lesson: lesson.name)
def test_the_released_text_keeps_its_pictures_and_folds_on_github(lesson: Lesson) -> None:
    released = PROJECT / "course" / lesson.name / lesson.notebook.name
    for cell in nbformat.read(released, as_version=4).cells:
        if cell.cell_type != "markdown":
            continue
        for tag in re.findall(r"<(?:img|details|summary|table|a)\b[^>]*>", cell.source):
            left = GITHUB.clean(tag)
            assert tag.split()[0].strip("<>") in left, tag
            for name in ("src", "alt", "href"):
                assert (f"{name}=" in tag) == (f"{name}=" in left), (tag, left)
