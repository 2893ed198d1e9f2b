"""How pools, tables, indexes, schedulers and engines are used: what they hand out, what they refuse, what is left."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from grader.authoring.drives.use import tensor_given

# The pool


def pool_events(made: Any, num_blocks: int, steps: list[list[int]]) -> Iterator[list[int]]:
    """What each step gave, how many blocks were free then, and how many readers there were in all.

    steps: [0, _] takes a block, [1, k] shares the k-th one that was taken, [2, k] gives it back. A block that was not
    free when it was handed out gives 7; a step whose block was never handed out 6; MemoryError 8, ValueError 9.
    """
    pool = made(num_blocks)
    taken: list[int] = []
    readers = [0] * num_blocks
    for kind, k in steps:
        try:
            if kind and k >= len(taken):
                gave = 6
            elif kind == 0:
                block = pool.take()
                if not isinstance(block, int):
                    raise TypeError(f"take returned a {type(block).__name__}; a block's number belongs there")
                taken.append(block)
                gave = 0 if readers[block] == 0 else 7
                readers[block] += 1
            elif kind == 1:
                pool.share(taken[k])
                readers[taken[k]] += 1
                gave = 0
            else:
                freed = pool.give_back(taken[k])
                if freed is None:
                    raise TypeError("give_back returned None; whether the block is free now belongs there")
                readers[taken[k]] -= 1
                gave = int(freed)
        except MemoryError:
            gave = 8
        except ValueError:
            gave = 9
        yield [gave, len(pool.free), sum(pool.refs)]


def pool_steps(made: Any, num_blocks: int, steps: list[list[int]]) -> list[int]:
    """One pool's events."""
    return [number for event in pool_events(made, num_blocks, steps) for number in event]


def two_pools(made: Any, num_blocks: int, steps: list[list[int]]) -> list[int]:
    """The events of two pools that take the same steps in turns."""
    one, other = (pool_events(made, num_blocks, steps) for _ in range(2))
    return [number for pair in zip(one, other, strict=True) for event in pair for number in event]


# Tables


class Free(list):  # type: ignore[type-arg]
    """The free blocks, as a deque has them."""

    def popleft(self) -> Any:
        return self.pop(0)


class Blocks:
    """A pool that hands out the blocks of a given order, for tables that are checked apart from the learner's own pool."""

    def __init__(self, order: list[int]) -> None:
        self.free, self.refs = Free(order), [0] * len(order)
        self.wrong = 0

    def take(self) -> int:
        if not self.free:
            raise MemoryError("no block is free")
        block = int(self.free.popleft())
        self.refs[block] = 1
        return block

    def share(self, block: int) -> None:
        if self.refs[block] == 0:
            raise ValueError(f"block {block} is free, and was to be shared")
        self.refs[block] += 1

    def give_back(self, block: int) -> bool:
        if self.refs[block] == 0:
            raise ValueError(f"block {block} is free, and was given back once more")
        self.refs[block] -= 1
        if self.refs[block] == 0:
            self.free.append(block)
        return self.refs[block] == 0


def table_steps(made: Any, order: list[int], block_size: int, shared: int, steps: list[int]) -> list[int]:
    """The slots that each append gave (-1: MemoryError, -5: the pool refused), and then the number of blocks, tokens and free blocks.

    The last number is 1 where the list of shared blocks that was given is as it was.

    order: of the pool's blocks. shared: how many of them another table holds, with which this one begins. steps: n >= 0
    appends n tokens, -1 releases, -2 - n asks for the slots from position n on.
    """
    pool = Blocks(order)
    held = [pool.take() for _ in range(shared)]
    mine = list(held)
    table, given = made(pool, block_size, mine), []
    for step in steps:
        try:
            if step >= 0:
                given += [int(slot) for slot in table.append(step)]
            elif step == -1:
                given += sorted(int(block) for block in table.release())
            else:
                given += [int(slot) for slot in table.slots(-2 - step, table.length)]
        except MemoryError:
            given.append(-1)
        except ValueError:
            given.append(-5)
        given += [len(table.blocks), int(table.length), len(pool.free), sum(pool.refs)]
    return [*given, int(mine == held)]


