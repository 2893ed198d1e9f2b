"""A composite's parts apart from itself: its parts on the reference's inputs, and itself with the reference's parts."""

import contextlib
import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from grader.calls import argument_names, copied, first_tensor, watch
from grader.checks.layout import piece_of
from grader.checks.observation import Fed, PartClass, PartKey, Problem, Replaced
from grader.checks.probe.building import constructed, filled, load_weights, wrong_names
from grader.checks.probe.running import Stopped, call_learner, fresh_args, quietly, use
from grader.checks.probe.values import module_output
from grader.devices import device_of
from grader.recordings.tasks import PartInput, PartOutput, Task, TaskCase, configured, part_of


def part_types(task: Task, target: Any) -> dict[str, type[nn.Module]]:
    """The classes of the learner's parts, by path; empty where the module can't be built."""

    def built() -> dict[str, type[nn.Module]]:
        module = constructed(target, configured(task.cases[0].build))
        return {path: type(part) for path, part in module.named_modules() if part_of(task.parts, path)}

    found: dict[str, type[nn.Module]] = _quietly_or({}, built)
    return found


def part_classes(
    task: Task, target: Any, solutions: Mapping[str, str], types: Mapping[str, type[nn.Module]]
) -> dict[str, PartClass]:
    """What class each of the learner's parts has, by path, of the parts whose exercises are among `solutions`.

    solutions: exercises, and the name that the solution of each has. What such an exercise checks is the class of
    that name, where the composite's notebook has one. types: see `part_types`.
    """
    names = used_by(target)
    found = {}
    for path, kind in types.items():
        exercise = part_of(task.parts, path)
        if exercise and exercise in solutions:
            library = kind.__module__.startswith("torch.")
            found[path] = PartClass(kind.__name__, names.get(solutions[exercise], kind) is kind, library)
    return found


def used_by(target: Any) -> Mapping[str, Any]:
    """The names that the learner's class or function can call: those of the notebook in which it was written."""
    if isinstance(target, type):
        functions = (value for value in vars(target).values() if inspect.isfunction(value))
        target = next(functions, target)
    names: Mapping[str, Any] = getattr(inspect.unwrap(target), "__globals__", {})
    return names


def feed_parts(task: Task, target: Any, inputs: Sequence[Sequence[PartInput]]) -> tuple[dict[PartKey, Fed], ...]:
    """For each case, what the learner's parts give when fed what the reference's were given.

    What else a part is called with is what the learner's own pass gives it. Empty for a case that doesn't run.
    """
    return tuple(_quietly_or({}, _feed, task, case, target, fed) for case, fed in zip(task.cases, inputs, strict=True))


def replace_parts(task: Task, target: Any, outputs: Sequence[Sequence[PartOutput]]) -> tuple[Replaced, ...]:
    """For each case, what the composite's own code gives while its parts answer as the reference's did."""
    nothing = Replaced(None, {})
    return tuple(
        _quietly_or(nothing, _replace, task, case, target, out) for case, out in zip(task.cases, outputs, strict=True)
    )


def _quietly_or(otherwise: Any, run: Callable[..., Any], *args: Any) -> Any:
    with quietly([]), torch.no_grad():
        try:
            return run(*args)
        except Stopped:
            return otherwise


def _named(module: nn.Module, paths: Iterable[str]) -> dict[str, nn.Module]:
    """The submodules at those of the paths that the learner's module has."""
    own = dict(module.named_modules())
    return {path: own[path] for path in dict.fromkeys(paths) if path in own}


def _feed(task: Task, case: TaskCase, target: Any, inputs: Sequence[PartInput]) -> dict[PartKey, Fed]:
    module = constructed(target, configured(case.build))
    parts = _named(module, (given.path for given in inputs))
    wrong = {path for path, part in parts.items() if wrong_names(part, _below(case.weights, path))}
    if wrong:
        problem = Problem("parameters", "its parameters are not the checkpoint's, so weights can't be loaded")
        return {(given.path, given.index): Fed(None, problem) for given in inputs if given.path in wrong}
    filled(module, case.weights)
    arguments = _arguments_of(task, module, parts, case)
    return {
        (given.path, given.index): _fed(parts[given.path], given, arguments) for given in inputs if given.path in parts
    }


