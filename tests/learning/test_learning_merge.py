"""A learner's notebook and a new release become one, and nothing of the learner's is ever lost."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import nbformat
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nbformat import NotebookNode

from grader.learning.merge import BOTH_CHANGED, NEW_STUB, NO_LONGER_THERE, merge, renamed_exercises, unknown_base

STUB = "class {0}(nn.Module):\n    def forward(self, x):\n        raise NotImplementedError()"


def cell(name: str, source: str = "", kind: str = "code", **metadata: Any) -> NotebookNode:
    made = {"cell_type": kind, "id": name, "metadata": metadata, "source": source or f"print({name!r})"}
    return nbformat.from_dict(made | ({"outputs": [], "execution_count": None} if kind == "code" else {}))


def exercise(name: str, source: str = "") -> NotebookNode:
    told = {"grade_id": f"toy-{name}", "solution": True, "schema_version": 3}
    return cell(f"toy-{name}", source or STUB.format(name), exercise=f"toy.{name}", nbgrader=told)


def check(name: str) -> NotebookNode:
    return cell(f"check-{name}", f'check("toy.{name}", {name})', check=f"toy.{name}", editable=False, deletable=False)


def notebook(*cells: NotebookNode) -> NotebookNode:
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    made = {"cells": list(cells), "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return nbformat.from_dict(nbformat.from_dict(made).copy())


def lesson() -> list[NotebookNode]:
    return [
        cell("title", "# A lesson", "markdown"),
        cell("setup", "import torch", tags=["setup"], editable=False),
        exercise("norm"),
        check("norm"),
        cell("why", "Why it is so.", "markdown"),
        cell("try", "print(norm)"),
        exercise("mlp"),
        check("mlp"),
    ]


def sources(merged: NotebookNode) -> list[str]:
    return [one.source for one in merged.cells]


def after(change: Callable[[list[NotebookNode]], object], cells: list[NotebookNode] | None = None) -> NotebookNode:
    cells = lesson() if cells is None else cells
    change(cells)
    return notebook(*cells)


def set_source(at: int, source: str) -> Callable[[list[NotebookNode]], object]:
    return lambda cells: cells[at].update(source=source)


def test_what_only_the_course_changed_is_new() -> None:
    new = after(set_source(4, "Why it is really so."))
    done = merge(notebook(*lesson()), notebook(*lesson()), new)
    assert done.notebook.cells == new.cells
    assert (done.new, done.yours, done.twice) == (1, 0, 0)


@pytest.mark.parametrize("at", range(8))
def test_what_only_the_learner_changed_stays_whatever_kind_of_cell_it_is(at: int) -> None:
    mine = after(set_source(at, "x = 'mine'"))
    done = merge(notebook(*lesson()), mine, notebook(*lesson()))
    assert done.notebook.cells == mine.cells
    assert done.yours == 1


def test_where_both_changed_a_cell_both_stand_one_below_the_other_with_a_sentence() -> None:
    mine, new = after(set_source(5, "print('mine')")), after(set_source(5, "print('theirs')"))
    found = sources(merge(notebook(*lesson()), mine, new).notebook)
    at = found.index("print('mine')")
    assert found[at : at + 3] == ["print('mine')", BOTH_CHANGED, "print('theirs')"]


def test_a_changed_stub_is_shown_beside_the_solution_and_does_not_run() -> None:
    solved, stub = "class norm: ...", STUB.format("norm").replace("x", "hidden")
    done = merge(notebook(*lesson()), after(set_source(2, solved)), after(set_source(2, stub)))
    at = sources(done.notebook).index(solved)
    own, shown = done.notebook.cells[at : at + 2]
    assert own.id == "toy-norm" and own.metadata["nbgrader"]["grade_id"] == "toy-norm"
    assert shown.cell_type == "markdown" and shown.source.startswith(NEW_STUB) and stub in shown.source
    assert stub not in sources(done.notebook)


def test_a_stub_that_is_not_written_yet_is_simply_replaced() -> None:
    stub = STUB.format("norm").replace("x", "hidden")
    done = merge(notebook(*lesson()), notebook(*lesson()), after(set_source(2, stub)))
    assert done.notebook.cells[2].source == stub
    assert len(done.notebook.cells) == len(lesson())


def test_a_renamed_exercise_is_followed_by_its_cells_id() -> None:
    def rename(cells: list[NotebookNode]) -> None:
        cells[6].metadata["exercise"] = cells[7].metadata["check"] = "toy.feed_forward"

    base, new = notebook(*lesson()), after(rename)
    done = merge(base, after(set_source(6, "class mlp: ...")), new)
    assert done.notebook.cells[6].source == "class mlp: ..."
    assert done.notebook.cells[6].metadata["exercise"] == "toy.feed_forward"
    assert renamed_exercises(base, new) == {"toy.mlp": "toy.feed_forward"}


def test_a_renamed_exercise_with_another_id_is_followed_by_its_text() -> None:
    new = notebook(*lesson()[:6], exercise("feed_forward"), check("feed_forward"))
    base = notebook(*lesson())
    done = merge(base, after(set_source(6, "class mlp: ...")), new).notebook
    by_id = {one.id: one for one in done.cells}
    assert by_id["toy-feed_forward"].source == "class mlp: ..."
    assert "toy-mlp" not in by_id and "check-mlp" not in by_id
    assert renamed_exercises(base, new) == {"toy.mlp": "toy.feed_forward"}


def test_a_cell_that_the_course_dropped_stays_only_where_it_was_changed() -> None:
    new = after(lambda cells: cells.pop(5))
    assert "print(norm)" not in sources(merge(notebook(*lesson()), notebook(*lesson()), new).notebook)
    found = sources(merge(notebook(*lesson()), after(set_source(5, "mine")), new).notebook)
    assert found[5:7] == [NO_LONGER_THERE, "mine"]


def test_a_deleted_paragraph_stays_away_and_a_deleted_check_comes_back() -> None:
    mine = notebook(*(one for one in lesson() if one.id not in ("why", "check-norm")))
    found = [one.id for one in merge(notebook(*lesson()), mine, notebook(*lesson())).notebook.cells]
    assert "why" not in found
    assert found[found.index("toy-norm") + 1] == "check-norm"


def test_cells_of_ones_own_stay_where_they_stood() -> None:
    mine = after(lambda cells: cells.insert(6, cell("own", "print('tried this')")))
    new = after(lambda cells: cells.insert(6, cell("added", "print('new')")))
    found = [one.id for one in merge(notebook(*lesson()), mine, new).notebook.cells]
    assert found[5:8] == ["try", "own", "added"]


def test_the_order_is_the_learners_where_only_they_moved_cells() -> None:
    mine = after(lambda cells: cells.insert(1, cells.pop(5)))
    assert merge(notebook(*lesson()), mine, notebook(*lesson())).notebook.cells == mine.cells


def test_cells_whose_ids_an_editor_changed_are_known_by_their_exercise_or_text() -> None:
    mine = after(set_source(2, "class norm: ..."))
    for place, one in enumerate(mine.cells):
        one.id = f"colab{place}"
    done = merge(notebook(*lesson()), mine, after(set_source(4, "New words.")))
    assert [one.id for one in done.notebook.cells] == [one.id for one in lesson()]
    assert done.notebook.cells[2].source == "class norm: ..."
    assert done.notebook.cells[4].source == "New words."


def test_outputs_stay_with_the_text_that_made_them() -> None:
    shown = nbformat.v4.new_output("stream", text="42")

    def ran(cells: list[NotebookNode]) -> None:
        cells[5].outputs = cells[1].outputs = [shown]

    done = merge(notebook(*lesson()), after(ran), after(set_source(1, "import numpy"))).notebook
    assert done.cells[5].outputs == [shown]
    assert done.cells[1].outputs == []


def test_without_the_release_it_came_from_every_difference_counts_as_the_learners() -> None:
    mine = after(set_source(2, "class norm: ..."), lesson()[:6])
    new = after(set_source(4, "New words."))
    done = merge(unknown_base(mine, new), mine, new).notebook
    assert done.cells[2].source == "class norm: ..."
    assert [one.id for one in done.cells if one.id in ("toy-mlp", "check-mlp")] == ["toy-mlp", "check-mlp"]
    assert "Why it is so." in sources(done)


# Random pairs of releases and edits.

NAMES = st.sampled_from("abcdefgh")
TEXTS = st.text("xyz `\n", min_size=1, max_size=6)


@st.composite
def releases(draw: st.DrawFn) -> list[NotebookNode]:
    cells = []
    for name in draw(st.lists(NAMES, unique=True, min_size=1, max_size=7)):
        kind = draw(st.sampled_from(["markdown", "code", "exercise", "given"]))
        if kind == "exercise":
            cells += [exercise(name), check(name)]
        elif kind == "given":
            cells.append(cell(name, given=f"00-toy toy.{name}", editable=False))
        else:
            cells.append(cell(name, draw(TEXTS), kind))
    return cells


@st.composite
def edited(draw: st.DrawFn, cells: list[NotebookNode], who: str) -> list[NotebookNode]:
    """The cells after a few edits: texts changed, cells added, pasted again, deleted, moved, split, run."""
    cells = [nbformat.from_dict(one) for one in cells]
    for step in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, max(len(cells) - 1, 0)))
        edit = draw(st.sampled_from(["change", "add", "paste", "delete", "move", "type", "run", "forget", "rename"]))
        if edit == "add" or not cells:
            cells.insert(at, cell(f"{who}{step}", draw(TEXTS), draw(st.sampled_from(["code", "markdown"]))))
        elif edit == "change":
            cells[at].source = draw(TEXTS)
        elif edit == "paste" and who == "mine":  # in a release it would be an exercise twice, which no build makes
            cells.insert(at, nbformat.from_dict({**cells[at], "id": f"{who}{step}"}))
        elif edit == "delete":
            del cells[at]
        elif edit == "move":
            cells.insert(draw(st.integers(0, len(cells) - 1)), cells.pop(at))
        elif edit == "type":
            cells[at] = cell(cells[at].id, cells[at].source, "markdown", **cells[at].metadata)
        elif edit == "run" and who == "mine" and cells[at].cell_type == "code":
            cells[at].outputs = [nbformat.v4.new_output("stream", text=draw(TEXTS))]
        elif edit == "forget" and who == "mine":
            cells[at].id = f"{who}{step}"
        elif edit == "rename" and who == "course":
            for one in cells:
                for role in ("exercise", "check"):
                    if one.metadata.get(role) == cells[at].metadata.get("exercise", "-"):
                        one.metadata[role] += "_renamed"
    return cells


@st.composite
def updates(draw: st.DrawFn) -> tuple[NotebookNode, NotebookNode, NotebookNode]:
    """A release, a learner's notebook made from it, and the next release."""
    base = draw(releases())
    return notebook(*base), notebook(*draw(edited(base, "mine"))), notebook(*draw(edited(base, "course")))


