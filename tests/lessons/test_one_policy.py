"""A notebook's check and the class's grading give one verdict for one program: the same points, and the same words.

Each program is a lesson's solutions with one cell changed: a known mistake, a mutant, or a composite whose part is
wrong. It is examined in this process, as `check` does, and in a real jail, as grading does.
"""

import ast
import json
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from mutants import mutants
from solved import solved

from conftest import PROJECT
from grader.authoring.recorder import patched_source
from grader.checks.examine import examine_here
from grader.checks.judge.verdict import Verdict
from grader.checks.judge.wording import report
from grader.errors import RecordingError
from grader.grading.running.bundle import Bundle, pack_bundle
from grader.grading.running.children import Children, Program
from grader.grading.running.prober import InChildren
from grader.grading.running.run import before_any_solution
from grader.grading.running.submission import parse, program
from grader.grading.sandbox.jail import Jail
from grader.lessons.lesson import Lesson, lessons
from grader.recordings.recording import Recording
from grader.report import to_text

pytestmark = pytest.mark.sampled(0)

MISTAKES, MUTANTS, COMPOSITES = 7, 5, 3  # of every lesson but those whose others.py says why not ("one policy")
NOT_DEFINED = re.compile(r"name '(\w+)' is not defined")


@dataclass(frozen=True)
class Changed:
    """A lesson's solutions with one exercise's cell changed, and the exercise whose verdict is compared."""

    lesson: Lesson
    changed: str
    source: str
    exercise: str


def mistakes_of(lesson: Lesson) -> list[tuple[str, str]]:
    """Each mistake as the exercise and the source of its cell."""
    return [
        (exercise.name, patched_source(lesson.source_of(exercise.name), exercise.name, mistake))
        for exercise in solved(lesson.name).exercises.values()
        for mistake in exercise.mistakes
    ]


def few(draw: random.Random, of: list[Any], count: int) -> list[Any]:
    return draw.sample(of, min(len(of), count))


@cache
def programs(lesson: Lesson) -> list[Changed]:
    draw = random.Random(lesson.name)
    recorded = Recording.read(lesson.recording)
    mistakes = mistakes_of(lesson)
    changes = [(name, mutant.source) for name in recorded.exercises for mutant in mutants(lesson.source_of(name))]
    within = [
        (part, source, name)
        for part, source in mistakes
        for name in recorded.exercises
        if part in recorded.task(name).parts.values() or part in recorded.task(name).uses
    ]
    alone = [*few(draw, mistakes, MISTAKES), *few(draw, changes, MUTANTS)]
    return [
        *(Changed(lesson, name, source, name) for name, source in alone),
        *(Changed(lesson, *one) for one in few(draw, within, COMPOSITES)),
    ]


def needed_by(recorded: Recording, exercise: str) -> list[str]:
    """An exercise after those whose verdicts count for its own, in the lesson's order."""
    task = recorded.task(exercise)
    direct = {*task.parts.values(), *task.uses} & set(recorded.exercises)
    found = {exercise, *(name for other in direct for name in needed_by(recorded, other))}
    return [name for name in recorded.exercises if name in found]


@cache
def changed(lesson: Lesson, exercise: str) -> Callable[[str], dict[str, Any]]:
    return lesson.changed(exercise)


def in_process(one: Changed, recorded: Recording) -> Verdict | None:
    """As a notebook's check; None where the cell itself does not run."""
    try:
        namespace = changed(one.lesson, one.changed)(one.source)
    except RecordingError:
        return None
    return examine_here(recorded, one.exercise, namespace[recorded.task(one.exercise).solution])


@cache
def left_by_cells(lesson: Lesson) -> frozenset[str]:
    """The names that the lesson's ordinary cells give values to, a loop's among them."""
    sources = [cell.source for cell in lesson.cells() if cell.kind == "other"]
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    return frozenset(n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))


def reads_what_is_left(lesson: Lesson, told: str) -> bool:
    """Whether a mutant reads a name that it does not set: in the jail the lesson's own cells have run, and left one."""
    return not left_by_cells(lesson).isdisjoint(NOT_DEFINED.findall(told))


def ran_out_of_time(verdict: Verdict) -> bool:
    return "It was stopped after" in to_text(report(verdict))


def in_jail(one: Changed, bundle: Bundle, jail: Jail) -> Verdict:
    """As grading, with the released recording."""
    notebook: dict[str, Any] = json.loads(bundle.plan.notebook)
    for cell in notebook["cells"]:
        name = cell["metadata"].get("exercise")
        if name:
            cell["source"] = one.source if name == one.changed else one.lesson.source_of(name)
    cells = program(parse(json.dumps(notebook).encode(), bundle.plan), bundle.plan)
    recorded = bundle.public_recording
    solutions = recorded.solutions(recorded.exercises)
    submitted = Program(cells, len(before_any_solution(bundle)), solutions)
    prober = InChildren(Children(jail, time.monotonic() + 60), submitted, recorded, hidden=False)
    return prober.examine(needed_by(recorded, one.exercise))[one.exercise]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("jails")
    path.chmod(0o755)
    return path


