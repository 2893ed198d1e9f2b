"""What tests/lessons/test_every_lesson.py asks of serving: other right programs and wrong ones, random requests."""

import hashlib
import math
import struct
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from grader.authoring.kit import Case
from grader.authoring.kit.declared import Change, Numbers, Prompt, Rerun, Told, Trained
from grader.authoring.kit.solved import lesson_of

from . import exercises

LESSON = lesson_of(__file__)
OWN = LESSON.solutions

MISTAKES = 155
VARIES = ["serving.waste", "serving.pool", "serving.fork", "serving.queue", "serving.attention", "serving.budget"]
NO_MODEL = "its model is lesson 03's, which is checked there"
COUNTS = "it is about whole numbers"
WITHOUT = {
    **dict.fromkeys(("TRACE", "PLANTED", "HUB", "SIZES"), NO_MODEL),
    "bfloat16": {
        "serving.waste": "it is a Python float",
        **dict.fromkeys(
            ("serving.pool", "serving.table", "serving.fork", "serving.pack", "serving.hashes", "serving.prefix"),
            COUNTS,
        ),
        **dict.fromkeys(("serving.queue", "serving.schedule", "serving.engine", "serving.budget"), COUNTS),
        "serving.report": "times are Python floats",
    },
    "CONFIG_SHA256": "it has no configs of its own",
    "stored answers": dict.fromkeys(
        (
            "serving.pool",
            "serving.table",
            "serving.fork",
            "serving.queue",
            "serving.schedule",
            "serving.engine",
        ),
        "what its methods give depends on what was done before, and objects go in and out: a table of it is right nowhere",
    ),
}


# Random requests


CONFIGS = st.fixed_dictionaries(
    {
        "head_dim": st.sampled_from([4, 6, 8]),
        "kv_heads": st.integers(1, 3),
        "group": st.integers(1, 4),
        "hidden": st.integers(9, 33),
        "block": st.integers(1, 6),
        "budget": st.integers(1, 20),
        "places": st.integers(1, 5),
        "spare": st.integers(0, 9),
        "qwen": st.booleans(),
        "alike": st.booleans(),
    }
)


def drawn(n: Numbers, *bounds: int) -> list[int]:
    """A number from 1 to each bound."""
    generator = torch.Generator().manual_seed(n.seed)
    return [1 + int(torch.randint(bound, (1,), generator=generator)) for bound in bounds]


def of_waste(config: dict[str, Any], n: Numbers) -> Case:
    lengths = drawn(n, *(30,) * 8)
    requests = list(zip(lengths[::2], lengths[1::2], strict=True))
    return exercises.waste_case(str(n.seed), requests, n.seed % 3, 20 + config["block"])


def of_pool(config: dict[str, Any], n: Numbers) -> Case:
    blocks = 2 + config["spare"]
    return Case(str(n.seed), lambda draw: [blocks, exercises.random_pool(draw, blocks, 40)])


def of_table(config: dict[str, Any], n: Numbers) -> Case:
    steps = [step for i, step in enumerate(drawn(n, *(9,) * 6)) for step in ((step, -2) if i != 3 else (-1, step))]
    return exercises.table_case(str(n.seed), 4 + config["spare"], config["block"], n.seed % 3, steps)


def of_fork(config: dict[str, Any], n: Numbers) -> Case:
    steps, tables = [[0, 0, 1 + n.length]], 1
    for kind, which, count in zip(drawn(n, *(4,) * 12), drawn(n, *(12,) * 12), drawn(n, *(5,) * 12), strict=True):
        k = which % tables
        steps.append([(0, 0, 1, 2)[kind - 1], k, count - 1])
        tables += kind == 3
    return exercises.fork_case(str(n.seed), 6 + config["spare"], config["block"], steps)


def of_pack(config: dict[str, Any], n: Numbers) -> Case:
    numbers = drawn(n, *(6,) * 8)
    chunks = [(count, start - 1) for count, start in zip(numbers[::2], numbers[1::2], strict=True)]
    return exercises.pack_case(str(n.seed), 1 + config["block"], *chunks)


