"""Every cell has an id of its own, which stands in the twin and stays whatever becomes of the cell's text."""

from pathlib import Path

import nbformat
import pytest
from toy_course import write_course

from grader.authoring.assemble import assemble, sources_hash
from grader.authoring.ids import give_ids
from grader.authoring.sync import empty_given, sync_twin
from grader.errors import RecordingError
from grader.lessons.lesson import Lesson, lessons
from grader.lessons.notebooks import read_notebook
from grader.lessons.twin import read_twin

pytestmark = pytest.mark.sampled(1)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def lesson(tmp_path: Path) -> Lesson:
    """A lesson whose cells have their ids, with its notebook, which is not executed."""
    first, _ = write_course(tmp_path)
    give_ids(first)
    write_assembled(first)
    return first


def write_assembled(lesson: Lesson) -> None:
    notebook = assemble(lesson, lesson.exercises()[0])
    notebook.metadata["grader"] = {"sources": sources_hash(notebook.cells)}
    nbformat.write(notebook, lesson.notebook)


def ids(lesson: Lesson) -> list[str]:
    return [cell.id for cell in read_twin(lesson.twin).cells]


def replace_in(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_a_new_cell_gets_an_id_once_and_keeps_it(lesson: Lesson) -> None:
    before = ids(lesson)
    assert all(before) and len(set(before)) == len(before) == 9
    assert {"setup", "toy-linear", "check-toy-linear", "toy-relu", "check-toy-relu"} < set(before)
    text = lesson.twin.read_text()
    assert give_ids(lesson) == 0
    assert lesson.twin.read_text() == text
    assert '# %% check="toy.relu" id="check-toy-relu"\n' in text


def test_an_id_is_the_notebooks_and_nbgraders(lesson: Lesson) -> None:
    cells = read_notebook(lesson.notebook).cells
    assert [cell.id for cell in cells] == ids(lesson)
    assert {cell.metadata.nbgrader.grade_id == cell.id for cell in cells if "nbgrader" in cell.metadata} == {True}
    assert not any("id" in cell.metadata for cell in cells)


def test_editing_a_cells_text_keeps_its_id(lesson: Lesson) -> None:
    before = ids(lesson)
    replace_in(lesson.twin, "# # Two small exercises", "# # Two other exercises")
    replace_in(lesson.twin, "x.clamp(min=0)\n    ### END", "x.relu()\n    ### END")
    assert give_ids(lesson) == 0
    write_assembled(lesson)
    assert ids(lesson) == before == [cell.id for cell in read_notebook(lesson.notebook).cells]


def test_ids_alone_make_no_notebook_stale(lesson: Lesson) -> None:
    hashed = sources_hash(read_notebook(lesson.notebook).cells)
    replace_in(lesson.twin, 'id="setup"', 'id="imports"')
    assert sources_hash(assemble(lesson, lesson.exercises()[0]).cells) == hashed
    assert sync_twin(lesson) is None


def test_a_cell_that_is_renamed_or_marked_keeps_its_id(lesson: Lesson) -> None:
    for name in ("exercise", "check"):
        replace_in(lesson.twin, f'# %% {name}="toy.relu"', f'# %% {name}="toy.rectified"')
    replace_in(lesson.twin, 'check("toy.relu"', 'check("toy.rectified"')
    replace_in(lesson.exercises_file, "toy.relu", "toy.rectified")
    assert give_ids(lesson) == 0
    cells = assemble(lesson, lesson.exercises()[0]).cells
    marked = [cell.metadata.nbgrader.grade_id for cell in cells if "nbgrader" in cell.metadata]
    assert marked == ["setup", "toy-linear", "check-toy-linear", "toy-relu", "check-toy-relu"]


def test_a_cell_between_others_changes_no_id_but_gets_its_own(lesson: Lesson) -> None:
    before = ids(lesson)
    new, exercise = '# %% tags=["setup"]\nimport math\n\n', '# %% exercise="toy.linear"'
    replace_in(lesson.twin, exercise, new + exercise)
    assert give_ids(lesson) == 1
    after = ids(lesson)
    assert [one for one in after if one in before] == before
    assert [one for one in after if one not in before] == ["setup-2"]


def test_two_new_cells_that_say_the_same_get_two_ids(lesson: Lesson) -> None:
    with lesson.twin.open("a") as twin:
        twin.write("\n# %%\nprint(1)\n\n# %%\nprint(1)\n")
    assert give_ids(lesson) == 2
    assert len(set(ids(lesson))) == len(ids(lesson))


def test_an_id_that_stands_twice_is_refused(lesson: Lesson) -> None:
    replace_in(lesson.twin, 'id="check-toy-relu"', 'id="check-toy-linear"')
    with pytest.raises(RecordingError, match=r'two cells with id="check-toy-linear"\. Remove it'):
        give_ids(lesson)


@pytest.mark.parametrize("wrong", ["two words", "a.b", "x" * 65])
def test_an_id_that_no_notebook_can_hold_is_refused(lesson: Lesson, wrong: str) -> None:
    replace_in(lesson.twin, 'id="check-toy-relu"', f'id="{wrong}"')
    with pytest.raises(RecordingError, match="which no notebook can hold"):
        give_ids(lesson)


def test_cells_edited_in_a_notebook_keep_their_ids_and_new_ones_get_short_ones(lesson: Lesson) -> None:
    before = ids(lesson)
    notebook = read_notebook(lesson.notebook)
    notebook.cells[0].source = "# Two other exercises"
    notebook.cells.insert(2, nbformat.v4.new_markdown_cell("Something new.", id="5b0ae1c2-6c8a-4f6e-9a53-0d1d7e6f0a11"))
    notebook.cells[-1], notebook.cells[-2] = notebook.cells[-2], notebook.cells[-1]
    nbformat.write(notebook, lesson.notebook)
    assert sync_twin(lesson) == lesson.notebook
    assert give_ids(lesson) == 1
    after = ids(lesson)
    new = after.pop(2)
    assert len(new) == 8 and new not in before
    assert after == [*before[:-2], before[-1], before[-2]]


def test_an_editor_that_knows_no_ids_changes_none_but_those_of_texts_it_changed(lesson: Lesson) -> None:
    before = ids(lesson)
    notebook = read_notebook(lesson.notebook)
    for place, cell in enumerate(notebook.cells):
        cell.id = f"other-{place}"
    notebook.cells[3].source += "\n"
    notebook.cells[0].source = "# Two other exercises"
    nbformat.write(notebook, lesson.notebook)
    sync_twin(lesson)
    assert give_ids(lesson) == 1
    assert ids(lesson)[1:] == before[1:]


def test_a_twin_that_lost_its_ids_gets_the_notebooks(lesson: Lesson) -> None:
    text = lesson.twin.read_text()
    replace_in(lesson.twin, 'id="check-toy-relu"', 'id="of-old"')
    write_assembled(lesson)
    lesson.twin.write_text("\n".join(line.partition(' id="')[0] for line in text.split("\n")))
    assert give_ids(lesson) == 9
    assert lesson.twin.read_text() == text.replace('id="check-toy-relu"', 'id="of-old"')


def test_a_twin_that_is_written_from_its_notebook_has_its_ids(lesson: Lesson) -> None:
    before = ids(lesson)
    lesson.twin.unlink()
    sync_twin(lesson)
    assert ids(lesson) == before


def test_emptying_given_cells_keeps_ids(tmp_path: Path) -> None:
    _, second = write_course(tmp_path)
    give_ids(second)
    before = ids(second)
    replace_in(
        second.twin,
        '# %% given="00-toy toy.linear" id="given-00-toy-toy-linear"\n',
        '# %% given="00-toy toy.linear" id="given-00-toy-toy-linear"\nLinear = None\n',
    )
    assert empty_given(second) == 1
    assert "Linear = None" not in second.twin.read_text()
    assert ids(second) == before == ["setup", "given-00-toy-toy-linear", "next-twice", "check-next-twice"]


@pytest.mark.parametrize("lesson", lessons(ROOT), ids=lambda lesson: lesson.name)
def test_a_lessons_twin_notebook_and_release_have_the_same_ids(lesson: Lesson) -> None:
    released = ROOT / "course" / lesson.name / lesson.notebook.name
    own = [cell.id for cell in read_twin(lesson.twin).cells]
    assert all(own) and len(set(own)) == len(own)
    assert own == [cell.id for cell in read_notebook(lesson.notebook).cells]
    assert own == [cell.id for cell in read_notebook(released).cells]
