"""A class on one machine: two students and a lecturer, nbgrader's own commands from release to feedback, marks."""

import csv
import functools
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import nbformat
import pytest
from attack_course import LESSON, RIGHT, submit
from built_course import copy_built_course
from nbgrader.apps import NbGraderAPI
from nbgrader.coursedir import CourseDirectory
from people import COURSE_ID, Class, Person, a_class
from real_nbgrader import LINEAR, RELU, write_answers
from rich.console import Console
from toy_course import PROJECT
from traitlets.config.loader import PyFileConfigLoader
from typer.testing import CliRunner

from grader.cli import app
from grader.errors import GraderError
from grader.grading.classroom import exposure
from grader.grading.classroom.command import summary
from grader.grading.classroom.engine import Graded, Settings, grade_class
from grader.grading.classroom.hidden import read_secret, remember_secret
from grader.grading.classroom.new_course import new_course
from grader.grading.classroom.similarity import PUBLISHED, groups, normal_form
from grader.grading.feedback import make
from grader.grading.feedback.make import make_feedback
from grader.grading.feedback.render import MAX_PAGE, duration
from grader.grading.nbgrader.export import _as_text, export
from grader.grading.nbgrader.gradebook_file import course_config, open_gradebook
from grader.lessons.lesson import Lesson, lessons

ALIVE = {"games": RIGHT, "man": {"toy.linear": LINEAR.format(bias=""), "toy.relu": RELU.format("x.relu()")}}
FORMULA = '=HYPERLINK("http://example.org")'  # a name that a spreadsheet computes


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("class")
    copy_built_course(root)
    return root


@pytest.fixture(scope="module")
def taught(course: Path) -> Iterator[Class]:
    """The class after release, submission, grading and feedback, with a comment and a score by hand between."""
    with a_class(course, LESSON, ALIVE) as made:
        teach(made)
        yield made


def teach(taught: Class) -> None:
    lecturer, root = taught.lecturer, taught.root
    people = [["db", "student", "add", "games", "--first-name=Gwen", "--last-name=Ames", "--lms-user-id=77"]]
    due = ["db", "assignment", "add", LESSON, "--duedate=2999-01-01 00:00:00 UTC"]
    lecturer.runs(*people, due, ["release_assignment", LESSON], cwd=root)
    for name, student in taught.students.items():
        worked = functools.partial(work, student.home / LESSON, name)
        assert LESSON in student.runs(["list"], ["fetch_assignment", LESSON], ["submit", LESSON], then=worked)
    lecturer.runs(["collect", LESSON], cwd=root)  # the lesson as it was released; what they have now comes later
    for student in taught.students.values():
        student.runs(["submit", LESSON], ["list", "--cached"])
    submit(root, "by-hand", RIGHT).with_name("timestamp.txt").write_text("yesterday")
    lecturer.runs(["db", "student", "add", "by-hand", f"--first-name={FORMULA}"], cwd=root)
    inbound = lecturer.runs(["list", "--inbound"], ["collect", LESSON], ["autograde", LESSON], cwd=root)
    assert all(name in inbound for name in taught.students)
    lecturer.runs(["generate_feedback", LESSON], cwd=root)
    with open_gradebook(root, course_config(root)) as (_, book):
        book.find_grade("check-toy-linear", "toy", LESSON, "man").manual_score = 1.5
        book.find_comment("toy-linear", "toy", LESSON, "man").manual_comment = "<b>Nearly</b>: $x W^T$ and `bias`"
        book.db.commit()
    lecturer.runs(["release_feedback", LESSON], cwd=root)
    for student in taught.students.values():
        said = student.runs(["fetch_feedback", LESSON], ["list", "--cached"])
        assert "feedback already fetched" in said


def work(folder: Path, name: str) -> None:
    """What a student does in a lesson that was fetched: one tries things in another notebook, one renames it."""
    write_answers(folder / "toy.ipynb", ALIVE[name])
    if name == "games":
        nbformat.write(nbformat.v4.new_notebook(), folder / "scratch.ipynb")
    else:
        (folder / "toy.ipynb").rename(folder / "toy of mine.ipynb")


def feedback_that_came(student: Person) -> str:
    (page,) = (student.home / LESSON / "feedback").rglob("toy*.html")
    return page.read_text()


# --- the circle ---


