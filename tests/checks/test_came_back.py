"""What a learner is told of results of another type than the exercise wants: the truth, in words that help."""

import dataclasses
import tempfile
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from recorded import recorded, recording_of
from torch import Tensor, nn

from grader.authoring.recorder import record_exercise
from grader.checks.examine import examine_here
from grader.checks.judge.axes import moved
from grader.checks.judge.diagnose import Context, describe
from grader.checks.judge.gradients import leaf_in_words
from grader.checks.judge.transcript import describe_transcript
from grader.checks.judge.variants import Right, with_variants
from grader.checks.judge.verdict import CaseVerdict, Finding
from grader.checks.judge.wording import report
from grader.checks.observation import LeftBehind, Observation, Problem, Varied
from grader.checks.probe import probe
from grader.checks.probe.left_behind import Following
from grader.lessons.exercise import Case, Exercise
from grader.recordings import variants as v
from grader.recordings.answers import MistakeAnswer
from grader.recordings.recording import Recording
from grader.recordings.tasks import Task, TaskCase
from grader.report import to_text
from grader.tolerance import BY_DTYPE, tolerance_for


def halves_of(half: Any, numbers: list[float]) -> list[float]:
    return [float(half(x)) for x in numbers]


def counts_of(half: Any, numbers: list[float]) -> list[int]:
    return list(map(int, [half(x) for x in numbers]))


def of_pair(half: Any, numbers: list[float]) -> Tensor:
    low, high = half(numbers)
    if not isinstance(low, float):
        raise TypeError("half returned something else; two floats belong there")
    return torch.tensor([low, high])


@cache
def driven(drive: Callable[..., Any]) -> Recording:
    given = {halves_of: [1.0, 2.0, 4.0], counts_of: [1, 2, 4], of_pair: torch.tensor([2.0, 8.0])}[drive]
    case = Case("three numbers", lambda draw: [[2.0, 4.0, 8.0]])
    return recorded(Exercise("toy.half", "half", lambda numbers: given, [case], function=True, drive=drive))


def told(recording: Recording, program: Any) -> str:
    (name,) = recording.exercises
    return to_text(report(examine_here(recording, name, program)))


@pytest.mark.parametrize("drive", [halves_of, counts_of])
def test_a_text_is_no_number_though_python_reads_one(drive: Callable[..., Any]) -> None:
    assert "1 of 1 cases right" in told(driven(drive), lambda x: x / 2)
    assert "It gave a str where a number belongs." in told(driven(drive), lambda x: str(int(x / 2)))


@pytest.mark.parametrize("made", [np.float64, np.float32, lambda x: torch.tensor(x), lambda x: np.array(x)])
def test_a_number_of_another_library_is_a_number(made: Callable[[float], Any]) -> None:
    assert "1 of 1 cases right" in told(driven(halves_of), lambda x: made(x / 2))


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (lambda x: print(end=""), "It gave None where a number belongs; does it end with `return`?"),
        (lambda x: [x / 2], "It gave a list where a number belongs."),
        (lambda x: torch.ones(2, 3), "It gave a tensor of shape [2, 3] where one number belongs."),
        (lambda x: np.ones(2), "It gave a NumPy array where a number belongs."),
    ],
)
def test_the_checks_own_conversion_is_not_told_as_the_programs_error(program: Any, said: str) -> None:
    text = told(driven(halves_of), program)
    assert said in text and "raised" not in text and "float()" not in text


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (lambda x: print(end=""), "It gave None where a value belongs; does every function end with `return`?"),
        (lambda x: (1.0, 2.0, 3.0), "The check can't use what came back: ValueError: too many values to unpack"),
        (lambda x: ("1", 2), "The check can't go on: half returned something else; two floats belong there."),
        (lambda: 1.0, "It raised TypeError:"),
        (lambda x: {}["lost"], "It raised KeyError: lost"),
    ],
)
def test_what_a_drive_can_not_use_is_told_apart_from_what_the_program_raises(program: Any, said: str) -> None:
    assert said in told(driven(of_pair), program)


