"""What `grader build` makes of a lesson, what it refuses to do, and what `grader build --check` finds."""

import io
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
import torch
from built_course import copy_built_course
from rich.console import Console
from toy_course import FIRST, FIRST_EXERCISES, write_course

from grader.authoring.build import build
from grader.authoring.figures import install_figures, write_figures
from grader.authoring.staging import staged_copy
from grader.authoring.stale import check_build
from grader.errors import GraderError, RecordingError
from grader.lessons.cells import without_markers
from grader.lessons.execution import execute_notebook
from grader.lessons.lesson import Lesson, lessons
from grader.recordings.recording import Recording

VARYING_CELL = -1


@dataclass(frozen=True)
class Course:
    root: Path

    @property
    def lessons(self) -> list[Lesson]:
        return lessons(self.root)

    @property
    def first(self) -> Lesson:
        return self.lessons[0]

    @property
    def released(self) -> Path:
        return self.root / "course" / "00-toy" / "toy.ipynb"

    def files(self) -> dict[str, bytes]:
        return {str(p.relative_to(self.root)): p.read_bytes() for p in sorted(self.root.rglob("*")) if p.is_file()}

    def problems(self) -> list[str]:
        return check_build(self.lessons)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("built")
    copy_built_course(root)
    return root


@pytest.fixture
def course(built: Path, tmp_path: Path) -> Course:
    """A course that was built, in a folder of the test's own."""
    return Course(Path(shutil.copytree(built, tmp_path / "course-copy")))


@pytest.fixture
def sources(tmp_path: Path) -> Lesson:
    """A lesson that was never built."""
    return write_course(tmp_path)[0]


