"""Drives: what travels in a recording is whole, a case may have its own, and the shared pieces do what they say."""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from grader.authoring import drives
from grader.authoring.drive_sources import source_of
from grader.authoring.drives.caches import fill
from grader.authoring.drives.generation import CachedToy
from grader.authoring.drives.rows import Rows, append_rows_or_refuse
from grader.authoring.drives.use import MultiplyAdds, after_another_text, in_chunks, in_turns, memory_behind
from grader.authoring.kit.toy import random_toy_lm
from grader.authoring.recorder import record_exercise
from grader.checks.judge import judge
from grader.checks.probe import probe
from grader.errors import RecordingError
from grader.lessons.exercise import Case, Exercise
from grader.lessons.lesson import lessons
from grader.recordings.codec import Encoder
from grader.recordings.recording import Recording
from grader.recordings.tasks import Task

ROOT = Path(__file__).resolve().parents[2]
LESSONS = lessons(ROOT)
NOT_A_PIECE = 3


def doubled(x: Tensor) -> Tensor:
    """A piece of this file."""
    return x + x


def doubled_then_used(function: Any, x: Tensor) -> Any:
    """A drive that uses a piece."""
    return function(doubled(x))


def length_of(function: Any, x: Tensor) -> list[int]:
    """What another drive looks at."""
    cache = Rows()
    cache.append(x[None, :, None])
    return [cache.length, len(function(x))]


def needs_a_number(function: Any, x: Tensor) -> Any:
    return function(x) * NOT_A_PIECE


def used(function: Any, x: Tensor) -> Any:
    return function(x)


def test_a_drives_source_has_its_pieces_in_front_and_no_docstrings() -> None:
    source = source_of([doubled_then_used, length_of, doubled_then_used])
    starts = [line for line in source.splitlines() if line.startswith(("def ", "class "))]
    assert [line.split("(")[0].rstrip(":") for line in starts] == [
        "def doubled",
        "def doubled_then_used",
        "class Rows",
        "def length_of",
    ]
    assert '"""' not in source
    namespace: dict[str, Any] = {"torch": torch, "nn": nn, "Tensor": Tensor, "Any": Any}
    exec(source, namespace)
    assert namespace["length_of"](lambda x: x, torch.zeros(4)) == [4, 4]


def test_a_drive_that_uses_what_does_not_travel_is_refused() -> None:
    with pytest.raises(RecordingError, match="needs_a_number uses `NOT_A_PIECE`, which does not travel"):
        source_of([needs_a_number])


def test_a_drive_must_be_a_plain_function() -> None:
    with pytest.raises(RecordingError, match="must each be a plain def or class"):
        source_of([lambda function, x: function(x)])


def test_two_pieces_of_one_name_are_refused() -> None:
    def used(function: Any, x: Tensor) -> Any:
        return function(x + 1)

    with pytest.raises(RecordingError, match="Two pieces of the exercise's drives are named used"):
        source_of([used, globals()["used"]])


def draw_vector(draw: Any) -> Sequence[Any]:
    return [draw.normal(5)]


EXERCISE = Exercise(
    name="toy.plus_one",
    solution="plus_one",
    reference=lambda x: x + x + 1,
    function=True,
    drive=doubled_then_used,
    cases=[
        Case("doubled", draw_vector),
        Case("lengths", draw_vector, drive=length_of, right=lambda x: [len(x), len(x)]),
    ],
)


def sent(task: Task) -> Task:
    """The task as it arrives from a file or a message."""
    encoder = Encoder()
    return Recording({"exercises": {task.exercise: encoder.encode(task)}}, encoder.tensors).task(task.exercise)


def test_a_case_may_be_used_otherwise_than_the_rest_and_have_its_own_right_answer() -> None:
    task, answer = record_exercise("00-toy", EXERCISE)
    assert [case.drive for case in task.cases] == ["doubled_then_used", "length_of"]
    assert answer.outputs[1].tolist() == [5, 5]
    for each in (task, sent(task)):
        assert judge(each, answer, probe(each, lambda x: x + 1)).right
        verdict = judge(each, answer, probe(each, lambda x: (x + 1)[:4]))
        assert [case.right for case in verdict.cases] == [False, False]


def test_a_recording_without_names_of_drives_uses_its_first_function() -> None:
    task, answer = record_exercise("00-toy", replace(EXERCISE, cases=EXERCISE.cases[:1], drive=used))
    old = replace(task, cases=tuple(replace(case, drive="") for case in task.cases))
    assert "drive" not in Encoder().encode(old)["cases"][0]
    assert judge(sent(old), answer, probe(sent(old), lambda x: x + x + 1)).right


def test_a_cases_drive_needs_one_of_the_exercises() -> None:
    with pytest.raises(RecordingError, match="case 'lengths' has a drive, and the exercise has none"):
        record_exercise("00-toy", replace(EXERCISE, drive=None, reference=lambda x: x + 1))


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_no_case_switches_a_drive_by_a_word(lesson: Any) -> None:
    exercises, _ = lesson.exercises()
    recorded = Recording.read(lesson.recording)
    for exercise in exercises:
        for drive in {case.drive or exercise.drive for case in exercise.cases} - {None}:
            assert "look" not in inspect.signature(drive).parameters, f"{exercise.name}: {drive.__name__}"
        task = recorded.task(exercise.name)
        for case in task.cases:
            assert not exercise.drive or f"def {case.drive}(" in task.drive, exercise.name


