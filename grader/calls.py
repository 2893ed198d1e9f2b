"""What every module of a model was given and returned in one forward pass: the one recorder of it.

A `Call` holds tensors alone, and is what recordings keep. A `WatchedCall` also knows how it was made, so that it can be
made again on another input.
"""

import contextlib
import copy
import functools
import inspect
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from grader.padding import without_padding
from grader.steps import Step, listening

NOTHING = tree_flatten(((), {}))[1]  # no arguments


@dataclass(frozen=True)
class Call:
    """One call of one module: its path, how often it had been called before, and its tensors.

    `input` is the first tensor the module was given, `output` the first it returned; either is None
    where there was none. `others` are the further tensors that it was given, each with the name of the argument
    that it is or lies in; `further` are the further tensors that it gave. All are copies, taken before anything
    later could change them in place. `floor` is how far rounding alone moves what it gave, if that was measured: see
    tolerance.distance.
    """

    path: str
    index: int
    type: str
    input: Tensor | None
    output: Tensor | None
    others: tuple[tuple[str, Tensor], ...] = ()
    further: tuple[Tensor, ...] = ()
    floor: float = 0.0

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """All tensors that it gave."""
        return () if self.output is None else (self.output, *self.further)


def first_tensor(value: Any) -> Tensor | None:
    """The first tensor in a value, looking into tuples, lists, dicts and transformers' outputs."""
    return next(iter(tensors_in(value)), None)


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors in a value; of a mapping with logits these come first, before a loss."""
    leaves = [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
    logits = value.get("logits") if isinstance(value, Mapping) else None
    return sorted(leaves, key=lambda leaf: leaf is not logits) if isinstance(logits, Tensor) else leaves


def copied(tensor: Tensor | None) -> Tensor | None:
    """A detached copy in row-major order, or None."""
    return None if tensor is None else tensor.detach().clone(memory_format=torch.contiguous_format)


def argument_names(module: nn.Module, spec: TreeSpec) -> dict[int, str]:
    """The name of the argument that each leaf of a call's (args, kwargs) is or lies in, as forward calls it.

    spec: how the leaves make up (args, kwargs). Empty where the call does not fit forward's signature.
    """
    args, kwargs = tree_unflatten(range(spec.num_leaves), spec)
    try:
        signature = inspect.signature(module.forward)
        arguments = signature.bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return {}
    names = {position: name for name, value in arguments.items() for position in tree_leaves(value)}
    gathered = next((n for n, p in signature.parameters.items() if p.kind is p.VAR_KEYWORD), None)
    for name, value in arguments.get(gathered, {}).items() if gathered else ():
        names.update(dict.fromkeys(tree_leaves(value), name))
    return names


@dataclass(eq=False)
class WatchedCall:
    """One call of one module.

    leaves, spec: its arguments as a flat list, copied before the call, and how to put them together again.
    parent: the watched call that it was made in. finished: False where it raised. returned: the type of what
    it gave. outputs: copies of the tensors in it. changed: the leaves that it modified in place. made_by: for
    a leaf that is an output of an earlier call (or a view of one), that call and which of its outputs. given: the
    arguments themselves, as later code may have changed them. rewind: brings a model that holds a state back to the one
    in which it was called.
    """

    path: str
    index: int
    module: nn.Module
    leaves: list[Any]
    spec: TreeSpec
    parent: "WatchedCall | None"
    outputs: list[Tensor] = field(default_factory=list)
    returned: str = ""
    finished: bool = False
    changed: set[int] = field(default_factory=set)
    made_by: dict[int, "tuple[WatchedCall, int]"] = field(default_factory=dict)
    given: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
    rewind: Callable[[], None] | None = None

    @property
    def output(self) -> Tensor | None:
        """The first tensor that it gave."""
        return next(iter(self.outputs), None)

    def ancestors(self) -> "Iterator[WatchedCall]":
        """The calls that it was made in, innermost first."""
        call = self.parent
        while call is not None:
            yield call
            call = call.parent

    def tensors(self) -> list[int]:
        """The positions of the leaves that are tensors."""
        return [i for i, leaf in enumerate(self.leaves) if isinstance(leaf, Tensor)]

    @property
    def is_step(self) -> bool:
        """Whether it is a named step, and no call of a module."""
        return isinstance(self.module, Step)

    def names(self) -> dict[int, str]:
        """Each leaf's position and the name of the argument that it is or lies in, as forward calls it."""
        return argument_names(self.module, self.spec)

    def recorded(self) -> Call:
        """The same as a `Call`, which knows tensors alone."""
        given, names = self.tensors(), self.names()
        return Call(
            self.path,
            self.index,
            type(self.module).__name__,
            self.leaves[given[0]] if given else None,
            self.output,
            tuple((names.get(i, ""), self.leaves[i]) for i in given[1:]),
            tuple(self.outputs[1:]),
        )

    def again(self, instead: Mapping[int, Tensor]) -> Any:
        """Call the module once more, with other tensors in the place of some leaves."""
        args, kwargs = tree_unflatten(self.fresh_leaves(instead), self.spec)
        if self.rewind is not None:
            self.rewind()
        return self.module(*args, **kwargs)

    def fresh_leaves(self, instead: Mapping[int, Tensor]) -> list[Any]:
        """Copies of what it was given, with other tensors in the place of some leaves."""
        return [copied(instead[i]) if i in instead else _copy(leaf) for i, leaf in enumerate(self.leaves)]


