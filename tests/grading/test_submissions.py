"""What is taken from a submitted file: solution cells by their names, and nothing from a damaged one but a reason."""

import copy
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attack_course import LESSON, RIGHT, make_course, submit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grader.grading.classroom.engine import Settings, grade_class
from grader.grading.nbgrader.gradebook import read_secret, read_timestamp
from grader.grading.running.plan import Plan, read_plan
from grader.grading.running.submission import Submission, Unreadable, parse, program, read_submission
from grader.grading.sandbox.dependencies import bound_names, needed, plain_python, used_names
from grader.grading.sandbox.limits import Limits

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("submissions")
    make_course(root, secret=None)
    return root


@pytest.fixture(scope="module")
def plan(root: Path) -> Plan:
    return read_plan(root / "course" / LESSON)


@pytest.fixture
def notebook(root: Path) -> dict[str, Any]:
    """A right submission, as JSON."""
    loaded: dict[str, Any] = json.loads(submit(root, "someone", RIGHT).read_text())
    return loaded


def parsed(notebook: Any, plan: Plan) -> Submission:
    return parse(json.dumps(notebook).encode(), plan)


def exercise_cell(notebook: dict[str, Any], name: str) -> dict[str, Any]:
    return next(cell for cell in notebook["cells"] if cell["metadata"].get("exercise") == name)


def code(source: str) -> dict[str, Any]:
    return {"cell_type": "code", "metadata": {}, "source": source, "outputs": [], "execution_count": None}


# --- what is taken ---


def test_only_solution_cells_are_taken_by_name(notebook: dict[str, Any], plan: Plan) -> None:
    submission = parsed(notebook, plan)
    assert [cell.grade_id for cell in submission.cells if cell.grade_id] == ["toy-linear", "toy-relu"]
    assert all("check(" not in cell.source for cell in submission.cells)


def test_of_two_cells_with_one_name_the_last_counts(notebook: dict[str, Any], plan: Plan) -> None:
    notebook["cells"].append(dict(exercise_cell(notebook, "toy.relu"), source="relu = 2"))
    submission = parsed(notebook, plan)
    assert submission.source_of("toy-relu") == "relu = 2"
    assert "more than one cell `toy-relu`" in " ".join(submission.notes)


def test_a_cell_turned_into_markdown_is_run_all_the_same(notebook: dict[str, Any], plan: Plan) -> None:
    exercise_cell(notebook, "toy.relu")["cell_type"] = "markdown"
    assert parsed(notebook, plan).source_of("toy-relu") is not None


def test_a_missing_cell_is_no_part_of_what_runs(notebook: dict[str, Any], plan: Plan) -> None:
    notebook["cells"].remove(exercise_cell(notebook, "toy.relu"))
    assert [part.exercise for part in program(parsed(notebook, plan), plan) if part.exercise] == ["toy.linear"]


def test_free_cells_go_to_the_solution_that_follows_them(notebook: dict[str, Any], plan: Plan) -> None:
    cells = notebook["cells"]
    cells.insert(cells.index(exercise_cell(notebook, "toy.relu")), code("floor = 0"))
    parts = {part.exercise: part for part in program(parsed(notebook, plan), plan)}
    assert [text for _, text in parts["toy.relu"].free] == ["floor = 0"]
    assert parts["toy.linear"].free == ()


@pytest.mark.parametrize(
    ("source", "used"),
    [
        ("def f(x):\n    return g(x) + x", {"g"}),
        ("class A(B):\n    def f(self):\n        y = 1\n        return y + z", {"B", "z"}),
        ("import math\ny = math.pi * w", {"math", "w"}),
        ("not python at all", set()),
    ],
)
def test_names_that_a_solution_uses(source: str, used: set[str]) -> None:
    assert used_names(source) - {"range"} >= used
    assert not {"x", "self"} & used_names(source)


def test_names_that_a_cell_defines() -> None:
    assert bound_names("import a.b as c\nfrom d import e\nf, g = 1, 2\nclass H: pass\ndef i(): j = 1") == set("cefgHi")
    assert "*" in bound_names("from math import *")
    assert bound_names("Linear.forward = forward") >= {"Linear"}


def test_needed_cells_are_found_through_each_other() -> None:
    free = [(0, "a = 1"), (1, "unrelated = 2"), (2, "def b():\n    return a")]
    assert needed("def relu(x):\n    return b()", free) == [free[0], free[2]]


