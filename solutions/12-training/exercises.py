"""What the exercises of 12-training are checked against: the tokenizers library, PyTorch, transformers' schedule."""

from collections.abc import Sequence
from typing import Any

import torch

from grader.authoring.kit import EXACT, ROUNDED_ONCE, Case, Draw, Exercise, Tolerance, with_mistakes

from . import drives, reference

# The tokenizer. What texts are drawn from: words whose pieces recur, and what a wrong regular expression splits wrongly.

PLAIN = ["the", "then", "other", "there", "her", "here", "in", "thing", "things", "ing", "night", "right", "she", "he"]
ODD = [
    "I'm",
    "they'll",
    "don't",
    "it's",
    "2024",
    "12",
    "1813",
    "café",
    "cafe\u0301",
    "<|endoftext|>",
    "naïve",
    "été",
    "语言",
    "🙂🙃",
    "--",
    '"Oh!"',
    "?!",
]
# Here the longest token that fits is not what the merges give.
TOGETHER = ["nighther", "righthere", "nighthe", "righther", "thingshe"]
SPACES = [" ", " ", " ", " ", "  ", "\n", "\n\n", " \t", "   "]


def text_of(draw: Draw, words: Sequence[str], count: int) -> str:
    """Some of the words, the first ones more often, with spaces of all kinds between them."""
    chosen = (torch.rand(count, generator=draw.generator).square() * len(words)).long().tolist()
    spaces = draw.tokens(len(SPACES), count).tolist()
    return "".join(words[word] + SPACES[space] for word, space in zip(chosen, spaces, strict=True))


def merges_of(draw: Draw, words: Sequence[str], count: int) -> list[list[int]]:
    """The merges that the library learns from such a text."""
    learned: list[list[int]] = reference.right_merges(text_of(draw, words, 300), count).tolist()
    return learned


def bpe_case(name: str, words: Sequence[str], length: int, count: int, **more: Any) -> Case:
    def draw_args(draw: Draw) -> Sequence[Any]:
        return [text_of(draw, words, draw.number("words", length, length - 3, length + 3)), count]

    return Case(name, draw_args, **more)


def text_case(text: str, count: int, name: str = "") -> Case:
    """A case with a text that is not drawn; a hidden recording has a word more."""
    return Case(name or text, lambda draw: [text + "the " * draw.size("more", 0, 1, 2), count])


BPE = Exercise(
    name="training.bpe",
    solution="train_bpe",
    reference=reference.right_merges,
    function=True,
    differentiable=False,
    drive=drives.merges_learned,
    points=8,
    axes="merge pair",
    cases=[
        bpe_case("60 words, 40 merges", PLAIN, 60, 40),
        bpe_case("digits, contractions, other scripts", [*ODD, *PLAIN], 90, 70),
        bpe_case("many ties", ODD, 12, 25),
        bpe_case("runs of one letter", ["aaaa", "aaaaaaa", "aab", "baa", "a", "bab" * 6], 40, 14),
        text_case("low lower lowest ", 400, "fewer pairs than merges that are asked for"),
        text_case("she\n\n\n\nhe\n\n\n\n" * 3, 5, "runs of line breaks"),
    ],
)


def encode_case(name: str, words: Sequence[str], length: int, count: int, learned: Sequence[str] = ()) -> Case:
    """A case of encoding. learned: the words from which the merges were learned, where they are others."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        merges = merges_of(draw, learned or words, count)
        return [text_of(draw, words, draw.number("words", length, length - 2, length + 3)), merges]

    return Case(name, draw_args)


def detour_case(name: str) -> Case:
    """A case in which "abc" is a token, and the merge that was learned first leads to "ab" and "c"."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        a, b, c = reference.right_ids("abc", []).tolist()
        return ["abc\n" * draw.size("times", 3, 4, 5) + "bc", [[a, b], [b, c], [a, 257]]]

    return Case(name, draw_args)


