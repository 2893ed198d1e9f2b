"""The page that several visitors ask at once."""

import http.client
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from jupyterlab_driver import CHROMIUM_FLAGS
from playwright.sync_api import expect, sync_playwright

from conftest import chromium, why_no_browser
from grader.instruments import page


def test_two_visitors_are_answered_at_once() -> None:
    both = threading.Barrier(2, timeout=60)

    def answer(words: str) -> Iterator[str]:
        both.wait()  # neither goes on before the other is here
        yield words.upper()
        both.wait()
        yield "!"

    with page.served(answer, "Two") as url, ThreadPoolExecutor(2) as visitors:
        assert list(visitors.map(lambda words: page.asked(url, words), ["eins", "zwéi"])) == ["EINS!", "ZWÉI!"]


def test_the_page_has_its_title_and_its_form() -> None:
    with page.served(lambda words: iter([words]), "A <title>") as url:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=60) as given:
            text = given.read().decode()
    assert "A &lt;title&gt;" in text
    assert "<form>" in text


def test_an_answer_is_closed_when_its_visitor_leaves() -> None:
    closed = threading.Event()

    def answer(words: str) -> Iterator[str]:
        try:
            while True:
                yield words * 1000
        finally:
            closed.set()

    with page.served(answer, "Leaving") as url:
        visitor = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        visitor.request("POST", "/ask", b"word")
        response = visitor.getresponse()
        assert response.read(4) == b"word"
        response.close()
        visitor.close()
        assert closed.wait(60)


def test_an_error_in_an_answer_is_told_where_its_visitor_reads() -> None:
    def answer(words: str) -> Iterator[str]:
        yield words
        raise ValueError("no block is free")

    with page.served(answer, "Failing") as url:
        assert page.asked(url, "so far") == "so far\n[The answer ends here: ValueError: no block is free]"


def test_a_question_under_another_hosts_name_is_refused() -> None:
    with page.served(lambda words: iter([words]), "Here") as url:
        visitor = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        visitor.request("POST", "/ask", b"word", {"Host": "elsewhere.example:80"})
        assert visitor.getresponse().status == 400


@pytest.mark.browser
def test_two_windows_read_their_own_answers_while_both_are_written() -> None:
    if why := why_no_browser():
        pytest.skip(why)
    both = threading.Barrier(2, timeout=120)

    def answer(words: str) -> Iterator[str]:
        yield " begins"
        both.wait()  # each is read only while the other is written
        yield f", {words} ends"

    with page.served(answer, "Two windows") as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_FLAGS)
        windows = {words: browser.new_page() for words in ("one", "two")}
        for words, window in windows.items():
            window.goto(url)
            window.get_by_label("Your words").fill(words)
            window.get_by_role("button").click()
            expect(window.get_by_role("status")).to_contain_text(f"{words} begins")
        for words, window in windows.items():
            expect(window.get_by_role("status")).to_have_text(f"{words} begins, {words} ends")
            expect(window.get_by_role("button")).to_be_enabled()
        browser.close()