def test_work_goes_out_and_comes_back_marked(taught: Class) -> None:
    marks = {name: feedback_that_came(student) for name, student in taught.students.items()}
    assert "5 of 5 points" in marks["games"] and "bias" not in marks["games"].partition("<section")[0]
    assert "3.5 of 5 points" in marks["man"]  # the score by hand came after the pages, and the release made them anew
    assert "This is what comes out when the bias is left out." in marks["man"]


def test_work_that_came_by_hand_without_secret_and_time_stops_nobodys_feedback(taught: Class) -> None:
    released = taught.root.parent / "exchange" / COURSE_ID / "feedback"
    pages = [page.read_text() for page in released.glob("*.html")]
    # Two names each for games, who has another notebook, and man, who renamed theirs; one for what came by hand.
    assert (len(pages), sum("<strong>5 of 5 points" in page for page in pages)) == (5, 3)


def test_a_time_that_is_none_ends_no_list_of_the_formgraders(taught: Class) -> None:
    config = PyFileConfigLoader("nbgrader_config.py", path=str(taught.root)).load_config()
    config.CourseDirectory.root = str(taught.root)
    api = NbGraderAPI(CourseDirectory(config=config), config=config)
    assert api.get_submitted_timestamp(LESSON, "by-hand") is None
    assert api.get_submitted_timestamp(LESSON, "games") is not None


def test_a_student_can_enter_neither_the_course_nor_anothers_home(taught: Class) -> None:
    student = taught.students["man"]
    if student.user is None:
        pytest.skip("this process can't give a child another user")

    def look_around() -> None:
        for path in (taught.root / "gradebook.db", taught.root / "solutions", taught.students["games"].home / LESSON):
            with pytest.raises(PermissionError):
                path.read_bytes() if path.suffix else os.listdir(path)

    student.runs(then=look_around)


def test_nothing_is_released_while_students_could_read_the_solutions(taught: Class) -> None:
    taught.root.chmod(0o755)
    try:
        with pytest.raises(AssertionError, match=f"chmod 700 {taught.root}"):
            taught.lecturer.runs(["release_assignment", LESSON, "--force"], cwd=taught.root)
    finally:
        taught.root.chmod(0o700)


# --- the page ---


def test_a_page_begins_with_a_table_and_needs_no_network(taught: Class) -> None:
    page = feedback_that_came(taught.students["man"])
    top, _, below = page.partition("<section")
    assert "<script" not in page and "http:" not in top and "https:" not in top
    assert '<label for="go-check-toy-linear">Exercise 1 · Linear</label>' in top
    assert 'id="go-check-toy-linear"' in below and 'href="#' not in page  # JupyterLab's viewer leads such links away
    assert "Marked by hand: 1.5 points" in top and "(automatically 0)" in top
    assert "&lt;b&gt;Nearly" in below and "<math" in below and "<code>bias</code>" in below
    assert len(page) < MAX_PAGE


def test_only_what_changed_is_made_anew(taught: Class) -> None:
    assert not any(made.fresh for made in make_feedback(taught.root, LESSON))
    with open_gradebook(taught.root, course_config(taught.root)) as (_, book):
        book.find_comment("toy-relu", "toy", LESSON, "games").manual_comment = "Well done."
        book.db.commit()
    assert [made.student for made in make_feedback(taught.root, LESSON) if made.fresh] == ["games"]
    page = taught.root / "feedback" / "games" / LESSON / "toy.html"
    assert "Well done." in page.read_text()
    page.write_text("a page of nbgrader's own")
    assert [made.student for made in make_feedback(taught.root, LESSON) if made.fresh] == ["games"]
    with pytest.raises(GraderError, match="ada has no graded submission"):
        make_feedback(taught.root, LESSON, ["ada"])


def test_a_page_lies_under_names_of_notebooks_that_can_be_released(tmp_path: Path) -> None:
    names = ["a b", "é", "two\nlines", ".hidden", *map(str, range(9))]
    for name in [*names, os.fsdecode(b"\xff")]:
        (tmp_path / f"{name}.ipynb").touch()
    assert make._names(tmp_path) == ["0", "1", "2", "3", "4"]
    for number in range(9):
        (tmp_path / f"{number}.ipynb").unlink()
    assert make._names(tmp_path) == ["a b", "é"]


# --- the marks ---


