"""What was not written earns nothing: empty lessons, given classes, and the grader's own functions."""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from grader.authoring.variants import MANY_ROWS
from grader.checks.check import check
from grader.errors import CheckFailed
from grader.grading.running.bundle import Bundle, pack_bundle
from grader.grading.running.effortless import effortless
from grader.grading.running.prober import most_bytes
from grader.grading.running.submission import parse
from grader.grading.running.worker import close_jails, grade_one
from grader.kv import bytes_at
from grader.lessons.lesson import lessons

pytestmark = pytest.mark.sampled(0)

PROJECT = Path(__file__).resolve().parents[2]
LESSONS = [lesson.name for lesson in lessons(PROJECT)]
EMPTY: dict[str, Callable[[str], str]] = {
    "as released": lambda stub: stub,
    "with pass in every cell": lambda stub: "pass",
    "with every cell empty": lambda stub: "",
    "with a syntax error in every cell": lambda stub: ")",
}


@pytest.fixture(scope="module", params=LESSONS)
def bundle(request: pytest.FixtureRequest) -> Iterator[Bundle]:
    yield bundle_of(request.param)
    close_jails()


@cache
def bundle_of(lesson: str) -> Bundle:
    return pack_bundle(PROJECT / "course" / lesson, None, solved=PROJECT / "solutions" / lesson)


def released(bundle: Bundle) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(bundle.plan.notebook)
    return notebook


def solution(bundle: Bundle, exercise: str) -> str:
    lesson = next(lesson for lesson in lessons(PROJECT) if lesson.name == bundle.plan.lesson)
    return lesson.source_of(exercise)


def points(bundle: Bundle, notebook: dict[str, Any]) -> dict[str, float]:
    result = grade_one(bundle, parse(json.dumps(notebook).encode(), bundle.plan))
    return {e.exercise: e.points for e in result.exercises}


def filled(bundle: Bundle, source_of: Callable[[str, str], str]) -> dict[str, Any]:
    """The released notebook, with what `source_of` makes of an exercise and its stub in the solution cells."""
    notebook = released(bundle)
    for cell in notebook["cells"]:
        if exercise := cell["metadata"].get("exercise"):
            cell["source"] = source_of(exercise, cell["source"])
    return notebook


def with_one(bundle: Bundle, only: str, empty: Callable[[str], str]) -> Callable[[str, str], str]:
    """The lesson's solution for one exercise, and for the others an empty cell."""
    return lambda exercise, stub: solution(bundle, only) if exercise == only else empty(stub)


@pytest.mark.parametrize("as_released", [True, False])
def test_an_empty_lesson_earns_nothing(bundle: Bundle, as_released: bool) -> None:
    """As it is released, and emptied in one of the other ways, which take turns from lesson to lesson."""
    first, *others = EMPTY
    empty = first if as_released else others[LESSONS.index(bundle.plan.lesson) % len(others)]
    earned = points(bundle, filled(bundle, lambda _, stub: EMPTY[empty](stub)))
    assert set(earned.values()) == {0.0}, earned


@pytest.mark.parametrize("empty", ["with pass in every cell"])
def test_one_exercise_alone_earns_its_own_points_and_no_more(bundle: Bundle, empty: str) -> None:
    for check_cell in bundle.plan.checks:
        only = check_cell.exercise
        earned = points(bundle, filled(bundle, with_one(bundle, only, EMPTY[empty])))
        assert earned[only] == check_cell.points, only
        assert sum(earned.values()) == check_cell.points, (only, earned)


def test_a_missing_solution_that_the_lesson_goes_on_with_costs_its_own_points(bundle: Bundle) -> None:
    """Some lessons have cells of their own after an exercise, which can't run without it."""
    notebook = filled(bundle, lambda exercise, _: solution(bundle, exercise))
    solutions = [cell for cell in notebook["cells"] if "exercise" in cell["metadata"]]
    notebook["cells"] = [cell for cell in notebook["cells"] if cell not in solutions[:-1]]
    *missing, last = grade_one(bundle, parse(json.dumps(notebook).encode(), bundle.plan)).exercises
    assert missing and {result.points for result in missing} == {0.0}
    assert last.summary


def points_with(bundle: Bundle, only: str, source: str) -> float:
    """What an exercise earns with this source, beside the lesson's other solutions."""
    return points(bundle, filled(bundle, lambda e, _: source if e == only else solution(bundle, e)))[only]


def test_whatever_is_no_work_on_an_exercise_earns_nothing(bundle: Bundle) -> None:
    """The class that a stub extends, the input, zeros, ones and constants: each in all exercises at once."""
    stubs = {step.exercise: step.source for step in bundle.plan.steps if step.exercise}
    programs = {exercise: list(effortless(stub)) for exercise, stub in stubs.items()}
    for i in range(max(map(len, programs.values()))):
        notebook = filled(bundle, lambda e, _, i=i: programs[e][i % len(programs[e])])  # type: ignore[misc]
        earned = points(bundle, notebook)
        assert set(earned.values()) == {0.0}, (i, earned)


