"""How what counts, reads and learns is used: fractions as whole numbers, refusals beside shares, a step on a small model."""

from typing import Any

import torch
from torch import Tensor, nn

from grader.authoring.drives.use import tensor_given


def log_probs_given(function: Any, logits: Tensor, ids: Tensor, prompt: int, temperature: float) -> Tensor:
    """What is returned."""
    return tensor_given(function(logits, ids, prompt, temperature), "answer_log_probs")


def shape_given(function: Any, logits: Tensor, ids: Tensor, prompt: int, temperature: float) -> list[int]:
    """The shape of what is returned."""
    return list(log_probs_given(function, logits, ids, prompt, temperature).shape)


def loss_given(policy_loss: Any, *args: Any) -> Tensor:
    """What is returned."""
    return tensor_given(policy_loss(*args), "policy_loss")


def loss_of_none_then_all(
    policy_loss: Any, log_probs: Tensor, old: Tensor, A: Tensor, mask: Tensor, *rest: Any
) -> Tensor:
    """The loss where no token counts, and that where those of the mask do: [2]."""
    return torch.stack(
        [loss_given(policy_loss, log_probs, old, A, some, *rest) for some in (torch.zeros_like(mask), mask)]
    )


def number_given(function: Any, *args: Any) -> float:
    """What a function returns, which must be a number."""
    given = function(*args)
    if isinstance(given, Tensor):
        given = given.item()
    if not isinstance(given, int | float):
        raise TypeError(f"a {type(given).__name__} was returned, where a number belongs")
    return float(given)


def passes(pass_at_k: Any, asked: list[list[int]]) -> Tensor:
    """What a function says of each n, c and k: 0 and its number, or 1 and 0 where it raises ValueError. [questions, 2]."""
    found = []
    for each in asked:
        try:
            found.append([0.0, number_given(pass_at_k, *each)])
        except ValueError:
            found.append([1.0, 0.0])
    return torch.tensor(found)


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
    best_of_n(scores, right, n % scores.shape[1] + 1)  # another n comes before
    given = tensor_given(best_of_n(scores, right, n), "best_of_n").float()
    if not torch.allclose(given, tensor_given(best_of_n(scores, right, n), "best_of_n").float(), equal_nan=True):
        raise ValueError(
            "best_of_n gives other shares for the same scores; the docstring wants the mean over all choices"
        )
    own = right.float()
    again = tensor_given(best_of_n(scores, own, n), "best_of_n").float()
    if not torch.equal(own, right.float()):
        raise ValueError("best_of_n changes the caller's `right`")
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


class Counting(nn.Module):
    """A model whose logits depend on how often each token stood so far: ids [B, T] -> [B, T, vocab_size].

    Each token adds its row of `weight`, the last one twice its own.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())

    def forward(self, ids: Tensor) -> Tensor:
        rows = self.weight[ids]
        return 0.4 * (rows.cumsum(dim=1) + rows) + 3 * self.bias


def weights_after(
    grpo_step: Any,
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
    """The weights of a model after some steps on the same answers, by gradient descent with a rate of 1; its bias below.

    There are gradients already: something else was done with the model before. It is in evaluation mode, and the optimizer
    has a group for each of its two parameters.
    """
    model = Counting(weights, bias).eval()
    model(ids).square().mean().backward()
    optimizer = torch.optim.SGD([{"params": [parameter]} for parameter in (model.weight, model.bias)], lr=1.0)
    old = None
    for _ in range(steps):
        old = tensor_given(grpo_step(model, optimizer, ids, prompt, rewards, group, end, temperature, old), "grpo_step")
        if old.requires_grad:
            raise ValueError("the old log-probabilities that were returned still have a graph; `detach` cuts it off")
    if model.training:
        raise ValueError("grpo_step leaves a model that was in evaluation mode in training mode")
    return torch.cat([model.weight.detach(), model.bias.detach()[None]])