def replace_in(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def edit_cell(path: Path, old: str, new: str) -> None:
    """Change a notebook's cells as a person does, leaving its metadata alone."""
    notebook = nbformat.read(path, as_version=4)
    assert any(old in cell.source for cell in notebook.cells)
    for cell in notebook.cells:
        cell.source = cell.source.replace(old, new)
    nbformat.write(notebook, path)


# --- what a build makes ---


def test_a_release_holds_the_notebook_the_recording_and_data_files_only(course: Course) -> None:
    released = sorted(str(p.relative_to(course.root)) for p in (course.root / "course").rglob("*") if p.is_file())
    assert released == [
        "course/00-toy/configs/toy.json",
        "course/00-toy/reference.safetensors",
        "course/00-toy/toy.ipynb",
        "course/01-next/next.ipynb",
        "course/01-next/reference.safetensors",
    ]


def test_a_released_notebook_has_no_solution_and_no_outputs(course: Course) -> None:
    text = course.released.read_text()
    assert "self.weight.T" not in text and "x.clamp" not in text and "SOLUTION" not in text
    for cell in nbformat.read(course.released, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
            assert set(cell.metadata) <= {"nbgrader", "deletable", "editable", "exercise", "check", "given", "tags"}


def test_cells_are_marked_for_nbgrader_with_the_points_of_exercises_py(course: Course) -> None:
    marked = {
        cell.metadata.nbgrader.grade_id: cell.metadata.nbgrader
        for lesson in course.lessons
        for cell in nbformat.read(lesson.notebook, as_version=4).cells
        if "nbgrader" in cell.metadata
    }
    assert marked["toy-linear"].solution and not marked["toy-linear"].locked
    assert marked["check-toy-linear"].grade and marked["check-toy-linear"].points == 3
    assert marked["check-toy-relu"].locked and marked["check-toy-relu"].points == 2
    assert marked["setup"].locked and not marked["setup"].grade
    assert marked["given-00-toy-toy-linear"].locked


def test_given_cells_are_filled_from_the_other_lessons_solution(course: Course) -> None:
    first, second = course.lessons
    (given,) = [cell for cell in second.cells() if cell.kind == "given"]
    assert given.source == without_markers(first.source_of("toy.linear"))
    assert "SOLUTION" not in given.source and "self.weight.T" in given.source
    (written,) = [c for c in nbformat.read(second.notebook, as_version=4).cells if "given" in c.metadata]
    assert written.source == given.source
    assert "self.weight.T" not in second.twin.read_text()


def test_progress_is_shown_and_outputs_are_stored_without_time_or_path_of_this_machine(sources: Lesson) -> None:
    with sources.twin.open("a") as twin:
        twin.write("\n# %%\nimport sys\nfrom pathlib import Path\n")
        twin.write('print(Path.cwd(), sys.executable, Path.home() / "models", f"{Path.home()}less")\n')
    shown = io.StringIO()
    build(sources, console=Console(file=shown))
    for part in ("took the cells of toy.py", "recorded", "executed toy.ipynb", "released to course/00-toy"):
        assert part in shown.getvalue()
    notebook = nbformat.read(sources.notebook, as_version=4)
    text = json.dumps(notebook)
    assert str(sources.folder.parent.parent) not in text and "grader-build-" not in text
    assert str(Path.home()) + "/" not in text and "iopub" not in text
    assert notebook.cells[-1].outputs[0].text.startswith(". <python>/bin/python")
    assert notebook.cells[-1].outputs[0].text.endswith(f" ~/models {Path.home()}less\n")
    check_output = notebook.cells[4].outputs[0]
    assert "toy.linear · 2 of 2 cases right" in check_output.data["text/plain"]
    assert notebook.metadata.language_info == {"name": "python", "pygments_lexer": "ipython3"}


def test_a_line_stays_above_the_report_that_it_is_printed_for(tmp_path: Path) -> None:
    source = "for port in 'AB':\n    print('port', end=' ', flush=True)\n    print(port)\n    display(port)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    outputs = execute_notebook(notebook, tmp_path).cells[0].outputs
    shown = [output.get("text") or output.data["text/plain"] for output in outputs]
    assert shown == ["port A\n", "'A'", "port B\n", "'B'"]


def test_building_again_changes_nothing_to_the_byte(course: Course) -> None:
    before = course.files()
    assert [build(lesson) for lesson in course.lessons] == [[], []]
    assert course.files() == before


def test_building_in_another_folder_gives_the_same_bytes(course: Course, sources: Lesson) -> None:
    build(sources)
    other = Course(sources.folder.parent.parent)
    assert other.released.read_bytes() == course.released.read_bytes()
    assert other.first.recording.read_bytes() == course.first.recording.read_bytes()
    notebooks = [nbformat.read(c.first.notebook, as_version=4) for c in (course, other)]
    for notebook in notebooks:
        notebook.cells[VARYING_CELL].outputs = []
    assert nbformat.writes(notebooks[0]) == nbformat.writes(notebooks[1])


def test_an_edited_notebook_changes_the_twin_and_an_edited_twin_the_notebook(course: Course) -> None:
    lesson = course.first
    edit_cell(lesson.notebook, "# Two small exercises", "# Two tiny exercises")
    os.utime(lesson.notebook, (0, 0))  # a fresh clone's times say nothing; what was built does
    shown = io.StringIO()
    build(lesson, console=Console(file=shown))
    assert "took the cells of toy.ipynb" in shown.getvalue()
    assert "# # Two tiny exercises" in lesson.twin.read_text()
    assert "Two tiny exercises" in course.released.read_text()
    replace_in(lesson.twin, "tiny", "little")
    build(lesson)
    assert "Two little exercises" in lesson.notebook.read_text()
    assert course.problems() == []


def test_a_notebook_is_taken_though_what_it_is_given_has_changed(course: Course) -> None:
    first, second = course.lessons
    replace_in(first.twin, "x @ self.weight.T + self.bias", "x @ self.weight.T + self.bias  # of all")
    build(first)
    edit_cell(second.notebook, "return linear(x)", "return linear(x) * 1")
    build(second)
    assert "return linear(x) * 1" in second.twin.read_text()
    assert "self.bias  # of all" in second.notebook.read_text()
    assert course.problems() == []


def test_where_exercises_are_written_otherwise_the_recording_and_outputs_that_vary_stay(course: Course) -> None:
    before = Recording.read(course.first.recording)
    notebook = course.first.notebook.read_bytes()
    replace_in(course.first.exercises_file, "points=3", "points=(1 + 2)")
    build(course.first)
    after = Recording.read(course.first.recording)
    assert after.content == before.content
    assert after.header["made_from"] != before.header["made_from"]
    assert course.first.notebook.read_bytes() == notebook
    assert course.problems() == []


# --- what a build refuses ---


def test_what_an_exercise_is_without_by_now_is_not_asked_any_more(course: Course) -> None:
    def asked() -> set[str]:
        cases = Recording.read(course.first.recording).task("toy.relu").cases
        return {type(variant).__name__ for case in cases for variant in case.variants}

    before = asked()
    left_out = min(before)
    named = f'name="toy.relu",\n        without={{"{left_out}": "a reason"}},'
    replace_in(course.first.folder / "exercises.py", 'name="toy.relu",', named)
    build(course.first)
    assert asked() <= before - {left_out}


def test_a_picture_that_the_twin_would_lose_is_refused(course: Course) -> None:
    notebook = nbformat.read(course.first.notebook, as_version=4)
    notebook.cells[0].source = "![cat](attachment:cat.png)"
    notebook.cells[0].attachments = {"cat.png": {"image/png": "aaaa"}}
    nbformat.write(notebook, course.first.notebook)
    with pytest.raises(RecordingError, match="pasted picture"):
        build(course.first)


def test_twin_and_notebook_both_edited_are_not_merged_by_losing_one(course: Course) -> None:
    replace_in(course.first.twin, "Two small", "Two tiny")
    edit_cell(course.first.notebook, "Two small", "Two little")
    before = course.files()
    with pytest.raises(RecordingError, match=r"toy\.py and toy\.ipynb were both edited"):
        build(course.first)
    assert course.files() == before


def test_a_notebook_that_was_worked_in_is_not_overwritten(course: Course) -> None:
    edit_cell(course.released, "raise NotImplementedError()", "return x")
    before = course.files()
    with pytest.raises(GraderError, match=r"course/00-toy/toy\.ipynb has been worked in.*--force"):
        build(course.first)
    assert course.files() == before


def test_a_note_of_ones_own_is_work_too(course: Course) -> None:
    notebook = nbformat.read(course.released, as_version=4)
    notebook.cells.append(nbformat.v4.new_markdown_cell("remember: broadcasting"))
    nbformat.write(notebook, course.released)
    with pytest.raises(GraderError, match="worked in"):
        build(course.first)


def test_force_moves_the_work_aside_and_releases(course: Course) -> None:
    fresh = course.released.read_bytes()
    earlier, backup = (course.released.with_name(f"toy-backup-{n}.ipynb") for n in (1, 2))
    earlier.write_text("kept from an earlier time")
    edit_cell(course.released, "raise NotImplementedError()", "return x")
    work = course.released.read_bytes()
    build(course.first, force=True)
    assert backup.read_bytes() == work
    assert earlier.read_text() == "kept from an earlier time"
    assert course.released.read_bytes() == fresh


def test_a_notebook_that_was_only_run_is_released_anew(course: Course) -> None:
    fresh = course.released.read_bytes()
    notebook = nbformat.read(course.released, as_version=4)
    notebook.cells[VARYING_CELL].outputs = [nbformat.v4.new_output("stream", text="1.5\n")]
    notebook.metadata.language_info = {"name": "python", "version": "3.11.2"}
    nbformat.write(notebook, course.released)
    build(course.first)
    assert course.released.read_bytes() == fresh


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("toy.py", 'print("the sum is", 1 + 1)', "1 / 0", "toy.ipynb of 00-toy does not run: cell 8 raised ZeroDiv"),
        ("toy.py", "return x.clamp(min=0)", "return x", "The solution of toy.relu is not right"),
        ("exercises.py", '" + self.bias"', '" * self.bias"', "occurs not at all"),
    ],
)
def test_a_build_that_fails_changes_nothing(course: Course, file: str, old: str, new: str, message: str) -> None:
    replace_in(course.first.folder / file, old, new)
    before = course.files()
    with pytest.raises(GraderError, match=message):
        build(course.first)
    assert course.files() == before


