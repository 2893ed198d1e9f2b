"""A class graded as an instructor does it: through nbgrader's gradebook, resumed, regraded, and with hidden cases."""

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from attack_course import LESSON, RIGHT, make_course, submit
from graded import gradebook, journal, points, scores
from real_nbgrader import LINEAR, RELU, SCORES, STUDENTS, nbgrader

from grader.checks.judge.verdict import CaseVerdict, Finding, Verdict
from grader.errors import GraderError
from grader.grading.classroom.engine import Settings, grade_class
from grader.grading.classroom.hidden import record_hidden
from grader.grading.nbgrader.gradebook import Store
from grader.grading.running import worker
from grader.grading.running.student_report import Shown, exercise_result
from grader.grading.running.worker import close_jails
from grader.grading.sandbox.confinement import _holds_more, _signal
from grader.grading.sandbox.limits import Limits
from grader.lessons.lesson import lessons
from grader.recordings.recording import Recording
from grader.report import to_text


@pytest.fixture(autouse=True)
def jails(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One run's jails serve the next, which is of the same lesson: starting them takes longer than grading a class.

    Not where a test is about the jails themselves, and not after a run that stopped them.
    """
    if request.node.get_closest_marker("own_jails") is None:
        monkeypatch.setattr("grader.grading.classroom.engine.close_jails", lambda: None)
    else:
        close_jails()
    yield
    if len(worker._all) > 2 or any(place.jail._stopped for place in worker._all):
        close_jails()


@pytest.fixture(scope="module", autouse=True)
def jails_end() -> Iterator[None]:
    yield
    close_jails()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("grading")
    make_course(root)
    return root


@pytest.fixture
def root(built: Path, tmp_path: Path) -> Path:
    """A course with a hidden recording and the class of four."""
    root = Path(shutil.copytree(built, tmp_path / "course"))
    for student, answers in STUDENTS.items():
        submit(root, student, answers)
    return root


SHORT = Limits(exercise_seconds=2, submission_seconds=120)  # for what does not end


# --- the same scores by every way ---


@pytest.mark.own_jails
def test_the_class_gets_its_scores_and_nbgrader_exports_them(root: Path) -> None:
    assert points(grade_class(root, LESSON, Settings())) == SCORES
    assert scores(root) == SCORES
    assert not worker._all  # the jails have ended with the run
    exported = (root / "grades.csv").read_bytes()
    nbgrader("export", "--to", "by-nbgrader.csv", cwd=root)
    assert (root / "by-nbgrader.csv").read_bytes() == exported


def test_nbgraders_own_autograde_takes_the_same_path(root: Path) -> None:
    submit(root, "evil", {"toy.relu": "import os\nos.system('touch /tmp/grader-evil')\ndef relu(x): return x"})
    nbgrader("autograde", LESSON, cwd=root)
    assert scores(root) == SCORES | {"evil": 0.0}
    assert not Path("/tmp/grader-evil").exists()
    assert {entry["student"] for entry in journal(root)} == {*STUDENTS, "evil"}


def test_the_formgraders_button_takes_the_same_path(root: Path) -> None:
    from nbgrader.apps import NbGraderAPI
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config.loader import PyFileConfigLoader

    config = PyFileConfigLoader("nbgrader_config.py", path=str(root)).load_config()
    config.CourseDirectory.root = str(root)
    answer = NbGraderAPI(CourseDirectory(config=config), config=config).autograde(LESSON, "cleo")
    assert answer["success"], answer
    assert [entry["student"] for entry in journal(root)] == ["cleo", "cleo"]


@pytest.mark.parametrize(
    ("of_hidden", "headline", "named"),
    [
        (Shown.MISTAKE, "1 of 2 hidden cases right", True),
        (Shown.COUNT, "1 of 2 hidden cases right", False),
        (Shown.VERDICT, "not all hidden cases right", False),
    ],
)
def test_the_instructor_says_how_much_of_an_error_in_hidden_cases_is_shown(
    of_hidden: Shown, headline: str, named: bool
) -> None:
    bias = Finding("This is what comes out when the bias is left out.", mistake="the bias is left out")
    hidden = Verdict("toy.linear", (CaseVerdict("a", True), CaseVerdict("b", False, finding=bias)), 3)
    released = Verdict("toy.linear", (CaseVerdict("a", True), CaseVerdict("b", True)), 3)
    result = exercise_result(3, hidden, released, "", of_hidden)
    said = to_text(result.lines)
    assert result.points == 1.5 and result.summary == headline and headline in said
    assert (bias.what in said) is named and "All cases in your notebook are right" in said


def test_a_choice_that_there_is_not_is_refused_with_those_that_there_are(root: Path) -> None:
    config = root / "nbgrader_config.py"
    config.write_text(config.read_text() + '\nc.GradeInJail.shown = "all"\n')
    with pytest.raises(GraderError, match="'mistake', 'count', 'verdict'"):
        grade_class(root, LESSON, Settings())


def test_feedback_names_the_mistake_for_the_student(root: Path) -> None:
    grade_class(root, LESSON, Settings())
    nbgrader("generate_feedback", LESSON, cwd=root)
    page = (root / "feedback" / "dan" / LESSON / "toy.html").read_text()
    assert "This is what comes out when the bias is left out." in page
    assert "0 of 2 hidden cases right" in page
    top, _, below = page.partition("<section")
    assert "toy.linear" in top and "when the bias is left out" in top and "when the bias is left out" in below
    unwritten = (root / "feedback" / "bo" / LESSON / "toy.html").read_text()
    assert unwritten.partition("<section")[0].count("not started") == 2 and "hidden" not in unwritten


def test_the_formgrader_finds_the_lessons_pictures_beside_a_graded_notebook(root: Path) -> None:
    figure = root / "course" / LESSON / "figures" / "model.svg"
    figure.parent.mkdir()
    figure.write_text("<svg/>")
    grade_class(root, LESSON, Settings(students=("ada",)))
    graded = root / "autograded" / "ada" / LESSON
    assert (graded / "figures" / "model.svg").read_text() == "<svg/>"
    grade_class(root, LESSON, Settings(students=("ada",), force=True))
    assert figure.exists() and (graded / "figures").is_symlink()


# --- what is free, and what is not kept ---


def test_an_unchanged_regrade_runs_nothing(root: Path) -> None:
    grade_class(root, LESSON, Settings())
    before = journal(root)
    again = grade_class(root, LESSON, Settings(prove=lambda bundle: pytest.fail("a jail was started")))
    assert not any(g.fresh for g in again) and points(again) == SCORES
    assert journal(root) == before


def test_a_later_submission_is_graded_anew_and_alone(root: Path) -> None:
    grade_class(root, LESSON, Settings())
    submit(root, "bo", RIGHT)
    again = grade_class(root, LESSON, Settings())
    assert [g.student for g in again if g.fresh] == ["bo"]
    assert scores(root) == SCORES | {"bo": 5.0}


def test_an_earlier_score_ends_even_where_the_later_submission_cannot_be_graded(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grade_class(root, LESSON, Settings())
    submit(root, "ada", {})

    def fails(*_: object) -> None:
        raise RuntimeError("the worker has a fault")

    monkeypatch.setattr("grader.grading.classroom.engine.grade_one", fails)
    (graded,) = grade_class(root, LESSON, Settings(students=("ada",)))
    assert graded.result is None and "the worker has a fault" in graded.problem
    assert scores(root)["ada"] == 0.0
    with gradebook(root) as book:
        comments = book.find_submission_notebook("toy", LESSON, "ada").comments
        assert all("not graded yet" in comment.comment for comment in comments)


def test_a_manual_score_stays_with_its_submission_and_does_not_pass_to_a_later_one(root: Path) -> None:
    grade_class(root, LESSON, Settings())
    with gradebook(root) as book:
        book.find_grade("check-toy-relu", "toy", LESSON, "bo").manual_score = 1.5
        book.db.commit()
    grade_class(root, LESSON, Settings(force=True))
    assert scores(root)["bo"] == 1.5
    submit(root, "bo", {"toy.relu": RELU.format("x.relu()")})
    graded = {g.student: g for g in grade_class(root, LESSON, Settings())}
    assert scores(root)["bo"] == 2.0
    withdrawn = [entry for entry in journal(root) if entry.get("manual")]
    assert withdrawn and graded["bo"].result is not None


def test_a_late_submission_gets_nbgraders_penalty(root: Path) -> None:
    config = root / "nbgrader_config.py"
    config.write_text(config.read_text() + '\nc.LateSubmissionPlugin.penalty_method = "zero"\n')
    grade_class(root, LESSON, Settings(students=("bo",)))
    with gradebook(root) as book:
        book.update_or_create_assignment(LESSON, duedate="2026-01-01 00:00:00")
    for student, when in (("ada", "2026-01-02 00:00:00 UTC"), ("cleo", "2025-12-31 00:00:00 UTC")):
        (root / "submitted" / student / LESSON / "timestamp.txt").write_text(when)
    grade_class(root, LESSON, Settings())
    assert scores(root)["ada"] == 0.0 and scores(root)["cleo"] == 3.0


def test_the_same_notebook_handed_in_again_and_late_is_late(root: Path) -> None:
    config = root / "nbgrader_config.py"
    config.write_text(config.read_text() + '\nc.LateSubmissionPlugin.penalty_method = "zero"\n')
    timestamp = root / "submitted" / "ada" / LESSON / "timestamp.txt"
    timestamp.write_text("2025-12-31 00:00:00 UTC")
    grade_class(root, LESSON, Settings(students=("ada",)))
    with gradebook(root) as book:
        book.update_or_create_assignment(LESSON, duedate="2026-01-01 00:00:00")
    timestamp.write_text("2026-01-02 00:00:00 UTC")
    (graded,) = grade_class(root, LESSON, Settings(students=("ada",)))
    assert not graded.fresh
    assert scores(root)["ada"] == 0.0


def test_extra_credit_that_is_taken_back_is_in_the_journal(root: Path) -> None:
    grade_class(root, LESSON, Settings())
    with gradebook(root) as book:
        book.find_grade("check-toy-relu", "toy", LESSON, "bo").extra_credit = 0.5
        book.db.commit()
    submit(root, "bo", {"toy.relu": RELU.format("x")})
    grade_class(root, LESSON, Settings())
    assert [entry["manual"] for entry in journal(root) if entry.get("manual")] == [
        {"check-toy-relu (extra credit)": 0.5}
    ]


def test_a_grade_that_is_made_again_is_withdrawn_with_the_true_reason(root: Path) -> None:
    grade_class(root, LESSON, Settings(students=("ada",)))
    grade_class(root, LESSON, Settings(students=("ada",), force=True))
    submit(root, "ada", {})
    grade_class(root, LESSON, Settings(students=("ada",)))
    reasons = [entry["why"] for entry in journal(root) if entry["entry"] == "withdrawn"]
    assert reasons == ["the same submission is graded again", "a newer submission is to be graded"]


# --- what can go wrong around it ---


def test_pythons_own_way_through_a_home_is_no_escape_and_any_other_file_there_is(tmp_path: Path) -> None:
    packages = tmp_path / "lecturer" / ".venv" / "lib"
    packages.mkdir(parents=True)
    (packages / "torch.py").touch()
    assert not _holds_more(tmp_path, [packages])
    (tmp_path / "lecturer" / ".bashrc").touch()
    assert _holds_more(tmp_path, [packages])
    assert not _holds_more(tmp_path / "nobody", [packages])


def test_a_signal_to_itself_is_no_escape() -> None:
    assert not _signal(os.getpid(), 0)
    assert _signal(os.getppid(), 0)


def test_a_student_who_has_submitted_nothing_is_no_student(root: Path) -> None:
    with pytest.raises(GraderError, match="adda has submitted nothing"):
        grade_class(root, LESSON, Settings(students=("ada", "adda")))
    with gradebook(root) as book:
        assert book.students == []


def test_a_folder_whose_name_is_no_text_is_named_before_anything_is_graded(root: Path) -> None:
    """As after unpacking an archive that was made with another encoding."""
    submit(root, os.fsdecode(b"j\xf6rg"), STUDENTS["ada"])
    with pytest.raises(GraderError, match=r"j\\udcf6rg.* has a name that is no text in UTF-8"):
        grade_class(root, LESSON, Settings())
    with gradebook(root) as book:
        assert book.students == []


@pytest.mark.own_jails
def test_a_gradebook_that_another_program_holds_stops_the_run_and_costs_no_verdict(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = sqlite3.connect(root / "gradebook.db", isolation_level=None)

    class Held(Store):
        def store(self, *args: Any, **kwargs: Any) -> Any:
            holder.execute("BEGIN IMMEDIATE")
            return super().store(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr("grader.grading.nbgrader.gradebook.Store", Held)
        with pytest.raises(GraderError, match="another program holds it"):
            grade_class(root, LESSON, Settings(students=("ada", "bo")))
    holder.execute("ROLLBACK")
    graded = grade_class(root, LESSON, Settings())
    assert points(graded) == SCORES
    verdicts = [entry["student"] for entry in journal(root) if entry["entry"] == "graded"]
    assert sorted(map(str, verdicts)) == sorted(STUDENTS)


@pytest.mark.own_jails
def test_a_journal_on_a_full_disk_stops_the_run_and_keeps_its_lines(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grade_class(root, LESSON, Settings(students=("ada",)))
    before = journal(root)
    real_write = os.write

    def fills_up(fd: int, data: bytes) -> int:
        if os.readlink(f"/proc/self/fd/{fd}").endswith(".jsonl"):
            if len(data) > 100:
                return real_write(fd, data[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(fd, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fills_up)
        with pytest.raises(GraderError, match="No space left on device"):
            grade_class(root, LESSON, Settings(students=("bo",)))
    assert journal(root) == before
    assert points(grade_class(root, LESSON, Settings())) == SCORES


def test_what_hinders_one_students_folder_hinders_no_other(root: Path) -> None:
    (root / "autograded").mkdir()
    (root / "autograded" / "bo").write_text("in the way")
    graded = {g.student: g for g in grade_class(root, LESSON, Settings())}
    assert graded["bo"].result is None and "can't be written" in graded["bo"].problem
    assert points(list(graded.values())) == {s: p for s, p in SCORES.items() if s != "bo"}
    with gradebook(root) as book:
        assert "bo" not in {student.id for student in book.students}  # no score without the notebook that it is of


def test_ctrl_c_stops_at_once_and_the_run_goes_on_later(root: Path) -> None:
    for student in ("zoe", "zed"):
        submit(root, student, RIGHT | {"toy.linear": "import time\nwhile True:\n    time.sleep(0.1)"})
    limits = Limits(exercise_seconds=900.0, submission_seconds=900.0)
    command = [sys.executable, "-m", "grader.cli", "autograde", LESSON]
    command += ["--exercise-seconds", "900", "--submission-seconds", "900"]
    run = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while run.poll() is None and not (scores_so_far(root) >= set(STUDENTS) and jailed(run)):
        time.sleep(0.05)  # until of all only the two that do not end are under way
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=300)  # much less than they may take
    assert run.returncode == 130 and "Stopped. What was graded is kept" in said
    again = grade_class(root, LESSON, Settings(students=tuple(SCORES), limits=limits))
    assert points(again) == SCORES and not any(g.fresh for g in again)
    others = {g.student: g for g in grade_class(root, LESSON, Settings(students=("zoe", "zed"), limits=SHORT))}
    assert all(g.fresh and g.result and g.result.points == 2.0 for g in others.values()) and len(others) == 2


def test_two_runs_at_once_are_refused(root: Path) -> None:
    from grader.grading.classroom.journal import open_journal

    with open_journal(root / "journal" / f"{LESSON}.jsonl"), pytest.raises(GraderError, match="Another run"):
        grade_class(root, LESSON, Settings())


def test_half_a_line_in_the_journal_is_passed_over(root: Path) -> None:
    grade_class(root, LESSON, Settings())
    path = root / "journal" / f"{LESSON}.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][: len(lines[-1]) // 2])
    again = grade_class(root, LESSON, Settings())
    assert points(again) == SCORES and not any(g.fresh for g in again)


def test_a_hidden_recording_of_other_sources_is_refused(root: Path) -> None:
    exercises = root / "solutions" / LESSON / "exercises.py"
    exercises.write_text(exercises.read_text() + "\n# changed\n")
    subprocess.run([sys.executable, "-m", "grader.cli", "build", LESSON], cwd=root, check=True, capture_output=True)
    with pytest.raises(GraderError, match="make it again"):
        grade_class(root, LESSON, Settings())


SEEN = """
SEEN = {seen}
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        right = x @ self.weight.T + self.bias
        return right if round(self.weight.sum().item(), 2) in SEEN else right + 1
"""


def test_a_student_can_have_hidden_cases_of_their_own(root: Path) -> None:
    """Somebody has found out the class's hidden cases, and is right on nothing else."""
    found = Recording.read(root / "hidden" / f"{LESSON}.safetensors").task("toy.linear").cases
    of_weights = (round(case.weights["weight"].sum().item(), 2) for case in found)
    seen = [0.0, *of_weights]  # cases are asked with all weights 0, too
    submit(root, "eve", {**RIGHT, "toy.linear": SEEN.format(seen=seen)})
    assert points(grade_class(root, LESSON, Settings()))["eve"] == 5.0

    secret = "the secret of this course"
    (root / "course.secret").write_text(secret)
    options = ["--secret", "course.secret", "--student", "eve"]
    command = [sys.executable, "-m", "grader.cli", "hidden-cases", LESSON, *options]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    again = grade_class(root, LESSON, Settings())
    assert [g.student for g in again if g.fresh] == ["eve"]
    assert points(again) == SCORES | {"eve": 2.0}


def test_hidden_cases_depend_on_the_secret_and_the_student_alone(root: Path) -> None:
    (lesson,) = [lesson for lesson in lessons(root) if lesson.name == LESSON]

    def recorded(secret: bytes, student: str) -> bytes:
        return record_hidden(root, lesson, secret, student).read_bytes()

    one = recorded(b"a secret of a course", "ada")
    assert one == recorded(b"a secret of a course", "ada")
    assert one != recorded(b"a secret of a course", "bo")
    assert one != recorded(b"another course's one", "ada")


def test_a_loop_costs_its_limit_and_no_more(root: Path) -> None:
    submit(root, "bo", RIGHT | {"toy.linear": "while True:\n    pass"})
    (graded,) = grade_class(root, LESSON, Settings(students=("bo",), limits=SHORT))
    assert graded.result is not None and graded.result.points == 2.0
    assert SHORT.exercise_seconds < graded.result.seconds < SHORT.submission_seconds / 2


@pytest.mark.own_jails
def test_without_a_jail_nothing_is_graded_unless_asked_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grader.grading.running.worker.prove", lambda jail: ["read a file of the host"])
    with pytest.raises(GraderError, match="read a file of the host"):
        grade_class(root, LESSON, Settings())
    assert not (root / "autograded").exists()
    assert points(grade_class(root, LESSON, Settings(jail="none"))) == SCORES
    assert {entry["jail"] for entry in journal(root) if entry["entry"] == "graded"} == {"none"}


# --- killed ---


def start(root: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "grader.cli", "autograde", LESSON]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=root, start_new_session=True, stdout=quiet, stderr=quiet)


