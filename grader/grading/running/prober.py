"""What `examine` asks of a submission, asked of its jailed children."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar
from weakref import WeakKeyDictionary

from grader.checks.examine import PartInputs, PartOutputs, Prober, examine
from grader.checks.judge import judge
from grader.checks.judge.variants import right_in
from grader.checks.judge.verdict import Verdict
from grader.checks.observation import Fed, Observation, PartClass, PartKey, Problem, Replaced
from grader.grading.running.children import Children, Lost, Program, Unusable
from grader.grading.sandbox import wire
from grader.grading.sandbox.frames import Message
from grader.grading.sandbox.jail import Child
from grader.recordings.answers import Answer
from grader.recordings.recording import Recording
from grader.recordings.tasks import Task
from grader.recordings.variants import Rows

T = TypeVar("T")
TIMES, LEAST_BYTES = 4, 4096  # how many times a right answer's bytes another may have, and how many in any case
NOT_JUDGED = "it was not judged: the exercises before it had used up the time of the whole submission"
# Which sentence it is would be for submitted code to choose, and could carry hidden values home: it is always this one.
NO_ANSWER = (
    "On cases that are not in your notebook it gave no answer that could be used: it took too long, needed too much"
    " memory, ended its process, or said something else"
)


class InChildren(Prober):
    """Runs a submission's program in children, and judges exercises of one recording.

    hidden: whether that is a hidden one. lost: exercises at which a child was lost, and why.
    """

    def __init__(self, children: Children, program: Program, recording: Recording, hidden: bool) -> None:
        self.lost: dict[str, str] = {}
        self._children = children
        self._program = program
        self._recording = recording
        self._hidden = hidden
        self._commands = _probe_commands(recording)
        self._observed: dict[str, tuple[Observation, ...]] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._classes: Mapping[str, PartClass] | None = None  # of the composite's parts that was asked last

    def examine(self, exercises: Sequence[str]) -> dict[str, Verdict]:
        """Probe and judge exercises; every one of them gets a verdict."""
        self._probe(exercises)
        for name in exercises:
            if name not in self.lost and self._children.late():
                # Judging takes time too, and it is the submission that says how much.
                self.lost[name] = NO_ANSWER if self._hidden else NOT_JUDGED
                self._observed[name] = _problem(self._recording.task(name), self.lost[name])
            whole = name not in self.lost
            self._verdicts[name] = examine(self._recording, name, self) if whole else self._judged(name)
        return self._verdicts

    def take_lost(self, other: "InChildren") -> None:
        """Take over what another found of the exercises at which it lost a child: they are not run again."""
        for name in other.lost:
            self._verdicts[name], self._observed[name] = other._verdicts[name], other._observed[name]

    def judge_alone(self, exercises: Sequence[str]) -> dict[str, Verdict]:
        """Verdicts told from what exercises' cases give alone, of those whose cells end no child."""
        alive = [name for name in exercises if name not in self._program.deadly]
        self._probe(alive)
        return {name: self._judged(name) for name in alive}

    def observe(self, task: Task) -> tuple[Observation, ...]:  # the child observed it that probed all exercises
        return self._observed[task.exercise]

    def feed(self, task: Task, inputs: PartInputs) -> tuple[dict[PartKey, Fed], ...]:
        # In a child of its own, which knows the parts' inputs and not their outputs. It tells their classes, too.
        self._classes = None
        if _is_undefined(self._observed[task.exercise]):  # then there are no parts, and no child is started for them
            return ({},) * len(task.cases)
        keys = [{(p.path, p.index) for p in case} for case in inputs]
        paths = {path for case in keys for path, _ in case}
        names = self._program.solutions
        solutions = {name: names[name] for name in set(task.parts.values()) if name in names}

        def ask(child: Child, deadline: float) -> tuple[dict[PartKey, Fed], ...]:
            fed = self._ask_of_parts(
                child, task, deadline, wire.ask_feed(task, inputs), lambda answer: wire.read_fed(answer, keys)
            )
            classes = wire.ask_classes(task, solutions)
            self._classes = self._children.ask(child, classes, deadline, lambda said: wire.read_classes(said, paths))
            return fed

        return self._aside(task, ask) or ({},) * len(task.cases)

    def replace(self, task: Task, outputs: PartOutputs) -> tuple[Replaced, ...]:
        # In a child of its own, which knows the parts' outputs and not their inputs.
        nothing = (Replaced(None, {}),) * len(task.cases)
        if _is_undefined(self._observed[task.exercise]):
            return nothing
        keys = [{(p.path, p.index) for p in case} for case in outputs]

        def ask(child: Child, deadline: float) -> tuple[Replaced, ...]:
            command = wire.ask_replace(task, outputs)
            return self._ask_of_parts(child, task, deadline, command, lambda said: wire.read_replaced(said, keys))

        return self._aside(task, ask) or nothing

    def classes(self, task: Task, solutions: Mapping[str, str]) -> Mapping[str, PartClass] | None:
        return self._classes  # what a child said when it fed the parts; it decides about words alone

    def right(self, exercise: str) -> bool | None:
        verdict = self._verdicts.get(exercise)
        if verdict is None or _is_undefined(self._observed[exercise]):
            return None
        return verdict.right

    def _judged(self, name: str) -> Verdict:
        return judge(self._recording.task(name), self._recording.answer(name), self._observed[name])

    def _probe(self, exercises: Sequence[str]) -> None:
        """Observe exercises, in as many children as it takes."""
        while pending := [name for name in exercises if name not in self._observed]:
            if reason := self._children.used_up():
                if self._hidden:
                    self.lost |= dict.fromkeys(pending, reason := NO_ANSWER)
                self._observed |= {name: _problem(self._recording.task(name), reason) for name in pending}
                break
            self._children.with_new(lambda child: self._probe_in(child, exercises))

    def _probe_in(self, child: Child, exercises: Sequence[str]) -> None:
        """Probe what is not observed yet, until the child is lost at one of them."""
        last = next((name for name in reversed(exercises) if name not in self._observed), "")
        if not last or not self._children.learn_own_cells(child, self._program.cells):
            return
        ran_last = ""
        for cell in self._program.cells:
            name = cell.exercise
            deadline = self._children.exercise_deadline()
            if name and name not in self._program.deadly:
                ran_last = name
            try:
                self._children.run(child, cell, self._program, deadline)
            except Lost as lost:
                if ran_last:  # one of the lesson's own cells can be lost to what ran before it
                    self._program.deadly.add(ran_last)
                    self._lose(ran_last, lost, exercises)
                return
            if name in exercises and name not in self._observed:
                try:
                    self._observed[name] = self._observed_in(child, name, deadline)
                except Lost as lost:
                    if isinstance(lost, Unusable):  # or it would speak in the next child too
                        self._program.deadly.add(name)
                    self._lose(name, lost, exercises)
                    return
            if name == last:
                return

    def _observed_in(self, child: Child, name: str, deadline: float) -> tuple[Observation, ...]:
        task = self._recording.task(name)
        limits = most_bytes(task, self._recording.answer(name))
        most = 2 * sum(limits) + wire.GRADIENT_BYTES * len(limits)
        command = self._commands[name]
        return self._children.ask(
            child, command, deadline, lambda answer: wire.read_observations(answer, task, limits), most
        )

    def _lose(self, name: str, lost: Lost, exercises: Sequence[str]) -> None:
        why = self.lost.setdefault(name, NO_ANSWER if self._hidden else lost.in_full())
        if name in exercises:
            self._observed.setdefault(name, _problem(self._recording.task(name), why))

    def _ask_of_parts(
        self, child: Child, task: Task, deadline: float, command: bytes, read: Callable[[Message], T]
    ) -> T:
        most = most_bytes_of_parts(task, self._recording.answer(task.exercise))
        return self._children.ask(child, command, deadline, read, most)

    def _aside(self, task: Task, ask: Callable[[Child, float], T]) -> T | None:
        """What `ask` gets from a child of its own, in which the cells up to the exercise's ran; None for nothing."""
        if self._children.used_up():
            return None
        found: list[T] = []

        def in_child(child: Child) -> None:
            deadline = self._children.exercise_deadline()
            try:
                for cell in self._program.cells:
                    self._children.run(child, cell, self._program, deadline)
                    if cell.exercise == task.exercise:
                        break
                found.append(ask(child, deadline))
            except Lost:
                pass

        self._children.with_new(in_child)
        return found[0] if found else None