def with_a_config(lesson: Lesson) -> Path:
    """The lesson's folder, after a config to draw is written into it."""
    (lesson.folder / "configs").mkdir(exist_ok=True)
    tiny = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
    (lesson.folder / "configs" / "tiny.json").write_text(json.dumps(tiny))
    return lesson.folder


def test_figures_are_drawn_in_the_copy_and_change_the_lesson_only_when_they_are_installed(course: Course) -> None:
    folder = with_a_config(course.first)
    (folder / "lesson.toml").write_text('[[figures]]\nconfig = "configs/tiny.json"\nname = "Tiny"\n')
    before = course.files()
    with staged_copy(course.first) as staged:
        drawn = write_figures(staged)
        assert course.files() == before
        install_figures(drawn, staged, course.first)
    panels = {f"tiny-{part}.svg" for part in ("model", "attention", "mlp")}
    assert {file.name for file in (folder / "figures").iterdir()} == panels
    (folder / "lesson.toml").write_text("")
    with staged_copy(course.first) as staged:
        gone = install_figures(write_figures(staged), staged, course.first)
    assert {file.name for file in gone} == panels and not any((folder / "figures").iterdir())


def test_of_a_figure_those_panels_are_drawn_that_are_asked_for(course: Course) -> None:
    folder = with_a_config(course.first)
    figure = '[[figures]]\nconfig = "configs/tiny.json"\nname = "Tiny"\npanels = ["mlp"]\n'
    (folder / "lesson.toml").write_text(figure)
    assert [file.name for file in write_figures(course.first)] == ["tiny-mlp.svg"]
    (folder / "lesson.toml").write_text(figure.replace("mlp", "router"))
    with pytest.raises(GraderError, match="Tiny has no panel 'router'"):
        write_figures(course.first)


