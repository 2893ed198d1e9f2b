"""What tests/lessons/test_every_lesson.py asks of reasoning: other right programs and wrong ones, random cases."""

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from grader.authoring.kit import Case
from grader.authoring.kit.declared import Change, Numbers, Rerun, Told
from grader.authoring.kit.solved import lesson_of

from . import exercises

LESSON = lesson_of(__file__)

MISTAKES = 155
VARIES = ["reasoning.filters", "reasoning.log_probs", "reasoning.mask", "reasoning.best_of_n"]
NO_MODEL = "its model is lesson 03's, which is checked there"
COUNTS = "it is about whole numbers"
PROBABILITIES = "log-probabilities are in float32, as `answer_log_probs` gives them"
WITHOUT = {
    **dict.fromkeys(("TRACE", "PLANTED", "HUB", "SIZES"), NO_MODEL),
    "TRAINED": "it is sampled from; test_reasoning.py compares its logits with transformers', with a cache and without",
    "bfloat16": {
        "reasoning.pass_at_k": COUNTS,
        "reasoning.extract": "it reads texts",
        "reasoning.majority": "it reads texts",
        "reasoning.best_of_n": "scores are compared, and not computed with",
        "reasoning.crowd": "it is a Python float",
        "reasoning.mask": COUNTS,
        "reasoning.advantages": "rewards are numbers of Python's",
        "reasoning.loss": PROBABILITIES,
        "reasoning.kl": PROBABILITIES,
        "reasoning.step": PROBABILITIES,
    },
    "CONFIG_SHA256": "it has no configs of its own",
}


# Random cases


CONFIGS = st.fixed_dictionaries(
    {
        "vocab": st.integers(5, 20),
        "group": st.integers(1, 6),
        "top_k": st.integers(0, 9),
        "tenths": st.integers(1, 10),
        "end": st.integers(0, 19),
    }
)


def of_filters(config: dict[str, Any], n: Numbers) -> Case:
    min_p = 0.0 if config["top_k"] == 1 else (n.seed % 4) / 10  # of one token there is none to drop
    settings = (0.3 + config["tenths"] / 4, config["top_k"], config["tenths"] / 10, min_p)
    shape = (min(2, n.batch), config["vocab"])
    return exercises.filter_case(str(n.seed), shape, *settings, scale=1 + n.scale)


def of_pass_at_k(config: dict[str, Any], n: Numbers) -> Case:
    total = n.length + config["vocab"]
    return exercises.pass_case(str(n.seed), (total, n.seed % (total + 1), config["group"]), (n.length, 0, n.batch))


def of_extract(config: dict[str, Any], n: Numbers) -> Case:
    pieces = ["#", "{0}", "{1}", ",{2}", ".{1}", "/{0}", "-", " ", ";", "x"]
    generator = torch.Generator().manual_seed(n.seed)
    texts = []
    for _ in range(20):
        chosen = torch.randint(len(pieces), (1 + n.length % 4,), generator=generator).tolist()
        texts.append("#" + "".join(pieces[i] for i in chosen) + ";")
    return exercises.text_case(str(n.seed), *texts)


def of_majority(config: dict[str, Any], n: Numbers) -> Case:
    forms = ["#{a};", "#{b};", "#{a}.0;", "#{b}/1;", "#{a}", "1,2#{b};"]
    generator = torch.Generator().manual_seed(n.seed)
    texts = [forms[i] for i in torch.randint(len(forms), (n.length,), generator=generator).tolist()]
    return Case(str(n.seed), lambda draw: [exercises.group_of(draw, *texts)])


def of_best_of_n(config: dict[str, Any], n: Numbers) -> Case:
    answers = 2 + n.length % 7
    return exercises.scores_case(str(n.seed), n.batch, answers, 1 + n.seed % answers, levels=n.seed % 4)