def watch(
    model: nn.Module, run: Callable[[], Any], paths: Collection[str], steps: bool = False
) -> tuple[list[WatchedCall], Exception | None]:
    """Run `run()` and return every call of `model` (path "") and of its submodules at `paths`, in the order in
    which they began, and what `run()` raised.

    A module that stands at several paths is taken for the one inside the call that is under way.
    steps: whether steps that code names (see `steps.step`) are noted, too: at `module:name`.
    """
    places: dict[nn.Module, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if not path or path in paths:
            places.setdefault(module, []).append(path)
    with _forward_counts(places):
        recorder = _Recorder(places)
        return recorder.calls, recorder.record(run, steps)


@contextlib.contextmanager
def _forward_counts(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Have `module.forward(x)` count as a call: as `module(x)`, which alone runs hooks."""
    called: set[nn.Module] = set()
    with contextlib.ExitStack() as undone:
        for module in modules:
            forward = module.forward

            @functools.wraps(forward)
            def instead(*args: Any, _module: nn.Module = module, _forward: Any = forward, **kwargs: Any) -> Any:
                if _module in called:
                    called.discard(_module)
                    return _forward(*args, **kwargs)
                return _module(*args, **kwargs)

            if "forward" not in vars(module):  # what a module holds as its own is left alone
                undone.enter_context(module.register_forward_pre_hook(lambda module, args: called.add(module)))
                module.forward = instead
                undone.callback(delattr, module, "forward")
        yield


def record_calls(
    module: nn.Module, run: Callable[[], Any], paths: Iterable[str] | None = None
) -> tuple[Any, list[Call]]:
    """Run `run()` and record every call of `module`'s submodules, in the order in which they began.

    paths: the submodules to record; all of them when None. Returns what `run()` returned, and the calls that came to
    their end. Raises what `run()` raises, and KeyError where a path names no submodule.
    """
    modules = dict(module.named_modules())
    names = [name for name in modules if name] if paths is None else list(paths)
    returned: list[Any] = []
    recorder = _Recorder({modules[name]: [name] for name in names})
    error = recorder.record(lambda: returned.append(run()), steps=paths is None)
    if error is not None:
        raise error
    return returned[0], [call.recorded() for call in recorder.calls if call.finished]


class _Recorder:
    """Notes every call of modules, in the order in which they began. places: at which paths each module stands."""

    def __init__(self, places: Mapping[nn.Module, list[str]]) -> None:
        self.places = places
        self.calls: list[WatchedCall] = []
        self.under_way: list[WatchedCall] = []
        self.count: Counter[str] = Counter()
        self.makers: dict[int, tuple[WatchedCall, int]] = {}  # by the address of what they gave
        self.alive: list[Any] = []  # keeps storages from being freed, and their addresses from being used again
        self.originals: dict[WatchedCall, list[Any]] = {}

    def record(self, run: Callable[[], Any], steps: bool) -> Exception | None:
        """Run `run()`, and return what it raised. steps: whether steps that code names are noted, too."""
        try:
            with contextlib.ExitStack() as hooks, listening(self._step if steps else None):
                for module in self.places:
                    hooks.enter_context(module.register_forward_pre_hook(self._before, with_kwargs=True))
                    hooks.enter_context(module.register_forward_hook(self._after, with_kwargs=True))
                run()
        except Exception as error:  # learner's code may raise anything
            return error
        return None

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        leaves, spec = tree_flatten((args, kwargs))
        copies = [_copy(leaf) for leaf in leaves]
        path = _place(self.places[module], self._parent)
        call = WatchedCall(path, self.count[path], module, copies, spec, self._parent, given=(args, kwargs))
        call.made_by = {i: self.makers[a] for i, leaf in enumerate(leaves) if (a := _address(leaf)) in self.makers}
        self.originals[call] = leaves
        self._add(call)
        self.under_way.append(call)

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        call = self.under_way.pop()
        while call.module is not module:  # the learner caught what these raised
            call = self.under_way.pop()
        call.finished = True
        call.returned = type(output).__name__
        tensors = tensors_in(output)
        call.outputs = [_noted(tensor) for tensor in tensors]
        before_it = {i: without_padding(self.originals[call][i]) for i in call.tensors()}
        call.changed = {i for i, old in before_it.items() if not _unchanged(call.leaves[i], old)}
        self.alive.append(output)
        self.makers.update({a: (call, i) for i, tensor in enumerate(tensors) if (a := _address(tensor))})

    def _step(self, name: str, value: Tensor) -> None:
        path = f"{self._parent.path if self._parent else ''}:{name}"
        self._add(
            WatchedCall(path, self.count[path], Step(), [], NOTHING, self._parent, [_noted(value)], "Tensor", True)
        )

    def _add(self, call: WatchedCall) -> None:
        self.count[call.path] += 1
        self.calls.append(call)

    @property
    def _parent(self) -> WatchedCall | None:
        return self.under_way[-1] if self.under_way else None


def _place(paths: list[str], parent: WatchedCall | None) -> str:
    prefix = f"{parent.path}." if parent and parent.path else ""
    return next((path for path in paths if path.startswith(prefix)), paths[0])


def _copy(leaf: Any) -> Any:
    try:
        return _noted(leaf) if isinstance(leaf, Tensor) else copy.deepcopy(leaf)
    except Exception:  # what can't be copied is handed on as it is
        return leaf


def _noted(tensor: Tensor) -> Tensor:
    return without_padding(tensor).detach().clone(memory_format=torch.contiguous_format)


def _address(leaf: Any) -> int | None:
    """Where a tensor's values lie; None for anything else."""
    if not isinstance(leaf, Tensor) or leaf.layout != torch.strided:
        return None
    return leaf.untyped_storage().data_ptr() or None


def _unchanged(old: Tensor, new: Tensor) -> bool:
    return old.shape == new.shape and bool(((old == new) | ((old != old) & (new != new))).all())