@pytest.fixture
def bundle_and_jail(request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[Bundle, Jail]]:
    lesson: Lesson = request.getfixturevalue("lesson")
    bundle = pack_bundle(PROJECT / "course" / lesson.name, None)
    jail = Jail(bundle.unpack_files(folder / lesson.name), bundle.limits)
    yield bundle, jail
    jail.close()


@pytest.mark.parametrize("lesson", lessons(PROJECT), ids=lambda lesson: lesson.name)
def test_a_lesson_has_as_many_wrong_programs_as_others_or_says_why_not(lesson: Lesson) -> None:
    found, asked = len(programs(lesson)), MISTAKES + MUTANTS + COMPOSITES
    if solved(lesson.name).others.WITHOUT.get("one policy", ""):
        assert found < asked, f'it has all {asked} by now: take "one policy" out of WITHOUT in others.py'
    else:
        assert found == asked, f'it has {found} of {asked}: add mistakes, or say why in WITHOUT["one policy"]'


@pytest.mark.slow
@pytest.mark.parametrize("lesson", lessons(PROJECT), ids=lambda lesson: lesson.name)
def test_a_check_and_a_grading_agree_on_points_and_words(lesson: Lesson, bundle_and_jail: tuple[Bundle, Jail]) -> None:
    bundle, jail = bundle_and_jail
    recorded = bundle.public_recording
    tried, compared = programs(lesson), 0
    for one in tried:
        here = in_process(one, recorded)
        if here is None or reads_what_is_left(lesson, to_text(report(here))):
            continue
        there = in_jail(one, bundle, jail)
        if ran_out_of_time(there):  # in a notebook nothing is stopped: the learner does that
            continue
        assert there.points == here.points, (one.exercise, one.source)
        assert to_text(report(there)) == to_text(report(here)), (one.exercise, one.source)
        compared += 1
    assert compared >= 0.9 * len(tried)


OWN = ("grader", "hypothesis")  # packages that a submission has not, but for the config


def alone(others: Any, program: str) -> str:
    """The source of a program of others.py with all of the file that it uses; empty where that is the project's own."""
    defined: dict[str, ast.stmt] = {}
    for statement in ast.parse(Path(others.__file__).read_text("utf-8")).body:
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        names = [getattr(statement, "name", ""), *(getattr(target, "id", "") for target in targets)]
        if isinstance(statement, ast.Import | ast.ImportFrom):
            names = [(alias.asname or alias.name).partition(".")[0] for alias in statement.names]
        defined |= dict.fromkeys(names, statement)
    needed: list[ast.stmt] = []
    asked = [program]
    while asked:
        statement = defined.get(asked.pop(), ast.Pass())
        if isinstance(statement, ast.Pass) or statement in needed:
            continue
        if isinstance(statement, ast.ImportFrom) and (statement.level or str(statement.module).startswith(OWN)):
            is_config = [alias.name for alias in statement.names] == ["Config"]
            if not is_config:
                return ""
        needed.append(statement)
        asked += [node.id for node in ast.walk(statement) if isinstance(node, ast.Name)]
    return "\n".join(ast.unparse(one) for one in sorted(needed, key=lambda one: one.lineno))


@pytest.mark.slow
@pytest.mark.parametrize("lesson", lessons(PROJECT), ids=lambda lesson: lesson.name)
def test_another_right_program_is_right_in_the_jail(lesson: Lesson, bundle_and_jail: tuple[Bundle, Jail]) -> None:
    """Each that stands alone: some use what the project's tests have, and a submission has not."""
    of, tried = solved(lesson.name), 0
    for exercise, programs in dict(getattr(of.others, "RIGHT", {})).items():
        for other in programs:
            if source := alone(of.others, other.__name__):
                source += f"\n{of.exercises[exercise].solution} = {other.__name__}\n"
                verdict = in_jail(Changed(lesson, exercise, source, exercise), *bundle_and_jail)
                assert verdict.right, (other.__name__, to_text(report(verdict)))
                tried += 1
    assert tried or "RIGHT" in of.others.WITHOUT


ENDLESS = """
def generate(model, ids, max_new_tokens, eos_token_id=None):
    written = []
    while len(written) != max_new_tokens or not written:
        next_id = model(ids[:, -model.config.n_positions :])[:, -1].argmax(dim=-1, keepdim=True)
        written.append(next_id.item())
        if written[-1] == eos_token_id:
            break
        ids = torch.cat([ids, next_id], dim=1)
    return iter(written)
"""


@pytest.mark.parametrize("lesson", [solved("01-gpt2").lesson], ids=lambda lesson: lesson.name)
def test_a_loop_that_does_not_end_for_no_tokens_is_ended_and_told(
    lesson: Lesson, bundle_and_jail: tuple[Bundle, Jail]
) -> None:
    bundle, jail = bundle_and_jail
    endless = Changed(lesson, "gpt2.generate", ENDLESS, "gpt2.generate")
    here, there = in_process(endless, bundle.public_recording), in_jail(endless, bundle, jail)
    assert here is not None
    told = to_text(report(here))
    assert told == to_text(report(there))
    assert "where no token is asked for" in told
    assert "the model was called 1,000 times, and the loop still goes on" in told
