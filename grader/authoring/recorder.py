"""Authors' side of a recording: run the reference, the solution and every mistake, and write what came out."""

import copy
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from grader.authoring.made_from import made_from
from grader.authoring.noise import (
    SEEDS,
    SEEDS_OF_MISTAKES,
    distance_in_float64,
    noise_of,
    require_room,
    rounded,
    worth_keeping,
)
from grader.calls import Call, copied, first_tensor, record_calls
from grader.checks.judge import judge
from grader.checks.observation import Observation
from grader.checks.probe import probe
from grader.checks.running import one_thread
from grader.checks.values import canonical
from grader.checks.wording import report
from grader.errors import RecordingError
from grader.instruments.rounding import another_processor
from grader.lessons.exercise import Case, Draw, Exercise, Mistake
from grader.lessons.lesson import Lesson
from grader.recordings.answers import Answer, MistakeAnswer
from grader.recordings.builder import Builder
from grader.recordings.format import FORMAT, versions
from grader.recordings.recording import Recording
from grader.recordings.tasks import Task, TaskCase, configured, part_of
from grader.recordings.traces import Trace
from grader.recordings.tracing import checkpoint_weights, renamed_calls
from grader.report import to_text
from grader.tolerance import Tolerance, agree, distance, tolerance_for

MAX_BYTES = 2_000_000
TRIES = 5


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
    measured: whether to measure too how far rounding alone moves each output, which takes several times as long.
    """
    exercises, trace = lesson.exercises()
    builder = Builder()
    encoded: dict[str, Any] = {}
    solutions = lesson.namespace()
    for exercise in exercises:
        progress(exercise.name)
        task, answer = _record_with_mistakes(lesson, exercise, _solution(exercise, solutions), secret, measured)
        encoded[exercise.name] = builder.exercise(task, answer)
    traced = next((e for e in exercises if e.name == trace and not secret), None)
    header = {
        "format": FORMAT,
        "lesson": lesson.name,
        "seed": f"sha256 of {'a secret, ' if secret else ''}the lesson, the exercise and the case",
        "versions": versions(),
        "made_from": made_from(lesson),
        "exercises": encoded,
        "trace": builder.trace(_trace_exercise(lesson.name, traced, measured=measured)) if traced else None,
    }
    return Recording(header, builder.tensors)


def _record_with_mistakes(
    lesson: Lesson, exercise: Exercise, solution: Any, secret: str, measured: bool
) -> tuple[Task, Answer]:
    """An exercise's recording. One drawn from a secret may by chance not show a mistake; then another is drawn."""
    for attempt in range(TRIES):
        try:
            with one_thread():
                words = f"{secret} {attempt}" if attempt else secret
                task, answer = record_exercise(lesson.name, exercise, words, measured=measured)
            if exercise.parts and not any(answer.part_calls):
                raise RecordingError(
                    f"{exercise.name}: none of its parts {list(exercise.parts)} is a submodule of the reference."
                )
            _require_right(task, answer, solution)
            mistakes = tuple(
                _record_mistake(lesson, exercise, task, answer.tolerances if measured else (), mistake)
                for mistake in exercise.mistakes
            )
            _require_distinct(exercise, answer, mistakes)
        except RecordingError:
            if not secret or attempt == TRIES - 1:
                raise
        else:
            break
    return task, replace(answer, mistakes=mistakes)


@dataclass(frozen=True)
class _Recorded:
    """A case, what the reference gives for it, and how to run the reference again, in float64 too if it is a module."""

    case: TaskCase
    output: Tensor
    calls: tuple[Call, ...]
    again: Callable[[], Tensor]
    in_float64: Callable[[], Tensor] | None = None

    def noise(self) -> float:
        """How far rounding alone moves the output (see noise.py)."""
        with one_thread():
            wide = distance_in_float64(self.in_float64, self.output) if self.in_float64 else 0.0
            return max(noise_of(self.again, self.output), wide)


