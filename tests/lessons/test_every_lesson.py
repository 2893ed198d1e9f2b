"""What every lesson must hold. A lesson says in its others.py with which programs, configs and weights (declared.py).

Lessons are found by listing solutions/; none is named here. Agreement is within the tolerance of the dtype: a result
that equals the reference's in every bit here may not do so on another processor.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import matplotlib.pyplot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from solved import every_lesson
from stored_answers import replay

from grader import Config
from grader.authoring.kit.declared import Numbers, Prompt, Rerun, Told, Trained
from grader.authoring.kit.solved import (
    Solved,
    chosen,
    continued_by_transformers,
    encoded,
    same_tokens_but_for_near_ties,
)
from grader.authoring.recorder import record, record_exercise
from grader.checkpoints import entry, names
from grader.checks.examine import examine_here
from grader.checks.probe import probe
from grader.checks.probe.running import one_thread
from grader.layers.debugger import layer_report
from grader.lessons.exercise import Draw
from grader.recordings.recording import Recording
from grader.recordings.tasks import Task
from grader.tolerance import agree

LESSONS = every_lesson()
OF_A_LESSON = ("BY_CHANCE", "PLANTED", "TOLD", "HUB", "SIZES", "TRAINED", "RERUNS", "VARIES", "MISTAKES")
OPTIONAL = ("TRACE", "CONFIG_SHA256", "rows of other programs", "one policy", "stored answers", "answers by state")
OF_AN_EXERCISE = ("RIGHT", "RANDOM", "bfloat16")


def asked(lesson: Solved, name: str) -> Any:
    """What others.py declares under `name`; nothing where it says why the lesson is without it."""
    return getattr(lesson.others, name, ())


def each(name: str, items: Callable[[Any], Iterable[tuple[str, Any]]]) -> Any:
    """A test for each item of every lesson's `name`. items: (title, item) pairs of what is declared."""
    found = [
        pytest.param(lesson, item, id=f"{lesson.name} {title}")
        for lesson in LESSONS
        for title, item in items(asked(lesson, name) or {})
    ]
    return pytest.mark.parametrize(("lesson", "item"), found)


def programs(declared: Any) -> Iterable[tuple[str, Any]]:
    """(exercise, program) pairs of RIGHT or BY_CHANCE."""
    return [(f"{name} {p.__name__}", (name, p)) for name, others in dict(declared).items() for p in others]


def of_a_dict(declared: Any) -> Iterable[tuple[str, Any]]:
    return [(name, (name, value)) for name, value in dict(declared).items()]


def of_a_list(declared: Any) -> Iterable[tuple[str, Any]]:
    return [(item.title, item) for item in declared]


every_exercise = pytest.mark.parametrize(
    ("lesson", "name"),
    [pytest.param(lesson, name, id=f"{lesson.name} {name}") for lesson in LESSONS for name in lesson.exercises],
)
all_lessons = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
with_trace = pytest.mark.parametrize(
    "lesson", [lesson for lesson in LESSONS if lesson.traced], ids=lambda lesson: lesson.name
)


# Nothing is left out silently


@pytest.mark.sampled(1)
@all_lessons
def test_a_lesson_declares_what_is_asked_or_says_why_not(lesson: Solved) -> None:
    """Once for the lesson, and once for each of its exercises."""
    without = lesson.others.WITHOUT
    has = {name: bool(asked(lesson, name)) for name in OF_A_LESSON} | {"TRACE": lesson.traced is not None}
    declared = {name: (there, bool(without.get(name, ""))) for name, there in has.items()}
    for what in OF_AN_EXERCISE:
        reasons = without.get(what, {})
        for name in lesson.exercises:
            there = in_bfloat16(lesson, name) if what == "bfloat16" else name in dict(asked(lesson, what))
            why = reasons if isinstance(reasons, str) else reasons.get(name, "")
            declared[f"{what} of {name}"] = there, bool(why)
    assert not [name for name, (there, why) in declared.items() if there and why], "declared, and said to be left out"
    assert not [name for name, (there, why) in declared.items() if not there and not why], (
        "neither declared nor left out"
    )


def in_bfloat16(lesson: Solved, name: str) -> bool:
    """Whether an exercise is checked in both dtypes. A case that is cast in its inputs alone says so in its name."""
    cases = lesson.exercises[name].cases
    by_name = any("bfloat16" in case.name for case in cases)
    return by_name or {case.dtype for case in cases} == {torch.float32, torch.bfloat16}