def test_lines_that_only_ipython_understands_are_left_out() -> None:
    assert plain_python("%matplotlib inline\nif True:\n    !ls\nx = 5 % 3") == "pass\nif True:\n    pass\nx = 5 % 3"
    assert plain_python("%%bash\nls") == ""
    assert plain_python("text = '''\n%d'''") == "text = '''\n%d'''"


def test_a_helper_and_a_magic_in_a_submission_earn_full_marks(root: Path) -> None:
    path = submit(root, "helper", RIGHT | {"toy.relu": "%time\ndef relu(x):\n    return x.clamp(min=floor())"})
    notebook = json.loads(path.read_text())
    at = notebook["cells"].index(exercise_cell(notebook, "toy.relu"))
    notebook["cells"][at:at] = [code("ZERO = 0"), code("def floor():\n    return ZERO"), code("raise ValueError")]
    path.write_text(json.dumps(notebook))
    (graded,) = grade_class(root, LESSON, Settings(students=("helper",)))
    assert graded.result is not None and graded.result.points == 5.0
    shown = (root / "autograded" / "helper" / LESSON / "toy.ipynb").read_text()
    assert "ZERO = 0" in shown and "raise ValueError" not in shown


# --- what is damaged ---


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON"),
        (b'{"cells": [', "not JSON"),
        (b"\xff\xfe\x00", "not text"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "no notebook"),
        (b'{"nbformat": 3, "worksheets": []}', "old format 3"),
        (b'{"nbformat": true, "cells": []}', "format 4"),
        (b'{"nbformat": 5, "cells": []}', "format 4"),
        (b'{"nbformat": 4}', "no list of cells"),
        (b'{"nbformat": 4, "cells": {}}', "no list of cells"),
        (b'{"nbformat": 4, "cells": [' + b"0," * 6000 + b"0]}", "at most"),
        (b'{"nbformat": ' + b"4" * 10_000 + b"}", "thousands of digits"),
    ],
)
def test_a_file_that_is_no_notebook_is_refused_with_a_reason(content: bytes, reason: str, plan: Plan) -> None:
    with pytest.raises(Unreadable, match=reason):
        parse(content, plan)


def test_another_language_is_noted(notebook: dict[str, Any], plan: Plan) -> None:
    notebook["metadata"] = {"kernelspec": {"language": "R", "name": "ir"}}
    assert "written in 'R'" in parsed(notebook, plan).notes[0]


def damaged(notebook: dict[str, Any], random: random.Random, odd: Any) -> Any:
    """The notebook with one value, anywhere in it, replaced or taken out."""
    places: list[tuple[Any, Any]] = []
    open_values = [notebook]
    while open_values:
        value = open_values.pop()
        for key in value if isinstance(value, dict) else range(len(value)):
            places.append((value, key))
            if isinstance(value[key], dict | list):
                open_values.append(value[key])
    container, key = random.choice(places)
    if random.random() < 0.3:
        del container[key]
    else:
        container[key] = copy.deepcopy(odd)  # itself it could come to hold itself
    return notebook


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(odd=JSON, seed=st.integers(0, 10**9), times=st.integers(1, 5))
def test_a_notebook_damaged_anywhere_is_read_or_refused(
    root: Path, plan: Plan, notebook: dict[str, Any], odd: Any, seed: int, times: int
) -> None:
    chance, notebook = random.Random(seed), copy.deepcopy(notebook)
    for _ in range(times):
        damaged(notebook, chance, odd)
    readable(json.dumps(notebook).encode(), plan)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1), junk=st.binary(max_size=8), cut=st.booleans())
def test_a_notebook_cut_or_overwritten_anywhere_is_read_or_refused(
    root: Path, plan: Plan, notebook: dict[str, Any], at: float, junk: bytes, cut: bool
) -> None:
    content = json.dumps(notebook).encode()
    place = int(at * len(content))
    readable(content[:place] + junk + (b"" if cut else content[place + len(junk) :]), plan)


def readable(content: bytes, plan: Plan) -> None:
    """It is parsed to what can be stored, or refused with a sentence."""
    try:
        submission = parse(content, plan)
    except Unreadable as error:
        assert str(error).endswith(".")
        return
    names = [cell.grade_id for cell in submission.cells if cell.grade_id]
    assert len(names) == len(set(names)) and set(names) <= {"toy-linear", "toy-relu"}
    for part in program(submission, plan):
        part.source.encode()


# --- a class of damaged notebooks, graded ---