ENCODE = Exercise(
    name="training.encode",
    solution="encode",
    reference=reference.right_ids,
    function=True,
    differentiable=False,
    drive=drives.ids_of,
    points=6,
    uses=["training.bpe"],
    cases=[
        encode_case("40 words, 60 merges", PLAIN, 40, 60),
        encode_case("digits, contractions, other scripts", [*ODD, *PLAIN], 50, 90),
        encode_case("runs of one letter", ["aaaa", "aaaaaaa", "aab", "baa", "a"], 25, 12),
        encode_case(
            "words that the merges were not learned from",
            ["thirteen", "otherthingsnight", "shelter", "ether"],
            20,
            50,
            PLAIN,
        ),
        encode_case("words that run together", TOGETHER, 15, 40, PLAIN),
        encode_case("bytes that no merge has", ["语言", "🙂", "été"], 8, 20, PLAIN),
        encode_case("runs of line breaks", ["she\n\n\n", "he\n\n\n\n\n", "the"], 12, 12),
        encode_case("lines that end as on Windows", ["she\r\n", "he\r\n\r\n", "the"], 14, 12),
        encode_case("words of 150 letters", ["he" * 75, "the", "she" * 50], 5, 12, PLAIN),
        encode_case("no merge at all", PLAIN, 9, 0),
        encode_case("a text of 5,000 characters", PLAIN, 900, 6),
        detour_case("a word that is a token, and whose merges lead elsewhere"),
    ],
)


def decode_case(
    name: str, words: Sequence[str], length: int, count: int, noise: int = 0, ends: int = 0, cut: int = 0
) -> Case:
    """A case of decoding: the ids of a text. noise: random ids behind it. ends: special tokens among them. cut: how many
    of the last ids are missing."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        merges = merges_of(draw, words, count)
        text = " " + text_of(draw, words, draw.number("words", length, length - 2, length + 3))
        ids = reference.right_ids(text.rstrip() if cut else text, merges)
        ids = ids[: len(ids) - cut]
        ids = torch.cat([ids, draw.tokens(256, noise)])
        given: list[int] = ids.tolist()
        for place in range(ends):
            given.insert(3 + 4 * place, 256 + len(merges) + place)
        return [given, merges]

    return Case(name, draw_args)


def chain_case(name: str, count: int) -> Case:
    """A mark and two lines, then words of which each has a letter more than the one before."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        text = f"\ufeff{'abc'[draw.size('letter', 0, 1, 2)]}\r\n\r\n"
        ids: list[int] = reference.right_ids(text, []).tolist()
        merges = [[ids[3], ids[3]], *([256 + i, ids[3]] for i in range(count - 1))]
        return [[*ids, *range(256, 256 + count)], merges]

    return Case(name, draw_args)


DECODE = Exercise(
    name="training.decode",
    solution="decode",
    reference=reference.right_characters,
    function=True,
    differentiable=False,
    drive=drives.characters,
    points=4,
    cases=[
        decode_case("20 words", PLAIN, 20, 40),
        decode_case("characters of several tokens", ["语言", "🙂🙃", "été", "naïve"], 15, 6),
        chain_case("a byte order mark, ends of lines, and merges of merges, 20 deep", 20),
        decode_case("random bytes, which are no text", PLAIN, 4, 10, noise=60),
        decode_case("special tokens among them", PLAIN, 12, 30, ends=3),
        decode_case("special tokens inside characters", ["语言", "🙂🙃", "été", "naïve"], 10, 4, ends=4),
        decode_case("the last character is incomplete", ["语言", "🙂🙃", "été"], 6, 0, cut=1),
    ],
)


def json_case(name: str, words: Sequence[str], length: int, count: int, learned: Sequence[str] = ()) -> Case:
    def draw_args(draw: Draw) -> Sequence[Any]:
        text = text_of(draw, words, draw.number("words", length, length - 2, length + 3))
        return [text + reference.END + " " + words[0], merges_of(draw, learned or words, count)]

    return Case(name, draw_args)


