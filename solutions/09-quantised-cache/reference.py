"""What is right in 09-quantised-cache: the formulas in float64, every code found by trying all of them.

transformers has none of this. test_quantised_cache.py holds the levels, the errors and the bias to published tables and
to a second computation.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from grader.authoring.kit import Draw, clear
from grader.authoring.kit.configs import Config

SPAN, STEP = 9.0, 1e-4  # the grid on which N(0, 1) is integrated


# Round to nearest


def nearest(values: Tensor, levels: Tensor) -> Tensor:
    """Which of the levels [..., n] is nearest to each value [...], the levels on a last axis of their own."""
    return (values[..., None] - levels).abs().argmin(dim=-1)


def right_symmetric(x: Tensor, bits: int, dim: int | list[int]) -> Tensor:
    """The codes, what they stand for, and the scale of each: [3, ...]."""
    x, most = x.double(), 2 ** (bits - 1) - 1
    scale = x.abs().amax(dim=dim, keepdim=True).float().double() / most
    codes = nearest(x, torch.arange(-most, most + 1) * scale[..., None]) - most
    codes = codes.where(scale.expand_as(x) > 0, 0)
    return torch.stack([codes, codes * scale, scale.expand_as(codes)]).float()


def right_groups(x: Tensor, bits: int, group: int) -> Tensor:
    """The codes, and what they stand for: [2, ..., head_dim]."""
    pieces, most = x.double().unflatten(-1, (-1, group)), 2**bits - 1
    low, high = pieces.amin(dim=-1, keepdim=True), pieces.amax(dim=-1, keepdim=True)
    scale = (high - low) / most
    codes = nearest(pieces, low[..., None] + torch.arange(most + 1) * scale[..., None])
    codes = codes.where(scale > 0, 0)
    return torch.stack([codes, low + codes * scale]).flatten(-2).float()


def near_codes(draw: Draw, shape: Sequence[int], bits: int, dim: int | list[int], scale: float = 1.0) -> Tensor:
    """x [shape] of which each number is clearly nearest to one code, for symmetric rounding along dim."""
    most = 2 ** (bits - 1) - 1
    codes = torch.randint(-most, most + 1, tuple(shape), generator=draw.generator) + jitter(draw, shape)
    codes = codes.clamp(-most, most)
    largest = codes.abs() == codes.abs().amax(dim=dim, keepdim=True)
    codes = torch.where(largest, most * codes.sign(), codes)
    sizes = codes.amax(dim=dim, keepdim=True).shape
    return codes * (0.3 + draw.normal(*sizes).abs()) * scale


def near_group_codes(draw: Draw, shape: Sequence[int], bits: int, group: int, scale: float = 1.0) -> Tensor:
    """x [shape] of which each number is clearly nearest to one code, for groups along the last axis."""
    most = 2**bits - 1
    pieces = (*shape[:-1], shape[-1] // group, group)
    codes = torch.randint(0, most + 1, pieces, generator=draw.generator) + jitter(draw, pieces)
    codes = codes.clamp(0, most)
    codes = torch.where(codes == codes.amin(dim=-1, keepdim=True), 0.0, codes)
    codes = torch.where(codes == codes.amax(dim=-1, keepdim=True), float(most), codes)
    sizes = (*pieces[:-1], 1)
    return ((codes * (0.3 + draw.normal(*sizes).abs()) + draw.normal(*sizes, scale=3.0)) * scale).flatten(-2)


def close_group_codes(draw: Draw, shape: Sequence[int], bits: int, group: int, scale: float = 1.0) -> Tensor:
    """x [shape] of numbers from 1,000 on that float32 holds exactly, a step of the codes being 1.6 times its smallest."""
    most = 2**bits - 1
    pieces = (*shape[:-1], shape[-1] // group, group)
    codes = torch.randint(0, most + 1, pieces, generator=draw.generator)
    codes[..., 0], codes[..., -1] = most, 0
    low = torch.randint(0, 100, (*pieces[:-1], 1), generator=draw.generator)
    return (1000 + (low + (1.6 * codes).round()) / 2**14).flatten(-2) * scale


def jitter(draw: Draw, shape: Sequence[int]) -> Tensor:
    """Numbers between -0.4 and 0.4: what is rounded away, and is clear of a half."""
    return 0.8 * torch.rand(tuple(shape), generator=draw.generator) - 0.4


# Bits


def right_packed(codes: Tensor, bits: int) -> Tensor:
    """The bytes of each row as one whole number has them, the lowest first."""
    rows = codes.reshape(-1, codes.shape[-1]).tolist()
    size = math.ceil(codes.shape[-1] * bits / 8)
    packed = [list(sum(code << i * bits for i, code in enumerate(row)).to_bytes(size, "little")) for row in rows]
    return torch.tensor(packed).view(*codes.shape[:-1], size)


# The codebook


@lru_cache(maxsize=16)
def levels(bits: int) -> Any:
    """The best 2^bits levels for N(0, 1), by Lloyd's iteration on a grid: a numpy array of float64."""
    points, weight = grid()
    cells = np.append(points, points[-1] + STEP) - STEP / 2  # where the cell around each point begins
    sums = [np.append(0.0, values.cumsum()) for values in (weight, weight * points)]
    found = np.linspace(-2.5, 2.5, 2**bits)
    for _ in range(10_000):
        edges = [-SPAN, *(found[1:] + found[:-1]) / 2, SPAN]
        share, moment = (np.diff(np.interp(edges, cells, values)) for values in sums)
        found = moment / share
    return found


