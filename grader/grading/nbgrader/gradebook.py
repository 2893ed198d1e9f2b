"""Put grades where nbgrader keeps them: the gradebook, and the folder of autograded notebooks."""

import glob
import os
import re
import secrets
import shutil
import stat
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import AssignLatePenalties, SaveCells
from nbgrader.utils import compute_checksum, determine_grade, parse_utc
from sqlalchemy.exc import SAWarning
from traitlets.config import Config

from grader.errors import GraderError
from grader.grading.nbgrader.autograded import autograded_notebook, released_notebook
from grader.grading.nbgrader.gradebook_file import open_gradebook
from grader.grading.nbgrader.marks import Mark, read_mark
from grader.grading.running.plan import Plan
from grader.grading.running.results import SubmissionResult
from grader.grading.running.submission import Submission, is_linked

NOT_YET = "A newer submission is not graded yet. Until then it has no points."
AGAIN = "This submission is not graded yet: it is being graded again. Until then it has no points."
TIMESTAMP = "timestamp.txt"
FIGURES = "figures"  # of a released lesson; its notebook shows them
SECRET = "submission_secret.txt"  # nbgrader names released feedback by it, and the student's list finds it so
READ_ONLY = 0o444


@dataclass(frozen=True)
class Stored:
    """What happened when a grade was stored. manual: the manual scores, of an earlier submission, that it replaced."""

    score: float
    manual: Mapping[str, float]
    mark: Mark


class Store:
    """The gradebook and the folders of a course. Use `open_store`."""

    def __init__(self, directory: CourseDirectory, gradebook: Gradebook, config: Config, plan: Plan) -> None:
        self._directory = directory
        self._gradebook = gradebook
        self._config = config
        self._plan = plan

    def submitted(self, student: str) -> Path:
        """The folder of a student's submission."""
        return self._path(self._directory.submitted_directory, student)

    def autograded(self, student: str) -> Path:
        """The folder of what is made of it."""
        return self._path(self._directory.autograded_directory, student)

    def students(self) -> list[str]:
        """Who has submitted the lesson."""
        pattern = self._directory.format_path(self._directory.submitted_directory, "*", self._plan.lesson)
        return sorted(Path(path).parent.name for path in glob.glob(pattern))

    def has_submitted(self, student: str) -> bool:
        """Whether there is a submission of a student's, of whatever kind."""
        return os.path.lexists(self.submitted(student))

    def is_current(self, student: str) -> bool:
        """Whether the autograded folder is there, and of the submission's time: it may have come again, and late."""
        (_, submitted), (_, graded) = (
            read_timestamp(folder / TIMESTAMP) for folder in (self.submitted(student), self.autograded(student))
        )
        return self.autograded(student).is_dir() and submitted == graded

    def _path(self, folder: str, student: str) -> Path:
        return Path(self._directory.format_path(folder, student, self._plan.lesson))

    def known(self) -> set[str]:
        """The students for whose submissions the gradebook has scores."""
        try:
            assignment = self._gradebook.find_assignment(self._plan.lesson)
        except MissingEntry:
            return set()
        return {submission.student_id for submission in assignment.submissions}

    def prepare(self) -> None:
        """Make sure that the gradebook knows the lesson's cells, as `nbgrader generate_assignment` does.

        Raises GraderError where submissions are graded and the lesson has other cells now: nbgrader keeps what it has.
        """
        self._gradebook.update_or_create_assignment(self._plan.lesson)
        resources = {
            "nbgrader": {
                "notebook": self._plan.name,
                "assignment": self._plan.lesson,
                "student": "",
                "db_url": self._directory.db_url,
            }
        }
        try:
            SaveCells(config=self._config).preprocess(released_notebook(self._plan), resources)
        except RuntimeError:
            lesson = self._plan.lesson
            raise GraderError(
                f"{lesson} has other cells now than when its submissions were graded, and nbgrader's gradebook adds and"
                " removes none. Go back to the lesson as it was; or forget its scores, comments and due date with"
                f" `nbgrader db assignment remove {lesson} --force`, add the due date again, and grade again."
            ) from None
        self._gradebook.db.expire_all()

    def withdraw(self, student: str, *, keep_manual: bool) -> dict[str, float]:
        """Set a student's scores to 0, with the reason as a comment, until the newer submission is graded.

        Returns the manual scores that were taken back.
        """
        notebook = self._submitted_notebook(student)
        manual = {} if keep_manual else self._take_back_manual(notebook)
        for grade in notebook.grades:
            grade.auto_score = 0.0
            grade.needs_manual_grade = False
        for comment in notebook.comments:
            comment.auto_comment = AGAIN if keep_manual else NOT_YET
        self._gradebook.db.commit()
        return manual

    def store(self, student: str, submission: Submission, result: SubmissionResult, *, keep_manual: bool) -> Stored:
        """Write the autograded notebook and the scores. keep_manual: whether manual ones are this submission's."""
        notebook = autograded_notebook(self._plan, submission, result)
        timestamp, text = read_timestamp(self.submitted(student) / TIMESTAMP)
        arguments = {"timestamp": timestamp} if timestamp else {}
        folder = self.autograded(student)
        secret = read_secret(self.submitted(student) / SECRET, folder / SECRET)
        new = self._write(folder.with_name(f".{folder.name}.new"), notebook, text, secret)
        with _one_transaction(self._gradebook.db):
            self._gradebook.update_or_create_student(student)
            self._gradebook.update_or_create_submission(self._plan.lesson, student, **arguments)
            score, manual = self._save_grades(student, notebook, keep_manual)
        shutil.rmtree(folder, ignore_errors=True)
        new.replace(folder)
        mark = self.mark(student)
        assert mark is not None  # it was stored just now
        return Stored(score, manual, mark)

    def mark(self, student: str) -> Mark | None:
        """What the gradebook says of a student's submission; None where it has none."""
        return read_mark(self._gradebook, self._plan.lesson, self._plan.name, student)

    def _submitted_notebook(self, student: str) -> Any:
        return self._gradebook.find_submission_notebook(self._plan.name, self._plan.lesson, student)

    def _take_back_manual(self, notebook: Any) -> dict[str, float]:
        """Forget the scores that a person gave to an earlier submission."""
        given = {grade.name: (grade.manual_score, grade.extra_credit) for grade in notebook.grades}
        manual = {name: score for name, (score, _) in given.items() if score is not None}
        manual |= {f"{name} (extra credit)": extra for name, (_, extra) in given.items() if extra}
        for grade in notebook.grades:
            grade.manual_score = None
            grade.extra_credit = None
        return manual

    def _save_grades(self, student: str, notebook: NotebookNode, keep_manual: bool) -> tuple[float, dict[str, float]]:
        """What nbgrader's SaveAutoGrades and AssignLatePenalties do. Returns the score and what manual ones went."""
        cells = {cell.metadata.nbgrader["grade_id"]: cell for cell in notebook.cells if "nbgrader" in cell.metadata}
        saved = self._submitted_notebook(student)
        manual = {} if keep_manual else self._take_back_manual(saved)
        for grade in saved.grades:
            score = determine_grade(cells[grade.name])[0] if grade.name in cells else 0.0
            grade.auto_score = score
            grade.needs_manual_grade = grade.manual_score is not None or score is None
        for comment in saved.comments:
            cell = cells.get(comment.name)
            untouched = cell is not None and cell.metadata.nbgrader.get("checksum") == compute_checksum(cell)
            comment.auto_comment = "No response." if untouched else None
        self._gradebook.db.flush()
        self._gradebook.db.refresh(saved)
        saved.late_submission_penalty = self._late_penalty(student, saved)
        self._gradebook.db.flush()
        return saved.score, manual

    def _late_penalty(self, student: str, saved: Any) -> float | None:
        late = saved.assignment.total_seconds_late
        if late <= 0:
            return None
        step = AssignLatePenalties(config=self._config)
        step.init_plugin()
        penalty = step.plugin_inst.late_submission_penalty(student, saved.score, late)
        return None if penalty is None else float(step._check_late_penalty(saved, penalty))

    def _write(self, folder: Path, notebook: NotebookNode, timestamp: str, secret: str) -> Path:
        """Write what is to become a student's autograded folder: first, so that a full disk changes no score."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            files = {f"{self._plan.name}.ipynb": nbformat.writes(notebook), TIMESTAMP: timestamp, SECRET: secret}
            for name, text in files.items():
                (folder / name).write_text(text, encoding="utf-8")
                (folder / name).chmod(READ_ONLY)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._link_figures(folder)
        return folder

    def _link_figures(self, folder: Path) -> None:
        """Let the formgrader find the lesson's pictures; where there are no links, it shows their descriptions."""
        figures = self._path(self._directory.release_directory, ".") / FIGURES
        if figures.is_dir():
            with suppress(OSError):
                (folder / FIGURES).symlink_to(os.path.relpath(figures, folder))


