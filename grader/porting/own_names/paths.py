"""The reference's calls under a program's own names: which of its modules is which."""

import copy
import math
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace

from torch import nn

from grader.calls import Call, WatchedCall, watch
from grader.layers.comparison import CONTAINERS
from grader.porting.own_names.alignment import Alignment
from grader.porting.own_names.roles import read
from grader.porting.own_names.units import stack_of
from grader.recordings.renaming import moved
from grader.recordings.traces import Trace


def in_own_names(model: nn.Module, alignment: Alignment) -> Trace:
    """The trace with its weights and modules as the program calls them.

    Two modules are the same if they hold the same content; of several with that, the ones that give as much.
    What of the reference the program does not have keeps its name within the module around it.
    """
    trace = alignment.trace
    weights = alignment.weights()
    pairs = _pairs(model, alignment)
    holders = {name.rpartition(".")[0] for name in weights}
    own = {path for path, _ in model.named_modules()}

    def changed(call: Call) -> Call | None:
        inside, colon, step = call.path.partition(":")
        path = pairs.get(inside) or (pairs.get(_around(inside, pairs), "") if colon else moved(inside, pairs))
        taken = path in pairs.values() and inside not in pairs
        holds = path in own and any(holder == path or holder.startswith(f"{path}.") for holder in holders)
        kept = colon or inside in pairs or not (taken or holds)
        return replace(call, path=f"{path}{colon}{step}") if kept else None

    return replace(trace.with_calls(changed), weights=weights, layouts=(), prefix="")


def _pairs(model: nn.Module, alignment: Alignment) -> dict[str, str]:
    """The program's path for each of the reference's that is the same module."""
    trace = alignment.trace
    by_content: dict[tuple[frozenset[str], int], list[str]] = {}
    for path in dict.fromkeys(call.path for call in trace.calls):
        within = {n: t for n, t in trace.weights.items() if n.startswith(f"{path}.")}
        if within:
            key = frozenset(within), sum(tensor.numel() for tensor in within.values())
            by_content.setdefault(key, []).append(path)
    given = _given(model, trace)
    heads = _head(model, trace, alignment)
    pairs: dict[str, str] = {}
    for path, module in model.named_modules():
        if not path or isinstance(module, CONTAINERS) or path in heads.values():
            continue
        recipes = {n: r for n, r in alignment.recipes.items() if n.startswith(f"{path}.")}
        tied = {n: r for n, r in recipes.items() if not _tied(n, recipes)}
        key = frozenset(s for r in recipes.values() for s in r.sources), sum(math.prod(r.shape) for r in tied.values())
        candidates = [other for other in by_content.get(key, ()) if other not in pairs]
        alone = len(by_content.get(key, ())) == 1 and not _repeated(path, recipes, model)
        fitting = candidates if alone else [o for o in candidates if _gives_as_much(trace, o, given.get(path))]
        if fitting:
            pairs[fitting[0]] = path
    return _activations(trace, heads | pairs, given)


def _activations(trace: Trace, pairs: Mapping[str, str], given: Mapping[str, WatchedCall]) -> dict[str, str]:
    """The same pairs, and a module without weights that gives as many values as it is given, such as an activation:
    where a module and its counterpart have one of them each.
    """
    theirs, mine = defaultdict(list), defaultdict(list)
    weighted = {name.rpartition(".")[0] for name in trace.weights}
    for call in trace.calls:
        if call.path not in pairs and call.path not in weighted and call.type != "Dropout" and _keeps_size(call):
            theirs[_around(call.path, pairs)].append(call.path)
    own = set(pairs.values())
    for path, watched in given.items():
        idle = isinstance(watched.module, nn.Dropout | nn.Identity) or any(True for _ in watched.module.parameters())
        if path and path not in own and not idle and _keeps_size(watched.recorded()):
            mine[_around(path, own)].append(path)
    alone = {r: p for r, p in pairs.items() if len(set(theirs[r])) == len(mine[p]) == 1}
    return {**pairs, **{theirs[other][0]: mine[path][0] for other, path in alone.items()}}


def _keeps_size(call: Call) -> bool:
    return call.input is not None and call.output is not None and call.input.shape == call.output.shape


def _around(path: str, known: Container[str]) -> str:
    """The nearest of the known paths around a path."""
    head = path.rpartition(".")[0]
    while head and head not in known:
        head = head.rpartition(".")[0]
    return head


def _head(model: nn.Module, trace: Trace, alignment: Alignment) -> dict[str, str]:
    """The head, which need not have a weight of its own; nothing where one of the two has no such module."""
    stack = stack_of({name: tuple(tensor.shape) for name, tensor in trace.weights.items()})[0]
    theirs = [call.path for call in trace.calls if read(call.path, stack).role == "head"]
    holders = (name.rpartition(".")[0] for name in alignment.recipes)
    mine = [path for path in holders if path and read(path, stack_of(_shapes(model))[0]).role == "head"]
    return {theirs[0]: mine[0]} if theirs and mine else {}


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _repeated(path: str, recipes: Mapping[str, object], model: nn.Module) -> bool:
    """Whether a module around this one, or in it, holds the same parameters and is called too."""
    around = path.rpartition(".")[0]
    inside = [m for m in model.get_submodule(path).children() if not isinstance(m, CONTAINERS)]
    has = sum(p.numel() for p in model.get_submodule(path).parameters())
    if sum(p.numel() for p in model.get_submodule(around).parameters()) == has:
        return True
    return any(sum(p.numel() for p in m.parameters()) == has for m in inside) or not recipes


def _tied(name: str, recipes: Mapping[str, object]) -> bool:
    """Whether a tensor is another name for one that comes before it."""
    before = list(recipes)[: list(recipes).index(name)]
    return any(recipes[name].sources == recipes[other].sources and recipes[name] == recipes[other] for other in before)  # type: ignore[attr-defined]


def _given(model: nn.Module, trace: Trace) -> dict[str, WatchedCall]:
    """The program's first call of each module."""
    paths = {path for path, _ in model.named_modules()}
    calls, _ = watch(model, lambda: model(*copy.deepcopy(trace.args)), paths)
    found: dict[str, WatchedCall] = {}
    for call in calls:
        found.setdefault(call.path, call)
    return found


def _gives_as_much(trace: Trace, path: str, own: WatchedCall | None) -> bool:
    recorded: Sequence[Call] = [call for call in trace.calls if call.path == path]
    if own is None or own.output is None:
        return False
    return any(call.output is not None and call.output.numel() == own.output.numel() for call in recorded)