def grid() -> tuple[Any, Any]:
    """Points, and N(0, 1)'s weight of the cell around each."""
    points = np.arange(-SPAN, SPAN + STEP / 2, STEP)
    weight = np.exp(-(points**2) / 2)
    return points, weight / weight.sum()


def error(bits: int) -> float:
    """The mean squared error of those levels, for N(0, 1)."""
    points, weight = grid()
    found = levels(bits)
    nearest_level = found[np.searchsorted((found[1:] + found[:-1]) / 2, points)]
    return float((weight * (points - nearest_level) ** 2).sum())


def right_codebook(bits: int, dim: int) -> Tensor:
    return torch.tensor(levels(bits) / math.sqrt(dim)).float()


def right_product_mean(bits: int, dim: int, count: int) -> float:
    """A level is the mean of what it stands for, so <x, x'> and <x', x'> are the same on average: 1 - the error."""
    return dim * (1.0 - error(bits))


# TurboQuant


class RightTurboQuant(nn.Module):
    """The buffers of both forms; for the inner-product form one bit less in the codebook."""

    def __init__(self, head_dim: int, bits: int) -> None:
        super().__init__()
        self.register_buffer("rotation", rotation_of(head_dim).clone())
        self.register_buffer("codebook", right_codebook(bits, head_dim))


class RightProduct(RightTurboQuant):
    def __init__(self, head_dim: int, bits: int) -> None:
        super().__init__(head_dim, bits - 1)
        self.register_buffer("projection", projection_of(head_dim).clone())


@lru_cache(maxsize=64)
def rotation_of(dim: int) -> Tensor:
    """The same for every case of this width, so that inputs can be drawn for it. Not symmetric: [dim, dim]."""
    return torch.tensor(np.linalg.qr(Draw("rotation", str(dim)).normal(dim, dim).double().numpy()).Q).float()


@lru_cache(maxsize=64)
def projection_of(dim: int) -> Tensor:
    return Draw("projection", str(dim)).normal(dim, dim)


def keep(module: nn.Module, draw: Draw) -> None:
    """The buffers are what the reference is built with."""


