"""A case asked in other ways: what a program gives for each of its variants."""

import contextlib
import copy
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from grader.checks.observation import CHANGED, Varied
from grader.checks.probe.building import build_module, constructed, filled
from grader.checks.probe.left_behind import arrived, following
from grader.checks.probe.running import Stopped, changed_argument, fresh_args, learner_errors, unseen, use
from grader.checks.probe.second_run import other_floats, sum_of_floats, use_for_own_other_numbers
from grader.checks.probe.values import canonical_output, module_output, taken
from grader.devices import device_of
from grader.recordings import variants as v
from grader.recordings.tasks import Task, TaskCase, configured
from grader.tolerance import agree

Between = Callable[[nn.Module | None], None]

# What is asked at once, since all of it must give the same, or rows or tokens of it: only where it does not, one after
# the other. The last use the module up.
AT_ONCE: tuple[tuple[type[v.Variant], ...], ...] = (
    (v.Vocabulary, v.Fields, v.RopeParameters, v.Moved, v.Longer),
    (v.Nulls, v.SameRow, v.SameLength, v.Deeper),  # a null would hide the field of that name
    (v.Loud,),
    (v.Rows, v.Strided, v.Training, v.Again, v.Copied),
)


def vary(
    task: Task, case: TaskCase, target: Any, own: Tensor | None, between: Between | None = None
) -> tuple[Varied, ...]:
    """What the target gives for each of the case's variants. own: what it gave for the case itself.

    between: what to do with the module that variants share while it has its weights still; it gets None where one of
    the variants so far does not give what it should.

    Variants share a module as far as they can, so that building it is paid for once. It was used for other numbers
    first. Where what came out does not agree with the program's own output, a module of its own tells whether it is
    due to what came before.
    """
    if own is None:
        return ()
    asking = _Asking(task, case, target, own)
    groups = _at_once(case.variants)
    together = [one for group in groups for one in group]
    with unseen(), torch.no_grad():
        found = {one: asking.asked(one) for one in case.variants if one not in together}
        for group in groups[:-1]:
            found |= asking.asked_at_once(group)
        if between:
            agreed = all(asking.agrees(one, varied.output) for one, varied in found.items())
            between(asking.shared() if agreed else None)
        for group in groups[-1:]:
            found |= asking.asked_at_once(group)
    return tuple(found[one] for one in case.variants)


def _at_once(variants: Sequence[v.Variant]) -> list[list[v.Variant]]:
    """Those that are asked at once, in the order of `AT_ONCE`; of loud tokens, those along one axis of the output.

    Training mode, where nothing else is asked with it, is asked with a row or a token alone.
    """
    groups: dict[tuple[int, int], list[v.Variant]] = {}
    for place, kinds in enumerate(AT_ONCE):
        for one in variants:
            if type(one) in kinds:
                groups.setdefault((place, one.along if isinstance(one, v.Loud) else 0), []).append(one)
    found = [group for group in groups.values() if len(group) > 1]
    left = [one for one in variants if not any(one in group for group in found)]
    training = [one for one in left if isinstance(one, v.Training)]
    smaller = [one for one in left if isinstance(one, v.OneRow | v.OneToken)]
    return [[smaller[-1], *training], *found] if training and smaller else found


