"""Inputs and weights that show what ordinary ones do not."""

from typing import Any

import torch
from torch import Tensor

from grader.lessons.exercise import Draw, weights_around_0


def alike(draw: Draw, batch: int, length: int, width: int, scale: float = 9.0, apart: float = 0.2) -> Tensor:
    """Tokens that have much in common: [batch, length, width]. Each head's scores are near one number, far from 0.

    A softmax that is written out without subtracting the largest, or a mask that is not low enough, shows there.
    scale: of what they share. apart: of what they do not.
    """
    return draw.normal(batch, 1, width, scale=scale) + draw.normal(batch, length, width, scale=apart)


def with_zeros(x: Tensor) -> list[Tensor]:
    """The same with a first vector of zeros, which nothing but eps keeps from a division by zero."""
    x[0, 0] = 0.0
    return [x]


def steep_weights(module: Any, draw: Draw) -> None:
    """As `weights_around_0`; but where `query_pre_attn_scalar` is 1, the scores of Gemma 3's first head are near -120.

    Scores are bounded by the norms of q and k, whose weights training can make large.
    """
    weights_around_0(module, draw)
    if module.config.query_pre_attn_scalar == 1:
        with torch.no_grad():
            width = module.head_dim
            module.k_proj.weight[:width] = -module.q_proj.weight[:width]
            for norm in (module.q_norm, module.k_norm):
                norm.weight.copy_(0.1 * norm.weight + (120 / width) ** 0.5 - 1)
