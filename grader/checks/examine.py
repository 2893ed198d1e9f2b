"""Probe what a learner wrote, in this process, and judge it."""

from typing import Any

from grader.checks.composite import with_others_wrong
from grader.checks.judge import judge
from grader.checks.parts import feed_parts, part_types, replace_parts, used_by
from grader.checks.probe import probe
from grader.checks.verdict import Verdict
from grader.recordings.answers import part_inputs, part_outputs
from grader.recordings.recording import Recording
from grader.recordings.tasks import Task, part_of


def examine(recording: Recording, exercise: str, solution: Any) -> Verdict:
    """Probe a learner's class or function in this process, and judge it.

    A composite that is wrong is run twice more, to tell its own error from its parts'; its parts' classes are
    examined then as well, and what else it uses. Raises RecordingError for an exercise that the recording has not.
    """
    task, answer = recording.task(exercise), recording.answer(exercise)
    observations = probe(task, solution)
    verdict = judge(task, answer, observations)
    if verdict.right:
        return verdict
    if task.parts:
        fed = feed_parts(task, solution, part_inputs(answer))
        replaced = replace_parts(task, solution, part_outputs(answer))
        unfinished, others = _parts_classes(recording, task, solution)
        verdict = judge(task, answer, observations, fed, replaced, unfinished, others)
    return with_others_wrong(verdict, _wrong_ones_used(recording, task, solution))


def _parts_classes(recording: Recording, task: Task, solution: Any) -> tuple[set[str], dict[str, str]]:
    """The exercises among a composite's parts that are not right by themselves; and the parts that are of another
    class than the one with the name of the exercise's solution, by path, with their own class's name.

    What is graded is the class of that name, where the composite's notebook has one. A part that is no class of the
    learner's, such as nn.LayerNorm, is taken to be right by itself.
    """
    wrong: set[str] = set()
    others: dict[str, str] = {}
    examined: set[tuple[str, Any]] = set()
    for path, kind in part_types(task, solution).items():
        exercise = part_of(task.parts, path)
        if exercise not in recording.exercises or kind.__module__.startswith("torch."):
            continue
        graded = used_by(solution).get(recording.task(exercise).solution, kind)
        if graded is not kind:
            others[path] = kind.__name__
        if (exercise, graded) not in examined and not examine(recording, exercise, graded).right:
            wrong.add(exercise)
        examined.add((exercise, graded))
    return wrong, others


def _wrong_ones_used(recording: Recording, task: Task, solution: Any) -> dict[str, str]:
    """The exercises that this one uses and that are not right by their own checks, each with its solution's name."""
    wrong: dict[str, str] = {}
    for exercise in task.uses:
        name = recording.task(exercise).solution
        own = used_by(solution).get(name)
        if own is not None and not examine(recording, exercise, own).right:
            wrong[exercise] = name
    return wrong
