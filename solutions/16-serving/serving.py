# %% [markdown] id="c94272cf"
# # 16 · Serving: many users, one model
#
# **Why does your answer take longer when others ask, and what would you change first?**
#
# Until now one person used your model at a time. A server has many users. They come when they like, with prompts of any length, and each expects the next word at once. A server that answers one after the other lets the last one wait for all the rest. A server that keeps room for the longest possible answer of each user runs out of memory with a few of them, although most of that memory is empty.
#
# In this lesson you build what stands between a model and its users in vLLM, SGLang and transformers' continuous batching: memory in blocks, one pass of the model for everybody, prompts that share what they have in common, a scheduler, and an engine that holds it together. One test runs through all of it: **each user gets, token for token, the answer that they would have got alone.**
#
# After this lesson you can
#
# - say how much of a server's memory holds tokens, for several ways to reserve it;
# - write a paged cache: blocks, reference counts, block tables, copy on write, attention that reads through a table;
# - write continuous batching with chunked prefill, a token budget, prefix sharing and preemption, and test it against answers that were decoded alone;
# - say what TTFT, TPOT and goodput measure, and choose a token budget by them.
#
# 200 to 300 minutes · difficulty ●●●●○ · you know a KV cache (lesson 02) and Qwen3 (lesson 03); their code is given
#
# Before an experiment decides something, a cell asks for your guess: write it in place of the three dots. What was measured then stands beside it, and what the numbers say is folded below. Nobody grades guesses; other questions in the text are for your head.
#
# ![Requests wait in a queue. The scheduler picks how many tokens of each are read in this pass. One pass of the model reads them all, through block tables, from one memory of blocks; each finished chunk gives its user a token.](figures/engine.svg)

# %% tags=["setup"] id="setup"
import hashlib
import itertools
import math
from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import Config, check, load_checkpoint

# %% id="05d53d1c"
from grader import measured, predict, predictions

# %% [markdown] id="03cbc1be"
# What you start from is folded: lesson 03's model.


# %% tags=["setup"] id="setup-2"
def rope_theta(config: Config) -> float:
    """The base of RoPE's frequencies; transformers 5 writes it one level deeper than the files on the hub."""
    return config.get("rope_parameters", config)["rope_theta"]


def head_dim(config: Config) -> int:
    """How many channels a head has: the config's own number where it gives one."""
    return config.get("head_dim") or config.hidden_size // config.num_attention_heads


# %% given="03-qwen3 qwen3.rms_norm" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-rms_norm"

# %% given="03-qwen3 qwen3.rope_table" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-rope_table"

# %% given="03-qwen3 qwen3.rope" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-rope"

# %% given="03-qwen3 qwen3.mlp" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-mlp"

# %% given="03-qwen3 qwen3.attention" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-attention"

# %% given="03-qwen3 qwen3.decoder_layer" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-decoder_layer"

# %% given="03-qwen3 qwen3.model" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-model"

# %% given="03-qwen3 qwen3.causal_lm" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-causal_lm"

# %% [markdown] id="82a4604a"
# ## One pass for everybody
#
# To write one token, a model reads all of its weights (lesson 15). If four users wait for a token each, and the model reads four rows in one pass, the weights are read once. How much longer does a pass take with more rows? The model here is `austen-qwen3`, a small one that was trained for this course on Jane Austen's novels.

# %% id="8f96325b"
torch.set_num_threads(1)
checkpoint = load_checkpoint("austen-qwen3")
plain = checkpoint.build(CausalLM)
print(f"{sum(p.numel() for p in plain.parameters()):,} parameters, texts of up to {plain.config.max_position_embeddings} tokens")

# %% tags=["nbval-ignore-output"] id="6acd1885"
from functools import partial

from grader.instruments import clock, plots

runs = {n: partial(plain, torch.ones(n, 1, dtype=torch.long)) for n in (1, 2, 4, 8, 16, 32)}
times = clock.in_turns(runs, 9)
plots.lines({"a pass": ([*runs], [times[n] / times[1] for n in runs])}, plots.Axes(x="rows in the pass", y="times one row"))

# %% [markdown] id="9ca780be"
# The curve rises far more slowly than the number of rows. So a server should put as many users as it can into each pass. Old servers did it with a *static* batch: wait until there are 16 requests, decode all of them, answer when the longest is done. How bad is that? It depends on how different the answers' lengths are. Microsoft has published when 19,366 people asked models in its cloud something, in one hour of November 2023, with the lengths of their prompts and of the answers (Patel et al., *Splitwise*, 2024). Half of the prompts have more than 1,020 tokens, half of the answers more than 129, and both range over a factor of more than a hundred. The 1,000 requests from the 1,001st on are in `texts/azure-conversations.csv`, in their order; half of their answers have more than 379 tokens. Our model reads 256 tokens, so prompts are a twentieth of theirs here, and 150 tokens at most; answers are a tenth, and 100 at most.

