"""What only 16-serving must hold: whoever else is there, each answer is the one decoded alone, and no block gets lost."""

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.continuous_batching.cache_allocators.cache_allocator import (
    BlockLedger,
    CacheAllocator,
    compute_block_hash,
)

from grader import Config, load_checkpoint
from grader.authoring.kit.solved import lesson_of

LESSON = lesson_of(__file__)
OWN: dict[str, Any] = LESSON.solutions
HERE = Path(__file__).parent
BUSY = settings(max_examples=60, deadline=None, derandomize=True)
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


@pytest.fixture(scope="module")
def tiny() -> Iterator[tuple[Any, Any]]:
    """A small random model over blocks, and lesson 03's with the same weights."""
    torch.manual_seed(0)
    paged = OWN["PagedLM"](TINY).eval()
    for parameter in paged.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    alone = OWN["CausalLM"](TINY).eval()
    alone.load_state_dict(paged.state_dict())
    yield paged, alone


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

    def __init__(self, model: Any, *numbers: int) -> None:
        self.engine = OWN["Engine"](self, *numbers)
        self.model, self.rows = model, torch.empty(0)
        self.engine.memory = model.new_memory(numbers[0], numbers[1])
        self.logits: dict[Any, list[torch.Tensor]] = {}

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


REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 6),  # before which pass it comes
        st.integers(1, 17),  # its prompt
        st.integers(1, 9),  # how many tokens it wants
        st.integers(0, 16),  # with how many tokens of the common text it begins
        st.integers(0, 25),  # before which pass it is aborted, if it is one that is
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


@BUSY
@given(REQUESTS, st.integers(1, 5), st.integers(1, 20), st.integers(1, 5), st.integers(0, 8), st.booleans())
def test_each_answer_is_the_one_decoded_alone(
    tiny: Any, requests: Any, block: int, budget: int, places: int, spare: int, ends: bool
) -> None:
    paged, alone = tiny
    common = torch.randint(23, (16,), generator=torch.Generator().manual_seed(1)).tolist()
    blocks = max(-(-(length + new) // block) for _, length, new, *_ in requests) + spare
    served, made = Poisoned(paged, blocks, block, budget, places), []
    end = 7 if ends else None
    for step in range(2000):
        for i, (when, length, new, alike, *_) in enumerate(requests):
            if when == step:
                own = torch.randint(23, (length,), generator=torch.Generator().manual_seed(9 + i)).tolist()
                prompt = (common[:alike] + own)[:length]
                made.append((i, prompt, served.engine.add(prompt, new, () if end is None else (end,))))
        for i, _, request in made:
            if requests[i][5] and requests[i][4] == step:
                served.engine.abort(request)
                served.check_blocks()
        scheduler = served.engine.scheduler
        if len(made) == len(requests) and not scheduler.waiting and not scheduler.running:
            break
        served.step()
    assert sorted(scheduler.pool.free) == list(range(blocks))
    assert not scheduler.index.block_of
    for i, prompt, request in made:
        should, logits = decoded_alone(alone, prompt, requests[i][2], end)
        count = len(request.written)
        assert request.written == should[:count]
        assert count == len(should) or requests[i][5]
        for mine, right in zip(served.logits.get(request, []), logits, strict=False):
            torch.testing.assert_close(mine, right, rtol=1e-4, atol=1e-4)


def test_a_request_that_is_preempted_again_and_again_still_says_every_token_once(tiny: Any) -> None:
    paged, alone = tiny
    served = Poisoned(paged, 5, 4, 6, 3)
    requests = [served.engine.add([1 + i, 2, 3], 16) for i in range(3)]
    preempted = 0
    preempt = served.engine.scheduler.preempt

    def counted() -> None:
        nonlocal preempted
        preempted += 1
        preempt()

    served.engine.scheduler.preempt = counted
    while served.engine.scheduler.waiting or served.engine.scheduler.running:
        served.step()
    assert preempted > 3
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


def service_of(blocks: int) -> Any:
    """The notebook's own service, of a small engine with the shipped weights."""
    namespace = dict(OWN)
    exec(compile(LESSON.cell_with("class Service"), "service", "exec"), namespace)
    checkpoint = load_checkpoint("austen-qwen3")
    engine = OWN["Engine"](checkpoint.build(OWN["PagedLM"]), blocks, 8, 24, 4)
    return namespace["Service"](engine, checkpoint.tokenizer)


def wait_for(condition: Any) -> bool:
    """Whether it comes true within a minute."""
    for _ in range(6000):
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_every_figure_is_shown() -> None:
    twin = (HERE / "serving.py").read_text(encoding="utf-8")
    assert all(f"figures/{path.name}" in twin for path in (HERE / "figures").iterdir())
