"""What is right in 04-gemma3: transformers' Gemma 3."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Gemma3TextConfig
from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding, Gemma3TextScaledWordEmbedding

from grader.authoring.kit import Draw, hf


def reference_config(config: Mapping[str, Any]) -> Any:
    return hf.config(Gemma3TextConfig, config)


def rotations(config: Mapping[str, Any], positions: Tensor, kind: str) -> Tensor:
    """transformers' cosines and sines for a kind of layer: [2, T, head_dim]."""
    return hf.rope_table(Gemma3RotaryEmbedding(reference_config(config)), positions, kind)


def build_embedding(num_embeddings: int, embedding_dim: int) -> nn.Module:
    return Gemma3TextScaledWordEmbedding(num_embeddings, embedding_dim, None, embed_scale=embedding_dim**0.5)


def right_verdicts(
    exact: Sequence[Tensor], rounded: Sequence[Tensor], alone: Sequence[Tensor], whole: Sequence[Tensor], times: float
) -> list[int]:
    """Number by number, without roots: squares of errors against the square of the limit."""
    said = []
    for right, noisy, fed, run in zip(exact, rounded, alone, whole, strict=True):
        pairs = [
            zip(right.double().flatten().tolist(), t.double().flatten().tolist(), strict=True)
            for t in (noisy, fed, run)
        ]
        floor, own, all_in_all = (sum((a - b) ** 2 for a, b in pair) for pair in pairs)
        said.append(2 if own > times**2 * floor else int(all_in_all > times**2 * floor))
    return said


# What a row of a drawn comparison is like: its scale, an offset, the noise floor, and by how many limits it is off alone
# and in the whole run; then how the error lies: "even", in "one" number, in the "small" numbers, in the "last" or "first" token, or "along" the rounding.
ROWS = {
    "right": (1.0, 0.0, 1e-2, 0.4, 0.6, "even"),
    "inherited": (1.0, 0.0, 1e-2, 0.5, 60.0, "even"),
    "own": (1.0, 0.0, 1e-2, 20.0, 30.0, "even"),
    "own, and mended by chance": (1.0, 0.0, 1e-2, 4.0, 0.3, "even"),
    "own, a little": (1.0, 0.0, 1e-2, 1.6, 1.7, "even"),
    "right, in large numbers": (1e4, 0.0, 1e-3, 0.3, 0.5, "even"),
    "own, in small numbers": (1e-4, 0.0, 1e-2, 5.0, 5.0, "even"),
    "right, with much noise": (1.0, 0.0, 8e-2, 0.5, 0.5, "even"),
    "own, with little noise": (1.0, 0.0, 1e-4, 6.0, 6.0, "even"),
    "right, all of it in one number": (1.0, 0.0, 1e-2, 0.9, 0.9, "one"),
    "own, all of it in one number": (1.0, 0.0, 1e-2, 3.0, 3.0, "one"),
    "right, all of it where numbers are small": (1.0, 0.0, 1e-2, 0.6, 0.6, "small"),
    "right, around a large mean": (1.0, 30.0, 1e-2, 0.5, 0.5, "even"),
    "own, along what rounding does": (1.0, 0.0, 1e-2, 1.15, 1.15, "along"),
    "own, all of it in the last token": (1.0, 0.0, 1e-2, 2.5, 2.5, "last"),
    "own, all of it in the first token": (1.0, 0.0, 1e-2, 3.5, 3.5, "first"),
    "inherited, with little noise": (1.0, 0.0, 1e-4, 0.3, 7.0, "even"),
}


def drawn_rows(draw: Draw, names: Sequence[str], size: Sequence[int], times: float) -> list[list[Tensor]]:
    """The four outputs of each row: exact, rounded, alone, whole."""
    rows: list[list[Tensor]] = [[], [], [], []]
    for name in names:
        scale, offset, floor, alone, whole, lies = ROWS[name]
        exact = scale * (draw.normal(*size) + offset)
        noise = draw.normal(*size)
        ways = {"even": draw.normal(*size), "along": noise, "one": torch.zeros(*size), "small": draw.normal(*size)}
        ways["one"].view(-1)[3] = 1.0
        ways["last"] = torch.cat([torch.zeros(size[0] - 1, *size[1:]), draw.normal(1, *size[1:])])
        ways["first"] = draw.normal(*size) * (torch.arange(size[-2]) == 0)[:, None]
        ways["small"] = ways["small"] * (exact.abs() <= exact.abs().flatten().kthvalue(exact.numel() // 6).values)
        length = exact.norm() * floor
        rows[0].append(exact)
        rows[1].append(exact + length * noise / noise.norm())
        for place, error in ((2, alone), (3, whole)):
            rows[place].append(exact + times * error * length * ways[lies] / ways[lies].norm())
    return rows


# Rows of whole numbers, whose errors no processor rounds. How far they are off alone and in the whole run, where the
# limit is twice the noise: by the limit and one more or less in a single number, or by 1 where rounding changes nothing.
COUNTED = {
    "own, just above the limit": (1, 1),
    "inherited, just above the limit": (-1, 1),
    "right, just below the limit": (-1, -1),
    "right, and nothing is rounded": (0, 0),
    "inherited, and nothing is rounded": (0, 1),
    "own, and nothing is rounded": (1, 0),
}


def fine_rows(draw: Draw) -> list[list[Tensor]]:
    """The four outputs of each row, all but the exact ones in bfloat16: a quarter more than what bfloat16 holds.

    The limit is twice the noise of 3/4. Where the exact numbers lose their quarters, it is 2, and no error is above it.
    """
    rows: list[list[Tensor]] = [[], [], [], []]
    off = [("right", 1.0, 1.0), ("own", 1.5, 1.0), ("inherited", 1.0, 1.5)]
    first = draw.number("the first row", 0, 1, len(off) - 1)
    for _, alone, whole in [*off[first:], *off[:first]]:
        whole_numbers, sign = draw.tokens(50, 4, 6) + 66.0, 2.0 * draw.tokens(2, 4, 6) - 1
        rows[0].append(sign * (whole_numbers + 0.25))
        for place, error in ((1, 1.0), (2, -alone), (3, -whole)):
            rows[place].append((sign * (whole_numbers + error)).bfloat16())
    return rows


def counted_rows(
    draw: Draw, names: Sequence[str], size: Sequence[int], dtype: torch.dtype, times: int
) -> list[list[Tensor]]:
    """The four outputs of each row in `dtype`, which holds these numbers exactly: exact, rounded, alone, whole."""
    rows: list[list[Tensor]] = [[], [], [], []]
    count = math.prod(size)
    for name in names:
        exact = times * (draw.tokens(90, count) + 10) * (2 * draw.tokens(2, count) - 1)
        noise = (draw.tokens(9, count) + 1) * (2 * draw.tokens(2, count) - 1)
        limit, least = 2 * noise.flip(0), noise.flip(0).abs().argmin()
        if "nothing is rounded" in name:
            noise, limit = torch.zeros_like(noise), torch.zeros_like(limit)
        rows[0].append(exact)
        rows[1].append(exact + noise)
        for place, more in ((2, COUNTED[name][0]), (3, COUNTED[name][1])):
            error = limit.clone()
            error[least] += more * (1 if error[least] >= 0 else -1)
            rows[place].append(exact + error)
    return [[row.view(*size).to(dtype) for row in each] for each in rows]
