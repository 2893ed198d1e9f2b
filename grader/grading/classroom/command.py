"""What ``grader autograde`` shows: progress with the time that is left, and a table at the end."""

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from grader.errors import GraderError
from grader.grading.classroom import engine
from grader.grading.classroom.engine import Graded, Settings, grade_class
from grader.grading.feedback.make import make_feedback
from grader.grading.feedback.render import duration, points
from grader.grading.running.bundle import Bundle
from grader.grading.running.engine_version import engine_version
from grader.grading.running.worker import prove_jail
from grader.grading.sandbox.jail import JailError
from grader.grading.sandbox.limits import Limits
from grader.grading.sandbox.wire import clean
from grader.package import distribution

MAX_CELL = 120
INTERRUPTED = 130
WAIT_FOR_WORKERS = 10  # seconds


@dataclass(frozen=True)
class Chosen:
    """The command's options."""

    lesson: str
    students: tuple[str, ...] = ()
    workers: int = 2
    force: bool = False
    dask: str = ""
    unsafe: bool = False
    limits: Limits = field(default_factory=Limits)


def autograde(root: Path, chosen: Chosen) -> bool:
    """Grade, show how it goes and what came of it; whether everything could be graded."""
    console = Console(stderr=True)
    if chosen.unsafe:
        console.print("--unsafe: submitted code runs with your rights, and can do all that you can.", style="bold red")
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        console=console,
    )  # fmt: skip
    with bar:
        task = bar.add_task(f"grading {chosen.lesson}", total=None)
        progress = engine.Listener(
            total=lambda count: bar.update(task, total=count),
            done=lambda _: bar.advance(task),
            say=lambda text: bar.console.print(text, markup=False),
        )
        with _settings(chosen) as settings:
            try:
                results = grade_class(root, chosen.lesson, settings, progress)
            except KeyboardInterrupt:
                bar.console.print("Stopped. What was graded is kept: run the same again, and it goes on from there.")
                raise SystemExit(INTERRUPTED) from None
    Console().print(summary(results, chosen.unsafe))
    if any(graded.result for graded in results):
        _renew_feedback(root, chosen.lesson, [graded.student for graded in results if graded.result], console)
    return all(graded.result is not None for graded in results)


def _renew_feedback(root: Path, lesson: str, students: list[str], console: Console) -> None:
    """Make the pages that are there and stale anew: none stays over another mark."""
    pages = make_feedback(root, lesson, students, only_existing=True)
    if renewed := sum(made.fresh for made in pages):
        console.print(f"Feedback of {renewed} made anew; to be released again: nbgrader release_feedback {lesson}")
    for made in pages:
        if made.problem:
            console.print(f"{made.student} has no feedback: {made.problem}", markup=False)


