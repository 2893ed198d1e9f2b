"""A case before its time, with other numbers; and once more: after other uses of the module, and with gradients.

What one text leaves behind for the next shows here, and so does what no gradient flows through.
"""

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from grader.calls import copied
from grader.checks.fingerprint import are_compared, fingerprint, leaf_names, leaf_positions, weighted_sum
from grader.checks.observation import SECOND_RUN
from grader.checks.probe.building import build_module
from grader.checks.probe.running import Stopped, fresh_args, learner_errors, quietly, unseen, use
from grader.checks.probe.values import canonical_output, module_output
from grader.config import Config
from grader.devices import device_of
from grader.recordings.tasks import Task, TaskCase


def use_for_other_numbers(task: Task, case: TaskCase, target: Any) -> None:
    """Use the target for a case's arguments in reverse, before it is used for any case.

    A program that keeps its first answer for all inputs of the same shape, wherever it keeps it, has kept a wrong one.
    Numbers that are no whole ones are others too, such as a theta: in the arguments, and in the config.
    """
    others = [tree_map(_other, list(case.args))]
    if _has_float([*case.args, dict(case.build)]):  # with none, these would be the case's own numbers
        others.append(tree_map(_other_float, list(case.args)))
    with contextlib.suppress(Stopped), quietly([]), unseen(), torch.no_grad():  # told where the case is judged
        other = replace(case, build=tree_map(_other, dict(case.build)))
        used = target if task.function else build_module(target, other)[0]
        for args in others:
            with contextlib.suppress(Stopped):
                use(task, case, used, *fresh_args(replace(case, args=tuple(args)), device_of(used)))


def _has_float(values: Any) -> bool:
    """Whether there is a number among values that is no whole one: by itself, or in a config."""
    return any(_has_float(dict(v)) if isinstance(v, Config) else isinstance(v, float) for v in tree_leaves(values))


def use_for_each_other_number(task: Task, target: Any) -> None:
    """Use a function of a config or of measures with one of their numbers changed, for each of them, in each case.

    A program that keeps its answers under some of the numbers alone has kept wrong ones.
    """
    with quietly([]), unseen():
        for number, case in enumerate(task.cases if task.function else ()):
            if all(map(_is_plain, case.args)) and any(isinstance(arg, Config | float) for arg in case.args):
                for kind in (float, int):  # an int may say how many calls there are
                    changed = list(_one_changed(list(case.args), kind))
                    first = number % max(1, len(changed))  # what comes first is kept: another number in each case
                    for args in changed[first:] + changed[:first]:
                        with contextlib.suppress(Stopped):
                            use(task, case, target, *args)


def _is_plain(arg: Any) -> bool:
    """Whether an argument is a config or a number."""
    return isinstance(arg, Config | int | float)


def _one_changed(value: Any, kind: type) -> Iterator[Any]:
    """What a list or a mapping is where one number of a kind in it is another, for each of them."""
    if isinstance(value, Config):
        yield from map(Config, _one_changed(dict(value), kind))
    elif isinstance(value, dict):
        for name, one in value.items():
            for other in _one_changed(one, kind):
                yield {**value, name: other}
    elif isinstance(value, list):
        for place, one in enumerate(value):
            for other in _one_changed(one, kind):
                yield [*value[:place], other, *value[place + 1 :]]
    elif isinstance(value, bool):
        if kind is int:
            yield not value
    elif isinstance(value, float) and kind is float:
        yield 1.5 * value
    elif isinstance(value, int) and kind is int:
        yield value + 1


def _other(leaf: Any) -> Any:
    """Another number for one that is no whole one, and a tensor's in reverse."""
    return _other_numbers(leaf) if isinstance(leaf, Tensor) else _other_float(leaf)


def other_floats(build: Mapping[str, Any]) -> dict[str, Any]:
    """Build arguments with other numbers for those that are no whole ones."""
    changed: dict[str, Any] = tree_map(_other_float, dict(build))
    return changed


def sum_of_floats(build: Mapping[str, Any]) -> float:
    """The sum of all numbers in build arguments that are no whole ones."""
    return sum(leaf for leaf in tree_leaves(dict(build)) if isinstance(leaf, float))


def _other_float(leaf: Any) -> Any:
    """Another number for one that is no whole one, as a theta or an eps: half as much again."""
    if isinstance(leaf, Config):
        return Config(tree_map(_other_float, dict(leaf)))
    return 1.5 * leaf if isinstance(leaf, float) else leaf


def _other_numbers(tensor: Tensor) -> Tensor:
    """The same numbers in reverse; half of them where that changes nothing."""
    reverse = tensor.flip(tuple(range(tensor.dim())))
    return tensor / 2 if tensor.is_floating_point() and torch.equal(reverse, tensor) else reverse


