"""What the exercises of 16-serving are checked against: transformers' attention, slots and hashes, and brute force."""

from collections.abc import Sequence
from typing import Any

import torch

from grader.authoring.kit import Case, Draw, Exercise, configs, hf, with_mistakes
from grader.authoring.kit.configs import fields_of
from grader.authoring.kit.toy import toy_that_ends

from . import drives
from .reference import (
    alone,
    build_attention,
    call_attention,
    right_answers,
    right_budget,
    right_forks,
    right_hashes,
    right_idle,
    right_index,
    right_known,
    right_packed,
    right_pool,
    right_queue,
    right_report,
    right_rows,
    right_schedule,
    right_share,
    right_table,
    right_two_pools,
    rope_table,
    transformers_hashes,
)

# Memory


def waste_case(name: str, requests: Sequence[Sequence[int]], policy: int, size: int, alike: bool = False) -> Case:
    """alike: whether all prompts stay as long as each other."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        more = draw.number("more", 0, 1, 9)
        varied = [
            [prompt + more * (1 if alike else i + 1), answer + more * (i > 0)]
            for i, (prompt, answer) in enumerate(requests)
        ]
        return [varied, policy, size]

    return Case(name, draw_args)


NOTHING = {"drive": drives.share_of_nothing, "right": lambda *_: [0]}
WASTE = Exercise(
    name="serving.waste",
    solution="used_share",
    reference=right_share,
    drive=drives.share,
    function=True,
    differentiable=False,
    points=3,
    cases=[
        waste_case("room for 64 tokens", [[10, 5], [3, 30], [22, 12]], 0, 64),
        waste_case("blocks of 8", [[10, 7], [5, 21], [16, 1]], 1, 8),
        waste_case("a policy that grows in a way of its own", [[4, 6], [9, 3], [7, 8], [30, 2]], 2, 11),
        waste_case("one request", [[12, 9]], 1, 4),
        waste_case("fewer slots than tokens: a share above 1", [[14, 5], [8, 20]], 0, 6),
        waste_case("a request without an answer", [[8, 0], [5, 2]], 0, 30),
        waste_case("two prompts of one length", [[5, 2], [5, 4]], 2, 7, alike=True),
        waste_case("nothing is reserved before the first token of an answer", [[4, 2], [9, 3]], 4, 25),
        Case("nothing is reserved: a thousand times the share", lambda draw: [[[5, 3], [2, 4]], 3, 7], **NOTHING),
        Case("no request: a thousand times the share", lambda draw: [[], 0, 9], **NOTHING),
    ],
)


TAKE, SHARE, GIVE = 0, 1, 2


def pool_case(name: str, num_blocks: int, steps: list[list[int]], **more_of_it: Any) -> Case:
    """steps: as `drives.pool_steps` has them. In a hidden case some more blocks were taken before."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        more = draw.size("before", 0, 1, 2, 3)
        return [num_blocks + more, [[TAKE, 0]] * more + [[kind, k + more * (kind != TAKE)] for kind, k in steps]]

    return Case(name, draw_args, **more_of_it)


def random_pool(draw: Draw, num_blocks: int, count: int) -> list[list[int]]:
    """Random steps: blocks are taken, shared and given back, and errors are made with all of it."""
    steps, taken = [[TAKE, 0], [TAKE, 0]], 2
    for _ in range(count):
        kind = int(torch.randint(4, (1,), generator=draw.generator)) % 3
        k = int(torch.randint(max(taken, 1), (1,), generator=draw.generator))
        before = right_pool(num_blocks, [*steps, [TAKE, 0]])
        if kind == TAKE:
            taken += before[-3] == 0
            steps.append([TAKE, 0])
        elif is_new(num_blocks, steps, k):
            steps.append([kind, k])
    return steps


def is_new(num_blocks: int, steps: list[list[int]], k: int) -> bool:
    """Whether the k-th block that was taken can't have been handed out again since it became free."""
    free_since = None
    readers: dict[int, int] = {}
    taken = 0
    for kind, which in steps:
        if kind == TAKE:
            if sum(n > 0 for n in readers.values()) < num_blocks:
                readers[taken] = 1
                taken += 1
                if free_since is not None:
                    return False
        elif readers[which] > 0:
            readers[which] += 1 if kind == SHARE else -1
            if which == k and readers[which] == 0:
                free_since = taken
    return True


POOL = Exercise(
    name="serving.pool",
    solution="BlockPool",
    reference=right_pool,
    drive=drives.pool_steps,
    function=True,
    differentiable=False,
    points=5,
    axes="step code/free/readers",
    cases=[
        pool_case("three blocks are taken", 5, [[0, 0], [0, 0], [0, 0]]),
        pool_case("one block more than there are", 3, [[0, 0], [0, 0], [0, 0], [0, 0], [0, 0]]),
        pool_case(
            "a block is given back, and taken again", 2, [[0, 0], [0, 0], [2, 0], [0, 0], [0, 0], [2, 1], [2, 2]]
        ),
        pool_case("two readers", 4, [[0, 0], [1, 0], [2, 0], [2, 0], [0, 0], [0, 0], [0, 0], [0, 0], [0, 0]]),
        pool_case(
            "three readers, and another block", 6, [[0, 0], [0, 0], [1, 0], [1, 0], [2, 1], [2, 0], [2, 0], [2, 0]]
        ),
        pool_case("300 readers", 3, [[0, 0], *[[1, 0]] * 299, *[[2, 0]] * 300, [0, 0]]),
        pool_case("given back twice (9: ValueError)", 7, [[0, 0], [0, 0], [2, 0], [2, 0], [2, 1], [2, 1], [2, 0]]),
        pool_case("a free block is shared (9: ValueError)", 8, [[0, 0], [2, 0], [1, 0], [2, 0], [0, 0]]),
        Case("60 random steps", lambda draw: [9, random_pool(draw, 9, 60)]),
        pool_case(
            "two pools, in turns",
            4,
            [[0, 0], [0, 0], [2, 0], [1, 1], [2, 1], [1, 0]],
            drive=drives.two_pools,
            right=right_two_pools,
        ),
    ],
)