@pytest.mark.sampled(1)
@all_lessons
def test_what_is_declared_is_known(lesson: Solved) -> None:
    """No exercise is misspelt, and no reason is given for something that nobody asks."""
    if "RIGHT" not in lesson.others.WITHOUT:
        assert list(lesson.others.RIGHT) == list(lesson.exercises)
    for name in ("RIGHT", "BY_CHANCE", "RANDOM", "HUB"):
        assert set(dict(asked(lesson, name))) <= set(lesson.exercises), name
    assert set(asked(lesson, "VARIES")) <= set(lesson.exercises)
    assert set(lesson.others.WITHOUT) <= {*OF_A_LESSON, *OF_AN_EXERCISE, *OPTIONAL}
    for reasons in lesson.others.WITHOUT.values():
        assert isinstance(reasons, str) or (set(reasons) <= set(lesson.exercises) and all(reasons.values()))


@pytest.mark.sampled(1)
@all_lessons
def test_a_lesson_knows_its_mistakes(lesson: Solved) -> None:
    there, least = sum(len(exercise.mistakes) for exercise in lesson.exercises.values()), asked(lesson, "MISTAKES")
    assert there >= least, f"there are {there}, and others.py says MISTAKES = {least}. Where none got lost, lower it"


# Solutions do what the reference does


NUMBERS = st.builds(
    lambda length, cuts, **others: Numbers(length=length, cuts=tuple(cut for cut in cuts if cut < length), **others),
    batch=st.integers(1, 3),
    length=st.integers(1, 15),
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([1e-3, 0.01, 0.1, 1.0, 4.0]),
    cuts=st.sets(st.integers(1, 14)).map(sorted),
)


@each("RANDOM", of_a_dict)
@settings(max_examples=25)
@given(data=st.data())
def test_a_solution_is_right_on_random_configs(lesson: Solved, item: Any, data: st.DataObject) -> None:
    name, random_case = item
    case = random_case(data.draw(lesson.others.CONFIGS, "config"), data.draw(NUMBERS, "numbers"))
    verdict = lesson.verdict_on(lesson.solution(name), lesson.exercises[name], case)
    assert verdict.right, verdict


@each("HUB", of_a_dict)
def test_weights_have_the_names_that_the_hubs_have(lesson: Solved, item: Any) -> None:
    """Names and shapes, for each config that the exercise is checked with."""
    name, hubs = item
    for case in lesson.exercises[name].cases:
        config = Config(case.built(Draw(lesson.name, name, case.name))["config"])
        wanted = {weight: tensor.shape for weight, tensor in hubs(config).state_dict().items()}
        own = {weight: tensor.shape for weight, tensor in lesson.solution(name)(config).state_dict().items()}
        assert own == wanted, case.name


