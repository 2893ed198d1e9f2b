"""nbgrader's own commands and the formgrader's buttons, on the same safe path as this package's.

``nbgrader_config.py`` calls `install`. From then on nbgrader's Autograde hands the class to this engine; and the step
in which nbgrader would run a notebook in a kernel is replaced by one that grades it in the jail, for whoever
uses nbgrader's converter in another way. Feedback is this package's page, made anew where it is stale, also when it is
released. A lesson is released only while students can read neither solutions nor gradebook. What they hand in is
collected by whose it is, and when it came, as the file system says.

The nbgrader_config.py of every course in use names this module, so it keeps its name.
"""

from datetime import datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from nbgrader.apps.api import NbGraderAPI
from nbgrader.converters import Autograde, GenerateFeedback
from nbgrader.converters.base import NbGraderException
from nbgrader.exchange import ExchangeError
from nbgrader.exchange.default import ExchangeCollect, ExchangeReleaseAssignment, ExchangeReleaseFeedback
from nbgrader.preprocessors import (
    AssignLatePenalties,
    CheckCellMetadata,
    NbGraderPreprocessor,
    SaveAutoGrades,
)
from traitlets import Unicode
from traitlets.config import Config

from grader.errors import GraderError


def install(config: Config) -> None:
    """Make nbgrader grade with this engine. config: what ``get_config()`` gives in nbgrader_config.py."""
    config.Autograde.autograde_preprocessors = [
        f"{GradeInJail.__module__}.{GradeInJail.__name__}",
        *(f"{step.__module__}.{step.__name__}" for step in (SaveAutoGrades, AssignLatePenalties, CheckCellMetadata)),
    ]
    Autograde.start = start
    GenerateFeedback.start = start_feedback
    ExchangeCollect.start = collect
    ExchangeReleaseAssignment.start = release_assignment
    ExchangeReleaseFeedback.start = release_feedback
    NbGraderAPI.get_submitted_timestamp = submitted_timestamp


_nbgraders_release_assignment = ExchangeReleaseAssignment.start
_nbgraders_release_feedback = ExchangeReleaseFeedback.start


def start(autograde: Autograde) -> None:
    """What nbgrader's Autograde does instead of its own: raises NbGraderException where anything was not graded."""
    from grader.grading.classroom.only_linux import refuse_elsewhere

    try:
        refuse_elsewhere()
    except GraderError as error:
        autograde.log.error(str(error))
        raise NbGraderException(str(error)) from None
    from grader.grading.classroom.engine import Graded, Listener, Settings, grade_class

    directory = autograde.coursedir

    def done(graded: Graded) -> None:
        if graded.result is None:
            autograde.log.error("%s could not be graded: %s", graded.student, graded.problem)
        else:
            points = f"{graded.result.points:g} of {graded.result.max_points:g}"
            autograde.log.info("%s: %s%s", graded.student, points, "" if graded.fresh else " (as before)")

    progress = Listener(done=done, say=autograde.log.warning)
    settings = Settings(students=_students(directory), force=autograde.force)
    try:
        results = grade_class(Path(directory.root), directory.assignment_id, settings, progress, autograde.config)
    except GraderError as error:
        autograde.log.error(str(error))
        raise NbGraderException(str(error)) from None
    if failed := [graded.student for graded in results if graded.result is None]:
        raise NbGraderException(f"could not be graded: {', '.join(failed)}")


def start_feedback(generate: GenerateFeedback) -> None:
    """What nbgrader's GenerateFeedback does instead of its own: makes what is stale or missing."""
    from grader.grading.feedback.make import Made, make_feedback

    directory = generate.coursedir

    def done(made: Made) -> None:
        if made.problem:
            generate.log.error("%s has no feedback: %s", made.student, made.problem)
        else:
            generate.log.info("%s: feedback %s", made.student, "made" if made.fresh else "as before")

    try:
        pages = make_feedback(
            Path(directory.root),
            directory.assignment_id,
            _students(directory, directory.autograded_directory),
            force=generate.force,
            config=generate.config,
            done=done,
        )
    except GraderError as error:
        generate.log.error(str(error))
        raise NbGraderException(str(error)) from None
    if failed := [made.student for made in pages if made.problem]:
        raise NbGraderException(f"no feedback for: {', '.join(failed)}")