def dict_case(name: str, words: Sequence[str], count: int) -> Case:
    """A case of what the dict holds. Without words: merges of which two spell the same token."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        a, b, c, d = (draw.size("letter", 60, 64, 68) + number for number in range(4))
        return [merges_of(draw, words, count) if words else [[a, b], [256, c], [b, c], [a, 258], [257, d], [d, d]]]

    return Case(name, draw_args, drive=drives.dict_holds, right=reference.right_dict)


TOKENIZER_JSON = Exercise(
    name="training.tokenizer_json",
    solution="tokenizer_json",
    reference=reference.right_library_reads,
    function=True,
    differentiable=False,
    drive=drives.library_reads,
    points=5,
    cases=[
        json_case("30 words, 60 merges", PLAIN, 30, 60),
        json_case("digits, contractions, other scripts", [*ODD, *PLAIN], 40, 90),
        json_case("words that the merges were not learned from", ["thirteen", "winter", "ether"], 12, 50, PLAIN),
        dict_case("the vocabulary of 9 merges, and the id of the end", ODD, 9),
        dict_case("two merges that spell the same token", [], 0),
    ],
)


# Batches


def batches_case(
    name: str,
    lengths: Sequence[int],
    shape: Sequence[int],
    count: int,
    position: int = 0,
    seed: int = 0,
    *,
    first: int = 0,
    **more: Any,
) -> Case:
    """A case of the batches. lengths: of the documents; the last one is some whole pieces longer in a hidden recording.
    shape: B, T. first: the smallest id."""
    B, T = shape

    def draw_args(draw: Draw) -> Sequence[Any]:
        own = [*lengths[:-1], lengths[-1] + T * draw.size("pieces", 0, 1, 2)]
        documents = [(first + draw.tokens(500, length)).tolist() for length in own]
        return [documents, first + 500 + len(own), B, T, seed, position, count]

    return Case(name, draw_args, **more)


BATCHES = Exercise(
    name="training.batches",
    solution="Batches",
    reference=reference.right_batches,
    function=True,
    differentiable=False,
    drive=drives.batches_taken,
    points=6,
    axes="inputs/targets row T",
    cases=[
        batches_case("4 documents, 3 epochs, of each a rest", [9, 4, 7, 13], (3, 4), 6),
        batches_case("the last piece just fits", [11, 12], (2, 4), 5),
        batches_case("for another piece one token is missing", [5, 8, 8], (1, 4), 8),
        batches_case("from batch 7 on, with another seed", [30, 2, 25], (2, 5), 6, 7, 3),
        batches_case("one document, from batch 2 on", [50], (4, 3), 4, 2, 1),
        batches_case("documents of one token", [1] * 16, (2, 6), 4, 0, 2),
        batches_case("two empty documents, one of them the first", [0, 5, 0, 9], (1, 5), 3, 0, 4),
        batches_case("ids above 100,000", [7, 8], (2, 2), 3, 1, 5, first=100_000),
        batches_case("the caller writes -100 into batches", [6, 10], (3, 2), 2, 1, 6, drive=drives.batches_overwritten),
    ],
)


# Steps


def loss_case(name: str, shape: Sequence[int], ignored: float, items: int | None = None, **more: Any) -> Case:
    """A case of the loss. shape: B, T, V. ignored: which share of the targets is -100. one: all others are, but one.
    forbidden: where targets are ignored, the first token has a logit of -inf."""
    scale, one, forbidden = more.pop("scale", 2.0), more.pop("one", False), more.pop("forbidden", False)

    def draw_args(draw: Draw) -> Sequence[Any]:
        B, T, V = shape[0], draw.size("T", shape[1], shape[1] + 1, shape[1] + 2), shape[2]
        targets = draw.tokens(V, B, T)
        left_out = torch.rand(B, T, generator=draw.generator) < ignored
        targets = targets.masked_fill(left_out, -100)
        if one:
            targets[1:], targets[0, :-1] = -100, -100
        logits = draw.normal(B, T, V, scale=scale)
        if forbidden:
            logits[..., 0].masked_fill_(targets == -100, -torch.inf)
        return [logits, targets, *([] if items is None else [items])]

    return Case(name, draw_args, **more)


NOTHING = {"drive": drives.nothing_then_all, "right": reference.right_nothing_then_all}
HIDDEN = {"drive": drives.loss_of_what_is_wrong, "right": reference.right_loss_of_what_is_wrong}
LOSS = Exercise(
    name="training.loss",
    solution="cross_entropy",
    reference=reference.right_loss,
    function=True,
    drive=drives.loss_given,
    points=8,
    cases=[
        loss_case("all targets count", (2, 5, 7), 0.0),
        loss_case("a vocabulary of 300", (1, 8, 300), 0.2),
        loss_case("half of the targets are ignored", (3, 6, 5), 0.5),
        loss_case("by the number of targets of a larger batch", (1, 7, 9), 0.3, 23),
        loss_case("one target is left", (2, 4, 8), 0.0, one=True),
        loss_case("no target is left, then all are", (2, 3, 4), 0.0, **NOTHING),
        loss_case("by a number below the batch's own", (3, 5, 6), 0.2, 4),
        loss_case("by a number of 0", (2, 4, 5), 0.3, 0),
        loss_case("targets that are no ids, and logits that are NaN", (3, 4, 6), 0.3, **HIDDEN),
        loss_case("logits around 100", (2, 4, 6), 0.2, scale=100.0),
        loss_case("logits of -inf where targets are ignored", (2, 5, 7), 0.5, forbidden=True),
        loss_case("bfloat16", (2, 6, 11), 0.3, dtype=torch.bfloat16, tolerance=Tolerance(5e-5)),
        loss_case("bfloat16, by a larger batch", (1, 5, 40), 0.2, 17, dtype=torch.bfloat16, tolerance=Tolerance(5e-5)),
    ],
)


def adamw_case(
    name: str, shapes: Sequence[Sequence[int]], rates: list[float], options: dict[str, Any], **more: Any
) -> Case:
    """A case of the optimizer. shapes: of the weights. absent, resumed: see the drive."""
    absent, resumed, scale = more.pop("absent", []), more.pop("resumed", None), more.pop("scale", 1.0)
    dtype, zero = more.get("dtype", torch.float32), "of 0" in name

    def draw_args(draw: Draw) -> Sequence[Any]:
        longer = draw.size("more", 0, 1, 2)
        own = [[*shape[:-1], *(size + longer for size in shape[-1:])] for shape in shapes]
        weights = [draw.normal(1, *shape)[0].to(dtype) for shape in own]
        gradients = [draw.normal(len(rates), *shape, scale=scale).to(dtype) for shape in own]
        if zero:
            gradients[0][1] = 0
        return [weights, gradients, rates, options, absent, *([] if resumed is None else [resumed])]

    return Case(name, draw_args, **more)


def options(beta1: float, beta2: float, eps: float, decay: float) -> dict[str, Any]:
    return {"betas": [beta1, beta2], "eps": eps, "weight_decay": decay}


ADAMW = Exercise(
    name="training.adamw",
    solution="AdamW",
    reference=reference.right_updates,
    function=True,
    differentiable=False,
    drive=drives.updates,
    points=8,
    axes="step weight",
    cases=[
        adamw_case(
            "4 steps, a matrix, a vector and three axes",
            [[3, 4], [5], [2, 2, 3], [1, 4]],
            [0.1] * 4,
            options(0.9, 0.95, 1e-8, 0.5),
        ),
        adamw_case("a decay of 0", [[3, 2], [2, 4]], [0.2, 0.1], options(0.9, 0.95, 1e-8, 0.0)),
        adamw_case("a number without axes", [[], [3, 3]], [0.1, 0.3, 0.2], options(0.8, 0.96, 1e-8, 0.6)),
        adamw_case("120 steps", [[2, 2], [1]], [0.05] * 120, options(0.9, 0.999, 1e-8, 0.1)),
        adamw_case("the first step", [[2, 3], [4]], [0.05], options(0.8, 0.999, 1e-6, 0.1)),
        adamw_case(
            "a rate for each step, and gradients of 0 in one",
            [[4, 2], [3], [4, 2]],
            [0.02, 0.2, 0.1, 0.01],
            options(0.7, 0.9, 1e-8, 0.9),
        ),
        adamw_case(
            "gradients as small as eps", [[3, 3], [2]], [0.1, 0.1, 0.2], options(0.9, 0.99, 1e-3, 0.2), scale=1e-3
        ),
        adamw_case(
            "a vector and a matrix without gradients in two steps",
            [[2, 2], [3], [3, 2]],
            [0.1, 0.1, 0.1, 0.2, 0.1],
            options(0.9, 0.98, 1e-7, 0.3),
            absent=[0, 3],
        ),
        adamw_case(
            "state and weights in a new optimizer after 3 steps",
            [[2, 5], [4]],
            [0.1, 0.2, 0.1, 0.05, 0.1],
            options(0.85, 0.95, 1e-8, 0.4),
            resumed=3,
        ),
        adamw_case(
            "bfloat16",
            [[7, 5], [9]],
            [0.5, 1.0, 0.7, 0.9, 0.6],
            options(0.75, 0.97, 1e-8, 0.5),
            dtype=torch.bfloat16,
        ),
    ],
)


def rate_case(name: str, first: int, last: int, peak: float, warmup: int, total: int, floor: float) -> Case:
    def draw_args(draw: Draw) -> Sequence[Any]:
        return [first, last, peak * draw.number("times", 10, 7, 13) / 10, warmup, total, floor]

    return Case(name, draw_args)


SCHEDULE = Exercise(
    name="training.schedule",
    solution="learning_rate",
    reference=reference.right_rates,
    function=True,
    differentiable=False,
    drive=drives.rates,
    points=4,
    without={
        "warmup thousandfold": "there are more updates than those of the warm-up",
        "warmup hundredfold": "there are more updates than those of the warm-up",
        "total one": "there are more updates than those of the warm-up",
        "first thousandfold": "the first is not behind the last",
        "first hundredfold": "the first is not behind the last",
        "last one": "the first is not behind the last",
    },
    cases=[
        rate_case("20 updates, 4 of warm-up, a floor of 0.6", 1, 20, 3e-3, 4, 20, 0.6),
        rate_case("no warm-up, and 16 updates after the end", 1, 25, 1e-2, 0, 9, 0.25),
        rate_case("down to 0 after a long warm-up, and 6 updates after the end", 1, 18, 0.5, 8, 12, 0.0),
        rate_case("a warm-up up to the end, and 2 updates after it", 1, 8, 0.3, 6, 6, 0.1),
        rate_case("updates 40 to 60 of 100", 40, 60, 2.0, 30, 100, 0.05),
        rate_case("updates 1,995 to 2,005 of 800,000, 2,000 of warm-up", 1995, 2005, 0.7, 2000, 800_000, 0.15),
        rate_case("updates 500,500 to 500,505 of 1,000,000", 500_500, 500_505, 1.5, 40, 1_000_000, 0.2),
    ],
)


def clip_case(name: str, shapes: Sequence[Sequence[int]], max_norm: float, scale: float, **more: Any) -> Case:
    dtype, frozen = more.get("dtype", torch.float32), more.pop("frozen", 0)

    def draw_args(draw: Draw) -> Sequence[Any]:
        longer = draw.size("more", 0, 1, 2)
        gradients = [draw.normal(*shape[:-1], shape[-1] + longer, scale=scale).to(dtype) for shape in shapes]
        return [gradients, max_norm, *([frozen] if frozen else [])]

    return Case(name, draw_args, **more)


ZEROS = {"drive": drives.clipped_after_zeros, "right": reference.right_clipped_after_zeros}
NO_GRADIENT = {"drive": drives.clipped_after_nothing, "right": reference.right_clipped_after_nothing}
CLIP = Exercise(
    name="training.clip",
    solution="clip_gradients",
    axes="norm/gradients...",
    reference=reference.right_clipped,
    function=True,
    differentiable=False,
    drive=drives.clipped,
    points=4,
    cases=[
        clip_case("a norm above the limit", [[5, 7], [5], [2, 2, 3]], 1.0, 2.0),
        clip_case("a norm below the limit", [[2, 3], [4]], 2.5, 0.1),
        clip_case("one gradient, another limit", [[6]], 0.3, 5.0),
        clip_case("gradients of 0.00001", [[3, 2], [3]], 1e-5, 1e-5),
        clip_case("gradients of 0, then others", [[2, 2], [3]], 0.5, 2.0, **ZEROS),
        clip_case("no gradient at all, then some", [[3], [4, 2]], 0.8, 2.0, **NO_GRADIENT),
        clip_case("a parameter that was frozen after its gradient was computed", [[3, 3], [5]], 0.9, 1.5, frozen=1),
        clip_case("bfloat16", [[4, 3], [7]], 0.7, 3.0, dtype=torch.bfloat16),
        clip_case("float16, and numbers whose squares are beyond it", [[2, 5], [4]], 6.0, 400.0, dtype=torch.float16),
    ],
)


def accumulate_case(name: str, V: int, D: int, lengths: list[int], sizes: list[int], **more: Any) -> Case:
    def draw_args(draw: Draw) -> Sequence[Any]:
        longer = draw.size("more", 0, 1, 2)
        own = [*lengths[:-1], lengths[-1] + longer]
        return [draw.normal(V, D), draw.normal(V, D), draw.tokens(V, len(own), max(own) + 1), own, sizes]

    return Case(name, draw_args, **more)


EMPTY = {"drive": drives.accumulated_after_nothing, "right": reference.right_after_nothing}
FROZEN = {"drive": drives.accumulated_with_a_frozen_table, "right": reference.right_with_a_frozen_table}
ONE = {"drive": drives.graphs_at_once, "right": lambda *args: torch.tensor([1, 1, 0, len(args[-1])])}
ACCUMULATE = Exercise(
    name="training.accumulate",
    solution="accumulate",
    axes="loss/gradients...",
    reference=reference.right_accumulated,
    function=True,
    differentiable=False,
    drive=drives.accumulated,
    points=6,
    uses=["training.loss"],
    cases=[
        accumulate_case("texts of 2, 9, 4 and 3 tokens in twos", 7, 4, [2, 9, 4, 3], [2, 2]),
        accumulate_case("the last micro-batch has one text", 5, 6, [3, 3, 8, 1, 6], [2, 2, 1]),
        accumulate_case("one by one", 6, 3, [1, 7, 2], [1, 1, 1]),
        accumulate_case("a micro-batch without targets", 8, 3, [0, 4, 6], [1, 1, 1]),
        accumulate_case("no target at all, then some", 5, 4, [3, 1, 4], [2, 1], **EMPTY),
        accumulate_case("all at once", 9, 5, [4, 2, 6], [3]),
        accumulate_case("the embedding is frozen", 6, 4, [2, 5, 3], [2, 1], **FROZEN),
        accumulate_case("how many activations are kept at once, and the mode", 4, 2, [2, 3, 2, 5], [1, 1, 1, 1], **ONE),
        accumulate_case("the same for one micro-batch", 4, 2, [2, 3], [2], **ONE),
    ],
)


def worth_case(name: str, vocab_size: int, length: int, habit: float, rest: int = 0, first_once: bool = False) -> Case:
    """A case of the experiment. habit: how often a token is followed by its favourite one. rest: how many times the last
    one comes again. first_once: whether the first token comes once."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        favourite, stream = draw.tokens(vocab_size, vocab_size).tolist(), [0]
        at_random = (torch.rand(length, generator=draw.generator).square() * vocab_size).long().tolist()
        follows = (torch.rand(length, generator=draw.generator) < habit).tolist()
        for other, kept in zip(at_random, follows, strict=True):
            stream.append(favourite[stream[-1]] if kept else other)
        if first_once:
            stream[1:] = [max(token, 1) for token in stream[1:]]
        return [torch.tensor(stream + rest * stream[-1:]), vocab_size]

    return Case(name, draw_args, tolerance=Tolerance(0.01))