def test_marks_go_to_canvas_and_moodle_with_names_and_two_decimals(taught: Class, tmp_path: Path) -> None:
    done = export(taught.root, tmp_path)
    assert done.unnamed == ("man",) and not done.by_hand
    with (tmp_path / "canvas.csv").open() as file:
        canvas = list(csv.reader(file))
    assert canvas == [
        ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", LESSON],
        ["    Points Possible", "", "", "", "", "5.00"],
        ["man", "", "", "man", "", "3.50"],
        [f"'{FORMULA}", "", "", "by-hand", "", "5.00"],
        ["Ames, Gwen", "77", "", "games", "", "5.00"],
    ]
    with (tmp_path / f"moodle-{LESSON}.csv").open() as file:
        assert list(csv.reader(file))[3] == ["Gwen", "Ames", "77", "games", "", "5.00"]
    with pytest.raises(GraderError, match="has no graded lesson 09-none"):
        export(taught.root, tmp_path, ["09-none"])


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("=1+1", "'=1+1"), ("\n=1+1", "'=1+1"), (" \t-2", "'-2"), ("\u2028@x", "'@x"), ("＝1", "'＝1"),
        ("Ames;=1+1", "Ames =1+1"), ("Ames\r\n=1+1", "Ames =1+1"), ("O'Neil-Ames", "O'Neil-Ames"), (None, ""),
    ],
)  # fmt: skip
def test_no_name_is_a_formula_in_any_countrys_spreadsheet(name: str | None, written: str) -> None:
    assert _as_text([name]) == [written]


def test_a_lesson_with_no_more_than_a_due_date_is_left_out(taught: Class, tmp_path: Path) -> None:
    due = ["db", "assignment", "add", "01-next", "--duedate=2999-01-01 00:00:00 UTC"]
    taught.lecturer.runs(due, cwd=taught.root)
    assert {path.name for path in export(taught.root, tmp_path).files} == {"canvas.csv", f"moodle-{LESSON}.csv"}
    taught.lecturer.runs(["db", "assignment", "remove", "01-next", "--force"], cwd=taught.root)


def table_of(results: list[Graded]) -> str:
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(summary(results))
    return console.export_text()


def test_a_run_says_what_changed_and_why(taught: Class) -> None:
    """One comes late and with another name for the notebook, of the other the lecturer changes the score."""
    root = Path(shutil.copytree(taught.root, taught.root.parent / "later"))
    config = root / "nbgrader_config.py"
    config.write_text(config.read_text() + '\nc.LateSubmissionPlugin.penalty_method = "zero"\n')
    folder = root / "submitted" / "games" / LESSON
    (folder / "toy.ipynb").rename(folder / "toy-final.ipynb")
    (folder / "timestamp.txt").write_text("2999-01-03 05:00:00 UTC")
    with open_gradebook(root, course_config(root)) as (_, book):
        book.find_grade("check-toy-linear", "toy", LESSON, "man").manual_score = 2.0
        book.db.commit()
    table = table_of(grade_class(root, LESSON, Settings()))
    games, man = ("\n".join(table.partition(name)[2].splitlines()[:4]) for name in (" games ", " man "))
    assert games.split()[:3] == ["0", "5", "5"]
    assert "a newer submission" in games and "2 days and 5 hours late: 5 points off" in games
    assert "'toy-final.ipynb' and found by its cells" in games
    assert man.split()[:3] == ["4", "5", "2"] and "changed in the gradebook" in man
    assert "by hand: check-toy-linear 2 (automatically 0)" in man
    assert "1 came late" in table
    again = table_of(grade_class(root, LESSON, Settings()))
    assert "changed in the gradebook" not in again and "a newer submission" not in again


def test_a_time_is_told_in_words() -> None:
    assert [duration(s) for s in (1, 3600, 90 * 60, 86400 * 2 + 3600, 86400 * 2_546_869)] == [
        "1 minute", "1 hour", "1 hour and 30 minutes", "2 days and 1 hour", "more than 6,977 years"
    ]  # fmt: skip


# --- alike ---

LONG = """\
def attend(q, k, v):
    \"\"\"Attention.\"\"\"
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    allowed = torch.ones(scores.shape[-2:]).tril().bool()
    return scores.masked_fill(~allowed, float("-inf")).softmax(-1) @ v
"""
STUB = "def attend(q, k, v):\n    raise NotImplementedError()\n"