def mse_form(module: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, norm and what they stand for, in float64."""
    x, rotation, codebook = x.double(), module.rotation.double(), module.codebook.double()
    norm = x.square().sum(dim=-1, keepdim=True).sqrt()
    turned = torch.einsum("ij,...j->...i", rotation, x / norm.where(norm > 0, 1.0))
    codes = nearest(turned, codebook).where(norm > 0, 0)
    return codes, norm, torch.einsum("ij,...i->...j", rotation, codebook[codes]) * norm


def right_turboquant(module: Any, x: Tensor) -> Tensor:
    """What decode gives, the codes and the norm, side by side: [..., 2 head_dim + 1]."""
    codes, norm, back = mse_form(module, x)
    return torch.cat([back, codes, norm], dim=-1).float()


def right_product(module: Any, x: Tensor) -> Tensor:
    """What decode gives, the codes, the signs, the norm and the length, side by side: [..., 3 head_dim + 2]."""
    codes, norm, back = mse_form(module, x)
    rest, projection = x.double() - back, module.projection.double()
    length = rest.square().sum(dim=-1, keepdim=True).sqrt()
    signs = torch.einsum("ij,...j->...i", projection, rest) > 0
    guess = torch.einsum("ij,...i->...j", projection, torch.where(signs, 1.0, -1.0).double())
    back = back + math.sqrt(math.pi / 2) / x.shape[-1] * length * guess
    return torch.cat([back, codes, signs, norm, length], dim=-1).float()


def clear_vectors(draw: Draw, shape: Sequence[int], bits: int, scale: float = 1.0, product: bool = False) -> Tensor:
    """Vectors [*shape] that bfloat16 can hold, no number of which is near a boundary of the codebook, or near a sign."""
    dim = shape[-1]
    module = RightProduct(dim, bits) if product else RightTurboQuant(dim, bits)
    edges = (module.codebook[1:] + module.codebook[:-1]).double() / 2
    by = 1e-3 / math.sqrt(dim)

    def is_clear(x: Tensor) -> bool:
        turned = (x.double() / x.double().norm()) @ module.rotation.double().T
        gaps = (turned[..., None] - edges).abs().min()
        if product:
            rest = x.double() - mse_form(module, x)[2]
            gaps = torch.minimum(gaps, (rest / rest.norm() @ module.projection.double().T).abs().min() / math.sqrt(dim))
        return float(gaps) > by

    count = math.prod(shape[:-1])
    return clear.clear(lambda: draw.normal(1, dim, scale=scale).bfloat16().float(), is_clear, count).view(*shape)


# The cache


def states(x: Tensor, chunks: Sequence[int], recent: int, block: int) -> list[Tensor]:
    """All tokens after each append, the older ones halved and averaged over their blocks: what the drive's codec does."""
    given, length = [], 0
    for chunk in chunks:
        length += chunk
        coded = max(0, length - recent) // block
        old = x[:, :, : coded * block].float().unflatten(2, (coded, block)).mean(dim=3, keepdim=True) / 2
        parts = [old.expand(-1, -1, -1, block, -1).flatten(2, 3).to(x.dtype), x[:, :, coded * block : length]]
        given.append(torch.cat(parts, dim=2))
    return given


def right_rows(x: Tensor, chunks: Sequence[int], recent: int, block: int) -> Tensor:
    """What every append returns, one behind the other."""
    return torch.cat(states(x, chunks, recent, block), dim=2)


# Bytes


def right_bytes(
    config: Config, context: int, key_bits: float, value_bits: float, extras: int = 1, recent: int = 0
) -> int:
    """Counted token by token, and a vector's bytes as a string of bits is cut into them."""
    width = config.get("head_dim") or config.hidden_size // config.num_attention_heads
    total = 0
    for token in range(context):
        if token >= context - recent:
            total += 4 * width
            continue
        for bits in (key_bits, value_bits):
            total += len(range(0, math.ceil(width * bits), 8)) + 2 * extras
    return int(total * config.num_hidden_layers * config.num_key_value_heads)
