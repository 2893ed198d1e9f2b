"""Authors' side of a recording: run the reference, the solution and every mistake, and write what came out."""

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from grader.authoring.drive_sources import source_of
from grader.authoring.mistakes import files_read
from grader.checking import report
from grader.errors import RecordingError
from grader.exercise import Case, Draw, Exercise, Mistake, same_name
from grader.judge import judge
from grader.lesson import RUN_BY_EVERY_EXERCISE, Lesson
from grader.naming import checkpoint_layout, untied
from grader.probe import Observation, canonical, one_thread, part_of, probe
from grader.recording import (
    FORMAT,
    Answer,
    Builder,
    MistakeAnswer,
    Recording,
    Task,
    TaskCase,
    Trace,
    configured,
)
from grader.report import to_text
from grader.tolerance import agree, tolerance_for
from grader.tracing import Call, copied, first_tensor, record_calls

MAX_BYTES = 2_000_000
TRIES = 5
REFERENCES = "grader.authoring.references"  # not imported here: it needs transformers


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


def record(lesson: Lesson, progress: Callable[[str], None] = lambda exercise: None, secret: str = "") -> Recording:
    """As `record_lesson`, without writing.

    secret: draws weights, inputs and sizes that nobody can foresee who does not know it; such a recording has no trace.
    """
    exercises, trace = lesson.exercises()
    if files_read(lesson.folder) and not any(exercise.mistakes for exercise in exercises):
        raise RecordingError(
            f"{lesson.exercises_file} does not read the mistakes.toml beside it. End it with:"
            " EXERCISES = with_mistakes(__file__, [...])"
        )
    builder = Builder()
    encoded: dict[str, Any] = {}
    solutions = lesson.namespace()
    for exercise in exercises:
        progress(exercise.name)
        _require_own_names(exercise)
        task, answer = _record_with_mistakes(lesson, exercise, _solution(exercise, solutions), secret)
        encoded[exercise.name] = builder.exercise(task, answer)
    traced = next((e for e in exercises if e.name == trace and not secret), None)
    header = {
        "format": FORMAT,
        "lesson": lesson.name,
        "seed": f"sha256 of {'a secret, ' if secret else ''}the lesson, the exercise and the case",
        "versions": versions(),
        "made_from": made_from(lesson),
        "exercises": encoded,
        "trace": builder.trace(_trace_exercise(lesson.name, traced)) if traced else None,
    }
    return Recording(header, builder.tensors)


def _record_with_mistakes(lesson: Lesson, exercise: Exercise, solution: Any, secret: str) -> tuple[Task, Answer]:
    """An exercise's recording. One drawn from a secret may by chance not show a mistake; then another is drawn."""
    for attempt in range(TRIES):
        try:
            with one_thread():
                task, answer = record_exercise(lesson.name, exercise, f"{secret} {attempt}" if attempt else secret)
            if exercise.parts and not any(answer.part_calls):
                raise RecordingError(
                    f"{exercise.name}: none of its parts {list(exercise.parts)} is a submodule of the reference."
                )
            _require_right(task, answer, solution)
            mistakes = tuple(_record_mistake(lesson, exercise, task, mistake) for mistake in exercise.mistakes)
            _require_distinct(exercise, answer, mistakes)
        except RecordingError:
            if not secret or attempt == TRIES - 1:
                raise
        else:
            break
    return task, replace(answer, mistakes=mistakes)


def versions() -> dict[str, str]:
    """The versions of what computes the reference's values."""
    found = {}
    for package in ("torch", "transformers"):
        try:
            found[package] = version(package).split("+")[0]
        except PackageNotFoundError:
            raise RecordingError(
                f"{package} is not installed, and recording needs it: pip install -e '.[reference]'"
            ) from None
    return found