def record_exercise(
    lesson: str, exercise: Exercise, secret: str = "", *, measured: bool = False
) -> tuple[Task, Answer]:
    """Run the reference on every case: what a probe may see, and what is right. Mistakes are not included.

    measured: whether to measure too how far rounding alone moves each output. Raises RecordingError where two cases
    have one name, an output is not finite, or rounding takes up too much of its tolerance.
    """
    if len({case.name for case in exercise.cases}) != len(exercise.cases) or not exercise.cases:
        raise RecordingError(f"{exercise.name}: every case needs a name of its own, and there must be one.")
    recorded, tolerances, noise = [], [], []
    for case in exercise.cases:
        run = _record_function if exercise.function else _record_module
        one = run(exercise, case, _draw(lesson, exercise, case, secret))
        where = f"{exercise.name}, case {case.name!r}"
        if one.output.is_floating_point() and not one.output.isfinite().all():
            raise RecordingError(f"{where}: the reference gives values that are not finite.")
        recorded.append(one)
        tolerances.append(case.tolerance or tolerance_for(one.output.dtype))
        if measured:
            noise.append(one.noise())
            require_room(noise[-1], tolerances[-1], where)
    cases = [one.case for one in recorded]
    task = Task(
        exercise.name,
        exercise.solution,
        exercise.function,
        exercise.differentiable,
        exercise.parts,
        tuple(cases),
        textwrap.dedent(inspect.getsource(exercise.drive)) if exercise.drive else "",
        tuple(exercise.uses),
    )
    answer = Answer(
        exercise.name,
        exercise.points,
        tuple(exercise.axes.split()),
        tuple(exercise.sizes(case.build) for case in cases),
        tuple(one.output for one in recorded),
        tuple(tolerances),
        part_calls=tuple(one.calls for one in recorded),
        noise=tuple(noise),
    )
    return task, answer


def _draw(lesson: str, exercise: Exercise, case: Case, secret: str = "") -> Draw:
    """The random numbers of a case."""
    words = (secret, lesson, exercise.name, case.name, *([case.draw] if case.draw else []))
    return Draw(*words, varied=bool(secret))


def _arguments(case: Case, draw: Draw) -> tuple[Any, ...]:
    args = list(case.args(draw))
    first = next((i for i, arg in enumerate(args) if isinstance(arg, Tensor) and arg.is_floating_point()), None)
    if first is not None:
        args[first] = args[first].to(case.dtype)
    return tuple(args)


def _record_function(exercise: Exercise, case: Case, draw: Draw) -> _Recorded:
    build = case.built(draw)
    args = _arguments(case, draw)

    def run() -> Tensor:
        return canonical(exercise.reference(*copy.deepcopy(args)))

    return _Recorded(TaskCase(case.name, build, args, case.dtype, {}), run(), (), run)


def _record_module(exercise: Exercise, case: Case, draw: Draw) -> _Recorded:
    build = case.built(draw)
    module = reference_module(exercise, case, draw)
    args = _arguments(case, draw)
    paths = [
        path
        for path, _ in module.named_modules()
        if path and (own := exercise.renamed(path)) and part_of(exercise.parts, own)
    ]
    output, calls = _run_reference(module, exercise, args, paths)
    weights = checkpoint_weights(module, exercise.renamed)
    # A part is fed its first input alone, and its first output is judged.
    part_calls = tuple(replace(call, others=(), further=()) for call in calls)

    def run(module: nn.Module = module, args: tuple[Any, ...] = args) -> Tensor:
        return _run_reference(module, exercise, args, [])[0]

    def in_float64() -> Tensor:
        return run(copy.deepcopy(module).double(), tuple(_in_float64(arg) for arg in args))

    return _Recorded(
        TaskCase(case.name, build, args, case.dtype, weights),
        output,
        part_calls,
        run,
        in_float64 if output.dtype == torch.float32 else None,
    )


def _in_float64(arg: Any) -> Any:
    return arg.double() if isinstance(arg, Tensor) and arg.is_floating_point() else arg


def reference_module(exercise: Exercise, case: Case, draw: Draw) -> nn.Module:
    """The reference, with random weights in the case's dtype, in eval mode.

    Parameters alone are cast: buffers such as RoPE's frequencies stay in float32, as they do when a checkpoint
    is loaded in bfloat16.
    """
    module: nn.Module = exercise.reference(**configured(case.built(draw)))
    exercise.weights(module, draw)
    for parameter in module.parameters():
        parameter.data = parameter.data.to(case.dtype)
    return module.eval()


