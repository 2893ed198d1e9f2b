"""Authors' side of a recording: run the reference, the solution and every mistake, and write what came out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from grader.authoring.case_design import require_secret, require_varied
from grader.authoring.drive_sources import drive_name, drive_source
from grader.authoring.made_from import made_from
from grader.authoring.mistakes import files_read
from grader.authoring.noise import require_margin
from grader.authoring.recorded_mistakes import record_mistake, require_distinct
from grader.authoring.reference_run import RecordedCase, draw_of, record_case, record_trace
from grader.authoring.variants import Asked, with_variants_chosen
from grader.checks.judge import judge
from grader.checks.judge.counting import counts
from grader.checks.judge.wording import report
from grader.checks.probe import probe
from grader.checks.probe.running import one_thread
from grader.errors import RecordingError
from grader.lessons.exercise import Case, Exercise, Mistake
from grader.lessons.lesson import Lesson
from grader.recordings.answers import Answer
from grader.recordings.codec import Encoder
from grader.recordings.format import FORMAT, versions
from grader.recordings.recording import Recording, encoded_exercise
from grader.recordings.tasks import Task, TaskCase
from grader.report import to_text
from grader.tolerance import tolerance_for

MAX_BYTES = 2_000_000
TRIES = 5
DRAWS = 20  # of a secret case's numbers, until rounding takes up little of the tolerance


def record_lesson(folder: Path, progress: Callable[[str], None] = lambda exercise: None) -> Path:
    """Record a lesson and return the path of its recording.

    progress: called with each exercise's name before it is recorded. Raises RecordingError, naming the
    exercise, where a patch no longer applies, a mistake fails or can't be told from the right answer or from
    another mistake, the solution is not right, or the file grows beyond 2 MB.
    """
    lesson = Lesson(folder)
    recording = record(lesson, progress)
    recording.write(lesson.recording)
    size = lesson.recording.stat().st_size
    if size > MAX_BYTES:
        raise RecordingError(
            f"{lesson.recording.name} of {lesson.name} has {size:,} bytes, more than {MAX_BYTES:,}: use smaller cases."
        )
    return lesson.recording


def record(
    lesson: Lesson,
    progress: Callable[[str], None] = lambda exercise: None,
    secret: str = "",
    *,
    measured: bool = True,
) -> Recording:
    """As `record_lesson`, without writing.

    secret: draws weights, inputs and sizes that nobody can foresee who does not know it; such a recording has no trace.
    measured: whether to measure too how far rounding alone moves each output, and in which other ways a case is asked,
    which takes several times as long.
    """
    exercises, trace = lesson.exercises()
    if files_read(lesson.folder) and not any(exercise.mistakes for exercise in exercises):
        raise RecordingError(
            f"{lesson.exercises_file} does not read the mistakes.toml beside it. End it with:"
            " EXERCISES = with_mistakes(__file__, [...])"
        )
    encoder = Encoder()
    encoded: dict[str, Any] = {}
    solutions = lesson.namespace()
    for exercise in exercises:
        progress(exercise.name)
        _require_own_names(exercise)
        task, answer = _record_with_mistakes(lesson, exercise, _solution(exercise, solutions), secret, measured)
        encoded[exercise.name] = encoded_exercise(encoder, task, answer)
    traced = next((e for e in exercises if e.name == trace and not secret), None)
    header = {
        "format": FORMAT,
        "lesson": lesson.name,
        "seed": f"sha256 of {'a secret, ' if secret else ''}the lesson, the exercise and the case",
        "versions": versions(),
        "made_from": made_from(lesson),
        "exercises": encoded,
        "trace": encoder.encode(record_trace(lesson.name, traced, measured=measured)) if traced else None,
    }
    return Recording(header, encoder.tensors)


def _record_with_mistakes(
    lesson: Lesson, exercise: Exercise, solution: Any, secret: str, measured: bool
) -> tuple[Task, Answer]:
    """An exercise's recording. One drawn from a secret may by chance not show a mistake; then another is drawn."""
    source = lesson.source_of(exercise.name)
    changed = lesson.changed(exercise.name)  # the cells above it run once, for all its mistakes
    with one_thread():
        released = record_exercise(lesson.name, exercise)[1] if secret else None
    for attempt in range(TRIES):
        try:
            with one_thread():
                words = f"{secret} {attempt}" if attempt else secret
                task, answer, recorded = _recorded(lesson.name, exercise, words, measured, released)
            if exercise.parts and not any(answer.part_calls):
                raise RecordingError(
                    f"{exercise.name}: none of its parts {list(exercise.parts)} is a submodule of the reference."
                )
            _require_right(task, answer, solution)
            if measured:
                with one_thread():
                    task, answer = _with_variants(exercise, task, answer, recorded, solution)
            mistakes, refused = [], []
            for mistake in exercise.mistakes:
                target = _solution(exercise, changed(patched_source(source, exercise.name, mistake)))
                try:
                    mistakes.append(record_mistake(task, answer, mistake, target, measured=measured))
                except RecordingError as error:
                    if secret:
                        raise
                    refused.append(str(error))
            if refused:
                raise RecordingError("\n".join(refused))
            require_distinct(answer, mistakes)
            if not secret:
                require_varied(exercise, task.cases)
        except RecordingError:
            if not secret or attempt == TRIES - 1:
                raise
        else:
            break
    return task, replace(answer, mistakes=tuple(mistakes))


