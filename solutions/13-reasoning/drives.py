"""How what counts, reads and learns is used: fractions as whole numbers, refusals as -1, a step on a model of two tokens."""

from typing import Any

import torch
from torch import Tensor, nn

from grader.authoring.drives.use import tensor_given


def float_or_refused(function: Any, *args: Any) -> float:
    """What a function returns, a number; -1 where it raises ValueError."""
    try:
        given = function(*args)
    except ValueError:
        return -1.0
    if isinstance(given, Tensor):
        given = given.item()
    if not isinstance(given, int | float):
        raise TypeError(f"a {type(given).__name__} was returned, where a number belongs")
    return float(given)


def passes(pass_at_k: Any, asked: list[list[int]]) -> Tensor:
    """What a function says of each n, c and k."""
    return torch.tensor([float_or_refused(pass_at_k, *each) for each in asked])


def numbers_of(value: Any) -> list[int]:
    """1, numerator and denominator of a value; zeros for None."""
    if value is None:
        return [0, 0, 0]
    if isinstance(value, bool) or not hasattr(value, "numerator") or isinstance(value, Tensor):
        raise TypeError(f"a {type(value).__name__} was returned, where a Fraction or None belongs")
    return [1, int(value.numerator), int(value.denominator)]


def values_read(extract: Any, texts: list[str]) -> Tensor:
    """What is read in each text: [texts, 3]."""
    return torch.tensor([numbers_of(extract(text)) for text in texts])


def values_voted(majority: Any, groups: list[list[str]]) -> Tensor:
    """What each group of texts votes for: [groups, 3]."""
    return torch.tensor([numbers_of(majority(list(group))) for group in groups])


def rated(best_of_n: Any, scores: Tensor, right: Tensor, n: int) -> Tensor:
    """The shares for boolean and for float right ones, which must be the same."""
    given = tensor_given(best_of_n(scores, right, n), "best_of_n").float()
    again = tensor_given(best_of_n(scores, right.float(), n), "best_of_n").float()
    return torch.where(given == again, given, torch.nan)


def masked(answer_mask: Any, answers: Tensor, end: int) -> Tensor:
    """The mask in float32: it must be float32 or bool."""
    given = tensor_given(answer_mask(answers, end), "answer_mask")
    if given.dtype not in (torch.float32, torch.bool):
        raise TypeError(f"the mask is {given.dtype}; float32 belongs there")
    return given.float()


def beside_rewards(advantages: Any, rewards: Tensor, group: int, scaled: bool) -> Tensor:
    """The advantages, and below them the rewards, beside which an advantage is 0: [2, answers]."""
    given = tensor_given(advantages(rewards, group, scaled), "advantages")
    if given.shape != rewards.shape:
        raise ValueError(f"the advantages are {list(given.shape)}; {list(rewards.shape)} belongs there")
    return torch.stack([given, rewards])


class Bigram(nn.Module):
    """A model whose logits depend on the last token alone: ids [B, T] -> [B, T, vocab_size]."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone())

    def forward(self, ids: Tensor) -> Tensor:
        return self.weight[ids]


def weights_after(
    grpo_step: Any,
    weights: Tensor,
    ids: Tensor,
    prompt: int,
    rewards: Tensor,
    group: int,
    end: int,
    temperature: float,
    steps: int,
) -> Tensor:
    """The weights of a bigram model after some steps on the same answers, by gradient descent with a rate of 1."""
    model = Bigram(weights)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    old = None
    for _ in range(steps):
        old = tensor_given(grpo_step(model, optimizer, ids, prompt, rewards, group, end, temperature, old), "grpo_step")
        if old.requires_grad:
            raise ValueError("the old log-probabilities that were returned still have a graph; `detach` cuts it off")
    return model.weight.detach()
