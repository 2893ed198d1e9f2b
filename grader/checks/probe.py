"""Build a learner's module, load the recorded weights, run the cases, and say what happened.

A probe runs learner's code and knows no answers: it returns tensors, and what stopped it where it was
stopped. Whether they are right is for the judge, which runs elsewhere or later.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from grader.calls import copied
from grader.checks.building import build_module
from grader.checks.nan import find_first_nan
from grader.checks.observation import Observation, Problem
from grader.checks.running import Stopped, changed_position, fresh_args, quietly, unseen, use
from grader.checks.second_run import function_again, module_again, use_for_other_numbers
from grader.checks.values import canonical_output, kind_of, module_output, taken
from grader.devices import device_of
from grader.recordings.tasks import Task, TaskCase


def probe(task: Task, target: Any, *, outputs_only: bool = False) -> tuple[Observation, ...]:
    """Run every case of `task` on the learner's class or function; an error in one case stops only that one.

    outputs_only: run each case once, and observe nothing but its output.
    """
    wrong_target = _wrong_target(task, target)
    if wrong_target:
        return tuple(Observation(case.name, problem=wrong_target) for case in task.cases)
    run = _run_once if outputs_only else _run_function if task.function else _run_module
    if not outputs_only:
        use_for_other_numbers(task, task.cases[0], target)
    return tuple(_observe(run, task, case, target) for case in task.cases)


def _observe(run: Callable[..., Observation], task: Task, case: TaskCase, target: Any) -> Observation:
    remarks: list[str] = []
    try:
        with quietly(remarks):
            observation = run(task, case, target)
    except Stopped as stopped:
        observation = Observation(case.name, problem=stopped.problem)
    return _with_remarks(observation, remarks)


def _with_remarks(observation: Observation, remarks: list[str]) -> Observation:
    unique = tuple(dict.fromkeys((*observation.remarks, *remarks)))
    return Observation(**{**observation.__dict__, "remarks": unique})


def _wrong_target(task: Task, target: Any) -> Problem | None:
    """What is wrong with the object that was handed to check, before anything is run."""
    kind = ("function or class" if task.drive else "function") if task.function else "class"
    wanted = f'hand over the {kind}: check("{task.exercise}", {task.solution})'
    if task.function:
        if callable(target) and (task.drive or not isinstance(target, type)):
            return None
        return Problem("target", f"check was given {kind_of(target)}, but needs a {kind}; {wanted}")
    if isinstance(target, nn.Module):
        return Problem(
            "target", f"check was given a {type(target).__name__} that is already built; {wanted}, without calling it"
        )
    if not isinstance(target, type):
        return Problem("target", f"check was given {kind_of(target)}, but needs a class; {wanted}")
    if not issubclass(target, nn.Module):
        return Problem(
            "target", f"the class {target.__name__} is no nn.Module; write `class {target.__name__}(nn.Module)`"
        )
    return None


def _run_once(task: Task, case: TaskCase, target: Any) -> Observation:
    if task.function:
        device = device_of(target)
        given = use(task, case, target, *fresh_args(case, device))
        return Observation(case.name, output=taken(canonical_output(given, device)))
    module, _ = build_module(target, case)
    with torch.no_grad():
        device = device_of(module)
        given = use(task, case, module, *fresh_args(case, device))
        return Observation(case.name, output=taken(module_output(given, device)))


def _run_function(task: Task, case: TaskCase, target: Any) -> Observation:
    device = device_of(target)
    args = fresh_args(case, device)
    before = [copied(arg) if isinstance(arg, Tensor) else arg for arg in args]
    output = taken(canonical_output(use(task, case, target, *args), device))
    changed = changed_position(before, args)
    with unseen():
        second = function_again(task, case, target)
    return Observation(case.name, output=output, changed_input=changed, **second)


def _run_module(task: Task, case: TaskCase, target: Any) -> Observation:
    module, remarks = build_module(target, case)
    device = device_of(module)
    args = fresh_args(case, device)
    before = [copied(arg) if isinstance(arg, Tensor) else arg for arg in args]
    with torch.no_grad():
        output = taken(module_output(use(task, case, module, *args), device))
    changed = changed_position(before, args)
    torch.default_generator.manual_seed(1)
    with unseen():
        second = module_again(task, case, target)
    first_nan = None
    if output.is_floating_point() and output.isnan().any():
        first_nan = find_first_nan(task, case, module)
    return Observation(
        case.name,
        output=output,
        changed_input=changed,
        first_nan=first_nan,
        remarks=remarks,
        **second,
    )
