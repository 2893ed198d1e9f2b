"""What a call leaves alone: its arguments, what an earlier call gave, and what belongs to the whole process.

A function or an object that a drive uses gets its arguments from that drive, so what becomes of them shows only where
the call itself is watched.
"""

import contextlib
import functools
import inspect
import random
import sys
from collections.abc import Callable, Generator, Iterator
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from grader.checks.observation import EARLIER, FOLDER, SEEDS
from grader.checks.probe.running import DRIVE_FILE, current_folder

Call = Callable[..., Any]


class Watch:
    """Watches the calls of one use. changed: what one of them changed first, in words, if it did."""

    def __init__(self) -> None:
        self.changed: str | None = None
        self._given: list[Tensor] = []  # what came back

    @contextlib.contextmanager
    def calls_of(self, target: Any) -> Iterator[Any]:
        """The target, such that what a drive calls of it is watched: a function, or the methods of a class.

        What becomes of a module's input, the case's own arguments show.
        """
        if isinstance(target, FunctionType):
            yield self._watched(target)
            return
        if isinstance(target, nn.Module):
            yield target
            return
        kind = target if isinstance(target, type) else type(target)
        own = _methods(kind)
        before = {name: vars(kind)[name] for name in own if name in vars(kind)}
        try:
            for name, method in own.items():
                setattr(kind, name, self._watched(method, skip=1))
            yield target
        finally:
            for name in own:
                if name in before:
                    setattr(kind, name, before[name])
                else:
                    delattr(kind, name)

    def _watched(self, call: Call, skip: int = 0) -> Call:
        """The same call with the same globals, where a drive may look for a class.

        skip: how many arguments come before those of the caller.
        """
        seen = self._seen

        def watched(*args: Any, **kwargs: Any) -> Any:
            return seen(call, skip, args, kwargs)

        same = FunctionType(watched.__code__, call.__globals__, closure=watched.__closure__)
        return functools.update_wrapper(same, call)

    def _seen(self, call: Call, skip: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a call gives; what it changes is noted if it is a drive that calls."""
        if sys._getframe(2).f_code.co_filename != DRIVE_FILE:  # the learner's own code does
            return call(*args, **kwargs)
        given: dict[Any, Any] = {place: arg for place, arg in enumerate(args) if place >= skip} | kwargs
        before = {place: _copied(arg) for place, arg in given.items()}
        with self.process():
            value = call(*args, **kwargs)
        for place, arg in given.items():
            if not _is_same(before[place], arg):
                self.note(f"the input `{_name(call, place)}`" + (f" of `{call.__name__}`" if skip else ""))
        self.keep(value)
        return self._each(value) if isinstance(value, Generator) else value

    def _each(self, values: Generator[Any, Any, Any]) -> Iterator[Any]:
        """What a generator gives: its code runs while it is read."""
        end = object()
        while True:
            with self.process():
                value = next(values, end)
            if value is end:
                return
            yield value

    @contextlib.contextmanager
    def process(self) -> Iterator[None]:
        """Notice what changes for the whole process meanwhile: a seed that stays, and the folder."""
        folder = current_folder()
        with contextlib.ExitStack() as stack:
            for owner, state in _seeded():
                stack.enter_context(self._seeds(owner, state))
            yield
        if current_folder() != folder:
            self.note(FOLDER)

    @contextlib.contextmanager
    def _seeds(self, owner: Any, state: Call) -> Iterator[None]:
        """Notice a seed after which the owner's generator is another. state: what it is."""
        name = "manual_seed" if owner is torch else "seed"
        if owner is not torch:  # a seed in an earlier call would leave the same state
            owner.random()
        seeds, states = getattr(owner, name), []  # of the generator, before each seed

        def seed(*args: Any, **kwargs: Any) -> Any:
            states.append(state())
            return seeds(*args, **kwargs)

        setattr(owner, name, seed)
        try:
            yield
        finally:
            setattr(owner, name, seeds)
            if states and states[0] != state():
                self.note(SEEDS[owner.__name__])

    def note(self, changed: str) -> None:
        """Keep the first change."""
        self.changed = self.changed or changed

    def keep(self, value: Any) -> None:
        """Keep what came back, for `meanwhile`."""
        self._given += [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]

    @property
    def holds_something(self) -> bool:
        """Whether a tensor came back."""
        return bool(self._given)

    @contextlib.contextmanager
    def meanwhile(self) -> Iterator[None]:
        """Notice where a tensor that came back is no longer what it was, once something else has been done."""
        before = [_copied(tensor) for tensor in self._given]
        yield
        if not all(map(_is_same, before, self._given)):
            self.note(EARLIER)


def _seeded() -> Iterator[tuple[Any, Call]]:
    """What has a generator for the whole process, and the state of that."""
    yield torch, lambda: torch.get_rng_state().tolist()
    yield random, random.getstate
    if "numpy" in sys.modules:
        drawn = sys.modules["numpy"].random
        yield drawn, lambda: [str(part) for part in drawn.get_state()]


def _methods(kind: type) -> dict[str, Call]:
    """The public methods of a learner's class."""
    own = [vars(one) for one in reversed(kind.__mro__) if one.__module__ == kind.__module__]
    every = {name: value for names in own for name, value in names.items() if inspect.isfunction(value)}
    return {name: value for name, value in every.items() if name == "__call__" or not name.startswith("_")}


def _name(call: Call, place: int | str) -> str:
    """What a call names one of its arguments."""
    try:
        names = list(inspect.signature(call).parameters)
    except (TypeError, ValueError):
        names = []
    return place if isinstance(place, str) else names[place] if place < len(names) else f"number {place + 1}"


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if type(value) is list:
        return [_copied(one) for one in value]
    return {name: _copied(one) for name, one in value.items()} if type(value) is dict else value


def _is_same(old: Any, new: Any) -> bool:
    """Whether a tensor, a list or a dict is what it was; of anything else, that is not asked."""
    if isinstance(old, Tensor):
        same = isinstance(new, Tensor) and old.shape == new.shape and old.dtype == new.dtype
        return same and torch.equal(old.nan_to_num(), new.detach().nan_to_num())
    if type(old) is list:
        return type(new) is list and len(old) == len(new) and all(map(_is_same, old, new))
    if type(old) is dict:
        return type(new) is dict and [*old] == [*new] and all(_is_same(old[name], new[name]) for name in old)
    return old is new or not isinstance(old, str | int | float) or bool(old == new)
