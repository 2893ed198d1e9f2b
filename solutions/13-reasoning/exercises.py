"""What the exercises of 13-reasoning are checked against: transformers' filters, and brute force (reference.py)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from grader.authoring.kit import Case, Draw, Exercise, Tolerance, with_mistakes

from . import drives
from .reference import (
    clear_logits,
    right_beside_rewards,
    right_best_of_n,
    right_distribution,
    right_extract,
    right_kl,
    right_log_probs,
    right_loss,
    right_majority,
    right_mask,
    right_none_then_all,
    right_passes,
    right_step,
    right_vote,
)

# Sampling


def filter_case(name: str, shape: Sequence[int], *filters: float, **more: Any) -> Case:
    """A case of the filters: temperature, top_k, top_p and min_p. make: changes the logits."""
    scale, make = more.pop("scale", 2.0), more.pop("make", None)
    settings = [*filters, *(1.0, 0, 1.0, 0.0)[len(filters) :]]

    def draw_args(draw: Draw) -> Sequence[Any]:
        first = draw.size("first", shape[0], shape[0] + 1)
        logits = clear_logits(draw, (first, *shape[1:]), more.get("dtype", torch.float32), settings, scale)
        return [logits if make is None else make(logits), *settings]

    return Case(name, draw_args, **more)


def with_ties(logits: Tensor) -> Tensor:
    """The three largest of each row are equal."""
    ranked = logits.sort(dim=-1, descending=True).indices[..., :3]
    return logits.scatter(-1, ranked, logits.amax(dim=-1, keepdim=True).expand(ranked.shape).contiguous())


FILTERS = Exercise(
    name="reasoning.filters",
    solution="distribution",
    reference=right_distribution,
    function=True,
    differentiable=False,
    points=6,
    without={
        "top_k thousandfold": "there are no more tokens to keep",
        "top_k hundredfold": "there are no more tokens to keep",
    },
    cases=[
        filter_case("temperature 0.05 alone", (3, 11), 0.05, scale=0.2),
        filter_case("top-k of 4", (2, 3, 13), 1.3, 4),
        filter_case("top-k of 2, where three are the largest", (3, 9), 0.9, 2, make=with_ties),
        filter_case("top-k of 40 among 12 tokens", (2, 12), 0.7, 40),
        filter_case("top-p of 0.8", (2, 3, 10), 1.0, 0, 0.8),
        filter_case("top-k of 1", (2, 6), 1.1, 1),
        filter_case("top-p of 0", (3, 5), 0.95, 0, 0.0),
        filter_case("top-p of 0.05, less than the first token has", (3, 8), 0.5, 0, 0.05),
        filter_case("top-p of 0.9 at temperature 0.4, which comes first", (5, 14), 0.4, 0, 0.9, scale=1.0),
        filter_case("min-p of 0.1 at temperature 2", (4, 15), 2.0, 0, 1.0, 0.1),
        filter_case("top-k of 6, then top-p of 0.7", (4, 16), 1.5, 6, 0.7),
        filter_case("min-p of 1 keeps one token", (3, 7), 0.85, 0, 1.0, 1.0),
        filter_case("all four", (2, 2, 17), 1.2, 8, 0.95, 0.2),
        filter_case("300 tokens", (2, 300), 0.7, 20, 0.97, 0.02),
        filter_case("large logits, all far below 0", (2, 7), 0.02, 3, 0.6, make=lambda logits: logits - 300),
        filter_case("bfloat16", (3, 18), 0.8, 5, 0.85, 0.05, dtype=torch.bfloat16, tolerance=Tolerance(1e-4)),
    ],
)


# Counting, reading and choosing answers


def pass_case(name: str, *asked: Sequence[int]) -> Case:
    """n, c and k of each question; c is 1 more or less in a hidden case, where it may be."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        def near(i: int, n: int, c: int) -> int:
            return draw.size(f"c{i}", c, *(other for other in (c - 1, c + 1) if 0 < c < n and 0 < other < n))

        return [[[n, near(i, n, c), k] for i, (n, c, k) in enumerate(asked)]]

    return Case(name, draw_args)


