"""Grade a class: read every submission, grade what is new, store it, and leave a journal of all of it."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from traitlets.config import Config

from grader.errors import GraderError
from grader.grading.classroom.journal import Journal, key_of, open_journal
from grader.grading.nbgrader.gradebook import Store, open_store
from grader.grading.nbgrader.gradebook_file import course_config
from grader.grading.nbgrader.marks import Mark
from grader.grading.running.bundle import HIDDEN, Bundle, pack_bundle, require_current
from grader.grading.running.engine_version import engine_version
from grader.grading.running.results import SubmissionResult
from grader.grading.running.student_report import Shown
from grader.grading.running.submission import Submission, read_submission
from grader.grading.running.worker import close_jails, grade_one, prove_jail, stop_jails
from grader.grading.sandbox.jail import JailKind
from grader.grading.sandbox.limits import Limits

JOURNALS = "journal"
RETRIES = 3
REASONS = {  # for a new grade, by what of the journal's entry is different
    "submission": "a newer submission",
    "plan": "the lesson has changed",
    "recording": "the cases have changed",
    "engine": "this package has changed",
    "jail": "another jail",
}


@dataclass(frozen=True)
class Graded:
    """One student's row in the summary. fresh: whether it was graded now. problem: why it could not be graded.

    mark: what the gradebook holds now, late penalty and scores given by hand included. before: the points after the
    last run, where there was one. why: what is new about it. taken_back: manual scores, of an earlier submission.
    """

    student: str
    result: SubmissionResult | None
    fresh: bool
    problem: str = ""
    mark: Mark | None = None
    before: float | None = None
    why: str = ""
    taken_back: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """How a run goes. students: only these. force: grade again what is graded. jail: "none" for no jail.

    workers: how many at once. executor: where; threads of this process by default. share: makes of the bundle what
    the executor is to be given, where that is not the bundle itself. prove: tries the jails of that place, and raises
    JailError where one can't be had or does not hold.
    """

    students: tuple[str, ...] = ()
    workers: int = 2
    force: bool = False
    jail: JailKind = "namespaces"
    limits: Limits = field(default_factory=Limits)
    executor: Executor | None = None
    share: Callable[[Bundle], Any] = lambda bundle: bundle
    prove: Callable[[Bundle], None] = prove_jail


@dataclass
class Listener:
    """Whom to tell how a run goes: how many there are to grade, and each that is done."""

    total: Callable[[int], None] = lambda count: None
    done: Callable[[Graded], None] = lambda graded: None
    say: Callable[[str], None] = lambda text: None


@dataclass(frozen=True)
class _Job:
    student: str
    submission: Submission
    key: str
    hidden: Path | None
    keep_manual: bool
    about: Mapping[str, Any]
    why: str = ""


def grade_class(
    root: Path, lesson: str, settings: Settings, progress: Listener | None = None, config: Config | None = None
) -> list[Graded]:
    """Grade the submissions of a lesson below `root` and store them through nbgrader.

    config: nbgrader's; by default that of the course's nbgrader_config.py.
    Raises GraderError where the lesson or the jail can't be had, and then no score has changed.
    """
    progress = progress or Listener()
    config = config or course_config(root)
    bundle = _bundle(root, lesson, settings, config)
    torch.set_num_threads(1)
    with open_journal(root / JOURNALS / f"{lesson}.jsonl") as journal, open_store(root, config, bundle.plan) as store:
        students = _chosen(settings.students, store)
        if bundle.hidden is None and not (root / HIDDEN / lesson).is_dir():
            progress.say(
                f"No hidden recording: {lesson} is graded on the cases that students have, answers included."
                f" Make one with: grader hidden-cases --secret FILE {lesson}"
            )
        try:
            return _ClassRun(root, bundle, journal, store, settings, progress).all(students)
        finally:
            close_jails()


def _chosen(named: Sequence[str], store: Store) -> list[str]:
    """The students to grade.

    Raises GraderError for one who has handed in nothing, a name that is misspelt; and for a folder whose name is no
    text.
    """
    if missing := [name for name in named if not store.has_submitted(name)]:
        raise GraderError(
            f"{missing[0]} has submitted nothing: there is no folder {store.submitted(missing[0])}. Nothing was graded."
        )
    students = list(dict.fromkeys(named)) or store.students()
    if not students:
        raise GraderError(f"Nobody has submitted this lesson: there is no {store.submitted('STUDENT')}.")
    if foreign := [name for name in students if any("\ud800" <= letter <= "\udfff" for letter in name)]:
        raise GraderError(
            f"The folder {str(store.submitted(foreign[0]))!a} has a name that is no text in UTF-8, which the"
            " gradebook can't hold: rename it. Nothing was graded."
        )
    return students


def bundle_of(root: Path, lesson: str, student: str, config: Config) -> tuple[Bundle, bytes | None]:
    """What it takes to grade one student's submission, and the hidden recording that is theirs alone."""
    own = root / HIDDEN / lesson / f"{student}.safetensors"
    return _bundle(root, lesson, Settings(), config), own.read_bytes() if own.exists() else None