# --- what a check finds ---


def test_a_built_course_has_no_problems_on_another_machine(course: Course) -> None:
    for path in course.root.rglob("*"):
        os.utime(path, (1, 1))
    notebook = nbformat.read(course.first.notebook, as_version=4)
    notebook.cells[VARYING_CELL].outputs = []
    nbformat.write(notebook, course.first.notebook)
    (course.released.parent / ".ipynb_checkpoints").mkdir()
    (course.released.parent / ".ipynb_checkpoints" / "toy-checkpoint.ipynb").write_text("{}")
    assert course.problems() == []


@dataclass(frozen=True)
class Stale:
    """A change, and the files that are no longer as a build would leave them."""

    change: Callable[[Course], object]
    found: list[str]


def rewrite_recording(course: Course, noise: float) -> None:
    """Change every recorded value a little, everywhere the recording is, as another CPU's rounding does."""
    lesson = course.first
    old = Recording.read(lesson.recording)
    generator = torch.Generator().manual_seed(1)
    tensors = {k: t + noise * torch.randn(t.shape, generator=generator) for k, t in old._tensors.items()}
    Recording(old.header, tensors).write(lesson.recording)
    shutil.copy(lesson.recording, course.released.parent)


def set_points(course: Course) -> None:
    notebook = nbformat.read(course.first.notebook, as_version=4)
    notebook.cells[4].metadata.nbgrader.points = 30
    nbformat.write(notebook, course.first.notebook)


def edit_both(course: Course) -> None:
    replace_in(course.first.twin, "1 + 1", "2 + 2")
    edit_cell(course.first.notebook, "1 + 1", "2 + 2")