def of_attention(config: dict[str, Any], n: Numbers) -> Case:
    heads = config["kv_heads"] * config["group"]
    multiple = heads * max(config["hidden"] // heads, 1)  # transformers wants one of a Llama
    fields = exercises.SMALL | {
        "model_type": "qwen3" if config["qwen"] else "llama",
        "hidden_size": config["hidden"] if config["qwen"] else multiple,
        "num_attention_heads": heads,
        "num_key_value_heads": config["kv_heads"],
        "head_dim": config["head_dim"],
    }
    texts = drawn(n, *(9,) * (1 + n.batch))
    cuts = [number % (text + 1) for number, text in zip(drawn(n, *(50,) * len(texts)), texts, strict=True)]
    passes = [cuts, [text - cut for text, cut in zip(texts, cuts, strict=True)]]
    return exercises.attention_case(str(n.seed), fields, texts, [sizes for sizes in passes if sum(sizes)])


def of_hashes(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.hash_case(str(n.seed), n.length + config["block"], config["block"], 1000)


def of_prefix(config: dict[str, Any], n: Numbers) -> Case:
    steps: list[list[Any]] = [[0, "a", [1, 5, 2]], [0, f"ab{n.length}", [0, 3, 4, 6]], [1, f"ac{n.batch}", 20]]
    steps += [[1, f"ab{n.length}", 5 + n.length], [2, n.seed % 7, 0], [1, "a", n.length], [1, f"ab{n.length}", 30]]
    return exercises.texts_case(str(n.seed), 1 + config["block"], 0, steps)


def of_queue(config: dict[str, Any], n: Numbers) -> Case:
    prompts = drawn(n, 5, 6, 7)
    steps = [[0, prompt, 1 + i] for i, prompt in enumerate(prompts)] + [[1, 0, 0], [1, 1, 0]]
    steps += [[2, n.seed % 3, 0], [3, 0, 0]] if n.seed % 2 else [[3, 0, 0], [2, n.seed % 3, 0]]
    return exercises.queue_case(str(n.seed), 4 + config["spare"], 4, steps)


def requests_of(config: dict[str, Any], n: Numbers) -> tuple[list[int], list[list[int]]]:
    """Numbers of a scheduler that has room for each of some random requests alone, and these requests."""
    lengths, news, when = (drawn(n, *(bound,) * 4) for bound in (12, 8, 5))
    requests = [[at - 1, length, new] for at, length, new in zip(when, lengths, news, strict=True)]
    if config["alike"]:
        requests = [[*request, max(1, request[1] - 1 - i % 2)] for i, request in enumerate(requests)]
    requests[0][0] = 0
    most = max(-(-(length + new) // config["block"]) for length, new in zip(lengths, news, strict=True))
    return [most + config["spare"], config["block"], config["budget"], config["places"]], sorted(requests)


def of_schedule(config: dict[str, Any], n: Numbers) -> Case:
    numbers, requests = requests_of(config, n)
    return exercises.schedule_case(str(n.seed), numbers, requests, config["alike"])


def of_engine(config: dict[str, Any], n: Numbers) -> Case:
    numbers, requests = requests_of(config, n)
    requests[0][2] = max(4, requests[0][2])
    requests[1][1] = max(3, requests[1][1])  # its third token may be the one that ends answers
    # The third may begin with all of the first, and its answer.
    numbers[0] = config["spare"] - (-(max(r[1] for r in requests) + 2 * max(r[2] for r in requests)) // config["block"])
    aborts = [[2 + n.seed % 4, 1]] if n.seed % 3 == 0 and requests[1][0] <= 2 else []
    return exercises.engine_case(str(n.seed), numbers, requests, bool(n.seed % 2), aborts)


def of_report(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.report_case(str(n.seed), drawn(n, *(8,) * 5), [1.3, 0.72], 0.1 + config["spare"])


def of_budget(config: dict[str, Any], n: Numbers) -> Case:
    costs = [2.0 * config["spare"], 1.0, config["block"], 0.5]
    return exercises.budget_case(
        str(n.seed), 20 + 3 * n.length, config["budget"], costs, 40.0 + 9 * n.length + n.seed % 60
    )


RANDOM = {
    "serving.waste": of_waste,
    "serving.pool": of_pool,
    "serving.table": of_table,
    "serving.fork": of_fork,
    "serving.pack": of_pack,
    "serving.attention": of_attention,
    "serving.hashes": of_hashes,
    "serving.prefix": of_prefix,
    "serving.queue": of_queue,
    "serving.schedule": of_schedule,
    "serving.engine": of_engine,
    "serving.report": of_report,
    "serving.budget": of_budget,
}


# Other right programs


def share_by_sums(requests: Sequence[tuple[int, int]], reserve: Callable[[int, int, int], int]) -> float:
    moments = [(p, a, w) for p, a in requests for w in range(a + 1)]
    slots = sum(reserve(*moment) for moment in moments)
    return 0.0 if slots == 0 else sum(p + w for p, _, w in moments) / slots


def share_in_closed_form(requests: Sequence[tuple[int, int]], reserve: Callable[[int, int, int], int]) -> float:
    held = sum((a + 1) * p + a * (a + 1) // 2 for p, a in requests)
    slots = sum(sum(reserve(p, a, w) for w in reversed(range(a + 1))) for p, a in requests)
    return held / slots if slots > 0 else 0.0


class LastInFirstOut:
    """The block that became free last is handed out first."""

    def __init__(self, num_blocks: int) -> None:
        self.refs = [0] * num_blocks
        self.free = deque(range(num_blocks))

    def take(self) -> int:
        try:
            block = self.free.pop()
        except IndexError:
            raise MemoryError from None
        self.refs[block] += 1
        return block

    def share(self, block: int) -> None:
        if block in self.free:
            raise ValueError(block)
        self.refs[block] += 1

    def give_back(self, block: int) -> bool:
        if block in self.free:
            raise ValueError(block)
        self.refs[block] -= 1
        if self.refs[block]:
            return False
        self.free.append(block)
        return True


class RandomOrder(LastInFirstOut):
    """Any free block will do."""

    def take(self) -> int:
        if not self.free:
            raise MemoryError("all blocks are in use")
        block = sorted(self.free, key=lambda b: (b * 7919) % 31)[0]
        self.free.remove(block)
        self.refs[block] = 1
        return block


class TableByDivmod:
    """Slots by divmod, blocks taken one after the other."""

    length: int

    def __init__(self, pool: Any, block_size: int, shared: Sequence[int] = ()) -> None:
        self.pool, self.block_size, self.blocks = pool, block_size, []  # type: ignore[var-annotated]
        for block in shared:
            pool.share(block)
            self.blocks.append(block)
        self.length = block_size * len(shared)

    def slots(self, start: int, end: int) -> list[int]:
        found = []
        for position in range(start, end):
            number, place = divmod(position, self.block_size)
            found.append(self.blocks[number] * self.block_size + place)
        return found

    def append(self, n: int) -> list[int]:
        taken: list[int] = []
        while (len(self.blocks) + len(taken)) * self.block_size < self.length + n:
            try:
                taken.append(self.pool.take())
            except MemoryError:
                for block in reversed(taken):  # as they were
                    self.pool.give_back(block)
                    self.pool.free.insert(0, self.pool.free.pop())
                raise
        self.blocks.extend(taken)
        start, self.length = self.length, self.length + n
        return self.slots(start, self.length)

    def release(self) -> list[int]:
        freed = []
        while self.blocks:
            block = self.blocks.pop(0)
            if self.pool.give_back(block):
                freed.append(block)
        self.length = 0
        return freed


class TableByRange(TableByDivmod):
    """All slots of all blocks, of which a part is taken."""

    def slots(self, start: int, end: int) -> list[int]:
        whole = [slot for b in self.blocks for slot in range(b * self.block_size, (b + 1) * self.block_size)]
        return whole[start:end]

    def append(self, n: int) -> list[int]:
        room = len(self.blocks) * self.block_size - self.length
        wanted = -(-max(n - room, 0) // self.block_size)
        if len(self.pool.free) < wanted:
            raise MemoryError
        for _ in range(wanted):
            self.blocks.append(self.pool.take())
        self.length += n
        return self.slots(self.length - n, self.length)


class ForkByConstructor(OWN["BlockTable"]):  # type: ignore[misc, name-defined, valid-type]
    """The fork shares by the constructor, and the copy is made before the rest."""

    length: int

    def __init__(
        self, pool: Any, block_size: int, copy: Callable[[int, int], None], shared: Sequence[int] = ()
    ) -> None:
        super().__init__(pool, block_size, shared)
        self.copy = copy

    def fork(self) -> Any:
        twin = type(self)(self.pool, self.block_size, self.copy, self.blocks)
        twin.length = self.length
        return twin

    def append(self, n: int) -> list[int]:
        B = self.block_size
        copies = n > 0 and self.length % B != 0 and self.pool.refs[self.blocks[-1]] >= 2
        needed = -(-(self.length + n) // B) - len(self.blocks) + int(copies)
        if needed > len(self.pool.free):
            raise MemoryError
        if copies:
            shared = self.blocks.pop()
            self.blocks.append(self.pool.take())
            self.copy(shared, self.blocks[-1])
            self.pool.give_back(shared)
        found: list[int] = super().append(n)
        return found


class ForkByHand(ForkByConstructor):
    """Everything by hand, over the blocks' numbers."""

    def append(self, n: int) -> list[int]:
        end = self.length + n
        number, place = divmod(self.length, self.block_size)
        new = max(0, (end - 1) // self.block_size + 1 - len(self.blocks)) if n else 0
        own = bool(place and n and self.pool.refs[self.blocks[number]] != 1)
        if len(self.pool.free) < new + own:
            raise MemoryError(f"{new + own}")
        if own:
            block = self.pool.take()
            self.copy(self.blocks[number], block)
            self.pool.give_back(self.blocks[number])
            self.blocks[number] = block
        self.blocks += [self.pool.take() for _ in range(new)]
        self.length = end
        found: list[int] = self.slots(end - n, end)
        return found


def pack_by_tensors(chunks: Sequence[Any], block_size: int) -> Any:
    sizes = [len(ids) for ids, _, _ in chunks]
    starts = torch.tensor([start for _, start, _ in chunks])
    ends = torch.tensor(sizes).cumsum(0)
    own = torch.repeat_interleave(torch.arange(len(chunks)), torch.tensor(sizes))
    positions = torch.arange(sum(sizes)) - (ends - torch.tensor(sizes))[own] + starts[own]
    longest = max(len(blocks) for _, _, blocks in chunks)
    tables = torch.tensor([[*blocks, *[-1] * (longest - len(blocks))] for _, _, blocks in chunks])
    slots = tables[own, positions // block_size] * block_size + positions % block_size
    ids = torch.tensor([token for tokens, _, _ in chunks for token in tokens])
    lengths = (starts + torch.tensor(sizes)).tolist()
    return OWN["Batch"](ids, positions, slots, [list(blocks) for _, _, blocks in chunks], sizes, lengths)


def pack_in_a_loop(chunks: Sequence[Any], block_size: int) -> Any:
    rows = []
    for ids, start, blocks in chunks:
        for i, token in enumerate(ids):
            number, place = divmod(start + i, block_size)
            rows.append((token, start + i, blocks[number] * block_size + place))
    ids, positions, slots = (torch.tensor(column) for column in zip(*rows, strict=True))
    tables, sizes, lengths = [], [], []
    for tokens, start, blocks in chunks:
        tables.append(blocks[:])
        sizes.append(len(tokens))
        lengths.append(start + len(tokens))
    return OWN["Batch"](ids, positions, slots, tables, sizes, lengths)


class AttentionByMask(OWN["Attention"]):  # type: ignore[misc, name-defined, valid-type]
    """All texts' keys at once, one mask for all: a query sees the keys of its own text up to its own position."""

    def forward(self, x: Tensor, table: Tensor, keys: Tensor, values: Tensor, batch: Any) -> Tensor:
        N = len(x)
        q = self.q_norm(self.q_proj(x).unflatten(-1, (-1, self.head_dim))).transpose(0, 1)
        k = self.k_norm(self.k_proj(x).unflatten(-1, (-1, self.head_dim))).transpose(0, 1)
        q, k = OWN["apply_rope"](q, table), OWN["apply_rope"](k, table)
        keys.flatten(0, 1).index_copy_(0, batch.slots, k.transpose(0, 1).contiguous())
        values.flatten(0, 1).index_copy_(0, batch.slots, self.v_proj(x).view(N, -1, self.head_dim))
        B, places, owners = keys.shape[1], [], []
        for i, (blocks, length) in enumerate(zip(batch.tables, batch.lengths, strict=True)):
            places += [blocks[p // B] * B + p % B for p in range(length)]
            owners += [[i, p] for p in range(length)]
        k, v = (m.flatten(0, 1)[places].transpose(0, 1).repeat_interleave(self.group, 0) for m in (keys, values))
        rows = [
            [i, p]
            for i, (n, end) in enumerate(zip(batch.sizes, batch.lengths, strict=True))
            for p in range(end - n, end)
        ]
        row, owner = torch.tensor(rows), torch.tensor(owners)
        seen = (row[:, :1] == owner[:, 0]) & (owner[:, 1] <= row[:, 1:])
        scores = (q @ k.transpose(-2, -1)).float() * self.head_dim**-0.5
        weights = scores.masked_fill(~seen, float("-inf")).softmax(-1).to(x.dtype)
        return self.o_proj((weights @ v).transpose(0, 1).reshape(N, -1))


class AttentionByQuery(OWN["Attention"]):  # type: ignore[misc, name-defined, valid-type]
    """Query by query, without a mask: the keys up to its position alone."""

    def forward(self, x: Tensor, table: Tensor, keys: Tensor, values: Tensor, batch: Any) -> Tensor:
        q = self.q_norm(self.q_proj(x).view(len(x), -1, self.head_dim)).transpose(0, 1)
        k = self.k_norm(self.k_proj(x).view(len(x), -1, self.head_dim)).transpose(0, 1)
        q, k = OWN["apply_rope"](q, table).transpose(0, 1), OWN["apply_rope"](k, table).transpose(0, 1)
        v, B = self.v_proj(x).view(len(x), -1, self.head_dim), keys.shape[1]
        for i, slot in enumerate(batch.slots.tolist()):
            keys[slot // B, slot % B], values[slot // B, slot % B] = k[i], v[i]
        mixed, row = [], 0
        for blocks, size, length in zip(batch.tables, batch.sizes, batch.lengths, strict=True):
            for end in range(length - size + 1, length + 1):
                own = [
                    m[blocks].reshape(-1, *m.shape[2:])[:end].repeat_interleave(self.group, 1) for m in (keys, values)
                ]
                weights = torch.einsum("hd,shd->hs", q[row], own[0]).float() * self.head_dim**-0.5
                mixed.append(torch.einsum("hs,shd->hd", weights.softmax(-1).to(x.dtype), own[1]).flatten())
                row += 1
        return self.o_proj(torch.stack(mixed))


def hashes_by_bytes(tokens: Sequence[int], block_size: int) -> list[int]:
    found: list[int] = []
    last = b""
    for i in range(len(tokens) // block_size):
        block = tokens[i * block_size : (i + 1) * block_size]
        last = hashlib.blake2b(last + struct.pack(f"<{block_size}i", *block), digest_size=8).digest()
        found.append(int.from_bytes(last, "little"))
    return found


def hashes_by_recursion(tokens: Sequence[int], block_size: int) -> list[int]:
    whole = len(tokens) - len(tokens) % block_size
    if whole == 0:
        return []
    before = hashes_by_recursion(tokens[: whole - block_size], block_size)
    h = hashlib.blake2b(digest_size=8)
    for last in before[-1:]:
        h.update(struct.pack("<Q", last))
    h.update(torch.tensor(tokens[whole - block_size : whole], dtype=torch.int32).numpy().tobytes())
    return [*before, struct.unpack("<Q", h.digest())[0]]


class IndexByTokens:
    """Python's own dictionary hashes and compares; the given hashes only say which block may not be known."""

    def __init__(self, block_size: int, hashes: Any = OWN["block_hashes"]) -> None:
        self.size, self.hashes = block_size, hashes
        self.by_text: dict[tuple[int, ...], int] = {}
        self.taken: dict[int, int] = {}  # block -> hash

    def add(self, tokens: Sequence[int], blocks: Sequence[int]) -> None:
        for i, (name, block) in enumerate(zip(self.hashes(tokens, self.size), blocks, strict=False)):
            if name not in self.taken.values():
                self.taken[block] = name
                self.by_text[tuple(tokens[: (i + 1) * self.size])] = block

    def find(self, tokens: Sequence[int]) -> list[int]:
        found: list[int] = []
        for end in range(self.size, len(tokens), self.size):
            if tuple(tokens[:end]) not in self.by_text:
                break
            found.append(self.by_text[tuple(tokens[:end])])
        return found

    def forget(self, block: int) -> None:
        self.taken.pop(block, None)
        self.by_text = {text: other for text, other in self.by_text.items() if other != block}


class IndexByChain:
    """Each entry knows the block before it and its own tokens."""

    def __init__(self, block_size: int, hashes: Any = OWN["block_hashes"]) -> None:
        self.size, self.hashes, self.entries = block_size, hashes, OrderedDict()  # type: ignore[var-annotated]

    def add(self, tokens: Sequence[int], blocks: Sequence[int]) -> None:
        count = len(tokens) // self.size
        names = self.hashes(list(tokens), self.size)
        for i, block in enumerate(blocks[:count]):
            self.entries.setdefault(names[i], (block, tuple(tokens[: self.size * (i + 1)])))

    def find(self, tokens: Sequence[int]) -> list[int]:
        names = self.hashes(list(tokens), self.size)
        found: list[int] = []
        for i in range((len(tokens) - 1) // self.size):
            block, text = self.entries.get(names[i], (None, ()))
            if text != tuple(tokens[: self.size * (i + 1)]):
                return found
            found.append(block)
        return found

    def forget(self, block: int) -> None:
        for name, (other, _) in list(self.entries.items()):
            if other == block:
                del self.entries[name]


class QueueByFilters(OWN["Queue"]):  # type: ignore[misc, name-defined, valid-type]
    """Lists without the request, in place of remove."""

    waiting: Any

    def add(self, prompt: Sequence[int], max_new_tokens: int, end_tokens: Any = ()) -> Any:
        slots = self.block_size * len(self.pool.refs)
        if len(prompt) == 0 or max_new_tokens <= 0 or slots < len(prompt) - 1 + max_new_tokens:
            raise ValueError("it can't be served")
        self.waiting.append(OWN["Request"]([*prompt], max_new_tokens, end_tokens))
        return self.waiting[-1]

    def remove(self, request: Any) -> None:
        self.waiting = deque(each for each in self.waiting if each is not request)
        self.running[:] = [each for each in self.running if each is not request]
        table, request.table = request.table, None
        for block in table.release() if table else ():
            self.index.forget(block)

    def preempt(self) -> None:
        request = self.running[len(self.running) - 1]
        self.remove(request)
        self.waiting.insert(0, request)


class QueueByState(QueueByFilters):
    """Where a request is follows from its table."""

    def remove(self, request: Any) -> None:
        if request.table is None:
            if request in self.waiting:
                self.waiting.remove(request)
            return
        self.running.remove(request)
        freed = request.table.release()
        request.table = None
        while freed:
            self.index.forget(freed.pop())

    def preempt(self) -> None:
        request = self.running.pop()
        self.running.append(request)
        self.remove(request)
        self.waiting.appendleft(request)


class QueueByReaders(QueueByFilters):
    """Looks up in the pool which blocks have become free."""

    def remove(self, request: Any) -> None:
        for queue in (self.waiting, self.running):
            if request in queue:
                queue.remove(request)
        blocks = list(request.table.blocks) if request.table else []
        if request.table:
            request.table.release()
        request.table = None
        for block in blocks:
            if self.pool.refs[block] == 0:
                self.index.forget(block)


class SchedulerByCounting(OWN["Scheduler"]):  # type: ignore[misc, name-defined, valid-type]
    """Counts free blocks before it asks for any."""

    def fits(self, table: Any, n: int) -> bool:
        B = self.block_size
        return -(-(table.length + n) // B) - len(table.blocks) <= len(self.pool.free)

    def schedule(self) -> list[tuple[Any, int]]:
        plan, left, preempted, i = [], self.budget, False, 0
        while i < len(self.running) and left > 0:
            request = self.running[i]
            n = min(left, len(request.tokens) - request.table.length)
            if not self.fits(request.table, n):
                self.preempt()
                preempted = True
                continue
            request.table.append(n)
            plan.append((request, n))
            left, i = left - n, i + 1
        while not preempted and left > 0 and self.waiting and len(self.running) < self.max_running:
            request = self.waiting[0]
            table = OWN["BlockTable"](self.pool, self.block_size, self.index.find(request.tokens))
            n = min(left, len(request.tokens) - table.length)
            if not self.fits(table, n):
                table.release()
                break
            table.append(n)
            request.table = table
            self.running.append(self.waiting.popleft())
            plan.append((request, n))
            left -= n
        return plan


class SchedulerByRecursion(SchedulerByCounting):
    """One request after the other, by recursion."""

    def schedule(self) -> list[tuple[Any, int]]:
        return self.running_from(0, self.budget, False)

    def running_from(self, i: int, left: int, preempted: bool) -> list[tuple[Any, int]]:
        if left == 0:
            return []
        if i >= len(self.running):
            return [] if preempted else self.next_one(left)
        request = self.running[i]
        n = min(len(request.tokens) - request.table.length, left)
        try:
            request.table.append(n)
        except MemoryError:
            self.preempt()
            return self.running_from(i, left, True)
        return [(request, n), *self.running_from(i + 1, left - n, preempted)]

    def next_one(self, left: int) -> list[tuple[Any, int]]:
        if not self.waiting or left == 0 or len(self.running) == self.max_running:
            return []
        request = self.waiting[0]
        request.table = OWN["BlockTable"](self.pool, self.block_size, self.index.find(request.tokens))
        n = min(len(request.tokens) - request.table.length, left)
        if not self.fits(request.table, n):
            request.table.release()
            request.table = None
            return []
        request.table.append(n)
        self.waiting.popleft()
        self.running.append(request)
        return [(request, n), *self.next_one(left - n)]


class EngineInTwoLoops(OWN["Engine"]):  # type: ignore[misc, name-defined, valid-type]
    """First all tokens, then who is done."""

    @torch.no_grad()
    def step(self) -> list[tuple[Any, int]]:
        plan = self.scheduler.schedule()
        if len(plan) == 0:
            return []
        chunks = []
        for request, n in plan:
            end = request.table.length
            chunks.append((request.tokens[end - n : end], end - n, list(request.table.blocks)))
        best = self.model(OWN["pack"](chunks, self.scheduler.block_size), self.memory).argmax(-1).tolist()
        for request, _ in plan:
            self.scheduler.index.add(request.tokens[: request.table.length], request.table.blocks)
        due = [(r, token) for (r, _), token in zip(plan, best, strict=True) if r.table.length == len(r.tokens)]
        for request, token in due:
            request.tokens.append(token)
            if request.max_new_tokens <= len(request.tokens) - request.prompt or token in set(request.end_tokens):
                self.scheduler.remove(request)
        return due


class EngineByTail(OWN["Engine"]):  # type: ignore[misc, name-defined, valid-type]
    """What is read is what the table has grown by."""

    def step(self) -> list[tuple[Any, int]]:
        plan = self.scheduler.schedule()
        given: list[tuple[Any, int]] = []
        if plan:
            ends = {request: request.table.length for request, _ in plan}
            pieces = [(r.tokens[: ends[r]][-n:], ends[r] - n, r.table.blocks) for r, n in plan]
            with torch.no_grad():
                logits = self.model(OWN["pack"](pieces, self.scheduler.block_size), self.memory)
            for i, request in enumerate(ends):
                self.scheduler.index.add(request.tokens[: ends[request]], request.table.blocks)
                if ends[request] < len(request.tokens):
                    continue
                given.append((request, int(logits[i].max(dim=0).indices)))
                request.tokens.append(given[-1][1])
                stop = any(given[-1][1] == end for end in request.end_tokens)
                if stop or len(request.written) >= request.max_new_tokens:
                    self.scheduler.remove(request)
        return given


def report_in_a_loop(
    requests: Sequence[Any], ttft_limit: float, tpot_limit: float
) -> tuple[list[float], list[float], float]:
    firsts, paces, good = [], [], 0
    begin, end = math.inf, -math.inf
    for arrival, times in requests:
        first = times[0] - arrival
        pace = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
        firsts.append(first)
        paces.append(pace)
        good += int(first <= ttft_limit) * int(pace <= tpot_limit)
        begin, end = min(begin, arrival), max(end, times[-1])
    return firsts, paces, good / (end - begin)


def report_by_tensors(
    requests: Sequence[Any], ttft_limit: float, tpot_limit: float
) -> tuple[list[float], list[float], float]:
    arrivals = torch.tensor([arrival for arrival, _ in requests], dtype=torch.float64)
    firsts, lasts = (torch.tensor([times[i] for _, times in requests], dtype=torch.float64) for i in (0, -1))
    counts = torch.tensor([len(times) for _, times in requests])
    ttfts, tpots = firsts - arrivals, (lasts - firsts) / (counts - 1).clamp(min=1)
    good = ((ttfts <= ttft_limit) & (tpots <= tpot_limit)).sum().item()
    return ttfts.tolist(), tpots.tolist(), good / (lasts.max() - arrivals.min()).item()


def budget_by_simulation(prompt: int, running: int, cost: Callable[[int], float], ttft_limit: float) -> int:
    best, shortest = 0, math.inf
    for budget in range(running + 1, running + prompt + 1):
        unread, took, longest = prompt, 0.0, 0.0
        while unread:
            chunk = min(unread, budget - running)
            unread -= chunk
            took += cost(running + chunk)
            longest = max(longest, cost(running + chunk))
        if took <= ttft_limit and longest < shortest:
            best, shortest = budget, longest
    return best


def budget_by_sorting(prompt: int, running: int, cost: Callable[[int], float], ttft_limit: float) -> int:
    def waits(budget: int) -> list[float]:
        share = budget - running
        return [cost(running + min(share, prompt - done)) for done in range(0, prompt, share)]

    budgets = [budget for budget in range(running + 1, running + prompt + 1) if sum(waits(budget)) <= ttft_limit]
    return sorted(budgets, key=lambda budget: max(waits(budget)))[0] if budgets else 0


RIGHT: dict[str, tuple[Callable[..., Any], ...]] = {
    "serving.waste": (share_by_sums, share_in_closed_form),
    "serving.pool": (LastInFirstOut, RandomOrder),
    "serving.table": (TableByDivmod, TableByRange),
    "serving.fork": (ForkByConstructor, ForkByHand),
    "serving.pack": (pack_by_tensors, pack_in_a_loop),
    "serving.attention": (AttentionByMask, AttentionByQuery),
    "serving.hashes": (hashes_by_bytes, hashes_by_recursion),
    "serving.prefix": (IndexByTokens, IndexByChain),
    "serving.queue": (QueueByFilters, QueueByState, QueueByReaders),
    "serving.schedule": (SchedulerByCounting, SchedulerByRecursion),
    "serving.engine": (EngineInTwoLoops, EngineByTail),
    "serving.report": (report_in_a_loop, report_by_tensors),
    "serving.budget": (budget_by_simulation, budget_by_sorting),
}


# Programs that are right only by chance


class TableForShortTexts(TableByDivmod):
    """Right as long as a text has one block."""

    def slots(self, start: int, end: int) -> list[int]:
        return [self.blocks[0] * self.block_size + p for p in range(start, end)]


class PoolThatOnlyCounts(LastInFirstOut):
    """Right as long as nobody makes an error."""

    def give_back(self, block: int) -> bool:
        self.refs[block] -= 1
        if self.refs[block] <= 0:
            self.free.append(block)
        return self.refs[block] <= 0


class IndexThatTrustsHashes(IndexByChain):
    """Right as long as no hash comes twice."""

    def find(self, tokens: Sequence[int]) -> list[int]:
        found = []
        for name in self.hashes(list(tokens[:-1]), self.size):
            if name not in self.entries:
                break
            found.append(self.entries[name][0])
        return found


class SchedulerWithoutPreemption(SchedulerByCounting):
    """Right as long as memory suffices: else everybody waits."""

    def fits(self, table: Any, n: int) -> bool:
        if super().fits(table, n) or table.length == 0:
            return bool(super().fits(table, n))
        raise MemoryError("there is no block for a text that is being written")


class EngineForWholePrompts(OWN["Engine"]):  # type: ignore[misc, name-defined, valid-type]
    """Right as long as no prompt is cut: each pass gives a token."""

    @torch.no_grad()
    def step(self) -> list[tuple[Any, int]]:
        plan = self.scheduler.schedule()
        if not plan:
            return []
        chunks = [(r.tokens[r.table.length - n : r.table.length], r.table.length - n, r.table.blocks) for r, n in plan]
        best = self.model(OWN["pack"](chunks, self.scheduler.block_size), self.memory).argmax(-1).tolist()
        for (request, _), token in zip(plan, best, strict=True):
            request.tokens.append(token)
            if token in request.end_tokens or len(request.written) == request.max_new_tokens:
                self.scheduler.remove(request)
        return [(request, token) for (request, _), token in zip(plan, best, strict=True)]


BY_CHANCE = {
    "serving.pool": [PoolThatOnlyCounts],
    "serving.table": [TableForShortTexts],
    "serving.prefix": [IndexThatTrustsHashes],
    "serving.schedule": [SchedulerWithoutPreemption],
    "serving.engine": [EngineForWholePrompts],
}


# What comes back in the wrong form is told in plain words, and a wrong part is named where it is used


class PoolThatGivesNothing(LastInFirstOut):
    def give_back(self, block: int) -> bool:
        super().give_back(block)
        return None  # type: ignore[return-value]


def pack_in_floats(chunks: Sequence[Any], block_size: int) -> Any:
    batch = pack_in_a_loop(chunks, block_size)
    return batch._replace(positions=batch.positions.float())


def only_goodput(requests: Sequence[Any], ttft_limit: float, tpot_limit: float) -> float:
    return report_in_a_loop(requests, ttft_limit, tpot_limit)[2]


TOLD = [
    Told("serving.pool", PoolThatGivesNothing, ["whether the block is free now belongs there"]),
    Told("serving.pack", pack_in_floats, ["positions is to be a tensor of int64"]),
    Told("serving.report", only_goodput, ["three things belong there: TTFTs, TPOTs, goodput"]),
    Told(
        "serving.engine",
        Change(
            "serving.queue",
            "self.waiting.appendleft(newest)",
            "newest.tokens = newest.tokens[: newest.prompt]\n        self.waiting.appendleft(newest)",
        ),
        ["Mend `serving.queue` and `serving.schedule` first"],
    ),
    Told(
        "serving.schedule",
        Change("serving.table", "self.length += n", "self.length += n + 1"),
        ["Mend `serving.table` first"],
    ),
]


# Trained weights: alone over blocks, and beside others while memory is short


class Paged(OWN["PagedLM"]):  # type: ignore[misc, name-defined, valid-type]
    """The lesson's model for ids [B, T], each text in scattered blocks, and all of them in one row."""

    def forward(self, ids: Tensor, memory: Any = None) -> Tensor:
        if memory is not None:
            found: Tensor = super().forward(ids, memory)
            return found
        rows = []
        for text in ids.tolist():
            pool, memory = OWN["BlockPool"](64), self.new_memory(64, 8)
            table = OWN["BlockTable"](pool, 8)
            for token in text:
                table.append(1)
                rows.append(super().forward(OWN["pack"]([([token], table.length - 1, table.blocks)], 8), memory)[0])
        return torch.stack(rows).view(*ids.shape, -1)


def beside_others(model: nn.Module, ids: Tensor, tokens: int, end_tokens: Sequence[int] = ()) -> Iterator[int]:
    """What the engine writes for a text beside four others, which share its beginning, with too few blocks for all."""
    engine = OWN["Engine"](model, 24, 8, 24, 4)
    text = ids[0].tolist()
    others = [engine.add(text[: 1 + i % len(text)] * (1 + i), 20) for i in range(2)]
    mine = engine.add(text, tokens, end_tokens)
    others += [engine.add([*text, 5 + i], 30) for i in range(2)]
    engine.run()
    assert all(len(other.written) >= 20 for other in others)
    yield from mine.written


PROMPTS = [Prompt(text, 64) for text in ("It is a truth universally acknowledged", "Anne", "Captain Wentworth")]
TRAINED = [Trained("austen-qwen3", "Paged", "beside_others", PROMPTS)]
RERUNS = {
    "with other pools, tables, attention, indexes, schedulers and engines": Rerun(
        {
            "serving.waste": share_by_sums,
            "serving.pool": LastInFirstOut,
            "serving.table": TableByRange,
            "serving.fork": ForkByHand,
            "serving.pack": pack_in_a_loop,
            "serving.attention": AttentionByMask,
            "serving.hashes": hashes_by_bytes,
            "serving.prefix": IndexByTokens,
            "serving.queue": QueueByFilters,
            "serving.schedule": SchedulerByCounting,
            "serving.engine": EngineInTwoLoops,
            "serving.report": report_in_a_loop,
            "serving.budget": budget_by_sorting,
        },
        shows=[
            "768 passes one after the other, 48 together",
            "each of them reads what they would have read alone: True",
        ],
    ),
}
