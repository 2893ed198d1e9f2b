"""A recording of one exercise that a test makes up."""

from typing import Any

from grader.authoring.recorder import _recorded, _with_variants, record_exercise
from grader.lessons.exercise import Exercise
from grader.recordings.answers import Answer
from grader.recordings.codec import Encoder
from grader.recordings.format import FORMAT
from grader.recordings.recording import Recording, encoded_exercise
from grader.recordings.tasks import Task


def recorded(exercise: Exercise) -> Recording:
    """Its cases alone."""
    return recording_of(*record_exercise("toy", exercise))


def recorded_with_variants(exercise: Exercise, solution: Any) -> Recording:
    """Its cases, and the variants that the solution holds."""
    task, answer, runs = _recorded("toy", exercise, "", False, None)
    return recording_of(*_with_variants(exercise, task, answer, runs, solution))


def recording_of(task: Task, answer: Answer) -> Recording:
    """One exercise alone."""
    encoder = Encoder()
    encoded = {task.exercise: encoded_exercise(encoder, task, answer)}
    return Recording({"format": FORMAT, "lesson": "toy", "exercises": encoded, "trace": None}, encoder.tensors)