EXTENDED = [
    ("05-mla", "mla.absorbed"),
    ("07-moe", "moe.sorted_experts"),
    ("08-sparse-attention", "sparse_attention.gathered"),
]


@pytest.mark.parametrize(("bundle", "exercise"), EXTENDED, indirect=["bundle"])
def test_the_class_that_a_stub_extends_earns_nothing_with_an_unused_method(bundle: Bundle, exercise: str) -> None:
    """Beside the lesson's other solutions, where it gives all the right values, the slow way."""
    stub = next(step.source for step in bundle.plan.steps if step.exercise == exercise)
    assert points_with(bundle, exercise, next(effortless(stub))) == 0


@pytest.mark.parametrize("bundle", ["07-moe"], indirect=True)
def test_a_copy_of_what_is_given_earns_nothing_where_the_way_is_the_exercise(bundle: Bundle) -> None:
    copied = solution(bundle, "moe.experts").replace("class Experts", "class SortedExperts")
    assert points_with(bundle, "moe.sorted_experts", copied) == 0


def of(*lessons: str) -> pytest.MarkDecorator:
    """For these lessons alone; the tests of one lesson share its jail."""
    return pytest.mark.parametrize("bundle", lessons, indirect=True)


def with_attention(bundle: Bundle, source: str) -> float:
    """What Gemma 3's attention earns with this source, beside the lesson's other solutions."""
    return points_with(bundle, "gemma3.attention", source)


@of("04-gemma3")
def test_an_answer_may_be_a_class_of_ones_own_by_another_name(bundle: Bundle) -> None:
    own = solution(bundle, "gemma3.attention").replace("class Attention", "class Mine")
    assert with_attention(bundle, own + "\nAttention = Mine\n") > 0


@of("04-gemma3")
@pytest.mark.parametrize("taken", ["Attention = Attention", "class Attention(Attention):\n    pass"])
def test_a_given_class_is_no_answer(bundle: Bundle, taken: str) -> None:
    assert with_attention(bundle, taken) == 0


@of("02-kv-cache", "05-mla", "06-sliding-window")
@pytest.mark.parametrize("body", ["from grader.kv import bytes_at as {name}", "import grader\n{name} = grader.Config"])
def test_the_packages_own_function_is_out_of_reach_where_submissions_run(bundle: Bundle, body: str) -> None:
    exercise = next(c.exercise for c in bundle.plan.checks if c.exercise.endswith(".bytes"))
    notebook = filled(bundle, lambda e, stub: body.format(name="cache_bytes") if e == exercise else solution(bundle, e))
    assert points(bundle, notebook)[exercise] == 0


def test_the_notebooks_check_refuses_the_packages_own_function_with_a_sentence() -> None:
    recording = PROJECT / "course" / "02-kv-cache" / "reference.safetensors"
    with pytest.raises(CheckFailed, match="code of your own: `bytes_at` is the grader's"):
        check("kv_cache.bytes", bytes_at, recording=recording)


def test_a_librarys_class_is_the_learners_choice() -> None:
    recording = PROJECT / "course" / "00-orientation" / "reference.safetensors"
    check("orientation.linear", nn.Linear, recording=recording)


@of("05-mla")
def test_a_case_that_cannot_see_an_error_earns_nothing_beside_one_that_does(bundle: Bundle) -> None:
    """One per cent is within what bfloat16 may differ by, and far outside what float32 may."""
    right = "return self.kv_a_layernorm(latent), key"
    source = solution(bundle, "mla.compress")
    assert right in source
    source = source.replace(right, "return 1.01 * self.kv_a_layernorm(latent), 1.01 * key")
    earned = points(bundle, filled(bundle, lambda e, _: source if e == "mla.compress" else solution(bundle, e)))
    assert earned.pop("mla.compress") == 0.0
    assert sum(earned.values()) == sum(c.points for c in bundle.plan.checks if c.exercise != "mla.compress")


@pytest.mark.parametrize("lesson", LESSONS)
def test_the_bytes_taken_for_an_exercise_are_bounded_by_what_its_right_answers_take(lesson: str) -> None:
    recording = bundle_of(lesson).public_recording
    for name in recording.exercises:
        answer = recording.answer(name)
        known = [
            max(t.nbytes for t in (want, *(m.outputs[i] for m in answer.mistakes)))
            for i, want in enumerate(answer.outputs)
        ]
        most = sum(most_bytes(recording.task(name), answer))
        assert most <= 4 * MANY_ROWS * sum(known) + 4096 * len(known) and most < 16 << 20, name
