"""Run the reference on one case of an exercise: what is right, what its parts did, and how far rounding moves that."""

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from grader.authoring.drive_sources import drive_name
from grader.authoring.noise import SEEDS, distance_in_float64, noise_of, require_margin
from grader.calls import Call, copied, first_tensor, record_calls
from grader.checks.fingerprint import are_compared, fingerprint, leaf_names, leaf_positions, weighted_sum
from grader.checks.judge.gradients import RELATIVE, gradient_distance
from grader.checks.probe.running import one_thread
from grader.checks.probe.values import canonical
from grader.errors import RecordingError
from grader.instruments.rounding import another_processor
from grader.lessons.exercise import Case, Draw, Exercise
from grader.recordings.tasks import Task, TaskCase, configured, part_of
from grader.recordings.traces import Trace
from grader.recordings.tracing import checkpoint_weights, renamed_calls
from grader.tolerance import Tolerance, distance, tolerance_for


@dataclass(frozen=True)
class RecordedCase:
    """A case, what the reference gives for it, and how to run the reference again, in float64 too if it is a module.

    gradients: their fingerprint (see checks.fingerprint), given what may be known of the exercise. varied: runs the
    reference on the case as a variant asks it.
    """

    case: TaskCase
    output: Tensor
    calls: tuple[Call, ...]
    again: Callable[[], Tensor]
    varied: Callable[[TaskCase], Tensor]
    in_float64: Callable[[], Tensor] | None = None
    differentiate: Callable[[Task], Tensor | None] = lambda task: None

    def gradients(self, task: Task, where: str, *, measured: bool) -> Tensor | None:
        """The gradients' fingerprint. Raises RecordingError where rounding alone moves it too far."""
        with one_thread(), torch.inference_mode(False), torch.enable_grad():
            found = self.differentiate(task)
            for seed in SEEDS if measured and found is not None else ():
                with another_processor(seed):
                    other = self.differentiate(task)
                assert found is not None and other is not None
                require_margin(
                    float(gradient_distance(other, found).max()), Tolerance(RELATIVE), f"{where}, its gradients"
                )
        return found

    def noise(self) -> float:
        """How far rounding alone moves the output (see noise.py)."""
        with one_thread():
            wide = distance_in_float64(self.in_float64, self.output) if self.in_float64 else 0.0
            return max(noise_of(self.again, self.output), wide)


def record_case(exercise: Exercise, case: Case, draw: Draw) -> RecordedCase:
    """Draw a case's weights and arguments, and run the reference on them."""
    with torch.inference_mode(False), torch.enable_grad():
        return (_record_function if exercise.function else _record_module)(exercise, case, draw)


def draw_of(lesson: str, exercise: Exercise, case: Case, secret: str = "") -> Draw:
    """The random numbers of a case."""
    words = (secret, lesson, exercise.name, case.name, *([case.draw] if case.draw else []))
    return Draw(*words, varied=bool(secret))


def _arguments(case: Case, draw: Draw) -> tuple[Any, ...]:
    args = list(case.args(draw))
    first = next((i for i, arg in enumerate(args) if isinstance(arg, Tensor) and arg.is_floating_point()), None)
    if first is not None:
        args[first] = args[first].to(case.dtype)
    return tuple(args)


def _record_function(exercise: Exercise, case: Case, draw: Draw) -> RecordedCase:
    build = case.built(draw)
    args = _arguments(case, draw)
    right = case.right or exercise.reference

    def run() -> Tensor:
        return canonical(right(*copy.deepcopy(args)))

    task_case, output = TaskCase(case.name, build, args, case.dtype, {}, drive_name(exercise, case)), run()

    def differentiate(task: Task) -> Tensor | None:
        names = leaf_names(task, task_case)
        if not names or not are_compared(task, task_case, output):
            return None
        own = _differentiable(task, args)
        again = canonical(right(*own))
        return _gradients(again, [own[i] for i in leaf_positions(task, args)])

    def varied(case: TaskCase) -> Tensor:
        return canonical(right(*copy.deepcopy(case.args)))

    return RecordedCase(task_case, output, (), run, varied, differentiate=differentiate)


