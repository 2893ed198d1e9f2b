"""What only 16-serving must hold: whoever else is there, each answer is the one decoded alone, and no block gets lost."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from playwright.sync_api import expect, sync_playwright
from transformers.generation.continuous_batching.cache_allocators.cache_allocator import (
    BlockLedger,
    CacheAllocator,
    compute_block_hash,
)

from conftest import chromium
from grader import Config, load_checkpoint
from grader.authoring.kit.declared import Change
from grader.authoring.kit.solved import lesson_of

LESSON = lesson_of(__file__)
OWN: dict[str, Any] = LESSON.solutions
HERE = Path(__file__).parent
BUSY = settings(max_examples=40, deadline=None, derandomize=True)
TINY = Config(
    {
        "model_type": "qwen3",
        "vocab_size": 23,
        "hidden_size": 12,
        "intermediate_size": 20,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 6,
        "rms_norm_eps": 1e-6,
        "rope_theta": 100.0,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
    }
)


Model = tuple[Any, Any]  # a small random model over blocks, and lesson 03's with the same weights


def models_of(own: dict[str, Any]) -> Model:
    torch.manual_seed(0)
    paged = own["PagedLM"](TINY).eval()
    for parameter in paged.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    alone = own["CausalLM"](TINY).eval()
    alone.load_state_dict(paged.state_dict())
    return paged, alone


@pytest.fixture(scope="module")
def tiny() -> Model:
    return models_of(OWN)


def decoded_alone(model: Any, prompt: list[int], new: int, end: int | None) -> tuple[list[int], list[torch.Tensor]]:
    """Greedy tokens of one text, read whole for each of them, and the logits that each was taken from."""
    tokens = list(prompt)
    logits: list[torch.Tensor] = []
    with torch.no_grad():
        while len(tokens) < len(prompt) + new and (not logits or tokens[-1] != end):
            logits.append(model(torch.tensor([tokens]))[0, -1])
            tokens.append(int(logits[-1].argmax()))
    return tokens[len(prompt) :], logits


class Poisoned:
    """An engine whose free blocks hold NaN after each step, and which notes the logits of every token."""

    def __init__(self, own: dict[str, Any], model: Any, *numbers: int) -> None:
        self.engine = own["Engine"](self, *numbers)
        self.model, self.rows = model, torch.empty(0)
        self.engine.memory = model.new_memory(numbers[0], numbers[1])
        self.logits: dict[Any, list[torch.Tensor]] = {}
        self.preempted = self.found = 0
        preempt, find = self.engine.scheduler.preempt, self.engine.scheduler.index.find

        def counted() -> None:
            self.preempted += 1
            preempt()

        def noted(tokens: list[int]) -> Any:
            blocks = find(tokens)
            self.found = max(self.found, len(blocks))
            return blocks

        self.engine.scheduler.preempt, self.engine.scheduler.index.find = counted, noted

    def new_memory(self, *_: int) -> None:
        """The model comes after the engine."""

    def __call__(self, batch: Any, memory: Any) -> torch.Tensor:
        self.rows = self.model(batch, memory)
        return self.rows

    def step(self) -> None:
        planned: list[Any] = []
        schedule = self.engine.scheduler.schedule

        def noted() -> list[Any]:
            planned.extend(schedule())
            return list(planned)

        self.engine.scheduler.schedule = noted
        for request, _ in self.engine.step():
            row = [each for each, _ in planned].index(request)
            self.logits.setdefault(request, []).append(self.rows[row])
        self.engine.scheduler.schedule = schedule
        self.check_blocks()

    def check_blocks(self) -> None:
        """No block is lost, none is counted wrongly, free ones are free of words and of names."""
        scheduler = self.engine.scheduler
        tables = [request.table.blocks for request in scheduler.running]
        readers = [sum(table.count(block) for table in tables) for block in range(len(scheduler.pool.refs))]
        assert readers == scheduler.pool.refs
        free = sorted(scheduler.pool.free)
        assert free == [block for block, n in enumerate(readers) if n == 0]
        assert not set(scheduler.index.known) & set(free)
        for keys, values in self.engine.memory:
            keys[free], values[free] = torch.nan, torch.nan


class Asked(NamedTuple):
    """A request: before which pass it comes, and before which it is aborted, if it is."""

    comes: int
    prompt: int
    new: int
    alike: int = 0  # with how many tokens of the common text it begins
    leaves: int | None = None


class Load(NamedTuple):
    """Requests, and the engine that serves them, whose memory has room for the largest one and `spare` blocks more."""

    requests: list[Asked]
    block: int
    budget: int = 20
    places: int = 5
    spare: int = 0
    ends: bool = False


def several(asked: st.SearchStrategy[Asked], least: int = 1, most: int = 6) -> st.SearchStrategy[list[Asked]]:
    return st.lists(asked, min_size=least, max_size=most)


def request(*numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[Asked]:
    """st.builds would draw the fields that are left out, too, since it takes a NamedTuple's defaults for required."""
    return st.tuples(*numbers).map(lambda drawn: Asked(*drawn))