def of_crowd(config: dict[str, Any], n: Numbers) -> Case:
    first = 0.3 + config["tenths"] / 20
    return exercises.vote_case(str(n.seed), [first, (1 - first) * 0.6, (1 - first) * 0.4], 1 + n.length % 6, 20_000)


def of_log_probs(config: dict[str, Any], n: Numbers) -> Case:
    sizes, prompt = (n.batch, n.length + 1, config["vocab"]), 1 + n.seed % n.length
    return exercises.log_probs_case(str(n.seed), sizes, prompt, 0.2 + config["tenths"] / 5, scale=n.scale)


def of_mask(config: dict[str, Any], n: Numbers) -> Case:
    lengths = [1 + (n.seed + 7 * row) % (n.length + 2) for row in range(n.batch)]
    return exercises.mask_case(str(n.seed), lengths, n.length, config["end"], [None, config["end"], 0][n.seed % 3])


def of_advantages(config: dict[str, Any], n: Numbers) -> Case:
    rewards = [[((n.seed >> (row + i)) % 2) * 1.0 for i in range(config["group"])] for row in range(n.batch)]
    return exercises.rewards_case(str(n.seed), rewards, n.seed % 3 > 0)


def of_loss(config: dict[str, Any], n: Numbers) -> Case:
    kind = ("grpo", "bnpo", "dapo", "dr_grpo")[n.seed % 4]
    lengths = [1 + (n.seed + 5 * row) % n.length for row in range(n.batch)]
    return exercises.loss_case(str(n.seed), kind, lengths, n.length, apart=min(n.scale, 0.4))


def of_kl(config: dict[str, Any], n: Numbers) -> Case:
    kind = ("k1", "k2", "k3", "corrected")[n.seed % 4]
    return exercises.kl_case(str(n.seed), kind, (n.batch, n.length), min(n.scale, 1.5))


def of_step(config: dict[str, Any], n: Numbers) -> Case:
    group = config["group"]
    lengths = [1 + (n.seed + 3 * row) % (n.length + 1) for row in range(2 * group)]
    rewards = [float((n.seed >> row) % 2) for row in range(2 * group)]
    sizes = (config["vocab"], 1 + n.seed % 4, n.length, group)
    return exercises.step_case(str(n.seed), sizes, lengths, 0.5 + config["tenths"] / 10, 1, rewards=rewards)


RANDOM = {
    "reasoning.filters": of_filters,
    "reasoning.pass_at_k": of_pass_at_k,
    "reasoning.extract": of_extract,
    "reasoning.majority": of_majority,
    "reasoning.best_of_n": of_best_of_n,
    "reasoning.crowd": of_crowd,
    "reasoning.log_probs": of_log_probs,
    "reasoning.mask": of_mask,
    "reasoning.advantages": of_advantages,
    "reasoning.loss": of_loss,
    "reasoning.kl": of_kl,
    "reasoning.step": of_step,
}


# Other right programs


