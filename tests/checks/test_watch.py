"""What a call leaves alone: the arguments that a drive hands over, what came back before, and what the process has."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from recorded import recorded_with_variants
from torch import Tensor, nn

from grader.checks.examine import examine_here
from grader.checks.judge.wording import report
from grader.lessons.exercise import Case, Exercise
from grader.recordings.recording import Recording
from grader.report import to_text


def sums(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Of a tensor of the drive's own, so that the case's argument tells nothing."""
    return function(x.clone() + 1)


def double(x: Tensor) -> Tensor:
    return 2 * x


class Store:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.kept: list[Tensor] = []

    def add(self, numbers: list[Any]) -> Tensor:
        self.kept += numbers
        return torch.stack(self.kept).sum(dim=0)


def stored(kind: type[Store], x: Tensor) -> Tensor:
    """What a store gives for one list, and then for another."""
    store = kind()
    store.add([x, x + 1])
    return store.add([x])


def exercise(name: str, solution: Any, drive: Any) -> Exercise:
    cases = [Case(f"{n} numbers", lambda draw, n=n: [draw.normal(n)]) for n in (5, 3)]  # type: ignore[misc]
    right = partial(drive, solution)
    return Exercise(f"toy.{name}", name, right, cases, function=True, differentiable=False, drive=drive)


@pytest.fixture(scope="module")
def of_double() -> Recording:
    return recorded_with_variants(exercise("double", double, sums), double)


@pytest.fixture(scope="module")
def of_store() -> Recording:
    return recorded_with_variants(exercise("Store", Store, stored), Store)


def told(recording: Recording, target: Any) -> str:
    (name,) = recording.exercises
    return to_text(report(examine_here(recording, name, target)))


def test_right_ones_are_accepted(of_double: Recording, of_store: Recording) -> None:
    assert examine_here(of_double, "toy.double", double).right
    assert examine_here(of_store, "toy.Store", Store).right


def test_an_argument_that_the_drive_made_is_left_alone(of_double: Recording) -> None:
    def in_place(x: Tensor) -> Tensor:
        x *= 2
        return x.clone()

    assert "the input `x` was modified in place" in told(of_double, in_place)


def test_what_came_back_earlier_stays_as_it_was(of_double: Recording) -> None:
    kept: dict[Any, Tensor] = {}

    def in_one_memory(x: Tensor) -> Tensor:
        return kept.setdefault(x.shape, torch.empty_like(x)).copy_(2 * x)

    assert "what an earlier call returned is another afterwards" in told(of_double, in_one_memory)


def test_a_seed_is_told(of_double: Recording) -> None:
    def seeds(x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return 2 * x

    assert "the seed of torch's random numbers is another afterwards" in told(of_double, seeds)


def test_a_seed_that_is_put_back_is_right(of_double: Recording) -> None:
    def forks(x: Tensor) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            torch.randn(2)
        return 2 * x

    assert examine_here(of_double, "toy.double", forks).right
    assert torch.manual_seed.__module__ == "torch.random"


def test_the_folder_is_put_back_and_told(of_double: Recording, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "below").mkdir()

    def goes(x: Tensor) -> Tensor:
        os.chdir(tmp_path / "below")
        return 2 * x

    assert "the current folder is another afterwards" in told(of_double, goes)
    assert Path.cwd() == tmp_path


def test_a_generator_s_code_is_watched_while_it_is_read() -> None:
    def counted(function: Callable[[int], Iterator[int]], x: Tensor) -> list[int]:
        return list(function(len(x)))

    def counts(n: int) -> Iterator[int]:
        yield from range(n)

    def seeds(n: int) -> Iterator[int]:
        for i in range(n):
            torch.manual_seed(i)
            yield i

    recording = recorded_with_variants(exercise("counts", counts, counted), counts)
    assert examine_here(recording, "toy.counts", counts).right
    assert "the seed of torch's random numbers" in told(recording, seeds)


def test_each_iterator_has_a_state_of_its_own() -> None:
    def counts(x: Tensor) -> Iterator[int]:
        yield from range(len(x))

    kept: list[int] = []

    def counts_in_one_list(x: Tensor) -> Iterator[int]:
        kept[:] = range(len(x))
        while kept:
            yield kept.pop(0)

    cases = [Case(f"{n} numbers", lambda draw, n=n: [draw.normal(n)]) for n in (5, 3)]  # type: ignore[misc]
    recording = recorded_with_variants(
        Exercise("toy.counts", "counts", counts, cases, function=True, differentiable=False), counts
    )
    assert examine_here(recording, "toy.counts", counts).right
    assert "another output in a second run" in told(recording, counts_in_one_list)


def test_a_weight_stays_as_it_is_in_training_mode() -> None:
    class Scale(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(size))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.weight

    class Moves(Scale):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            if self.training:
                with torch.no_grad():
                    self.weight.add_(0.001)
            return y

    cases = [Case(f"{n} numbers", lambda draw, n=n: [draw.normal(2, n)], {"size": n}) for n in (5, 3)]  # type: ignore[misc]
    recording = recorded_with_variants(Exercise("toy.scale", "Scale", Scale, cases), Scale)
    assert examine_here(recording, "toy.scale", Scale).right
    assert "the weight `weight` was modified in place" in told(recording, Moves)


def test_a_list_that_a_method_is_given_is_left_alone(of_store: Recording) -> None:
    class Takes(Store):
        def add(self, numbers: list[Any]) -> Tensor:
            while numbers:
                self.kept.append(numbers.pop())
            return torch.stack(self.kept).sum(dim=0)

    add = Takes.add
    assert "the input `numbers` of `add` was modified in place" in told(of_store, Takes)
    assert Takes.add is add  # the class is as it was


def test_what_methods_do_among_themselves_is_their_own(of_store: Recording) -> None:
    class Through(Store):
        def add(self, numbers: list[Any]) -> Tensor:
            self.take(list(numbers))
            return torch.stack(self.kept).sum(dim=0)

        def take(self, numbers: list[Any]) -> None:
            while numbers:
                self.kept.append(numbers.pop(0))

    assert examine_here(of_store, "toy.Store", Through).right