def release_feedback(release: ExchangeReleaseFeedback) -> Any:
    """nbgrader's own, after the pages that are stale were made anew."""
    from grader.grading.feedback.make import make_feedback

    directory = release.coursedir
    try:
        make_feedback(Path(directory.root), directory.assignment_id, only_existing=True, config=release.config)
    except GraderError as error:
        release.fail(str(error))
    return _nbgraders_release_feedback(release)


def collect(exchange: ExchangeCollect) -> None:
    """What nbgrader's Collect does instead of its own, which believes the names and times that students write."""
    from grader.grading.classroom.collecting import collect_from

    try:
        taken = collect_from(exchange)
    except GraderError as error:
        exchange.fail(str(error))
    for one in taken.submissions:
        exchange.log.info("%s: %s", one.student, "collected" if one.fresh else "as before")
    for said in taken.remarks:
        exchange.log.warning("%s", said)


def submitted_timestamp(api: NbGraderAPI, assignment_id: str, student_id: str) -> datetime | None:
    """When a submission was handed in; None where its file tells no time, which would end nbgrader's list of all."""
    from grader.grading.nbgrader.gradebook import TIMESTAMP, read_timestamp

    directory = api.coursedir
    folder = directory.format_path(directory.submitted_directory, student_id, assignment_id)
    return read_timestamp(Path(folder) / TIMESTAMP)[0]


def release_assignment(release: ExchangeReleaseAssignment) -> Any:
    """nbgrader's own, unless students could read what they must not: raises ExchangeError then."""
    from grader.grading.classroom.exposure import refuse_exposed

    try:
        refuse_exposed(Path(release.coursedir.root), release.config)
    except GraderError as error:
        release.log.error(str(error))
        raise ExchangeError(str(error)) from None
    return _nbgraders_release_assignment(release)


def _students(directory: Any, among: str | None = None) -> tuple[str, ...]:
    """The students that nbgrader's options name, who have a folder in `among`; empty for all."""
    excluded = [name for name in directory.student_id_exclude.split(",") if name]
    if directory.student_id == "*" and not excluded:
        return ()
    submitted = Path(directory.root) / (among or directory.submitted_directory)
    names = sorted(path.parent.name for path in submitted.glob(f"*/{directory.assignment_id}"))
    return tuple(name for name in names if fnmatch(name, directory.student_id) and name not in excluded)


class GradeInJail(NbGraderPreprocessor):  # type: ignore[misc]
    """In place of nbgrader's Execute: grade the submitted file in the jail, and put what it earned in its checks."""

    shown = Unicode(
        "mistake",
        help="How much of an error in hidden cases a student sees: 'mistake', 'count' or 'verdict' (docs/grading.md).",
    ).tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: dict[str, Any]) -> tuple[NotebookNode, dict[str, Any]]:
        """The autograded notebook of the submission that nbgrader is at."""
        from grader.grading.classroom.engine import bundle_of
        from grader.grading.nbgrader.autograded import autograded_notebook
        from grader.grading.running.submission import read_submission
        from grader.grading.running.worker import grade_one

        about = resources["nbgrader"]
        directory = self.parent.coursedir if hasattr(self.parent, "coursedir") else self.parent.parent.coursedir
        bundle, hidden = bundle_of(Path(directory.root), about["assignment"], about["student"], self.config)
        folder = directory.format_path(directory.submitted_directory, about["student"], about["assignment"])
        submission = read_submission(Path(folder) / f"{about['notebook']}.ipynb", bundle.plan)
        result = grade_one(bundle, submission, hidden)
        return autograded_notebook(bundle.plan, submission, result), resources