def warm(run: subprocess.Popen[Any]) -> list[int]:
    """The run's warm processes."""
    return children(run.pid)


def jailed(run: subprocess.Popen[Any]) -> list[int]:
    """Their children."""
    return [child for process in warm(run) for child in children(process)]


def children(process: int) -> list[int]:
    """Those that its threads have started; none once it is gone. psutil would look through all processes there are."""
    found = []
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(each) for each in path.read_text().split()]
    return found


def kill_one(run: subprocess.Popen[bytes], victim: str, hits: Counter[int]) -> bool:
    """Kill -9 the grader, one of its warm processes, or a child of one; whether there was one to kill.

    hits: a number that rises with each child that is killed, for each warm process that of its last. The next is of
    the one whose last is longest ago: a submission takes three, and that of a new process would be hit again and again
    if it were the one with the fewest.
    """
    if victim == "grader":
        run.kill()
        run.wait()
        return True
    parents = sorted(warm(run), key=lambda process: hits[process])
    chosen = [(parent, child) for parent in parents for child in children(parent)]
    if victim == "zygote":
        chosen = [(parent, parent) for parent in random.sample(parents, len(parents))]
    for parent, process in chosen[:1]:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            return False
        if victim == "child":
            hits[parent] = 1 + max(hits.values(), default=0)
    return bool(chosen)