def filters_ascending(
    logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> Tensor:
    """As transformers writes them: top-p drops the improbable tail, and kept tokens are gathered in a mask."""
    scores = logits.to(torch.float32).div(temperature)
    if top_k:
        k = min(top_k, scores.size(-1))
        scores = torch.where(scores < scores.topk(k, dim=-1).values.amin(-1, keepdim=True), -torch.inf, scores)
    if top_p < 1.0:
        ordered, order = torch.sort(scores, descending=False, dim=-1)
        tail = ordered.softmax(-1).cumsum(-1) <= 1 - top_p
        tail[..., -1] = False
        scores = scores.masked_fill(torch.zeros_like(tail).scatter(-1, order, tail), -torch.inf)
    bound = scores.amax(-1, keepdim=True) + (math.log(min_p) if min_p else -torch.inf)
    return torch.softmax(scores.masked_fill(scores < bound, -torch.inf), dim=-1)


def filters_of_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> Tensor:
    """Ranked first, then probabilities: what is dropped is 0, and the rest is divided by its sum.

    Ties are told from the logits: exp of equal numbers need not be equal on every processor.
    """
    ranked, order = (logits.float() / temperature).sort(dim=-1, descending=True)
    probs = F.softmax(ranked, dim=-1)
    if 0 < top_k < probs.shape[-1]:
        probs = probs * (ranked >= ranked[..., top_k - 1 : top_k])
    probs = probs / probs.sum(-1, keepdim=True)
    if top_p < 1:
        before = F.pad(probs.cumsum(-1), (1, -1))
        probs = probs * ((before < top_p) | (torch.arange(probs.shape[-1]) == 0))
    probs = probs * (probs >= min_p * probs[..., :1])
    return torch.zeros_like(probs).scatter(-1, order, probs / probs.sum(-1, keepdim=True))


def pass_by_combinations(n: int, c: int, k: int) -> float:
    if k < 1 or k > n or c < 0 or c > n:
        raise ValueError("no such choice")
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def pass_of_human_eval(n: int, c: int, k: int) -> float:
    """The product over what is left, in its own form, behind a guard."""
    if not 0 <= c <= n or not 0 < k <= n:
        raise ValueError
    if n - c < k:
        return 1.0
    return 1.0 - float(torch.prod(1.0 - k / torch.arange(n - c + 1, n + 1, dtype=torch.float64)))


def extract_by_parts(text: str) -> Fraction | None:
    if text[-1:] != ";":
        return None
    _, mark, answer = text[:-1].rpartition("#")
    found = re.match(r"\s*(-?)([0-9,]+)((?:[./][0-9]+)?) *$", answer) if mark and "\n" not in answer else None
    if not found or answer.lstrip(" ") != answer.lstrip():
        return None
    sign, whole, rest = found.groups()
    groups = whole.split(",")
    if len(groups) > 1 and not (1 <= len(groups[0]) <= 3 and all(len(g) == 3 for g in groups[1:])):
        return None
    try:
        value = Fraction("".join(groups) + rest)
    except ZeroDivisionError:
        return None
    return -value if sign else value


def extract_by_decimal(text: str) -> Fraction | None:
    """With an expression for each kind of number."""
    if "#" not in text or not text.endswith(";"):
        return None
    answer = text[text.rindex("#") + 1 : -1].strip(" ")
    if re.search(r"[^0-9,./-]", answer):
        return None
    if "," in answer:
        if not re.match(r"-?\d{1,3}(,\d{3})+(?![\d,])", answer):
            return None
        answer = answer.replace(",", "", re.match(r"[-\d,]*", answer)[0].count(","))  # type: ignore[index]
    if re.fullmatch(r"-?\d+(\.\d+)?", answer):
        return Fraction(Decimal(answer))
    over = re.fullmatch(r"(-?\d+)/(\d+)", answer)
    return Fraction(int(over[1]), int(over[2])) if over and int(over[2]) else None


def majority_by_list(texts: Sequence[str]) -> Fraction | None:
    values = [v for v in (extract_by_parts(text) for text in texts) if v is not None]
    return max(values, key=values.count, default=None)


def majority_by_dict(texts: Sequence[str]) -> Fraction | None:
    counts: dict[Fraction, int] = {}
    best = None
    for text in texts:
        value = extract_by_decimal(text)
        if value is not None:
            counts[value] = counts.get(value, 0) + 1
    for value, count in counts.items():
        if best is None or count > counts[best]:
            best = value
    return best


def best_by_groups(scores: Tensor, right: Tensor, n: int) -> Tensor:
    """For each score: how probable it is that no answer above it is chosen, less that none from it on is."""
    N, found = scores.shape[1], []
    for row, is_right in zip(scores, right.double(), strict=True):
        total = 0.0
        for score in row.unique():
            above, level = int((row > score).sum()), row == score
            ways = math.comb(N - above, n) - math.comb(N - above - int(level.sum()), n)
            total += ways / math.comb(N, n) * float(is_right[level].mean())
        found.append(total)
    return torch.tensor(found)


def best_by_recursion(scores: Tensor, right: Tensor, n: int) -> Tensor:
    """Down the ranks: is this answer chosen, given that none before it was? Ties take their mean first."""
    N = scores.shape[1]
    order = scores.argsort(dim=1, descending=True, stable=True)
    ranked, worth = scores.gather(1, order), right.float().gather(1, order)
    same = (ranked.unsqueeze(2) == ranked.unsqueeze(1)).float()
    worth = torch.einsum("qij,qj->qi", same, worth) / same.sum(2)
    still, result = 1.0, torch.zeros(len(scores))
    for i in range(N):
        taken = min(1.0, n / (N - i))
        result = result + still * taken * worth[:, i]
        still *= 1 - taken
    return result


def votes_by_rows(shares: Sequence[float], n: int, count: int) -> float:
    """Vote by vote; a tie is drawn by lot."""
    ends = torch.tensor(shares).cumsum(0)
    drawn = torch.bucketize(torch.rand(count, n), ends[:-1])
    votes = torch.stack([(drawn == i).sum(1) for i in range(len(shares))], dim=1).float()
    return float((votes + 0.5 * torch.rand(votes.shape)).argmax(1).eq(0).float().mean())


def votes_by_counts(shares: Sequence[float], n: int, count: int) -> float:
    votes = torch.distributions.Multinomial(n, torch.tensor(shares)).sample((count,))
    first = votes[:, :1] >= votes
    ties = (votes == votes[:, :1]).sum(1)
    return float((first.all(1) / ties).mean())


def log_probs_by_entropy(logits: Tensor, ids: Tensor, prompt: int, temperature: float = 1.0) -> Tensor:
    B, T, V = logits.shape
    rows = logits[:, prompt - 1 : T - 1].reshape(-1, V).float() / temperature
    return F.cross_entropy(rows, ids[:, prompt:].reshape(-1), reduction="none").neg().view(B, -1)


def log_probs_by_sum(logits: Tensor, ids: Tensor, prompt: int, temperature: float = 1.0) -> Tensor:
    """The token's logit minus the logarithm of the sum of all exponentials."""
    scores = logits.float() / temperature
    chosen = torch.gather(scores[:, :-1], 2, ids[:, 1:].unsqueeze(2))[..., 0]
    return (chosen - torch.logsumexp(scores[:, :-1], -1))[:, prompt - 1 :]


def mask_by_first(answers: Tensor, end: int) -> Tensor:
    """As TRL writes it: the place of the first end token, or the width."""
    is_end = answers == end
    first = torch.where(is_end.any(1), is_end.int().argmax(1), answers.shape[1])
    return (torch.arange(answers.shape[1]) <= first[:, None]).float()


def mask_by_product(answers: Tensor, end: int) -> Tensor:
    going = answers.ne(end).float().cumprod(dim=1)
    return torch.cat([torch.ones_like(going[:, :1]), going[:, :-1]], dim=1)


def advantages_by_loop(rewards: Tensor, group: int, scaled: bool = True) -> Tensor:
    found = []
    for part in torch.split(rewards, group):
        centred = part - part.sum() / group
        spread = (centred.pow(2).sum() / max(1, group - 1)).sqrt()
        found.append(centred / (spread + 1e-4) if scaled else centred)
    return torch.cat(found)


def advantages_by_unflatten(rewards: Tensor, group: int, scaled: bool = True) -> Tensor:
    table = rewards.unflatten(0, (-1, group))
    spread, mean = torch.std_mean(table, dim=1, keepdim=True)
    return ((table - mean) / (spread.nan_to_num(0.0) + 1e-4 if scaled else 1.0)).reshape(-1)


def loss_by_maximum(
    log_probs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, kind: str = "bnpo",
    low: float = 0.2, high: float = 0.2, longest: int = 1, tokens: int = 1,
) -> Tensor:  # fmt: skip
    """The larger of two losses, and weights of tokens in place of denominators."""
    moved = torch.exp(log_probs - old)
    gain = -advantages.unsqueeze(1)
    losses = torch.max(gain * moved, gain * torch.clamp(moved, 1 - low, 1 + high))
    B = mask.shape[0]
    weights = {
        "grpo": mask / mask.sum(1, keepdim=True).clamp(min=1) / B,
        "bnpo": mask / mask.sum().clamp(min=1),
        "dapo": mask / tokens,
        "dr_grpo": mask / (B * longest),
    }
    return torch.sum(losses * weights[kind])


def loss_by_cases(
    log_probs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, kind: str = "bnpo",
    low: float = 0.2, high: float = 0.2, longest: int = 1, tokens: int = 1,
) -> Tensor:  # fmt: skip
    """A good token is bounded from above, a bad one from below."""
    ratio, A = (log_probs - old).exp(), advantages[:, None].expand_as(old)
    bounded = torch.where(A >= 0, ratio.clamp(max=1 + high), ratio.clamp(min=1 - low))
    losses = (-A * bounded).masked_fill(mask == 0, 0.0)
    if kind == "grpo":
        sums, lengths = losses.sum(-1), mask.sum(-1)
        return torch.where(lengths > 0, sums / lengths.clamp(min=1), 0.0).mean()
    if kind == "bnpo":
        return losses.sum() / max(float(mask.sum()), 1.0)
    return losses.sum() / (tokens if kind == "dapo" else len(losses) * longest)


def kl_by_log(log_probs: Tensor, reference: Tensor, kind: str) -> Tensor:
    r = torch.exp(reference - log_probs)
    if kind == "k1":
        return log_probs - reference
    if kind == "k2":
        return 0.5 * (log_probs - reference) ** 2
    k3 = r - 1 - (reference - log_probs)
    return k3 * torch.exp(log_probs - log_probs.detach()) if kind == "corrected" else k3


def kl_by_expm1(log_probs: Tensor, reference: Tensor, kind: str) -> Tensor:
    d = reference.sub(log_probs)
    values = {"k1": d.neg(), "k2": d.pow(2).mul(0.5), "k3": torch.expm1(d) - d}
    corrected = values["k3"].detach() * (log_probs - log_probs.detach()) + values["k3"]
    return values.get(kind, corrected)


def step_by_weights(
    model: nn.Module, optimizer: torch.optim.Optimizer, ids: Tensor, prompt: int, rewards: Tensor,
    group: int, end: int, temperature: float = 1.0, old: Tensor | None = None,
) -> Tensor:  # fmt: skip
    now = log_probs_by_entropy(model(ids), ids, prompt, temperature)
    before = now.detach().clone() if old is None else old
    loss = loss_by_cases(now, before, advantages_by_loop(rewards, group), mask_by_first(ids[:, prompt:], end))
    optimizer.zero_grad(set_to_none=False)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], max_norm=1.0)
    optimizer.step()
    return before


