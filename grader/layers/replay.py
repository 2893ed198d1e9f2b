"""Watch the calls of a learner's modules in one run, and make one of them again on another input."""

import contextlib
import copy
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from grader.calls import argument_names, copied, tensors_in


@dataclass(eq=False)
class Watched:
    """One call of one module.

    leaves, spec: its arguments as a flat list, copied before the call, and how to put them together again.
    parent: the watched call that it was made in. finished: False where it raised. returned: the type of what
    it gave. outputs: copies of the tensors in it. changed: the leaves that it modified in place. made_by: for
    a leaf that is an output of an earlier call (or a view of one), that call and which of its outputs.
    """

    path: str
    index: int
    module: nn.Module
    leaves: list[Any]
    spec: TreeSpec
    parent: "Watched | None"
    outputs: list[Tensor] = field(default_factory=list)
    returned: str = ""
    finished: bool = False
    changed: set[int] = field(default_factory=set)
    made_by: dict[int, "tuple[Watched, int]"] = field(default_factory=dict)

    @property
    def output(self) -> Tensor | None:
        """The first tensor that it gave."""
        return next(iter(self.outputs), None)

    def ancestors(self) -> "Iterator[Watched]":
        """The calls that it was made in, innermost first."""
        call = self.parent
        while call is not None:
            yield call
            call = call.parent

    def tensors(self) -> list[int]:
        """The positions of the leaves that are tensors."""
        return [i for i, leaf in enumerate(self.leaves) if isinstance(leaf, Tensor)]

    def names(self) -> dict[int, str]:
        """Each leaf's position and the name of the argument that it is or lies in, as forward calls it."""
        return argument_names(self.module, self.spec)

    def again(self, instead: Mapping[int, Tensor]) -> Any:
        """Call the module once more, with other tensors in the place of some leaves."""
        leaves = [copied(instead[i]) if i in instead else _copy(leaf) for i, leaf in enumerate(self.leaves)]
        args, kwargs = tree_unflatten(leaves, self.spec)
        return self.module(*args, **kwargs)


def watch(model: nn.Module, run: Callable[[], Any], paths: Collection[str]) -> tuple[list[Watched], Exception | None]:
    """Run `run()` and return every call of `model` (path "") and of its submodules at `paths`, in the order in
    which they began, and what `run()` raised.

    A module that stands at several paths is taken for the one inside the call that is under way.
    """
    watched: list[Watched] = []
    under_way: list[Watched] = []
    seen: Counter[str] = Counter()
    makers: dict[int, tuple[Watched, int]] = {}
    alive: list[Any] = []  # keeps storages from being freed, and their addresses from being used again
    originals: dict[Watched, list[Any]] = {}
    places: dict[nn.Module, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if not path or path in paths:
            places.setdefault(module, []).append(path)

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        parent = under_way[-1] if under_way else None
        leaves, spec = tree_flatten((args, kwargs))
        path = _place(places[module], parent)
        call = Watched(path, seen[path], module, [_copy(leaf) for leaf in leaves], spec, parent)
        call.made_by = {i: makers[a] for i, leaf in enumerate(leaves) if (a := _address(leaf)) in makers}
        seen[path] += 1
        originals[call] = leaves
        watched.append(call)
        under_way.append(call)

    def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        call = under_way.pop()
        while call.module is not module:  # the learner caught what these raised
            call = under_way.pop()
        call.finished = True
        call.returned = type(output).__name__
        tensors = tensors_in(output)
        call.outputs = [tensor.detach().clone(memory_format=torch.contiguous_format) for tensor in tensors]
        call.changed = {i for i in call.tensors() if not _unchanged(call.leaves[i], originals[call][i])}
        alive.append(output)
        makers.update({a: (call, i) for i, tensor in enumerate(tensors) if (a := _address(tensor))})

    handles = []
    for module in places:
        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(module.register_forward_hook(after, with_kwargs=True))
    error = None
    try:
        run()
    except Exception as raised:  # learner's code may raise anything
        error = raised
    finally:
        for handle in handles:
            handle.remove()
    return watched, error


@contextlib.contextmanager
def answering(answers: Mapping[tuple[nn.Module, int], Sequence[Tensor]]) -> Iterator[None]:
    """Have calls of modules, each named by how often its module was called before, give these tensors instead.

    Only the first is replaced where the two are not of the same number and dtypes. A tensor of another number of
    values is left out.
    """
    count: Counter[nn.Module] = Counter()

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        answer = answers.get((module, count[module]), ())
        count[module] += 1
        leaves, spec = tree_flatten(output)
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        if [leaves[i].dtype for i in places] != [tensor.dtype for tensor in answer]:
            places = places[:1]
        pairs = [(i, t) for i, t in zip(places, answer, strict=False) if leaves[i].numel() == t.numel()]
        for i, tensor in pairs:
            leaves[i] = copied(arranged(tensor, leaves[i]))
        return tree_unflatten(leaves, spec) if pairs else output

    handles = [module.register_forward_hook(after) for module in {module for module, _ in answers}]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def arranged(tensor: Tensor, like: Tensor) -> Tensor:
    """`tensor` with its axes as `like` has them: in the order that comes nearest to it, or merged."""
    if tensor.shape == like.shape or tensor.numel() != like.numel():
        return tensor
    options = [tensor.reshape(like.shape)]
    if tensor.ndim == like.ndim <= 5:
        options += [p for order in permutations(range(tensor.ndim)) if (p := tensor.permute(order)).shape == like.shape]
    distances = [(option.double() - like.double()).abs().nan_to_num(torch.inf).mean().item() for option in options]
    return options[distances.index(min(distances))]


def _place(paths: list[str], parent: Watched | None) -> str:
    prefix = f"{parent.path}." if parent and parent.path else ""
    return next((path for path in paths if path.startswith(prefix)), paths[0])


def _copy(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return copied(leaf)
    try:
        return copy.deepcopy(leaf)
    except Exception:  # an object that can't be copied is handed on as it is
        return leaf


def _address(leaf: Any) -> int | None:
    """Where a tensor's values lie; None for anything else."""
    if not isinstance(leaf, Tensor) or leaf.layout != torch.strided:
        return None
    return leaf.untyped_storage().data_ptr() or None


def _unchanged(old: Tensor, new: Tensor) -> bool:
    return old.shape == new.shape and bool(((old == new) | ((old != old) & (new != new))).all())