def damage(path: Path, seed: int) -> None:
    """One of many ways to spoil a file, chosen by a seed."""
    chance = random.Random(seed)
    content = path.read_bytes()
    notebook = json.loads(content)
    odd: Any = chance.choice([None, 7, -1.5, "text", [], {}, [[]], {"a": None}, "\ud800", 10**30, True])
    ways = [
        lambda: path.write_bytes(content[: chance.randrange(len(content))]),
        lambda: path.write_bytes(bytes(chance.randrange(256) for _ in range(500))),
        lambda: path.write_text(json.dumps(damaged(notebook, chance, odd))),
        lambda: path.write_text(json.dumps(dict(notebook, nbformat=chance.choice([1, 2, 3, 5, "4", None])))),
        lambda: path.write_text(json.dumps(dict(notebook, metadata={"kernelspec": {"language": "julia"}}))),
        lambda: path.write_text("[" * 10 ** chance.randrange(2, 6)),
        lambda: path.write_text(json.dumps(dict(notebook, cells=notebook["cells"] * chance.randrange(2, 400)))),
        lambda: path.write_text(json.dumps(dict(notebook, cells=list(reversed(notebook["cells"]))))),
        lambda: path.write_bytes(content + b" " * (33 << 20)),
        lambda: path.write_text(json.dumps(notebook).replace("toy-", chance.choice(["", "toy-toy-", "\\u0000"]))),
    ]
    chance.choice(ways)()


def damaged_class(root: Path, count: int) -> Iterator[str]:
    for seed in range(count):
        student = f"damaged-{seed}"
        damage(submit(root, student, RIGHT), seed)
        yield student


def test_a_class_of_damaged_notebooks_is_graded_with_a_reason_for_each(root: Path) -> None:
    students = tuple(damaged_class(root, 60))
    results = grade_class(root, LESSON, Settings(students=students, limits=Limits(exercise_seconds=5)))
    assert len(results) == len(students)
    for graded in results:
        assert graded.result is not None, graded
        assert graded.result.points in (0.0, 2.0, 3.0, 5.0)
        for exercise in graded.result.exercises:
            assert exercise.right or exercise.summary
        path = root / "submitted" / graded.student / LESSON / "toy.ipynb"
        taken = read_submission(path, read_plan(root / "course" / LESSON))
        if taken.source_of("toy-linear") is None:  # no cell, no credit
            assert graded.result.exercises[0].points == 0.0


@pytest.mark.parametrize("put", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/etc/passwd")])
def test_what_is_no_file_beside_a_notebook_is_no_time_and_no_secret(tmp_path: Path, put: Any) -> None:
    put(tmp_path / "one.txt")
    assert read_timestamp(tmp_path / "one.txt") == (None, "")
    assert len(read_secret(tmp_path / "one.txt")) == 128


def test_a_submissions_secret_is_kept_so_that_its_feedback_can_be_released(root: Path) -> None:
    path = submit(root, "exchanged", RIGHT).with_name("submission_secret.txt")
    path.write_text("0123456789abcdef" * 8)
    grade_class(root, LESSON, Settings(students=("exchanged",)))
    kept = root / "autograded" / "exchanged" / LESSON / path.name
    assert kept.read_text() == path.read_text()


def test_a_submissions_own_folder_alone_tells_its_secret_and_its_time(tmp_path: Path) -> None:
    """A link to another's folder would have one's own page released where theirs is looked for."""
    theirs, mine = tmp_path / "them" / LESSON, tmp_path / "me" / LESSON
    theirs.mkdir(parents=True)
    (theirs / "submission_secret.txt").write_text(secret := "0123456789abcdef" * 8)
    (theirs / "timestamp.txt").write_text("2026-02-01 00:00:00 UTC")
    mine.parent.mkdir()
    mine.symlink_to(theirs)
    (tmp_path / "all").symlink_to(theirs.parent)
    assert read_secret(theirs / "submission_secret.txt") == secret
    assert (
        read_secret(mine / "none.txt", theirs / "submission_secret.txt") == secret
    )  # the one that it was given before
    for folder in (mine, tmp_path / "all" / LESSON):
        assert read_secret(folder / "submission_secret.txt") != secret
        assert read_timestamp(folder / "timestamp.txt") == (None, "")


def test_a_notebook_of_too_many_objects_is_refused_before_it_is_read(plan: Plan) -> None:
    with pytest.raises(Unreadable, match="brackets and commas"):
        parse(b'{"nbformat": 4, "cells": [' + b"{}," * 400_000 + b"{}]}", plan)
