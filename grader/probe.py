"""Build a learner's module, load the recorded weights, run the cases, and say what happened.

A probe runs learner's code and knows no answers: it returns tensors, and what stopped it where it was
stopped. Whether they are right is for the judge, which runs elsewhere or later.
"""

import __future__

import contextlib
import difflib
import inspect
import io
import itertools
import linecache
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from grader.recording import PartInput, PartOutput, Task, TaskCase, configured
from grader.tolerance import agree
from grader.tracing import copied, first_tensor

MAX_ITEMS = 2_000  # a generator that never ends is stopped here


@dataclass(frozen=True)
class Problem:
    """Why a case gave no tensor: one sentence, then lines of detail (a traceback, names) if there are any."""

    kind: str
    message: str
    detail: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fed:
    """What a learner's part gave for the reference's input, or why it gave nothing, and whether it changed it."""

    output: Tensor | None
    problem: Problem | None = None
    changed_input: bool = False


PartKey = tuple[str, int]  # a part's path, and how often it was called before


@dataclass(frozen=True)
class Replaced:
    """A composite's output while each part answers with the reference's output, and what the parts were given.

    present: the paths of the parts that the learner's module has. It may do without one, with a function.
    """

    output: Tensor | None
    given: Mapping[PartKey, Tensor | None]
    present: tuple[str, ...] = ()


@dataclass(frozen=True)
class Observation:
    """What happened when one case ran.

    output: the learner's output, or None where `problem` stopped it. again: the output of a second run.
    changed_input: the position of an argument that was modified in place. no_gradient: parameters
    and arguments (``input``) that no gradient reached. backward: why gradients could not be computed.
    first_nan: where NaN first appeared. remarks: what does not make it wrong, and is worth knowing.
    """

    case: str
    output: Tensor | None = None
    problem: Problem | None = None
    again: Tensor | None = None
    changed_input: int | None = None
    no_gradient: tuple[str, ...] = ()
    backward: Problem | None = None
    first_nan: str | None = None
    remarks: tuple[str, ...] = ()


class Stopped(Exception):
    """Ends a case with a problem."""

    def __init__(self, kind: str, message: str, detail: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problem = Problem(kind, message, tuple(detail))


def probe(task: Task, target: Any) -> tuple[Observation, ...]:
    """Run every case of `task` on the learner's class or function; an error in one case stops only that one."""
    wrong_target = _wrong_target(task, target)
    if wrong_target:
        return tuple(Observation(case.name, problem=wrong_target) for case in task.cases)
    run = _run_function if task.function else _run_module
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


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread: cases are so small that on a busy machine waiting for a second one takes longer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def quietly(remarks: list[str]) -> Iterator[None]:
    """Run learner's code on one thread, and keep its warnings as remarks.

    Its stderr goes to stdout: nbgrader takes anything on stderr for a failure.
    """
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stderr(sys.stdout):
        warnings.simplefilter("always")
        # Neither a notebook that switched gradients off nor its random state plays a part.
        with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]), one_thread():
            torch.default_generator.manual_seed(0)  # torch.manual_seed seeds every device's, and is slow
            yield
    remarks.extend(f"warning: {str(w.message).splitlines()[0]}" for w in caught if str(w.message))


def _wrong_target(task: Task, target: Any) -> Problem | None:
    """What is wrong with the object that was handed to check, before anything is run."""
    kind = ("function or class" if task.drive else "function") if task.function else "class"
    wanted = f'hand over the {kind}: check("{task.exercise}", {task.solution})'
    if task.function:
        if callable(target) and (task.drive or not isinstance(target, type)):
            return None
        return Problem("target", f"check was given {_describe(target)}, but needs a {kind}; {wanted}")
    if isinstance(target, nn.Module):
        return Problem(
            "target", f"check was given a {type(target).__name__} that is already built; {wanted}, without calling it"
        )
    if not isinstance(target, type):
        return Problem("target", f"check was given {_describe(target)}, but needs a class; {wanted}")
    if not issubclass(target, nn.Module):
        return Problem(
            "target", f"the class {target.__name__} is no nn.Module; write `class {target.__name__}(nn.Module)`"
        )
    return None


