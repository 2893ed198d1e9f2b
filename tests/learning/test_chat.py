"""`grader chat`: a learner's own model with a shipped checkpoint, as a conversation, and as a page in a browser."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from jupyterlab_driver import CHROMIUM_FLAGS
from playwright.sync_api import Page, expect, sync_playwright

from conftest import chromium, why_no_browser
from grader.errors import GraderError
from grader.learning.chat_page import require_chainlit
from grader.learning.talk import Reply, Sampling, Talk, talk_with

ROOT = Path(__file__).resolve().parents[2]
MODEL = f"{ROOT / 'solutions' / '02-kv-cache' / 'kv_cache.ipynb'}:CachedGPT2"
GREEDY = Sampling(temperature=0, longest=12)
FIRST = {"role": "user", "content": "It is a truth universally acknowledged, that"}


@pytest.fixture(scope="module")
def talk() -> Talk:
    return talk_with(MODEL, "austen-gpt2", context=96)


def last(talk: Talk, *messages: dict[str, str], sampling: Sampling = GREEDY) -> Reply:
    *_, reply = talk.reply(messages, sampling)
    return reply


def test_it_writes_what_the_model_writes_without_a_cache(talk: Talk) -> None:
    reply = last(talk, FIRST)
    ids = talk.ids([FIRST])
    for _ in range(GREEDY.longest):
        ids.append(int(talk.model(torch.tensor([ids]))[0, -1].argmax()))
    assert reply.text == talk.tokenizer.decode(ids[-GREEDY.longest :])
    assert (reply.tokens, reply.held, reply.context) == (12, len(ids), 96) and "tokens/s" in reply.line


def test_a_second_message_reads_only_what_is_new(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    history = [FIRST, {"role": "assistant", "content": last(talk, FIRST).text}, {"role": "user", "content": " Emma"}]
    read: list[int] = []
    forward = type(talk.model).forward

    def counted(self: Any, ids: torch.Tensor, cache: Any = None) -> torch.Tensor:
        read.append(ids.shape[1])
        return forward(self, ids, cache)

    monkeypatch.setattr(type(talk.model), "forward", counted)
    cached = last(talk, *history)
    assert sum(read) < 20  # of the 40 tokens that the conversation has by then
    assert last(talk_with(MODEL, "austen-gpt2", context=96), *history).text == cached.text


def test_another_conversation_starts_anew_and_a_stopped_one_goes_on(talk: Talk) -> None:
    whole = last(talk, FIRST).text
    last(talk, {"role": "user", "content": "Captain Wentworth"})
    for reply in talk.reply([FIRST], GREEDY):
        if reply.tokens == 5:
            break
    assert whole.startswith(reply.text)
    assert last(talk, FIRST).text == whole


def test_a_full_context_is_said_before_and_after(talk: Talk) -> None:
    long = last(talk, FIRST, sampling=Sampling(temperature=0, longest=500))
    assert long.full and long.held == 96 and "it is full" in long.line
    with pytest.raises(GraderError, match=r"there is room for 96\. Start a new one"):
        last(talk, FIRST, {"role": "assistant", "content": long.text}, FIRST)


def test_sampling_leaves_out_what_it_should() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    torch.manual_seed(0)

    def drawn(sampling: Sampling) -> set[int]:
        return {sampling.draw(logits) for _ in range(300)}

    assert drawn(Sampling(temperature=0)) == {0}
    assert drawn(Sampling(temperature=1, top_p=1)) == {0, 1, 2, 3}
    assert drawn(Sampling(temperature=1, top_p=1, top_k=3)) == {0, 1, 2}
    assert drawn(Sampling(temperature=1, top_p=0.7)) == {0, 1}


def test_a_chat_template_is_used_and_may_refuse() -> None:
    template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}{% if fail %}x{% endif %}"
    checkpoint = talk_with(MODEL, "austen-gpt2", context=96)
    with_template = Talk(checkpoint.model, checkpoint.tokenizer, template, [], 96)
    assert with_template.tokenizer.decode(with_template.ids([FIRST])) == f"<user>{FIRST['content']}"
    refusing = Talk(checkpoint.model, checkpoint.tokenizer, "{{ raise_exception('no system message') }}", [], 96)
    with pytest.raises(GraderError, match="no system message"):
        refusing.ids([FIRST])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda ids: torch.zeros(1, 3), r"your model gave \(1, 3\) for ids of \[1, \d+\], and"),
        (lambda ids: ids.nothing, "your model fails:\n.*has no attribute 'nothing'"),
    ],
)
def test_a_model_that_fails_is_told_in_the_learners_lines(answer: Callable[[torch.Tensor], Any], message: str) -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, ids: torch.Tensor) -> Any:
            return answer(ids)

    good = talk_with(MODEL, "austen-gpt2", context=96)
    with pytest.raises(GraderError, match=re.compile(message, re.DOTALL)):
        last(Talk(Model(), good.tokenizer, None, [], 96), FIRST)


def test_a_class_that_is_not_written_is_told_before_a_page_opens(tmp_path: Path) -> None:
    program = tmp_path / "model.py"
    init = "    def __init__(self, config):\n        raise NotImplementedError()"
    program.write_text(f"import torch\n\nclass Model(torch.nn.Module):\n{init}\n")
    with pytest.raises(GraderError, match=r"`Model.__init__` is not written yet"):
        talk_with(f"{program}:Model", "austen-gpt2")

    class Unwritten(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            raise NotImplementedError()

    with pytest.raises(GraderError, match=r"`.*Unwritten.forward` is not written yet"):
        Talk(Unwritten(), None, None, [], 96).try_out()


def test_the_line_that_installs_chainlit_needs_no_published_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grader.learning.chat_page.find_spec", lambda name: None)
    with pytest.raises(GraderError, match=r"pip install 'chainlit<3,>=2.12'"):
        require_chainlit()


def test_a_context_that_the_model_has_not_is_refused() -> None:
    with pytest.raises(GraderError, match="--context 1000 is not possible: austen-gpt2 reads 2 to 256 tokens"):
        talk_with(MODEL, "austen-gpt2", context=1000)


# --- the page ---


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    if find_spec("chainlit") is None:
        pytest.skip("chainlit is not installed (pip install -e '.[chat]')")
    if why := why_no_browser():
        pytest.skip(why)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from grader.cli import main; main()", "chat", MODEL, "--weights", "austen-gpt2"]
    log = (tmp_path / "log").open("w")
    server = subprocess.Popen(
        [*command, "--port", str(port), "--no-browser"], cwd=tmp_path, stdout=log, stderr=log, env={**os.environ}
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_FLAGS)
        opened = browser.new_page()
        opened.set_default_timeout(120_000)
        try:
            for _ in range(240):
                with socket.socket() as asked:
                    if asked.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert server.poll() is None, (tmp_path / "log").read_text()
                opened.wait_for_timeout(500)
            opened.goto(f"http://127.0.0.1:{port}/", wait_until="domcontentloaded")
            yield opened
        finally:
            browser.close()
            server.terminate()
            server.wait(20)
            log.close()


@pytest.mark.browser
@pytest.mark.slow
def test_the_page_streams_stops_and_goes_on(page: Page, test_output: Path) -> None:
    expect(page.get_by_text("It has no chat template, so it continues what you write.")).to_be_visible(timeout=120_000)
    page.locator("#chat-input").click()
    page.keyboard.type("It is a truth universally acknowledged, that")
    page.keyboard.press("Enter")
    expect(page.locator(".message-content").last).to_have_text(re.compile(r"\w"), timeout=120_000)
    page.screenshot(path=test_output / "chat-streaming.png")
    page.locator("#stop-button").click()
    measured = page.get_by_text(re.compile(r"tokens · context \d+ of 256"))
    expect(measured).to_have_count(1, timeout=120_000)
    page.locator("#chat-settings-open-modal").click()
    expect(page.get_by_text("Temperature (0: always the most likely token)")).to_be_visible()
    page.screenshot(path=test_output / "chat-settings.png")
    page.keyboard.press("Escape")
    page.locator("#chat-input").click()
    page.keyboard.type(" Emma")
    page.keyboard.press("Enter")
    expect(measured).to_have_count(2, timeout=120_000)
    expect(measured.last).to_contain_text("tokens/s")
    page.screenshot(path=test_output / "chat.png")