def content(one: NotebookNode) -> tuple[str, str]:
    return one.cell_type, one.source


@settings(max_examples=400)
@given(updates())
def test_nothing_of_a_learners_is_ever_lost(update: tuple[NotebookNode, NotebookNode, NotebookNode]) -> None:
    base, mine, new = update
    done = merge(base, mine, new).notebook
    nbformat.validate(done)
    assert len({one.id for one in done.cells}) == len(done.cells)
    theirs = Counter(map(content, mine.cells)) - Counter(map(content, base.cells))  # what they wrote
    assert theirs <= Counter(map(content, done.cells))
    for one in set(map(content, new.cells)) - set(map(content, base.cells)):  # and what the course wrote
        assert any(one[1] in found.source for found in done.cells)
    roles = [one.metadata["exercise"] for one in done.cells if "exercise" in one.metadata]
    assert {one.metadata["exercise"] for one in new.cells if "exercise" in one.metadata} <= set(roles)


@settings(max_examples=200)
@given(updates())
@example((notebook(*lesson()), after(set_source(2, "mine")), after(set_source(2, "theirs"))))
def test_a_second_update_changes_nothing(update: tuple[NotebookNode, NotebookNode, NotebookNode]) -> None:
    base, mine, new = update
    once = merge(base, mine, new).notebook
    assert merge(new, once, new).notebook.cells == once.cells
    again = merge(base, once, new).notebook  # the first was stopped before it had noted the new release
    written = Counter(map(content, once.cells)) - Counter(map(content, base.cells))
    assert written <= Counter(map(content, again.cells))