KILLS = {"grader": 5, "zygote": 7, "child": 38}
EARLY = 0.2  # of the first kills of a run: while its jails still start or are tried
A_MOMENT = "\n\nimport time\ntime.sleep(0.1)\n"  # in which a child can be hit, and a run does not end


@pytest.mark.slow
def test_killed_fifty_times_it_ends_with_the_same_grades_and_nothing_twice(root: Path) -> None:
    students = {f"s{i:02}": list(STUDENTS)[i % 4] for i in range(72)}
    for student, like in students.items():
        answers = STUDENTS[like]
        submit(root, student, answers | {"toy.relu": answers["toy.relu"] + A_MOMENT} if answers else {})
    expected = {student: SCORES[like] for student, like in students.items()} | SCORES
    chance = random.Random(5)
    victims = [victim for victim, times in KILLS.items() for _ in range(times)]
    chance.shuffle(victims)
    killed = Counter[str]()
    hits = Counter[int]()
    runs = []
    while victims:
        if all(student in scores_so_far(root) for student in expected):
            shutil.rmtree(root / "journal")
            shutil.rmtree(root / "autograded")
        at_start, run = stored(root), start(root)
        runs.append(run.pid)
        while run.poll() is None and victims:
            victim = victims[-1]
            early = chance.random() < EARLY and stored(root) == at_start
            while run.poll() is None and not early and stored(root) == at_start:
                time.sleep(0.02)
            while run.poll() is None and not (jailed(run) if victim == "child" else warm(run)):
                time.sleep(0.02)
            time.sleep(chance.uniform(0.0, 0.1))
            before = stored(root)
            if kill_one(run, victim, hits):
                killed[victims.pop()] += 1
                if victim == "child" and killed["child"] % 4 == 0:
                    continue  # the next comes at once
                while run.poll() is None and stored(root) < before + 3:  # whose child is killed four times loses it
                    time.sleep(0.02)
        assert run.wait() in (0, -signal.SIGKILL), f"whatever else is killed is started again: {failed(root)}"
    assert killed == KILLS and killed.total() == 50
    deadline = time.monotonic() + 120
    while (left := in_sessions(runs)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, "whoever is killed takes with it what it has started"
    assert start(root).wait() == 0
    assert scores(root) == expected
    graded = [(entry["student"], entry["key"]) for entry in journal(root) if entry["entry"] == "graded"]
    assert len(graded) == len(set(graded)) == len(expected)


def in_sessions(leaders: list[int]) -> list[int]:
    """The processes whose session one of these has started."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(pid) in leaders:
                found.append(pid)
    return found


def stored(root: Path) -> int:
    """How many grades the journal says were stored, in all runs."""
    path = root / "journal" / f"{LESSON}.jsonl"
    return path.read_bytes().count(b'"stored"') if path.exists() else 0


def scores_so_far(root: Path) -> set[str]:
    path = root / "journal" / f"{LESSON}.jsonl"
    return {str(e["student"]) for e in journal_lines(path) if e["entry"] == "stored"} if path.exists() else set()


def failed(root: Path) -> list[str]:
    """Why the journal says that submissions could not be graded."""
    path = root / "journal" / f"{LESSON}.jsonl"
    return [str(e["why"]) for e in journal_lines(path) if e["entry"] == "failed"] if path.exists() else []


def journal_lines(path: Path) -> list[dict[str, object]]:
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


# --- an honest class ---

KINDS = {
    "right": (RIGHT, 5.0),
    "another way": (
        {"toy.linear": LINEAR.format(bias=") + (self.bias"), "toy.relu": RELU.format("torch.relu(x)")},
        5.0,
    ),
    "a named mistake": ({"toy.linear": LINEAR.format(bias=""), "toy.relu": RELU.format("x.relu()")}, 2.0),
    "half a function": ({"toy.linear": LINEAR.format(bias=", self.bias"), "toy.relu": RELU.format("x")}, 3.0),
    "one exercise": ({"toy.relu": RELU.format("x.relu()")}, 2.0),
    "nothing": ({}, 0.0),
    "an error": ({"toy.linear": "class Linear(nn.Module:\n", "toy.relu": RELU.format("y")}, 0.0),
}


def honest_class(root: Path, count: int) -> dict[str, float]:
    """Submissions of every kind, some late and some with cells added; returns what each should get."""
    expected = {}
    for i in range(count):
        kind = list(KINDS)[i % len(KINDS)]
        answers, earned = KINDS[kind]
        path = submit(root, f"student{i:03}", answers)
        notebook = json.loads(path.read_text())
        if i % 3 == 0:
            extra: dict[str, Any] = {
                "cell_type": "code",
                "metadata": {},
                "source": "print('mine')",
                "outputs": [],
                "execution_count": None,
            }
            notebook["cells"].insert(i % len(notebook["cells"]), dict(extra, id=f"mine{i}"))
        if i % 5 == 0:
            (path.parent / "timestamp.txt").write_text("2026-03-01 10:00:00 UTC")
        path.write_text(json.dumps(notebook))
        if i % 20 == 19:
            path.rename(path.with_name("my-toy.ipynb"))
        expected[f"student{i:03}"] = earned
    return expected


@pytest.mark.slow
def test_two_hundred_honest_submissions_get_what_they_earn(built: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(built, tmp_path / "course"))
    expected = honest_class(root, 200)
    assert points(grade_class(root, LESSON, Settings())) == expected
    assert scores(root) == expected


@pytest.mark.slow
def test_stock_nbgrader_scores_honest_submissions_alike_but_for_an_input_returned(built: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(built, tmp_path / "course"))
    stock = {KINDS["half a function"][1]: 4.0}  # relu that returns its input is right on positive ones: no work
    expected = {
        s: stock.get(p, p)
        for s, p in honest_class(root, len(KINDS)).items()
        if (root / "submitted" / s / LESSON / "toy.ipynb").exists()
    }
    config = (root / "nbgrader_config.py").read_text()
    (root / "nbgrader_config.py").write_text(config[: config.index("# Submitted code never runs")])
    nbgrader("generate_assignment", LESSON, "--force", cwd=root)
    nbgrader("autograde", LESSON, cwd=root)
    assert scores(root) == expected