def summary(results: list[Graded], unsafe: bool = False) -> Table:
    """A row a student, and a line that counts them. The points are those that are exported."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("student", "points", "of", "was", "seconds", "what to know"):
        table.add_column(heading, justify="left" if heading in ("student", "what to know") else "right")
    for graded in results:
        table.add_row(*map(Text, _row(graded)))  # what a student chose is no markup
    fresh = sum(graded.fresh for graded in results)
    failed = sum(graded.result is None for graded in results)
    how = " without a jail" if unsafe else ""
    table.caption = f"{fresh - failed} graded{how}, {len(results) - fresh} as before, {failed} could not be graded"
    if unreadable := sum(graded.result is not None and bool(graded.result.problem) for graded in results):
        table.caption += f"\n{unreadable} could not be read, and have 0 points"
    if late := sum(graded.mark is not None and graded.mark.late > 0 for graded in results):
        table.caption += f"\n{late} came late"
    return table


def _row(graded: Graded) -> tuple[str, ...]:
    if graded.result is None:
        return clean(graded.student), "-", "-", "", "-", clean(f"could not be graded: {graded.problem}")
    result, mark = graded.result, graded.mark
    now, most = (mark.points, mark.max_points) if mark else (result.points, result.max_points)
    other = graded.before is not None and points(graded.before) != points(now)
    was = points(graded.before) if graded.before is not None and other else ""
    seconds = f"{result.seconds:.1f}" if graded.fresh else "as before"
    to_know = "\n".join(_short(clean(line)) for line in _to_know(graded))
    return clean(graded.student), points(now), points(most), was, seconds, to_know


def _to_know(graded: Graded) -> Iterator[str]:
    """What a lecturer should know of a mark, the most important first."""
    if graded.why:
        yield graded.why
    if graded.taken_back:
        yield f"manual scores of an earlier submission were taken back: {', '.join(graded.taken_back)}"
    mark, result = graded.mark, graded.result
    if mark is not None and mark.late:
        without = ", without a penalty" if mark.raw else ""  # where there are no points, none can be taken off
        penalty = f": {points(mark.penalty)} points off" if mark.penalty else without
        yield f"{duration(mark.late)} late{penalty}"
    if mark is not None and mark.timestamp is not None and mark.timestamp > datetime.now(UTC).replace(tzinfo=None):
        yield f"its time is still to come: {mark.timestamp:%Y-%m-%d %H:%M} UTC stands in its timestamp.txt"
    for name, cell in mark.by_hand.items() if mark is not None else ():
        extra = f" and {points(cell.extra)} extra" if cell.extra else ""
        yield f"by hand: {name} {points(cell.points - cell.extra)}{extra} (automatically {points(cell.automatic)})"
    words = [word for word in (result.problem, *result.notes) if word] if result is not None else []
    if words:
        yield words[0] if len(words) == 1 else f"{len(words)} notes: {words[0]}"


def _short(text: str) -> str:
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 3] + "..."


@contextlib.contextmanager
def _settings(chosen: Chosen) -> Iterator[Settings]:
    settings = Settings(
        students=chosen.students,
        workers=chosen.workers,
        force=chosen.force,
        jail="none" if chosen.unsafe else "namespaces",
        limits=chosen.limits,
    )
    if not chosen.dask:
        yield settings
        return
    client = _dask_client(chosen.dask)
    with client:
        _require_same_engine(client, chosen.dask)
        workers = max(sum(client.nthreads().values()), 1)
        yield replace(
            settings,
            executor=client.get_executor(),
            workers=workers,
            share=_shared(client),
            prove=lambda bundle: _prove_jails(client, bundle),
        )


def _dask_client(address: str) -> Any:
    try:
        from distributed import Client
    except ImportError:
        raise GraderError(f"--dask needs Dask: pip install '{distribution().name}[dask]'") from None
    try:
        return Client(address, timeout="10s")
    except (OSError, TimeoutError, ValueError) as error:
        raise GraderError(f"no Dask scheduler answers at {address}: {error}") from None


def _require_same_engine(client: Any, address: str) -> None:
    """Raise GraderError unless the cluster has workers, and all of them this package, in this version."""
    try:
        client.wait_for_workers(1, timeout=WAIT_FOR_WORKERS)
        found = client.run(engine_version)
    except TimeoutError:
        raise GraderError(f"the Dask cluster at {address} has no workers. Start some: dask worker {address}") from None
    except Exception as error:  # whatever a worker's import raises comes back as it is
        raise GraderError(
            f"a worker of the Dask cluster at {address} can't load this package: {type(error).__name__}: {error}."
            " Install it there, in this version."
        ) from None
    if others := sorted(worker for worker, version in found.items() if version != engine_version()):
        raise GraderError(f"the Dask worker {others[0]} has another version of this package. Install this one there.")


def _prove_jails(client: Any, bundle: Bundle) -> None:
    """Try the jail of every worker that there is. Raises JailError with the name of one whose jail does not hold."""
    tried = {worker: client.submit(prove_jail, bundle, workers=[worker], pure=False) for worker in client.nthreads()}
    for worker, trial in tried.items():
        try:
            trial.result()
        except JailError as error:
            raise JailError(f"On the Dask worker {worker}: {error}") from None


def _shared(client: Any) -> Any:
    """Send the bundle to a worker once, and jobs a reference to it.

    It is what a task gives: where the workers that hold it are lost, the scheduler has another one make it again. What
    is scattered would be lost with them.
    """
    return lambda bundle: client.submit(copy.copy, bundle, pure=False)