def fork_steps(made: Any, order: list[int], block_size: int, steps: list[list[int]]) -> list[int]:
    """What all tables hold in the end, read through their slots, and what became of each step.

    steps: [0, k, n] appends n tokens to the k-th table, [1, k, 0] forks it, [2, k, 0] releases it. After each step the
    number of free blocks and of copies so far; -1 in front of them for MemoryError. A slot that nobody wrote to reads 0.
    """
    pool = Blocks(order)
    memory, copies = [0] * (len(order) * block_size), []

    def copy(source: int, target: int) -> None:
        copies.append([source, target])
        if pool.refs[target] != 1 or pool.refs[source] < 1:
            raise ValueError("a copy goes from a block that is in use to one that nobody else has")
        memory[target * block_size : (target + 1) * block_size] = memory[
            source * block_size : (source + 1) * block_size
        ]

    tables, given, token = [made(pool, block_size, copy)], [], 0
    for kind, k, n in steps:
        try:
            if kind == 0:
                for slot in tables[k].append(n):
                    token += 1
                    memory[slot] = token
            elif kind == 1:
                tables.append(tables[k].fork())
            else:
                tables[k].release()
        except MemoryError:
            given.append(-1)
        given += [len(pool.free), len(copies)]
    for table in tables:
        given += [memory[slot] for slot in table.slots(0, table.length)] + [len(table.blocks), int(table.length)]
    return given


# The model's side


def packed(function: Any, chunks: list[list[Any]], block_size: int) -> list[int]:
    """All that is packed, one thing after the other."""
    given = [(list(ids), start, list(blocks)) for ids, start, blocks in chunks]
    function([(list(ids), start, list(blocks)) for ids, start, blocks in chunks], 2 * block_size)  # another memory
    batch = function(given, block_size)
    if [list(chunk) for chunk in given] != chunks:
        raise ValueError("pack changed the ids or the blocks that it was given; they are the requests' own lists")
    found: list[int] = []
    for name in ("ids", "positions", "slots"):
        row = getattr(batch, name)
        if not isinstance(row, Tensor) or row.dtype != torch.int64:
            raise TypeError(f"{name} is to be a tensor of int64")
        if row.shape != batch.ids.shape or row.ndim != 1:
            raise ValueError(f"{name} has the shape {list(row.shape)}; [N] belongs there")
        found += row.tolist()
    return [*found, *batch.sizes, *batch.lengths, *(block for table in batch.tables for block in table)]


class Rows:
    """What one pass reads, under the names that a Batch has."""

    def __init__(self, positions: list[int], slots: list[int], texts: list[list[Any]]) -> None:
        self.ids = torch.zeros(len(slots), dtype=torch.int64)
        self.positions, self.slots = torch.tensor(positions), torch.tensor(slots)
        self.tables, self.sizes, self.lengths = ([text[i] for text in texts] for i in range(3))


