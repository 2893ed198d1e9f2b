"""A class on one machine: two students and a lecturer, nbgrader's own commands from release to feedback, marks."""

import csv
import functools
import io
import multiprocessing
import os
import pwd
import shutil
import stat
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from attack_course import LESSON, RIGHT, submit
from nbgrader.apps import NbGraderAPI
from nbgrader.coursedir import CourseDirectory
from rich.console import Console
from test_nbgrader import LINEAR, RELU, write_answers
from toy_course import PROJECT, write_course
from traitlets.config.loader import PyFileConfigLoader
from typer.testing import CliRunner

from grader.authoring.build import build
from grader.cli import app
from grader.errors import GraderError
from grader.grading import exposure
from grader.grading.command import summary
from grader.grading.engine import Graded, Settings, grade_class
from grader.grading.export import export
from grader.grading.feedback.make import make_feedback
from grader.grading.feedback.render import MAX_PAGE, duration
from grader.grading.gradebook_file import course_config, open_gradebook
from grader.grading.new_course import new_course
from grader.grading.similar import PUBLISHED, groups, normal_form

ALIVE = {"games": RIGHT, "man": {"toy.linear": LINEAR.format(bias=""), "toy.relu": RELU.format("x.relu()")}}
COURSE_ID = "cs101"
FORMULA = '=HYPERLINK("http://example.org")'  # a name that a spreadsheet computes


# --- people ---


@dataclass(frozen=True)
class Person:
    """Somebody with a home. user: whose rights they have, where this process may give these; else only a name."""

    name: str
    home: Path
    user: pwd.struct_passwd | None

    def runs(self, *commands: list[str], cwd: Path | None = None, then: Callable[[], None] | None = None) -> str:
        """What nbgrader says to these commands, one after the other; it must succeed."""
        with tempfile.TemporaryFile("w+") as said:
            child = multiprocessing.get_context("fork").Process(target=self._run, args=(commands, cwd, then, said))
            child.start()
            child.join(120)
            said.seek(0)
            text = said.read()
        assert child.exitcode == 0, text
        return text

    def _run(self, commands, cwd, then, said) -> None:  # type: ignore[no-untyped-def]
        """In a process of its own: become the person, and run."""
        for fd in (1, 2):
            os.dup2(said.fileno(), fd)
        sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1)
        try:
            if self.user is not None:
                os.setgroups([])
                os.setgid(self.user.pw_gid)
                os.setuid(self.user.pw_uid)
            elif self.name != "lecturer":  # nbgrader asks the system for names
                mine = pwd.getpwuid(os.getuid())
                pwd.getpwuid = lambda uid: pwd.struct_passwd((self.name, *mine[1:]))
            os.environ |= {"HOME": str(self.home), "LOGNAME": self.name, "USER": self.name}
            os.environ |= {
                "JUPYTER_DATA_DIR": str(self.home / "data"),
                "JUPYTER_CONFIG_DIR": str(self.home / ".jupyter"),
            }
            os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
            os.chdir(cwd or self.home)
            for command in commands:
                nbgraders_command(command)
            if then is not None:
                then()
        except BaseException:
            traceback.print_exc()
            sys.stdout.flush()
            os._exit(1)
        sys.stdout.flush()
        os._exit(0)


def nbgraders_command(arguments: list[str]) -> None:
    """What `nbgrader` does, in this process, as nbgrader's own tests run it."""
    from jupyter_core.application import NoStart
    from nbgrader.apps import NbGraderApp

    nbgrader = NbGraderApp.instance()
    try:
        nbgrader.initialize(arguments)
        nbgrader.start()
    except NoStart:  # the command's own way to say that a subcommand has done it
        pass
    except SystemExit as end:
        if end.code not in (0, None):
            raise
    finally:
        NbGraderApp.clear_instance()
        if nbgrader.subapp is not None:
            type(nbgrader.subapp).clear_instance()


def may_become_others() -> bool:
    """Whether this process can give its children another user, who can then import what this one imported."""
    readable = exposure._lets_in(Path(sys.prefix), stat.S_IROTH, stat.S_IXOTH)
    return os.geteuid() == 0 and readable and exposure._lets_in(PROJECT, stat.S_IROTH, stat.S_IXOTH)