PASS = Exercise(
    name="reasoning.pass_at_k",
    solution="pass_at_k",
    reference=right_passes,
    drive=drives.passes,
    function=True,
    differentiable=False,
    points=4,
    axes="question raised_ValueError/share",
    cases=[
        pass_case("k = 1", (10, 3, 1), (7, 5, 1)),
        pass_case("k = 3, 4 and 10", (8, 2, 3), (8, 2, 4), (10, 4, 4), (9, 7, 4), (20, 6, 4), (20, 8, 10)),
        pass_case("none or all are right", (6, 0, 6), (5, 5, 2), (12, 4, 3)),
        pass_case("all answers are chosen", (5, 2, 5), (11, 3, 10), (13, 4, 2)),
        pass_case("2,000 answers", (2000, 30, 200), (1500, 2, 700)),
        pass_case("50,000 answers, hardly any of them right", (50_000, 1, 1), (30_000, 2, 3)),
        pass_case(
            "questions that make no sense: more answers chosen than there are", (4, 0, 7), (12, 8, 13), (6, 2, 4)
        ),
        pass_case(
            "questions that make no sense: k = 0, c beyond 0 to n",
            (4, 2, 0),
            (5, -1, 2),
            (3, 4, 2),
            (15, 5, 6),
            (0, 0, 1),
        ),
    ],
)


