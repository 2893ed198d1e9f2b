"""Which values of a case are asked otherwise: its arguments one by one, the numbers of a module's config at once."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from grader.recordings import variants as v
from grader.recordings.tasks import TaskCase

HOW_OF = {float: ("half", "twice"), list: ("reversed",), tuple: ("reversed",)}
WIDTHS, HEADS, KEY_VALUE_HEADS = ("hidden_size", "n_embd"), ("num_attention_heads", "n_head"), ("num_key_value_heads",)
CHOSEN, EXPERTS = ("num_experts_per_tok",), ("num_local_experts", "n_routed_experts", "num_experts")

LARGEST = 5_000  # beyond which no number is taken that may be a length

# How a value may be at its ends, each asked beside another value: one, or many. Few docstrings say what 0 means.
ENDS: Mapping[type, Sequence[tuple[str, ...]]] = {
    int: (("one",), ("thousandfold", "hundredfold")),
    str: (("repeated",), ("long",)),
}
MANY = "thousandfold", "hundredfold"


def changes(case: TaskCase, names: tuple[str, ...]) -> Iterator[list[v.Change]]:
    """For each value of a case how it may be changed, what is preferred first.

    names: of the parameters of the function, or of a module's `forward`, where the arguments are its own.
    """
    config = case.build.get("config")
    if isinstance(config, Mapping):
        yield from _of_fields(None, config)
    for place, arg in enumerate(case.args):
        if isinstance(arg, Mapping):
            yield from _of_fields(place, arg)
            continue
        name = f"`{names[place]}`" if place < len(names) else f"argument {place + 1}"
        found = [v.Change(place, "", how, name) for how in _hows(arg) if _is_sensible(v.HOW[how](arg))]
        if found:
            yield found
        for hows in ENDS.get(type(arg), ()):
            ends = [v.Change(place, "", how, name) for how in hows if _is_another(arg, how)]
            if ends:
                yield ends


def is_an_end(change: v.Change) -> bool:
    """Whether a value is one, or many."""
    return any(change.how in hows for ways in ENDS.values() for hows in ways)


def _is_another(value: Any, how: str) -> bool:
    """Whether a value at one of its ends is another, and not too large."""
    if how in MANY:
        return 0 < int(v.HOW[how](value)) <= LARGEST
    if isinstance(value, str):  # a word may be one of a few that have a meaning
        return re.search(r"\s", value) is not None
    return bool(value != v.HOW[how](value))


class Enough(BaseException):
    """Stops a run that has made as many calls or numbers as are counted, whatever else it catches."""


def calls_made(run: Callable[[], Any], most: int) -> int:
    """How many functions a run calls: what it costs, told in the same way on each machine.

    most: beyond as many the run is stopped.
    """
    count = 0

    def profile(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")
        if count > most:
            raise Enough

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        run()
    except Enough:
        pass
    finally:
        sys.setprofile(before)
    return count


def _of_fields(place: int | None, config: Mapping[str, Any]) -> Iterator[list[v.Change]]:
    for field, value in config.items():
        every = [
            v.Change(place, field, how, f"`{field}`") for how in (("twice",) if type(value) is int else _hows(value))
        ]
        others = [(one, v.HOW[one.how](value)) for one in every]
        found = [one for one, other in others if _is_sensible(other) and _fits({**config, field: other})]
        if found:
            yield found


def _hows(value: Any) -> tuple[str, ...]:
    """How a value may be changed: a number that is not 0, or a list of several that reads otherwise from its end.

    Of whole numbers a smaller one first, since many are bounded by another, and one that is even where it was: a
    head_dim has two halves.
    """
    if type(value) is int:
        smaller = "less" if value % 2 else "halved" if value % 4 == 0 else ""
        return tuple(how for how in ("odd" if value == 1 else smaller, "twice") if how and value)
    if isinstance(value, Tensor):
        return ("further",) if value.dtype == torch.int64 and value.numel() else ()
    if isinstance(value, list | tuple):
        is_told = all(type(one) in (int, float) for one in value) and value != value[::-1]
        return HOW_OF[type(value)] if is_told else ()
    return HOW_OF[float] if type(value) is float and value else ()


def _is_sensible(value: Any) -> bool:
    """Whether a number is none below 1, where it was whole."""
    return not isinstance(value, int) or value > 0


def _fits(config: Mapping[str, Any]) -> bool:
    """Whether there might be a model of such sizes."""
    width, heads, pairs = (_first(config, names) for names in (WIDTHS, HEADS, KEY_VALUE_HEADS))
    chosen, experts = _first(config, CHOSEN), _first(config, EXPERTS)
    divides = not heads or ((not width or width % heads == 0) and (not pairs or heads % pairs == 0))
    return divides and (not chosen or not experts or chosen <= experts)


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((config[name] for name in names if type(config.get(name)) is int), None)