def record_exercise(
    lesson: str, exercise: Exercise, secret: str = "", *, measured: bool = False, released: Answer | None = None
) -> tuple[Task, Answer]:
    """Run the reference on every case: what a probe may see, and what is right. Mistakes are not included.

    measured: whether to measure too how far rounding alone moves each output. released: answers that a hidden case may
    not have. Raises RecordingError where two cases have one name, an output is not finite, a hidden answer is a
    released one, or rounding takes up too much of the tolerance.
    """
    return _recorded(lesson, exercise, secret, measured, released)[:2]


def _recorded(
    lesson: str, exercise: Exercise, secret: str, measured: bool, released: Answer | None
) -> tuple[Task, Answer, list[RecordedCase]]:
    """As `record_exercise`; besides, the reference's runs."""
    if len({case.name for case in exercise.cases}) != len(exercise.cases) or not exercise.cases:
        raise RecordingError(f"{exercise.name}: every case needs a name of its own, and there must be one.")
    recorded, tolerances, noise, gradients = [], [], [], []
    for case in exercise.cases:
        where = f"{exercise.name}, case {case.name!r}"
        if case.drive and not exercise.drive:
            raise RecordingError(
                f"{where} has a drive, and the exercise has none. Give the exercise one, which its other cases use."
            )
        one, moved, slopes = _recorded_with_margin(lesson, exercise, case, secret, measured, released)
        recorded.append(one)
        gradients.append(slopes)
        tolerances.append(case.tolerance or tolerance_for(one.output.dtype))
        if measured:
            noise.append(moved)
    task = _task(exercise, [one.case for one in recorded])
    answer = Answer(
        exercise.name,
        exercise.points,
        tuple(exercise.axes.split()),
        tuple(exercise.sizes(case.build) for case in task.cases),
        tuple(one.output for one in recorded),
        tuple(tolerances),
        part_calls=tuple(one.calls for one in recorded),
        noise=tuple(noise),
        gradients=tuple(gradients),
    )
    return task, answer, recorded


def _task(exercise: Exercise, cases: Sequence[TaskCase]) -> Task:
    return Task(
        exercise=exercise.name,
        solution=exercise.solution,
        function=exercise.function,
        differentiable=exercise.differentiable,
        parts=exercise.parts,
        cases=tuple(cases),
        drive=drive_source(exercise),
        uses=tuple(exercise.uses),
        gradients_of=tuple(exercise.gradients_of),
    )


def _recorded_with_margin(
    lesson: str, exercise: Exercise, case: Case, secret: str, measured: bool, released: Answer | None
) -> tuple[RecordedCase, float, Tensor | None]:
    """A case, how far rounding alone moves its output, if that is to be measured, and its gradients.

    Where rounding takes up too much of a tolerance, the output's or the gradients', or the answer is a released one, a
    case drawn from a secret is drawn again; an author chooses another.
    """
    where = f"{exercise.name}, case {case.name!r}"
    for attempt in range(DRAWS if secret else 1):
        drawn = replace(case, draw=f"{case.draw} {attempt}") if attempt else case
        one = record_case(exercise, case, draw_of(lesson, exercise, drawn, secret))
        if one.output.is_floating_point() and not one.output.isfinite().all():
            raise RecordingError(f"{where}: the reference gives values that are not finite.")
        noise = one.noise() if measured else 0.0
        try:
            require_margin(noise, case.tolerance or tolerance_for(one.output.dtype), where)
            if released and not counts(one.case, drive_name(exercise, exercise.cases[0]), one.output):
                require_secret(where, one.output, released)
            gradients = one.gradients(_task(exercise, [one.case]), where, measured=measured)
        except RecordingError as error:
            refused = error
        else:
            return one, noise, gradients
    raise refused


def _with_variants(
    exercise: Exercise, task: Task, answer: Answer, recorded: Sequence[RecordedCase], solution: Any
) -> tuple[Task, Answer]:
    """Both, where cases are asked in other ways too."""
    asked = [
        Asked(one.case, one.output, tolerance, one.varied)
        for one, tolerance in zip(recorded, answer.tolerances, strict=True)
    ]
    cases, (ends, large, other) = with_variants_chosen(exercise, task, asked, solution)
    return replace(task, cases=cases), replace(answer, ends=ends, large=large, other=other)


def _solution(exercise: Exercise, namespace: Mapping[str, Any]) -> Any:
    if exercise.solution not in namespace:
        raise RecordingError(f"{exercise.name}: no cell defines `{exercise.solution}`.")
    return namespace[exercise.solution]


def _require_own_names(exercise: Exercise) -> None:
    names = [mistake.name for mistake in exercise.mistakes]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise RecordingError(
            f"{exercise.name} has more than one mistake named {repeated!r}. A report tells a mistake by its name: give"
            " each a name of its own."
        )


def _require_right(task: Task, answer: Answer, solution: Any) -> None:
    verdict = judge(task, answer, probe(task, solution))
    if not verdict.right:
        raise RecordingError(f"The solution of {task.exercise} is not right:\n{to_text(report(verdict))}")


def patched_source(source: str, exercise: str, mistake: Mistake) -> str:
    """A solution cell's source with a mistake in it. Raises RecordingError where the patch doesn't apply."""
    count = source.count(mistake.find)
    if count != 1:
        times = "not at all" if count == 0 else f"{count} times"
        raise RecordingError(
            f"{exercise}, mistake {mistake.name!r}: its `find` {mistake.find!r} occurs {times} in the solution's cell,"
            " and must occur once."
        )
    return source.replace(mistake.find, mistake.replace)
