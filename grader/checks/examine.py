"""The one policy by which an exercise is examined, wherever a learner's code runs.

A notebook's check runs it in the kernel (`InProcess`), grading in jailed children (`grading.running.prober`); what is
asked, in which order, and what is made of the answers is the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from grader.checks.judge import judge
from grader.checks.judge.composite import with_others_wrong
from grader.checks.judge.verdict import Verdict
from grader.checks.observation import Fed, Observation, PartClass, PartKey, Replaced
from grader.checks.probe import probe
from grader.checks.probe.parts import feed_parts, part_classes, part_types, replace_parts, used_by
from grader.recordings.answers import part_inputs, part_outputs
from grader.recordings.recording import Recording
from grader.recordings.tasks import PartInput, PartOutput, Task, part_of

PartInputs = Sequence[Sequence[PartInput]]
PartOutputs = Sequence[Sequence[PartOutput]]


class Prober(Protocol):
    """Runs what a learner wrote, and says what happened. It knows no answers."""

    def observe(self, task: Task) -> tuple[Observation, ...]:
        """What the solution gives on the task's cases."""

    def feed(self, task: Task, inputs: PartInputs) -> tuple[dict[PartKey, Fed], ...]:
        """For each case, what the solution's parts give for the reference's inputs."""

    def replace(self, task: Task, outputs: PartOutputs) -> tuple[Replaced, ...]:
        """For each case, what the solution gives while its parts answer as the reference's did."""

    def classes(self, task: Task, solutions: Mapping[str, str]) -> Mapping[str, PartClass] | None:
        """The classes of the solution's parts, by path; None where they are not known.

        solutions: the parts' exercises, and the name that the solution of each has.
        """

    def right(self, exercise: str) -> bool | None:
        """Whether the learner's solution of another exercise is right by itself; None where there is none."""


def examine(recording: Recording, exercise: str, prober: Prober) -> Verdict:
    """Probe an exercise's solution, and judge it.

    A composite that is wrong is run twice more, to tell its own error from its parts'; then it counts too which of
    its parts, and of what else it uses, are right by themselves. Raises RecordingError for an exercise that the
    recording has not.
    """
    task, answer = recording.task(exercise), recording.answer(exercise)
    observations = prober.observe(task)
    verdict = judge(task, answer, observations)
    if verdict.right:
        return verdict
    if task.parts:
        fed = prober.feed(task, part_inputs(answer))
        replaced = prober.replace(task, part_outputs(answer))
        solutions = recording.solutions(set(task.parts.values()))
        classes = prober.classes(task, solutions)
        written = set(solutions) if classes is None else _exercises_of_own_classes(task, classes)
        unfinished = {name for name in written & set(solutions) if not prober.right(name)}
        others = {path: kind.name for path, kind in (classes or {}).items() if not kind.own and not kind.library}
        verdict = judge(task, answer, observations, fed, replaced, unfinished, others)
    wrong = {name: solution for name, solution in recording.solutions(task.uses).items() if prober.right(name) is False}
    return with_others_wrong(verdict, wrong)


def _exercises_of_own_classes(task: Task, classes: Mapping[str, PartClass]) -> set[str]:
    """The exercises of those parts that are not of a library's class, such as nn.LayerNorm, which counts as right."""
    return {name for path, kind in classes.items() if not kind.library and (name := part_of(task.parts, path))}


def examine_here(recording: Recording, exercise: str, solution: Any) -> Verdict:
    """Examine a learner's class or function, running it in this process."""
    return examine(recording, exercise, InProcess(recording, solution))


class InProcess(Prober):
    """Runs a learner's class or function in this process, and what else their notebook defines.

    known: whether other programs are right, by exercise and the class or function, as far as that was found before.
    """

    def __init__(self, recording: Recording, solution: Any, known: dict[tuple[str, Any], bool] | None = None) -> None:
        self._recording = recording
        self._solution = solution
        self._known = {} if known is None else known
        self._right: dict[tuple[str, Any], bool] = {}  # of these, those that this solution uses

    def observe(self, task: Task) -> tuple[Observation, ...]:
        return probe(task, self._solution)

    def feed(self, task: Task, inputs: PartInputs) -> tuple[dict[PartKey, Fed], ...]:
        return feed_parts(task, self._solution, inputs)

    def replace(self, task: Task, outputs: PartOutputs) -> tuple[Replaced, ...]:
        return replace_parts(task, self._solution, outputs)

    def classes(self, task: Task, solutions: Mapping[str, str]) -> Mapping[str, PartClass]:
        # A part whose exercise's solution has no name here is examined by its own class.
        names = used_by(self._solution)
        types = part_types(task, self._solution)
        for path, kind in types.items():
            name = part_of(task.parts, path)
            if name and name in solutions and solutions[name] not in names and not kind.__module__.startswith("torch."):
                self._examine(name, kind)
        return part_classes(task, self._solution, solutions, types)

    def right(self, exercise: str) -> bool | None:
        own = used_by(self._solution).get(self._recording.solutions([exercise])[exercise])
        if own is not None:
            self._examine(exercise, own)
        found = [right for (name, _), right in self._right.items() if name == exercise]
        return all(found) if found else None

    def _examine(self, exercise: str, solution: Any) -> None:
        if (exercise, solution) not in self._known:
            prober = InProcess(self._recording, solution, self._known)
            self._known[exercise, solution] = examine(self._recording, exercise, prober).right
        self._right[exercise, solution] = self._known[exercise, solution]