def _record_module(exercise: Exercise, case: Case, draw: Draw) -> RecordedCase:
    build = case.built(draw)
    module = reference_module(exercise, case, draw)
    args = _arguments(case, draw)
    paths = [
        path
        for path, _ in module.named_modules()
        if path and (own := exercise.renamed(path)) and part_of(exercise.parts, own)
    ]
    exercise = replace(exercise, call=case.right or exercise.call)
    output, calls = _run_reference(module, exercise, args, paths)
    weights = checkpoint_weights(module, exercise.renamed)
    # A part is fed its first input alone, and its first output is judged.
    part_calls = tuple(replace(call, others=(), further=()) for call in calls)

    def run(module: nn.Module = module, args: tuple[Any, ...] = args) -> Tensor:
        return _run_reference(module, exercise, args, [])[0]

    def in_float64() -> Tensor:
        return run(copy.deepcopy(module).double(), tuple(_in_float64(arg) for arg in args))

    task_case = TaskCase(case.name, build, args, case.dtype, weights, drive_name(exercise, case))

    def varied(case: TaskCase) -> Tensor:
        same = case.build == build and case.weights is weights
        return run(module if same else _reference_with(exercise, case), case.args)

    def differentiate(task: Task) -> Tensor | None:
        if not are_compared(task, task_case, output):
            return None
        parameters = {exercise.renamed(name): parameter for name, parameter in module.named_parameters()}
        own = _differentiable(task, args)
        again = first_tensor(exercise.call(module, *own))
        assert again is not None
        leaves = [own[i] for i in leaf_positions(task, args)]
        return _gradients(again, [*(parameters.get(name) for name in weights), *leaves])

    return RecordedCase(
        task_case,
        output,
        part_calls,
        run,
        varied,
        in_float64 if output.dtype == torch.float32 else None,
        differentiate,
    )


def _differentiable(task: Task, args: tuple[Any, ...]) -> list[Any]:
    """Copies of a case's arguments, of which those whose gradients count need one."""
    own = copy.deepcopy(list(args))
    return [arg.requires_grad_() if i in leaf_positions(task, args) else arg for i, arg in enumerate(own)]


def _gradients(output: Tensor, leaves: Sequence[Tensor | None]) -> Tensor:
    """The fingerprint of what an output gives for some leaves; None among them gives none."""
    wanted = [leaf for leaf in leaves if leaf is not None]
    given = iter(torch.autograd.grad(weighted_sum(output), wanted, allow_unused=True))
    return fingerprint([None if leaf is None else next(given) for leaf in leaves])


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


def _reference_with(exercise: Exercise, case: TaskCase) -> nn.Module:
    """The reference with a case's weights, in eval mode."""
    module: nn.Module = exercise.reference(**configured(case.build))
    for name, tensor in itertools.chain(module.named_parameters(), module.named_buffers()):
        own = exercise.renamed(name)
        if own is not None and own in case.weights:
            tensor.data = case.weights[own].clone()
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


def record_trace(lesson: str, exercise: Exercise, *, measured: bool = False) -> Trace:
    """The trace of an exercise's first case. measured: as in `record_exercise`, for every module's output."""
    case = exercise.cases[0]
    draw = draw_of(lesson, exercise, case)
    module = reference_module(exercise, case, draw)
    args = _arguments(case, draw)
    output, calls = _run_reference(module, exercise, args, None)
    if measured:
        _require_margin_in_calls(calls, lambda: _run_reference(module, exercise, args, None)[1], exercise.name)
    return Trace(case.built(draw), checkpoint_weights(module, exercise.renamed), args, calls, output, case.dtype)


def _require_margin_in_calls(calls: Sequence[Call], again: Callable[[], Sequence[Call]], exercise: str) -> None:
    for seed in SEEDS:
        with one_thread(), another_processor(seed):
            others = again()
        for call, other in zip(calls, others, strict=True):
            if call.output is not None and other.output is not None:
                noise = distance(other.output, call.output)
                where = f"the trace of {exercise}, module `{call.path}`"
                require_margin(noise, tolerance_for(call.output.dtype), where)