WORTH = Exercise(
    name="training.worth",
    solution="worth_of_one_token",
    reference=reference.right_worth,
    function=True,
    differentiable=False,
    points=5,
    uses=["training.loss", "training.adamw"],
    cases=[
        worth_case("6 tokens, a habit of 70 %", 6, 300, 0.7),
        worth_case("2,500 tokens, the last 600 of them the same", 9, 1900, 0.4, rest=600),
        worth_case("25 tokens, the first of which comes once", 6, 24, 0.5, first_once=True),
    ],
)


# Stopping and going on


def run_case(name: str, shape: Sequence[int], before: int, after: int, often: int | None = 1, **more: Any) -> Case:
    """A case of a training. shape: batches, texts, numbers of each. often: how often it is saved; None: see
    `file_kept`. file: its name there."""

    file = more.pop("file", None)

    def draw_args(draw: Draw) -> Sequence[Any]:
        batches, B, D = shape[0], draw.size("B", shape[1], shape[1] + 1, shape[1] + 2), shape[2]
        x, y = draw.normal(batches, B, D), draw.normal(batches, B)
        return [draw.normal(D), x, y, before, after, *([] if often is None else [often]), *([file] if file else [])]

    return Case(name, draw_args, **more)


KEPT: dict[str, Any] = {"often": None, "drive": drives.file_kept, "right": reference.right_file_kept}
CHECKPOINT = Exercise(
    name="training.checkpoint",
    solution="Checkpoint",
    reference=reference.right_gone_on,
    function=True,
    differentiable=False,
    drive=drives.gone_on,
    points=8,
    without={"Coarse": "a checkpoint may be written with NumPy, which has no bfloat16"},
    cases=[
        run_case("saved after 4 steps, 4 more", (5, 3, 4), 4, 4),
        run_case("saved before the first step", (3, 4, 6), 0, 5),
        run_case("saved three times, every 2 steps", (7, 2, 5), 2, 4, 3),
        run_case("saved after 7 steps", (4, 5, 3), 7, 3),
        run_case("a save fails, the next one works", (6, 3, 7), 3, 3, **KEPT),
        run_case("the same in a file that is named run.tmp", (4, 4, 5), 5, 2, file="run.tmp", **KEPT),
    ],
)