def text_case(name: str, *texts: str) -> Case:
    """Texts with a number in place of each {}, which has so many digits as the format says."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        def digits(count: int) -> str:
            low, high = 10 ** (count - 1), 10**count
            return str(int(torch.randint(low, high, (1,), generator=draw.generator)))

        return [[text.format(*(digits(count) for count in (1, 2, 3, 4))) for text in texts]]

    return Case(name, draw_args)


EXTRACT = Exercise(
    name="reasoning.extract",
    solution="extract",
    reference=right_extract,
    drive=drives.values_read,
    function=True,
    differentiable=False,
    points=5,
    axes="text has/numerator/denominator",
    cases=[
        text_case(
            "a number after #", "#{1};", "12,15,{1}#{2};", "# {0} ;", "#-{1};", "#00{0};", "#0;", "#-0;", "#{3}{3}{2};"
        ),
        text_case("several #, of which the last counts", "#{0}#{1};", "so #{2}, no, #{1};", "#{1}#;", "#{0}#x;"),
        text_case("no answer", "#{2};", "{1};", "12,15,{1};", ";", "", "#;", "# ;", "{0}#{1}# ;"),
        text_case(
            "an answer that was cut off",
            "#{2};",
            "#{1}",
            "12,15,{1}#{2}",
            "#{0}#{1}",
            "#",
            "#{1};{2}",
            "#{0};{1};",
            "#{1}; ",
            "#{1};\n",
            "#{1};;",
        ),
        text_case(
            "thousands",
            "#{3};",
            "#{0},{2};",
            "#{1},{2},{2};",
            "#{2},{2},{2};",
            "#{3},{2};",
            "#{0},{1};",
            "#,{2};",
            "#{0}.{2},{2};",
            "#{0},{2}.{1};",
            "#-{1},{2}/{0}7;",
            "#{0},{2},{2},{2};",
        ),
        text_case(
            "decimals and fractions",
            "#{1}.{1}0;",
            "#1/{0};",
            "#-{2}/{1};",
            "#{0}.;",
            "#.{0};",
            "#{0}/0;",
            "#1/2/{0};",
            "#{1}/{2};",
            "#{0}/{1};",
            "#{0}.{1}/{0};",
            "#-{0}.{1};",
            "#{0}.{3}1;",
            "#{0}/00;",
            "#1/-{0};",
            "#-0.{1};",
            "#{0}.{3}{3}1;",
        ),
        text_case(
            "other signs and words",
            "#{2};",
            "so\n#{2};",
            "#\u0663{0};",
            "#+{1};",
            "#--{1};",
            "#{1}%;",
            "#{0} {0};",
            "#{0}e{0};",
            "#nan;",
            "#- {0};",
            "#{1}\n;",
        ),
    ],
)


VOTE = Exercise(
    name="reasoning.majority",
    solution="majority",
    reference=right_majority,
    drive=drives.values_voted,
    function=True,
    differentiable=False,
    points=4,
    axes="group has/numerator/denominator",
    uses=["reasoning.extract"],
    cases=[
        Case(
            "three of five agree, and 40 of 73",
            lambda draw: [
                [*group_of(draw, "#{a};", "#{b};", "#{a};", "#{b};", "1,{a}#{a};"), ["#1;"] * 33 + ["#2;"] * 40]
            ],
        ),
        Case(
            "an answer of 0",
            lambda draw: [[*group_of(draw, "#{a};", "#0;", "#{b};", "#{b};"), ["#0;", "#7;", "#0.0;"]]],
        ),
        Case(
            "one value, written in several ways",
            lambda draw: [group_of(draw, "#{b};", "#{a}.0;", "#{b};", "#0{a};", "#1{a}/1;", "# {a} ;")],
        ),
        Case(
            "texts without an answer don't vote",
            lambda draw: [[*group_of(draw, "x;", "x;", "#{a};", "#{b}", "#{b}", "#{b}", "x;"), ["x;", "#1"], []]],
        ),
        Case(
            "a tie goes to the value that came first, and -3 is not 3",
            lambda draw: [
                [
                    *group_of(draw, "#{b};", "#{a};", "#{a};", "#{b};"),
                    *group_of(draw, "#-{a};", "#{a};", "#{b};", "#{a};", "#-{a};", "#{b};", "#{b};"),
                ]
            ],
        ),
        Case(
            "values that differ behind the point alone",
            lambda draw: [
                [
                    *group_of(draw, "#{b};", "#{a}.1;", "#{a};", "#{a}1/2;", "#{a}.10;", "#{a}.25;", "#{b}/3;"),
                    *group_of(draw, "#{a}/3;", "#{a}.1234567;", "#{a};", "#{a}.12345670;", "#{b}.1234567;"),
                    *group_of(draw, "x;", "#{a}.0000000000000001;", "#{b};", "#{b};", "#{a};"),
                ]
            ],
        ),
        Case("all say something else", lambda draw: [group_of(draw, "#{b}1;", "#{a};", "#{b};", "#3{a};")]),
    ],
)


def group_of(draw: Draw, *texts: str) -> list[list[str]]:
    """The texts with two numbers in place of {a} and {b}, and again with the numbers exchanged and in another order."""
    a, b = (int(torch.randint(low, low + 40, (1,), generator=draw.generator)) for low in (10, 50))
    return [[text.format(a=a, b=b) for text in texts], [text.format(a=b, b=a) for text in texts[1:]]]


def scores_case(
    name: str,
    questions: int,
    answers: int,
    n: int,
    levels: int = 0,
    even: bool = False,
    scale: float = 1.0,
    failed: float = 0.0,
    above: int = 0,
) -> Case:
    """Scores of several answers. levels: how many different ones there are; 0: all differ. even: right ones have True.

    failed: the share of answers whose score is -inf. above: scores are whole numbers from this one on.
    """

    def draw_args(draw: Draw) -> Sequence[Any]:
        shape = (draw.size("Q", questions, questions + 1, questions + 2), answers)
        right = torch.rand(shape, generator=draw.generator) < 0.4
        scores = torch.rand(shape, generator=draw.generator)
        if levels:
            scores = torch.randint(levels, shape, generator=draw.generator) / levels - 0.5
        if failed:
            scores[torch.rand(shape, generator=draw.generator) < failed] = float("-inf")
        if above:
            scores = above + scores.argsort(dim=-1)
        return [right.clone() if even else scale * scores if scale != 1 else scores, right, n]

    return Case(name, draw_args)


BEST = Exercise(
    name="reasoning.best_of_n",
    solution="best_of_n",
    reference=right_best_of_n,
    drive=drives.rated,
    function=True,
    differentiable=False,
    points=6,
    axes="question",
    cases=[
        scores_case("best of 3 among 7", 4, 7, 3),
        scores_case("as many, three different scores", 4, 7, 3, levels=3),
        scores_case("best of 1: the verifier has no choice", 5, 6, 1),
        scores_case("best of all 8", 6, 8, 8),
        scores_case("three different scores, best of 4 among 9", 5, 9, 4, levels=3),
        scores_case("all scores equal", 4, 5, 2, levels=1),
        scores_case("a perfect verifier, whose scores are True and False, is pass@k", 7, 10, 5, even=True),
        scores_case("best of 60 among 200, scores of 1e-9", 3, 200, 60, scale=1e-9),
        scores_case("best of 3 among 12, scores are whole numbers above 2^24", 4, 12, 3, above=2**24),
        scores_case("best of 2 among 8, some scores are -inf", 5, 8, 2, failed=0.6),
    ],
)


def vote_case(name: str, shares: list[float], n: int, count: int, other: Sequence[int] = (-12, -9, 9, 12)) -> Case:
    """A case of votes. In a hidden one the first answer has so many percent more (other), and the others theirs in
    proportion. What is right there is well away from 0.675, the first case's released answer.
    """

    def draw_args(draw: Draw) -> Sequence[Any]:
        first = round(shares[0] + draw.size("percent", 0, *other) / 100, 2)
        others = [round(share * (1 - first) / (1 - shares[0]), 6) for share in shares[1:]]
        return [[first, *others], draw.size("n", n, n + 2, n + 4), count]

    return Case(name, draw_args, tolerance=Tolerance(0.05))


CROWD = Exercise(
    name="reasoning.crowd",
    solution="vote_accuracy",
    reference=right_vote,
    drive=drives.number_given,
    function=True,
    differentiable=False,
    points=4,
    cases=[
        vote_case("right in 40 % of answers, three wrong ones", [0.4, 0.25, 0.2, 0.15], 15, 16_000),
        vote_case("right in 40 % of answers, one wrong one", [0.4, 0.6], 9, 20_000),
        vote_case("two answers that often tie", [0.45, 0.55], 4, 18_000, (-12, -9)),
        vote_case("four answers of equal shares", [0.25, 0.25, 0.25, 0.25], 3, 23_000),
        vote_case("one voter", [0.3, 0.1, 0.6], 1, 24_000),
        vote_case("three voters, one wrong answer", [0.7, 0.3], 3, 19_000, (9, 12)),
        vote_case("two voters", [0.7, 0.2, 0.1], 2, 15_000, (9, 12)),
        vote_case("six answers", [0.3, 0.2, 0.2, 0.1, 0.1, 0.1], 5, 22_000, (-12, -9)),
    ],
)


# Learning


def log_probs_case(name: str, sizes: Sequence[int], prompt: int, temperature: float, **more: Any) -> Case:
    """A case of log-probabilities. sizes: B, T and V."""
    scale = more.pop("scale", 2.0)

    def draw_args(draw: Draw) -> Sequence[Any]:
        B, T, V = sizes[0], draw.size("T", sizes[1], sizes[1] + 1, sizes[1] + 3), sizes[2]
        logits = draw.normal(B, T, V, scale=scale).to(more.get("dtype", torch.float32))
        return [logits, draw.tokens(V, B, T), prompt, temperature]

    return Case(name, draw_args, **more)


def without_answer(draw: Draw) -> Sequence[Any]:
    """Logits, and prompts behind which nothing stands yet."""
    B, T = draw.size("B", 3, 2, 4), draw.size("T", 6, 5, 8)
    return [draw.normal(B, T, 8), draw.tokens(8, B, T), T, 0.9]


SHAPE = {"drive": drives.shape_given, "right": lambda logits, ids, prompt, temperature: [len(ids), 0]}
LOG_PROBS = Exercise(
    name="reasoning.log_probs",
    solution="answer_log_probs",
    reference=right_log_probs,
    drive=drives.log_probs_given,
    function=True,
    points=6,
    axes="B T",
    without={
        "prompt thousandfold": "the prompt is a part of the ids",
        "prompt hundredfold": "the prompt is a part of the ids",
        "ids further": "the model has no such ids",
    },
    cases=[
        log_probs_case("3 answers of 5 tokens after 4", (3, 9, 7), 4, 1.0),
        log_probs_case("a prompt of one token", (2, 6, 5), 1, 0.8),
        log_probs_case("temperature 1.7", (4, 8, 11), 5, 1.7),
        log_probs_case("an answer of one token, temperature 0.6", (2, 7, 6), 6, 0.6),
        log_probs_case("large logits", (1, 10, 4), 3, 1.1, scale=200.0),
        Case("the shape of what is returned for an answer of no tokens", without_answer, **SHAPE),
        log_probs_case("bfloat16", (2, 11, 9), 7, 0.7, dtype=torch.bfloat16, tolerance=Tolerance(1e-4)),
    ],
)


def mask_case(name: str, lengths: list[int], width: int, end: int, pad: int | None = None) -> Case:
    """Answers of these lengths, their end token included; after it stands `pad`, or anything if there is none. A length
    beyond the width: the answer has no end.
    """

    def draw_args(draw: Draw) -> Sequence[Any]:
        answers = draw.tokens(20, len(lengths), width + draw.size("more", 0, 1, 2))
        answers[answers == end] = 20
        for row, length in enumerate(lengths):
            if length <= width:
                answers[row, length - 1] = end
                if pad is not None:
                    answers[row, length:] = pad
        return [answers, end]

    return Case(name, draw_args)


MASK = Exercise(
    name="reasoning.mask",
    solution="answer_mask",
    reference=right_mask,
    drive=drives.masked,
    function=True,
    differentiable=False,
    points=4,
    axes="B T",
    cases=[
        mask_case("padding is the end token, 300 times", [3, 6, 1], 300, 4, 4),
        mask_case("padding is another token", [2, 5, 4], 7, 9, 0),
        mask_case("more tokens after the end", [4, 1, 2], 5, 3),
        mask_case("one answer of nine was cut off", [9, 2, 4, 1, 3, 2, 4, 1, 3], 4, 7, 7),
        mask_case("all answers were cut off, after 530 tokens", [999, 999], 530, 5),
        mask_case("the end token is 0", [2, 4], 5, 0, 0),
    ],
)


def rewards_case(name: str, groups: Sequence[Sequence[float]], scaled: bool, **more: Any) -> Case:
    """Groups of rewards, and behind them random ones."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        more = draw.size("more", 1, 2, 3)
        others = torch.randint(5, (more, len(groups[0])), generator=draw.generator) / 4
        return [torch.cat([torch.tensor(groups).float(), others]).flatten(), len(groups[0]), scaled]

    return Case(name, draw_args, **more)


