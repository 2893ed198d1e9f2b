"""What a known mistake gives on an exercise's cases, and that some case tells it from all else."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from grader.authoring.noise import SEEDS_OF_MISTAKES, rounded, worth_keeping
from grader.checks.judge.gradients import wrong_gradients
from grader.checks.observation import Observation
from grader.checks.probe import probe
from grader.checks.probe.second_run import use_for_each_other_number, use_for_other_numbers
from grader.errors import RecordingError
from grader.instruments.rounding import another_processor
from grader.lessons.exercise import Mistake
from grader.recordings.answers import Answer, MistakeAnswer
from grader.recordings.tasks import Task
from grader.tolerance import agree, distance


def record_mistake(task: Task, answer: Answer, mistake: Mistake, target: Any, *, measured: bool) -> MistakeAnswer:
    """What a mistake gives. target: the class or function with the mistake. measured: how far rounding moves that, too.

    Raises RecordingError, naming exercise, mistake and case, where it gives nothing in a case.
    """
    observations = probe(task, target) if task.function else _first_runs(task, target)
    outputs = [_output(task.exercise, mistake, observation) for observation in observations]
    right = _same_outputs(answer, outputs, answer.outputs)
    if right and not task.function:  # then its gradients must differ, or what a second run shows
        observations = probe(task, target)
        outputs = [_output(task.exercise, mistake, observation) for observation in observations]
        right = _same_outputs(answer, outputs, answer.outputs)
    noise = [0.0] * (len(outputs) if measured else 0)
    for seed in SEEDS_OF_MISTAKES if measured else ():
        with another_processor(seed):
            others = probe(task, target, outputs_only=True)
        for i, (other, output) in enumerate(zip(others, outputs, strict=True)):
            got = other.output
            noise[i] = max(noise[i], float("inf") if got is None else rounded(distance(got, output)))
    kept = worth_keeping(noise, answer.tolerances if measured else ())
    found = MistakeAnswer(mistake.name, mistake.hint, tuple(outputs), kept, tuple(mistake.shipped))
    if not right:
        return found
    return replace(found, gradients=tuple(observation.gradients for observation in observations))


def _first_runs(task: Task, target: Any) -> Sequence[Observation]:
    """What a probe sees of a module without its second runs, which take four times as long as the first ones."""
    use_for_other_numbers(task, task.cases[0], target)
    use_for_each_other_number(task, target)
    return probe(task, target, outputs_only=True)


def _output(exercise: str, mistake: Mistake, observation: Observation) -> Tensor:
    if observation.output is None:
        problem = observation.problem
        why = " ".join((problem.message, *problem.detail)) if problem else "it gave no output"
        raise RecordingError(f"{exercise}, mistake {mistake.name!r}, case {observation.case!r}: {why}")
    return observation.output


def require_distinct(answer: Answer, mistakes: Sequence[MistakeAnswer]) -> None:
    """Every mistake must differ from the right answer, and from every other mistake, in at least one case.

    Where its outputs are right, its gradients must differ. Raises RecordingError.
    """
    for i, mistake in enumerate(mistakes):
        if _same_outputs(answer, mistake.outputs, answer.outputs) and _same_gradients(mistake, answer.gradients):
            where = f"{answer.exercise}, mistake {mistake.name!r}"
            raise RecordingError(f"{where}: no case tells it from the right answer. Add one that does.")
        for other in mistakes[:i]:
            if _same_outputs(answer, mistake.outputs, other.outputs) and _same_gradients(mistake, other.gradients):
                raise RecordingError(
                    f"{answer.exercise}: no case tells the mistake {mistake.name!r} from {other.name!r}."
                )


def _same_outputs(answer: Answer, a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return all(agree(x, y, tolerance) for x, y, tolerance in zip(a, b, answer.tolerances, strict=True))


def _same_gradients(mistake: MistakeAnswer, others: Sequence[Tensor | None]) -> bool:
    """Whether a mistake's gradients are these in every case; so they are where they were not kept."""
    if not mistake.gradients or not others:
        return True
    return not any(wrong_gradients(own, other) for own, other in zip(mistake.gradients, others, strict=True))
