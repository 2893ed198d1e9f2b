"""Every attack known on notebook graders, one file each in attacks/, graded among honest students in one run."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from attack_course import (
    ATTACKS,
    HONEST,
    LESSON,
    RIGHT,
    Attack,
    attack_with,
    autograded_text,
    called,
    canary,
    files_outside,
    listening,
    make_course,
    submit,
)
from test_nbgrader import nbgrader

from grader.grading.engine import Graded, Settings, grade_class
from grader.grading.sandbox.limits import Limits
from grader.recording import Recording

LIMITS = Limits(exercise_seconds=2, submission_seconds=8, cpu_seconds=8, memory_mb=1024)
every_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


@dataclass(frozen=True)
class Run:
    root: Path
    graded: dict[str, Graded]
    exported: dict[str, float]
    changed: list[str]
    called: bool


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One run over all of them; those who want to keep an earlier score have one first."""
    root = tmp_path_factory.mktemp("attacked")
    make_course(root)
    (root / "canaries").mkdir()
    (root / "canaries").chmod(0o777)
    earlier = [attack.name for attack in ATTACKS if attack.earlier]
    for student in earlier:
        submit(root, student, RIGHT)
    settings = Settings(limits=LIMITS)
    assert [g.result.points for g in grade_class(root, LESSON, settings) if g.result] == [5.0] * len(earlier)
    with listening() as server:
        for student, (answers, _) in HONEST.items():
            submit(root, student, answers)
        for attack in ATTACKS:
            attack_with(root, attack, server.getsockname()[1])
        before = files_outside(root)
        graded = {g.student: g for g in grade_class(root, LESSON, settings)}
        after = files_outside(root)
        was_called = called(server)
    nbgrader("export", "--to", "grades.csv", cwd=root)
    with (root / "grades.csv").open() as file:
        exported = {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}
    changed = [path for path in before | after if before.get(path) != after.get(path)]
    yield Run(root, graded, exported, changed, was_called)


def test_there_is_an_attack_for_everything_known() -> None:
    assert len(ATTACKS) >= 40
    assert all(attack.tries for attack in ATTACKS)


@every_attack
def test_an_attack_earns_what_its_honest_part_earns(run: Run, attack: Attack) -> None:
    graded = run.graded[attack.name]
    assert graded.result is not None, graded.problem
    assert graded.result.points == attack.earns
    assert run.exported[attack.name] == attack.earns


@every_attack
def test_an_attack_writes_nothing_outside(run: Run, attack: Attack) -> None:
    assert not canary(run.root, attack.name).exists()


@pytest.mark.parametrize("student", HONEST)
def test_an_honest_neighbour_keeps_their_score(run: Run, student: str) -> None:
    assert run.exported[student] == HONEST[student][1]


def test_no_file_of_the_course_or_of_a_submission_changed(run: Run) -> None:
    assert run.changed == []


def test_nobody_reached_the_network(run: Run) -> None:
    assert not run.called


def test_no_secret_is_in_what_is_returned(run: Run) -> None:
    secrets = {"a secret of the instructor's", "root:x:0:0"}
    for name in ("toy.linear", "toy.relu"):
        hidden = Recording.read(run.root / "hidden" / f"{LESSON}.safetensors")
        tensors = [*hidden.answer(name).outputs, *(case.args[0] for case in hidden.task(name).cases)]
        tensors += [weight for case in hidden.task(name).cases for weight in case.weights.values()]
        values = {repr(value) for tensor in tensors for value in tensor.flatten().tolist()}
        secrets |= {value[:8] for value in values if len(value) >= 8}
    for attack in ATTACKS:
        assert [s for s in secrets if s in autograded_text(run.root, attack.name)] == [], attack.name


def test_every_result_says_why_it_is_not_full(run: Run) -> None:
    for attack in ATTACKS:
        result = run.graded[attack.name].result
        assert result is not None
        for exercise in result.exercises:
            assert exercise.right or exercise.summary, attack.name


def test_the_journal_holds_every_verdict_once(run: Run) -> None:
    lines = [json.loads(line) for line in (run.root / "journal" / f"{LESSON}.jsonl").read_text().splitlines()]
    graded = [(line["student"], line["key"]) for line in lines if line["entry"] == "graded"]
    assert len(graded) == len(set(graded))
    assert {student for student, _ in graded} == set(run.graded)


def test_feedback_is_made_for_everyone_and_runs_no_script(run: Run) -> None:
    nbgrader("generate_feedback", LESSON, cwd=run.root)
    pages = {p.parent.parent.name: p.read_text() for p in run.root.glob(f"feedback/*/{LESSON}/*.html")}
    assert set(pages) == set(run.graded)
    assert "<script>alert(1)" not in pages["break_html"]
    assert "onerror=alert(1)>" not in pages["break_html"].replace("&lt;", "")