def made_from(lesson: Lesson) -> dict[str, str]:
    """Hashes of the sources that a recording is made from: when one changes, the recording is stale."""
    cells = [cell.source for cell in lesson.cells() if cell.kind in RUN_BY_EVERY_EXERCISE]
    files = {path.name: path for path in (lesson.exercises_file, *files_read(lesson.folder))}
    found = {name: _hash(path.read_text(encoding="utf-8")) for name, path in files.items()}
    exercises, _ = lesson.exercises()
    if driven := [_drive_source(exercise) for exercise in exercises if exercise.drive]:
        found["drives"] = _hash("\0".join(driven))
    if REFERENCES in lesson.exercises_file.read_text(encoding="utf-8"):
        spec = find_spec(REFERENCES)
        assert spec and spec.origin
        found["references.py"] = _hash(Path(spec.origin).read_text(encoding="utf-8"))
    return {"solutions": _hash("\0".join(cells)), **found}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def record_exercise(lesson: str, exercise: Exercise, secret: str = "") -> tuple[Task, Answer]:
    """Run the reference on every case: what a probe may see, and what is right. Mistakes are not included."""
    if len({case.name for case in exercise.cases}) != len(exercise.cases) or not exercise.cases:
        raise RecordingError(f"{exercise.name}: every case needs a name of its own, and there must be one.")
    cases, outputs, part_calls = [], [], []
    for case in exercise.cases:
        run = _record_function if exercise.function else _record_module
        if case.drive and not exercise.drive:
            raise RecordingError(
                f"{exercise.name}, case {case.name!r} has a drive, and the exercise has none. Give the exercise one,"
                " which its other cases use."
            )
        draw = Draw(secret, lesson, exercise.name, case.name, varied=bool(secret))
        task_case, output, calls = run(exercise, case, draw)
        if output.is_floating_point() and not output.isfinite().all():
            raise RecordingError(
                f"{exercise.name}, case {case.name!r}: the reference gives values that are not finite."
            )
        cases.append(task_case)
        outputs.append(output)
        part_calls.append(calls)
    task = Task(
        exercise.name,
        exercise.solution,
        exercise.function,
        exercise.differentiable,
        exercise.parts,
        tuple(cases),
        _drive_source(exercise),
        tuple(exercise.uses),
    )
    answer = Answer(
        exercise.name,
        exercise.points,
        tuple(exercise.axes.split()),
        tuple(exercise.sizes(case.build) for case in cases),
        tuple(outputs),
        tuple(
            case.tolerance or tolerance_for(output.dtype) for case, output in zip(exercise.cases, outputs, strict=True)
        ),
        part_calls=tuple(part_calls),
    )
    return task, answer


def _arguments(case: Case, draw: Draw) -> tuple[Any, ...]:
    args = list(case.args(draw))
    first = next((i for i, arg in enumerate(args) if isinstance(arg, Tensor) and arg.is_floating_point()), None)
    if first is not None:
        args[first] = args[first].to(case.dtype)
    return tuple(args)


def _record_function(exercise: Exercise, case: Case, draw: Draw) -> tuple[TaskCase, Tensor, tuple[Call, ...]]:
    build = case.built(draw)
    args = _arguments(case, draw)
    output = canonical((case.right or exercise.reference)(*copy.deepcopy(args)))
    return TaskCase(case.name, build, args, case.dtype, {}, _drive_name(exercise, case)), output, ()


def _record_module(exercise: Exercise, case: Case, draw: Draw) -> tuple[TaskCase, Tensor, tuple[Call, ...]]:
    build = case.built(draw)
    module = reference_module(exercise, case, draw)
    args = _arguments(case, draw)
    paths = [
        path
        for path, _ in module.named_modules()
        if path and (own := exercise.renamed(path)) and part_of(exercise.parts, own)
    ]
    output, calls = _run_reference(module, replace(exercise, call=case.right or exercise.call), args, paths)
    weights = _weights(module, exercise.renamed)
    # A part is fed its first input alone, and its first output is judged.
    part_calls = tuple(replace(call, others=(), further=()) for call in calls)
    return TaskCase(case.name, build, args, case.dtype, weights, _drive_name(exercise, case)), output, part_calls


def _drive_source(exercise: Exercise) -> str:
    return source_of([drive for case in exercise.cases if (drive := case.drive or exercise.drive)])


def _drive_name(exercise: Exercise, case: Case) -> str:
    drive = case.drive or exercise.drive
    return drive.__name__ if drive else ""


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
    return output, _renamed_calls(calls, exercise.renamed)