def test_every_piece_of_the_library_travels() -> None:
    modules = [value for value in vars(drives).values() if inspect.ismodule(value) and "drives." in value.__name__]
    assert len(modules) >= 4
    for module in modules:
        require_travels(module)


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_every_piece_of_a_lessons_own_travels(lesson: Any) -> None:
    if (lesson.folder / "drives.py").exists():
        require_travels(lesson.module("drives"))


def require_travels(module: Any) -> None:
    """Each function and class of a module runs from its source alone."""
    for value in vars(module).values():
        if (inspect.isfunction(value) or inspect.isclass(value)) and value.__module__ == module.__name__:
            namespace: dict[str, Any] = {"torch": torch, "nn": nn, "Tensor": Tensor}
            exec("from __future__ import annotations\n" + source_of([value]), namespace)
            assert value.__name__ in namespace


# The pieces


def text(length: int = 6) -> Tensor:
    return torch.arange(2 * length, dtype=torch.float32).view(2, length, 1)


class Sums(nn.Module):
    """Adds up all that it has read, with its cache."""

    def forward(self, x: Tensor, cache: Any) -> Tensor:
        start = getattr(cache[0], "total", torch.zeros(len(x), 1, 1))
        sums = x.cumsum(dim=1) + start
        cache[0].total = sums[:, -1:]
        return sums


class Memory:
    def reset(self) -> None:
        del self.total  # type: ignore[attr-defined]


def test_a_text_in_chunks_in_turns_and_after_another_gives_what_it_gives_at_once() -> None:
    whole, chunks = text().cumsum(dim=1), [3, 1, 2]
    assert torch.allclose(in_chunks(Sums(), text(), [Memory()], chunks), whole)
    assert torch.allclose(in_turns(Sums(), text(), [[Memory()], [Memory()]], chunks), whole)
    assert torch.allclose(after_another_text(Sums(), text(), [Memory()], chunks), whole)


class Listed:
    """A cache that keeps all that it is given, up to its capacity."""

    def __init__(self, batch: int, heads: int, capacity: int, head_dim: int, dtype: torch.dtype) -> None:
        self.kv, self.capacity = torch.zeros(2, batch, heads, 0, head_dim, dtype=dtype), capacity

    @property
    def length(self) -> int:
        return self.kv.shape[3]

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.length + k.shape[2] > self.capacity:
            raise ValueError(f"there is room for {self.capacity}")
        self.kv = torch.cat([self.kv, torch.stack([k, v])], dim=3)
        return self.kv[0], self.kv[1]

    def reset(self) -> None:
        self.kv = self.kv[:, :, :, :0]


def test_a_cache_that_is_filled_tells_contents_lengths_and_what_was_measured() -> None:
    filled = fill(Listed, torch.randn(2, 1, 1, 4, 2), 4, [2, 0, 1, 1], measure=lambda cache: cache.length)
    assert filled.lengths == [0, 2, 0, 1, 2]
    assert filled.measured == [2, 1, 2]
    assert [contents.shape[2] for contents in filled.contents] == [1, 2]


def test_rows_have_two_names_only_and_a_refusal_that_wrote_something_is_told_apart() -> None:
    rows = Rows()
    assert rows.append(torch.ones(1, 2, 3)).shape == (1, 2, 3) == rows.append(torch.ones(1, 0, 3)).shape
    with pytest.raises(AttributeError, match="`append` and `length`, and no `keys`"):
        _ = rows.keys

    class Refusing:
        def __init__(self, error: type[Exception], writes: bool) -> None:
            self.rows, self.error, self.writes = torch.zeros(2), error, writes

        def append(self, part: Tensor) -> Tensor:
            self.rows += self.writes
            raise self.error("full")

    refusals = [(ValueError, False), (ValueError, True), (RuntimeError, False)]
    codes = [append_rows_or_refuse(Refusing(error, writes), torch.ones(1))[1] for error, writes in refusals]
    assert codes == [1, 2, 3]


def test_a_cached_toy_notes_how_it_is_used() -> None:
    toy = random_toy_lm(11, 20, torch.Generator().manual_seed(0))
    ids = torch.tensor([[1, 2, 3, 4]])
    model = CachedToy(toy, ids).eval()
    cache = model.new_cache(1, 3)
    pieces = [model(ids[:, :2], cache), model(ids[:, 2:], cache)]
    assert torch.allclose(torch.cat(pieces, dim=1), toy(ids), atol=1e-5)
    assert (model.pieces, model.rooms, model.without_room) == ([2, 2], [[1, 3]], 1)
    with pytest.raises(ValueError, match=r"\[1, T\] belongs there"):
        model(ids[0])


def test_products_and_memory_are_counted() -> None:
    with MultiplyAdds() as count:
        torch.ones(2, 3) @ torch.ones(3, 5)
        torch.ones(4, 2, 3) @ torch.ones(4, 3, 5)
    assert count.total == 2 * 3 * 5 + 4 * 2 * 3 * 5
    holder = Memory()
    whole = torch.zeros(10)
    holder.total = {"a": [whole[:2], whole[3:]], "b": (torch.zeros(4),)}  # type: ignore[assignment, attr-defined]
    assert sorted(memory_behind(holder).values()) == [16, 40]