def test_names_comments_and_layout_make_no_difference() -> None:
    other = LONG.replace("scores", "s").replace("allowed", "mask").replace("(q, k, v)", "(q: Tensor, k, v) -> Tensor")
    assert normal_form(other.replace("    return", "\n    # mine\n    return")) == normal_form(LONG)
    assert normal_form(LONG.replace("tril", "triu")) != normal_form(LONG)
    assert normal_form("def f(:") == ("def", "f(:")


@pytest.mark.parametrize("odd", [f"x = 0x{'f' * 4_000}", "x = " + "-" * 5_000 + "1"])
def test_what_python_reads_and_can_not_write_is_compared_by_its_words(odd: str) -> None:
    assert normal_form(odd) == tuple(odd.split())


def test_solutions_that_are_alike_are_grouped_with_each_other_and_with_the_published_one() -> None:
    own = STUB.replace("raise NotImplementedError()", "return F.scaled_dot_product_attention(q, k, v, is_causal=True)")
    longer = own.replace("return", "w = k.mean() * 0 + v.std() * 0\n    u = w - w\n    return u +")
    sources = {"ada": LONG, "bo": LONG.replace("scores", "s"), "cleo": longer, "dan": STUB, "eve": own}
    (alike,) = groups("toy.attend", sources, STUB, LONG.replace("-inf", "-INF"))
    assert alike.students == ("ada", "bo") and alike.published and 0.95 <= alike.likeness < 1.0
    assert alike.of == 3  # nobody is asked about a stub, or about a line that has one form
    assert not list(groups("toy.attend", {"ada": LONG, "cleo": longer}, STUB))
    (copied,) = groups("toy.attend", {"ada": LONG}, STUB, LONG)
    assert copied.students == ("ada",) and copied.published
    assert PUBLISHED not in copied.students


# --- what a release gives away ---


def given_away(lesson: Lesson, exercises: Mapping[str, list[str]]) -> str:
    """Of which exercises the lesson holds the solutions, in words; exercises: those of each lesson, by its name."""
    words = []
    given = [cell.name.split() for cell in lesson.cells() if cell.kind == "given"]
    for earlier in sorted({name for name, _ in given}, reverse=True):
        names = sorted(exercise for name, exercise in given if name == earlier)
        missing = sorted(set(exercises[earlier]) - set(names))
        number = earlier.partition("-")[0]
        if len(missing) > 2:
            words.append(f"{_listed(names)} of {number}")
        else:
            words.append(f"{number}, but for {_listed(missing)}" if missing else f"{number}, all of it")
    return "; ".join(words)