def _run_reference(
    module: nn.Module, exercise: Exercise, args: tuple[Any, ...], paths: Sequence[str] | None
) -> tuple[Tensor, tuple[Call, ...]]:
    own_args = copy.deepcopy(args)
    with torch.no_grad():
        returned, calls = record_calls(module, lambda: exercise.call(module, *own_args), paths)
    output = copied(first_tensor(returned))
    if output is None:
        raise RecordingError(f"{exercise.name}: the reference returned no tensor.")
    return output, renamed_calls(calls, exercise.renamed)


def _trace_exercise(lesson: str, exercise: Exercise, *, measured: bool = False) -> Trace:
    """The trace of an exercise's first case. measured: as in `record_exercise`, for every module's output."""
    case = exercise.cases[0]
    draw = _draw(lesson, exercise, case)
    module = reference_module(exercise, case, draw)
    args = _arguments(case, draw)
    output, calls = _run_reference(module, exercise, args, None)
    if measured:
        _require_room_in_calls(calls, lambda: _run_reference(module, exercise, args, None)[1], exercise.name)
    return Trace(case.built(draw), checkpoint_weights(module, exercise.renamed), args, calls, output, case.dtype)


def _require_room_in_calls(calls: Sequence[Call], again: Callable[[], Sequence[Call]], exercise: str) -> None:
    for seed in SEEDS:
        with one_thread(), another_processor(seed):
            others = again()
        for call, other in zip(calls, others, strict=True):
            if call.output is not None and other.output is not None:
                noise = distance(other.output, call.output)
                where = f"the trace of {exercise}, module `{call.path}`"
                require_room(noise, tolerance_for(call.output.dtype), where)


def _solution(exercise: Exercise, namespace: Mapping[str, Any]) -> Any:
    if exercise.solution not in namespace:
        raise RecordingError(f"{exercise.name}: no cell defines `{exercise.solution}`.")
    return namespace[exercise.solution]


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


def _record_mistake(
    lesson: Lesson, exercise: Exercise, task: Task, tolerances: Sequence[Tolerance], mistake: Mistake
) -> MistakeAnswer:
    """What a mistake gives. tolerances: the cases', where it is to be measured how far rounding moves that."""
    source = patched_source(lesson.source_of(exercise.name), exercise.name, mistake)
    target = _solution(exercise, lesson.namespace((exercise.name, source)))
    outputs = [_mistake_output(exercise, mistake, observation) for observation in probe(task, target)]
    noise = [0.0] * len(tolerances)
    for seed in SEEDS_OF_MISTAKES if tolerances else ():
        with another_processor(seed):
            observations = probe(task, target, outputs_only=True)
        for i, (observation, output) in enumerate(zip(observations, outputs, strict=True)):
            got = observation.output
            noise[i] = max(noise[i], float("inf") if got is None else rounded(distance(got, output)))
    return MistakeAnswer(mistake.name, mistake.hint, tuple(outputs), worth_keeping(noise, tolerances))


def _mistake_output(exercise: Exercise, mistake: Mistake, observation: Observation) -> Tensor:
    if observation.output is None:
        problem = observation.problem
        why = " ".join((problem.message, *problem.detail)) if problem else "it gave no output"
        raise RecordingError(f"{exercise.name}, mistake {mistake.name!r}, case {observation.case!r}: {why}")
    return observation.output


def _require_distinct(exercise: Exercise, answer: Answer, mistakes: Sequence[MistakeAnswer]) -> None:
    """Every mistake must differ from the right answer, and from every other mistake, in at least one case."""

    def same(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
        return all(agree(x, y, tolerance) for x, y, tolerance in zip(a, b, answer.tolerances, strict=True))

    for i, mistake in enumerate(mistakes):
        if same(mistake.outputs, answer.outputs):
            raise RecordingError(
                f"{exercise.name}, mistake {mistake.name!r}: no case tells it from the right answer. Add one that does."
            )
        for other in mistakes[:i]:
            if same(mistake.outputs, other.outputs):
                raise RecordingError(
                    f"{exercise.name}: no case tells the mistake {mistake.name!r} from {other.name!r}."
                )