# Fine-tuning


def drawn_chat(draw: Draw, turns: Sequence[str], end: int, length: int) -> list[Any]:
    """Turns [role, header, body]; each body ends with `end`."""
    chat = []
    for number, role in enumerate(turns):
        header = [90 + len(role), *draw.tokens(3, 1).tolist()]
        body = draw.tokens(80, 1 + (length + 3 * number) % 5).tolist()
        chat.append([role, header, [*body, end]])
    return chat


def sft_case(name: str, chats: Sequence[Sequence[str]], pad: int, end: int, max_length: int) -> Case:
    def draw_args(draw: Draw) -> Sequence[Any]:
        own = [drawn_chat(draw, turns, end, 2 + 3 * number) for number, turns in enumerate(chats)]
        return [own, pad, max_length]

    return Case(name, draw_args)


TALK, SYSTEM = ("user", "assistant"), ("system", "user", "assistant")
SFT = Exercise(
    name="training.sft",
    solution="sft_batch",
    reference=reference.right_sft,
    function=True,
    differentiable=False,
    drive=drives.inputs_and_targets,
    points=6,
    axes="inputs/targets B T",
    cases=[
        sft_case("a question and its answer, and a longer chat", [TALK, (*SYSTEM, *TALK)], 0, 81, 100),
        sft_case("padding is the token that ends a turn", [(*TALK, *TALK), TALK, SYSTEM], 82, 82, 64),
        sft_case("cut off after 12 tokens", [(*SYSTEM, *TALK), TALK, (*TALK, *TALK)], 3, 83, 12),
        sft_case("a chat of 18 turns", [TALK * 9, TALK], 4, 85, 200),
        sft_case("a chat that ends with a question", [(*TALK, "user"), SYSTEM], 5, 84, 50),
    ],
)