def step_without_the_last(
    model: nn.Module, optimizer: torch.optim.Optimizer, ids: Tensor, prompt: int, rewards: Tensor,
    group: int, end: int, temperature: float = 1.0, old: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The model does not read the last token, whose logits nobody needs; gradients by `autograd.grad`."""
    scores = model(ids[:, :-1])[:, prompt - 1 :].float() / temperature
    now = scores.log_softmax(-1).gather(2, ids[:, prompt:].unsqueeze(-1)).squeeze(-1)
    old = old if old is not None else now.detach()
    weights = mask_by_product(ids[:, prompt:], end)
    A = advantages_by_unflatten(rewards, group)[:, None]
    ratio = (now - old).exp()
    loss = -(weights * torch.minimum(ratio * A, ratio.clamp(0.8, 1.2) * A)).sum() / weights.sum()
    parameters = list(model.parameters())
    for parameter, slope in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = slope
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    return old


RIGHT = {
    "reasoning.filters": [filters_ascending, filters_of_probabilities],
    "reasoning.pass_at_k": [pass_by_combinations, pass_of_human_eval],
    "reasoning.extract": [extract_by_parts, extract_by_decimal],
    "reasoning.majority": [majority_by_list, majority_by_dict],
    "reasoning.best_of_n": [best_by_groups, best_by_recursion],
    "reasoning.crowd": [votes_by_rows, votes_by_counts],
    "reasoning.log_probs": [log_probs_by_entropy, log_probs_by_sum],
    "reasoning.mask": [mask_by_first, mask_by_product],
    "reasoning.advantages": [advantages_by_loop, advantages_by_unflatten],
    "reasoning.loss": [loss_by_maximum, loss_by_cases],
    "reasoning.kl": [kl_by_log, kl_by_expm1],
    "reasoning.step": [step_by_weights, step_without_the_last],
}


# Wrong programs


def filters_of_one_row(
    logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> Tensor:
    """Right for a batch of one: every row loses what the first one loses."""
    kept = filters_ascending(logits, temperature, top_k, top_p, min_p)
    while kept.ndim > 1:
        kept = kept[0]
    return (logits.float() / temperature).masked_fill(kept == 0, -torch.inf).softmax(-1)


def pass_of_small_numbers(n: int, c: int, k: int) -> float:
    """Right until its factorials are too large for a float."""
    if not (1 <= k <= n and 0 <= c <= n):
        raise ValueError
    if n - c < k:
        return 1.0
    if n > 170:
        return 1 - (1 - c / n) ** k
    f = math.factorial
    return 1 - f(n - c) / f(n - c - k) * (f(n - k) / f(n))


def extract_digits(text: str) -> Fraction | None:
    """Right for what the lesson's own model writes."""
    found = re.search(r"#(\d+);$", text)
    return Fraction(found[1]) if found else None


def mask_of_unequal_padding(answers: Tensor, end: int) -> Tensor:
    """Right where padding is the end token: one end token is left."""
    is_end = (answers == end).cumsum(1)
    return ((answers != end) | (is_end == 1)).float()


def advantages_of_one_group(rewards: Tensor, group: int, scaled: bool = True) -> Tensor:
    """Right where nobody has equal rewards: it gives up on the whole batch if one group has."""
    table = rewards.view(-1, group)
    if group > 1 and bool((table.std(1) == 0).any()):
        return torch.zeros_like(rewards)
    return advantages_by_loop(rewards, group, scaled)


def loss_on_policy(
    log_probs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, kind: str = "bnpo",
    low: float = 0.2, high: float = 0.2, longest: int = 1, tokens: int = 1,
) -> Tensor:  # fmt: skip
    """Right for the first step on some answers, at which no ratio has left 1."""
    return loss_by_maximum(log_probs, log_probs.detach() + 0 * old, advantages, mask, kind, low, high, longest, tokens)


def votes_of_two(shares: Sequence[float], n: int, count: int) -> float:
    """Right where there is one wrong answer."""
    wins = torch.distributions.Binomial(n, torch.tensor(shares[0])).sample((count,)) - n / 2
    return float(((wins > 0) + 0.5 * (wins == 0)).float().mean())


BY_CHANCE = {
    "reasoning.filters": [filters_of_one_row],
    "reasoning.pass_at_k": [pass_of_small_numbers],
    "reasoning.extract": [extract_digits],
    "reasoning.crowd": [votes_of_two],
    "reasoning.mask": [mask_of_unequal_padding],
    "reasoning.advantages": [advantages_of_one_group],
    "reasoning.loss": [loss_on_policy],
}


# What is said of wrong programs


def extract_as_text(text: str) -> Any:
    value = extract_by_parts(text)
    return None if value is None else str(value)


def mask_of_whole_numbers(answers: Tensor, end: int) -> Tensor:
    return mask_by_first(answers, end).long()


def step_with_a_graph(
    model: nn.Module, optimizer: torch.optim.Optimizer, ids: Tensor, prompt: int, rewards: Tensor,
    group: int, end: int, temperature: float = 1.0, old: Tensor | None = None,
) -> Tensor:  # fmt: skip
    step_by_weights(model, optimizer, ids, prompt, rewards, group, end, temperature, old)
    return log_probs_by_entropy(model(ids), ids, prompt, temperature)


def pass_of_openai(n: int, c: int, k: int) -> float:
    """human_eval/evaluation.py's own, as it is."""
    if n - c < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - c + 1, n + 1))