class _Asking:
    """Asks the variants of one case, in their order.

    used: the module that they share; made with the first. given: the arguments of a module that is loaded anew.
    """

    def __init__(self, task: Task, case: TaskCase, target: Any, own: Tensor) -> None:
        self.task, self.case, self.target, self.own = task, case, target, own
        self.used: Any = target if task.function else None
        self.given: list[Any] = []

    def asked_at_once(self, group: Sequence[v.Variant]) -> dict[v.Variant, Varied]:
        """What comes out for several variants of which each must give the same."""
        case = reduce(TaskCase.varied, group, self.case)
        try:
            used = self._module(group, case)
            output = self._output(group, case, used)
            known = reduce(lambda out, one: one.without_end(out), group, output)
            if self._agree(known, reduce(lambda out, one: one.wanted(out), group, self.own)):
                taken = [one for one in group if isinstance(one, v.Taken)]  # others than the recorded came out
                real = group if not taken else taken if len(taken) == 1 else []
                wanted = {one: one.wanted(self.own) for one in group}
                return {one: Varied(output.to(wanted[one].dtype) if one in real else wanted[one]) for one in group}
        except (Stopped, RuntimeError, IndexError):  # told of the one that it is due to
            pass
        return {one: self.asked(one) for one in group}

    def asked(self, variant: v.Variant) -> Varied:
        """What comes out for one variant."""
        case = self.case.varied(variant)
        output = problem = None
        try:
            used = self._module([variant], case)
            output = self._output([variant], case, used)
        except Stopped as stopped:
            problem = stopped.problem
        agrees = self.agrees(variant, output)
        if agrees or isinstance(variant, v.Moved):
            return Varied(output, problem)
        if self.task.function:
            return Varied(output, problem, itself=self._itself())
        if variant.own_module or isinstance(variant, v.Reloaded | v.Copied):
            return Varied(output, problem)
        try:
            alone = self._output([variant], case, build_module(self.target, self.case)[0])
            return Varied(output, problem, alone)
        except Stopped as stopped:
            return Varied(output, problem or stopped.problem)

    def _itself(self) -> str:
        """What a function no longer gives for the case itself, where it is run as its variants are."""
        try:
            output = self._output([], self.case, self.target)
        except Stopped as stopped:
            return stopped.problem.message
        return "" if agree(output, self.own) else "it is another"

    def agrees(self, variant: v.Variant, output: Tensor | None) -> bool:
        """Whether what came out for a variant agrees with what came out for the case itself."""
        try:
            return output is not None and self._agree(variant.without_end(output), variant.wanted(self.own))
        except (RuntimeError, IndexError):
            return False

    def _agree(self, got: Tensor, wanted: Tensor) -> bool:
        """Whether they agree as nearly as the dtype allows in which the program's own output is known."""
        return got.dtype == wanted.dtype and agree(got.to(self.own.dtype), wanted.to(self.own.dtype))

    def _module(self, variants: Sequence[v.Variant], case: TaskCase) -> Any:
        """The module that is asked. Raises Stopped where it can't be made."""
        kinds = {type(one) for one in variants}
        for one in variants:
            if isinstance(one, v.SameLength):
                self._run_before(one.before)
        if self.task.function:
            return self.target
        if v.Reloaded in kinds:
            return self._reloaded()
        if v.Copied in kinds:
            return self._copy()
        if v.Moved in kinds:  # to where the input is
            with following():
                module = constructed(self.target, configured(case.build))
            filled(module, case.weights)
            arrived(module)
            return module
        return build_module(self.target, case)[0] if any(one.own_module for one in variants) else self.shared()

    def shared(self) -> Any:
        """The module that variants share."""
        if self.used is None:
            self.used = build_module(self.target, self.case)[0]
            short = next((one for one in self.case.variants if isinstance(one, v.OneToken)), None)
            if short:  # what is made for the first text alone is too small for all others
                use_for_own_other_numbers(self.task, self.case.varied(short), self.used)
            use_for_own_other_numbers(self.task, self.case, self.used)
        return self.used

    def _reloaded(self) -> nn.Module:
        module = constructed(self.target, configured(self.case.build))
        try:
            filled(module, {name: torch.zeros_like(weight) for name, weight in self.case.weights.items()})
            self.given = fresh_args(self.case, device_of(module))
            use(self.task, self.case, module, *self.given)
        except Stopped:  # with such weights it need not work
            pass
        with learner_errors():
            saved = module.state_dict()
            module.load_state_dict({n: w for n, w in self.case.weights.items() if n in saved}, strict=False)
        beside = constructed(self.target, configured(self.case.build))
        filled(beside, {name: torch.zeros_like(weight) for name, weight in self.case.weights.items()})
        different = [case.build for case in self.task.cases if case.build != self.case.build] or [self.case.build]
        other = max(different, key=sum_of_floats)  # an eps, say, that is large enough to show
        constructed(self.target, configured(other_floats(other)))  # whose is what the class keeps from now on
        return module

    def _copy(self) -> nn.Module:
        """A deep copy of a module that is called where gradients count before; after it its own weights are 0."""
        module, self.used = self.shared(), None
        with torch.enable_grad(), contextlib.suppress(Stopped):
            use(self.task, self.case, module, *fresh_args(self.case, device_of(module)))
        with learner_errors():
            copied: nn.Module = copy.deepcopy(module)
        for parameter in module.parameters():
            parameter.zero_()
        return copied

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

    def _output(self, variants: Sequence[v.Variant], case: TaskCase, used: Any) -> Tensor:
        """What counts of an output; all of it where it has no such part. Raises Stopped where there is none.

        case: as the variants ask it.
        """
        device, kinds = device_of(used), {type(one) for one in variants}
        if v.Again in kinds:
            self._use_for_another(case, used, device)
        torch.default_generator.manual_seed(2)
        if v.Training in kinds:
            used.train()
        args = self.given if v.Reloaded in kinds and self.given else fresh_args(case, device)
        try:
            with following() if v.Moved in kinds else contextlib.nullcontext():
                given = use(self.task, case, used, *args)
        finally:
            if v.Training in kinds:
                nn.Module.train(used, False)
        changed = changed_argument(self.task, case, used, args)
        if v.Training in kinds:
            changed = changed or _changed_weight(case, used)
        if changed:
            raise Stopped(CHANGED, changed)
        if v.Again in kinds:
            self._use_for_another(case, used, device)
        output = canonical_output(given, device) if self.task.function else module_output(given, device)
        with contextlib.suppress(RuntimeError, IndexError):
            output = reduce(lambda out, one: one.picked(out), variants, output)
        return taken(output)

    def _use_for_another(self, case: TaskCase, used: Any, device: torch.device) -> None:
        """Use a module for other numbers of the same shapes, before what it gave is read."""
        with contextlib.suppress(Stopped):
            use(self.task, case, used, *tree_map(_other_numbers, fresh_args(case, device)))


def _changed_weight(case: TaskCase, module: nn.Module) -> str | None:
    """Which weight is no longer the one that was loaded."""
    state = dict(module.state_dict(keep_vars=True))
    kept = ((name, state[name]) for name in case.weights if name in state)
    return next(
        (f"the weight `{name}`" for name, weight in kept if not agree(weight.detach().cpu(), case.weights[name])), None
    )


def _other_numbers(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor) or not leaf.ndim or leaf.dtype == torch.bool:
        return leaf
    return -2 * leaf if leaf.is_floating_point() else leaf.flip(-1)