def _listed(names: list[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return " and ".join(filter(None, (", ".join(quoted[:-1]), quoted[-1])))


def test_the_page_says_which_solutions_each_lesson_gives_away() -> None:
    known = lessons(PROJECT)
    exercises = {lesson.name: [cell.name for cell in lesson.cells() if cell.kind == "exercise"] for lesson in known}
    page = (PROJECT / "docs" / "class.md").read_text().splitlines()
    assert [line for line in page if re.match(r"\| \d\d-", line)] == [
        f"| {lesson.name} | {away} |" for lesson in known if (away := given_away(lesson, exercises))
    ]


# --- what others could read ---


def test_a_new_course_is_closed_and_doctor_says_what_an_open_one_shows(course: Path, tmp_path: Path) -> None:
    run = CliRunner()
    done = run.invoke(
        app, ["new-course", str(tmp_path / "cs"), "--id", "cs1", "--from", str(course), "--lesson", LESSON]
    )
    assert done.exit_code == 0, done.output
    root = tmp_path / "cs"
    assert root.stat().st_mode & 0o777 == 0o700
    assert 'course_id = "cs1"' in (root / "nbgrader_config.py").read_text()
    assert not [one for one in exposure.exposed(root) if one.path.is_relative_to(root)]
    with pytest.raises(GraderError, match="is not empty"):
        new_course(root, course, "cs1", None)
    with pytest.raises(GraderError, match="can't name a course"):
        new_course(tmp_path / "other", course, "c s/1", None)


def test_every_folder_above_has_to_let_others_in(tmp_path: Path) -> None:
    place = Path(tempfile.mkdtemp(prefix="grader-open-"))
    try:
        inside = place / "one" / "two.txt"
        inside.parent.mkdir(mode=0o755)
        inside.write_text("an answer")
        inside.chmod(0o644)
        place.chmod(0o755)
        assert exposure._readers(inside) == ("everybody on this machine", True)
        assert exposure._readers(inside.parent)[1]
        place.chmod(0o700)
        assert exposure._readers(inside) == ("", False)
        place.chmod(0o755)
        inside.chmod(0o600)
        assert exposure._readers(inside) == ("", False)
    finally:
        shutil.rmtree(place)


def test_the_clones_history_and_the_secret_hold_solutions_too(
    course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its folder of solutions closed alone, students would read them with `git show`."""
    place = Path(tempfile.mkdtemp(prefix="grader-clone-"))
    try:
        place.chmod(0o755)
        clone, secret = place / "clone", place / "course.secret"
        for folder in (clone / "grader", clone / ".git"):
            folder.mkdir(parents=True)
        (clone / "solutions").mkdir(mode=0o700)
        secret.write_text("a word that makes hidden cases")
        root = new_course(tmp_path / "cs", course, "cs1", place / "exchange", [LESSON])
        (root / "hidden").mkdir()
        remember_secret(root, secret)
        monkeypatch.setattr(exposure, "package_folder", lambda: clone / "grader")
        found = {one.path: exposure.closing(root, one.path) for one in exposure.exposed(root)}
        assert found == {clone / ".git": f"chmod 700 {clone}", secret: f"chmod 600 {secret}"}
        read_secret(secret)
        assert secret.stat().st_mode & 0o777 == 0o600
        (place / "exchange").mkdir()
        (place / "exchange").chmod(0o777)
        assert f"chmod 1777 {place / 'exchange'}" in exposure.open_exchange(root)
        (place / "exchange").chmod(0o1777)
        assert not exposure.open_exchange(root)
    finally:
        shutil.rmtree(place)


def test_each_student_of_a_roster_gets_cases_of_their_own_once(
    course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = new_course(tmp_path / "cs", course, "cs1", None, [LESSON])
    (tmp_path / "roster.csv").write_text("id,first_name\nada,Ada\nbo,Bo\n")
    monkeypatch.chdir(root)
    words = ["hidden-cases", LESSON, "--secret", str(tmp_path / "secret"), "--roster", str(tmp_path / "roster.csv")]
    first, again = (CliRunner().invoke(app, words) for _ in range(2))
    assert first.exit_code == again.exit_code == 0, first.output + again.output
    assert [Path(line).stem for line in first.output.splitlines() if "safetensors" in line] == ["ada", "bo"]
    assert "Each student of the roster has cases" in again.output
    (tmp_path / "roster.csv").write_text("id\n../ada\n")
    assert isinstance(CliRunner().invoke(app, words).exception, GraderError)


def test_a_cell_that_a_graded_lesson_did_not_have_is_told_in_words(taught: Class, tmp_path: Path) -> None:
    root = Path(shutil.copytree(taught.root, tmp_path / "changed", symlinks=True))
    path = root / "course" / LESSON / "toy.ipynb"
    notebook = nbformat.read(path, as_version=4)
    check = next(cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade"))
    notebook.cells.append(nbformat.from_dict({**check, "id": "another", "metadata": {**check.metadata}}))
    notebook.cells[-1].metadata.nbgrader = {**check.metadata.nbgrader, "grade_id": "another"}
    notebook.metadata.get("grader", {}).pop("released", None)
    nbformat.write(notebook, path)
    with pytest.raises(GraderError, match="nbgrader db assignment remove"):
        grade_class(root, LESSON, Settings(jail="none"))


def test_hidden_cases_are_recorded_where_the_solutions_have_another_folder(
    course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = new_course(tmp_path / "cs", course, "cs1", None, [LESSON])
    (root / "solutions").rename(root / "source")
    config = root / "nbgrader_config.py"
    config.write_text(config.read_text().replace('source_directory = "solutions"', 'source_directory = "source"'))
    monkeypatch.chdir(root)
    done = CliRunner().invoke(app, ["hidden-cases", LESSON, "--secret", str(tmp_path / "secret")])
    assert done.exit_code == 0, done.output
    assert (root / "hidden" / f"{LESSON}.safetensors").is_file()
