"""The jailed children of one submission: where `examine` runs submitted code."""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar
from weakref import WeakKeyDictionary

from grader.checks.examine import PartInputs, PartOutputs, examine
from grader.checks.judge import judge
from grader.checks.observation import Fed, Observation, PartClass, PartKey, Problem, Replaced
from grader.checks.verdict import Verdict
from grader.errors import GraderError
from grader.grading import wire
from grader.grading.frames import FrameEnd, FrameError, FrameTimeout, Message, pack
from grader.grading.sandbox.jail import Child, Jail, JailError, ZygoteLost
from grader.grading.submission import Part
from grader.recordings.recording import Recording
from grader.recordings.tasks import Task

Answer = TypeVar("Answer")
KILLED_FROM_OUTSIDE = 9  # a child can't send it to itself: in its own pid namespace it is process 1
TRIES = 4


class _Lost(Exception):
    """A child was lost at an exercise: why."""


class _Unusable(_Lost):
    """What a child said is no answer: somebody else speaks in it."""


class SubmissionRun:
    """The children of one submission.

    lessons: how many of the parts, the first, run before anything of the student's. deadline: when the last child is
    stopped. solutions: the name of each exercise's solution. hidden: whether the recording is a hidden one.
    """

    def __init__(
        self,
        jail: Jail,
        parts: Sequence[Part],
        lessons: int,
        deadline: float,
        solutions: Mapping[str, str],
        hidden: bool,
    ) -> None:
        self.children = 0
        self._jail = jail
        self._parts = parts
        self._lessons = parts[:lessons]
        self._deadline = deadline
        self._solutions = solutions
        self._commands: Mapping[str, bytes] = {}
        self._recording: Recording | None = None
        self._observed: dict[str, tuple[Observation, ...]] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._classes: Mapping[str, PartClass] | None = None  # of the composite's parts that was asked last
        self._hidden = hidden
        self.own_cells: tuple[int, ...] | None = None  # which of the student's own cells run
        self._killed = 0
        self.lost: dict[str, str] = {}  # exercises at which a child was lost, and why
        self._deadly: set[str] = set()  # those of them whose cells ended it: they are not run again

    def examine(self, recording: Recording, exercises: Sequence[str]) -> dict[str, Verdict]:
        """Probe and judge exercises; every one of them gets a verdict."""
        self._commands, self._recording = _probe_commands(recording), recording
        self._observed = self._probe({e: recording.task(e) for e in exercises})
        self._verdicts = {}
        for name in exercises:
            if name not in self.lost and (
                reason := self._late()
            ):  # judging takes time too, and it is the submission that says how much
                self._observed[name] = _problem(recording.task(name), reason)
                self.lost.setdefault(name, reason)
            if name in self.lost:
                self._verdicts[name] = self._judged(recording, name, self._observed[name])
            else:
                self._verdicts[name] = examine(recording, name, self)
        return self._verdicts

    def observe(self, task: Task) -> tuple[Observation, ...]:
        """See `Prober`: what the child observed that probed all exercises."""
        return self._observed[task.exercise]

    def feed(self, task: Task, inputs: PartInputs) -> tuple[dict[PartKey, Fed], ...]:
        """See `Prober`: in a child of its own, which knows the parts' inputs and not their outputs."""
        keys = [{(p.path, p.index) for p in case} for case in inputs]
        paths = {path for case in keys for path, _ in case}
        solutions = {name: self._solutions[name] for name in set(task.parts.values()) if name in self._solutions}

        def ask(child: Child, deadline: float) -> tuple[dict[PartKey, Fed], ...]:
            self._classes = None
            fed = self._ask(child, wire.ask("feed", task, inputs), deadline, self._part_room(task))
            found = _read(lambda: wire.read_fed(fed, keys))
            said = self._ask(child, wire.ask_classes(task, solutions), deadline)
            self._classes = _read(lambda: wire.read_classes(said, paths))
            return found

        return self._aside(task, ask) or ({},) * len(task.cases)

    def classes(self, task: Task, solutions: Mapping[str, str]) -> Mapping[str, PartClass] | None:
        """See `Prober`: what the child said that was asked last to feed the parts. It decides about words alone."""
        return self._classes

    def replace(self, task: Task, outputs: PartOutputs) -> tuple[Replaced, ...]:
        """See `Prober`: in a child of its own, which knows the parts' outputs and not their inputs."""
        keys = [{(p.path, p.index) for p in case} for case in outputs]

        def ask(child: Child, deadline: float) -> tuple[Replaced, ...]:
            answer = self._ask(child, wire.ask("replace", task, outputs), deadline, self._part_room(task))
            return _read(lambda: wire.read_replaced(answer, keys))

        return self._aside(task, ask) or (Replaced(None, {}),) * len(task.cases)

    def right(self, exercise: str) -> bool | None:
        """See `Prober`: the verdict that the exercise got before; None where the submission does not define it."""
        verdict = self._verdicts.get(exercise)
        if verdict is None or _is_undefined(self._observed[exercise]):
            return None
        return verdict.right

    def again(self, recording: Recording, exercises: Sequence[str]) -> dict[str, Verdict]:
        """As `examine`, in new children, in what is left of the time; without what was lost before."""
        self._hidden = False
        return self.examine(recording, [e for e in exercises if e not in self.lost])

    def with_solutions(
        self, recording: Recording, exercises: Sequence[str], parts: Sequence[Part]
    ) -> dict[str, Verdict]:
        """The verdicts on exercises where the lesson's solutions stand in for wrong ones. They earn points, and not a
        word of them is shown: these children know solutions.

        parts: see `solutions.with_solutions`. In a child a solution comes after its exercise was probed there.
        """
        other = copy.copy(self)
        other._parts, other.lost, other._deadly = parts, {}, set(self._deadly)
        judged = [e for e in exercises if e not in self._deadly]
        other._commands, other._recording = _probe_commands(recording), recording
        observed = other._probe({e: recording.task(e) for e in judged})
        self.children = other.children
        return {e: other._judged(recording, e, observed[e]) for e in judged}

    def _judged(self, recording: Recording, name: str, observed: Sequence[Observation]) -> Verdict:
        return judge(recording.task(name), recording.answer(name), observed)

    def _probe(self, tasks: dict[str, Task]) -> dict[str, tuple[Observation, ...]]:
        results: dict[str, tuple[Observation, ...]] = {}
        while pending := [e for e in tasks if e not in results]:
            if reason := self._used_up():
                results.update({e: _problem(tasks[e], reason) for e in pending})
                break
            self._with_child(lambda child: self._probe_in(child, tasks, results))
        return results

    def _late(self) -> str:
        if time.monotonic() < self._deadline:
            return ""
        return "it was not judged: the exercises before it had used up the time of the whole submission"

    def _used_up(self) -> str:
        if time.monotonic() >= self._deadline:
            return "it was not run: the exercises before it had used up the time of the whole submission"
        if self.children >= self._jail.limits.children:
            return "it was not run: too many exercises had ended their process"
        return ""

    def _probe_in(self, child: Child, tasks: dict[str, Task], results: dict[str, tuple[Observation, ...]]) -> None:
        """Probe what has no result yet, until the child is lost at one of them."""
        last = next((e for e in reversed(tasks) if e not in results), "")
        if not last or not self._own_cells_known(child):
            return
        ran_last = ""
        for part in self._parts:
            name = part.exercise
            deadline = self._exercise_deadline()
            if name and name not in self._deadly:
                ran_last = name
            try:
                self._run_part(child, part, deadline)
            except _Lost as lost:
                if ran_last:  # one of the lesson's own cells can be lost to what ran before it
                    self._deadly.add(ran_last)
                    self._lose(ran_last, str(lost), tasks, results)
                return
            if name in tasks and name not in results:
                try:
                    results[name] = self._observed_in(child, tasks[name], deadline)
                except _Lost as lost:
                    if isinstance(lost, _Unusable):  # or it would speak in the next child too
                        self._deadly.add(name)
                    self._lose(name, str(lost), tasks, results)
                    return
            if name == last:
                return

    def _observed_in(self, child: Child, task: Task, deadline: float) -> tuple[Observation, ...]:
        assert self._recording is not None
        rooms = wire.room_for(self._recording.answer(task.exercise))
        room = 2 * sum(rooms) + wire.ROOM_FOR_GRADIENTS * len(rooms)
        answer = self._ask(child, self._commands[task.exercise], deadline, room)
        return _read(lambda: wire.read_observations(answer, task, rooms))

    def _part_room(self, task: Task) -> int:
        assert self._recording is not None
        return wire.room_for_parts(self._recording.answer(task.exercise))

    def _own_cells_known(self, child: Child) -> bool:
        """Ask the first child, in which nothing has run, which of the student's own cells will; whether it lived.

        Only then can the answer be believed: one that has seen hidden values could carry them home in what it says
        of 5,000 cells. Where it can't be told, all of them are shown.
        """
        if self.own_cells is not None:
            return True
        own = self.own_cells = tuple(index for part in self._parts for index, _ in part.free)
        if own:
            parts = [[part.source, part.free] for part in self._parts if part.exercise]
            try:
                answer = self._ask(child, pack({"do": "needed", "parts": parts}), self._exercise_deadline())
                self.own_cells = _read(lambda: wire.read_needed(answer, own))
            except _Lost:
                return False
        return True

    def _lose(self, name: str, why: str, tasks: dict[str, Task], results: dict[str, tuple[Observation, ...]]) -> None:
        self.lost.setdefault(name, why)
        if name in tasks:
            results.setdefault(name, _problem(tasks[name], why))

    def _run_part(self, child: Child, part: Part, deadline: float) -> None:
        """Run a part's cells. Raises _Lost where the child is, GraderError where it is the lesson's fault.

        That can only be where nothing of the student's has run, or is missing; and such a cell has time of its own.
        """
        lessons = part in self._lessons
        if lessons:
            deadline = time.monotonic() + self._jail.limits.exercise_seconds
        source = None if part.exercise in self._deadly else part.source
        body = {
            "do": "cell",
            "title": part.title,
            "source": source,
            "exercise": part.exercise,
            "solution": self._solutions.get(part.exercise, ""),
            "free": part.free,
        }
        try:
            answer = self._ask(child, pack(body), deadline)
            problem = _read(lambda: wire.read_ran(answer))
            if problem is not None and problem.kind == "memory":  # what it has taken is not there for the others
                raise _Lost(f"it needed more than {self._jail.limits.memory_mb:,} MB of memory")
        except _Lost as lost:
            if lessons:
                raise GraderError(f"The lesson's own cell `{part.title}` does not run in the jail: {lost}.") from None
            raise
        if problem is not None and lessons:
            said = " ".join((problem.message, *problem.detail))
            raise GraderError(f"The lesson's own cell `{part.title}` does not run in the jail: {said}.")

    def _aside(self, task: Task, ask: Callable[[Child, float], Answer]) -> Answer | None:
        """What `ask` gets from a child of its own, in which the cells up to the exercise's ran; None for nothing."""
        if self._used_up():
            return None
        found: list[Answer] = []

        def in_child(child: Child) -> None:
            deadline = self._exercise_deadline()
            try:
                for part in self._parts:
                    self._run_part(child, part, deadline)
                    if part.exercise == task.exercise:
                        break
                found.append(ask(child, deadline))
            except _Lost:
                pass

        self._with_child(in_child)
        return found[0] if found else None

    def _exercise_deadline(self) -> float:
        return min(self._deadline, time.monotonic() + self._jail.limits.exercise_seconds)

    def _with_child(self, use: Callable[[Child], None]) -> None:
        """Use a new child; once more where it, or the warm process, was killed from outside."""
        lost = 0
        while True:
            self.children += 1
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

    def _ask(self, child: Child, command: bytes, deadline: float, room: int = 0) -> Message:
        """A child's answer, whose tensors have `room` bytes at most. Raises _Lost with the reason for none."""
        try:
            return child.ask(command, deadline, room)
        except FrameTimeout:
            limit = self._jail.limits.exercise_seconds
            raise _Lost(f"it was stopped after {limit:g} seconds; is there a loop that does not end?") from None
        except FrameEnd:
            raise self._death(child) from None
        except FrameError as error:
            raise _Unusable(f"its answer could not be used: {error}") from None

    def _death(self, child: Child) -> Exception:
        ended = child.finish()
        if ended.signal == KILLED_FROM_OUTSIDE and ended.cpu < self._jail.limits.cpu_seconds - 1:
            self._killed += 1
            if self._killed < TRIES:
                return _KilledFromOutside()
            return _Lost("its process was killed from outside, again and again; is the machine out of memory?")
        if ended.signal == KILLED_FROM_OUTSIDE:
            return _Lost("it used up its processor time")
        if self._hidden:  # a code of its choice could carry hidden values home
            return _Lost("it ended the process it ran in")
        how = f"signal {ended.signal}" if ended.signal else f"exit code {ended.code}"
        return _Lost(f"it ended the process it ran in ({how})")


_encoded: WeakKeyDictionary[Recording, dict[str, bytes]] = WeakKeyDictionary()


def _probe_commands(recording: Recording) -> Mapping[str, bytes]:
    """The command to probe each of a recording's exercises, which is the same for a whole class."""
    if recording not in _encoded:
        _encoded[recording] = {
            name: wire.ask_probe(recording.task(name), recording.answer(name)) for name in recording.exercises
        }
    return _encoded[recording]


class _KilledFromOutside(Exception):
    """A child was killed, and not by itself."""


def _read(read: Callable[[], Answer]) -> Answer:
    try:
        return read()
    except FrameError as error:
        raise _Unusable(f"its answer could not be used: {error}") from None


def _is_undefined(observations: Sequence[Observation]) -> bool:
    """Whether the cell ran and did not define the solution, or was not there."""
    return any(one.problem is not None and one.problem.kind in ("target", "syntax") for one in observations)


def _problem(task: Task, reason: str) -> tuple[Observation, ...]:
    return tuple(Observation(case.name, problem=Problem("lost", reason)) for case in task.cases)
