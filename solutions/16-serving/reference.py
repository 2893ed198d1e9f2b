"""What is right in 16-serving: transformers' attention, slots, hashes and generation, and brute force."""

import itertools
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, Qwen3Config
from transformers.generation.continuous_batching.cache_allocators.cache_allocator import compute_block_hash
from transformers.generation.continuous_batching.cache_allocators.full_attention import FullAttentionCacheAllocator
from transformers.models.llama.modeling_llama import LlamaAttention
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3RotaryEmbedding

from grader.authoring.kit import hf
from grader.authoring.kit.toy import reference_generate

from .drives import next_token, weak_at_the_end, weak_hashes

# Memory


def right_share(requests: Sequence[Sequence[int]], policy: int, size: int) -> float:
    held = slots = 0
    for prompt, answer in requests:
        lengths = range(prompt, prompt + answer + 1)
        held += sum(lengths)
        if policy == 0:
            slots += size * len(lengths)
        elif policy == 1:
            slots += sum(-(-length // size) * size for length in lengths)
        elif policy == 4:
            slots += size * answer
        elif policy == 2:
            slots += sum(prompt + (length - prompt) ** 2 + size + answer for length in lengths)
    return held / slots if slots else 0.0


def right_pool(num_blocks: int, steps: Sequence[Sequence[int]]) -> list[int]:
    """Blocks as counters, in the order in which they were taken; one that is free again is another one when it is taken."""
    taken: list[list[int]] = []  # a block's readers; the number of those in use says how many are free
    given = []
    for kind, k in steps:
        used = sum(readers[0] > 0 for readers in taken)
        if kind == 0 and used == num_blocks:
            given.append(8)
        elif kind == 0:
            taken.append([1])
            given.append(0)
        elif taken[k][0] == 0:
            given.append(9)
        else:
            taken[k][0] += 1 if kind == 1 else -1
            given.append(int(kind == 2 and taken[k][0] == 0))
        given += [num_blocks - sum(readers[0] > 0 for readers in taken), sum(readers[0] for readers in taken)]
    return given


def right_two_pools(num_blocks: int, steps: Sequence[Sequence[int]]) -> list[int]:
    given = right_pool(num_blocks, steps)
    return [number for i in range(0, len(given), 3) for number in given[i : i + 3] * 2]


def transformers_slots(blocks: Sequence[int], block_size: int, start: int, end: int) -> list[int]:
    """Where transformers writes the tokens from start to end - 1 of a text with these blocks."""
    if end <= start:
        return []
    allocator = SimpleNamespace(
        block_table={"text": blocks}, tokens_per_page=block_size, block_physical_stride=block_size
    )
    found: list[int] = FullAttentionCacheAllocator.get_write_indices(allocator, "text", start, end - start)
    return found


def blocks_missing(allocated: int, block_size: int, length: int, more: int) -> int:
    """How many blocks transformers would take for `more` tokens."""
    needed = FullAttentionCacheAllocator._compute_blocks_needed
    return int(needed(SimpleNamespace(tokens_per_page=block_size), allocated, length, more))


def right_table(order: Sequence[int], block_size: int, shared: int, steps: Sequence[int]) -> list[int]:
    free, blocks, length = list(order[shared:]), list(order[:shared]), shared * block_size
    begun = list(blocks)
    given: list[int] = []
    for step in steps:
        if step >= 0:
            missing = blocks_missing(len(blocks), block_size, length, step)
            if missing > len(free):
                given.append(-1)
            else:
                blocks, free = blocks + free[:missing], free[missing:]
                given += transformers_slots(blocks, block_size, length, length + step)
                length += step
        elif step == -1:
            own = [block for block in blocks if block not in begun]
            given += sorted(own)
            begun, blocks, length, free = [], [], 0, free + own
        else:
            given += transformers_slots(blocks, block_size, -2 - step, length)
        in_use = len(order) - len(free)
        given += [len(blocks), length, len(free), in_use + len(begun)]
    return [*given, 1]


def right_forks(order: Sequence[int], block_size: int, steps: Sequence[Sequence[int]]) -> list[int]:
    """Texts as lists; blocks as objects that know their readers."""
    texts: list[list[int]] = [[]]
    tables: list[list[set[int]]] = [[]]
    given, token, copies = [], 0, 0

    def in_use() -> int:
        return len({id(block) for table in tables for block in table})

    for kind, k, n in steps:
        if kind == 0:
            own = n > 0 and len(texts[k]) % block_size > 0 and len(tables[k][-1]) > 1
            missing = -(-(len(texts[k]) + n) // block_size) - len(tables[k])
            if missing + own > len(order) - in_use():
                given.append(-1)
            else:
                if own:
                    tables[k].pop().discard(k)
                    tables[k].append({k})
                    copies += 1
                tables[k] += [{k} for _ in range(missing)]
                texts[k] += range(token + 1, token + n + 1)
                token += n
        elif kind == 1:
            tables.append(list(tables[k]))
            texts.append(list(texts[k]))
            for block in tables[-1]:
                block.add(len(tables) - 1)
        else:
            for block in tables[k]:
                block.discard(k)
            tables[k], texts[k] = [], []
        given += [len(order) - in_use(), copies]
    for text, table in zip(texts, tables, strict=True):
        given += [*text, len(table), len(text)]
    return given


# The model's side


def right_packed(chunks: Sequence[Sequence[Any]], block_size: int) -> list[int]:
    positions = [p for ids, start, _ in chunks for p in range(start, start + len(ids))]
    slots = [
        slot
        for ids, start, blocks in chunks
        for slot in transformers_slots(blocks, block_size, start, start + len(ids))
    ]
    ends = [start + len(ids) for ids, start, _ in chunks]
    ids = [token for tokens, _, _ in chunks for token in tokens]
    tables = [block for _, _, blocks in chunks for block in blocks]
    return [*ids, *positions, *slots, *(len(tokens) for tokens, _, _ in chunks), *ends, *tables]


def is_llama(config: Mapping[str, Any]) -> bool:
    return bool(config["model_type"] != "qwen3")


def build_attention(config: Mapping[str, Any]) -> nn.Module:
    made = hf.config(LlamaConfig if is_llama(config) else Qwen3Config, config)
    return (LlamaAttention if is_llama(config) else Qwen3Attention)(made, layer_idx=0)


def call_attention(module: Any, x: Tensor, table: Tensor, texts: Sequence[int], *_: Any) -> Tensor:
    """Each text by itself, whole, under transformers' causal mask."""
    pieces = torch.split(x, list(texts))
    return torch.cat([hf.call_part(module, text[None], table[:, : len(text)])[0] for text in pieces])


def rope_table(length: int, head_dim: int, theta: float) -> Tensor:
    """transformers' cosines and sines: [2, length, head_dim]."""
    parameters = {"rope_type": "default", "rope_theta": theta}
    rotary = Qwen3RotaryEmbedding(Qwen3Config(head_dim=head_dim, rope_parameters=parameters))
    return hf.rope_table(rotary, torch.arange(length))


# Hashes and the index


def transformers_hashes(tokens: Sequence[int], block_size: int) -> list[int]:
    hashes: list[int] = []
    for start in range(0, len(tokens) - block_size + 1, block_size):
        hashes.append(compute_block_hash(hashes[-1] if hashes else None, list(tokens[start : start + block_size])))
    return hashes


def right_hashes(tokens: Sequence[int], block_size: int) -> list[int]:
    hashes = transformers_hashes(tokens, block_size)
    return [len(hashes), *((each >> shift) % 65536 for each in hashes for shift in (0, 16, 32, 48))]


def right_index(block_size: int, weak: int, steps: Sequence[Sequence[Any]]) -> list[int]:
    """A list of what is known: names, beginnings and blocks."""
    name_of = (transformers_hashes, weak_hashes, weak_at_the_end, weak_hashes, weak_hashes)[weak]
    known: list[tuple[int, list[int], int]] = []
    given: list[int] = []
    for kind, tokens, blocks in steps:
        names = name_of(tokens, block_size)
        if kind in (0, 3):
            for i, block in enumerate(blocks[: len(names)]):
                if names[i] not in [name for name, _, _ in known]:
                    known.append((names[i], list(tokens[: (i + 1) * block_size]), block))
        elif kind == 1:
            found: list[int] = []
            while (len(found) + 1) * block_size < len(tokens):
                beginning = list(tokens[: (len(found) + 1) * block_size])
                same = [block for name, text, block in known if text == beginning]
                if not same:
                    break
                found += same
            given += [len(found), *found]
        else:
            known = [entry for entry in known if entry[2] != tokens[0]]
    return given


# The queue


def right_queue(num_blocks: int, block_size: int, steps: Sequence[Sequence[int]]) -> list[int]:
    waiting: list[int] = []
    running: list[int] = []
    forgotten: list[int] = []
    free = list(range(num_blocks))
    own: dict[int, int] = {}  # of the running: the block that nobody else reads
    asked: list[tuple[int, int]] = []
    lengths: list[int] = []
    given: list[int] = []
    for kind, k, n in steps:
        if kind == 0 and (k == 0 or n == 0 or k + n - 1 > num_blocks * block_size):
            given.append(9)
        elif kind == 0:
            waiting.append(len(lengths))
            lengths.append(k)
            asked.append((k, n))
            given += [k, n, 3]
        elif kind == 1:
            waiting.remove(k)
            running.append(k)
            own[k], free = free[0], free[2:]
            lengths[k] += 1
        else:
            gone = running[-1] if kind == 3 else k
            if gone in running:
                forgotten.append(own[gone])
                free.append(own[gone])
            waiting = [*[gone] * (kind == 3), *(r for r in waiting if r != gone)]
            running = [r for r in running if r != gone]
        given += [len(waiting), *waiting, len(running), *running, len(forgotten), *forgotten]
        given += [len(free), *(int(r not in running) for r in range(len(lengths))), *lengths]
        for r in [*waiting, *running]:
            given += [lengths[r] - asked[r][0], asked[r][1]]
    return [*given, 1]


# The scheduler, on paper: blocks are counted, and a beginning that is in memory has a set of readers


class Paper:
    """A scheduler that only counts. numbers: blocks, block size, budget, most running. answers: of each request, if known."""

    def __init__(self, numbers: Sequence[int], shares: bool, answers: Sequence[Sequence[int]] = ()) -> None:
        self.answers = answers
        self.num_blocks, self.size, self.budget, self.most = numbers
        self.shares = shares
        self.texts: list[list[int]] = []
        self.news: list[int] = []
        self.read: dict[int, int] = {}  # of the running, in order: tokens in memory
        self.tables: dict[int, list[object]] = {}
        self.waiting: list[int] = []
        self.known: dict[tuple[int, ...], object] = {}

    def free(self) -> int:
        return self.num_blocks - len({id(block) for table in self.tables.values() for block in table})

    def leave(self, k: int) -> None:
        self.read.pop(k)
        self.tables.pop(k)
        used = {id(block) for table in self.tables.values() for block in table}
        self.known = {text: block for text, block in self.known.items() if id(block) in used}

    def grow(self, k: int, n: int) -> bool:
        missing = -(-(self.read[k] + n) // self.size) - len(self.tables[k])
        if missing > self.free():
            return False
        self.tables[k] += [object() for _ in range(missing)]
        self.read[k] += n
        return True

    def plan(self) -> list[tuple[int, int]]:
        plan, left, preempted = [], self.budget, False
        for k in list(self.read):
            while k in self.read and left:
                n = min(len(self.texts[k]) - self.read[k], left)
                if self.grow(k, n):
                    plan.append((k, n))
                    left -= n
                    break
                newest = list(self.read)[-1]
                self.leave(newest)
                self.waiting.insert(0, newest)
                preempted = True
        while self.waiting and left and not preempted and len(self.read) < self.most:
            k = self.waiting[0]
            found: list[object] = []
            while (end := (len(found) + 1) * self.size) < len(self.texts[k]):
                if tuple(self.texts[k][:end]) not in self.known:
                    break
                found.append(self.known[tuple(self.texts[k][:end])])
            self.read[k], self.tables[k] = len(found) * self.size, found
            n = min(len(self.texts[k]) - self.read[k], left)
            if not self.grow(k, n):
                del self.read[k], self.tables[k]
                break
            self.waiting.pop(0)
            plan.append((k, n))
            left -= n
        return plan

    def passed(self, plan: Sequence[tuple[int, int]]) -> None:
        for k, _ in plan:
            if self.shares:
                for i in range(self.read[k] // self.size):
                    self.known.setdefault(tuple(self.texts[k][: (i + 1) * self.size]), self.tables[k][i])
            if self.read[k] == len(self.texts[k]):
                text = self.texts[k]
                text.append(self.answers[k][-self.news[k]] if self.answers else next_token(text))
                self.news[k] -= 1
                if self.news[k] == 0:
                    self.leave(k)


def on_paper(
    numbers: Sequence[int], arrivals: Sequence[Sequence[Any]], shares: bool, answers: Sequence[Sequence[int]] = ()
) -> list[list[Any]]:
    """Each pass: the plan as (request, tokens, tokens in memory then), free blocks, waiting requests, who gets a token."""
    paper = Paper(numbers, shares, answers)
    passes: list[list[Any]] = []
    for step in range(200):
        for when, prompt, new in arrivals:
            if when == step:
                paper.waiting.append(len(paper.texts))
                paper.texts.append(list(prompt))
                paper.news.append(new)
        if len(paper.texts) == len(arrivals) and not paper.waiting and not paper.read:
            return passes
        plan = paper.plan()
        shown = [(k, n, paper.read[k]) for k, n in plan]
        due = sum(paper.read[k] == len(paper.texts[k]) for k, _ in plan)
        passes.append([shown, paper.free(), len(paper.waiting), due])
        paper.passed(plan)
    raise ValueError("the requests of a case are not done after 200 passes")


def right_schedule(numbers: Sequence[int], arrivals: Sequence[Sequence[Any]], shares: bool) -> list[int]:
    given: list[int] = []
    for plan, free, waiting, _ in on_paper(numbers, arrivals, shares):
        given += [len(plan), *(number for entry in plan for number in entry), free, waiting, 0]
    return given


# The engine


def alone(toy: Any, prompt: Sequence[int], new: int, end: int | None) -> list[int]:
    """What transformers' greedy generate writes after a prompt, for this user alone."""
    found: list[int] = reference_generate(toy, torch.tensor([list(prompt)]), new, end).tolist()
    return found


def right_answers(
    toy: Any,
    numbers: Sequence[int],
    arrivals: Sequence[Sequence[Any]],
    end: int | None,
    aborts: Sequence[Sequence[int]],
) -> list[int]:
    given: list[int] = []
    for k, (_, prompt, new) in enumerate(arrivals):
        if k not in [gone for _, gone in aborts]:
            tokens = alone(toy, prompt, new, end)
            given += [len(tokens), *tokens]
    return [*given, numbers[0]]


def right_rows(
    toy: Any, numbers: Sequence[int], arrivals: Sequence[Sequence[Any]], end: None, aborts: Sequence[Sequence[int]]
) -> list[int]:
    """By the schedule on paper, with what each would have written alone."""
    passes = on_paper(numbers, arrivals, True, [alone(toy, prompt, new, end) for _, prompt, new in arrivals])
    return [*(sum(n for _, n, _ in plan) for plan, *_ in passes), *(due for *_, due in passes)]


def right_known(
    toy: Any, numbers: Sequence[int], arrivals: Sequence[Sequence[Any]], end: None, aborts: Sequence[Sequence[int]]
) -> list[int]:
    """By the schedule on paper: the blocks in which a running request's tokens are known, up to the last of them."""
    paper = Paper(numbers, True, [alone(toy, prompt, new, end) for _, prompt, new in arrivals])
    for k, (_, prompt, new) in enumerate(arrivals):
        paper.waiting.append(k)
        paper.texts.append(list(prompt))
        paper.news.append(new)
    given: list[int] = []

    def known(k: int) -> int:
        text = paper.texts[k]
        ends = range(paper.size, len(text) + 1, paper.size)
        return sum(1 for _ in itertools.takewhile(lambda end: tuple(text[:end]) in paper.known, ends))

    while paper.waiting or paper.read:
        plan = paper.plan()
        given += map(known, paper.read)
        paper.passed(plan)
        given += map(known, paper.read)
    return given


def right_idle(toy: Any, numbers: Sequence[int], arrivals: Sequence[Sequence[Any]], *_: Any) -> list[int]:
    return [0, 0, *[1] * arrivals[0][2]]


# Measures


def right_report(requests: Sequence[Sequence[Any]], ttft_limit: float, tpot_limit: float) -> Tensor:
    ttfts, tpots, good = [], [], 0
    for arrival, times in requests:
        gaps = [after - before for before, after in itertools.pairwise(times)]
        ttfts.append(times[0] - arrival)
        tpots.append(sum(gaps) / len(gaps) if gaps else 0.0)
        good += ttfts[-1] <= ttft_limit and tpots[-1] <= tpot_limit
    duration = max(time for _, times in requests for time in times) - min(arrival for arrival, _ in requests)
    return torch.tensor([*ttfts, *tpots, good / duration])


def right_budget(prompt: int, running: int, costs: Sequence[float], limit: float) -> int:
    fixed, each, group, odd = costs
    tried = []
    for budget in range(running + 1, running + prompt + 1):
        unread, waits = prompt, []
        while unread > 0:
            rows = min(budget, running + unread)
            unread -= rows - running
            waits.append(fixed + each * rows + odd * (rows % int(group) > 0))
        if sum(waits) <= limit:
            tried.append((max(waits), budget))
    return min(tried)[1] if tried else 0