def _describe(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if inspect.isroutine(value):
        return f"the function {value.__name__}"
    kind = type(value).__name__
    if type(value).__module__ == "numpy":
        return f"a NumPy {kind.removeprefix('nd')}"
    return f"{'an' if kind[:1] in 'aeiou' else 'a'} {kind}"


# Functions


def _run_function(task: Task, case: TaskCase, target: Any) -> Observation:
    args = _fresh_args(case)
    before = [copied(arg) if isinstance(arg, Tensor) else arg for arg in args]
    output = _canonical_output(_use(task, target, *args))
    again = _canonical_output(_use(task, target, *_fresh_args(case)))
    return Observation(case.name, output=output, again=again, changed_input=_changed(before, args))


def canonical(value: Any) -> Tensor:
    """A function's result as a tensor: numbers, lists and generators of whole numbers become int64 (or float64).

    Raises Stopped for anything else.
    """
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Generator | Iterator):
        value = list(itertools.islice(value, MAX_ITEMS))
        if len(value) == MAX_ITEMS:
            raise Stopped("type", f"the generator did not stop after {MAX_ITEMS:,} values")
    if isinstance(value, list | tuple):
        items = [item.item() if isinstance(item, Tensor) and item.numel() == 1 else item for item in value]
        kind = type(value).__name__
        if items and all(isinstance(item, Tensor) for item in items):
            shapes = "a tensor" if len(items) == 1 else f"{len(items)} tensors"
            raise Stopped("type", f"it gave a {kind} of {shapes}, where one tensor or plain numbers belong")
        odd = next((item for item in items if not isinstance(item, int | float)), None)
        if odd is not None:
            raise Stopped("type", f"it gave a {kind} that holds {_describe(odd)}, where a number belongs")
        whole = all(isinstance(item, int) for item in items)
        return torch.tensor(items, dtype=torch.int64 if whole else torch.float64)
    if isinstance(value, bool | int):
        return torch.tensor(int(value))
    if isinstance(value, float):
        return torch.tensor(value, dtype=torch.float64)
    if inspect.iscoroutine(value):
        value.close()
    if value is None:
        raise Stopped("type", "it returned None; does it end with `return`?")
    raise Stopped("type", f"it returned {_describe(value)}, where a number, a list or a tensor belongs")


def _canonical_output(value: Any) -> Tensor:
    with _learner_errors():
        return _on_cpu(canonical(value))


# Modules


def _run_module(task: Task, case: TaskCase, target: Any) -> Observation:
    module, remarks = build_module(target, case)
    args = _fresh_args(case)
    before = [copied(arg) if isinstance(arg, Tensor) else arg for arg in args]
    with torch.no_grad():
        output = _module_output(_use(task, module, *args))
    changed = _changed(before, args)
    torch.default_generator.manual_seed(1)
    again: Tensor | None = None
    no_gradient: tuple[str, ...] = ()
    backward: Problem | None = None
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # what forward prints was printed by the first run
            again, no_gradient = _run_with_gradients(task, case, module)
    except Stopped as stopped:
        backward = stopped.problem
    first_nan = None
    if output.is_floating_point() and output.isnan().any():
        first_nan = _find_first_nan(task, module, _fresh_args(case))
    return Observation(
        case.name,
        output=output,
        again=again,
        changed_input=changed,
        no_gradient=no_gradient,
        backward=backward,
        first_nan=first_nan,
        remarks=remarks,
    )


def build_module(target: Any, case: TaskCase) -> tuple[nn.Module, tuple[str, ...]]:
    """The learner's module with the recorded weights, in eval mode, and remarks on it.

    target: the learner's class; it gets the build arguments in their order. Raises Stopped where it can't be
    built, or its parameters are not the checkpoint's in name or shape.
    """
    with _learner_errors():
        module = constructed(target, case.build)
        detail = _wrong_names(module, case.weights)
        if detail:
            raise Stopped("parameters", "its parameters are not the checkpoint's, so weights can't be loaded", detail)
        _load(module, case.weights)
        parameters = dict(module.named_parameters(remove_duplicate=False))
        kept = [name for name in module.state_dict() if name not in case.weights and name not in parameters]
        remarks: tuple[str, ...] = ()
        if kept:
            remarks = (
                f"`{kept[0]}` would be expected in every checkpoint, and is in none:"
                " register it with `persistent=False`, or loading real weights will complain",
            )
        return module, remarks


def constructed(target: Any, build: Mapping[str, Any]) -> nn.Module:
    """The learner's module as its class makes it, in eval mode. Raises Stopped where it does not."""
    with _learner_errors():
        module = target(*configured(build).values())
        if not isinstance(module, nn.Module):
            raise Stopped("build", f"{target.__name__}(...) gave {_describe(module)}, and no nn.Module")
        nn.Module.train(module, False)
        return module