def _renamed_calls(calls: Sequence[Call], renamed: Callable[[str], str | None]) -> tuple[Call, ...]:
    named = [(renamed(call.path), call) for call in calls]
    return tuple(replace(call, path=name) for name, call in named if name)


def _weights(module: nn.Module, renamed: Callable[[str], str | None]) -> dict[str, Tensor]:
    """What a checkpoint of the module holds: a parameter with two names, such as a tied head, under its first."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        own = renamed(name)
        if own and id(tensor) not in seen:
            seen.add(id(tensor))
            found[own] = tensor.detach()
    return found


def _trace_exercise(lesson: str, exercise: Exercise) -> Trace:
    case = exercise.cases[0]
    draw = Draw("", lesson, exercise.name, case.name)
    module = reference_module(exercise, case, draw)
    args = _arguments(case, draw)
    output, calls = _run_reference(module, exercise, args, None)
    return Trace(case.built(draw), _weights(module, exercise.renamed), args, calls, output, case.dtype)


def trace_of(
    model: nn.Module,
    *args: Any,
    build: Mapping[str, Any] | None = None,
    renamed: Callable[[str], str | None] = same_name,
) -> Trace:
    """Trace one forward pass of a reference model, to compare another model with it layer by layer.

    model: any module; it is run in eval mode. args: what its forward is called with. build: the keyword
    arguments with which the other model's class is built; of a transformers model, its config if None. renamed: the
    other model's name for a parameter or submodule of this one, or None to leave it out; by default the other
    model may have the names of the checkpoint's files, of the model in memory, or either without the prefix
    of the model's inside. Raises RecordingError where the model returns no tensor.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            returned, calls = record_calls(model, lambda: model(*copy.deepcopy(args)))
    finally:
        model.train(was_training)
    output = copied(first_tensor(returned))
    if output is None:
        raise RecordingError(f"{type(model).__name__} returned no tensor, so there is nothing to compare with.")
    weights = {name: tensor.clone() for name, tensor in untied(_weights(model, renamed)).items()}
    dtype = next((t.dtype for t in weights.values() if t.is_floating_point()), torch.float32)
    held = checkpoint_layout(model, weights) if renamed is same_name else None
    return Trace(
        _config_of(model) if build is None else dict(build),
        weights,
        args,
        _renamed_calls(calls, renamed),
        output,
        dtype,
        (held,) if held else (),
        getattr(model, "base_model_prefix", "") if renamed is same_name else "",
    )


def _config_of(model: nn.Module) -> dict[str, Any]:
    """The build arguments that a model's own config makes up, if it has one."""
    to_dict = getattr(getattr(model, "config", None), "to_dict", None)
    return {"config": to_dict()} if callable(to_dict) else {}


# The solution and its mistakes


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


def _record_mistake(lesson: Lesson, exercise: Exercise, task: Task, mistake: Mistake) -> MistakeAnswer:
    source = patched_source(lesson.source_of(exercise.name), exercise.name, mistake)
    target = _solution(exercise, lesson.namespace((exercise.name, source)))
    outputs = [_mistake_output(exercise, mistake, observation) for observation in probe(task, target)]
    return MistakeAnswer(mistake.name, mistake.hint, tuple(outputs), tuple(mistake.shipped))


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


def differences(old: Recording, new: Recording) -> list[str]:
    """How two recordings of a lesson differ, a line each; values are compared within tolerance, not bit by bit."""
    found = []
    for name in dict.fromkeys((*old.exercises, *new.exercises)):
        if name not in old.exercises or name not in new.exercises:
            found.append(f"{name} is in one of them only")
            continue
        if not _equal(old.task(name), new.task(name)):
            found.append(f"{name}: the cases, their inputs or their weights are different")
        elif not _equal(old.answer(name), new.answer(name)):
            found.append(f"{name}: the right outputs, the points or the mistakes are different")
    if not found and not _equal(old.trace, new.trace):
        found.append("the trace is different")
    return found


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return agree(a, b)
    if isinstance(a, nn.Module) and isinstance(b, nn.Module):
        return _equal(dict(a.state_dict()), dict(b.state_dict()))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, Call | TaskCase | MistakeAnswer | Task | Answer | Trace) and type(a) is type(b):
        return _equal(a.__dict__, b.__dict__)
    return bool(a == b)