def _below(weights: Mapping[str, Tensor], path: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{path}."): t for name, t in weights.items() if name.startswith(f"{path}.")}


def _fed(part: nn.Module, given: PartInput, arguments: Mapping[PartKey, tuple[tuple[Any, ...], dict[str, Any]]]) -> Fed:
    tensor = given.input.to(device_of(part), copy=True)
    own_args, own_kwargs = arguments.get((given.path, given.index), ((), {}))
    own = first_tensor((own_args, own_kwargs))
    args, kwargs = with_first_tensor(own_args, own_kwargs, tensor)
    leaves, structure = tree_flatten((args, kwargs))
    tensors = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    names = argument_names(part, structure)
    others = tuple(dict.fromkeys(names[i] for i in tensors[1:] if i in names))
    try:
        output = _on_cpu(copied(first_tensor(call_learner(part, *args, **kwargs))))
    except Stopped as stopped:
        # Where the learner's pass hands over a piece, the rest is of a piece too: what is raised then is not theirs.
        piece = own is not None and own.shape != tensor.shape
        return Fed(None, None if piece else stopped.problem, others=others)
    return Fed(output, None, not torch.equal(tensor.cpu().nan_to_num(), given.input.nan_to_num()), others)


def _arguments_of(
    task: Task, module: nn.Module, parts: Mapping[str, nn.Module], case: TaskCase
) -> dict[PartKey, tuple[tuple[Any, ...], dict[str, Any]]]:
    """What each call of the parts gets in the learner's own pass."""
    calls, _ = watch(module, lambda: use(task, case, module, *fresh_args(case, device_of(module))), parts)
    return {
        (path, index): call.given
        for path, part in parts.items()
        for index, call in enumerate(call for call in calls if call.module is part)
    }


def with_first_tensor(
    args: tuple[Any, ...], kwargs: dict[str, Any], new: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with their first tensor replaced; `new` alone where there is none."""
    leaves, structure = tree_flatten((args, kwargs))
    place = next((i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)), None)
    if place is None:
        return (new,), kwargs
    leaves[place] = new
    changed: tuple[tuple[Any, ...], dict[str, Any]] = tree_unflatten(leaves, structure)
    return changed


class _StandIn(nn.Module):
    """Takes a part's place and answers with what the reference's part returned.

    Where it is called otherwise than the reference's part was, the learner's part answers; its attributes are
    the learner's part's too.
    """

    def __init__(self, part: nn.Module, path: str, outputs: Mapping[PartKey, PartOutput]) -> None:
        super().__init__()
        # Kept out of the module's own tables: a part whose parameters don't fit must not be looked into.
        object.__setattr__(self, "part", part)
        self.path, self.outputs, self.calls = path, outputs, 0
        self.place, self.start = 0, 0  # the recorded call that answers next, and how much of it was asked for in pieces
        self.used = False
        self.given: dict[PartKey, Tensor | None] = {}

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            part = object.__getattribute__(self, "part")
            if name in part._parameters or name in part._modules:
                self.used = True
            return getattr(part, name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        key = (self.path, self.calls)
        self.calls += 1
        tensor = first_tensor((args, kwargs))
        self.given[key] = _on_cpu(copied(tensor))
        answer = None if tensor is None else self._answer(tensor)
        if answer is None or tensor is None:
            return self.part(*args, **kwargs)
        return self._in_place_of_its_own(answer.to(tensor.device), *with_first_tensor(args, kwargs, tensor.clone()))

    def _in_place_of_its_own(self, answer: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The answer, in whatever the learner's part returns beside it, such as a choice of tokens for later layers.

        The part is run, on a copy of its input: it also fills the caches that it is handed, which the composite reads.
        """
        try:
            leaves, structure = tree_flatten(self.part(*args, **kwargs))
        except (Exception, SystemExit):  # the part's own check tells of it
            return answer
        place = next((i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)), None)
        if place is None:
            return answer
        leaves[place] = answer
        return tree_unflatten(leaves, structure)

    def _answer(self, given: Tensor) -> Tensor | None:
        """What the reference's part gave for this input, or for the part of it that a piece is."""
        recorded = self.outputs.get((self.path, self.place))
        answer = None if recorded is None or self.start else _in_layout_of(given, recorded)
        piece = None
        if recorded is not None and answer is None:
            piece = piece_of(given, recorded.input_shape, recorded.output, self.start)
        if piece is None:
            self.place, self.start = self.place + 1, 0
            return answer
        answer, self.start, ends = piece
        if ends:
            self.place, self.start = self.place + 1, 0
        return answer


def _replace(task: Task, case: TaskCase, target: Any, outputs: Sequence[PartOutput]) -> Replaced:
    module = constructed(target, configured(case.build))
    device = device_of(module)
    recorded = {(output.path, output.index): output for output in outputs}
    parts = _named(module, (output.path for output in outputs))
    in_parts = tuple(f"{path}." for path in parts)
    rest = {name: tensor for name, tensor in case.weights.items() if not name.startswith(in_parts)}
    rest |= {name: t for name, t in _tied(module, case.weights).items() if not name.startswith(in_parts)}
    stand_ins = []
    for path, part in parts.items():
        with contextlib.suppress(RuntimeError, KeyError):
            below = _below(case.weights, path)
            if not wrong_names(part, below):
                load_weights(part, below)
        stand_in = _StandIn(part, path, recorded).eval()
        parent, _, name = path.rpartition(".")
        module.get_submodule(parent)._modules[name] = stand_in
        stand_ins.append(stand_in)
    if detail := wrong_names(module, rest):
        raise Stopped("parameters", "its parameters are not the checkpoint's, so weights can't be loaded", detail)
    load_weights(module, rest)
    try:
        output = copied(module_output(use(task, case, module, *fresh_args(case, device)), device))
    except Stopped:
        output = None
    given = {key: tensor for stand_in in stand_ins for key, tensor in stand_in.given.items()}
    used = tuple(stand_in.path for stand_in in stand_ins if stand_in.used)
    return Replaced(output, given, tuple(parts), used)


def _tied(module: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of parameters that the checkpoint has under another name: a tied head has the embedding's."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    held = {id(parameters[name]): tensor for name, tensor in weights.items() if name in parameters}
    return {name: held[id(p)] for name, p in parameters.items() if name not in weights and id(p) in held}


def _on_cpu(tensor: Tensor | None) -> Tensor | None:
    return tensor if tensor is None or tensor.is_meta else tensor.cpu()


def _in_layout_of(given: Tensor, recorded: PartOutput) -> Tensor | None:
    """The recorded output with its axes in the order in which the learner's program keeps them, told by the sizes.

    Of several orders, one that leaves the first axis in its place, as texts are. None where the sizes are not the
    recorded input's in any order, or still in more than one.
    """
    if tuple(given.shape) == recorded.input_shape:
        return recorded.output.clone()
    axes = range(len(recorded.input_shape))
    orders = [o for o in itertools.permutations(axes) if tuple(recorded.input_shape[i] for i in o) == given.shape]
    if len(orders) > 1:
        orders = [order for order in orders if order[0] == 0]
    if len(orders) != 1 or recorded.output.ndim != given.ndim:
        return None
    return recorded.output.permute(orders[0]).clone()
