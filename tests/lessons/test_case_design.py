"""Cases between which nothing can be hard-coded: numbers vary, hidden answers are new, what is measured waits."""

from typing import Any

import pytest
import torch
from torch import Tensor

from grader.authoring.case_design import numbers_of, require_secret, require_varied
from grader.checks.judge.counting import HELD_BACK, counts, hold_back_counts
from grader.checks.judge.verdict import CaseVerdict, Finding
from grader.errors import RecordingError
from grader.lessons.exercise import Exercise
from grader.recordings.answers import Answer
from grader.recordings.tasks import Task, TaskCase
from grader.recordings.toy_lm import ToyLM
from grader.tolerance import BY_DTYPE


def case(name: str, *args: Any, drive: str = "", **build: Any) -> TaskCase:
    return TaskCase(name, build=build, args=args, dtype=torch.float32, weights={}, drive=drive)


def exercise(**fixed: str) -> Exercise:
    return Exercise("toy.double", "double", lambda x: 2 * x, cases=[], function=True, fixed=fixed)


def answer(*outputs: Tensor) -> Answer:
    tolerances = tuple(BY_DTYPE[torch.float32] for _ in outputs)
    return Answer("toy.double", 2, (), ({},) * len(outputs), outputs, tolerances)


# Numbers


def test_numbers_are_found_in_configs_lists_models_and_shapes() -> None:
    found = dict(
        numbers_of(
            case("a", torch.zeros(2, 5), 7, True, "word", ToyLM(11, 13), [3, 4], config={"heads": 6, "name": "x"})
        )
    )
    assert found == {
        "config.heads": 6,
        "argument 1, axis 0": 2,
        "argument 1, axis 1": 5,
        "argument 2": 7,
        "argument 5.vocab_size": 11,
        "argument 5.n_positions": 13,
        "argument 5.n_ctx": 6,
        "argument 5.dim": 8,
        "argument 6": [3, 4],
    }


def test_a_number_that_never_varies_is_refused_by_name() -> None:
    with pytest.raises(RecordingError, match=r"toy\.double: config\.heads is 6 in each of the 2 cases"):
        require_varied(exercise(), [case("a", 1, config={"heads": 6}), case("b", 2, config={"heads": 6})])


def test_a_number_that_varies_between_two_of_three_cases_is_enough() -> None:
    require_varied(exercise(), [case("a", 1), case("b", 1), case("c", 2)])


def test_a_number_of_a_single_case_is_not_asked_to_vary() -> None:
    require_varied(exercise(), [case("a", 1, config={"rare": 3}), case("b", 2)])


def test_fixed_says_why_a_number_stays_and_may_not_be_out_of_date() -> None:
    same = [case("a", 1), case("b", 1)]
    require_varied(exercise(**{"argument 1": "one text"}), same)
    with pytest.raises(RecordingError, match=r"which varies\. Take it out"):
        require_varied(exercise(**{"argument 1": "one text"}), [case("a", 1), case("b", 2)])
    with pytest.raises(RecordingError, match="`fixed` has argument 2, which no case has"):
        require_varied(exercise(**{"argument 1": "one text", "argument 2": "gone"}), same)


def test_a_hidden_answer_that_was_released_is_refused() -> None:
    released = answer(torch.tensor([1, 2]), torch.tensor([3.0]))
    require_secret("toy.double, case 'a'", torch.tensor([1, 3]), released)
    require_secret("toy.double, case 'a'", torch.tensor([1.0, 2.0]), released)  # of another dtype
    with pytest.raises(RecordingError, match="case 'a': the hidden answer is one that the released recording has"):
        require_secret("toy.double, case 'a'", torch.tensor([1, 2]), released)


# What is measured

VALUES, COUNT = torch.tensor([1.0, 2.0]), torch.tensor([7])


def held(*right: bool) -> list[CaseVerdict]:
    """The verdicts on a case that shows values and one that counts, once they have been looked at together."""
    cases = (case("values"), case("how many rows", drive="rows"))
    task = Task("toy.double", "double", True, True, {}, cases, "", (), ())
    verdicts = [
        CaseVerdict(one.name, ok, finding=None if ok else Finding("wrong"))
        for one, ok in zip(cases, right, strict=True)
    ]
    return hold_back_counts(task, answer(VALUES, COUNT), verdicts)


def test_a_case_measures_if_it_is_driven_otherwise_and_gives_whole_numbers() -> None:
    assert counts(case("a", drive="rows"), "", COUNT)
    assert not counts(case("a", drive="rows"), "", VALUES)
    assert not counts(case("a"), "", COUNT)


def test_a_count_earns_nothing_beside_wrong_values_and_all_beside_right_ones() -> None:
    values, count = held(False, True)
    assert not count.earned and count.finding == HELD_BACK
    assert values.finding == Finding("wrong")
    assert [one.earned for one in held(True, True)] == [True, True]
    assert [one.earned for one in held(True, False)] == [True, False]