STALE = {
    "twin edited": Stale(
        lambda c: replace_in(c.first.twin, "small", "tiny"),
        ["solutions/00-toy/toy.ipynb: differs from toy.py, which was edited since the last build"],
    ),
    "notebook edited": Stale(
        lambda c: edit_cell(c.first.notebook, "small", "tiny"),
        ["solutions/00-toy/toy.py: differs from toy.ipynb", "course/00-toy/toy.ipynb: is not what"],
    ),
    "both edited alike": Stale(
        edit_both,
        ["solutions/00-toy/toy.ipynb: was not executed since its cells", "course/00-toy/toy.ipynb: is not what"],
    ),
    "solution edited": Stale(
        lambda c: replace_in(c.first.twin, "x.clamp(min=0)", "x.relu()"),
        ["solutions/00-toy/toy.ipynb: differs", "solutions/00-toy/reference.safetensors: was recorded from other"],
    ),
    "solution another lesson is given": Stale(
        lambda c: replace_in(c.first.twin, "x @ self.weight.T + self.bias", "self.bias + x @ self.weight.T"),
        [
            "solutions/00-toy/toy.ipynb: differs",
            "solutions/00-toy/reference.safetensors: was recorded",
            "solutions/01-next/next.ipynb: has given cells",
            "solutions/01-next/reference.safetensors: was recorded",
        ],
    ),
    "exercises edited": Stale(
        lambda c: replace_in(c.first.exercises_file, "points=3", "points=4"),
        ["solutions/00-toy/toy.ipynb: has other points", "solutions/00-toy/reference.safetensors: was recorded"],
    ),
    "exercises written otherwise": Stale(
        lambda c: replace_in(c.first.exercises_file, "points=3", "points=(1 + 2)"),
        ["solutions/00-toy/reference.safetensors: was recorded from other"],
    ),
    "points edited": Stale(
        set_points, ["solutions/00-toy/toy.ipynb: has other points", "course/00-toy/toy.ipynb: is not what"]
    ),
    "recorded values wrong": Stale(
        lambda c: rewrite_recording(c, 0.01),
        [
            "solutions/00-toy/toy.ipynb: was not executed since reference.safetensors was recorded",
            "solutions/00-toy/reference.safetensors: is not what the reference gives here: toy.linear",
        ],
    ),
    "recorded values rounded elsewhere": Stale(
        lambda c: rewrite_recording(c, 1e-7), ["solutions/00-toy/toy.ipynb: was not executed since reference"]
    ),
    "notebook missing": Stale(lambda c: c.first.notebook.unlink(), ["solutions/00-toy/toy.ipynb: is missing"]),
    "twin missing": Stale(
        lambda c: c.first.twin.unlink(),
        [
            "solutions/00-toy/toy.py: is missing",
            "solutions/01-next: solutions/00-toy must hold one notebook and its text twin",
        ],
    ),
    "recording missing": Stale(
        lambda c: c.first.recording.unlink(),
        ["course/00-toy/reference.safetensors: is not part", "solutions/00-toy/reference.safetensors: is missing"],
    ),
    "recording damaged": Stale(
        lambda c: c.first.recording.write_bytes(b"x"),
        [
            "solutions/00-toy/toy.ipynb: was not executed since reference",
            "course/00-toy/reference.safetensors: is not what",
            "solutions/00-toy: reference.safetensors can't be read",
        ],
    ),
    "release missing": Stale(
        lambda c: shutil.rmtree(c.released.parent),
        [f"course/00-toy/{name}: is missing" for name in ("configs/toy.json", "reference.safetensors", "toy.ipynb")],
    ),
    "release worked in": Stale(
        lambda c: edit_cell(c.released, "raise NotImplementedError()", "return x"),
        ["course/00-toy/toy.ipynb: is not what"],
    ),
    "answers in the release": Stale(
        lambda c: shutil.copy(c.first.exercises_file, c.released.parent),
        ["course/00-toy/exercises.py: is not part of the release"],
    ),
    "check cell deleted": Stale(
        lambda c: replace_in(c.first.twin, '# %% check="toy.relu"', "# %%"), ["solutions/00-toy/toy.ipynb: differs"]
    ),
}


@pytest.mark.parametrize("name", STALE)
def test_what_is_stale_is_found_and_how_to_mend_it(course: Course, name: str) -> None:
    STALE[name].change(course)
    problems = course.problems()
    for expected in STALE[name].found:
        assert any(line.startswith(expected) for line in problems), problems
    mends = "Delete it, or move it elsewhere" if name == "answers in the release" else "Mend it with: grader build 0"
    assert all(mends in line and "\n" not in line for line in problems)
    assert len(problems) == len(STALE[name].found), problems