def test_a_number_of_numpys_is_called_one() -> None:
    seven = recorded(Exercise("toy.f", "f", lambda: 7, [Case("no input", lambda draw: [])], function=True))
    assert "It returned a NumPy int64, where a number of Python's own, as `.item()` gives it" in told(
        seven, lambda: np.int64(7)
    )


def described(got: Tensor, want: Tensor, given: Tensor | None = None) -> str | None:
    return describe(got, want, Context(input=given, tolerance=tolerance_for(want.dtype)))


def test_a_tensor_in_place_of_a_python_float_is_told_so_and_not_sent_to_float64() -> None:
    third, tenths = torch.tensor(1 / 3, dtype=torch.float64), torch.tensor([0.1, 0.2], dtype=torch.float64)
    told = "it is a tensor of float32 where a Python float belongs, and its value is right as far as float32 goes:"
    assert described(third.float(), third) == f"{told} `.item()` makes it one"
    assert "where Python floats belong" in str(described(tenths.float(), tenths))
    assert described(torch.tensor(3), third) == "it is a whole number where a Python float belongs"
    assert "float64" in str(described(third.float(), third, given=third))  # there a tensor of float64 belongs


def test_a_number_in_a_list_is_called_that() -> None:
    assert described(torch.tensor([7]), torch.tensor(7)) == (
        "it is one number in a list or a tensor, and the number itself belongs there"
    )


def test_what_was_computed_in_float32_is_told_so() -> None:
    want = torch.tensor([0.1, 0.7, 1e-9], dtype=torch.float64)
    assert "was it computed in float32?" in str(described(want.float().double(), want))
    assert "float32" not in str(described(want * 1.001, want))


def test_a_yes_or_no_has_no_percentage() -> None:
    assert described(torch.tensor(0), torch.tensor(1)) == "it is 0, and should be 1"


def test_a_single_number_is_not_every_value() -> None:
    assert described(torch.tensor([1.00001]), torch.tensor([1.0])) is None


def test_a_shift_or_another_order_of_values_that_are_nearly_all_the_same_is_chance() -> None:
    flat, rising = torch.tensor([0.5, 1.0, 1.0, 1.0, 1.0]), torch.tensor([0.25, 0.5, 0.75, 1.0, 1.0])
    assert moved(torch.ones(5), flat, ["T"]) is None
    assert (
        moved(torch.tensor([0.5, 0.75, 1.0, 1.0, 1.0]), rising, [""]) == "every value is what belongs one place later"
    )
    ones = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0, 1.0])
    assert "order" not in str(described(ones.roll(2), ones))


def test_a_name_that_a_few_numbers_of_one_case_support_is_told_with_reserve() -> None:
    cases = [Case("2 and 3", lambda draw: [2, 3]), Case("2 and 2", lambda draw: [2, 2])]
    exercise = Exercise("toy.sum", "add", lambda a, b: a + b, cases, function=True)
    task, answer = record_exercise("toy", exercise)
    product = MistakeAnswer("they are multiplied", "", (torch.tensor(6), torch.tensor(4)))
    recording = recording_of(task, dataclasses.replace(answer, mistakes=(product,)))
    text = told(recording, lambda a, b: a + b + (a != b))
    assert "when they are multiplied. So few numbers can have another cause, too." in text


def test_a_sparse_gradient_is_as_good_as_a_dense_one() -> None:
    case = Case("ids", lambda draw: [draw.tokens(9, 2, 5)], {"vocabulary": 9})
    embedding = recorded(Exercise("toy.embed", "Embed", lambda vocabulary: nn.Embedding(vocabulary, 4), [case]))

    class Sparse(nn.Embedding):
        def __init__(self, vocabulary: int) -> None:
            super().__init__(vocabulary, 4, sparse=True)

    assert examine_here(embedding, "toy.embed", Sparse).right


def test_a_module_that_stops_in_its_second_run_is_not_told_of_gradients() -> None:
    cases = [
        Case("5 tokens", lambda draw: [draw.normal(2, 5, 4)], {"dim": 4}),
        Case("3 tokens", lambda draw: [draw.normal(2, 3, 4)], {"dim": 4}),
    ]
    linear = recorded(Exercise("toy.linear", "Linear", lambda dim: nn.Linear(dim, dim), cases))

    class Keeps(nn.Linear):
        def __init__(self, dim: int) -> None:
            super().__init__(dim, dim)

        def forward(self, x: Tensor) -> Tensor:
            self.kept = self.__dict__.get("kept", torch.zeros(x.shape[1], 1))
            return super().forward(x) + self.kept

    text = told(linear, Keeps)
    assert "a second run, after other inputs, gives none: it raised RuntimeError" in text
    assert "no gradient" not in text