ADVANTAGES = Exercise(
    name="reasoning.advantages",
    solution="advantages",
    reference=right_beside_rewards,
    drive=drives.beside_rewards,
    function=True,
    differentiable=False,
    points=4,
    axes="advantage/reward answer",
    cases=[
        rewards_case("one of four is right, and three of four", [[1, 0, 0, 0], [1, 1, 0, 1]], True),
        rewards_case("a group in which all are right, one in which none is", [[1, 1, 1], [0, 0, 0], [0, 1, 0]], True),
        rewards_case("without the scale", [[1, 0, 0, 0, 0], [0.5, 1, 0, 1, 1]], False),
        rewards_case("groups of one", [[1], [0], [0.25]], True),
        rewards_case("rewards that are nearly equal", [[0, 2.0**-11], [0.5, 1]], True, tolerance=Tolerance(1e-3)),
        rewards_case("rewards of thousands that differ by little", [[5000, 5001, 5000], [5003, 5001, 5000]], True),
        rewards_case("two easy questions and a hard one", [[1] * 7 + [0], [0] * 7 + [1], [1] * 6 + [0] * 2], True),
    ],
)


def policy(draw: Draw, B: int, T: int, apart: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities now and before, whose ratios are clear of both bounds of the clip."""
    old = -draw.normal(B, T).abs() - 0.05
    ratio = 1 + apart * draw.normal(B, T)
    ratio = ratio.clamp(min=0.2)
    for bound in (0.7, 0.8, 0.9, 1.1, 1.2, 1.28, 1.3):
        ratio = torch.where((ratio - bound).abs() < 0.01, bound + 0.02, ratio)
    return old + ratio.log(), old


def loss_case(name: str, kind: str, lengths: list[int], width: int, **more: Any) -> Case:
    """Answers of these lengths among `width` tokens. apart: how far ratios are from 1; clip: low and high. equal: the
    first answer was as good as its group; wrong: all were worse. hole: a place at which no token counts.
    """
    apart, (low, high) = more.pop("apart", 0.3), more.pop("clip", (0.2, 0.2))
    equal, wrong = more.pop("equal", False), more.pop("wrong", False)
    hole = more.pop("hole", None)
    longest, tokens = more.pop("longest", width + 3), more.pop("tokens", 3 * sum(lengths) + 1)

    def draw_args(draw: Draw) -> Sequence[Any]:
        B, T = len(lengths), draw.size("T", width, width + 1, width + 2)
        now, old = policy(draw, B, T, apart)
        mask = (torch.arange(T) < torch.tensor(lengths)[:, None]).float()
        if hole is not None:
            mask[:, hole] = 0.0
        A = draw.normal(B) + 0.1
        A = -A.abs() - 0.1 if wrong else A
        A[:1] = 0.0 if equal else A[:1]
        return [now, old, A, mask, kind, low, high, longest, tokens]

    return Case(name, draw_args, **more)


NONE = {"drive": drives.loss_of_none_then_all, "right": right_none_then_all}
LOSS = Exercise(
    name="reasoning.loss",
    solution="policy_loss",
    reference=right_loss,
    function=True,
    drive=drives.loss_given,
    points=10,
    cases=[
        loss_case("grpo, ratios near 1", "grpo", [5, 2, 4], 6, apart=0.05),
        loss_case("grpo, ratios to both sides", "grpo", [3, 7, 1, 5], 7),
        loss_case("grpo, an advantage of 0", "grpo", [4, 2, 6], 6, equal=True),
        loss_case("bnpo", "bnpo", [6, 2, 3], 8, clip=(0.2, 0.28)),
        loss_case("bnpo, an advantage of 0", "bnpo", [3, 5, 2, 4], 9, equal=True),
        loss_case(
            "bnpo, wrong answers that have become far more probable", "bnpo", [7, 4, 2], 7, apart=7.0, wrong=True
        ),
        loss_case("dapo, a part of the tokens", "dapo", [2, 8, 5], 9, clip=(0.2, 0.28), tokens=40),
        loss_case("dapo, `tokens` smaller than the number of tokens here", "dapo", [3, 1], 4, tokens=1),
        loss_case("dr_grpo", "dr_grpo", [4, 1, 10, 6], 10, longest=12),
        loss_case("dr_grpo, an answer that is masked whole", "dr_grpo", [3, 0, 2], 4, longest=5),
        loss_case("clip of 0.1 and 0.3", "bnpo", [5, 5, 3, 2, 4], 5, clip=(0.1, 0.3), apart=0.5),
        loss_case("grpo, an answer that is masked whole", "grpo", [0, 4, 3], 4),
        loss_case("bnpo, the second token of each answer does not count", "bnpo", [4, 3], 5, hole=1),
        loss_case("bnpo, first no token counts, then one does", "bnpo", [0, 1], 3, **NONE),
    ],
)


def kl_case(name: str, kind: str, shape: Sequence[int], scale: float, agree: bool = False) -> Case:
    """A case of an estimate. agree: whether the reference is the policy, as it is at the first step."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        B, T = draw.size("B", shape[0], shape[0] + 1), shape[1]
        log_probs, reference = -draw.normal(B, T).abs() - 0.1, -draw.normal(B, T).abs() * scale - 0.2
        return [log_probs, log_probs.clone() if agree else reference, kind]

    return Case(name, draw_args)


KL = Exercise(
    name="reasoning.kl",
    solution="kl_estimate",
    reference=right_kl,
    function=True,
    points=6,
    axes="B T",
    cases=[
        kl_case("k1", "k1", (2, 5), 1.0),
        kl_case("k2", "k2", (3, 4), 1.2),
        kl_case("k3", "k3", (2, 6), 0.8),
        kl_case("k3 with its gradient corrected", "corrected", (4, 3), 1.1),
        kl_case("k1, where policy and reference agree", "k1", (1, 4), 1.0, agree=True),
    ],
)


def step_case(name: str, sizes: Sequence[int], lengths: list[int], temperature: float, steps: int, **more: Any) -> Case:
    """A step on answers of these lengths. sizes: vocabulary, prompt, width of the answers, group. The end token is the
    last, and pads; a length beyond the width: the answer was cut off. asked: rows whose prompt has an end token in
    it. wrong: answers that are wrong in a hidden case.
    """
    rewards: list[float] = more.pop("rewards")
    asked: list[int] = more.pop("asked", [])
    wrong: list[int] = more.pop("wrong", [])

    def draw_args(draw: Draw) -> Sequence[Any]:
        vocab, prompt, width, group = sizes
        ids = draw.tokens(vocab - 1, len(lengths), prompt + width)
        for row, length in enumerate(lengths):
            if length <= width:
                ids[row, prompt + length - 1 :] = vocab - 1
        ids[asked, 1] = vocab - 1
        weights = draw.normal(vocab, vocab, scale=draw.size("scale", 1, 2))
        given = torch.tensor(rewards)
        if wrong:
            given[wrong] *= draw.size("right", 1, 0)
        bias = draw.normal(vocab, scale=0.5)
        return [weights, bias, ids, prompt, given, group, vocab - 1, temperature, steps]

    return Case(name, draw_args, **more)


STEP = Exercise(
    name="reasoning.step",
    solution="grpo_step",
    reference=right_step,
    drive=drives.weights_after,
    function=True,
    differentiable=False,
    points=8,
    axes="token next",
    uses=["reasoning.log_probs", "reasoning.mask", "reasoning.advantages", "reasoning.loss"],
    cases=[
        step_case("one step", (7, 3, 5, 4), [2, 5, 3, 4], 1.0, 1, rewards=[1.0, 0, 0, 1]),
        step_case("answers of equal length", (6, 5, 3, 4), [3, 3, 3, 3], 0.8, 1, rewards=[0.0, 1, 1, 0]),
        step_case(
            "two questions, temperature 0.7",
            (6, 2, 4, 3),
            [4, 1, 2, 3, 3, 4],
            0.7,
            1,
            rewards=[1.0, 0.25, 0, 0, 1, 0.75],
        ),
        step_case("three steps on the same answers", (5, 4, 3, 2), [3, 2, 1, 3], 1.2, 3, rewards=[1.0, 0, 0, 1]),
        step_case(
            "answers that were cut off, temperature 0.1", (8, 1, 6, 2), [9, 3, 9, 6], 0.1, 2, rewards=[0.0, 1, 1, 0]
        ),
        step_case(
            "a question whose answers are all right, and another",
            (4, 2, 5, 3),
            [2, 5, 4, 3, 1, 2],
            1.1,
            2,
            rewards=[1.0, 1, 1, 0, 1, 0],
        ),
        step_case(
            "all answers are right, or all but one", (3, 6, 4, 3), [2, 3, 4], 1.3, 2, rewards=[1.0, 1, 1], wrong=[1]
        ),
        step_case(
            "an end token in the prompt", (9, 5, 4, 2), [3, 4, 2, 1], 0.9, 1, rewards=[1.0, 0, 0, 1], asked=[0, 3]
        ),
    ],
)


EXERCISES = with_mistakes(
    __file__,
    [FILTERS, PASS, EXTRACT, VOTE, BEST, CROWD, LOG_PROBS, MASK, ADVANTAGES, LOSS, KL, STEP],
)