def order_of(draw: Draw, num_blocks: int) -> list[int]:
    """The blocks in a random order."""
    return [int(block) for block in torch.randperm(num_blocks, generator=draw.generator)]


def table_case(name: str, num_blocks: int, block_size: int, shared: int, steps: list[int]) -> Case:
    """steps: as `drives.table_steps` has them."""
    return Case(name, lambda draw: [order_of(draw, num_blocks), block_size, shared, steps])


TABLE = Exercise(
    name="serving.table",
    solution="BlockTable",
    reference=right_table,
    drive=drives.table_steps,
    function=True,
    differentiable=False,
    points=6,
    cases=[
        table_case("5 tokens in blocks of 4", 7, 4, 0, [5]),
        table_case("one token after the other, over a border", 6, 3, 0, [2, 1, 1, 1, 1, 1]),
        table_case("a length that is a multiple of the block", 8, 5, 0, [10, 5, 1]),
        table_case("a long piece after a short one", 9, 4, 0, [3, 14, 2]),
        table_case("no tokens", 5, 2, 0, [0, 3, 0]),
        table_case("blocks are missing (-1): all or none", 4, 3, 0, [7, 6, 5, 1, 1]),
        table_case("the slots of a part", 10, 4, 0, [11, -2, -6, 6, -13]),
        table_case("everything is given back, and the table is used again", 5, 4, 0, [9, -1, 6, -1]),
        table_case("a beginning that others hold", 11, 3, 2, [4, -2, 3]),
        table_case("a beginning that others hold is given back", 12, 2, 3, [5, -1, 3]),
        table_case("blocks of one slot", 13, 1, 0, [4, 1, -4]),
        table_case("others hold blocks, and too few are left (-1)", 5, 2, 3, [-1, 5, 4, 1]),
    ],
)


APPEND, FORK, RELEASE = 0, 1, 2