def _wrong_names(module: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """A line for each parameter that the checkpoint has not, or has otherwise."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    own = parameters | dict(module.named_buffers(remove_duplicate=False))
    known: dict[int, str] = {}
    for name in weights:
        if name in own and id(own[name]) in known and not torch.equal(weights[name], weights[known[id(own[name])]]):
            first, second = known[id(own[name])], name
            return [f"`{first}` and `{second}` are one and the same here, and two different ones in the checkpoint"]
        if name in own:
            known[id(own[name])] = name
    extra = [name for name, p in parameters.items() if name not in weights and id(p) not in known]
    lines = explain_names({name: tuple(tensor.shape) for name, tensor in own.items()}, weights, extra)
    return [*_plain_lists(module, weights), *lines] if lines else []


def _plain_lists(module: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """Lists of modules that PyTorch doesn't see, where the checkpoint has parameters."""
    return [
        f"`{name}` is a plain list, and PyTorch doesn't look into one for modules: make it an `nn.ModuleList`"
        for name, value in vars(module).items()
        if isinstance(value, list | tuple | dict)
        and any(isinstance(item, nn.Module) for item in (value.values() if isinstance(value, dict) else value))
        and any(weight.startswith(f"{name}.") for weight in weights)
    ]


@torch.no_grad()
def _load(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy the weights in. Parameters get the weights' dtype; buffers keep their own, as in loading."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    buffers = dict(module.named_buffers(remove_duplicate=False))
    for name, tensor in weights.items():
        if name not in parameters:
            buffers[name].copy_(tensor)
        elif parameters[name].dtype == tensor.dtype:
            parameters[name].copy_(tensor)
        else:
            parameters[name].data = tensor.clone()


MAX_NAMES = 8  # lines of names; more would say nothing new


def explain_names(own: Mapping[str, tuple[int, ...]], wanted: Mapping[str, Tensor], extra: Sequence[str]) -> list[str]:
    """A line for each name or shape in which a module differs from a checkpoint; empty where it does not.

    own: the module's names and shapes. wanted: the checkpoint's tensors. extra: names of the module's
    that the checkpoint would have to have and has not. What repeats from layer to layer is one line.
    """
    missing = [name for name in wanted if name not in own]
    lines = []
    for name in extra:
        like = [m for m in missing if m.count(".") == name.count(".")]
        close = difflib.get_close_matches(name, like, n=1, cutoff=0.7)
        asked = "; what does that say of the head?" if name == "lm_head.weight" else ""
        asked = f"; did you mean `{close[0]}`?" if close else asked
        lines.append(f"`{name}` is not in the checkpoint{asked}")
        missing = [m for m in missing if not close or m != close[0]]
    lines.extend(f"`{name}` {list(wanted[name].shape)} is in the checkpoint, and missing here" for name in missing)
    for name, tensor in wanted.items():
        shape = tuple(tensor.shape)
        if name in own and own[name] != shape:
            note = ", transposed" if len(shape) == 2 and own[name] == shape[::-1] else ""
            lines.append(f"`{name}` has shape {list(own[name])}; in the checkpoint it is {list(shape)}{note}")
    lines = layers_as_one(lines)
    if len(lines) > MAX_NAMES:
        lines[MAX_NAMES - 1 :] = [f"and {len(lines) - MAX_NAMES + 1} more like these"]
    return lines


def layers_as_one(lines: Iterable[str]) -> list[str]:
    """Lines that differ only in the number of a layer as one, with ``h.*`` for ``h.0``, ``h.1``, ..."""
    groups: dict[str, list[str]] = {}
    for line in lines:
        groups.setdefault(re.sub(r"\.\d+(?=\.)", ".*", line), []).append(line)
    return [pattern if len(group) > 1 else group[0] for pattern, group in groups.items()]


def _run_with_gradients(task: Task, case: TaskCase, module: nn.Module) -> tuple[Tensor | None, tuple[str, ...]]:
    """A second run, and the names that no gradient reached ("input" for the first floating-point argument)."""
    leaves = [
        arg.clone().requires_grad_() if isinstance(arg, Tensor) and arg.is_floating_point() else arg
        for arg in _fresh_args(case)
    ]
    # A leaf that needs a gradient can't be modified in place; a copy of it can, as in the first run.
    args = [leaf.clone() if isinstance(leaf, Tensor) and leaf.requires_grad else leaf for leaf in leaves]
    output = _module_output(_use(task, module, *args))
    again = copied(output)
    if not task.differentiable or case.dtype != torch.float32 or not output.is_floating_point():
        return again, ()
    own = dict(module.named_parameters())
    frozen = tuple(name for name in case.weights if name not in own or not own[name].requires_grad)
    aliases = {name for name, _ in module.named_parameters(remove_duplicate=False)} - own.keys()
    frozen = tuple(name for name in frozen if name not in aliases)
    wanted: dict[str, Tensor] = {name: own[name] for name in case.weights if name in own and own[name].requires_grad}
    floating = (leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad)
    wanted.update(("input", leaf) for leaf in itertools.islice(floating, 1))  # a table of cosines needs none
    if not output.requires_grad:
        return again, (*frozen, *wanted)
    with _learner_errors():
        gradients = torch.autograd.grad(output.sum(), list(wanted.values()), allow_unused=True)
    return again, (*frozen, *(name for name, g in zip(wanted, gradients, strict=True) if g is None))


def _module_output(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return _on_cpu(value)
    hint = "does forward end with `return`?" if value is None else "return the tensor alone"
    raise Stopped("type", f"forward returned {_describe(value)}, where a tensor belongs; {hint}")


def _on_cpu(tensor: Tensor) -> Tensor:
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized or tensor.is_complex():
        raise Stopped("type", "the output is a sparse, nested, quantized or complex tensor, where a plain one belongs")
    if tensor.device.type != "cpu":
        raise Stopped(
            "device",
            f"the input is on the cpu, and the output on {tensor.device}; create new tensors with `device=x.device`",
        )
    return tensor


# Parts of a composite


def part_of(parts: Mapping[str, str], path: str) -> str | None:
    """The exercise that built the submodule at `path`, or None."""
    return next((exercise for pattern, exercise in parts.items() if _matches(path, pattern)), None)


def _matches(path: str, pattern: str) -> bool:
    """Segment by segment: ``h.*`` stands for ``h.0`` and not for ``h.0.attn``."""
    names, patterns = path.split("."), pattern.split(".")
    return len(names) == len(patterns) and all(fnmatchcase(n, p) for n, p in zip(names, patterns, strict=True))


def part_types(task: Task, target: Any) -> dict[str, type[nn.Module]]:
    """The classes of the learner's parts, by path; empty where the module can't be built."""

    def built() -> dict[str, type[nn.Module]]:
        module = constructed(target, task.cases[0].build)
        return {path: type(part) for path, part in module.named_modules() if part_of(task.parts, path)}

    found: dict[str, type[nn.Module]] = _quietly_or({}, built)
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
    module = constructed(target, case.build)
    parts = _named(module, (given.path for given in inputs))
    wrong = {path for path, part in parts.items() if _wrong_names(part, _below(case.weights, path))}
    if wrong:
        problem = Problem("parameters", "its parameters are not the checkpoint's, so weights can't be loaded")
        return {(given.path, given.index): Fed(None, problem) for given in inputs if given.path in wrong}
    module, _ = build_module(target, case)
    parts = _named(module, parts)
    arguments = _arguments_of(task, module, parts, case)
    return {
        (given.path, given.index): _fed(parts[given.path], given, arguments) for given in inputs if given.path in parts
    }


def _below(weights: Mapping[str, Tensor], path: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{path}."): t for name, t in weights.items() if name.startswith(f"{path}.")}


def _fed(part: nn.Module, given: PartInput, arguments: Mapping[PartKey, tuple[tuple[Any, ...], dict[str, Any]]]) -> Fed:
    tensor = given.input.clone()
    args, kwargs = with_first_tensor(*arguments.get((given.path, given.index), ((), {})), tensor)
    try:
        output = copied(first_tensor(_call_learner(part, *args, **kwargs)))
    except Stopped as stopped:
        return Fed(None, stopped.problem)
    return Fed(output, changed_input=not torch.equal(tensor.nan_to_num(), given.input.nan_to_num()))


def _arguments_of(
    task: Task, module: nn.Module, parts: Mapping[str, nn.Module], case: TaskCase
) -> dict[PartKey, tuple[tuple[Any, ...], dict[str, Any]]]:
    """What each call of the parts gets in the learner's own pass."""
    arguments: dict[PartKey, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def keep(path: str) -> Callable[..., None]:
        counter = itertools.count()

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            arguments[path, next(counter)] = (args, kwargs)

        return hook

    handles = [part.register_forward_pre_hook(keep(path), with_kwargs=True) for path, part in parts.items()]
    try:
        with contextlib.suppress(Stopped):
            _use(task, module, *_fresh_args(case))
    finally:
        for handle in handles:
            handle.remove()
    return arguments


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
    """Takes a part's place and answers with what the reference's part gave back.

    Where it is called otherwise than the reference's part was, the learner's part answers; its attributes are
    the learner's part's too.
    """

    def __init__(self, part: nn.Module, path: str, outputs: Mapping[PartKey, PartOutput]) -> None:
        super().__init__()
        # Kept out of the module's own tables: a part whose parameters don't fit must not be looked into.
        object.__setattr__(self, "part", part)
        self.path, self.outputs, self.calls = path, outputs, 0
        self.given: dict[PartKey, Tensor | None] = {}

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(object.__getattribute__(self, "part"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        key = (self.path, self.calls)
        self.calls += 1
        tensor = first_tensor((args, kwargs))
        self.given[key] = copied(tensor)
        recorded = self.outputs.get(key)
        answer = None if recorded is None or tensor is None else _in_layout_of(tensor, recorded)
        return self.part(*args, **kwargs) if answer is None else answer


def _replace(task: Task, case: TaskCase, target: Any, outputs: Sequence[PartOutput]) -> Replaced:
    module = constructed(target, case.build)
    recorded = {(output.path, output.index): output for output in outputs}
    parts = _named(module, (output.path for output in outputs))
    in_parts = tuple(f"{path}." for path in parts)
    rest = {name: tensor for name, tensor in case.weights.items() if not name.startswith(in_parts)}
    rest |= {name: t for name, t in _tied(module, case.weights).items() if not name.startswith(in_parts)}
    stand_ins = []
    for path, part in parts.items():
        with contextlib.suppress(RuntimeError, KeyError):
            below = _below(case.weights, path)
            if not _wrong_names(part, below):
                _load(part, below)
        stand_in = _StandIn(part, path, recorded).eval()
        parent, _, name = path.rpartition(".")
        module.get_submodule(parent)._modules[name] = stand_in
        stand_ins.append(stand_in)
    if detail := _wrong_names(module, rest):
        raise Stopped("parameters", "its parameters are not the checkpoint's, so weights can't be loaded", detail)
    _load(module, rest)
    try:
        output = copied(_module_output(_use(task, module, *_fresh_args(case))))
    except Stopped:
        output = None
    given = {key: tensor for stand_in in stand_ins for key, tensor in stand_in.given.items()}
    return Replaced(output, given, tuple(parts))


def _tied(module: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of parameters that the checkpoint has under another name: a tied head has the embedding's."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    held = {id(parameters[name]): tensor for name, tensor in weights.items() if name in parameters}
    return {name: held[id(p)] for name, p in parameters.items() if name not in weights and id(p) in held}


def layout_between(given: Tensor, recorded: Tensor) -> tuple[int, ...] | None:
    """The permutation of `recorded`'s axes that gives `given`, or None. Their order is a program's own choice."""
    if given.ndim != recorded.ndim or given.dtype != recorded.dtype or given.ndim > 5:
        return None
    for order in itertools.permutations(range(recorded.ndim)):
        if agree(given, recorded.permute(order)):
            return order
    return None


def _in_layout_of(given: Tensor, recorded: PartOutput) -> Tensor | None:
    """The recorded output with its axes in the order in which the learner's program keeps them, told by the sizes.

    None where the sizes are not the recorded input's in any order, or in more than one.
    """
    if tuple(given.shape) == recorded.input_shape:
        return recorded.output.clone()
    axes = range(len(recorded.input_shape))
    orders = [o for o in itertools.permutations(axes) if tuple(recorded.input_shape[i] for i in o) == given.shape]
    if len(orders) != 1 or recorded.output.ndim != given.ndim:
        return None
    return recorded.output.permute(orders[0]).clone()


# Running learner's code


def _fresh_args(case: TaskCase) -> list[Any]:
    fresh: list[Any] = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, list(case.args))
    return fresh


def _changed(before: Sequence[Any], after: Sequence[Any]) -> int | None:
    """The position of the first tensor that is no longer what it was."""
    for position, (old, new) in enumerate(zip(before, after, strict=True)):
        if isinstance(old, Tensor) and not torch.equal(torch.nan_to_num(old), torch.nan_to_num(new)):
            return position
    return None


def _use(task: Task, target: Any, *args: Any) -> Any:
    """What the learner's module or function gives for a case's arguments: called, or used as the task's drive does."""
    drive = _drive(task.drive) if task.drive else None
    return _call_learner(drive, target, *args) if drive else _call_learner(target, *args)


@cache
def _drive(source: str) -> Callable[..., Any]:
    """The function that `source`, of a recording, defines."""
    namespace: dict[str, Any] = {"torch": torch, "nn": nn, "Tensor": Tensor}
    # Types in its signature are the author's, and are not looked up.
    exec(compile(source, _DRIVE_FILE, "exec", flags=__future__.annotations.compiler_flag), namespace)
    return next(value for name, value in namespace.items() if inspect.isfunction(value))


_DRIVE_FILE = "<how the check uses it>"


def _call_learner(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with _learner_errors():
        return function(*args, **kwargs)


@contextlib.contextmanager
def _learner_errors() -> Iterator[None]:
    """Turn what the learner's code raises into a problem that shows their lines only."""
    try:
        yield
    except Stopped:
        raise
    except (Exception, SystemExit) as error:  # learner's code may raise anything
        if isinstance(error, NotImplementedError) and (name := _stub(error)):
            raise Stopped("not_written", f"{name} is not written yet: replace `raise NotImplementedError()`") from error
        raise Stopped("exception", f"it raised {_headline(error)}", learner_traceback(error)[:-1]) from error


def _message(error: BaseException) -> str:
    """The error's message, whatever its class makes of it."""
    try:
        return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error).strip()
    except Exception:
        return ""


def _headline(error: BaseException) -> str:
    lines = _message(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _stub(error: NotImplementedError) -> str:
    """The function that is still a stub, as in `Block.forward`; empty where the error says more or is another's."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    own = [frame for frame in frames if is_learners(frame.f_code.co_filename)]
    if _message(error) or (own and own[-1] is not frames[-1]):
        return ""
    return f"`{own[-1].f_code.co_qualname}`" if own else "it"


def _learner_frames(tb: TracebackType | None) -> list[traceback.FrameSummary]:
    """The frames that are neither this engine's nor a library's."""
    return [frame for frame in traceback.extract_tb(tb) if is_learners(frame.filename)]


def is_learners(filename: str) -> bool:
    """Whether code in this file is the learner's: neither this engine's, nor a library's, nor Python's."""
    if filename == _DRIVE_FILE or filename.startswith("<frozen"):
        return False
    return not any(filename.startswith(folder) for folder in _LIBRARY_FOLDERS)


_LIBRARY_FOLDERS = tuple(
    {
        __file__.rsplit("probe.py", 1)[0],
        torch.__file__.rsplit("torch", 1)[0],
        inspect.__file__.rsplit("inspect.py", 1)[0],
    }
)


def learner_traceback(error: BaseException) -> tuple[str, ...]:
    """The learner's own lines in an error's traceback, outermost first, and the error's message.

    Lines read ``line 7, in forward:  x = self.c_atn(x)``; line numbers count from the cell's first line. Of a
    long traceback the middle is left out.
    """
    lines = [
        f"line {frame.lineno}, in {frame.name}:  {(frame.line or '').strip()}"
        for frame in _learner_frames(error.__traceback__)
    ]
    if len(lines) > 6:
        lines[3:-3] = [f"... {len(lines) - 6} lines more ..."]
    message = " ".join(_message(error).splitlines()[:4])
    return (*lines, f"{type(error).__name__}: {message}" if message else type(error).__name__)


class _NanFinder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the first operation whose output has NaN while none of its inputs had."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: str | None = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if self.found is None and _has_nan(output) and not _has_nan([*args, *kwargs.values()]):
            self.found = self._where(func)
        return output

    @staticmethod
    def _where(func: Any) -> str:
        operation = func.__name__.split(".")[0].strip("_")
        frame: Any = sys._getframe()
        while frame is not None and not is_learners(frame.f_code.co_filename):
            frame = frame.f_back
        if frame is None:
            return f"in the operation {operation}"
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        return f"in line {frame.f_lineno} of {frame.f_code.co_name} ({operation}):  {line}"


def _has_nan(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.is_floating_point() and bool(value.isnan().any())
    return isinstance(value, list | tuple) and any(_has_nan(item) for item in value)


def _find_first_nan(task: Task, module: nn.Module, args: Sequence[Any]) -> str | None:
    finder = _NanFinder()
    with torch.no_grad(), contextlib.suppress(Stopped), finder:
        _use(task, module, *args)
    return finder.found
