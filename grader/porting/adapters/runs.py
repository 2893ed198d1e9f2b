"""The lines of an adapter by which a program is given texts in parts: its cache, padding and positions."""

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from grader.porting.decoding import SIZES, Way, way_of
from grader.recordings.traces import Run

Values = Callable[[Mapping[str, bool]], tuple[dict[str, str], list[str]]]
LAYERS = re.compile(r"layer")


@dataclass(frozen=True)
class RunLines:
    """What an adapter needs for a trace's runs. takes: what forward takes besides the ids. hands: what it hands on.
    before: lines that come first in forward. makes: the lines of new_cache. imports: names of the program's file.
    starts: lines that come last in __init__.
    """

    takes: tuple[str, ...] = ()
    hands: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()


def lines_for_runs(model: type, runs: Sequence[Run], values: Values) -> RunLines:
    """The lines for a class of models. values: fills in what a constructor asks for, from the config."""
    way = way_of(model)
    if not runs:
        return RunLines(starts=_set_up(model, way, values))
    cached, padded = (
        any(run.cached for run in runs),
        any(run.steps[0].mask is not None for run in runs),
    )
    takes, hands, before = [], [], []
    starts: tuple[str, ...] = ()
    makes, imports, missing = _new_cache(model, way, values) if cached else ((), (), ())
    if makes and way.makes and not way.cache:  # such a model is not called before its caches are there
        starts = (f"self.new_cache(2, {values({'max_seq_len': False})[0]['max_seq_len']})",)
    if cached and (way.cache or makes):
        takes.append("cache=None")
    if way.cache and cached:
        hands.append(f"{way.cache}=cache")
    for flag in way.flags if cached else ():
        hands.append(f"{flag}={'True' if way.cache and not makes else 'cache is not None'}")
    if padded and way.mask:
        takes.append("mask=None")
        hands.append(f"{way.mask}=mask")
    if way.positions or way.start:
        takes.append("positions=None")
        before.append("positions = torch.arange(ids.shape[1])[None] if positions is None else positions")
        one = way.positions in ("input_pos", "cache_position")
        name = way.positions or way.start
        hands.append(
            f"{name}=positions[0]" if one else f"{name}={'positions' if way.positions else 'int(positions[0, 0])'}"
        )
    return RunLines(tuple(takes), tuple(hands), tuple(before), makes, imports, missing, starts)


def _set_up(model: type, way: Way, values: Values) -> tuple[str, ...]:
    """The line that makes the caches of a model that is not called before they are there."""
    if not way.makes.startswith("setup") or way.cache or way.positions not in ("input_pos", "cache_position"):
        return ()
    made, _ = _called(f"self.model.{way.makes}", getattr(model, way.makes), values)
    longest = values({"max_seq_len": False})[0]["max_seq_len"]
    return (made.replace("=batch_size", "=2").replace("=capacity", f"={longest}").replace("self.config", "config"),)


def _new_cache(model: type, way: Way, values: Values) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The lines of new_cache, the names that they need, and what could not be filled in."""
    head = ["def new_cache(self, batch_size, capacity):"]
    head += [f"    self.model.{way.resets}()"] if way.resets else []
    inside = (*head, "    return True  # the model holds it itself")
    if way.makes:
        made, missing = _called(f"self.model.{way.makes}", getattr(model, way.makes), values)
        lines = (f"    return {made}",) if way.cache else (f"    {made}", inside[-1])
        return (*head, *lines), (), missing
    found = _cache_class(model)
    if way.cache and found is not None:
        made, missing = _called(found.__name__, found.__init__, values)  # type: ignore[misc]
        if not any(LAYERS.search(name) for name in inspect.signature(found).parameters):
            made = f"[{made} for _ in range({_layers(values)})]"
        return (*head, f"    return {made}"), (found.__name__,), missing
    if way.cache and way.flags:
        return (), (), ()  # forward gives one back
    if way.cache:
        return (*head, "    return ...  # a new, empty cache"), (), ("new_cache",)
    if way.resets or way.start or way.flags or way.positions in ("input_pos", "cache_position"):
        return inside, (), ()
    return (), (), ()


def _called(name: str, function: Any, values: Values) -> tuple[str, tuple[str, ...]]:
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    fixed = {"batch": "batch_size", "capacity": "capacity"}
    given: dict[str, str] = {}
    asked: dict[str, bool] = {}
    for p in parameters:
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        known = next((value for key, value in fixed.items() if p.name in SIZES[key].split()), None)
        if known is not None:
            given[p.name] = known
        elif p.default is p.empty:
            asked[p.name] = False
    filled, missing = values(asked)
    every = {**given, **{key: value.replace("config.", "self.config.") for key, value in filled.items()}}
    order = [p.name for p in parameters if p.name in every]
    return f"{name}({', '.join(f'{key}={every[key]}' for key in order)})", tuple(missing)


def _layers(values: Values) -> str:
    filled, _ = values({"num_hidden_layers": False})
    return filled["num_hidden_layers"].replace("config.", "self.config.")


def _cache_class(model: type) -> type | None:
    """The only class of the program's file that is named as a cache."""
    module = sys.modules.get(model.__module__) or ModuleType("")
    found = [
        value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and re.search(r"cache|state", name, re.IGNORECASE)
        and not dataclasses.is_dataclass(value)
    ]
    return found[0] if len(found) == 1 else None
