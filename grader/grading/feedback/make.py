"""Make feedback pages: those whose submission, marks or comments have changed since, and no others."""

import glob
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nbformat
from nbgrader.api import Gradebook
from nbgrader.coursedir import CourseDirectory
from traitlets.config import Config

from grader.digest import digest
from grader.errors import GraderError
from grader.grading.feedback.content import content_of
from grader.grading.feedback.render import render
from grader.grading.nbgrader.gradebook_file import course_config, course_directory, open_gradebook
from grader.grading.nbgrader.marks import read_mark

RELEASED_WITH = ("timestamp.txt", "submission_secret.txt")  # by these nbgrader's exchange releases a page
MAX_NAMES = 5  # of notebooks in a submission: a student may hand in as many as they like
_MADE_FROM = re.compile(r'<meta name="made-from" content="(\w+)">')


@dataclass(frozen=True)
class Made:
    """A student's page. fresh: whether it was made now. problem: why there is none."""

    student: str
    fresh: bool
    problem: str = ""


def make_feedback(
    root: Path,
    lesson: str,
    students: Sequence[str] = (),
    *,
    force: bool = False,
    only_existing: bool = False,
    config: Config | None = None,
    done: Callable[[Made], None] = lambda made: None,
) -> list[Made]:
    """Make the pages of a lesson's students, all of them if none is named, in nbgrader's folder for feedback.

    only_existing: leave alone who has no page yet. Raises GraderError where nobody is graded, or one who is named.
    """
    config = config or course_config(root)
    directory = course_directory(root, config)
    pages = [_Page(directory, lesson, student) for student in _chosen(directory, lesson, students)]
    wanted = [page for page in pages if not only_existing or page.path.exists()]
    if not wanted:  # then there is nothing to open the gradebook for
        return []
    found = []
    with open_gradebook(root, config) as (_, gradebook):
        for page in wanted:
            found.append(page.make(gradebook, force))
            done(found[-1])
    return found


def _chosen(directory: CourseDirectory, lesson: str, named: Sequence[str]) -> list[str]:
    graded = sorted(_graded(directory, lesson))
    if missing := [name for name in named if name not in graded]:
        raise GraderError(f"{missing[0]} has no graded submission of {lesson}. Run: grader autograde {lesson}")
    if not graded:
        raise GraderError(f"nobody is graded in {lesson} yet. Run: grader autograde {lesson}")
    return list(dict.fromkeys(named)) or graded


def _graded(directory: CourseDirectory, lesson: str) -> Iterator[str]:
    for folder in glob.glob(directory.format_path(directory.autograded_directory, "*", lesson)):
        if any(Path(folder).glob("*.ipynb")):
            yield Path(folder).parent.name


class _Page:
    """The page of one student's submission, under the name of the lesson's notebook and of each that was handed in."""

    def __init__(self, directory: CourseDirectory, lesson: str, student: str) -> None:
        self._lesson, self._student = lesson, student
        self._graded = Path(directory.format_path(directory.autograded_directory, student, lesson))
        self._folder = Path(directory.format_path(directory.feedback_directory, student, lesson))
        self._notebook = next(iter(sorted(self._graded.glob("*.ipynb"))))
        handed_in = Path(directory.format_path(directory.submitted_directory, student, lesson))
        self._names = {self._notebook.stem, *_names(handed_in)}

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self._folder / f"{self._notebook.stem}.html"

    def make(self, gradebook: Gradebook, force: bool) -> Made:
        """Make it, where it is not there or stale."""
        mark = read_mark(gradebook, self._lesson, self._notebook.stem, self._student)
        if mark is None:
            return Made(self._student, False, "the gradebook has no submission of theirs: grade it again")
        try:
            notebook = self._notebook.read_bytes()
            wanted = digest(b"\0".join((_version().encode(), notebook, repr(mark).encode())))
            beside = {name: (self._graded / name).read_bytes() for name in RELEASED_WITH if self._has(name)}
            if not force and self._made_from() == wanted and self._beside() == beside and self._there() == self._names:
                return Made(self._student, False)
            content = content_of(nbformat.reads(notebook.decode(), as_version=4), self._lesson, self._student, mark)
            self._write(render(content, wanted), beside)
        except (OSError, ValueError) as error:
            return Made(self._student, False, f"{type(error).__name__}: {error}")
        return Made(self._student, True)

    def _has(self, name: str) -> bool:
        return (self._graded / name).is_file()

    def _beside(self) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in self._folder.glob("*.txt") if p.name in RELEASED_WITH}

    def _there(self) -> set[str]:
        return {page.stem for page in self._folder.glob("*.html")}

    def _made_from(self) -> str:
        """What the page that is there was made from; empty where there is none, or one of nbgrader's own."""
        try:
            with self.path.open(encoding="utf-8") as file:
                found = _MADE_FROM.search(file.read(1000))
        except (OSError, ValueError):
            return ""
        return found[1] if found else ""

    def _write(self, page: str, beside: dict[str, bytes]) -> None:
        new = self._folder.with_name(f".{self._folder.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        for name in self._names:
            (new / f"{name}.html").write_text(page, encoding="utf-8")
        for name, content in beside.items():
            (new / name).write_bytes(content)
        for path in new.iterdir():
            path.chmod(0o644)  # as nbgrader's own
        shutil.rmtree(self._folder, ignore_errors=True)
        new.replace(self._folder)


def _names(submission: Path) -> list[str]:
    """The names of the notebooks that a student handed in: their nbgrader looks for a page for each of them."""
    if submission.is_symlink():
        return []
    names = sorted(path.stem for path in submission.glob("[!.]*.ipynb") if path.name.isprintable())
    return names[:MAX_NAMES]


@cache
def _version() -> str:
    """A digest of what makes pages: after a change of it they are made anew."""
    files = sorted(path for path in Path(__file__).parent.iterdir() if path.suffix in (".py", ".j2"))
    return digest(b"\0".join(path.read_bytes() for path in files))