ANY = request(*map(st.integers, (0, 1, 1, 0), (6, 17, 9, 16)), st.none() | st.integers(0, 25))


@st.composite
def multiples(draw: Any) -> Load:
    """Prompts and answers that end where a block ends, or one token behind, in as little memory as they need."""
    block = draw(st.integers(2, 4))
    ends = st.integers(1, 4).map(lambda blocks: blocks * block)
    asked = request(st.integers(0, 3), ends, ends | ends.map(lambda n: n + 1), st.sampled_from([0, block]))
    return Load(draw(several(asked, most=4)), block, draw(st.integers(1, 12)), 4, draw(st.integers(0, 4)))


@st.composite
def found_whole(draw: Any) -> Load:
    """Later prompts are in memory to their last token, and their last block is full."""
    block, blocks = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    same = [Asked(0, block * blocks, 9, 16)]
    same += draw(several(request(st.integers(1, 4), st.just(block * blocks), st.integers(1, 9), st.just(16))))
    return Load(same, block, 20, 7, draw(st.integers(8, 40)))


@st.composite
def short_of_memory(draw: Any) -> Load:
    """Several begin at once, and their answers need more blocks than there are."""
    block = draw(st.integers(1, 4))
    new = draw(st.integers(3 * block, 3 * block + 4))
    asked = request(st.just(0), st.integers(1, block), st.just(new))
    return Load(draw(several(asked, 3, 4)), block, 20, 4, draw(st.integers(0, 1)))


@st.composite
def somebody_leaves(draw: Any) -> Load:
    """Requests are aborted while they wait, while their prompts are read, and while their answers are written."""
    asked = request(st.integers(0, 2), st.integers(1, 12), st.just(9), st.integers(0, 12), st.integers(2, 9))
    return Load(draw(several(asked, 2)), draw(st.integers(1, 4)), draw(st.integers(1, 8)), 3, draw(st.integers(0, 8)))


ANYTHING = st.builds(
    Load, several(ANY), st.integers(1, 5), st.integers(1, 20), st.integers(1, 5), st.integers(0, 8), st.booleans()
)
LOADS = {
    "anything": ANYTHING,
    "multiples of a block": multiples(),
    "found whole": found_whole(),
    "short of memory": short_of_memory(),
    "somebody leaves": somebody_leaves(),
}