@dataclass(frozen=True)
class Class:
    root: Path
    lecturer: Person
    students: dict[str, Person]


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("class")
    build(write_course(root)[0])
    return root


@pytest.fixture(scope="module")
def taught(course: Path) -> Iterator[Class]:
    """The class after release, submission, grading and feedback, with a comment and a score by hand between."""
    place = Path(tempfile.mkdtemp(prefix="grader-class-"))
    place.chmod(0o755)
    exchange = place / "exchange"
    exchange.mkdir()
    exchange.chmod(0o777)
    root = new_course(place / "course", course, COURSE_ID, exchange, [LESSON])
    lecturer = person("lecturer", place, None)
    students = {name: person(name, place, pwd.getpwnam(name) if may_become_others() else None) for name in ALIVE}
    for student in students.values():
        config = f'c = get_config()\nc.Exchange.root = "{exchange}"\nc.CourseDirectory.course_id = "{COURSE_ID}"\n'
        (student.home / ".jupyter" / "nbgrader_config.py").write_text(config)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(exposure, "package_folder", lambda: root / "grader")  # tests run in a checkout, open or not
            teach(Class(root, lecturer, students), exchange)
            yield Class(root, lecturer, students)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def person(name: str, place: Path, user: pwd.struct_passwd | None) -> Person:
    home = place / name
    for folder in (home, home / ".jupyter", home / "data"):
        folder.mkdir(mode=0o700)
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
    return Person(name, home, user)


def teach(taught: Class, exchange: Path) -> None:
    lecturer, root = taught.lecturer, taught.root
    people = [["db", "student", "add", "games", "--first-name=Gwen", "--last-name=Ames", "--lms-user-id=77"]]
    due = ["db", "assignment", "add", LESSON, "--duedate=2999-01-01 00:00:00 UTC"]
    lecturer.runs(*people, due, ["release_assignment", LESSON], cwd=root)
    for name, student in taught.students.items():
        fetched = student.home / LESSON / "toy.ipynb"
        answers = ALIVE[name]
        said = student.runs(
            ["list"], ["fetch_assignment", LESSON], then=functools.partial(write_answers, fetched, answers)
        )
        assert LESSON in said
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
        student.runs(["fetch_feedback", LESSON])


def feedback_that_came(student: Person) -> str:
    (page,) = (student.home / LESSON / "feedback").rglob("toy.html")
    return page.read_text()


# --- the circle ---


def test_work_goes_out_and_comes_back_marked(taught: Class) -> None:
    marks = {name: feedback_that_came(student) for name, student in taught.students.items()}
    assert "5 of 5 points" in marks["games"] and "bias" not in marks["games"].partition("<section")[0]
    assert "3.5 of 5 points" in marks["man"]  # the score by hand came after the pages, and the release made them anew
    assert "This is what comes out when the bias is left out." in marks["man"]


def test_work_that_came_by_hand_without_secret_and_time_stops_nobodys_feedback(taught: Class) -> None:
    released = taught.root.parent / "exchange" / COURSE_ID / "feedback"
    assert sum("<strong>5 of 5 points" in page.read_text() for page in released.glob("*.html")) == 2
    assert len(list(released.glob("*.html"))) == 3


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
    assert "<script" not in page and "http" not in top
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
    with pytest.raises(GraderError, match="has no lesson 09-none"):
        export(taught.root, tmp_path, ["09-none"])


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
    assert [duration(s) for s in (1, 3600, 90 * 60, 86400 * 2 + 3600)] == [
        "1 minute", "1 hour", "1 hour and 30 minutes", "2 days and 1 hour"
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


def test_hidden_cases_are_recorded_where_the_solutions_have_another_folder(
    course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = new_course(tmp_path / "cs", course, "cs1", None, [LESSON])
    (root / "solutions").rename(root / "source")
    config = root / "nbgrader_config.py"
    config.write_text(config.read_text().replace('source_directory = "solutions"', 'source_directory = "source"'))
    monkeypatch.chdir(root)
    done = CliRunner().invoke(app, ["record", LESSON, "--secret", str(tmp_path / "secret")])
    assert done.exit_code == 0, done.output
    assert (root / "hidden" / f"{LESSON}.safetensors").is_file()