def test_a_file_that_is_no_longer_released_is_left_and_named(course: Course) -> None:
    figure = course.first.folder / "figures" / "old.svg"
    figure.parent.mkdir(exist_ok=True)
    figure.write_text("<svg/>")
    build(course.first)
    figure.unlink()
    said = io.StringIO()
    build(course.first, console=Console(file=said, width=200))
    assert "course/00-toy/figures/old.svg is not part of the release: delete it, or move" in said.getvalue()
    assert (course.released.parent / "figures" / "old.svg").exists()


def test_a_figure_that_is_shown_and_not_there_stops_a_build(sources: Lesson) -> None:
    text = sources.twin.read_text()
    sources.twin.write_text(f"{text}\n\n# %% [markdown]\n# ![Two curves](figures/curves.svg)\n")
    with pytest.raises(GraderError, match=r"toy.py shows figures/curves.svg, which is not there. Put the picture into"):
        build(sources)
    (sources.folder / "figures").mkdir(exist_ok=True)
    (sources.folder / "figures" / "curves.svg").write_text("<svg/>")
    build(sources)


def test_a_check_changes_nothing(course: Course) -> None:
    replace_in(course.first.twin, "x.clamp(min=0)", "x.relu()")
    before = course.files()
    assert course.problems()
    assert course.files() == before


# --- what an author can get wrong ---


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('# %% check="toy.relu"', "# %%", "no check cell for `toy.relu`"),
        ('# %% check="toy.relu"', '# %% check="toy.selu"', "a check cell for `toy.selu`, but no solution cell"),
        ('# %% check="toy.relu"', '# %% check="toy.linear"', "more than one check cell for `toy.linear`"),
        ('# %% exercise="toy.relu"', '# %% exercise="toy.linear"', "more than one solution cell for `toy.linear`"),
        ("return x.clamp(min=0)\n    ### END SOLUTION", "return x", "BEGIN SOLUTION without ### END SOLUTION"),
        ("    ### BEGIN SOLUTION\n    return x", "    return x", "END SOLUTION where ### BEGIN SOLUTION should come"),
        ('    ### END SOLUTION\n\n# %% check="toy.relu"', '    ## END SOLUTION\n\n# %% check="toy.relu"', "alone on"),
        ("    return x.clamp(min=0)\n    ### END", "    ### BEGIN SOLUTION\n    ### END", "BEGIN SOLUTION where"),
        ('check("toy.relu", relu)', 'check("toy.linear", relu)', "`toy.relu` calls check on `toy.linear`"),
        ("def relu", "def gelu", "does not define `relu`"),
        ("def relu", "def relu relu", "not valid Python"),
        ("print(", "### BEGIN SOLUTION\nprint(", "only solution cells may have"),
    ],
)
def test_a_malformed_notebook_is_refused_in_a_line(sources: Lesson, old: str, new: str, message: str) -> None:
    replace_in(sources.twin, old, new)
    with pytest.raises(RecordingError) as raised:
        sources.validate()
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


ASKED = '\n\n# %% prediction="toy.sum"\npredict("toy.sum", "the sum", guess=...)\n\n# %%\nmeasured("toy.sum", 2)\n'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('# %% prediction="toy.sum"', "# %%", "`toy.sum` is asked in a cell that does not say so"),
        ("guess=...", "guess=2", "with the three dots for the learner to replace"),
        ('predict("toy.sum"', 'predict("toy.total"', "must have one call"),
        (
            'measured("toy.sum", 2)',
            "print(2)",
            'no cell below the prediction cell of `toy.sum` has `measured("toy.sum", ',
        ),
    ],
)
def test_a_question_that_is_not_asked_or_never_answered_is_refused(
    sources: Lesson, old: str, new: str, message: str
) -> None:
    text = sources.twin.read_text()
    sources.twin.write_text(text + ASKED)
    sources.validate()
    sources.twin.write_text(text + ASKED.replace(old, new))
    with pytest.raises(RecordingError) as raised:
        sources.validate()
    assert message in str(raised.value)