def lora_case(name: str, shape: Sequence[int], rank: int, alpha: float, bias: bool, **more: Any) -> Case:
    """A case of the adapter. shape: tokens, in, out; 0 tokens stand for one vector without any other axis."""
    dtype = more.get("dtype", torch.float32)

    def draw_args(draw: Draw) -> Sequence[Any]:
        T, width_in, width_out = draw.size("T", shape[0], shape[0] + 1, shape[0] + 2), *shape[1:]
        A, B = draw.normal(rank, width_in, scale=0.5), draw.normal(width_out, rank, scale=0.5)
        weight, own = draw.normal(width_out, width_in, scale=0.4), draw.normal(width_out if bias else 0)
        x = draw.normal(2, T, width_in) if shape[0] else draw.normal(width_in)
        return [x.to(dtype), *(t.to(dtype) for t in (A, B, weight, own)), alpha]

    return Case(name, draw_args, **more)


MERGED = {"drive": drives.merged, "right": reference.right_merged}
BEFORE = {"drive": drives.before_any_step, "right": reference.right_before}
LORA = Exercise(
    name="training.lora",
    solution="LoRALinear",
    reference=reference.right_adapted,
    function=True,
    drive=drives.adapted,
    gradients_of=(0, 1, 2),
    points=8,
    axes="B T D",
    cases=[
        lora_case("rank 2, alpha 8", (5, 6, 7), 2, 8.0, True),
        lora_case("rank 3, alpha 2, no bias", (4, 5, 3), 3, 2.0, False),
        lora_case("one vector", (0, 5, 4), 2, 3.0, True),
        lora_case("bfloat16", (3, 8, 6), 4, 6.0, True, dtype=torch.bfloat16),
        lora_case("before the first step, a rank above the output's width", (4, 25, 5), 7, 3.0, True, **BEFORE),
        lora_case("merged twice", (3, 7, 5), 2, 6.0, True, **MERGED),
        lora_case("merged twice, in float16", (2, 4, 9), 3, 5.0, True, dtype=torch.float16, **MERGED),
        lora_case(
            "merged in bfloat16", (3, 20, 15), 8, 12.0, False, dtype=torch.bfloat16, tolerance=ROUNDED_ONCE, **MERGED
        ),
    ],
)


