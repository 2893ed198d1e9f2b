"""What tests/test_every_lesson.py asks of this lesson: other right programs and random configs (tests/declared.py)."""

from typing import Any

import torch
import torch.nn.functional as F
from declared import Numbers
from hypothesis import strategies as st
from torch import Tensor, nn

from grader.lessons.exercise import Case

MISTAKES = 9
VARIES = ["moe.rms_norm"]
NO_MODEL = "it has no model"
WITHOUT = {
    "TOLD": "no exercise uses another, and every mistake is named",
    "one policy": "it has few mistakes, and no composite",
    "RERUNS": "no cell uses what its exercise defines",
    **dict.fromkeys(("TRACE", "PLANTED", "HUB", "SIZES", "TRAINED"), NO_MODEL),
}


# Random configs, and exercise -> a random case of it


CONFIGS = st.fixed_dictionaries({"dim": st.integers(1, 50), "eps": st.sampled_from([1e-6, 1e-5, 1e-2])})


def of_vectors(config: dict[str, Any], n: Numbers) -> Case:
    build = {"dim": config["dim"], "eps": config["eps"]}  # in the order in which the class takes them
    return Case(str(n.seed), lambda draw: [draw.normal(n.batch, n.length, build["dim"], scale=n.scale)], build)


RANDOM = {"moe.rms_norm": of_vectors}


# Other right programs


class Norm(nn.Module):
    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.zeros(dim)), eps


class WithKernel(Norm):
    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)


class WithLength(Norm):
    def forward(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x.float(), dim=-1, keepdim=True)
        return (x / torch.sqrt(length**2 / x.shape[-1] + self.eps)).to(x.dtype) * self.weight


RIGHT = {"moe.rms_norm": [WithKernel, WithLength]}


# A program that is right for some inputs only


class WithSmallestEps(Norm):
    """For vectors that are long enough no epsilon shows."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight, 1e-12)


BY_CHANCE = {"moe.rms_norm": [WithSmallestEps]}