@contextmanager
def _one_transaction(session: Any) -> Iterator[None]:
    """Let what nbgrader's gradebook commits step by step reach the disk in one: all of a grade, or none of it."""
    session.commit = session.flush
    try:
        with warnings.catch_warnings():  # of what nbgrader makes and has not yet put into the session
            warnings.simplefilter("ignore", SAWarning)
            yield
    except BaseException:
        session.rollback()
        raise
    finally:
        del session.commit
    session.commit()


@contextmanager
def open_store(root: Path, config: Config, plan: Plan) -> Iterator[Store]:
    """The store of the course at `root`, configured as nbgrader is. Raises GraderError where the gradebook does not
    let itself be read or written, also from within."""
    with open_gradebook(root, config) as (directory, gradebook):
        yield Store(directory, gradebook, directory.config, plan)


def read_timestamp(path: Path) -> tuple[datetime | None, str]:
    """When a submission was handed in, as nbgrader's exchange noted it; nothing where the file is no timestamp."""
    text = _read_short(path)
    try:
        return parse_utc(text), text
    except (ValueError, ArithmeticError):  # of minutes without end, dateutil makes a decimal number
        return None, ""


def read_secret(*paths: Path) -> str:
    """The secret by which nbgrader's exchange names a submission's feedback, of the first of the files that holds one.

    A new one where none does: the submission came another way.
    """
    found = (text for path in paths if re.fullmatch("[0-9a-f]{32,128}", text := _read_short(path)))
    return next(found, None) or secrets.token_hex(64)


def _read_short(path: Path) -> str:
    """The text of a small file of a submission's; nothing where it is a folder, a pipe, or can't be read, and where it
    is a link, or lies in a folder that is one: it is another's."""
    try:
        if is_linked(path):
            return ""
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        return os.read(fd, 200).decode(errors="replace").strip() if is_file else ""
    except OSError:
        return ""
    finally:
        os.close(fd)