def dpo_case(name: str, shape: Sequence[int], beta: float, **more: Any) -> Case:
    """A case of DPO. shape: B, T, V. The answers have different lengths. forbidden: where no token of an answer is, the
    policy's first logit is -inf."""
    scale, apart, forbidden = more.pop("scale", 1.0), more.pop("apart", 1.0), more.pop("forbidden", False)
    dtype = more.get("dtype", torch.float32)

    def draw_args(draw: Draw) -> Sequence[Any]:
        B, T, V = shape[0], draw.size("T", shape[1], shape[1] + 1, shape[1] + 2), shape[2]
        if not apart:  # the loss is log 2 and all margins are 0: only their number can differ
            B = draw.size("B", B, B + 1, B + 2)
        reference_logits = draw.normal(2, B, T, V, scale=scale)
        policy = reference_logits + apart * draw.normal(2, B, T, V)
        targets = draw.tokens(V, 2, B, T)
        for kind in range(2):
            for row in range(B):
                targets[kind, row, : 1 + row % 2] = -100  # the prompt
                targets[kind, row, T - (row + 2 * kind) % 3 :] = -100  # the padding
        if forbidden:
            policy[..., 0].masked_fill_(targets == -100, -torch.inf)
        return [policy.to(dtype), reference_logits.to(dtype), targets, beta]

    return Case(name, draw_args, **more)


