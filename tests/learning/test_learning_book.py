"""The course as a PDF: what paper needs of a page, and what a browser prints."""

import re
import zlib
from pathlib import Path

import pytest

from conftest import chromium
from grader.errors import GraderError
from grader.learning import book
from grader.learning.book import find_browser, unfolded, write_book


def test_on_paper_everything_is_open() -> None:
    page = "<html><head></head><details><summary>Hint</summary>a</details><details class='x' open>b</details></html>"
    told = unfolded(page)
    assert "<details open><summary>" in told and "<details class='x' open>" in told
    assert "@page" in told.partition("</head>")[0]


def test_where_no_browser_is_found_it_is_said_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GraderError, match="needs Chromium or Chrome"):
        find_browser()
    with pytest.raises(GraderError, match="needs Chromium or Chrome"):
        write_book(tmp_path / "sources", tmp_path / "course.pdf")


def test_a_browser_that_writes_nothing_is_quoted(tmp_path: Path) -> None:
    browser = tmp_path / "chromium"
    browser.write_text("#!/bin/sh\necho no display >&2\n")
    browser.chmod(0o755)
    with pytest.raises(GraderError, match=r"wrote no PDF\. It says: no display"):
        book.printed(str(browser), tmp_path / "page.html", tmp_path / "course.pdf")


@pytest.mark.browser
@pytest.mark.slow
def test_a_chromium_prints_each_lesson_from_a_page_of_its_own(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(unfolded("<html><head></head><p>front</p><h1>one</h1><h1>two</h1></html>"), encoding="utf-8")
    book.printed(chromium() or "", page, tmp_path / "made" / "course.pdf")
    pdf = (tmp_path / "made" / "course.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-") and len(re.findall(rb"/Type\s*/Page\b", readable(pdf))) == 3


def readable(pdf: bytes) -> bytes:
    """The file with its compressed streams unpacked, where page objects may be."""
    streams = []
    for packed in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL):
        try:
            streams.append(zlib.decompress(packed))
        except zlib.error:
            continue
    return pdf + b"\n".join(streams)