def paged(
    module: Any,
    x: Tensor,
    table: Tensor,
    texts: list[int],
    passes: list[list[int]],
    order: list[int],
    old: float = torch.nan,
) -> Any:
    """Attention's output for all rows, its memory and the rows' blocks.

    x: [sum(texts), D], the texts one after the other; table: [2, longest text, head_dim]; passes: how many tokens of each
    text every pass reads. order: of the blocks, of 4 slots. Slots that nobody wrote to hold `old`.
    """
    size, done, blocks = 4, [0] * len(texts), [[] for _ in texts]  # type: ignore[var-annotated]
    free, out, first = list(order), torch.zeros_like(x), [sum(texts[:i]) for i in range(len(texts))]
    kv_heads = module.k_proj.weight.shape[0] // table.shape[-1]
    keys, values = (torch.full((len(order), size, kv_heads, table.shape[-1]), old, dtype=x.dtype) for _ in (0, 1))
    for sizes in passes:
        positions: list[int] = []
        rows, slots, read = [], [], []
        for i, n in enumerate(sizes):
            if n == 0:
                continue
            places = range(done[i], done[i] + n)
            while len(blocks[i]) * size < places[-1] + 1:
                blocks[i].append(free.pop(0))
            rows += [first[i] + p for p in places]
            positions += places
            slots += [blocks[i][p // size] * size + p % size for p in places]
            done[i] += n
            read.append([list(blocks[i]), n, done[i]])
        batch = Rows(positions, slots, read)
        given = module(x[rows], table[:, positions], keys, values, batch)
        out[rows] = tensor_given(given, "forward")
    return (
        out,
        keys,
        values,
        [[b * size + p for b in own for p in range(size)][:n] for own, n in zip(blocks, texts, strict=True)],
    )


def paged_results(
    module: Any, x: Tensor, table: Tensor, texts: list[int], passes: list[list[int]], order: list[int]
) -> Tensor:
    """What attention gives for each row."""
    found: Tensor = paged(module, x, table, texts, passes, order)[0]
    return found


def over_old_keys(
    module: Any, x: Tensor, table: Tensor, texts: list[int], passes: list[list[int]], order: list[int]
) -> Tensor:
    """What attention gives for each row, where other users' keys and values lie in the slots that nobody wrote to yet."""
    found: Tensor = paged(module, x, table, texts, passes, order, 2.5)[0]
    return found


def slots_written(
    module: Any, x: Tensor, table: Tensor, texts: list[int], passes: list[list[int]], order: list[int]
) -> Tensor:
    """How many slots hold keys, and how many values; and whether they are those of the rows (1: yes)."""
    _, keys, values, slots = paged(module, x, table, texts, passes, order)
    own = sorted(slot for text in slots for slot in text)
    found = []
    for memory in (keys, values):
        written = (~memory.flatten(0, 1).isnan().any(-1).any(-1)).nonzero()[:, 0].tolist()
        found += [len(written), int(written == own)]
    return torch.tensor(found)


# Hashes and the index


def in_parts(function: Any, tokens: list[int], block_size: int) -> list[int]:
    """Each hash as four numbers of 16 bits, and before them how many hashes there are.

    A text whose first token alone is another comes before.
    """
    function([token + 1 if place == 0 else token for place, token in enumerate(tokens)], block_size)
    hashes = function(list(tokens), block_size)
    if not all(isinstance(each, int) and 0 <= each < 2**64 for each in hashes):
        raise ValueError("a hash is to be an int from 0 to 2**64 - 1")
    return [len(hashes), *((each >> shift) % 65536 for each in hashes for shift in (0, 16, 32, 48))]


def how_many_hashes(function: Any, tokens: list[int], block_size: int) -> list[int]:
    """How many hashes there are."""
    return in_parts(function, tokens, block_size)[:1]


def weak_hashes(tokens: Any, block_size: int) -> list[int]:
    """Chained hashes of which there are only five."""
    hashes, last = [], 0
    for start in range(0, len(tokens) - block_size + 1, block_size):
        last = (last + sum(tokens[start : start + block_size])) % 5
        hashes.append(last)
    return hashes


def weak_at_the_end(tokens: Any, block_size: int) -> list[int]:
    """Hashes that see the block's own tokens, and of those before them only how many there are."""
    starts = range(0, len(tokens) - block_size + 1, block_size)
    return [hash((i, *tokens[start : start + block_size])) for i, start in enumerate(starts)]


def index_steps(made: Any, block_size: int, weak: int, steps: list[list[Any]]) -> list[int]:
    """What each search found: how many blocks, and which. weak: 1, 3 or 4 for five hashes, 2 for hashes of the block alone.

    steps: [0, tokens, blocks] adds, [1, tokens, []] searches, [2, [block], []] forgets; 3 adds, and then uses the lists
    that it gave for something else.
    """
    index = made(block_size, weak_at_the_end if weak == 2 else weak_hashes) if weak else made(block_size)
    given: list[int] = []
    for kind, tokens, blocks in steps:
        if kind == 0:
            index.add(list(tokens), list(blocks))
        elif kind == 1:
            found = index.find(list(tokens))
            if not isinstance(found, list):
                raise TypeError(f"find returned a {type(found).__name__}; a list of blocks belongs there")
            given += [len(found), *found]
        elif kind == 2:
            index.forget(tokens[0])
        else:
            text, places = list(tokens), list(blocks)
            index.add(text, places)
            text[:], places[:] = [0] * len(text), [0] * len(places)
    return given


# The queue


class Held:
    """A table of two blocks of a pool, of which somebody else reads the second one, too."""

    def __init__(self, pool: Blocks) -> None:
        self.pool, self.blocks, self.length, self.releases = pool, [pool.take(), pool.take()], 8, 0
        pool.share(self.blocks[1])

    def release(self) -> list[int]:
        self.releases += 1
        if self.releases > 1:
            raise ValueError("the blocks of a request were given back twice")
        freed = [block for block in self.blocks if self.pool.give_back(block)]
        self.blocks, self.length = [], 0
        return freed


class Forgotten:
    """An index that notes what it forgets."""

    def __init__(self) -> None:
        self.blocks: list[int] = []

    def forget(self, block: int) -> None:
        self.blocks.append(block)


def queue_steps(made: Any, num_blocks: int, block_size: int, steps: list[list[int]]) -> list[int]:
    """After each step who waits and who runs, which blocks the index has forgotten so far, how many are free; of each
    request whether it has no table, and its tokens; of those that are not over what is written, and what is wanted in all.

    steps: [0, prompt, new] adds a request; [1, k, _] lets the k-th one begin, with a table; [2, k, _] removes it; [3, _, _]
    preempts. 9: ValueError. The last number is 1 where the lists that were given as prompts are as they were.
    """
    queue = made(num_blocks, block_size)
    queue.index = index = Forgotten()
    queue.pool = pool = Blocks(list(range(num_blocks)))
    requests: list[Any] = []
    prompts: list[list[int]] = []
    given: list[int] = []
    for kind, k, n in steps:
        try:
            if kind == 0:
                prompts.append(list(range(k)))
                requests.append(queue.add(prompts[-1], n, (3,)))
                if requests[-1] is None:
                    raise TypeError("add returned None; the request belongs there")
                given += [len(requests[-1].tokens), requests[-1].max_new_tokens, *requests[-1].end_tokens]
            elif kind == 1:
                queue.waiting.remove(requests[k])
                queue.running.append(requests[k])
                requests[k].table = Held(pool)
                requests[k].tokens.append(50 + k)
            elif kind == 2:
                queue.remove(requests[k])
            elif queue.running:
                queue.preempt()
        except ValueError as error:
            if "given back twice" in str(error):
                raise
            given.append(9)
        waiting, running = ([requests.index(r) for r in some] for some in (queue.waiting, queue.running))
        given += [len(waiting), *waiting, len(running), *running, len(index.blocks), *index.blocks]
        given += [len(pool.free), *(int(r.table is None) for r in requests), *(len(r.tokens) for r in requests)]
        for r in [*queue.waiting, *queue.running]:
            given += [len(r.written), r.max_new_tokens]
    return [*given, int(all(prompt == list(range(len(prompt))) for prompt in prompts))]


# The scheduler


def next_token(tokens: list[int]) -> int:
    """A token that follows from the text; no model is needed where only the schedule counts."""
    return (7 * len(tokens) + 3 * tokens[-1] + tokens[0]) % 50


def scheduled(made: Any, numbers: list[int], arrivals: list[list[Any]], shares: bool) -> list[int]:
    """Each pass's plan: how many requests, then request and tokens of each, and how many blocks are free then. -7 ends
    it where a request reads more tokens than it has.

    numbers: blocks, block size, budget, most running. arrivals: of each request the pass before which it comes, its
    prompt, and how many tokens it wants. shares: whether what was read goes into the index.
    """
    scheduler = made(*numbers)
    requests: list[Any] = []
    given: list[int] = []
    for step in range(200):
        for when, prompt, new in arrivals:
            if when == step:
                requests.append(scheduler.add(list(prompt), new))
        if len(requests) == len(arrivals) and not scheduler.waiting and not scheduler.running:
            break
        before = [None if r.table is None else list(r.table.blocks) for r in scheduler.waiting]
        plan = scheduler.schedule()
        if not isinstance(plan, list):
            raise TypeError(f"schedule returned a {type(plan).__name__}; a list of (request, tokens) belongs there")
        given.append(len(plan))
        for request, n in plan:
            given += [requests.index(request), int(n), int(request.table.length)]
        given += [len(scheduler.pool.free), len(scheduler.waiting), sum(b is not None for b in before)]
        for request, _ in plan:
            if request.table.length > len(request.tokens):
                return [*given, -7]
            if shares:
                scheduler.index.add(request.tokens[: request.table.length], request.table.blocks)
            if request.table.length == len(request.tokens):
                request.tokens.append(next_token(request.tokens))
                if len(request.written) == request.max_new_tokens:
                    scheduler.remove(request)
    return given


# The engine


class PagedToy(nn.Module):
    """A `ToyLM` over a memory of blocks, which holds ids. It refuses to read what nobody wrote, and wrong positions."""

    def __init__(self, toy: Any) -> None:
        super().__init__()
        self.toy = toy
        self.rows: list[int] = []

    def new_memory(self, num_blocks: int, block_size: int) -> Tensor:
        self.memory = torch.full((num_blocks, block_size), -1)
        return self.memory

    def forward(self, batch: Any, memory: Tensor) -> Tensor:
        if memory is not self.memory:
            raise ValueError("the model was given another memory than the one that it made")
        self.rows.append(len(batch.ids))
        memory.view(-1)[batch.slots] = batch.ids
        logits, start = [], 0
        for table, size, length in zip(batch.tables, batch.sizes, batch.lengths, strict=True):
            if batch.positions[start : start + size].tolist() != list(range(length - size, length)):
                raise ValueError("a chunk's positions are not those at the end of its text")
            ids = memory[torch.tensor(table)].flatten()[:length]
            if len(ids) < length or bool((ids < 0).any()):
                raise ValueError("a slot was read that holds no token: it was never written, or its block was freed")
            logits.append(self.toy(ids[None])[0, -1])
            start += size
        return torch.stack(logits)


def engine_run(
    made: Any, toy: Any, numbers: list[int], arrivals: list[list[Any]], end: Any, aborts: list[list[int]]
) -> tuple[Any, list[Any], list[int], list[list[int]]]:
    """The model, the requests, how many tokens each step gave, and each request's tokens as they came.

    numbers: as of the scheduler. arrivals: pass, prompt, new tokens. aborts: pass and request. Blocks that nobody reads
    are made unreadable after each step.
    """
    model = PagedToy(toy).eval()
    engine = made(model, *numbers)
    requests: list[Any] = []
    steps: list[int] = []
    came: list[list[int]] = [[] for _ in arrivals]
    for step in range(400):
        for when, prompt, new in arrivals:
            if when == step:
                requests.append(engine.add(list(prompt), new, () if end is None else (end,)))
        for when, k in aborts:
            if when == step:
                engine.abort(requests[k])
        given = engine.step()
        if not isinstance(given, list):
            raise TypeError(f"step returned a {type(given).__name__}; a list of (request, token) belongs there")
        for request, token in given:
            came[requests.index(request)].append(int(token))
        steps.append(len(given))
        for block, readers in enumerate(engine.scheduler.pool.refs):
            if readers == 0:
                model.memory[block] = -1
        if len(requests) == len(arrivals) and not engine.scheduler.waiting and not engine.scheduler.running:
            break
    return engine, requests, steps, came


def answers_given(
    made: Any, toy: Any, numbers: list[int], arrivals: list[list[Any]], end: Any, aborts: list[list[int]]
) -> list[int]:
    """The tokens of each request that was not aborted, how many there are first; then the blocks that are free at the end.

    -3 stands behind tokens that are not those behind the request's prompt.
    """
    engine, requests, _, came = engine_run(made, toy, numbers, arrivals, end, aborts)
    found: list[int] = []
    for k, (request, tokens) in enumerate(zip(requests, came, strict=True)):
        if k not in [gone for _, gone in aborts]:
            found += [len(tokens), *tokens]
            if list(request.written) != tokens:
                found.append(-3)
    return [*found, len(engine.scheduler.pool.free)]


def rows_of_passes(
    made: Any, toy: Any, numbers: list[int], arrivals: list[list[Any]], end: Any, aborts: list[list[int]]
) -> list[int]:
    """How many tokens each pass read, and how many requests got one."""
    engine, _, steps, _ = engine_run(made, toy, numbers, arrivals, end, aborts)
    return [*engine.model.rows, *steps]


def idle_step(
    made: Any, toy: Any, numbers: list[int], arrivals: list[list[Any]], end: Any, aborts: list[list[int]]
) -> list[int]:
    """What a step gives where there is nothing to do, how often the model ran, and whether the tokens are Python ints."""
    engine = made(PagedToy(toy).eval(), *numbers)
    found = [len(engine.step()), len(engine.model.rows)]
    _, _, when = engine.add(list(arrivals[0][1]), arrivals[0][2]), 0, 0
    while engine.scheduler.waiting or engine.scheduler.running:
        for _, token in engine.step():
            when += 1
            found.append(int(isinstance(token, int)))
        if when > 100:
            raise ValueError("the engine did not stop after 100 tokens")
    return found


class Asked(PagedToy):
    """A model that asks something each time before it runs."""

    ask: Any = None

    def forward(self, batch: Any, memory: Tensor) -> Tensor:
        self.ask()
        return super().forward(batch, memory)


def blocks_known(
    made: Any, toy: Any, numbers: list[int], arrivals: list[list[Any]], end: Any, aborts: list[list[int]]
) -> list[int]:
    """Of each running request, how many blocks of its tokens the index finds: when the model is called, and after the pass."""
    model = Asked(toy).eval()
    engine = made(model, *numbers)
    found: list[int] = []

    def ask() -> None:
        found.extend(len(engine.scheduler.index.find([*r.tokens, 0])) for r in engine.scheduler.running)

    model.ask = ask
    for _, prompt, new in arrivals:
        engine.add(list(prompt), new)
    for _ in range(100):
        if not engine.scheduler.waiting and not engine.scheduler.running:
            break
        engine.step()
        ask()
    return found


# Measures


def share(function: Any, requests: list[list[int]], policy: int, size: int) -> float:
    """The share for a policy of the check's own. policy: 0 reserves `size`, 1 blocks of `size`, 2 grows by squares, 3 nothing,
    4 `size` once there is a token of the answer."""

    def reserve(prompt: int, answer: int, written: int) -> int:
        if policy == 0:
            return size
        if policy == 1:
            return -(-(prompt + written) // size) * size
        if policy == 4:
            return size if written else 0
        return 0 if policy == 3 else prompt + written * written + size + answer

    return float(function([tuple(each) for each in requests], reserve))


def share_of_nothing(function: Any, requests: list[list[int]], policy: int, size: int) -> list[int]:
    """The share in thousandths."""
    return [int(1000 * share(function, requests, policy, size))]


def reported(function: Any, requests: list[list[Any]], ttft_limit: float, tpot_limit: float) -> Tensor:
    """TTFTs, TPOTs and goodput, one after the other."""
    own = [(arrival, list(times)) for arrival, times in requests]
    given = function(own, ttft_limit, tpot_limit)
    if own != [(arrival, times) for arrival, times in requests]:
        raise ValueError("the requests are no longer as they were given; they are the caller's")
    if not isinstance(given, tuple | list) or len(given) != 3:
        raise TypeError("three things belong there: TTFTs, TPOTs, goodput")
    ttfts, tpots, goodput = given
    return torch.tensor([*map(float, ttfts), *map(float, tpots), float(goodput)])


def budget_found(function: Any, prompt: int, running: int, costs: list[float], limit: float) -> int:
    """The budget, where a pass costs a fixed time, one for each row, and one more if its rows fill no groups."""
    fixed, each, group, odd = costs

    def cost(rows: int) -> float:
        if rows < 1:
            raise ValueError(f"cost({rows}): there is no pass of {rows} tokens")
        return fixed + each * rows + odd * (rows % int(group) > 0)

    return int(function(prompt, running, cost, limit))


def none_found(function: Any, prompt: int, running: int, costs: list[float], limit: float) -> list[int]:
    """What comes back where no budget is in time."""
    return [budget_found(function, prompt, running, costs, limit)]