def test_a_solution_without_markers_is_refused(sources: Lesson) -> None:
    text = FIRST.replace("        ### BEGIN SOLUTION\n", "").replace("        ### END SOLUTION\n", "")
    sources.twin.write_text(text)
    with pytest.raises(RecordingError, match=r"`toy.linear` has no ### BEGIN SOLUTION"):
        sources.validate()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must define EXERCISES"),
        ("EXERCISES = [1]", "must define EXERCISES"),
        ("import nonsense_package", "No module named 'nonsense_package'.*pip install"),
        ("EXERCISES = [", "SyntaxError"),
        (FIRST_EXERCISES.replace("toy.relu", "toy.linear"), "more than one exercise named `toy.linear`"),
        (FIRST_EXERCISES + 'TRACE = "toy.model"', "TRACE = 'toy.model'"),
        (FIRST_EXERCISES.replace("toy.relu", "toy.selu"), "has `toy.selu`, but .* has no solution cell"),
        (FIRST_EXERCISES[: FIRST_EXERCISES.index('    Exercise(\n        name="toy.relu"')] + "]", "`toy.relu`, which"),
    ],
)
def test_a_wrong_exercises_file_is_refused(sources: Lesson, text: str, message: str) -> None:
    sources.exercises_file.write_text(text)
    with pytest.raises(RecordingError, match=message):
        sources.validate()


@pytest.mark.parametrize("given", ["00-toy", "99-none toy.linear", "00-toy toy.none"])
def test_a_given_cell_that_names_nothing_is_refused(tmp_path: Path, given: str) -> None:
    _, second = write_course(tmp_path)
    replace_in(second.twin, 'given="00-toy toy.linear"', f'given="{given}"')
    with pytest.raises(RecordingError):
        build(second)


def test_a_folder_with_two_notebooks_is_refused(sources: Lesson) -> None:
    (sources.folder / "other.py").write_text("# %%\n1\n")
    with pytest.raises(RecordingError, match="found: other, toy"):
        sources.cells()


@pytest.mark.parametrize("name", ["exercises.py", "others.py", "benchmark.py", "test_toy.py"])
def test_other_files_of_a_lesson_are_not_taken_for_its_twin(sources: Lesson, name: str) -> None:
    (sources.folder / name).write_text("raise AssertionError('this is no notebook')")
    assert (sources.twin.name, sources.notebook.name) == ("toy.py", "toy.ipynb")
    assert sources.cells()


# --- a lesson's namespace ---


def test_the_namespace_runs_only_what_every_exercise_relies_on(sources: Lesson) -> None:
    namespace = sources.namespace()
    assert "Linear" in namespace and "relu" in namespace and "torch" in namespace
    assert "time" not in namespace
    assert sources.namespace()["Linear"] is not namespace["Linear"]


def test_a_patched_cell_takes_the_place_of_its_exercise(sources: Lesson) -> None:
    patched = sources.namespace(("toy.relu", "def relu(x):\n    return x - missing\n"))["relu"]
    with pytest.raises(NameError) as raised:
        patched(torch.ones(1))
    assert "return x - missing" in "".join(traceback.format_exception(raised.value))
    with pytest.raises(RecordingError, match=r"cell 6 \(exercise cell of `toy.relu`\) fails: NameError"):
        sources.namespace(("toy.relu", "relu = missing"))
    with pytest.raises(RecordingError, match=r"no solution cell for `toy\.none`"):
        sources.namespace(("toy.none", ""))


def test_changed_sources_of_an_exercise_share_what_stands_above_it_and_nothing_below(sources: Lesson) -> None:
    changed = sources.changed("toy.linear")
    one = dict(changed("import math\nclass Linear: pass\nrelu = 3\n"))
    other = changed("class Linear: one = 1\n")
    assert one["torch"] is other["torch"] and one["math"] and "math" not in other
    assert callable(one["relu"]) and one["relu"] is not other["relu"]  # the cells below run after it, each time
    assert other["Linear"].one == 1 and other["relu"].__globals__ is other
    assert sys.modules[other["Linear"].__module__].__dict__ is other
    with pytest.raises(RecordingError, match=r"cell 4 \(exercise cell of `toy.linear`\) fails: NameError"):
        changed("Linear = missing")
    assert changed("Linear = 2")["Linear"] == 2
    with pytest.raises(RecordingError, match=r"no solution cell for `toy\.none`"):
        sources.changed("toy.none")
