"""A case asked in other ways: what a program gives for each of its variants."""

import contextlib
import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from grader.checks.observation import Varied
from grader.checks.probe.building import build_module, constructed, filled
from grader.checks.probe.running import Stopped, changed_argument, fresh_args, learner_errors, unseen, use
from grader.checks.probe.values import canonical_output, module_output, taken
from grader.devices import device_of
from grader.recordings.tasks import Task, TaskCase, configured
from grader.recordings.variants import Again, AsDict, Copied, Reloaded, SameLength, Training, Variant
from grader.tolerance import agree


def vary(task: Task, case: TaskCase, target: Any, own: Tensor | None) -> tuple[Varied, ...]:
    """What the target gives for each of the case's variants. own: what it gave for the case itself.

    Variants share a module as far as they can, so that building it is paid for once. Where what came out does not
    agree with the program's own output, a module of its own tells whether it is due to what came before.
    """
    if own is None:
        return ()
    asking = _Asking(task, case, target, own)
    with unseen(), torch.no_grad():
        return tuple(asking.asked(variant) for variant in case.variants)


class _Asking:
    """Asks the variants of one case, in their order.

    used: the module that they share; made with the first. given: the arguments of a module that is loaded anew.
    """

    def __init__(self, task: Task, case: TaskCase, target: Any, own: Tensor) -> None:
        self.task, self.case, self.target, self.own = task, case, target, own
        self.used: Any = target if task.function else None
        self.given: list[Any] = []

    def asked(self, variant: Variant) -> Varied:
        try:
            output = self._output(variant, self._module(variant))
        except Stopped as stopped:
            return Varied(problem=stopped.problem)
        if self.task.function or variant.own_module or self._agrees(variant, output):
            return Varied(output)
        try:
            return Varied(output, alone=self._output(variant, build_module(self.target, self.case)[0]))
        except Stopped as stopped:
            return Varied(output, stopped.problem)

    def _agrees(self, variant: Variant, output: Tensor) -> bool:
        try:
            return agree(variant.without_end(output), variant.wanted(self.own))
        except (RuntimeError, IndexError):
            return False

    def _module(self, variant: Variant) -> Any:
        """The module that is asked. Raises Stopped where it can't be made."""
        if self.task.function:
            return self.target
        if not variant.own_module:
            if self.used is None:
                self.used = build_module(self.target, self.case)[0]
            return self.used
        if isinstance(variant, Reloaded):
            return self._reloaded()
        if isinstance(variant, Copied):
            return self._copied()
        if isinstance(variant, SameLength):
            self._run_before(variant.before)
        return build_module(self.target, self.case.varied(variant))[0]

    def _reloaded(self) -> nn.Module:
        first, _ = build_module(self.target, self.case)
        second = constructed(self.target, configured(self.case.build))
        try:
            filled(second, {name: torch.zeros_like(weight) for name, weight in self.case.weights.items()})
            self.given = fresh_args(self.case, device_of(second))
            use(self.task, self.case, second, *self.given)
        except Stopped:  # with such weights it need not work
            pass
        with learner_errors():
            saved = {name: value for name, value in first.state_dict().items() if name in self.case.weights}
            second.load_state_dict(saved, strict=False)
        return second

    def _copied(self) -> nn.Module:
        first, _ = build_module(self.target, self.case)
        with torch.enable_grad(), contextlib.suppress(Stopped):
            use(self.task, self.case, first, *fresh_args(self.case, device_of(first)))
        with learner_errors():
            second = copy.deepcopy(first)
        for parameter in first.parameters():
            parameter.zero_()
        return second

    def _run_before(self, name: str) -> None:
        """Run another case, whatever it gives. A task may hold one case alone; then nothing comes before."""
        other = next((case for case in self.task.cases if case.name == name), None)
        if other is None:
            return
        try:
            used = self.target if self.task.function else build_module(self.target, other)[0]
            use(self.task, other, used, *fresh_args(other, device_of(used)))
        except Stopped:  # told where that case is judged
            pass

    def _output(self, variant: Variant, used: Any) -> Tensor:
        """What counts of an output; all of it where it has no such part. Raises Stopped where there is none."""
        case = replace(self.case, args=variant.args(self.case.args))
        device = device_of(used)
        torch.default_generator.manual_seed(2)
        if isinstance(variant, Training):
            used.train()
        args = self.given if isinstance(variant, Reloaded) and self.given else fresh_args(case, device)
        try:
            given = use(self.task, case, used, *args)
        finally:
            if isinstance(variant, Training):
                nn.Module.train(used, False)
        if isinstance(variant, AsDict) and (changed := changed_argument(self.task, case, used, args)):
            raise Stopped("changed", f"{changed} is changed")
        if isinstance(variant, Again):
            self._use_for_another(case, used, device)
        output = canonical_output(given, device) if self.task.function else module_output(given, device)
        with contextlib.suppress(RuntimeError, IndexError):
            output = variant.picked(output)
        return taken(output)

    def _use_for_another(self, case: TaskCase, used: Any, device: torch.device) -> None:
        """Use a module for other numbers of the same shapes, before what it gave is read."""
        with contextlib.suppress(Stopped):
            use(self.task, case, used, *tree_map(_other_numbers, fresh_args(case, device)))


def _other_numbers(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor) or not leaf.ndim or leaf.dtype == torch.bool:
        return leaf
    return -2 * leaf if leaf.is_floating_point() else leaf.flip(-1)