def majority_of_words(texts: Sequence[str]) -> Fraction | None:
    read = [text for text in texts if extract_by_parts(text) is not None]
    return extract_by_parts(max(read, key=read.count)) if read else None


def best_by_drawing(scores: Tensor, right: Tensor, n: int) -> Tensor:
    drawn = torch.rand(200, *scores.shape).argsort(dim=-1)[..., :n]
    best = scores.expand(200, -1, -1).gather(2, drawn).argmax(dim=-1, keepdim=True)
    return right.float().expand(200, -1, -1).gather(2, drawn.gather(2, best)).mean(dim=0)[:, 0]


def advantages_by_clamp(rewards: Tensor, group: int, scaled: bool = True) -> Tensor:
    table = rewards.view(-1, group)
    shifted = table - table.mean(dim=1, keepdim=True)
    spread = table.std(dim=1, keepdim=True).clamp(min=1e-8) if scaled and group > 1 else 1.0
    return (shifted / spread).flatten()


def kl_of_a_detached_k3(log_probs: Tensor, reference: Tensor, kind: str) -> Tensor:
    found = kl_by_log(log_probs, reference, "k3" if kind == "corrected" else kind)
    return found.detach() * (log_probs - log_probs.detach()).exp() if kind == "corrected" else found


TOLD = [
    Told(
        "reasoning.pass_at_k",
        pass_of_openai,
        ["This is what comes out when 1.0 is returned wherever n - c is less than k", "openai/human-eval#35"],
    ),
    Told("reasoning.majority", majority_of_words, ["when texts vote by their wording"]),
    Told("reasoning.best_of_n", best_by_drawing, ["the docstring wants the mean over all choices"], ["NaN"]),
    Told("reasoning.advantages", advantages_by_clamp, ["when 1e-4 is not added to the standard deviation"]),
    Told("reasoning.kl", kl_of_a_detached_k3, ["when d has no gradient"], ["the reference has"]),
    Told("reasoning.extract", extract_as_text, ["a str was returned, where a Fraction or None belongs"]),
    Told("reasoning.mask", mask_of_whole_numbers, ["the mask is torch.int64; float32 belongs there"]),
    Told("reasoning.step", step_with_a_graph, ["`detach` cuts it off"]),
    Told(
        "reasoning.majority",
        Change("reasoning.extract", 'sign + whole.replace(",", "") + rest', "whole[-1:]"),
        ["Mend `reasoning.extract` first"],
    ),
    Told(
        "reasoning.step",
        Change("reasoning.advantages", "of_each - of_each.mean(dim=1, keepdim=True)", "of_each + 0.0"),
        ["Mend `reasoning.advantages` first"],
    ),
]


RERUNS = {
    "with other programs for all exercises": Rerun(
        {name: programs[0] for name, programs in RIGHT.items()},
        shows=["temperature first: top-p sees [0.867 0.117 0.016] and keeps 1", "grpo: loss"],
        changes={
            "for step in steps(range(30), ": "for step in steps(range(3), ",
            "in_turns(runs, 5)": "in_turns(runs, 1)",
        },
    ),
}