def module_again(task: Task, case: TaskCase, target: Any, used: nn.Module | None = None) -> dict[str, Any]:
    """Of an observation, what a second run shows, in a module that was used for others before.

    used: such a module. Without one, it is a new one, and another case is what it is used for first.
    Only cases with the same build arguments can come first: one of another shape where there is one, and then the case
    itself with other numbers, used in the same way. What a module keeps from one text for the next shows after the one
    or the other.
    """
    try:
        module = used
        if module is None:
            module, _ = build_module(target, case)
            _use_before(task, case, module)
        leaves = _leaves(task, case, device_of(module))
        try:
            output = module_output(use(task, case, module, *_copies(leaves)), device_of(module))
        except Stopped as stopped:
            return {"backward": replace(stopped.problem, kind=SECOND_RUN)}
        every = dict(module.named_parameters(remove_duplicate=False))
        trained = {name: every[name] for name in case.weights if name in every and every[name].requires_grad}
        return _observed(task, case, output, trained, leaves)
    except Stopped as stopped:
        return {"backward": stopped.problem}


def function_again(task: Task, case: TaskCase, target: Any) -> dict[str, Any]:
    """Of an observation, what a second run of a function shows. Raises Stopped where it stops.

    In the first case, a generator's values but the first are read after another's: each has a state of its own.
    """
    device = device_of(target)
    leaves = _leaves(task, case, device)
    given = use(task, case, target, *_copies(leaves))
    if case is task.cases[0] and isinstance(given, Iterator):
        given = _after_another(given, task, case, target)
    output = canonical_output(given, device)
    if not any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves):
        return {"again": copied(output)}
    try:
        return _observed(task, case, output, {}, leaves)
    except Stopped as stopped:
        return {"again": copied(output), "backward": stopped.problem}


def _use_before(task: Task, case: TaskCase, module: nn.Module) -> None:
    """Use the module for another case, and for this one with other numbers: whatever that gives, it must not show in
    what comes after."""
    alike = [c for c in task.cases if c.build == case.build and c.dtype == case.dtype]
    others = [c for c in alike if c is not case]
    if any(c.drive == case.drive for c in alike[: alike.index(case)]):  # what comes in between was seen there
        others = []
    others = [next((c for c in others if _shapes(c) != _shapes(case)), others[0])] if others else []
    with torch.no_grad():
        for other in others:
            with contextlib.suppress(Stopped):  # told where that case is judged
                use(task, other, module, *fresh_args(other, device_of(module)))
    use_for_own_other_numbers(task, case, module)
    torch.default_generator.manual_seed(1)


def _after_another(given: Iterator[Any], task: Task, case: TaskCase, target: Any) -> Iterator[Any]:
    """What an iterator gives where another is read after its first value."""
    with learner_errors():
        first = list(itertools.islice(given, 1))
    with contextlib.suppress(Stopped):
        canonical_output(use(task, case, target, *tree_map(_other, fresh_args(case, device_of(target)))))
    return itertools.chain(first, given)


def use_for_own_other_numbers(task: Task, case: TaskCase, used: Any) -> None:
    """Use a module or a function for a case's arguments with other numbers, whatever that gives.

    A module's whole numbers, such as a window, change too, and those that only another case has are added. The
    arguments of a drive stay as many as they are: they may say how the module is used.
    """
    with torch.no_grad(), contextlib.suppress(Stopped):
        others = tree_map(_other, fresh_args(case, device_of(used)))
        if not task.function and not task.drive:
            others = [arg + 1 if type(arg) is int else arg for arg in others]
            further = max((c.args[len(others) :] for c in task.cases), key=len)
            others += further if all(type(arg) is int for arg in further) else ()
        use(task, case, used, *others)


def _shapes(case: TaskCase) -> list[Any]:
    return [arg.shape if isinstance(arg, Tensor) else repr(arg) for arg in case.args]


def _leaves(task: Task, case: TaskCase, device: torch.device) -> list[Any]:
    """Fresh arguments, of which those whose gradients count need one."""
    args = fresh_args(case, device)
    if not task.differentiable:
        return args
    return [arg.requires_grad_() if i in leaf_positions(task, args) else arg for i, arg in enumerate(args)]


def _copies(leaves: Sequence[Any]) -> list[Any]:
    """A leaf that needs a gradient can't be modified in place; a copy of it can, as in the first run."""
    return [leaf.clone() if isinstance(leaf, Tensor) and leaf.requires_grad else leaf for leaf in leaves]


def _observed(
    task: Task, case: TaskCase, output: Tensor, trained: Mapping[str, Tensor], leaves: Sequence[Any]
) -> dict[str, Any]:
    """The output, and what gradients reach. Raises Stopped where they can't be computed."""
    observed: dict[str, Any] = {"again": copied(output)}
    if not are_compared(task, case, output):
        return observed
    names = leaf_names(task, case)
    arguments = [leaves[i] for i in leaf_positions(task, leaves)]
    wanted = {**trained, **dict(zip(names[len(case.weights) :], arguments, strict=True))}
    found: dict[str, Tensor | None] = {}
    if output.requires_grad and wanted:
        with learner_errors():
            given = torch.autograd.grad(weighted_sum(output), list(wanted.values()), allow_unused=True)
        found = dict(zip(wanted, given, strict=True))
    gradients = [found.get(name) for name in names]
    observed["no_gradient"] = tuple(name for name, g in zip(names, gradients, strict=True) if g is None)
    observed["gradients"] = fingerprint(gradients) if names else None
    return observed