def fork_case(name: str, num_blocks: int, block_size: int, steps: list[list[int]]) -> Case:
    """steps: as `drives.fork_steps` has them. In a hidden case the first table has some full blocks before."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        more = draw.size("before", 0, 1, 2, 3)
        before = [[APPEND, 0, more * block_size]] if more else []
        return [order_of(draw, num_blocks + more), block_size, before + steps]

    return Case(name, draw_args)


FORKS = Exercise(
    name="serving.fork",
    solution="ForkedTable",
    reference=right_forks,
    drive=drives.fork_steps,
    function=True,
    differentiable=False,
    points=6,
    uses=["serving.table"],
    cases=[
        fork_case("no fork", 6, 4, [[0, 0, 5], [0, 0, 1], [0, 0, 4]]),
        fork_case(
            "a fork in a block that is partly full",
            9,
            4,
            [[0, 0, 6], [1, 0, 0], [0, 0, 1], [0, 1, 1], [0, 0, 2], [0, 1, 3]],
        ),
        fork_case("a fork at a border: nothing is copied", 8, 3, [[0, 0, 6], [1, 0, 0], [0, 1, 2], [0, 0, 4]]),
        fork_case("the other reader has left: nothing is copied", 7, 4, [[0, 0, 5], [1, 0, 0], [2, 0, 0], [0, 1, 2]]),
        fork_case(
            "three forks",
            12,
            4,
            [[0, 0, 7], [1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 3, 2], [0, 0, 1], [0, 2, 6], [0, 1, 1]],
        ),
        fork_case("no token is written: nothing is copied", 5, 4, [[0, 0, 3], [1, 0, 0], [0, 0, 0], [0, 1, 1]]),
        fork_case(
            "no block for the copy (-1)", 2, 5, [[0, 0, 7], [1, 0, 0], [0, 1, 1], [0, 0, 1], [2, 1, 0], [0, 0, 1]]
        ),
        fork_case(
            "a block for the copy, none for more (-1)", 3, 4, [[0, 0, 6], [1, 0, 0], [0, 1, 3], [0, 1, 2], [0, 0, 1]]
        ),
        fork_case(
            "a fork of a fork writes first", 10, 2, [[0, 0, 3], [1, 0, 0], [1, 1, 0], [0, 2, 1], [0, 1, 2], [0, 0, 2]]
        ),
        fork_case("a fork of an empty table", 4, 3, [[0, 0, 5], [2, 0, 0], [1, 0, 0], [0, 1, 4], [0, 0, 2]]),
    ],
)


# The model's side


def pack_case(name: str, block_size: int, *chunks: Sequence[int]) -> Case:
    """chunks: how many ids, from which position, and how many empty blocks the text has besides."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        order = order_of(draw, 40)
        made = []
        for count, start, *empty in chunks:
            size = count + draw.size("more", 0, 1, 2) * (count > 1)
            blocks = [order.pop() for _ in range(-(-(start + size) // block_size) + sum(empty))]
            made.append([draw.tokens(90, size).tolist(), start, blocks])
        return [made, block_size]

    return Case(name, draw_args)


PACK = Exercise(
    name="serving.pack",
    solution="pack",
    reference=right_packed,
    drive=drives.packed,
    function=True,
    differentiable=False,
    points=5,
    cases=[
        pack_case("one prompt", 4, (7, 0)),
        pack_case("two prompts", 3, (5, 0), (4, 0)),
        pack_case("two prompts and a writer that have empty blocks, too", 4, (5, 0, 2), (3, 0, 1), (1, 6, 2)),
        pack_case("three users who write", 5, (1, 12), (1, 3), (1, 9)),
        pack_case("a chunk of a prompt beside a user who writes", 4, (1, 6), (6, 5)),
        pack_case("a token that begins a block", 6, (1, 12), (1, 6)),
        pack_case("positions and slots above 2^24", 2**20, (3, 2**24 + 1)),
        pack_case("chunks, prompts and writers", 2, (3, 4), (1, 7), (8, 0), (2, 3)),
    ],
)

ATTENTION_READ = (
    "model_type", "hidden_size", "rms_norm_eps", "num_attention_heads", "num_key_value_heads", "head_dim",
)  # fmt: skip
SMALL: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "rms_norm_eps": 1e-3,
}
OTHER: dict[str, Any] = SMALL | {
    "hidden_size": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 8,
    "rms_norm_eps": 1e-2,
}
LLAMA: dict[str, Any] = {name: value for name, value in SMALL.items() if name != "head_dim"} | {"model_type": "llama"}
WRITTEN = {"drive": drives.slots_written, "right": lambda module, x, *_: torch.tensor([len(x), 1, len(x), 1])}


def attention_case(
    name: str, config: dict[str, Any], texts: list[int], passes: list[list[int]], scale: float = 1.0, **more: Any
) -> Case:
    """Texts of these lengths, of which every pass reads so many tokens."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        theta = 700.0 + 10 * config["hidden_size"]
        table = rope_table(max(texts), width, theta)
        x = draw.normal(sum(texts), config["hidden_size"], scale=scale)
        return [
            x,
            table,
            texts,
            passes,
            order_of(draw, sum(-(-text // 4) for text in texts) + draw.size("spare", 2, 3, 5)),
        ]

    return Case(name, draw_args, {"config": fields_of(config, *ATTENTION_READ)}, **more)


ATTENTION = Exercise(
    name="serving.attention",
    solution="PagedAttention",
    reference=build_attention,
    call=call_attention,
    drive=drives.paged_results,
    differentiable=False,
    points=9,
    axes="N D",
    sizes=configs.head_sizes("hidden_size", "num_attention_heads", "num_key_value_heads"),
    renamed=hf.without(*hf.NO_MODULES),
    fixed={"argument 2, axis 0": "cosines and sines"},
    cases=[
        attention_case("one text, whole", SMALL, [7], [[7]]),
        attention_case("two texts, whole", OTHER, [5, 9], [[5, 9]]),
        attention_case(
            "three texts, token by token after their prompts", SMALL, [6, 4, 8], [[4, 2, 6], [1, 1, 1], [1, 1, 1]]
        ),
        attention_case(
            "a prompt in chunks beside a text that is written", OTHER, [11, 7], [[0, 4], [5, 1], [4, 1], [2, 1]]
        ),
        attention_case("lengths that fill their blocks", SMALL, [8, 4], [[7, 4], [1, 0]]),
        attention_case("a Llama", LLAMA, [6, 5, 3], [[3, 5, 0], [3, 0, 3]]),
        attention_case("a Llama, large inputs", LLAMA, [7, 4], [[5, 3], [2, 1]], 8.0),
        attention_case(
            "slots with keys, slots with values, and whether they are the right ones",
            SMALL,
            [9, 6],
            [[8, 5], [1, 1]],
            **WRITTEN,
        ),
        attention_case(
            "old keys and values of others behind the end of a text",
            SMALL,
            [7, 5],
            [[3, 5], [4, 0]],
            drive=drives.over_old_keys,
        ),
        attention_case("bfloat16", SMALL, [10, 5], [[6, 4], [4, 1]], dtype=torch.bfloat16),
    ],
)


# Hashes and the index


def hash_case(name: str, length: int, block_size: int, vocabulary: int, **more: Any) -> Case:
    def draw_args(draw: Draw) -> Sequence[Any]:
        return [draw.tokens(vocabulary, length).tolist(), block_size]

    return Case(name, draw_args, **more)


def short_hash(draw: Draw) -> Sequence[Any]:
    """Two blocks, of which the first has a hash below 2^56."""
    while True:
        tokens = draw.tokens(5000, 6).tolist()
        if transformers_hashes(tokens, 3)[0] < 2**56:
            return [tokens, 3]


NONE_FULL = {"drive": drives.how_many_hashes, "right": lambda *args: right_hashes(*args)[:1]}
HASHES = Exercise(
    name="serving.hashes",
    solution="block_hashes",
    reference=right_hashes,
    drive=drives.in_parts,
    function=True,
    differentiable=False,
    points=4,
    cases=[
        hash_case("one block of 4", 4, 4, 50),
        hash_case("three blocks of 5, whose last is not full", 14, 5, 70),
        hash_case("blocks that are full to the last token", 24, 8, 30),
        hash_case("large ids", 13, 3, 200_000),
        Case("a hash whose highest byte is 0", short_hash),
        Case("equal blocks", lambda draw: [draw.tokens(40, 2).tolist() * 5, 2]),
        hash_case("how many hashes a text shorter than a block has", 6, 7, 60, **NONE_FULL),
        hash_case("how many hashes no text has", 0, 6, 61, **NONE_FULL),
    ],
)


ADD, FIND, FORGET, REUSED = 0, 1, 2, 3


def texts_case(name: str, block_size: int, weak: int, steps: Sequence[Sequence[Any]]) -> Case:
    """steps: kind, (text, tokens of it) or a block, blocks. Texts are a, b, ...; "ab5" is 5 tokens of a, and then b."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        while True:
            texts = {letter: draw.tokens(60, 40).tolist() for letter in "abc"}
            if texts["a"][0] != texts["a"][1] and (not weak or collide(texts, block_size, weak)):
                break
        made: list[Any] = []
        number = order_of(draw, 12)  # which block has which number
        for kind, which, count in steps:
            if kind == FORGET:
                made.append([FORGET, [number[which]], []])
                continue
            tokens = text_of(texts, which)
            if kind in (ADD, REUSED):
                made.append([kind, tokens, [number[block] for block in count]])
            else:
                made.append([FIND, tokens[:count], []])
        return [block_size, weak, made]

    return Case(name, draw_args)


def text_of(texts: dict[str, list[int]], which: str) -> list[int]:
    """ "a": the text a; "ab5": five tokens of a, then all of b. "mixed": one token of a, two of c, then b."""
    if len(which) == 1:
        return texts[which]
    if which == "turned":  # a, with its first two tokens exchanged
        return [texts["a"][1], texts["a"][0], *texts["a"][2:]]
    if which == "mixed":
        return texts["a"][:1] + texts["c"][1:3] + texts["b"]
    cut = int(which[2:])
    return texts[which[0]][:cut] + texts[which[1]]


def collide(texts: dict[str, list[int]], size: int, weak: int) -> bool:
    """Whether the first blocks of a and b have one hash, and that of c another.

    3: the second blocks differ in theirs. 4: whether the hash of a's first block is 0.
    """
    if weak == 2:
        return True
    first = {letter: drives.weak_hashes(text[: 2 * size], size) for letter, text in texts.items()}
    if weak == 4:
        return first["a"][0] == 0
    if weak == 3:
        return first["a"][0] == first["b"][0] and len({*first["a"], first["b"][1]}) == 3
    return first["a"][0] == first["b"][0] and first["a"][1] == first["b"][1] and first["c"][0] != first["a"][0]


PREFIX = Exercise(
    name="serving.prefix",
    solution="PrefixIndex",
    reference=right_index,
    drive=drives.index_steps,
    function=True,
    differentiable=False,
    points=6,
    uses=["serving.hashes"],
    cases=[
        texts_case(
            "the same text, cut at several lengths", 4, 0, [[0, "a", [7, 3, 9]], [1, "a", 11], [1, "a", 9], [1, "a", 6]]
        ),
        texts_case(
            "a text that is found whole: one token is left",
            5,
            0,
            [[0, "a", [4, 2]], [1, "a", 10], [1, "a", 11], [1, "a", 5], [1, "a", 1]],
        ),
        texts_case(
            "a text that goes on otherwise",
            3,
            0,
            [[0, "a", [1, 5, 2, 8]], [1, "ab7", 20], [1, "ab3", 20], [1, "b", 20]],
        ),
        texts_case(
            "two texts with one beginning",
            4,
            0,
            [[0, "a", [1, 2, 3]], [0, "ac9", [6, 7, 8, 9]], [1, "ac9", 30], [1, "a", 30]],
        ),
        texts_case(
            "a block is forgotten", 6, 0, [[0, "a", [3, 6, 1]], [2, 6, 0], [1, "a", 30], [2, 3, 0], [1, "a", 30]]
        ),
        texts_case(
            "a block that is not known is forgotten",
            7,
            0,
            [[0, "a", [3, 6]], [0, "a", [8, 9]], [2, 8, 0], [2, 11, 0], [1, "a", 39]],
        ),
        texts_case("the hash is free again", 8, 0, [[0, "a", [2, 4]], [2, 2, 0], [0, "a", [5, 7]], [1, "a", 25]]),
        texts_case(
            "two texts with the same hashes",
            4,
            1,
            [[0, "a", [2, 4]], [1, "b", 20], [0, "b", [5, 7]], [1, "b", 20], [1, "a", 9]],
        ),
        texts_case(
            "a hash that another text has, then it leaves",
            5,
            1,
            [[0, "a", [2, 4]], [0, "b", [5, 7]], [2, 5, 0], [1, "a", 12], [2, 2, 0], [1, "b", 9]],
        ),
        texts_case(
            "the same, after a beginning with the same first token",
            3,
            2,
            [[0, "ab3", [2, 4, 6]], [0, "mixed", [3, 5]], [1, "mixed", 20]],
        ),
        texts_case(
            "a block that is equal, after a beginning that is not",
            3,
            2,
            [[0, "ab3", [2, 4, 6]], [0, "cb3", [3, 5]], [1, "cb3", 20]],
        ),
        texts_case(
            "a hash that another text has, and then one of its own",
            6,
            3,
            [[0, "a", [2, 4]], [0, "b", [5, 7]], [1, "b", 20], [1, "a", 20]],
        ),
        texts_case("the same tokens in another order", 8, 1, [[0, "a", [2, 4]], [1, "turned", 20], [1, "a", 20]]),
        texts_case("more blocks than full ones", 9, 0, [[0, "a", [2, 4, 1, 5, 8, 7]], [1, "a", 40]]),
        texts_case(
            "a block is forgotten once more, after another has its hash",
            4,
            0,
            [[0, "a", [2, 4]], [2, 2, 0], [0, "a", [5, 7]], [2, 2, 0], [1, "a", 25]],
        ),
        texts_case(
            "a block whose hash is 0 is forgotten", 5, 4, [[0, "a", [3, 8]], [1, "a", 20], [2, 3, 0], [1, "a", 20]]
        ),
        texts_case(
            "the caller's lists are filled anew after each add",
            6,
            0,
            [[3, "a", [2, 4, 1]], [3, "b", [5, 7]], [1, "a", 25], [1, "b", 25]],
        ),
    ],
)


# Queue and scheduler


def queue_case(name: str, num_blocks: int, block_size: int, steps: list[list[int]]) -> Case:
    """steps: as `drives.queue_steps` has them. In a hidden case some wait already."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        more = draw.size("before", 0, 1, 2, 3)
        shifted = [[kind, k + more * (kind in (1, 2)), n] for kind, k, n in steps]
        return [num_blocks, block_size, [[0, 2, 1]] * more + shifted]

    return Case(name, draw_args)


QUEUE = Exercise(
    name="serving.queue",
    solution="Queue",
    reference=right_queue,
    drive=drives.queue_steps,
    function=True,
    differentiable=False,
    points=5,
    uses=["serving.pool", "serving.prefix"],
    cases=[
        queue_case("two requests wait", 6, 4, [[0, 5, 3], [0, 2, 8]]),
        queue_case("one that runs is done", 8, 5, [[0, 5, 3], [0, 3, 4], [1, 0, 0], [1, 1, 0], [2, 0, 0]]),
        queue_case("one that waits is aborted", 9, 3, [[0, 7, 2], [0, 2, 5], [0, 4, 4], [2, 1, 0]]),
        queue_case(
            "removed twice, running and waiting",
            10,
            2,
            [[0, 3, 2], [0, 4, 2], [1, 0, 0], [2, 0, 0], [2, 0, 0], [2, 1, 0], [2, 1, 0]],
        ),
        queue_case(
            "the newest is preempted",
            7,
            6,
            [[0, 4, 6], [0, 6, 2], [0, 2, 9], [0, 3, 3], [1, 0, 0], [1, 1, 0], [1, 2, 0], [3, 0, 0], [3, 0, 0]],
        ),
        queue_case(
            "preempted, and aborted while it waits",
            5,
            7,
            [[0, 8, 1], [0, 9, 7], [1, 0, 0], [1, 1, 0], [3, 0, 0], [2, 1, 0], [3, 0, 0]],
        ),
        queue_case(
            "requests that fit, though others hold blocks now",
            5,
            3,
            [[0, 3, 2], [1, 0, 0], [0, 12, 1], [0, 4, 12], [0, 15, 1]],
        ),
        queue_case(
            "requests that can't be served (9: ValueError)",
            4,
            3,
            [[0, 0, 4], [0, 5, 0], [0, 12, 1], [0, 12, 2], [0, 3, 10], [0, 3, 11], [0, 14, 1], [0, 1, 1]],
        ),
    ],
)


def arrivals_of(draw: Draw, requests: Sequence[Sequence[Any]], vocabulary: int = 50) -> list[list[Any]]:
    """pass, prompt's length and new tokens of each; a fourth number says how many tokens all such prompts begin with."""
    common = draw.tokens(vocabulary, 60).tolist()
    made = []
    for when, length, new, *alike in requests:
        own = draw.tokens(vocabulary, length).tolist()
        made.append([when, (common[: alike[0]] + own)[:length] if alike else own, new])
    return made


def schedule_case(name: str, numbers: list[int], requests: Sequence[Sequence[int]], shares: bool = False) -> Case:
    """numbers: blocks, block size, budget, most running. In a hidden case one request wants one token more."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        varied = [[*r[:2], r[2] + draw.size("more", 0, 1) * (i == 0), *r[3:]] for i, r in enumerate(requests)]
        return [numbers, arrivals_of(draw, varied), shares]

    return Case(name, draw_args)


SCHEDULE = Exercise(
    name="serving.schedule",
    solution="Scheduler",
    reference=right_schedule,
    drive=drives.scheduled,
    function=True,
    differentiable=False,
    points=10,
    uses=["serving.pool", "serving.table", "serving.prefix", "serving.queue"],
    fixed={},
    cases=[
        schedule_case("one request", [8, 4, 20, 3], [[0, 6, 4]]),
        schedule_case("three at once", [20, 3, 30, 5], [[0, 6, 4], [0, 4, 2], [0, 9, 3]]),
        schedule_case("a prompt in chunks", [16, 4, 5, 4], [[0, 17, 3]]),
        schedule_case("a prompt in chunks beside two who write", [30, 5, 6, 6], [[0, 3, 9], [0, 2, 8], [2, 15, 3]]),
        schedule_case("no more than two run", [40, 2, 25, 2], [[0, 4, 3], [0, 6, 2], [0, 5, 4], [1, 3, 2]]),
        schedule_case(
            "the budget is smaller than the number of those who write", [24, 6, 2, 7], [[0, 1, 5], [0, 1, 5], [1, 1, 3]]
        ),
        schedule_case(
            "memory for one: the next waits, and nobody overtakes", [6, 4, 40, 8], [[0, 14, 6], [0, 15, 3], [0, 2, 2]]
        ),
        schedule_case("one is preempted, and reads everything again", [5, 4, 16, 9], [[0, 7, 9], [0, 6, 6], [1, 3, 2]]),
        schedule_case("two are preempted by the oldest", [7, 2, 12, 10], [[0, 4, 10], [0, 4, 3], [0, 4, 4]]),
        schedule_case("two lack a block in the same pass", [5, 2, 13, 21], [[0, 4, 3], [0, 4, 3], [0, 2, 2]]),
        schedule_case("the newest preempts itself", [9, 3, 18, 11], [[0, 11, 8], [0, 8, 9], [3, 5, 6]]),
        schedule_case("preempted by one, and room for a small chunk of it", [4, 4, 4, 15], [[0, 7, 9], [0, 3, 8]]),
        schedule_case(
            "a beginning that is in memory", [26, 4, 50, 12], [[0, 14, 6, 9], [1, 12, 4, 9], [2, 13, 3, 9]], True
        ),
        schedule_case(
            "a prompt that is in memory whole", [28, 3, 60, 13], [[0, 12, 7, 12], [1, 12, 5, 12], [2, 13, 2, 12]], True
        ),
        schedule_case(
            "a beginning in memory that is longer than the budget, and another request behind it",
            [30, 4, 8, 16],
            [[0, 14, 9, 12], [3, 14, 4, 12], [3, 6, 3]],
            True,
        ),
        schedule_case(
            "preempted beside one that has written the same", [5, 4, 20, 17], [[0, 8, 12, 8], [1, 8, 12, 8]], True
        ),
        schedule_case(
            "a beginning in memory, and too few blocks",
            [6, 4, 35, 14],
            [[0, 13, 6, 12], [1, 14, 9, 12], [2, 22, 2, 12]],
            True,
        ),
    ],
)


# The engine


def engine_case(
    name: str,
    numbers: list[int],
    requests: Sequence[Sequence[int]],
    ends: bool = False,
    aborts: Sequence[Sequence[int]] = (),
    goes_on: bool = False,
    **more: Any,
) -> Case:
    """requests: as of `arrivals_of`. ends: whether a token ends answers, of one request in its middle; the second prompt
    has that token in it, and it is the first token of the third one's answer. goes_on: whether the second prompt is the
    first one with the beginning of its answer.
    """

    def draw_args(draw: Draw) -> Sequence[Any]:
        vocabulary = 45 + 2 * len(requests) + numbers[0] % 3
        length, new = requests[0][1:3]
        toy, ids, end = toy_that_ends(draw, 70 + numbers[0], length, max(new, 4), vocabulary=vocabulary)
        made = arrivals_of(draw, requests, vocabulary)
        made[0][1] = ids[0].tolist()
        if len(requests[0]) > 3:  # what others begin with
            alike = requests[0][3]
            for request, asked in zip(made, requests, strict=True):
                if len(asked) > 3:
                    request[1] = (ids[0].tolist()[:alike] + request[1][alike:])[: asked[1]]
        if goes_on:
            made[1][1] = [*ids[0].tolist(), *alone(toy, ids[0].tolist(), new, None)][: requests[1][1]]
        if ends:
            made[1][1][2] = end
            made[2][1] = ids[0].tolist() + alone(toy, ids[0].tolist(), new, end)[:-1]
        return [toy, numbers, made, end if ends else None, [list(abort) for abort in aborts]]

    return Case(name, draw_args, **more)


PASSES = {"drive": drives.rows_of_passes, "right": right_rows}
KNOWN = {"drive": drives.blocks_known, "right": right_known}
IDLE = {"drive": drives.idle_step, "right": right_idle}
ENGINE = Exercise(
    name="serving.engine",
    solution="Engine",
    reference=right_answers,
    drive=drives.answers_given,
    function=True,
    differentiable=False,
    points=10,
    uses=["serving.pool", "serving.table", "serving.prefix", "serving.queue", "serving.schedule", "serving.pack"],
    fixed={"argument 1.dim": "the width of a toy model, which the engine does not see"},
    cases=[
        engine_case("one request", [9, 4, 20, 3], [[0, 6, 7]]),
        engine_case("four at once, of several lengths", [40, 3, 60, 8], [[0, 5, 6], [0, 9, 3], [0, 1, 9], [0, 12, 1]]),
        engine_case(
            "they come one after the other", [41, 4, 25, 7], [[0, 8, 9], [1, 4, 5], [3, 7, 4], [9, 6, 6], [30, 3, 2]]
        ),
        engine_case("prompts in chunks of at most 5", [38, 4, 5, 6], [[0, 13, 5], [0, 7, 4], [2, 16, 6]]),
        engine_case("a prompt of 50 tokens in chunks of at most 7", [32, 4, 7, 18], [[0, 50, 4], [0, 6, 5]]),
        engine_case(
            "an end token: in an answer, in a prompt, and first of all",
            [36, 5, 50, 5],
            [[0, 5, 12], [0, 6, 10], [1, 4, 12]],
            ends=True,
        ),
        engine_case(
            "memory is short: some are preempted", [6, 4, 16, 9], [[0, 7, 12], [0, 6, 9], [1, 5, 8], [2, 9, 3]]
        ),
        engine_case("preempted with chunks", [8, 3, 4, 10], [[0, 6, 13], [0, 8, 10], [1, 5, 8]]),
        engine_case("one beginning", [37, 4, 45, 11], [[0, 14, 8, 9], [1, 12, 5, 9], [2, 15, 6, 9], [2, 10, 4, 9]]),
        engine_case(
            "the same prompt, of a multiple of the block",
            [39, 4, 44, 12],
            [[0, 12, 9, 12], [1, 12, 7, 12], [2, 8, 6, 8]],
        ),
        engine_case(
            "one beginning, and memory is short", [7, 4, 40, 13], [[0, 13, 9, 9], [1, 14, 8, 9], [2, 11, 6, 9]]
        ),
        engine_case(
            "two are aborted, one of them while it waits",
            [9, 4, 12, 2],
            [[0, 8, 12], [0, 7, 9], [1, 6, 4], [2, 5, 7]],
            aborts=[[4, 1], [3, 3]],
        ),
        engine_case(
            "aborted beside others with its beginning",
            [35, 4, 43, 14],
            [[0, 13, 14, 9], [1, 12, 9, 9], [2, 14, 7, 9]],
            aborts=[[4, 0]],
        ),
        engine_case(
            "how many tokens each pass reads, and gives", [34, 4, 9, 15], [[0, 11, 6], [1, 9, 4], [1, 4, 5]], **PASSES
        ),
        engine_case(
            "the same, with one beginning", [33, 4, 29, 17], [[0, 13, 7, 9], [1, 12, 4, 9], [2, 14, 3, 9]], **PASSES
        ),
        engine_case(
            "the same, and a prompt that another's answer is part of",
            [31, 4, 30, 19],
            [[0, 9, 14], [9, 17, 4]],
            goes_on=True,
            **PASSES,
        ),
        engine_case(
            "the same, with a prompt that is half read", [30, 8, 10, 20], [[0, 38, 3, 38], [1, 38, 4, 38]], **PASSES
        ),
        engine_case("the same, where memory is short", [5, 4, 15, 16], [[0, 7, 9], [0, 6, 6], [1, 3, 2]], **PASSES),
        engine_case(
            "how many blocks the index knows of each who runs: when the model is called, and after the pass",
            [29, 4, 28, 21],
            [[0, 7, 3], [0, 12, 2]],
            **KNOWN,
        ),
        engine_case("nothing to do, and which tokens are Python ints (1: yes)", [10, 4, 30, 4], [[0, 6, 5]], **IDLE),
    ],
)


# Measures


def report_case(name: str, counts: list[int], limits: Sequence[float], apart: float = 3.0, unit: float = 1.0) -> Case:
    """counts: of each request's tokens. unit: of all times. Times are well away from both limits."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        while True:
            requests = []
            for i, count in enumerate(counts):
                arrival = float(apart * i + torch.rand((), generator=draw.generator))
                gaps = torch.rand(count, generator=draw.generator) + 0.2
                gaps[0] = 2 * gaps[0]
                times = [round(unit * float(t), 4) for t in arrival + gaps.cumsum(0)]
                requests.append([round(unit * arrival, 4), times])
            found = right_report(requests, *limits)
            ttfts, tpots = found[: len(counts)], found[len(counts) : -1]
            near = min(float((ttfts - limits[0]).abs().min()), float((tpots - limits[1]).abs().min()))
            both = (ttfts <= limits[0]) & (tpots <= limits[1])
            if near > 0.01 * unit and (len(counts) < 3 or 0 < int(both.sum()) < len(counts)):
                return [requests, *limits]

    return Case(name, draw_args)


REPORT = Exercise(
    name="serving.report",
    solution="report",
    reference=right_report,
    drive=drives.reported,
    function=True,
    differentiable=False,
    points=4,
    cases=[
        report_case("five requests", [4, 7, 3, 6, 5], [1.3, 0.75]),
        report_case("one request", [6], [2.9, 1.9]),
        report_case("answers of one token", [1, 5, 1, 3], [1.2, 0.8]),
        report_case("requests that overlap", [9, 2, 8, 6, 7, 3], [1.4, 0.7], 0.6),
        report_case("a limit that nobody meets", [3, 4], [0.05, 3.0]),
        Case(
            "exactly at both limits",
            lambda draw: [
                [[1.0, [3.0, 3.5, 4.0]], [2.0, [4.5, 5.5]], [draw.number("at", 3, 1, 3) / 1.0, [6.0, 6.5]]],
                2.0,
                0.5,
            ],
        ),
        Case(
            "the first of the list did not come first",
            lambda draw: [
                [[draw.number("at", 2, 3, 5) / 1.0, [6.5, 7.0]], [0.5, [1.5, 2.75, 3.0]], [1.0, [2.25, 8.5]]],
                1.5,
                1.0,
            ],
        ),
        Case(
            "a little above one limit, and a little below both",
            lambda draw: [
                [
                    [1.0, [3.00004, 3.25]],
                    [0.25 * draw.number("at", 6, 5, 7), [3.0, 4.00008, 4.00008]],
                    [2.0, [3.99996, 4.49992]],
                ],
                2.0,
                0.5,
            ],
        ),
        report_case("all in less than one unit of time", [3, 5, 4], [0.14, 0.075], 0.6, 0.1),
        Case(
            "the last to come is done first",
            lambda draw: [[[0.5, [2.0, 4.0, 9.0]], [3.0, [3.5, draw.number("end", 4, 5, 8) + 0.25]]], 1.9, 2.25],
        ),
    ],
)


def budget_case(name: str, prompt: int, running: int, costs: list[float], limit: float, **more: Any) -> Case:
    """In a hidden case the prompt is another, or, where any budget is in time, the number of readers."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        readers = draw.number("readers", running, 5, 12) if limit > 1000 else running
        return [draw.number("prompt", prompt, prompt - 3, prompt + 9), readers, costs, limit]

    return Case(name, draw_args, **more)


def exact_case(name: str, prompt: int, running: int, share: int, costs: list[float], slack: float = 0.0) -> Case:
    """The limit is what it takes to read the prompt with `share` tokens in a pass, and `slack`. prompt: 0 for one that fills them."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        length = (
            draw.number("prompt", prompt, prompt - 5, prompt + 3) if prompt else share * draw.size("passes", 3, 2, 4)
        )
        readers = draw.number("readers", running, running + 1, running + 5)
        full, rest = divmod(length, share)
        rows = [readers + share] * full + [readers + rest] * (rest > 0)
        return [length, readers, costs, sum(costs[0] + costs[1] * n for n in rows) + slack]

    return Case(name, draw_args)


def in_seconds(draw: Draw) -> Sequence[Any]:
    """A pass takes 45 millionths of a second, of which a row takes a tenth of one. There is time for five passes."""
    return [draw.number("prompt", 200, 198, 206), 5, [4e-5, 1e-7, draw.number("group", 48, 47, 50), 6e-7], 2.3e-4]


def a_full_group(draw: Draw) -> Sequence[Any]:
    """One reader, and a prompt that fills groups with him: only the budget of a group has no pass that costs more."""
    group = draw.number("group", 57, 54, 61)
    return [3 * (group - 1), 1, [7.0, 0.0, group, 3.0], 900.0]


NONE = {"drive": drives.none_found, "right": lambda *args: [right_budget(*args)]}
BUDGET = Exercise(
    name="serving.budget",
    solution="best_budget",
    reference=right_budget,
    drive=drives.budget_found,
    function=True,
    differentiable=False,
    points=4,
    cases=[
        budget_case("150 tokens, 12 readers", 150, 12, [20.0, 1.0, 1, 0.0], 400.0),
        budget_case("nobody reads", 90, 0, [15.0, 1.0, 1, 0.0], 200.0),
        budget_case("one pass is the only way", 61, 5, [30.0, 0.5, 1, 0.0], 70.0),
        budget_case("rows in groups of 16 are cheaper", 60, 4, [9.0, 0.3, 16, 8.0], 160.0),
        budget_case("rows in groups of 8 are cheaper, and there is little time", 43, 9, [6.0, 0.5, 8, 9.0], 60.0),
        budget_case("rows in groups of 16 are cheaper, and many read", 86, 12, [9.0, 1.0, 16, 4.0], 250.0),
        budget_case("any budget is in time", 40, 4, [3.0, 2.0, 1, 0.0], 9000.0),
        budget_case("all passes take the same time", 23, 4, [7.0, 0.0, 1, 0.0], 35.0),
        budget_case("whether there is a budget in time (0: none)", 80, 9, [25.0, 3.0, 1, 0.0], 100.0, **NONE),
        exact_case("exactly in time", 44, 6, 10, [10.0, 1.0, 1, 0.0]),
        exact_case("more readers than the prompt has tokens", 9, 25, 12, [3.0, 1.0, 1, 0.0]),
        exact_case("many readers", 44, 30, 10, [0.5, 1.0, 1, 0.0], 1.0),
        exact_case("exactly in time, with full passes", 0, 8, 18, [16.0, 1.0, 1, 0.0]),
        exact_case("a long prompt in two passes, costs in nanoseconds", 2500, 7, 1400, [2e7, 1e6, 1, 0.0]),
        Case("full groups are cheaper, and costs are in seconds", in_seconds),
        Case("a pass without the newcomer would take longer", a_full_group),
    ],
)

EXERCISES = with_mistakes(
    __file__,
    [WASTE, POOL, TABLE, FORKS, PACK, ATTENTION, HASHES, PREFIX, QUEUE, SCHEDULE, ENGINE, REPORT, BUDGET],
)
