"""Build a learner's module, load the recorded weights, run the cases, and say what happened.

A probe runs learner's code and knows no answers: it returns tensors, and what stopped it where it was
stopped. Whether they are right is for the judge, which runs elsewhere or later.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from grader.checks.observation import Observation, Problem
from grader.checks.probe.building import build_module
from grader.checks.probe.kinds import kind_of
from grader.checks.probe.nan import find_first_nan, has_nan
from grader.checks.probe.running import Stopped, changed_argument, changed_field, fresh_args, quietly, unseen, use
from grader.checks.probe.second_run import (
    function_again,
    module_again,
    use_for_each_other_number,
    use_for_other_numbers,
    use_for_own_other_numbers,
)
from grader.checks.probe.values import canonical_output, module_output, taken
from grader.checks.probe.variants import vary
from grader.checks.probe.watch import Watch
from grader.devices import device_of
from grader.recordings.tasks import Task, TaskCase, configured


def probe(task: Task, target: Any, *, outputs_only: bool = False) -> tuple[Observation, ...]:
    """Run every case of `task` on the learner's class or function; an error in one case stops only that one.

    outputs_only: run each case once, and observe no more than that shows.
    """
    return tuple(probe_each(task, target, outputs_only=outputs_only))


def probe_each(task: Task, target: Any, *, outputs_only: bool = False) -> Iterator[Observation]:
    """As `probe`, one case after the other, each run when it is asked for."""
    wrong_target = _wrong_target(task, target)
    if wrong_target:
        yield from (Observation(case.name, problem=wrong_target) for case in task.cases)
        return
    if not outputs_only:
        use_for_other_numbers(task, task.cases[0], target)
        use_for_each_other_number(task, target)
    for case in task.cases:
        yield _observe(task, case, target, further=not outputs_only)


def probe_further(task: Task, case: TaskCase, target: Any, first: Observation) -> Observation:
    """What `probe` observes of a case, where its one run is known already. first: what that showed."""
    return _observe(task, case, target, first)


def _observe(
    task: Task, case: TaskCase, target: Any, first: Observation | None = None, *, further: bool = True
) -> Observation:
    """Run a case once, if `first` does not tell what that shows, and once more, if `further`."""
    remarks: list[str] = []
    used, watch = None, Watch()
    try:
        with quietly(remarks):
            if first is None:
                first, used = _run(task, case, target, watch)
            if further and task.function and case is task.cases[0] and watch.holds_something:
                with unseen(), _gradients_off(task), watch.meanwhile():
                    use_for_own_other_numbers(task, case, target)
            seen = replace(first, changed=first.changed or watch.changed)
            if further and isinstance(used, nn.Module) and first.output is not None and has_nan(first.output):
                seen = replace(seen, first_nan=find_first_nan(task, case, used))
            if further:
                seen = replace(seen, **_further(task, case, target, first.output, used))
    except Stopped as stopped:
        seen = Observation(case.name, problem=stopped.problem)
    return replace(seen, remarks=tuple(dict.fromkeys((*seen.remarks, *remarks))))


def _run(task: Task, case: TaskCase, target: Any, watch: Watch) -> tuple[Observation, Any]:
    """What one run shows, and what was run: the function, or a module. Raises Stopped where it gives no output."""
    build = configured(case.build)
    used, remarks = (target, ()) if task.function else build_module(target, case, build)
    device = device_of(used)
    args = fresh_args(case, device)
    with _gradients_off(task), contextlib.nullcontext() if task.drive else watch.process():
        given = use(task, case, used, *args, watched=watch.calls_of)
        whole = canonical_output(given, device) if task.function else module_output(given, device)
    if not task.drive:
        watch.keep(given)
    output = taken(whole)
    changed = _changed_config(case, build) or changed_argument(task, case, used, args)
    return Observation(case.name, output=output, changed=changed, remarks=remarks), used


def _changed_config(case: TaskCase, build: Mapping[str, Any]) -> str | None:
    """The field of the config that a module was built with which is no longer what it was."""
    old, new = case.build.get("config"), build.get("config")
    field = changed_field(old, new) if isinstance(old, Mapping) and isinstance(new, Mapping) else None
    return field and f"the config's `{field}`"


def _gradients_off(task: Task) -> contextlib.AbstractContextManager[Any]:
    """Gradients count in the second run; before, what needs none may be changed in place, and that is seen."""
    return torch.no_grad() if task.differentiable or not task.function else contextlib.nullcontext()


def _is_first_of_its_drive(task: Task, case: TaskCase) -> bool:
    """Whether no case before this one is used in its way."""
    return all(other.drive != case.drive for other in task.cases[: task.cases.index(case)])


def _further(task: Task, case: TaskCase, target: Any, own: Tensor | None, used: Any) -> dict[str, Any]:
    """Of an observation, what further runs show. own: what the first run gave. used: the module that gave it, if known.

    A case is run again, with gradients on, unless none are looked at and one before it is used in its way. What earlier
    uses leave behind is looked for where the case's variants are such uses, and else in the first case that is used in
    its way: what one keeps shows there.
    """
    known = not _is_first_of_its_drive(task, case)
    enough = known and not task.differentiable
    if task.function:
        again = {} if enough else _run_again(task, case, target)
        return {**again, "varied": vary(task, case, target, own)} if case.variants else again
    if not case.variants:
        return {} if enough else _run_again(task, case, target, used if known else None)
    observed: dict[str, Any] = {}

    def once_more(module: nn.Module | None) -> None:
        if not enough:
            observed.update(_run_again(task, case, target, module))

    return {"varied": vary(task, case, target, own, once_more), **observed}


def _run_again(task: Task, case: TaskCase, target: Any, used: nn.Module | None = None) -> dict[str, Any]:
    """Of an observation, what a second run shows. used: the module to run, if not one of its own."""
    if task.function:
        with unseen():
            return function_again(task, case, target)
    torch.default_generator.manual_seed(1)
    with unseen(), torch.enable_grad():
        return module_again(task, case, target, used)


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
