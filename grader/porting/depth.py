"""A model cut to its first layers, with every kind of layer that it has."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from grader.porting.sizes import PER_LAYER, ROLES, first_of

MIN_LAYERS, MAX_LAYERS = 3, 16


def cut(fields: Mapping[str, Any], depth: int, layers: int) -> dict[str, Any]:
    """The config of the first `layers` of a model of `depth` layers."""
    small: dict[str, Any] = {}
    first = int(any(isinstance(value, list | tuple) and depth in value for value in fields.values()))  # counted from 1
    for name, value in fields.items():
        if ROLES.get(name) == "layers" and value == depth:
            small[name] = layers
        elif isinstance(value, list | tuple) and len(value) == depth:
            small[name] = list(value[:layers])
        elif isinstance(value, list | tuple) and name.endswith(("_layers", "_layer_ids", "_idxs")):
            small[name] = [index for index in value if type(index) is not int or index < layers + first]
        elif name == PER_LAYER and isinstance(value, Mapping):
            small[name] = {key: item for key, item in value.items() if int(key) < layers}
        elif isinstance(value, Mapping):
            small[name] = cut(value, depth, layers)
        elif name == "num_kv_shared_layers" and value:
            small[name] = layers // 2  # these are counted from the end
        else:
            small[name] = value
    return small


def kinds(model: nn.Module, config: Mapping[str, Any], depth: int) -> list[str]:
    """For each of a model's layers, what makes it another kind of layer than others: equal for layers of one kind."""
    stacks = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    lists = {n: v for n, v in config.items() if isinstance(v, list | tuple) and len(v) == depth and not _are_numbers(v)}
    if not stacks:
        return ["layer"] * depth
    return [
        json.dumps([_plan(layer), {n: v[i] for n, v in lists.items()}], default=str)
        for i, layer in enumerate(stacks[0])
    ]


def _are_numbers(values: Sequence[Any]) -> bool:
    """Whether a list names layers by their numbers."""
    return all(type(value) is int for value in values) and len(set(values)) == len(values) > 2


def _plan(layer: nn.Module) -> list[Any]:
    """What a layer consists of: its modules' classes and settings and its parameters' shapes."""
    plan: list[Any] = []
    for path, module in layer.named_modules():
        settings = {
            name: value
            for name, value in vars(module).items()
            if (value is None or isinstance(value, bool | int | str)) and not _is_about_place(name)
        }
        shapes = {name: list(parameter.shape) for name, parameter in module.named_parameters(recurse=False)}
        plan.append([path, type(module).__name__, settings, shapes])
    return plan


def _is_about_place(name: str) -> bool:
    """Whether an attribute says where a layer stands among others, not what it is."""
    return name.startswith(("_", "store_")) or "idx" in name or "index" in name


def depth_of(config: Mapping[str, Any]) -> int:
    """How many layers a model has."""
    listed = next((len(config[name]) for name in ("layers_block_type", "layer_types") if config.get(name)), 0)
    return first_of("layers", config) or listed


def enough_layers(found: Sequence[str]) -> int:
    """The smallest number of first layers among which every kind of layer is twice, where the model has two.

    A kind that there is only one of counts if it comes early; what is special about the last layers alone, the last
    of fewer layers have as well.
    """
    counts = Counter(found)
    every = _first_with({kind: min(2, count) for kind, count in counts.items()}, found)
    if every <= MAX_LAYERS:
        return every
    return min(_first_with({kind: 2 for kind, count in counts.items() if count > 1}, found), MAX_LAYERS)


def ends_alike(layers: int, types: Sequence[Any]) -> int:
    """A number of layers near `layers` of which the last is of the type that the last of all is.

    Some architectures need that; transformers makes another layer of the last one where it is not so.
    """
    enough = [n for n, kind in enumerate(types, start=1) if MIN_LAYERS <= n <= MAX_LAYERS and kind == types[-1]]
    return min((n for n in enough if n >= layers), default=max(enough, default=layers))


def _first_with(wanted: Mapping[str, int], found: Sequence[str]) -> int:
    seen: Counter[str] = Counter()
    for number, kind in enumerate(found, start=1):
        seen[kind] += 1
        if number >= MIN_LAYERS and all(seen[kind] >= count for kind, count in wanted.items()):
            return number
    return len(found)