@each("SIZES", of_a_dict)
def test_a_models_size_is_known_from_its_config(lesson: Solved, item: Any) -> None:
    _, (config, parameters) = item
    assert lesson.traced is not None
    with torch.device("meta"):
        model = lesson.solution(lesson.traced.name)(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def config_files() -> list[Any]:
    """(lesson, name) of every configs/NAME.json that is said to be the hub's."""
    hubs = [lesson for lesson in LESSONS if "CONFIG_SHA256" not in lesson.others.WITHOUT]
    found = [(lesson, path.stem) for lesson in hubs for path in sorted(lesson.folder.glob("configs/*.json"))]
    return [pytest.param(lesson, name, id=f"{lesson.name} {name}") for lesson, name in found]


@pytest.mark.parametrize(("lesson", "name"), config_files())
def test_a_config_is_the_hubs_and_the_same_in_every_lesson(lesson: Solved, name: str) -> None:
    """The hub's where its checksum is known: to the registry, or to a lesson."""
    sha256 = {param.values[0].name: checksum(*param.values) for param in config_files() if param.values[1] == name}
    assert set(sha256.values()) == {sha256[lesson.name]}
    known = {dict(asked(other, "CONFIG_SHA256")).get(name) for other in LESSONS}
    if name in names() and "config.json" in entry(name).files:
        known.add(entry(name).files["config.json"].sha256)
    assert known <= {None, sha256[lesson.name]}


def checksum(lesson: Solved, name: str) -> str:
    return hashlib.sha256((lesson.folder / "configs" / f"{name}.json").read_bytes()).hexdigest()


SECRET = "a secret of these tests"


@lru_cache(maxsize=2)
def hidden(lesson: Solved) -> Recording:
    """A recording from a secret. How far rounding moves its answers is measured by the test of hidden cases alone."""
    return record(lesson.lesson, secret=SECRET, measured=False)


@pytest.mark.sampled(0)
@pytest.mark.slow
@all_lessons
def test_hidden_cases_vary_and_show_every_mistake(lesson: Solved) -> None:
    """Recording checks that the solution is right, and that each mistake differs from it and from the others."""
    drawn = [hidden(lesson).task(name) for name in lesson.exercises]
    varied = different(lesson, drawn)
    if not set(asked(lesson, "VARIES")) <= varied:  # by chance a size is the usual one
        drawn = [record_exercise(lesson.name, exercise, "another")[0] for exercise in lesson.exercises.values()]
        varied |= different(lesson, drawn)
    assert set(asked(lesson, "VARIES")) <= varied, f"the sizes never vary: {set(lesson.others.VARIES) - varied}"


def different(lesson: Solved, drawn: Sequence[Task]) -> set[str]:
    """The exercises whose cases have other sizes than the released ones."""
    return {task.exercise for task in drawn if sizes(task) != sizes(lesson.recording.task(task.exercise))}


@pytest.mark.sampled(0)
@all_lessons
def test_hidden_cases_leave_room_for_rounding(lesson: Solved) -> None:
    """Recording refuses, and draws again, where rounding alone takes up too much of a tolerance."""
    for exercise in lesson.exercises.values():
        with one_thread():
            _, answer = record_exercise(lesson.name, exercise, SECRET, measured=True)
        assert len(answer.noise) == len(exercise.cases)


def sizes(task: Task) -> list[Any]:
    """The shapes of all tensors that an exercise's cases are given, and the numbers beside them."""
    args = [arg for case in task.cases for arg in (*case.args, *case.build.items())]
    return [tuple(arg.shape) if isinstance(arg, torch.Tensor) else repr(arg) for arg in args]


# Other programs: the right ones pass, those that are right by chance do not


@pytest.mark.sampled(1)
@each("RIGHT", programs)
def test_another_right_program_passes(lesson: Solved, item: Any) -> None:
    name, other = item
    verdict = examine_here(lesson.recording, name, other)
    assert verdict.right, verdict.most_telling


@pytest.mark.sampled(1)
@each("BY_CHANCE", programs)
def test_a_program_that_fits_only_some_inputs_does_not_pass(lesson: Solved, item: Any) -> None:
    name, wrong = item
    assert not lesson.verdict_on(wrong, lesson.exercises[name]).right


@each("TOLD", of_a_list)
def test_a_wrong_program_is_told_in_plain_words(lesson: Solved, item: Told) -> None:
    text = lesson.told(item.exercise, item.program)
    for sentence in item.says:
        assert sentence in text
    for sentence in item.never:
        assert sentence not in text


# The layer comparison finds the culprit


@with_trace
def test_a_trace_shows_what_its_config_has(lesson: Solved) -> None:
    """A window is shorter than the text, and there are layers of both kinds."""
    config = Config(lesson.trace.build["config"])
    if "sliding_window" in config:
        assert lesson.trace.args[0].shape[1] > config.sliding_window
        assert len(set(lesson.solutions["layer_types"](config))) == 2


@with_trace
def test_every_row_of_the_solution_is_right(lesson: Solved) -> None:
    assert lesson.traced is not None
    report = layer_report(lesson.solution(lesson.traced.name), lesson.trace)
    assert report.ok and report.culprit is None and all(row.outcome.ok for row in report.rows)


def rows_of_others() -> list[Any]:
    """The other right programs for the traced model, but for those that a lesson leaves out with a reason."""
    return [
        pytest.param(lesson, other, id=f"{lesson.name} {other.__name__}")
        for lesson in LESSONS
        if lesson.traced and "rows of other programs" not in lesson.others.WITHOUT
        for other in dict(asked(lesson, "RIGHT")).get(lesson.traced.name, ())
    ]


@pytest.mark.parametrize(("lesson", "other"), rows_of_others())
def test_another_right_program_is_right_in_every_row(lesson: Solved, other: Any) -> None:
    assert layer_report(other, lesson.trace).ok


def planted(declared: Any) -> Iterable[tuple[str, Any]]:
    return [(f"{path} {bug.__name__}", (path, bug)) for path, bug in declared]


@each("PLANTED", planted)
def test_the_layer_comparison_finds_a_planted_bug(lesson: Solved, item: Any) -> None:
    path, bug = item
    report = layer_report(bug if isinstance(bug, type) else lesson.with_forward(path, bug), lesson.trace)
    assert report.culprit is not None and report.culprit.path == path


# The lesson's own cells run with other right programs


@pytest.mark.sampled(0)
@pytest.mark.slow
@each("RERUNS", of_a_dict)
def test_the_lessons_own_cells_run_with_another_right_program(
    lesson: Solved, item: tuple[str, Rerun], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every cell from the top but the checks, each exercise's with another program in its place."""
    _, rerun = item
    matplotlib.use("Agg")
    monkeypatch.chdir(lesson.folder)
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    own: dict[str, Any] = {"__name__": "rerun"}
    for words in rerun.changes:
        assert any(words in cell.source for cell in lesson.lesson.cells()), words
    for cell in lesson.lesson.cells():
        if cell.kind == "exercise" and cell.name in rerun.programs:
            own[lesson.exercises[cell.name].solution] = rerun.programs[cell.name]
        elif cell.kind in ("setup", "given", "exercise", "prediction", "other") and not (
            rerun.skip and rerun.skip in cell.source
        ):
            exec(compile(rerun.changed(cell.source), cell.title, "exec"), own)
        if cell.kind == "setup":
            own |= rerun.instead
    matplotlib.pyplot.close("all")
    shown = capsys.readouterr().out
    for words in rerun.shows:
        assert words in shown
    for words in rerun.hides:
        assert words not in shown


# Trained weights


def checkpoints() -> list[Any]:
    return [(lesson, trained) for lesson in LESSONS for trained in asked(lesson, "TRAINED")]


every_trained_model = pytest.mark.parametrize(
    ("lesson", "trained"),
    [pytest.param(lesson, trained, id=f"{lesson.name} {trained.title}") for lesson, trained in checkpoints()],
)


@pytest.mark.sampled(0)
@every_trained_model
def test_trained_weights_give_the_references_logits(lesson: Solved, trained: Trained) -> None:
    checkpoint, model, theirs = lesson.trained(trained.model, trained.checkpoint)
    ids = torch.randint(checkpoint.config.vocab_size, (2, trained.tokens))
    with torch.no_grad():
        assert agree(model(ids), theirs(input_ids=ids, use_cache=False).logits)


@pytest.mark.sampled(0)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("lesson", "trained", "prompt"),
    [
        pytest.param(lesson, trained, prompt, id=f"{lesson.name} {trained.title} {prompt.text[:30]} {place}")
        for lesson, trained in checkpoints()
        for place, prompt in enumerate(trained.prompts)
    ],
)
def test_greedy_tokens_are_those_of_transformers(lesson: Solved, trained: Trained, prompt: Prompt) -> None:
    checkpoint, model, theirs = lesson.trained(trained.model, trained.checkpoint)
    ids = encoded(checkpoint, prompt.text)
    tokens = prompt.tokens or checkpoint.config.n_positions + 1 - ids.shape[1]
    written = min(tokens, trained.written or tokens)
    own = list(lesson.named(trained.generate)(model, ids, written, **prompt.options))
    reference = continued_by_transformers(theirs, ids, tokens, prompt.known or own)
    if written < tokens:
        own += chosen(model, ids, reference)[written:]
    assert same_tokens_but_for_near_ties(own, reference, theirs, ids)


@pytest.mark.sampled(0)
@every_trained_model
def test_a_shipped_checkpoint_is_small_and_has_three_generations_of_64_tokens(lesson: Solved, trained: Trained) -> None:
    checkpoint, model, _ = lesson.trained(trained.model, trained.checkpoint)
    if checkpoint.source == "shipped":
        assert sum(path.stat().st_size for path in checkpoint.folder.iterdir()) <= 5_000_000
        assert [golden.n_tokens for golden in checkpoint.goldens] == [64, 64, 64]
        assert [golden.prompt for golden in checkpoint.goldens] == list(checkpoint.entry.record_prompts)
        assert sum(parameter.numel() for parameter in model.parameters()) == checkpoint.entry.parameters


@pytest.mark.sampled(0)
@every_trained_model
def test_a_generation_that_is_recorded_leaves_the_window(lesson: Solved, trained: Trained) -> None:
    checkpoint, *_ = lesson.trained(trained.model, trained.checkpoint)
    window = checkpoint.config.get("sliding_window")
    if window and checkpoint.goldens:
        assert any(len(golden.prompt_ids or ()) > window for golden in checkpoint.goldens)


# Stored answers earn nothing


@pytest.mark.sampled(0)
@pytest.mark.slow
@pytest.mark.parametrize("constant", [False, True], ids=["a table of the released answers", "one answer always"])
@every_exercise  # nearest to the test, so that its lesson comes first in the test's name
def test_stored_answers_earn_nothing_on_hidden_cases(lesson: Solved, name: str, constant: bool) -> None:
    if why := lesson.others.WITHOUT.get("answers by state", {}).get(name):
        pytest.skip(why)
    released = lesson.recording.task(name)
    program = replay(released, lesson.solution(name), constant)
    if not constant:
        answer = lesson.recording.answer(name)
        given = [observation.output for observation in probe(released, program, outputs_only=True)]
        known = zip(given, answer.outputs, answer.tolerances, strict=True)
        found = any(own is not None and agree(own, want, tolerance) for own, want, tolerance in known)
        assert found != (name in lesson.others.WITHOUT.get("stored answers", {})), "a table" if found else "no table"
    verdict = examine_here(hidden(lesson), name, program)
    assert verdict.points == 0, [case.name for case in verdict.cases if case.earned]