def most_bytes(task: Task, answer: Answer) -> list[int]:
    """The bytes that each case's output may have: a few times what the right one takes, also for more rows, or a known
    mistake's."""
    found = []
    for i, (case, want) in enumerate(zip(task.cases, answer.outputs, strict=True)):
        more = [right_in(answer, i).of(variant) for variant in case.variants if isinstance(variant, Rows)]
        known = [want, *more, *(mistake.outputs[i] for mistake in answer.mistakes)]
        found.append(TIMES * max(output.nbytes for output in known) + LEAST_BYTES)
    return found


def most_bytes_of_parts(task: Task, answer: Answer) -> int:
    """The bytes that a composite's output in every case, and all that its parts are given or give, may have."""
    tensors = [t for calls in answer.part_calls for call in calls for t in (call.input, call.output) if t is not None]
    return TIMES * sum(tensor.nbytes for tensor in tensors) + sum(most_bytes(task, answer))


_encoded: WeakKeyDictionary[Recording, dict[str, bytes]] = WeakKeyDictionary()


def _probe_commands(recording: Recording) -> Mapping[str, bytes]:
    """The command to probe each of a recording's exercises, which is the same for a whole class."""
    if recording not in _encoded:
        _encoded[recording] = {
            name: wire.ask_probe(recording.task(name), most_bytes(recording.task(name), recording.answer(name)))
            for name in recording.exercises
        }
    return _encoded[recording]


def _is_undefined(observations: Sequence[Observation]) -> bool:
    """Whether the cell ran and did not define the solution, or was not there."""
    return any(one.problem is not None and one.problem.kind in ("target", "syntax") for one in observations)


def _problem(task: Task, reason: str) -> tuple[Observation, ...]:
    return tuple(Observation(case.name, problem=Problem("lost", reason)) for case in task.cases)
