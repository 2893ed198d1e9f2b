"""What quantised caches alone must hold; tests/lessons/test_every_lesson.py asks the rest."""

import math
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import pytest
import torch

from grader.authoring.kit.solved import lesson_of

LESSON = lesson_of(__file__)
REFERENCE = LESSON.module("reference")
SOLVED = LESSON.solutions

# Max (1960), table I: the levels above 0 for N(0, 1), and the mean squared error.
MAX_1960 = {
    1: ([0.7980], 0.3634),
    2: ([0.4528, 1.510], 0.1175),
    3: ([0.2451, 0.7560, 1.344, 2.152], 0.03454),
    4: ([0.1284, 0.3881, 0.6568, 0.9424, 1.256, 1.618, 2.069, 2.733], 0.009497),
}


@pytest.mark.parametrize("bits", MAX_1960)
def test_the_references_levels_are_those_of_the_table_of_1960(bits: int) -> None:
    levels, error = MAX_1960[bits]
    found = torch.tensor(REFERENCE.levels(bits))
    torch.testing.assert_close(found[len(levels) :], torch.tensor(levels).double(), rtol=5e-4, atol=2e-4)
    assert REFERENCE.error(bits) == pytest.approx(error, rel=2e-3)


@pytest.mark.parametrize("bits", MAX_1960)
def test_the_references_levels_meet_both_of_lloyds_conditions(bits: int) -> None:
    """In closed form, where the reference integrates on a grid."""
    levels, normal = REFERENCE.levels(bits).tolist(), NormalDist()
    edges = [-math.inf, *((a + b) / 2 for a, b in pairwise(levels)), math.inf]
    means = [(normal.pdf(a) - normal.pdf(b)) / (normal.cdf(b) - normal.cdf(a)) for a, b in pairwise(edges)]
    assert levels == pytest.approx(means, rel=1e-5)


@pytest.mark.parametrize(("bits", "paper"), [(1, 0.36), (2, 0.117), (3, 0.03), (4, 0.009)])
def test_the_papers_errors_are_reproduced_on_vectors_of_any_kind(bits: int, paper: float) -> None:
    """Theorem 1 of arXiv 2504.19874 rounds: 0.03 stands for 0.0345, so the table of 1960 is what 2% are of."""
    x = torch.randn(1000, 512, generator=torch.Generator().manual_seed(0))
    x[:500, :3] *= 40  # three channels that stand out
    quantiser = SOLVED["TurboQuant"](512, bits)
    lost = (x - quantiser.decode(*quantiser.encode(x))).square().sum(dim=-1) / x.square().sum(dim=-1)
    error = MAX_1960[bits][1]
    assert lost[500:].mean().item() == pytest.approx(error, rel=0.02)
    assert lost.mean().item() == pytest.approx(error, rel=0.05)
    assert abs(error - paper) < 0.005


def test_the_inner_product_form_has_no_bias_and_the_papers_spread() -> None:
    """Theorem 2: 0.56 / d, 0.18 / d and 0.047 / d for 2, 3 and 4 bits, where 0.03 x pi / 2 = 0.047; exactly 0.0543."""
    generator = torch.Generator().manual_seed(2)
    x = torch.nn.functional.normalize(torch.randn(20_000, 128, generator=generator), dim=-1)
    y = torch.nn.functional.normalize(x + torch.randn(20_000, 128, generator=generator) / 128**0.5, dim=-1)
    for bits in (2, 3, 4):
        quantiser = SOLVED["TurboQuantProduct"](128, bits)
        off = ((quantiser.decode(*quantiser.encode(x)) - x) * y).sum(dim=-1)
        assert abs(off.mean().item()) < 5e-3
        spread = 128 * off.square().mean().item()
        assert 0.8 < spread / (math.pi / 2 * MAX_1960[bits - 1][1]) < 1.02  # the theorem is a bound


@pytest.mark.parametrize("name", ["PerToken", "PerChannel", "PerGroup", "Rotated", "Turbo", "TurboProduct"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_cache_holds_the_bytes_that_are_counted(name: str, bits: int) -> None:
    config = LESSON.config("smollm2-135m")
    codec = SOLVED[name](64, bits)
    rows = SOLVED["QuantisedRows"](codec)
    rows.append(torch.randn(1, config.num_key_value_heads, 96, 64))
    held = sum(tensor.nbytes for tensor in rows.coded)
    extras: dict[str, Any] = {
        "PerToken": 1,
        "PerChannel": 64 / 32,
        "PerGroup": 4,
        "Rotated": 1,
        "Turbo": 1,
        "TurboProduct": 2,
    }
    counted = SOLVED["quantised_bytes"](config.replace(num_hidden_layers=1), 96, bits, bits, extras[name])
    assert 2 * held == counted


@pytest.mark.parametrize("bits", [6, 8])
def test_with_more_bits_than_are_checked_the_codebook_is_still_good(bits: int) -> None:
    """The error of the best levels tends to sqrt(3) pi / 2 x 4^-bits (Panter and Dite, 1951)."""
    levels = SOLVED["lloyd_max"](bits, 1).double()
    points, weight = (torch.tensor(values) for values in REFERENCE.grid())
    nearest = levels[torch.bucketize(points, (levels[1:] + levels[:-1]) / 2)]
    error = float((weight * (points - nearest).square()).sum())
    assert error == pytest.approx(math.sqrt(3) * math.pi / 2 / 4**bits, rel=0.1)


def test_what_a_cache_returns_does_not_depend_on_the_chunks() -> None:
    x = torch.randn(1, 2, 70, 40, generator=torch.Generator().manual_seed(0))
    given = []
    for chunks in ([70], [1] * 70, [33, 1, 36]):
        rows = SOLVED["QuantisedRows"](SOLVED["PerChannel"](40, 4), 5)
        given.append([rows.append(piece) for piece in x.split(chunks, dim=2)][-1])
    assert all(torch.equal(other, given[0]) for other in given)
