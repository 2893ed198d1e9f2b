"""The jailed children of one submission: how one is started, runs cells, answers, runs out of time, and dies."""

import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from grader.errors import GraderError
from grader.grading.running.submission import ProgramCell
from grader.grading.sandbox import wire
from grader.grading.sandbox.frames import FrameEnd, FrameError, FrameTimeout, Message, pack
from grader.grading.sandbox.jail import Child, Jail, JailError, ZygoteLost

T = TypeVar("T")
KILLED_FROM_OUTSIDE = 9  # a child can't send it to itself: in its own pid namespace it is process 1
TRIES = 4


class Lost(Exception):
    """A child was lost at an exercise: why. how: the signal or code of one that ended itself.

    Of a child that has seen hidden values `how` is not told: a code of its choice could carry them home.
    """

    def __init__(self, why: str, how: str = "") -> None:
        super().__init__(why)
        self.how = how

    def in_full(self) -> str:
        """Why, and how."""
        return f"{self} ({self.how})" if self.how else str(self)


class Unusable(Lost):
    """What a child said is no answer: somebody else speaks in it."""


class KilledAgain(Lost):
    """A child was killed from outside once too often, as where memory is short: nobody's fault here."""


class _KilledFromOutside(Exception):
    """A child was killed, and not by itself."""


@dataclass
class Program:
    """What is run of a submission.

    cells: in their order. lessons: how many of them, the first, run before anything of the student's. solutions: the
    name of each exercise's solution. deadly: exercises whose cells ended a child: they are not run again.
    """

    cells: Sequence[ProgramCell]
    lessons: int
    solutions: Mapping[str, str]
    deadly: set[str] = field(default_factory=set)

    def with_cells(self, cells: Sequence[ProgramCell]) -> "Program":
        """The same with other cells; what is found deadly there is not deadly here."""
        other = copy.copy(self)
        other.cells, other.deadly = cells, set(self.deadly)
        return other

    def is_lessons(self, cell: ProgramCell) -> bool:
        """Whether a cell runs before anything of the student's."""
        return cell in self.cells[: self.lessons]


class Children:
    """The children of one submission, one at a time.

    deadline: when the last is stopped. started: how many there were. own_cells: which of the student's own cells run,
    once that is known.
    """

    def __init__(self, jail: Jail, deadline: float) -> None:
        self.started = 0
        self.own_cells: tuple[int, ...] | None = None
        self._jail = jail
        self._deadline = deadline
        self._killed = 0

    def late(self) -> bool:
        """Whether the submission's time is up."""
        return time.monotonic() >= self._deadline

    def used_up(self) -> str:
        """Why there is no further child; empty where there is one."""
        if self.late():
            return "it was not run: the exercises before it had used up the time of the whole submission"
        if self.started >= self._jail.limits.children:
            return "it was not run: too many exercises had ended their process"
        return ""

    def exercise_deadline(self) -> float:
        """When an exercise that begins now is stopped."""
        return min(self._deadline, time.monotonic() + self._jail.limits.exercise_seconds)

    def with_new(self, use: Callable[[Child], None]) -> None:
        """Use a new child; once more where it, or the warm process, was killed from outside."""
        lost = 0
        while True:
            self.started += 1
            try:
                with self._jail.child() as child:
                    use(child)
                return
            except _KilledFromOutside:
                continue
            except ZygoteLost:
                self._jail.close()
                lost += 1
                if lost == TRIES:
                    raise JailError("The jail's process was killed again and again.") from None

    def ask(
        self, child: Child, command: bytes, deadline: float, read: Callable[[Message], T], most_bytes: int = 0
    ) -> T:
        """What `read` makes of a child's answer, whose tensors have `most_bytes` at most.

        Raises Lost with the reason for none.
        """
        try:
            return read(child.ask(command, deadline, most_bytes))
        except FrameTimeout:
            limit = self._jail.limits.exercise_seconds
            raise Lost(f"it was stopped after {limit:g} seconds; is there a loop that does not end?") from None
        except FrameEnd:
            raise self._death(child) from None
        except FrameError as error:
            raise Unusable(f"its answer could not be used: {error}") from None

    def _death(self, child: Child) -> Exception:
        ended = child.finish()
        if ended.signal == KILLED_FROM_OUTSIDE and ended.cpu < self._jail.limits.cpu_seconds - 1:
            self._killed += 1
            if self._killed < TRIES:
                return _KilledFromOutside()
            return KilledAgain("its process was killed from outside, again and again; is the machine out of memory?")
        if ended.signal == KILLED_FROM_OUTSIDE:
            return Lost("it used up its processor time")
        how = f"signal {ended.signal}" if ended.signal else f"exit code {ended.code}"
        return Lost("it ended the process it ran in", how)

    def run(self, child: Child, cell: ProgramCell, program: Program, deadline: float) -> None:
        """Run a cell of the program. Raises Lost where the child is, GraderError where it is the lesson's fault.

        That can only be where nothing of the student's has run, or is missing; and such a cell has time of its own.
        """
        lessons = program.is_lessons(cell)
        if lessons:
            deadline = time.monotonic() + self._jail.limits.exercise_seconds
        body = {
            "do": "cell",
            "title": cell.title,
            "source": None if cell.exercise in program.deadly else cell.source,
            "exercise": cell.exercise,
            "solution": program.solutions.get(cell.exercise, ""),
            "free": cell.free,
        }
        try:
            problem = self.ask(child, pack(body), deadline, wire.read_ran)
            if problem is not None and problem.kind == "memory":  # what it has taken is not there for the others
                raise Lost(f"it needed more than {self._jail.limits.memory_mb:,} MB of memory")
        except Lost as lost:
            if not lessons or isinstance(lost, KilledAgain):
                raise
            said = lost.in_full()
            raise GraderError(f"The lesson's own cell `{cell.title}` does not run in the jail: {said}.") from None
        if problem is not None and lessons:
            said = " ".join((problem.message, *problem.detail))
            raise GraderError(f"The lesson's own cell `{cell.title}` does not run in the jail: {said}.")

    def learn_own_cells(self, child: Child, cells: Iterable[ProgramCell]) -> bool:
        """Ask the first child, in which nothing has run, which of the student's own cells will; whether it lived.

        Only then can the answer be believed: one that has seen hidden values could carry them home in what it says
        of 5,000 cells. Where it can't be told, all of them are shown.
        """
        if self.own_cells is not None:
            return True
        own = self.own_cells = tuple(index for cell in cells for index, _ in cell.free)
        if own:
            command = pack({"do": "needed", "parts": [[cell.source, cell.free] for cell in cells if cell.exercise]})
            try:
                self.own_cells = self.ask(
                    child, command, self.exercise_deadline(), lambda answer: wire.read_needed(answer, own)
                )
            except Lost:
                return False
        return True