@pytest.mark.parametrize(("name", "words"), [("input", "the input"), ("argument 2", "argument 2"), ("w.a", "`w.a`")])
def test_an_argument_without_a_name_is_not_written_as_code(name: str, words: str) -> None:
    assert leaf_in_words(name) == words


# Variants


def said_of(variant: v.Variant, varied: Varied, want: Tensor) -> Finding:
    case = TaskCase("a case", {}, (), torch.float32, {}, "", (variant,))
    verdict = CaseVerdict("a case", True)
    seen = Observation("a case", output=want, varied=(varied,))
    finding = with_variants(verdict, case, seen, Right(want, BY_DTYPE[torch.float32])).finding
    assert finding is not None
    return finding


def test_zeros_of_another_dtype_are_zeros() -> None:
    found = said_of(v.Zeros(0), Varied(torch.zeros(3, dtype=torch.int64)), torch.ones(3))
    assert found.what == (
        "the output is right, but with an input of zeros the dtype is another: it is int64, and should be float32"
    )


def test_a_longer_text_that_is_refused_is_not_told_as_another_result() -> None:
    stopped = Varied(problem=Problem("exception", "it raised RuntimeError: too short"))
    found = said_of(v.SameLength((), "9 tokens"), stopped, torch.ones(3))
    assert "with as many tokens as in the case “9 tokens” there is none: it raised" in found.what
    assert "kept under the number" not in found.hint


def test_what_only_a_used_module_raises_is_told_with_what_it_raised() -> None:
    stopped = Varied(problem=Problem("exception", "it raised RuntimeError: too short"), alone=torch.ones(3))
    found = said_of(v.Strided(), stopped, torch.ones(3))
    assert "no longer so once" in found.what and found.what.endswith("it raised RuntimeError: too short")


def test_a_function_that_spoils_the_case_itself_is_not_told_of_memory_layout() -> None:
    found = said_of(v.Strided(), Varied(torch.zeros(3), itself="it is another"), torch.ones(3))
    assert "memory" not in found.what and "the same case is run again" in found.what


def test_the_device_of_a_tensor_that_was_left_behind_is_no_way_out() -> None:
    x = torch.ones(2, 6)
    with Following():
        positions = torch.arange(6)
        table = torch.ones(6, device=positions.device) * positions  # both are on the CPU
        with pytest.raises(LeftBehind):
            _ = x * table
        assert (x * torch.ones(6, device=x.device)).sum() == 12


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "hub_tensors returned a dict; a dict of tensors belongs there",
            "returned a dict of something else; a dict of",
        ),
        ("the rule returned a tuple; two tensors belong there", "returned a tuple of something else; two tensors"),
        ("the rule returned a NoneType; two tensors belong there", "the rule returned None; two tensors belong there"),
    ],
)
def test_a_container_that_is_right_is_not_named_where_its_contents_are_meant(said: str, told: str) -> None:
    source = f"def refuse(half, numbers):\n    raise TypeError({said!r})\n"
    cases = (TaskCase("a case", {}, ([1.0],), torch.float32, {}),)
    task = Task("toy.half", "half", True, False, {}, cases, source)
    (seen,) = probe(task, lambda numbers: 0.0, outputs_only=True)
    assert seen.problem is not None and told in seen.problem.message


def test_a_transcript_that_is_another_in_every_run_shows_its_event_and_no_folder_of_this_machine() -> None:
    def of(text: str) -> Tensor:
        return torch.tensor(list(text.encode()), dtype=torch.uint8)

    folder = f"{tempfile.gettempdir()}/abc/in.md"
    assert describe_transcript(of(f'["cat", "{folder}"]'), of('["cat", "in.md"]')) == (
        'event 1 of 1 differs: yours is `["cat", ".../in.md"]`, and `["cat", "in.md"]` belongs there'
    )
