"""The record of proofs: what it depends on, what is sampled, and an entry that no proof wrote."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import proofs
import pytest
from proofs import MISSING, OTHER_JUDGE, PROVED, Proofs, canary, ids_digest, lesson_of, sample, standing

LESSON, OTHER = "01-gpt2", "07-moe"


def ids(lesson: str, kind: str, count: int) -> list[str]:
    return [f"tests/lessons/test_x.py::{kind}[{lesson} {number}]" for number in range(count)]


@pytest.mark.parametrize(
    ("nodeid", "lesson"),
    [
        ("solutions/01-gpt2/gpt2.ipynb::Cell 3", "01-gpt2"),
        ("tests/lessons/test_mistakes.py::test_a[01-gpt2 gpt2.gelu: ReLU]", "01-gpt2"),
        ("tests/lessons/test_mutants_at_run.py::test_a[cut-07-moe moe.router]", "07-moe"),
        ("tests/lessons/test_points_for_nothing.py::test_a[07-moe-True]", "07-moe"),
        ("tests/lessons/test_release.py::test_a_leak_is_found", ""),
        ("tests/learning/test_browser.py::test_a[01-gpt2]", ""),
    ],
)
def test_a_test_names_its_lesson(nodeid: str, lesson: str) -> None:
    assert lesson_of(nodeid) == lesson


def test_a_sample_is_a_share_of_each_kind_and_all_of_what_must_always_run() -> None:
    mistakes, right = ids(LESSON, "test_mistake", 80), ids(LESSON, "test_right", 9)
    every = {**dict.fromkeys(mistakes, 8), **dict.fromkeys(right, 1)}
    found = sample(every, {LESSON: PROVED}, "a")
    assert set(right) <= found and len(found - set(right)) == 10
    assert len(sample(every, {LESSON: OTHER_JUDGE}, "a") - set(right)) == 20


def test_a_sample_is_the_same_for_a_commit_and_another_for_the_next() -> None:
    every = dict.fromkeys(ids(LESSON, "test_mistake", 80), 8)
    one, again, other = (sample(every, {LESSON: PROVED}, draw) for draw in ("a", "a", "b"))
    assert one == again != other


def test_what_takes_long_to_prepare_is_sampled_of_whole_lessons_the_same_for_all_kinds() -> None:
    cells = [f"solutions/{lesson}/x.ipynb::Cell {i}" for lesson in proofs.LESSONS for i in range(5)]
    others = [nodeid for lesson in proofs.LESSONS for nodeid in ids(lesson, "test_whole", 3)]
    found = sample(dict.fromkeys(cells + others, proofs.WHOLE), dict.fromkeys(proofs.LESSONS, PROVED), "a")
    assert len(found) == (5 + 3) * proofs.LESSONS_WHOLE
    assert len({lesson_of(nodeid) for nodeid in found}) == proofs.LESSONS_WHOLE


def test_a_canary_has_a_right_program_three_mistakes_and_a_sly_one_of_each_lesson() -> None:
    kinds = [nodeid for kind in (*proofs.CANARY, "test_other") for nodeid in ids(LESSON, kind, 9) + ids(OTHER, kind, 9)]
    assert len(canary(kinds, "a")) == 2 * (1 + 3 + 1)


def test_a_lessons_file_makes_its_proof_missing_and_a_room_that_judges_makes_the_sample_larger(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = proofs.key(LESSON)
    assert standing(LESSON, {LESSON: now}) == PROVED
    assert standing(LESSON, {LESSON: now | {"judging": "other"}}) == OTHER_JUDGE
    assert standing(LESSON, {LESSON: now | {"versions": {}}}) == OTHER_JUDGE
    assert standing(LESSON, {LESSON: now | {"lesson": "other"}}) == standing(LESSON, {}) == MISSING


def test_what_a_proof_depends_on_is_found_by_imports() -> None:
    found = {path.relative_to(proofs.PROJECT).as_posix() for path in proofs.judging_files()}
    assert {"grader/tolerance.py", "grader/checks/judge/judging.py", "grader/grading/sandbox/jail.py"} <= found
    assert {"tests/lessons/test_mistakes.py", "tests/support/mutants.py", "conftest.py"} <= found
    families = Path(proofs.PROJECT).glob("grader/authoring/families/*.toml")
    assert {path.relative_to(proofs.PROJECT).as_posix() for path in families} <= found
    assert "tests/kv/test_kv.py" not in found


def test_an_entry_that_no_proof_wrote_is_noticed() -> None:
    nodeids = ids(LESSON, "test_mistake", 3)
    options = {"--sample": True}
    config: Any = SimpleNamespace(
        getoption=options.get, workerinput={"stands": {}, "record": {}, "passed": {}, "draw": "a"}
    )
    chosen = Proofs(config)
    chosen.stands, chosen.record = {LESSON: PROVED}, {LESSON: {"ids": ids_digest(nodeids)}}
    chosen._compare_ids(LESSON, nodeids)
    with pytest.raises(pytest.UsageError, match="no proof wrote this entry"):
        chosen._compare_ids(LESSON, nodeids[1:])
    chosen.stands = {LESSON: OTHER_JUDGE}
    chosen._compare_ids(LESSON, nodeids[1:])
    assert chosen.stands == {LESSON: MISSING}