@settings(max_examples=100)
@given(updates())
def test_a_learner_who_changed_nothing_has_the_new_release(
    update: tuple[NotebookNode, NotebookNode, NotebookNode],
) -> None:
    base, _, new = update
    assert merge(base, base, new).notebook.cells == new.cells


ASKED = 'cost = predict("toy.cost", "what it costs", guess={0})'


@pytest.mark.parametrize("guess", ["40", "(20, 60)", '["a",\n "b"]'])
def test_a_guess_stays_where_the_course_asks_otherwise(guess: str) -> None:
    asked = ASKED.replace("what it costs", "what a token costs")
    base, mine, new = (cell("cost", text, prediction="toy.cost") for text in (ASKED.format("..."), "", asked))
    mine.source = ASKED.format(guess)
    new.source = asked.format("...")
    merged = merge(notebook(base), notebook(mine), notebook(new))
    assert sources(merged.notebook) == [asked.format(guess)]
    assert (merged.new, merged.yours, merged.twice) == (0, 1, 0)


def test_a_question_that_the_learner_rewrote_stands_beside_the_courses() -> None:
    base, mine, new = (
        cell("cost", text, prediction="toy.cost")
        for text in (ASKED.format("..."), "print('no guess from me')", ASKED.replace("it", "all").format("..."))
    )
    assert merge(notebook(base), notebook(mine), notebook(new)).twice == 1