def _bundle(root: Path, lesson: str, settings: Settings, config: Config) -> Bundle:
    released = root / str(config.CourseDirectory.get("release_directory", "release")) / lesson
    if not released.is_dir():
        raise GraderError(f"there is no released lesson {released}. Is its name right, and was it built?")
    hidden = root / HIDDEN / f"{lesson}.safetensors"
    solved = root / str(config.CourseDirectory.get("source_directory", "source")) / lesson
    bundle = pack_bundle(released, hidden if hidden.exists() else None, settings.limits, settings.jail, solved)
    return replace(bundle, shown=_shown(config))


def _shown(config: Config) -> Shown:
    """How much of an error in hidden cases a student sees, as nbgrader_config.py has it."""
    said = config.GradeInJail.get("shown", Shown.MISTAKE.value)
    try:
        return Shown(said)
    except ValueError:
        known = ", ".join(repr(one.value) for one in Shown)
        raise GraderError(f"nbgrader_config.py has c.GradeInJail.shown = {said!r}; it can be {known}.") from None


class _ClassRun:
    def __init__(
        self, root: Path, bundle: Bundle, journal: Journal, store: Store, settings: Settings, progress: Listener
    ) -> None:
        self._root, self._bundle, self._journal, self._store = root, bundle, journal, store
        self._settings, self._progress = settings, progress
        self._engine = engine_version()
        self._taken_back: dict[str, tuple[str, ...]] = {}
        store.prepare()

    def all(self, students: Sequence[str]) -> list[Graded]:
        """Grade and store every student's submission; results in the students' order."""
        self._progress.total(len(students))
        found: dict[str, Graded] = {}
        pending = []
        for student in students:
            job = self._job(student)
            result = None if self._settings.force else self._journal.result(student, job.key)
            if result is None:
                pending.append(self._with_reason(job, "graded again" if self._settings.force else "other limits"))
            elif self._journal.is_stored(student, job.key) and self._store.is_current(student):
                found[student] = self._tell(self._unchanged(student, result))
            else:
                found[student] = self._tell(self._save(self._with_reason(job, "handed in again"), result, fresh=False))
        if pending:
            self._settings.prove(self._bundle)  # before any score changes
            known = self._store.known()
            for job in pending:
                if job.student in known:
                    self._withdraw(job)
        for graded in self._grade(pending):
            found[graded.student] = self._tell(graded)
        return [found[student] for student in students]

    def _unchanged(self, student: str, result: SubmissionResult) -> Graded:
        """A submission that is as it was; its mark may have been changed by hand."""
        mark, before = self._store.mark(student), self._journal.mark(student)
        if mark is None or before is None or mark.points == before:
            return Graded(student, result, fresh=False, mark=mark, before=before)
        self._journal.seen(student, mark.points)
        return Graded(student, result, fresh=False, mark=mark, before=before, why="changed in the gradebook")

    def _tell(self, graded: Graded) -> Graded:
        self._progress.done(graded)
        return graded

    def _job(self, student: str) -> _Job:
        plan = self._bundle.plan
        submission = read_submission(self._store.submitted(student) / f"{plan.name}.ipynb", plan)
        hidden: Path | None = self._root / HIDDEN / plan.lesson / f"{student}.safetensors"
        recording = self._bundle.recording_digest
        if hidden is not None and hidden.exists():
            require_current(hidden, self._bundle.public_recording.header["made_from"])
            recording = self._bundle.digest_with(hidden.read_bytes())
        else:
            hidden = None
        key = key_of(
            lesson=plan.lesson,
            plan=plan.digest,
            submission=submission.digest,
            recording=recording,
            engine=self._engine,
            jail=self._bundle.jail,
            limits=repr(self._bundle.limits),
            shown=self._bundle.shown.value,
        )
        keep_manual = self._journal.stored_submission(student) == submission.digest
        return _Job(student, submission, key, hidden, keep_manual, self._about(submission, hidden is not None))

    def _about(self, submission: Submission, own_cases: bool) -> dict[str, Any]:
        """What the journal keeps of a verdict's circumstances."""
        return {
            "submission": submission.digest,
            "lesson": self._bundle.plan.lesson,
            "plan": self._bundle.plan.digest,
            "recording": self._bundle.recording_digest,
            "hidden": own_cases or self._bundle.hidden is not None,
            "engine": self._engine,
            "jail": self._bundle.jail,
        }

    def _with_reason(self, job: _Job, otherwise: str) -> _Job:
        """The job with what is different from the time before, or `otherwise`; with nothing where it is the first."""
        before = self._journal.about(job.student)
        if before is None:
            return job
        reasons = [reason for name, reason in REASONS.items() if before.get(name) != job.about[name]]
        return replace(job, why=" and ".join(reasons) or otherwise)

    def _withdraw(self, job: _Job) -> None:
        """An earlier grade ends here, whatever happens to this one."""
        taken = self._store.withdraw(job.student, keep_manual=job.keep_manual)
        which = "the same submission is graded again" if job.keep_manual else "a newer submission is to be graded"
        self._journal.withdrawn(job.student, which, manual=taken)
        self._taken_back[job.student] = tuple(taken)

    def _grade(self, pending: Sequence[_Job]) -> Iterator[Graded]:
        """Grade jobs, a few of them at once so that memory stays flat; in the order in which they are done."""
        with contextlib.ExitStack() as stack:
            executor = self._settings.executor
            if executor is None:
                executor = stack.enter_context(ThreadPoolExecutor(self._settings.workers))
            bundle = self._settings.share(self._bundle)
            waiting = list(reversed(pending))
            running: dict[Future[SubmissionResult], tuple[_Job, int]] = {}
            try:
                while waiting or running:
                    while waiting and len(running) < 2 * self._settings.workers:
                        self._submit(executor, bundle, waiting.pop(), 0, running)
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        job, tries = running.pop(future)
                        try:
                            result = future.result()
                        except GraderError:
                            raise
                        except (Exception, CancelledError) as error:  # a lost worker, or a fault of the engine's own
                            if tries < RETRIES:
                                self._submit(executor, bundle, job, tries + 1, running)
                            else:  # the others are graded all the same
                                yield self._failed(job, f"{type(error).__name__}: {error}")
                        else:
                            yield self._keep(job, result)
            except BaseException:  # Ctrl-C, or a gradebook in trouble: what is running would only be waited for
                for future in running:
                    future.cancel()
                stop_jails()
                raise

    def _submit(
        self,
        executor: Executor,
        bundle: Any,
        job: _Job,
        tries: int,
        running: dict[Future[SubmissionResult], tuple[_Job, int]],
    ) -> None:
        hidden = job.hidden.read_bytes() if job.hidden else None
        running[executor.submit(grade_one, bundle, job.submission, hidden)] = (job, tries)

    def _failed(self, job: _Job, problem: str) -> Graded:
        self._journal.failed(job.student, problem)
        return Graded(job.student, None, fresh=True, problem=problem)

    def _keep(self, job: _Job, result: SubmissionResult) -> Graded:
        self._journal.graded(job.student, job.key, result, job.about)
        return self._save(job, result, fresh=True)

    def _save(self, job: _Job, result: SubmissionResult, *, fresh: bool) -> Graded:
        """Store a grade. What hinders that for one student is that student's; a gradebook in trouble ends the run."""
        before = self._journal.mark(job.student)
        try:
            stored = self._store.store(job.student, job.submission, result, keep_manual=job.keep_manual)
        except OSError as error:
            return self._failed(job, f"its folder under autograded/ can't be written: {error.strerror}")
        self._journal.stored(
            job.student,
            job.key,
            job.submission.digest,
            score=stored.score,
            mark=stored.mark.points,
            manual=dict(stored.manual),
        )
        taken = tuple(self._taken_back.pop(job.student, ())) or tuple(stored.manual)
        return Graded(job.student, result, fresh, "", stored.mark, before, job.why, taken)