# %% id="c7759c36"
def trace(count: int) -> list[tuple[float, int, int]]:
    """Of the file's first requests: the second in which each comes, and the lengths of its prompt and answer, cut down."""
    lines = Path("texts/azure-conversations.csv").read_text().splitlines()[3 : 3 + count]
    rows = [line.split(",") for line in lines]
    return [(float(at), min(-(-int(p) // 20), 150), min(-(-int(a) // 10), 100)) for at, p, a in rows]


lengths = [(prompt, answer) for _, prompt, answer in trace(16)]
print(lengths)

# %% [markdown] id="16de4f0c"
# Each pass gives each user of the batch whose answer is not finished one token. Rows of finished users are computed for nothing. Of all rows that a static batch of these 16 requests computes for answers, what share is wanted?

# %% prediction="serving.static" id="prediction-serving-static"
predict("serving.static", "rows of a static batch that are part of an answer", unit="%", guess=...)

# %% id="511033cf"
answers = [answer for _, answer in lengths]
wanted, computed = sum(answers), len(answers) * max(answers)
print(f"{len(answers)} users, {max(answers)} passes: {computed} rows, {wanted} of them wanted")
measured("serving.static", 100 * wanted / computed)

# %% [markdown] id="d5dd60fa"
# <details><summary>What the numbers say</summary>
#
# 40%: three of five rows are computed for users who have their answer already. And a seventeenth user, who comes just after the start, waits until the longest answer is done. *Continuous batching* decides anew before every pass who is in it (Yu et al., *Orca*, 2022): a finished user leaves at once and the next one takes the place. That is easy to say. But users in one pass now have texts of different lengths, of which some are just beginning, and their keys and values must lie somewhere.
# </details>
#
# ## Memory
#
# Lesson 02's cache asks for room for the whole text before it begins: prompt and answer in one piece. On a server nobody knows how long the answer is going to be. So servers reserved room for the longest possible one. The authors of PagedAttention (Kwon et al., 2023, section 1 and figure 2) measured how much of the reserved memory then held tokens. With their three ways to reserve it was 20.4% for the longest possible text, 26.8% for the next power of two, and 38.2% for an oracle that knows each length beforehand.
#
# ### Exercise 1 · How much of it is used
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes
#
# Measure it for any policy. A request's life has answer + 1 moments: after its prompt was read, and after each token of the answer. In each moment it holds some tokens, and some slots are reserved for it. Add up both, over all moments of all requests.
#
# <details><summary>Hint</summary>
#
# The share is one fraction: all tokens held, summed, over all slots reserved, summed. It is not the mean of fractions.
# </details>


# %% exercise="serving.waste" id="serving-waste"
def used_share(requests: Sequence[tuple[int, int]], reserve: Callable[[int, int, int], int]) -> float:
    """The share of reserved slots that hold a token, over all moments of all requests.

    requests: lengths (prompt, answer). A request has a moment for each number of tokens `written` from 0 to `answer`, the
    last included; it then holds prompt + written tokens. reserve(prompt, answer, written) says how many slots are
    reserved for it in that moment. -> tokens held in all moments / slots reserved in all moments, above 1 where too few are
    reserved; 0.0 without any slots.
    """
    ### BEGIN SOLUTION
    held = reserved = 0
    for prompt, answer in requests:
        for written in range(answer + 1):
            held += prompt + written
            reserved += reserve(prompt, answer, written)
    return held / reserved if reserved else 0.0
    ### END SOLUTION


# %% check="serving.waste" tags=["nbval-ignore-output"] id="check-serving-waste"
check("serving.waste", used_share)

# %% [markdown] id="05e5dc06"
# Four policies: room for the longest text that the model reads; the answer's room rounded up to a power of two; exactly what will be needed; and blocks of 16 slots, of which a request gets another one when its last one is full. What share of the slots do blocks use, on the 1,000 requests of the trace?

# %% prediction="serving.blocks" id="prediction-serving-blocks"
predict("serving.blocks", "slots in blocks of 16 that hold tokens", unit="%", guess=...)

# %% prediction="serving.longest" id="prediction-serving-longest"
predict("serving.longest", "slots that hold tokens where room for 256 is reserved", unit="%", guess=...)

# %% id="98b894da"
policies = {
    "the longest text": lambda prompt, answer, written: 256,
    "power of two": lambda prompt, answer, written: prompt + 2 ** math.ceil(math.log2(answer)),
    "an oracle": lambda prompt, answer, written: prompt + answer,
    "blocks of 16": lambda prompt, answer, written: 16 * math.ceil((prompt + written) / 16),
}
requests = [(prompt, answer) for _, prompt, answer in trace(1000)]
shares = {name: used_share(requests, policy) for name, policy in policies.items()}
print(", ".join(f"{name} {share:.0%}" for name, share in shares.items()))
measured("serving.longest", 100 * shares["the longest text"])
measured("serving.blocks", 100 * shares["blocks of 16"])

# %% [markdown] id="c46412b8"
# <details><summary>What the numbers say</summary>
#
# Blocks waste less than one block for each user, at the end of the text: about 9% with texts as short as these, and 4% in the paper, whose texts are longer. Room for the longest text is mostly empty. Our numbers for the power of two and the oracle are better than the paper's, for two reasons: our prompts are long beside the answers, and we leave out *external* fragmentation, the gaps between reserved pieces that are too small for the next request. Blocks have no such gaps: any free block will do for anybody.
#
# The last sentence is the whole idea. An operating system gives programs memory in pages for the same reason.
# </details>
#
# ### Exercise 2 · A pool of blocks
# difficulty ●●○○○ · importance ●●●●● · 15 minutes
#
# All keys and values lie in one large piece of memory, cut into blocks. The pool knows which blocks are free. A block can have several readers, since two texts with the same beginning can share it, so the pool counts them: it is free again when the last reader has given it back. Errors here are the worst kind. A block that is given back twice ends up with two owners, and they overwrite each other's texts without any error message. So the pool refuses. In vLLM it was a refusal of this kind that showed that shared blocks were given back twice (<a href="https://github.com/vllm-project/vllm/pull/3347">vllm-project/vllm#3347</a>).
#
# <details><summary>How to read a report of this check</summary>
#
# Each step gives three numbers: what came of it, the free blocks, and the readers of all blocks together. What came of it: 0 done; 1 the block is free now; 6 a block was to be shared or given back that was never handed out; 7 a block was handed out that is in use; 8 MemoryError; 9 ValueError.
# </details>
#
# <details><summary>Hint</summary>
#
# Check before you change anything. A block is free exactly where `refs` is 0.
# </details>


# %% exercise="serving.pool" id="serving-pool"
class BlockPool:
    """Which blocks are free, and how many readers each of the others has.

    refs: a list, the number of readers of each block, 0 for a free one. free: a deque of the free blocks' numbers.
    """

    def __init__(self, num_blocks: int):
        self.refs = [0] * num_blocks
        self.free = deque(range(num_blocks))

    def take(self) -> int:
        """Any free block, whose first reader is the caller. Raises MemoryError where none is free."""
        ### BEGIN SOLUTION
        if not self.free:
            raise MemoryError("no block is free")
        block = self.free.popleft()
        self.refs[block] = 1
        return block
        ### END SOLUTION

    def share(self, block: int) -> None:
        """One reader more. Raises ValueError where the block is free: what it holds may be overwritten."""
        ### BEGIN SOLUTION
        if self.refs[block] == 0:
            raise ValueError(f"block {block} is free")
        self.refs[block] += 1
        ### END SOLUTION

    def give_back(self, block: int) -> bool:
        """One reader less -> whether the block is free now. Raises ValueError where it was free already."""
        ### BEGIN SOLUTION
        if self.refs[block] == 0:
            raise ValueError(f"block {block} is free already")
        self.refs[block] -= 1
        if self.refs[block] == 0:
            self.free.append(block)
        return self.refs[block] == 0
        ### END SOLUTION


# %% check="serving.pool" tags=["nbval-ignore-output"] id="check-serving-pool"
check("serving.pool", BlockPool)

# %% [markdown] id="449e703f"
# ### Exercise 3 · Block tables
# difficulty ●●●○○ · importance ●●●●● · 15 minutes
#
# A text's *block table* lists its blocks in the order of the text. With blocks of B slots, the token at position p lies in the table's block number p // B, at place p % B there. If all slots of the memory are numbered through, block b has the slots from b · B on.
#
# ![Two texts and a memory of eight blocks with four slots each. The table of the first text is 5, 0, 3, that of the second 5, 6: they share block 5. The last block of each is partly empty.](figures/tables.svg)
#
# A table grows by `append`. It takes new blocks only when the last one is full, and it takes all or none: if there are not enough blocks, it gives back what it took and changes nothing. Otherwise a request that could not be served would still hold blocks.
#
# <details><summary>How to read a report of this check</summary>
#
# Each step gives its slots (-1: MemoryError, -5: the pool refused), then the numbers of blocks and tokens of the table, of free blocks, and of readers of all blocks. The very last number is 1 if the list of shared blocks is as it was.
# </details>
#
# <details><summary>Hint 1</summary>
#
# How many blocks do `length + n` tokens need? The table has `len(self.blocks)` of them.
#
# <details><summary>Hint 2</summary>
#
# `len(self.pool.free)` says how many there are, before you take any.
# </details>
# </details>


# %% exercise="serving.table" id="serving-table"
class BlockTable:
    """Where the keys and values of one text lie. blocks: a list of its blocks in order; length: its number of tokens.

    shared: blocks that other tables hold, full, with the tokens that this text begins with; the table becomes one more
    reader of each.
    """

    def __init__(self, pool: BlockPool, block_size: int, shared: Sequence[int] = ()):
        self.pool, self.block_size = pool, block_size
        ### BEGIN SOLUTION
        self.blocks = list(shared)
        self.length = len(self.blocks) * block_size
        for block in shared:
            pool.share(block)
        ### END SOLUTION

    def slots(self, start: int, end: int) -> list[int]:
        """The slots of the tokens at positions start to end - 1, numbered through the whole memory."""
        ### BEGIN SOLUTION
        B = self.block_size
        return [self.blocks[p // B] * B + p % B for p in range(start, end)]
        ### END SOLUTION

    def append(self, n: int) -> list[int]:
        """Make room for n more tokens -> their slots. Raises MemoryError, and changes nothing, where blocks are missing."""
        ### BEGIN SOLUTION
        missing = math.ceil((self.length + n) / self.block_size) - len(self.blocks)
        if missing > len(self.pool.free):
            raise MemoryError("blocks are missing")
        self.blocks += [self.pool.take() for _ in range(missing)]
        self.length += n
        return self.slots(self.length - n, self.length)
        ### END SOLUTION

    def release(self) -> list[int]:
        """Give all blocks back, and be empty -> those that are free now, as nobody else reads them."""
        ### BEGIN SOLUTION
        freed = [block for block in self.blocks if self.pool.give_back(block)]
        self.blocks, self.length = [], 0
        return freed
        ### END SOLUTION


# %% check="serving.table" tags=["nbval-ignore-output"] id="check-serving-table"
check("serving.table", BlockTable)

# %% id="7d1a5e79"
pool = BlockPool(8)
one, two = BlockTable(pool, 4), BlockTable(pool, 4)
one.append(4), two.append(3), one.append(6)
print("one:", one.blocks, "two:", two.blocks, "free:", list(pool.free))
print("slots of one's tokens:", one.slots(0, one.length))

# %% [markdown] id="4a4fa1aa"
# The texts' blocks lie in between each other, and no text has more than three empty slots.
#
# ### Exercise 4 · Copy on write
# difficulty ●●●○○ · importance ●●●○○ · 15 minutes
#
# Lesson 13 asked for many answers to one question. All of them begin with the same prompt, so its keys and values need to be in memory only once. A *fork* of a table has the same blocks, and each of them gets one more reader. The last block may be partly full, and there both texts want to write their next token into the same slot. So before a table writes into a block that others read, it takes a block of its own and copies the contents (*copy on write*). The engine below does not fork, as each of its users asks for one answer; the last section says how it could.
#
# <details><summary>How to read a report of this check</summary>
#
# Each step gives the numbers of free blocks and of copies so far, with -1 before them for a MemoryError. Behind all steps comes for each table what its slots hold, where tokens are numbered as they were written, and its numbers of blocks and tokens.
# </details>
#
# <details><summary>Hint 1</summary>
#
# When does `append` write into a block that the table has already? Only if the last one is not full, and n is at least 1.
#
# <details><summary>Hint 2</summary>
#
# Others read it if `pool.refs` is above 1. Count the block that you need for the copy among those that are missing, before anything changes. And if all other readers have left, no copy is needed.
# </details>
# </details>


# %% exercise="serving.fork" id="serving-fork"
class ForkedTable(BlockTable):
    """A block table that can be forked. copy(source, target): copies what a block holds into another one."""

    def __init__(self, pool: BlockPool, block_size: int, copy: Callable[[int, int], None]):
        super().__init__(pool, block_size)
        self.copy = copy

    def fork(self) -> "ForkedTable":
        """Another table with the same tokens in the same blocks; no block is taken or copied."""
        ### BEGIN SOLUTION
        twin = ForkedTable(self.pool, self.block_size, self.copy)
        twin.blocks, twin.length = list(self.blocks), self.length
        for block in self.blocks:
            self.pool.share(block)
        return twin
        ### END SOLUTION

    def append(self, n: int) -> list[int]:
        """As BlockTable's. If a token goes into a block that others read too, that block is first replaced by a copy.

        Raises MemoryError, and changes nothing, where blocks are missing, the one for the copy included.
        """
        ### BEGIN SOLUTION
        partly = n > 0 and self.length % self.block_size > 0
        if not (partly and self.pool.refs[self.blocks[-1]] > 1):
            return super().append(n)
        missing = math.ceil((self.length + n) / self.block_size) - len(self.blocks)
        if missing + 1 > len(self.pool.free):
            raise MemoryError("blocks are missing")
        old, own = self.blocks[-1], self.pool.take()
        self.copy(old, own)
        self.pool.give_back(old)
        self.blocks[-1] = own
        return super().append(n)
        ### END SOLUTION


# %% check="serving.fork" tags=["nbval-ignore-output"] id="check-serving-fork"
check("serving.fork", ForkedTable)

# %% [markdown] id="f0d63b32"
# Sixteen answers of 20 tokens to one prompt of 150 tokens, in blocks of 16. How many blocks do they need in all, with forks? Without sharing they would need 16 times 11, which is 176.

# %% prediction="serving.forks" id="prediction-serving-forks"
predict("serving.forks", "blocks of 16 answers to one prompt, with forks", guess=...)

# %% id="d066b2e3"
pool, copies = BlockPool(200), []
prompt = ForkedTable(pool, 16, lambda source, target: copies.append((source, target)))
prompt.append(150)
tables = [prompt] + [prompt.fork() for _ in range(15)]
for table in tables:
    for _ in range(20):
        table.append(1)
print(f"{200 - len(pool.free)} blocks, {len(copies)} copies, {len(set(copies))} of them different")
measured("serving.forks", 200 - len(pool.free))

# %% [markdown] id="04e78b47"
# <details><summary>What the numbers say</summary>
#
# 41 blocks: nine full blocks of the prompt, which all share, and two blocks for each answer, the first of which begins with the last 6 tokens of the prompt. 15 copies were made, not 16: when the last answer writes into the block, nobody else reads it any more.
# </details>

# %% [markdown] id="909c639b"
# ## The model reads through tables
#
# ### Exercise 5 · One row of tokens
# difficulty ●●●○○ · importance ●●●●● · 15 minutes
#
# A pass should read everything that is to be read now: one token each of the users whose answers are being written, and a piece of a new user's prompt, say 40 tokens. A rectangle [B, T] would be mostly padding. So the tokens of all users stand in *one row*, [N], user after user. The linear layers do not notice, since they treat every token alone. What must be said for each token is its position in its own text, for RoPE, and the slot where its key and value go. For attention it must be said where each user's tokens end, and which table is theirs.
#
# <details><summary>Hint</summary>
#
# A chunk says with which position it begins. `BlockTable.slots` is not at hand here, but its formula is.
# </details>


# %% tags=["setup"] id="setup-3"
class Batch(NamedTuple):
    """What one pass reads: N tokens of several texts, one text after the other."""

    ids: Tensor  # [N] int64
    positions: Tensor  # [N] int64, of each token in its own text
    slots: Tensor  # [N] int64, where each token's key and value go
    tables: list[list[int]]  # of each text: its blocks
    sizes: list[int]  # of each text: how many of the N tokens are its own
    lengths: list[int]  # of each text: its tokens in memory after this pass


# %% exercise="serving.pack" id="serving-pack"
def pack(chunks: Sequence[tuple[list[int], int, list[int]]], block_size: int) -> Batch:
    """Put chunks of several texts into one row.

    chunks: for each text (ids, start, blocks): the ids to read, of which there is at least one, the position of the
    first of them, and the text's blocks, in which there is room for them, and maybe for more. These lists are not
    changed.
    """
    ### BEGIN SOLUTION
    ids, positions, slots = [], [], []
    for tokens, start, blocks in chunks:
        places = range(start, start + len(tokens))
        ids += tokens
        positions += places
        slots += [blocks[p // block_size] * block_size + p % block_size for p in places]
    tables = [blocks for _, _, blocks in chunks]
    sizes = [len(tokens) for tokens, _, _ in chunks]
    lengths = [start + len(tokens) for tokens, start, _ in chunks]
    return Batch(torch.tensor(ids), torch.tensor(positions), torch.tensor(slots), tables, sizes, lengths)
    ### END SOLUTION


# %% check="serving.pack" tags=["nbval-ignore-output"] id="check-serving-pack"
check("serving.pack", pack)

# %% [markdown] id="6d8c00a5"
# ### Exercise 6 · Paged attention
# difficulty ●●●●○ · importance ●●●●● · 25 minutes
#
# Attention is the one place where users must be kept apart. Write the new keys and values into their slots first. Then go through the texts: take the text's queries out of the row, gather its keys and values by its table, cut off the empty slots at the end, and attend. A query sees the keys of its own text up to its own position. The queries are the *last* tokens of the text, so the mask is lesson 02's: with T queries and L keys, query t sees the keys up to L - T + t.
#
# Slots beyond a text's end may hold anything, old keys of other users or NaN. A mask does not protect the result from that: a weight of 0 times a value of NaN is NaN. Cut the slots off.
#
# <details><summary>Hint 1</summary>
#
# `keys[torch.tensor(table)]` is [blocks, block_size, KV, head_dim]. Flatten the first two axes, and take the first `length` of them.
#
# <details><summary>Hint 2</summary>
#
# `apply_rope` wants tokens on the last axis but one: [H, N, head_dim]. With that layout the slices of each text are on axis 1, and `F.scaled_dot_product_attention` takes them as they are, with `enable_gqa=True`.
# </details>
# </details>


# %% exercise="serving.attention" id="serving-attention"
class PagedAttention(Attention):
    """Lesson 03's attention for a row of tokens of several texts, whose keys and values lie in blocks.

    x: [N, D]; table: [2, N, head_dim], the rotations of each token; keys, values: [num_blocks, block_size, KV, head_dim],
    the memory of this layer, which is written to; batch: a Batch -> [N, D]. Kwon et al. (2023), section 4.3.
    Slots that hold no token of a text may hold anything, NaN included.
    """

    def forward(self, x: Tensor, table: Tensor, keys: Tensor, values: Tensor, batch: Batch) -> Tensor:
        N = x.shape[0]
        ### BEGIN SOLUTION
        q = self.q_norm(self.q_proj(x).view(N, -1, self.head_dim)).transpose(0, 1)  # [H, N, head_dim]
        k = self.k_norm(self.k_proj(x).view(N, -1, self.head_dim)).transpose(0, 1)  # [KV, N, head_dim]
        v = self.v_proj(x).view(N, -1, self.head_dim)  # [N, KV, head_dim]
        q, k = apply_rope(q, table), apply_rope(k, table)
        keys.view(-1, *keys.shape[2:])[batch.slots] = k.transpose(0, 1)
        values.view(-1, *values.shape[2:])[batch.slots] = v
        mixed, start = [], 0
        for blocks, T, L in zip(batch.tables, batch.sizes, batch.lengths, strict=True):
            own_k, own_v = (m[blocks].flatten(0, 1)[:L].transpose(0, 1) for m in (keys, values))  # [KV, L, head_dim]
            seen = torch.ones(T, L, dtype=torch.bool, device=x.device).tril(diagonal=L - T)
            own_q = q[:, start : start + T]  # [H, T, head_dim]
            out = F.scaled_dot_product_attention(own_q[None], own_k[None], own_v[None], attn_mask=seen, enable_gqa=True)
            mixed.append(out[0].transpose(0, 1).flatten(1))  # [T, H * head_dim]
            start += T
        return self.o_proj(torch.cat(mixed))
        ### END SOLUTION


# %% check="serving.attention" tags=["nbval-ignore-output"] id="check-serving-attention"
check("serving.attention", PagedAttention)

# %% [markdown] id="8cd65ab6"
# The rest of the model is as it was. It gives the logits of the last token of each text alone, because no other row is asked for its next token. `new_memory` fills the memory with NaN, so that a slot that is read before it was written shows.


# %% tags=["setup"] long="the whole model over pages, with its shapes" id="setup-4"
class PagedLM(CausalLM):
    """Lesson 03's model over a memory of blocks."""

    def __init__(self, config: Config):
        super().__init__(config)
        for layer in self.model.layers:
            layer.self_attn = PagedAttention(config)

    def new_memory(self, num_blocks: int, block_size: int) -> list[tuple[Tensor, Tensor]]:
        """For each layer keys and values, [num_blocks, block_size, KV, head_dim] each."""
        shape = (num_blocks, block_size, self.config.num_key_value_heads, head_dim(self.config))
        return [(torch.full(shape, torch.nan), torch.full(shape, torch.nan)) for _ in self.model.layers]

    def forward(self, batch: Batch, memory: list[tuple[Tensor, Tensor]]) -> Tensor:
        """-> [texts, vocab_size], the logits after the last token of each text."""
        table = rope_table(batch.positions, head_dim(self.config), rope_theta(self.config))
        x = self.model.embed_tokens(batch.ids)  # [N, D]
        for layer, (keys, values) in zip(self.model.layers, memory, strict=True):
            x = x + layer.self_attn(layer.input_layernorm(x), table, keys, values, batch)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        last = torch.tensor(batch.sizes).cumsum(0) - 1  # [texts]
        return self.lm_head(self.model.norm(x[last]))


# %% [markdown] id="aa4a92c3"
# Three texts, whose tokens lie scattered in blocks of 4, against the same texts read alone by lesson 03's model. The first pass reads two texts but for their last token, and a piece of the third. The second pass reads the rest of the third, and one token each of the others.

# %% id="5240fda0"
model = checkpoint.build(PagedLM)
texts = [checkpoint.tokenizer.encode(t).ids for t in ("Elizabeth was", "She had been told that", "Mr. Knightley, a sensible man")]
pool, memory = BlockPool(32), model.new_memory(32, 4)
tables = [BlockTable(pool, 4) for _ in texts]
cuts = [len(texts[0]) - 1, len(texts[1]) - 1, 2]
with torch.no_grad():
    for part in (0, 1):
        chunks = []
        for text, table, cut in zip(texts, tables, cuts, strict=True):
            piece = text[cut:] if part else text[:cut]
            table.append(len(piece))
            chunks.append((piece, table.length - len(piece), table.blocks))
        logits = model(pack(chunks, 4), memory)
    alone = torch.stack([plain(torch.tensor([text]))[0, -1] for text in texts])
print("as alone, up to rounding:", torch.allclose(logits, alone, atol=1e-4), "| passes: 2 for three texts")

# %% [markdown] id="1688ffbc"
# ## What users have in common
#
# Many prompts begin alike: the same instructions of a chat program, the same document, the conversation so far. Keys and values depend on their own token, on those before it and on nothing else. So if a text begins with the same tokens as another one that is in memory, it can use those blocks, and need not read these tokens at all. One question remains: how do we find them quickly?
#
# ### Exercise 7 · Hashes of blocks
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes
#
# A block's keys depend on *all* tokens up to its end, so its name must too. Hashing the whole beginning for every block would be slow. A chain does it: the hash of a block is computed from the hash of the block before it and its own tokens. This is transformers' hash, bit by bit.
#
# <details><summary>Hint</summary>
#
# `h.update(a); h.update(b)` hashes `a` and `b` one behind the other. Only full blocks have a hash: a block that is still being written changes.
# </details>


# %% exercise="serving.hashes" id="serving-hashes"
def block_hashes(tokens: Sequence[int], block_size: int) -> list[int]:
    """The hash of each full block of a text, chained: a block's hash says what all tokens up to its end are.

    A block's hash is the blake2b digest of 8 bytes (hashlib.blake2b(digest_size=8)) of the 8 bytes of the previous block's
    hash, little-endian, where there is one, followed by the block's ids as int32 (array("i", ids)); read as
    a little-endian, unsigned integer. transformers: compute_block_hash.
    """
    ### BEGIN SOLUTION
    hashes = []
    for start in range(0, len(tokens) - block_size + 1, block_size):
        h = hashlib.blake2b(digest_size=8)
        if hashes:
            h.update(hashes[-1].to_bytes(8, "little"))
        h.update(array("i", tokens[start : start + block_size]))
        hashes.append(int.from_bytes(h.digest(), "little"))
    return hashes
    ### END SOLUTION


# %% check="serving.hashes" tags=["nbval-ignore-output"] id="check-serving-hashes"
check("serving.hashes", block_hashes)

# %% [markdown] id="1331f3f4"
# A text of 256 tokens, in blocks of 16. One token changes. How many of the 16 hashes stay the same, if it is the token at position 100?

# %% prediction="serving.changed" id="prediction-serving-changed"
predict("serving.changed", "hashes of 16 that stay when token 100 changes", guess=...)

# %% id="c8293975"
text = torch.randint(2048, (256,), generator=torch.Generator().manual_seed(0)).tolist()
stay = {}
for size in (4, 16, 64):
    for place in (0, 100, 255):
        other = [*text[:place], text[place] + 1, *text[place + 1 :]]
        kept = sum(a == b for a, b in zip(block_hashes(text, size), block_hashes(other, size), strict=True))
        print(f"blocks of {size:2}, token {place:3} changes: {kept:2} of {256 // size} blocks stay, {kept * size:3} tokens")
        stay[size, place] = kept
measured("serving.changed", stay[16, 100])

# %% [markdown] id="1507fa7b"
# <details><summary>What the numbers say</summary>
#
# Six: everything before the block of the token that changes, and nothing after it. So what changes from user to user, such as the date or the name, belongs at the *end* of a system prompt. Smaller blocks waste less of what is common, and need longer tables and more hashes.
# </details>
#
# ### Exercise 8 · An index of prefixes
# difficulty ●●●○○ · importance ●●●●● · 15 minutes
#
# The index knows the block of each hash. Two things must not go wrong. First, a hash is not an equality. With 8 bytes a collision by chance is rare, but a shorter or weaker hash, or one that somebody can compute in order to collide, hands a user the keys of another user's text; vLLM made its hash harder to foresee for that reason (<a href="https://github.com/vllm-project/vllm/pull/12621">vllm-project/vllm#12621</a>), and Megatron-LM replaced one whose collisions anybody could compute (<a href="https://github.com/NVIDIA/Megatron-LM/pull/4158">NVIDIA/Megatron-LM#4158</a>). The cure is cheap: remember the tokens, and compare. Second, a block that has become free must leave the index, since its contents will be overwritten.
#
# And one thing is easily forgotten: a text that is found *whole* still needs its last token read, because the pass must give logits for something (<a href="https://github.com/vllm-project/vllm/pull/3239">vllm-project/vllm#3239</a>, <a href="https://github.com/GeeeekExplorer/nano-vllm/issues/144">GeeeekExplorer/nano-vllm#144</a>). So at least one token is left over.
#
# <details><summary>Hint 1</summary>
#
# `(len(tokens) - 1) // block_size` blocks at most. Compare all tokens up to the end of the block, not those of the block alone: with a weak hash, two chains can collide in the middle.
#
# <details><summary>Hint 2</summary>
#
# Two texts with the same beginning may both have computed it, in different blocks. The first one stays in the index. When `forget` is called for the second one, the first must not leave.
# </details>
# </details>


# %% exercise="serving.prefix" id="serving-prefix"
class PrefixIndex:
    """Finds blocks in memory by the tokens up to their end. hashes: names the full blocks of a text, as block_hashes."""

    def __init__(self, block_size: int, hashes: Callable[[list[int], int], list[int]] = block_hashes):
        self.block_size, self.hashes = block_size, hashes
        ### BEGIN SOLUTION
        self.block_of: dict[int, int] = {}  # hash -> block
        self.known: dict[int, tuple[int, list[int]]] = {}  # block -> its hash, and all tokens up to its end
        ### END SOLUTION

    def add(self, tokens: list[int], blocks: list[int]) -> None:
        """Know the full blocks of a text that is in memory. A hash that has a block already keeps that one.

        blocks: those of the text's beginning, in order. There may be fewer than it has full blocks, or more: what has no
        block, or no hash, is left out.
        """
        ### BEGIN SOLUTION
        for i, (name, block) in enumerate(zip(self.hashes(tokens, self.block_size), blocks, strict=False)):
            if name not in self.block_of:
                self.block_of[name] = block
                self.known[block] = name, tokens[: (i + 1) * self.block_size]
        ### END SOLUTION

    def find(self, tokens: list[int]) -> list[int]:
        """The blocks, in order, that hold the beginning of a text, up to the first that is not known.

        At least one token is left over, and each block's tokens, and all before them, are compared with the text's own.
        """
        ### BEGIN SOLUTION
        found: list[int] = []
        for name in self.hashes(tokens[:-1], self.block_size):
            block = self.block_of.get(name)
            end = (len(found) + 1) * self.block_size
            if block is None or self.known[block][1] != tokens[:end]:
                break
            found.append(block)
        return found
        ### END SOLUTION

    def forget(self, block: int) -> None:
        """The block has become free. Nothing happens if it is not known."""
        ### BEGIN SOLUTION
        if block in self.known:
            name, _ = self.known.pop(block)
            del self.block_of[name]
        ### END SOLUTION


# %% check="serving.prefix" tags=["nbval-ignore-output"] id="check-serving-prefix"
check("serving.prefix", PrefixIndex)

# %% [markdown] id="bf5ed826"
# ## A place to stop for the day
#
# You have a memory in blocks with tables, forks and an index, and a model that reads any mixture of texts in one pass. What is still to come is what decides *who* is in each pass: the scheduler, the engine, a page in the browser, and how to measure a server.
#
# ## Who is in the next pass?
#
# ### Exercise 9 · Who waits, who runs
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes
#
# Requests wait in a queue, in the order of their arrival. Some are *running*: they have a table and are read in passes. A request leaves when its answer is done, or when its user has closed the window.
#
# And there is a third way. Texts grow, and all blocks may be taken while the oldest user needs one more. Then the request that began last is *preempted*: it loses all of its blocks and goes back to the head of the queue, since everybody there came later. What it has written so far stays with it. When it gets its turn again, it reads prompt *and* answer, and goes on. Nothing else about it changes: which of its tokens are the answer, and how many are wanted in all. A program that read only the prompt again went on with a broken answer (<a href="https://github.com/PaddlePaddle/FastDeploy/pull/3080">PaddlePaddle/FastDeploy#3080</a>). And the place in the queue must be kept, too: where vLLM has a queue with priorities, a preempted request is sorted in as if it had never run, and one that has not begun may overtake it (<a href="https://github.com/vllm-project/vllm/issues/41951">vllm-project/vllm#41951</a>).
#
# <details><summary>How to read a report of this check</summary>
#
# A new request gives the number of its tokens, how many new ones it wants, and its end token; 9 stands for a ValueError. After each step come: how many wait, and which; how many run, and which; how many blocks the index has forgotten so far, and which; how many are free; 1 for each request without a table; the number of tokens of each request; and of those that wait or run, how many tokens are written and how many are wanted.
# </details>
#
# <details><summary>Hint</summary>
#
# `release` says which blocks have become free. Who must hear of it?
# </details>


# %% tags=["setup"] id="setup-5"
@dataclass(eq=False)
class Request:
    """A prompt that is to be continued. tokens: the prompt, and behind it what was written so far."""

    tokens: list[int]
    max_new_tokens: int
    end_tokens: Collection[int] = ()
    table: BlockTable | None = None  # None while it waits

    def __post_init__(self):
        self.prompt = len(self.tokens)  # how many of the tokens are the prompt

    @property
    def written(self) -> list[int]:
        return self.tokens[self.prompt :]


# %% exercise="serving.queue" id="serving-queue"
class Queue:
    """Requests that wait, in order of arrival, and requests that run, in the order in which they began.

    waiting: a deque of Requests, the next one first. running: a list. pool, index: of the memory that the running share.
    """

    def __init__(self, num_blocks: int, block_size: int):
        self.pool, self.index, self.block_size = BlockPool(num_blocks), PrefixIndex(block_size), block_size
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []

    def add(self, prompt: Sequence[int], max_new_tokens: int, end_tokens: Collection[int] = ()) -> Request:
        """A new request, which waits behind all others.

        Raises ValueError where it could never be served: an empty prompt, no new token, or too long a text. Prompt and
        answer must fit into the whole memory, whoever is in it now; the last new token is never read and needs no slot.
        """
        ### BEGIN SOLUTION
        if not prompt or max_new_tokens < 1:
            raise ValueError("a prompt and at least one new token are needed")
        if len(prompt) + max_new_tokens - 1 > len(self.pool.refs) * self.block_size:
            raise ValueError("the whole memory has no room for this request")
        request = Request(list(prompt), max_new_tokens, end_tokens)
        self.waiting.append(request)
        return request
        ### END SOLUTION

    def remove(self, request: Request) -> None:
        """The request is over, wherever it is: its blocks are given back, and the index forgets those that are free now.

        Afterwards request.table is None. Nothing happens if it was removed already.
        """
        ### BEGIN SOLUTION
        for queue in (self.waiting, self.running):
            if request in queue:
                queue.remove(request)
        if request.table is not None:
            for block in request.table.release():
                self.index.forget(block)
        request.table = None
        ### END SOLUTION

    def preempt(self) -> None:
        """The request that began last loses its blocks, as in `remove`, and waits before all others; its tokens stay."""
        ### BEGIN SOLUTION
        newest = self.running[-1]
        self.remove(newest)
        self.waiting.appendleft(newest)
        ### END SOLUTION


# %% check="serving.queue" tags=["nbval-ignore-output"] id="check-serving-queue"
check("serving.queue", Queue)

# %% [markdown] id="55651fe2"
# ### Exercise 10 · The scheduler
# difficulty ●●●●○ · importance ●●●●● · 25 minutes
#
# Before each pass the scheduler decides how many tokens of which requests are read. A pass has a *token budget*, because its duration grows with its tokens, and everybody in it waits for its end. A prompt that is longer than what is left of the budget is read in several passes, in chunks, while the others go on writing (*chunked prefill*, Agrawal et al., *Sarathi-Serve*, 2024). Without chunks, the answers of all users stand still while one long prompt is read. With chunks it depends on how long a pass with a chunk takes: on one server, in spite of chunks, an answer slowed down from 270 tokens a second to 6.6 while a prompt of 65,535 tokens was read (<a href="https://github.com/local-inference-lab/vllm/issues/541">local-inference-lab/vllm#541</a>). So the budget is what matters, and you will choose one at the end.
#
# The rules, as in vLLM's scheduler:
#
# 1. Running requests come first, in their order. Each gets as many of its unread tokens as the budget allows. One whose answer is being written has one unread token: the one that it wrote last.
# 2. If blocks are missing for it, the newest running request is preempted, and another, until there are enough, or until it was itself preempted.
# 3. Then waiting requests begin, in their order, while budget and places are left, with what the index finds. If the first does not fit into memory, nobody overtakes it. And after a preemption in this pass nobody begins: memory is short.
#
# There is no case for "prefill" and none for "decode". A request has tokens of which some have not been read. That is all.
#
# <details><summary>How to read a report of this check</summary>
#
# Each pass gives how many requests are in the plan; of each its number, how many tokens it reads, and how many it then has in memory; then how many blocks are free, how many requests wait, and how many of these have a table, where 0 is right. -7 ends it: a request reads more tokens than it has.
# </details>
#
# <details><summary>Hint 1</summary>
#
# `len(request.tokens) - request.table.length` tokens are unread. `table.append(n)` either makes room or raises MemoryError.
#
# <details><summary>Hint 2</summary>
#
# Go through a copy of `self.running`, since `preempt` changes the list. A request that is no longer in it gets nothing.
#
# <details><summary>Hint 3</summary>
#
# A waiting request that does not fit must give back what it shared.
# </details>
# </details>
# </details>


# %% exercise="serving.schedule" id="serving-schedule"
class Scheduler(Queue):
    """Decides what each pass reads. budget: tokens in a pass at most. max_running: requests that run at most."""

    def __init__(self, num_blocks: int, block_size: int, budget: int, max_running: int):
        super().__init__(num_blocks, block_size)
        self.budget, self.max_running = budget, max_running

    def schedule(self) -> list[tuple[Request, int]]:
        """What the next pass reads: requests, and of each how many tokens, for which its table has grown already.

        First the running requests, in their order: each as many unread tokens as the budget has left. Where memory is
        missing, `preempt` until it suffices or the request itself is preempted. Then, if nobody was preempted, waiting
        requests begin in their order while budget and max_running allow: each has a new BlockTable with the blocks that
        the index finds, and reads as many of its other tokens as the budget has left; the first that finds no room
        stays, with no table, and so do all behind it.
        """
        ### BEGIN SOLUTION
        plan, left, before = [], self.budget, len(self.running)
        for request in list(self.running):
            while request in self.running:
                n = min(len(request.tokens) - request.table.length, left)
                try:
                    request.table.append(n)
                except MemoryError:
                    self.preempt()
                    continue
                plan.append((request, n))
                left -= n
                break
        while self.waiting and left and before <= len(self.running) < self.max_running:
            request = self.waiting[0]
            table = BlockTable(self.pool, self.block_size, self.index.find(request.tokens))
            n = min(len(request.tokens) - table.length, left)
            try:
                table.append(n)
            except MemoryError:
                table.release()
                break
            self.running.append(self.waiting.popleft())
            request.table = table
            plan.append((request, n))
            left -= n
        return plan
        ### END SOLUTION


# %% check="serving.schedule" tags=["nbval-ignore-output"] id="check-serving-schedule"
check("serving.schedule", Scheduler)

# %% [markdown] id="1ae16a47"
# ### Exercise 11 · The engine
# difficulty ●●●○○ · importance ●●●●● · 20 minutes
#
# Now everything comes together. A step schedules, packs, runs the model, and gives each user the token that is due. A request whose prompt was read only in part gets no token yet: the logits of its chunk are those of a token in the middle of its prompt. What was read, prompt and answer, goes into the index *after* the pass, when the keys are there, so that others can share it. A request that is done leaves at once, and its place is free in the next step.
#
# <details><summary>Hint 1</summary>
#
# The chunk of a request ends at `request.table.length`, and has n tokens.
#
# <details><summary>Hint 2</summary>
#
# After the pass a token is due if `request.table.length == len(request.tokens)`. That holds for a prompt that was read to its end, for an answer, and for a request that was preempted and has read everything again.
# </details>
# </details>


# %% exercise="serving.engine" id="serving-engine"
class Engine:
    """Serves many requests with one model. num_blocks: of the memory; budget, max_running: of the scheduler."""

    def __init__(self, model: nn.Module, num_blocks: int, block_size: int = 16, budget: int = 64, max_running: int = 16):
        self.model, self.memory = model, model.new_memory(num_blocks, block_size)
        self.scheduler = Scheduler(num_blocks, block_size, budget, max_running)

    @torch.no_grad()
    def step(self) -> list[tuple[Request, int]]:
        """One pass -> each request that has got a token, and the token, in the pass's order; [] if there is nothing to do.

        The model is called once, with a Batch and the memory. What a request has read is added to the index after the
        pass. A request that has read all of its tokens gets the most likely next one, which is added to its tokens; with
        one of its end_tokens, or its max_new_tokens-th, it is removed.
        """
        ### BEGIN SOLUTION
        plan = self.scheduler.schedule()
        if not plan:
            return []
        ends = [request.table.length for request, _ in plan]
        chunks = [(r.tokens[end - n : end], end - n, r.table.blocks) for (r, n), end in zip(plan, ends, strict=True)]
        logits = self.model(pack(chunks, self.scheduler.block_size), self.memory)  # [requests, vocab_size]
        given = []
        for (request, _), end, row in zip(plan, ends, logits, strict=True):
            self.scheduler.index.add(request.tokens[:end], request.table.blocks)
            if end == len(request.tokens):
                token = row.argmax().item()
                request.tokens.append(token)
                given.append((request, token))
                if token in request.end_tokens or len(request.written) == request.max_new_tokens:
                    self.scheduler.remove(request)
        return given
        ### END SOLUTION

    def add(self, prompt: Sequence[int], max_new_tokens: int, end_tokens: Collection[int] = ()) -> Request:
        return self.scheduler.add(prompt, max_new_tokens, end_tokens)

    def abort(self, request: Request) -> None:
        self.scheduler.remove(request)

    def run(self) -> int:
        """Step until all requests are done -> how many passes that took."""
        passes = 0
        while self.scheduler.waiting or self.scheduler.running:
            self.step()
            passes += 1
        return passes


# %% check="serving.engine" tags=["nbval-ignore-output"] id="check-serving-engine"
check("serving.engine", Engine)

# %% [markdown] id="80332a03"
# Sixteen users ask at once, and each wants 48 tokens. One after the other that takes 16 x 48 = 768 passes: the first token comes from the pass that reads the prompt. How many passes does the engine need, if the budget is large enough for all prompts together?

# %% prediction="serving.passes" id="prediction-serving-passes"
predict("serving.passes", "passes for 16 users of 48 tokens each", guess=...)

# %% id="a8a1aeb1"
novel = "It is a truth universally acknowledged, that a single man in possession of a good fortune"
prompts = [checkpoint.tokenizer.encode(novel[: 12 + 5 * i]).ids for i in range(16)]


def served(num_blocks: int = 256, max_running: int = 16) -> tuple[int, list[list[int]]]:
    """Passes and answers of the 16 users."""
    engine = Engine(model, num_blocks, 8, 512, max_running)
    requests = [engine.add(prompt, 48) for prompt in prompts]
    return engine.run(), [request.written for request in requests]


alone = served(max_running=1)
together = served()
print(f"{alone[0]} passes one after the other, {together[0]} together; the same answers: {alone[1] == together[1]}")
measured("serving.passes", together[0])

# %% [markdown] id="8a91e2b7"
# <details><summary>What the numbers say</summary>
#
# 48, as for a single user: the first pass reads all prompts and gives 16 first tokens, and each of the others gives everybody one. A sixteenth of the passes, each of them a little longer. The answers are the same, token for token.
# </details>
#
# Then memory gets short. At its end a text has up to 10 blocks of 8, so 16 users who share nothing would have up to 160. With fewer blocks, requests wait, or are preempted and read again. How does the number of passes grow? And do the answers stay the same?

# %% id="99ae4298"
from grader.instruments import patch

preempt, preempted = Queue.preempt, []


def noted(queue: Queue) -> None:
    """Preempt, and note it."""
    preempted.append(queue.running[-1])
    preempt(queue)


# %% id="e623f9ae"
with patch.replaced(Queue, preempt=noted):
    for blocks in (256, 64, 32, 12):
        preempted.clear()
        passes, texts_now = served(num_blocks=blocks)
        same_texts = texts_now == together[1]
        print(f"{blocks:3} blocks: {passes:3} passes, {len(preempted):2} preemptions, the same answers: {same_texts}")

# %% [markdown] id="2677bdad"
# Memory decides how many users run at a time. With twelve blocks it is two or three of them, who read the beginning that their prompts have in common from the same blocks, and nobody's answer changes. It only takes longer, which is the first half of the answer to the question at the top.
#
# ### Who found what in memory
#
# 24 users ask one after the other, one in each pass. Each prompt is the same text of 67 tokens, followed by a few of the user's own. How many tokens does the engine read in all until everybody has 8 tokens, compared with an engine that shares nothing? What is written does not matter for that, so the engine gets a model that only counts.

# %% prediction="serving.shared" id="prediction-serving-shared"
predict("serving.shared", "tokens read with prefix sharing, of those read without", unit="%", guess=...)

# %% tags=["setup"] id="setup-6"
class Clockwork(nn.Module):
    """A model without weights that always writes token 0. now: its clock; rows: how many tokens it has read."""

    def __init__(self):
        super().__init__()
        self.now, self.rows = 0.0, 0

    def new_memory(self, num_blocks: int, block_size: int) -> None:
        return None

    def forward(self, batch: Batch, memory: None) -> Tensor:
        self.rows += len(batch.ids)
        self.now += 20 + len(batch.ids)
        return torch.tensor([[1.0, 0.0]]).expand(len(batch.sizes), 2)


# %% id="b6d0e4a9"
class Nothing(PrefixIndex):
    """An index that finds nothing."""

    def find(self, tokens: list[int]) -> list[int]:
        return []


# %% jupyter={"source_hidden": true} id="9cc9488d"
def rows_read(index: PrefixIndex) -> int:
    """Tokens that are read in all when a user comes before each pass."""
    engine = Engine(Clockwork(), 128, 8, 512, 32)
    engine.scheduler.index = index
    for prompt in arrivals:
        engine.add(prompt, 8)
        engine.step()
    engine.run()
    return engine.model.rows


# %% id="7c6834db"
common = checkpoint.tokenizer.encode((novel + ", must be in want of a wife. ") * 3).ids[:67]
arrivals = [common + text[i : i + 5] for i in range(0, 240, 10)]
without, shared = rows_read(Nothing(8)), rows_read(PrefixIndex(8))
print(f"without sharing {without:,} tokens, with it {shared:,}")
measured("serving.shared", 100 * shared / without)

# %% [markdown] id="75fc88dd"
# <details><summary>What the numbers say</summary>
#
# Each user but the first finds 8 blocks, 64 of the 72 tokens, and reads 8. This works here because the users overlap: a block is in the index as long as somebody reads it. vLLM, SGLang and transformers go one step further. They leave the contents of a free block in the index until its memory is needed for something else, so that the system prompt survives a quiet minute, and a conversation's second question finds its first.
# </details>
#
# ## How good is a server?
#
# A user feels two things: how long it takes until the first word (*time to first token*, TTFT), and how fast the words come then (*time per output token*, TPOT). TTFT begins when the request arrives, so it includes the time in the queue: a server that measures from the start of its own work looks good when it is worst. A mean hides those who wait longest. So operators promise limits for both, and count the requests that are within *both*: the *goodput* (Zhong et al., *DistServe*, 2024). A server with a high throughput and no goodput keeps the machine busy and its users unhappy.
#
# ### Exercise 12 · TTFT, TPOT, goodput
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes
#
# These are the formulas of vLLM's benchmark.
#
# <details><summary>Hint</summary>
#
# An answer of n tokens has n - 1 gaps. How long is the whole measurement: from when to when?
# </details>


# %% exercise="serving.report" id="serving-report"
def report(
    requests: Sequence[tuple[float, Sequence[float]]], ttft_limit: float, tpot_limit: float
) -> tuple[list[float], list[float], float]:
    """(TTFTs, TPOTs, goodput) of requests that were served.

    requests: of each the time of its arrival, and the times at which its tokens came, of which there is at least one.
    TTFT: from the arrival to the first token. TPOT: the mean gap between tokens, (last - first) / (tokens - 1); 0.0 for a single token.
    goodput: how many requests have both at most at their limits, for each unit of time from the first arrival to the
    last token of all.
    """
    ### BEGIN SOLUTION
    ttfts = [times[0] - arrival for arrival, times in requests]
    tpots = [(times[-1] - times[0]) / max(len(times) - 1, 1) for _, times in requests]
    good = sum(a <= ttft_limit and b <= tpot_limit for a, b in zip(ttfts, tpots, strict=True))
    duration = max(times[-1] for _, times in requests) - min(arrival for arrival, _ in requests)
    return ttfts, tpots, good / duration
    ### END SOLUTION


# %% check="serving.report" tags=["nbval-ignore-output"] id="check-serving-report"
check("serving.report", report)

# %% [markdown] id="a92d605d"
# Now arrivals: the first 60 requests of the file, at the times at which they came, of which a second counts as 800 units. The model is again the one that only counts. Its clock is made up, so that the result is the same on every machine: a pass takes 20 units, and one more for each token in it. The loop is folded: it adds who has come, lets the engine make a step, and notes the time.

# %% jupyter={"source_hidden": true} id="36377cdc"
def replay(engine: Engine, requests: list[tuple[float, int, int]], second: int = 800) -> list[tuple[float, list]]:
    """Serve the trace's requests -> of each its arrival, and when its tokens came. second: units of the clock."""
    clock, queue, log = engine.model, engine.scheduler, {}
    due = deque((at * second, prompt, answer) for at, prompt, answer in requests)
    while due or queue.waiting or queue.running:
        if due and not (queue.waiting or queue.running):
            clock.now = max(clock.now, due[0][0])  # nothing to do until somebody comes
        while due and due[0][0] <= clock.now:
            arrival, prompt, answer = due.popleft()
            log[engine.add([len(log)] * prompt, answer)] = arrival, []
        for request, _ in engine.step():
            log[request][1].append(clock.now)
    return list(log.values())


# %% [markdown] id="b5933283"
# We serve them in four ways, and want the first token within 1,000 units and the others every 50. Which way has the most goodput?

# %% prediction="serving.best" id="prediction-serving-best"
predict(
    "serving.best",
    "the way with the most goodput",
    one_of=["one after the other", "16 users, whole prompts", "16 users, chunks", "chunks, little memory"],
    guess=...
)

# %% id="81287706"
ways = {  # blocks, slots in a block, budget, most running
    "one after the other": (256, 8, 256, 1),
    "16 users, whole prompts": (256, 8, 2048, 16),
    "16 users, chunks": (256, 8, 24, 16),
    "chunks, little memory": (48, 8, 24, 16),
}

# %% id="a0ebe684"
best, limits = {}, (1000.0, 50.0)
for name, numbers in ways.items():
    log = replay(Engine(Clockwork(), *numbers), trace(60))
    ttfts, tpots, best[name] = report(log, *limits)
    longest = max(after - before for _, times in log for before, after in itertools.pairwise(times))
    soon, fast = sum(t <= limits[0] for t in ttfts), sum(t <= limits[1] for t in tpots)
    print(f"{name:>24}: {soon:2} of 60 begin in time, {fast:2} go on in time; mean TTFT {sum(ttfts) / 60:6,.0f},"
          f" longest gap {longest:3,.0f}; goodput {1000 * best[name]:.2f} in 1,000 units")
measured("serving.best", max(best, key=best.get))

# %% [markdown] id="1efdcbf4"
# <details><summary>What the numbers say</summary>
#
# One after the other has the best pace for those whose turn it is, and almost nobody gets a first token in time: the requests come faster than they are served, and the queue grows. With 16 users at once the queue is gone. Whole prompts give the quickest first tokens, and gaps of up to 218 units for all who are reading: that is a pass with long prompts in it. So twelve of them fall behind the pace that was promised. Chunks bound the gap at 20 + 24 = 44, and pay with a later first token. With little memory, requests are preempted and read again. Somebody's text stood still for 468 units, though no pass took more than 44.
#
# Which way is the best is a question about promises. Put 500 in place of 1,000 into the cell: then whole prompts win.
# </details>
#
# ### Exercise 13 · Your own experiment: which budget?
# difficulty ●●●○○ · importance ●●●●○ · 15 minutes
#
# Some users are reading their answers, one token in each pass, when a newcomer's prompt arrives. A small budget protects the readers, and a large one serves the newcomer sooner. If the first token may take a given time, which budget is the kindest to the readers? You need no model for that, only what a pass costs.
#
# <details><summary>Hint</summary>
#
# Simulate: each pass has `running` rows, and of the prompt's unread tokens as many as fit into the budget. The newcomer's first token comes at the end of the pass that reads the last of them.
# </details>


# %% exercise="serving.budget" id="serving-budget"
def best_budget(prompt: int, running: int, cost: Callable[[int], float], ttft_limit: float) -> int:
    """The token budget with which `running` users wait least for their next token while a prompt is read in time.

    Each pass reads one token of each of the running users, who don't finish, and of the newcomer's prompt as many
    tokens as the budget leaves; it takes cost(tokens in the pass), in the unit of ttft_limit. Budgets from running + 1
    to running + prompt are tried. Of those with which the passes that read the prompt take at most ttft_limit in all,
    the one whose longest pass is the shortest; of several the smallest; 0 if there is none.
    """
    ### BEGIN SOLUTION
    best = (math.inf, 0)
    for budget in range(running + 1, running + prompt + 1):
        full, rest = divmod(prompt, budget - running)
        passes = [budget] * full + [running + rest] * (rest > 0)
        costs = [cost(rows) for rows in passes]
        if sum(costs) <= ttft_limit:
            best = min(best, (max(costs), budget))
    return best[1]
    ### END SOLUTION


# %% check="serving.budget" tags=["nbval-ignore-output"] id="check-serving-budget"
check("serving.budget", best_budget)

# %% [markdown] id="54582e9f"
# With the clock from above, 12 readers and a prompt of 150 tokens: which budget do you choose if the newcomer is to wait 400 units at most?

# %% prediction="serving.choice" id="prediction-serving-choice"
predict("serving.choice", "budget for 12 readers, a prompt of 150 and 400 units", guess=...)

# %% id="ec95b658"
def cost(rows: int) -> float:
    return 20 + rows


for limit in (200, 300, 400, 600, 1000):
    chosen = best_budget(150, 12, cost, limit)
    print(f"first token within {limit:5,}: a budget of {chosen:3}, so readers wait {20 + chosen:3} for each token")
measured("serving.choice", best_budget(150, 12, cost, 400))

# %% [markdown] id="e5deebec"
# <details><summary>What the numbers say</summary>
#
# A prompt that is cut into c chunks pays the 20 units of a pass, and the 12 readers' rows, c times: 150 + 32 c units in all. With 400 units that is 7 chunks, of 22 tokens. The longer the newcomer may wait, the smoother it is for the others, with less and less gain.
# </details>
#
# Now yours: what does a pass cost on *your* machine? The cell measures passes of 1 to 128 rows of one text, draws a straight line through two of them, and asks `best_budget`. Change the limit to one that you would accept, in milliseconds. Then measure more sizes: is it a straight line? If your processor works on rows in groups, some budgets are better than both of their neighbours.

# %% tags=["nbval-ignore-output"] id="2bf6e64e"
sizes = (1, 8, 16, 32, 64, 128)
took = clock.in_turns({n: partial(plain, torch.ones(1, n, dtype=torch.long)) for n in sizes}, 9)
print(", ".join(f"{n} rows {took[n]:.1f} ms" for n in sizes))
slope = (took[128] - took[16]) / 112
print("budget:", best_budget(150, 12, lambda n: took[16] + slope * (n - 16), ttft_limit=15 * took[16]))

# %% [markdown] id="93b822f2"
# ## Two at once, in the browser
#
# The engine runs in a thread of its own, because visitors come when they like. Between two passes it does what they asked for: begin a request, or end one whose visitor has left. Each visitor has a mailbox for their tokens.

# %% jupyter={"source_hidden": true} id="ef8cd6a3"
import threading
from queue import SimpleQueue


class Service:
    """Runs an engine for visitors who come at any time."""

    def __init__(self, engine: Engine, tokenizer):
        self.engine, self.tokenizer = engine, tokenizer
        self.wishes, self.mail = SimpleQueue(), {}
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        """Pass after pass, and before each what visitors wish; without requests, wait for a wish."""
        scheduler = self.engine.scheduler
        while True:
            while not self.wishes.empty() or not (scheduler.waiting or scheduler.running):
                self.wishes.get()()
            try:
                for request, token in self.engine.step():
                    self.mail[request].put((token, request.table is None))  # a request without a table is done
            except Exception as error:  # told to all who wait: a thread that ends leaves them waiting for ever
                for request, mailbox in self.mail.items():
                    self.engine.abort(request)
                    mailbox.put((error, True))

    def answer(self, words: str, tokens: int = 48) -> Iterator[str]:
        """The text behind some words, piece by piece."""
        ids, mine, began = self.tokenizer.encode(words).ids[-150:] or [0], SimpleQueue(), []

        def begin() -> None:
            try:
                began.append(self.engine.add(ids, tokens))
                self.mail[began[0]] = mine
            except ValueError as error:  # the engine's memory is too small for this request
                mine.put((error, True))

        def end() -> None:
            for request in began:
                self.engine.abort(request)
                del self.mail[request]

        self.wishes.put(begin)
        written, shown, done = [], "", False
        try:
            while not done:
                token, done = mine.get()
                if isinstance(token, Exception):
                    raise token
                written.append(token)
                text = self.tokenizer.decode(written)
                yield text[len(shown) :]
                shown = text
        finally:
            self.wishes.put(end)


# %% [markdown] id="b61ee8ca"
# Four visitors ask the page over HTTP, at the same time. A fifth has begun before them, and leaves while they read. Does each of the four read what they would have read alone?

# %% id="7db69b00"
from concurrent.futures import ThreadPoolExecutor

from grader.instruments import page

asked = ["Emma Woodhouse, handsome,", "Anne hoped she had", "Emma Woodhouse, handsome, clever,", "It is a truth"]
service = Service(Engine(model, 64, 8), checkpoint.tokenizer)
alone_texts = ["".join(service.answer(words)) for words in asked]
with page.served(service.answer, "Austen, for all") as url, ThreadPoolExecutor(4) as visitors:
    leaving = service.answer("She was", 100)
    next(leaving)
    answered = visitors.map(lambda words: page.asked(url, words), asked)
    leaving.close()
    same = list(answered) == alone_texts
print("each of them reads what they would have read alone:", same)

# %% tags=["nbval-ignore-output"] id="5934c0dd"
for words, more in zip(asked, alone_texts, strict=True):
    print(words + more, end="\n\n")

# %% [markdown] id="e2dc3b2c"
# To see it, run this in a cell of its own, and open the address in two windows. Write into both.
#
# ```python
# with page.served(service.answer, "Austen, for all") as url:
#     input(f"{url} - press Enter here to stop")
# ```
#
# ## Where others go further
#
# Your engine decides what vLLM decides, in the same order. SGLang and transformers' `generate_batch` decide the same things by other rules, and all of them differ in what a pass costs, and in what they add:
#
# | | here | vLLM, SGLang, transformers |
# |---|---|---|
# | attention | a loop over texts, which copies their keys and values | one kernel for all texts, which reads the blocks where they lie |
# | a pass | planned, then computed | the next one is planned while this one is computed |
# | free blocks | forgotten at once | stay in the index until they are needed (vLLM), or in a tree of all prefixes (SGLang's RadixAttention) |
# | memory is short | the newest is preempted and reads everything again | the same (vLLM); the one that has written least is (SGLang); or its blocks are moved to the processor's memory and back |
# | prefill and decode | in one pass | the same (vLLM); prompts first, in passes of their own, unless one asks for mixed ones (SGLang); on different machines (DistServe) |
# | next tokens | the most likely | sampling for each request, several tokens a pass with a draft (lesson 15) |
# | models | Qwen3 | sliding windows, MLA, states: each kind of layer has blocks of its own |
#
# If you serve a model to others, use one of them. If one of them gives an odd answer under load and a right one alone, you now know where to look: positions, lengths, tables, hashes, and what happens after a preemption.
#
# ## Your guesses
#
# Here they are once more, beside what was measured.

# %% tags=["nbval-ignore-output"] id="27f6cc83"
predictions()

# %% [markdown] id="fcdd3e68"
# ## What changed, and why
#
# | | before | now | why |
# |---|---|---|---|
# | a pass | one text, or a rectangle of texts of one length | one row of tokens of any texts | nothing is padded, anybody can join |
# | who is in it | the same until all are done | decided before each pass | a finished user's place is free at once |
# | cache | one piece, as long as the longest text | blocks, taken when needed | less than one block is empty for each user |
# | where a token lies | at its position | `table[p // B] * B + p % B` | any free block will do |
# | the same beginning | computed and kept for each user | found by a chained hash, compared, shared | keys depend on their own token and those before it alone |
# | a shared block that is not full | – | copied before it is written to | two texts go on differently |
# | a long prompt | one pass | chunks, within a budget | no pass is longer than the budget allows |
# | memory is full | an error | the newest is preempted, and reads prompt and answer again | the oldest always gets on |
# | what is measured | tokens a second | TTFT, TPOT, goodput | users wait; machines don't |
#
# ## The questions again
#
# <details><summary>Why does your answer take longer when others ask, and what would you change first?</summary>
#
# Three reasons. You wait until it is your turn, if few users fit into memory or into a pass. Passes take longer with more tokens in them, most of all those that read a long prompt. And memory may run out, so that your text is read twice. What to change first follows from the measurement: a long TTFT with a short TPOT says that users wait in the queue, so memory must hold more of them (blocks, sharing). Long gaps of all readers say that passes are too long, so prompts must be cut (a budget); a long gap of one of them, that they were preempted (memory again).
# </details>
#
# <details><summary>How much memory does a user waste with blocks of 16?</summary>
#
# At most 15 slots, at the end of the text. Reserving for the longest text wastes the difference between the longest and this one.
# </details>
#
# <details><summary>When is a block copied?</summary>
#
# When a token is about to be written into a block that is not full and that somebody else reads too. A full block is never written to, so it is never copied.
# </details>
#
# <details><summary>What has to be known of each token in the row?</summary>
#
# Its id, its position in its own text, and its slot. Attention also needs each text's table, how many of the rows are its own, and its length.
# </details>
#
# <details><summary>Why is the hash of a block not enough to share it?</summary>
#
# Two texts can have one hash. So the tokens are compared, all up to the end of the block. And the block must still be in use: the index forgets what has become free.
# </details>
#
# <details><summary>A prompt is in memory whole. What is read?</summary>
#
# At least the last token: the logits for the next one come from a pass.
# </details>
#
# <details><summary>What does a preempted request lose, and what does it keep?</summary>
#
# Its blocks, and with them the work of reading. It keeps its tokens, the written ones too, and its place before all who came later. No token is given out twice.
# </details>
#
# <details><summary>What is the test for all of this?</summary>
#
# Each answer equals the one decoded alone, whoever else is there, whenever they come, and however little memory there is. And in the end all blocks are free.
# </details>
#
# ## Where to read on
#
# - Kwon et al., *Efficient Memory Management for Large Language Model Serving with PagedAttention* (2023, arXiv 2309.06180): sections 3 and 4, figures 2 and 3. Yu et al., *Orca* (OSDI 2022): scheduling for each pass.
# - Agrawal et al., *Sarathi-Serve* (2024, arXiv 2403.02310): chunked prefill. Zhong et al., *DistServe* (2024, arXiv 2401.09670): goodput, and prefill on machines of its own. Zheng et al., *SGLang* (2023, arXiv 2312.07104): a tree of prefixes. Patel et al., *Splitwise* (2024, arXiv 2311.18677): lengths of real requests; the trace is at <a href="https://github.com/Azure/AzurePublicDataset">Azure/AzurePublicDataset</a>, under CC BY 4.0.
# - In transformers: `generation/continuous_batching/`, with `scheduler.py`, and `cache_allocators/full_attention.py` for tables and slots. In vLLM: `v1/core/sched/scheduler.py` and `v1/core/block_pool.py`. nano-vllm is a whole engine in about 1,200 lines.
#
# ## If you want more
#
# Keep free blocks in the index: let `take` prefer blocks that are not known, then the one that became free longest ago, which the index then forgets. You are right when all answers stay the same and the second question of a conversation reads only what is new.
#
# Let requests sample, each with a random generator of its own, and let one request ask for n answers by forks. You are right when an answer does not depend on who else is there.
#
# Preempt the request with the fewest tokens in memory, and compare the tokens read in all, and the longest gap.