DPO = Exercise(
    name="training.dpo",
    solution="dpo_loss",
    axes="loss/margins...",
    reference=reference.right_dpo,
    function=True,
    drive=drives.loss_and_margins,
    gradients_of=(0,),
    points=6,
    fixed={"argument 1, axis 0": "chosen and rejected", "argument 2, axis 0": "both", "argument 3, axis 0": "both"},
    cases=[
        dpo_case("3 pairs", (3, 7, 9), 0.1),
        dpo_case("a large beta", (2, 6, 5), 0.7),
        dpo_case("margins of hundreds", (4, 9, 6), 5.0, apart=12.0),
        dpo_case("before the first step", (2, 5, 8), 0.3, apart=0.0),
        dpo_case("logits of -inf where no token of an answer is", (3, 6, 7), 0.4, forbidden=True),
        dpo_case("bfloat16", (3, 8, 12), 0.2, dtype=torch.bfloat16, tolerance=Tolerance(1e-3)),
    ],
)


# The hub's folder


def tensors_case(name: str, V: int, D: int, width: int, dtype: str, head: bool, **more: Any) -> Case:
    def draw_args(draw: Draw) -> Sequence[Any]:
        V_ = draw.size("V", V, V + 1, V + 2)
        table = draw.normal(V_, D, scale=200.0)
        heads = [table.clone() if "same numbers" in name else draw.normal(V_, D)] if head else []
        return [table, draw.normal(D), draw.normal(D, width), draw.normal(D, D), dtype, *heads]

    return Case(name, draw_args, **more)


NAMES = {"drive": drives.saved_names, "right": reference.right_names}
FAULTS = {"drive": drives.saved_faults, "right": reference.no_faults}
TENSORS = Exercise(
    name="training.tensors",
    solution="hub_tensors",
    reference=reference.right_values,
    function=True,
    differentiable=False,
    drive=drives.saved_values,
    points=6,
    cases=[
        tensors_case("tied, in float32", 7, 4, 5, "float32", False),
        tensors_case("a head of its own, in bfloat16", 6, 3, 8, "bfloat16", True, tolerance=EXACT),
        tensors_case("tied, in float16", 5, 6, 4, "float16", False, tolerance=EXACT),
        tensors_case("names and shapes, tied", 9, 5, 3, "float32", False, **NAMES),
        tensors_case("names and shapes, a head of its own with the same numbers", 7, 6, 5, "float32", True, **NAMES),
        tensors_case("names and shapes, a head of its own", 8, 4, 6, "bfloat16", True, **NAMES),
        tensors_case(
            "not contiguous, shared, with gradients, the model's own dtype", 6, 5, 4, "float32", False, **FAULTS
        ),
        tensors_case("the same, in bfloat16", 5, 3, 7, "bfloat16", True, **FAULTS),
    ],
)


EXERCISES: list[Exercise] = with_mistakes(
    __file__,
    [
        *(BPE, ENCODE, DECODE, BATCHES, LOSS, ADAMW, SCHEDULE, CLIP, ACCUMULATE, WORTH, CHECKPOINT),
        *(SFT, LORA, DPO, TENSORS, TOKENIZER_JSON),
    ],
)