def serve_and_compare(own: dict[str, Any], models: Model, load: Load) -> Poisoned:
    """Serve the load; whoever else is there, each answer must be the one decoded alone, and no block may get lost."""
    paged, alone = models
    common = torch.randint(23, (16,), generator=torch.Generator().manual_seed(1)).tolist()
    blocks = max(-(-(asked.prompt + asked.new - 1) // load.block) for asked in load.requests) + load.spare
    served, made = Poisoned(own, paged, blocks, load.block, load.budget, load.places), []
    end, scheduler = 7 if load.ends else None, served.engine.scheduler
    for step in range(500):
        for i, asked in enumerate(load.requests):
            if asked.comes == step:
                words = torch.randint(23, (asked.prompt,), generator=torch.Generator().manual_seed(9 + i)).tolist()
                prompt = (common[: asked.alike] + words)[: asked.prompt]
                made.append((asked, prompt, served.engine.add(prompt, asked.new, () if end is None else (end,))))
        for asked, _, request in made:
            if asked.leaves == step:
                served.engine.abort(request)
                served.check_blocks()
        if len(made) == len(load.requests) and not scheduler.waiting and not scheduler.running:
            break
        served.step()
    assert sorted(scheduler.pool.free) == list(range(blocks))
    assert not scheduler.index.block_of
    for asked, prompt, request in made:
        should, logits = decoded_alone(alone, prompt, asked.new, end)
        count = len(request.written)
        assert request.written == should[:count]
        assert count == len(should) or asked.leaves is not None
        for mine, right in zip(served.logits.get(request, []), logits, strict=False):
            torch.testing.assert_close(mine, right, rtol=1e-4, atol=1e-4)
    return served


@pytest.mark.parametrize("name", LOADS)
def test_each_answer_is_the_one_decoded_alone(tiny: Model, name: str) -> None:
    @BUSY
    @given(LOADS[name])
    def holds(load: Load) -> None:
        served = serve_and_compare(OWN, tiny, load)
        if name == "found whole":
            assert served.found >= load.requests[0].prompt // load.block - 1
        if name == "short of memory":
            assert served.preempted > 0

    holds()


PLANTED = {
    "a chunk in the middle of a prompt gives a token": (
        "anything",
        Change("serving.engine", "if end == len(request.tokens):", "if True:"),
    ),
    "one block too many where the text fills its blocks": (
        "multiples of a block",
        Change(
            "serving.table",
            "math.ceil((self.length + n) / self.block_size)",
            "(self.length + n) // self.block_size + 1",
        ),
    ),
    "a text is found whole, and nothing is left to read": (
        "found whole",
        Change("serving.prefix", "self.hashes(tokens[:-1], self.block_size)", "self.hashes(tokens, self.block_size)"),
    ),
    "shared blocks get no reader": (
        "found whole",
        Change("serving.table", "pool.share(block)", "pass"),
    ),
    "the prompt alone is read again": (
        "short of memory",
        Change(
            "serving.queue",
            "newest = self.running[-1]",
            "newest = self.running[-1]\n        del newest.tokens[newest.prompt :]",
        ),
    ),
    "one is preempted, and its blocks stay in the index": (
        "short of memory",
        Change("serving.queue", "self.index.forget(block)", "pass"),
    ),
    "who leaves keeps their blocks": (
        "somebody leaves",
        Change(
            "serving.engine",
            "def abort(self, request: Request) -> None:\n        self.scheduler.remove(request)",
            "def abort(self, request: Request) -> None:\n        if request in self.scheduler.running:\n"
            "            self.scheduler.running.remove(request)",
        ),
    ),
    "what is behind the end of a text is read": (
        "anything",
        Change("serving.attention", ".flatten(0, 1)[:L].transpose(0, 1)", ".flatten(0, 1)[: L + 1].transpose(0, 1)"),
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_bug_is_found(planted: str) -> None:
    name, change = PLANTED[planted]
    own = LESSON.changed(change)
    models = models_of(own)

    @settings(BUSY, phases=[Phase.generate], database=None)
    @given(LOADS[name])
    def holds(load: Load) -> None:
        serve_and_compare(own, models, load)

    with pytest.raises(Exception):  # noqa: B017 (a wrong engine may fail in any way)
        holds()


def test_a_request_that_is_preempted_again_and_again_still_says_every_token_once(tiny: Model) -> None:
    paged, alone = tiny
    served = Poisoned(OWN, paged, 5, 4, 6, 3)
    requests = [served.engine.add([1 + i, 2, 3], 16) for i in range(3)]
    while served.engine.scheduler.waiting or served.engine.scheduler.running:
        served.step()
    assert served.preempted > 3
    assert [request.written for request in requests] == [
        decoded_alone(alone, [1 + i, 2, 3], 16, None)[0] for i in range(3)
    ]


@BUSY
@given(st.lists(st.integers(0, 1), min_size=1, max_size=30), st.integers(1, 6), st.data())
def test_the_index_finds_what_transformers_finds(tokens: list[int], block: int, data: Any) -> None:
    """Two tokens and short blocks: beginnings are often the same."""
    ledger, index = BlockLedger(), OWN["PrefixIndex"](block)
    allocator = SimpleNamespace(tokens_per_page=block, ledger=ledger)
    number = 0
    for text in data.draw(st.lists(st.lists(st.integers(0, 1), max_size=30), max_size=4)):
        blocks = list(range(number, number + len(text) // block))
        number += len(blocks)
        index.add(text, blocks)
        name = None
        for i, each in enumerate(blocks):
            name = compute_block_hash(name, text[i * block : (i + 1) * block])
            ledger.register_new_hash(each, name)
    assert index.find(tokens) == CacheAllocator.match_prefix_blocks(allocator, tokens)


@BUSY
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(0, 5)), max_size=25), st.integers(1, 4))
def test_forks_never_see_each_others_words(steps: list[tuple[int, int, int]], block: int) -> None:
    pool, memory = OWN["BlockPool"](40), [0] * (40 * block)

    def copy(source: int, target: int) -> None:
        memory[target * block : (target + 1) * block] = memory[source * block : (source + 1) * block]

    tables = [OWN["ForkedTable"](pool, block, copy)]
    texts: list[list[int]] = [[]]
    for number, (kind, which, count) in enumerate(steps):
        k = which % len(tables)
        if kind == 0:
            try:
                slots = tables[k].append(count)
            except MemoryError:
                continue
            for i, slot in enumerate(slots):
                memory[slot] = 100 * number + i
                texts[k].append(100 * number + i)
        elif kind == 1 and len(tables) < 8:
            tables.append(tables[k].fork())
            texts.append(list(texts[k]))
        elif kind == 2:
            tables[k].release()
            texts[k] = []
        assert [[memory[s] for s in table.slots(0, table.length)] for table in tables] == texts
    for table in tables:
        table.release()
    assert sorted(pool.free) == list(range(40))


def test_two_visitors_at_once_read_what_they_would_have_read_alone() -> None:
    from concurrent.futures import ThreadPoolExecutor

    from grader.instruments import page

    service = service_of(12)
    asked = ["Anne hoped", "Emma Woodhouse, handsome, clever, and rich", "Anne hoped she"]
    alone = ["".join(service.answer(words, 20)) for words in asked]
    with page.served(lambda words: service.answer(words, 20), "Two") as url, ThreadPoolExecutor(3) as visitors:
        for _ in range(3):
            assert list(visitors.map(lambda words: page.asked(url, words), asked)) == alone
    assert service.mail == {} or wait_for(lambda: service.mail == {})


def test_a_visitor_who_leaves_gives_all_blocks_back() -> None:
    service = service_of(20)
    leaving = service.answer("She was", 60)
    next(leaving)
    leaving.close()
    assert wait_for(lambda: len(service.engine.scheduler.pool.free) == 20)


def test_a_request_too_large_for_the_memory_is_refused_and_the_next_one_served() -> None:
    service = service_of(5)
    alone = "".join(service.answer("Anne hoped", 20))
    with pytest.raises(ValueError):
        next(service.answer("Anne hoped", 90))
    assert "".join(service.answer("Anne hoped", 20)) == alone


def test_an_engine_that_fails_tells_all_who_wait_and_goes_on() -> None:
    service = service_of(20)
    alone = "".join(service.answer("Anne hoped", 20))
    step, waiting = service.engine.step, [service.answer("Anne hoped", 20), service.answer("She was", 20)]
    for answer in waiting:
        next(answer)

    def fails() -> Any:
        raise RuntimeError("no such block")

    service.engine.step = fails
    for answer in waiting:
        with pytest.raises(RuntimeError, match="no such block"):
            "".join(answer)
    service.engine.step = step
    assert "".join(service.answer("Anne hoped", 20)) == alone
    assert wait_for(lambda: service.mail == {})


@pytest.mark.browser
@pytest.mark.slow
def test_two_windows_are_answered_in_the_same_passes_and_a_closed_one_gives_its_blocks_back(test_output: Path) -> None:
    from grader.instruments import page

    asked = ["Anne hoped she", "Emma Woodhouse, handsome,"]
    alone = [words + "".join(service_of(40).answer(words, 30)) for words in asked]
    service = service_of(40)
    passes = Passes(service.engine)
    scheduler = service.engine.scheduler
    with (
        page.served(lambda words: service.answer(words, 90 if words == "She was" else 30), "Austen, for all") as url,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        windows = {words: browser.new_page() for words in [*asked, "She was"]}
        for began, (words, window) in enumerate(windows.items()):
            window.goto(url)
            window.get_by_label("Your words").fill(words)
            window.get_by_role("button").click()
            assert wait_for(lambda began=began: len(service.mail) + service.wishes.qsize() > began)
            passes.allow(4)  # each window asks while the answers of those before it are written
            assert wait_for(lambda began=began: len(passes.served) == 4 * (began + 1))
        leaving = windows.pop("She was")
        expect(leaving.get_by_role("status")).not_to_have_text("She was")
        for words, window in windows.items():
            expect(window.get_by_role("status")).not_to_have_text(words)
            expect(window.get_by_role("button")).to_be_disabled()
            window.screenshot(path=test_output / f"serving-{words.split()[0]}-in-between.png")
        assert len(scheduler.running) == 3
        gone = scheduler.running[-1]
        leaving.close()

        def has_gone() -> bool:
            passes.allow(1)
            return gone not in scheduler.running

        assert wait_for(has_gone, pause=0.3)
        assert gone.table is None
        assert len(gone.written) < 90
        held = {block for request in scheduler.running for block in request.table.blocks}
        assert sorted(scheduler.pool.free) == sorted(set(range(40)) - held)
        passes.allow(100)
        for words, window in windows.items():
            expect(window.get_by_role("button")).to_be_enabled(timeout=60_000)
            window.screenshot(path=test_output / f"serving-{words.split()[0]}-done.png")
        assert [window.get_by_role("status").text_content() for window in windows.values()] == alone
        assert [len(together) for together in passes.served].count(2) > 10
        browser.close()
    assert wait_for(lambda: len(scheduler.pool.free) == 40)


class Passes:
    """Makes an engine wait before each pass until it is allowed, and notes whose tokens came from it."""

    def __init__(self, engine: Any) -> None:
        self.allowed = threading.Semaphore(0)
        self.served: list[list[Any]] = []
        self.step, engine.step = engine.step, self.next

    def allow(self, passes: int) -> None:
        self.allowed.release(passes)

    def next(self) -> list[Any]:
        self.allowed.acquire()
        given = self.step()
        self.served.append([request for request, _ in given])
        return given


def service_of(blocks: int) -> Any:
    """The notebook's own service, of a small engine with the shipped weights."""
    namespace = dict(OWN)
    exec(compile(LESSON.cell_with("class Service"), "service", "exec"), namespace)
    checkpoint = load_checkpoint("austen-qwen3")
    engine = OWN["Engine"](checkpoint.build(OWN["PagedLM"]), blocks, 8, 24, 4)
    return namespace["Service"](engine, checkpoint.tokenizer)


def wait_for(condition: Any, pause: float = 0.01) -> bool:
    """Whether it comes true within a minute."""
    for _ in range(int(60 / pause)):
        if condition():
            return True
        time.sleep(pause)
    return False


def test_every_figure_is_shown() -> None:
    twin = (HERE / "serving.py").read_text(encoding="utf-8")
    assert all(f"figures/{path.name}" in twin for path in (HERE / "figures").iterdir())
