"""Gradients as a few numbers: the same gradient has the same ones, another has others, and rounding is forgiven."""

import math

import pytest
import torch
from torch import Tensor

from grader.calls import Call
from grader.checks.fingerprint import _directions, fingerprint, leaf_positions, weighted_sum
from grader.checks.judge.gradients import (
    RELATIVE,
    gradient_distance,
    gradient_finding,
    mistake_of_gradients,
    wrong_gradients,
)
from grader.checks.observation import Observation
from grader.recordings.answers import Answer, MistakeAnswer
from grader.recordings.tasks import Task, TaskCase
from grader.tolerance import BY_DTYPE


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


G, H = normal(6, 5), normal(4, seed=1)
RIGHT = fingerprint([G, H])


def test_a_fingerprint_is_a_size_and_six_products_for_each_gradient() -> None:
    assert RIGHT.shape == (2, 7) and RIGHT.dtype == torch.float32
    assert RIGHT[0, 0] == pytest.approx(G.square().mean().sqrt().item())
    assert fingerprint([None]).isnan().all()


def test_a_default_dtype_of_the_notebooks_own_changes_no_fingerprint() -> None:
    _directions.cache_clear()
    torch.set_default_dtype(torch.float64)
    try:
        found = fingerprint([G, H, None])
    finally:
        torch.set_default_dtype(torch.float32)
        _directions.cache_clear()
    assert found.dtype == torch.float32 and torch.equal(found[:2], RIGHT)


def test_the_same_gradients_are_right_whatever_rounding_does() -> None:
    assert wrong_gradients(RIGHT, RIGHT) == []
    assert wrong_gradients(fingerprint([G * (1 + 1e-6), H]), RIGHT) == []


@pytest.mark.parametrize(
    "other",
    [1.1 * G, -G, G.flip(0), torch.zeros_like(G), torch.cat([torch.zeros(1, 5), G[1:]]), None],
    ids=["scaled", "negative", "reversed", "zero", "one row cut off", "none"],
)
def test_another_gradient_is_wrong_and_the_one_beside_it_is_not(other: Tensor | None) -> None:
    assert wrong_gradients(fingerprint([other, H]), RIGHT) == [0]


def test_what_the_reference_has_no_gradient_for_is_not_compared() -> None:
    assert wrong_gradients(fingerprint([G, H]), fingerprint([G, None])) == []
    assert wrong_gradients(None, None) == []


def test_gradients_that_are_missing_altogether_are_all_wrong() -> None:
    assert wrong_gradients(None, RIGHT) == [0, 1]
    assert wrong_gradients(RIGHT[:1], RIGHT) == [0, 1]


def test_a_gradient_far_smaller_than_the_largest_is_rounding() -> None:
    want, got = fingerprint([G, 1e-9 * H]), fingerprint([G, 1e-9 * H.flip(0)])
    assert gradient_distance(got, want)[1] < RELATIVE
    assert math.isinf(gradient_distance(fingerprint([G, None]), RIGHT)[1])


def test_every_value_of_an_output_counts_in_its_own_way() -> None:
    x = normal(3, 4).requires_grad_()
    [gradient] = torch.autograd.grad(weighted_sum(x), [x])
    assert gradient.unique().numel() == x.numel()


def test_a_known_mistake_is_found_by_its_gradients_alone() -> None:
    cut = MistakeAnswer("the keys are cut off", "", (), gradients=(fingerprint([0 * G, H]),))
    assert mistake_of_gradients(fingerprint([0 * G, H]), 0, [cut]) is cut
    assert mistake_of_gradients(RIGHT, 0, [cut]) is None


def test_a_mistake_that_no_gradient_reaches_is_not_found_where_a_gradient_is_merely_wrong() -> None:
    unreached = MistakeAnswer("no gradient reaches the keys", "", (), gradients=(fingerprint([None, H]),))
    assert mistake_of_gradients(fingerprint([None, H]), 0, [unreached]) is unreached
    assert mistake_of_gradients(fingerprint([-G, H]), 0, [unreached]) is None
    assert mistake_of_gradients(fingerprint([None, None]), 0, [unreached]) is None


@pytest.mark.parametrize(("given", "looked_at"), [(2, (0,)), (4, (0, 2, 3))])
def test_the_arguments_that_an_exercise_names_are_looked_at_where_a_case_has_them(
    given: int, looked_at: tuple[int, ...]
) -> None:
    task = Task("toy.block", "Block", False, True, {}, (), gradients_of=(0, 2, 3))
    assert leaf_positions(task, [normal(2)] * given) == looked_at


# A composite of two parts, of which the first is not finished


def told(*wrong: str) -> tuple[str, ...]:
    """For whom a composite waits whose gradients of these weights are wrong, while its first part is unfinished."""
    weights = {"norm.weight": normal(4), "mlp.weight": normal(4), "own": normal(4)}
    case = TaskCase("a", {}, (), torch.float32, weights)
    task = Task("toy.block", "Block", False, True, {"norm": "toy.norm", "mlp": "toy.mlp"}, (case,))
    calls = tuple(Call(path, 0, "Part", normal(4), normal(4)) for path in ("norm", "mlp"))
    right = fingerprint(list(weights.values()))
    answer = Answer(
        "toy.block", 1, (), ({},), (normal(4),), (BY_DTYPE[torch.float32],), part_calls=(calls,), gradients=(right,)
    )
    seen = fingerprint([-gradient if name in wrong else gradient for name, gradient in weights.items()])
    finding = gradient_finding(task, answer, 0, Observation("a", gradients=seen), {"toy.norm"})
    assert finding is not None
    return finding.waits_for


def test_an_unfinished_part_is_blamed_for_its_own_gradients_and_not_for_those_behind_it() -> None:
    assert told("norm.weight") == ("toy.norm",)
    assert told("norm.weight", "own") == ("toy.norm",)
    assert told("norm.weight", "mlp.weight") == ()
