"""One model's modules and weights under the names that different programs of it have.

transformers may keep a checkpoint's weights under other names than the file does, or several of them (a layer's
experts) in one tensor; and a program may hold the model's inside without the class that adds the head.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from grader.calls import Call
from grader.recordings.tensors import tensor_key
from grader.recordings.traces import Layout, Trace


def in_names_of(model: nn.Module, trace: Trace) -> Trace:
    """The trace under those of its names that are nearest to the model's own."""
    own = set(model.state_dict())
    return min(_variants(trace), key=lambda variant: len(own ^ set(variant.weights)))


def layouts_of(trace: Trace) -> list[Trace]:
    """The trace under each of the sets of names that the reference's weights have."""
    return [trace, *(_laid_out(trace, layout) for layout in trace.layouts)]


def _variants(trace: Trace) -> Iterator[Trace]:
    whole = layouts_of(trace)
    yield from whole
    if trace.prefix:
        yield from (_without_prefix(variant, f"{trace.prefix}.") for variant in whole)


def _laid_out(trace: Trace, layout: Layout) -> Trace:
    return _renamed(trace, layout.weights, lambda path: moved(path, layout.paths))


def _without_prefix(trace: Trace, prefix: str) -> Trace:
    weights = {name.removeprefix(prefix): tensor for name, tensor in trace.weights.items()}
    return _renamed(trace, weights, lambda path: None if path == prefix[:-1] else path.removeprefix(prefix))


def _renamed(trace: Trace, weights: Mapping[str, Tensor], rename: Callable[[str], str | None]) -> Trace:
    def changed(call: Call) -> Call | None:
        path, colon, step = call.path.partition(":")
        new = rename(path)
        return None if new is None else dataclasses.replace(call, path=f"{new}{colon}{step}")

    return dataclasses.replace(trace.with_calls(changed), weights=weights)


def moved(path: str, paths: Mapping[str, str]) -> str:
    """A module's path, where it or the nearest module around it that has another path in `paths` has it."""
    head, tail = path, ""
    while head:
        if head in paths:
            return paths[head] + tail
        head, _, last = head.rpartition(".")
        tail = f".{last}{tail}"
    return path


def untied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with every tensor once, under the first of its names, as checkpoints hold them."""
    seen: set[tuple[Any, ...]] = set()
    kept = {}
    for name, tensor in weights.items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if not tensor.numel() or place not in seen:
            kept[name] = tensor
        seen.add(place)
    return kept


def checkpoint_layout(model: nn.Module, weights: Mapping[str, Tensor]) -> Layout | None:
    """How the files on the hub hold a transformers model's weights; None where they hold them as the model does."""
    if not hasattr(model, "save_pretrained"):
        return None
    from transformers.core_model_loading import revert_weight_conversion

    held: dict[str, Tensor] = revert_weight_conversion(model, dict(weights))
    if set(held) == set(weights):
        return None
    return Layout({name: tensor.detach().clone() for name, tensor in held.items()}, _paths(weights, held))


def _paths(weights: Mapping[str, Tensor], held: Mapping[str, Tensor]) -> dict[str, str]:
    """The modules whose path differs, told from the weights that are the same."""
    by_content: dict[str, list[str]] = {}
    for name, tensor in held.items():
        by_content.setdefault(tensor_key(tensor), []).append(name)
    paths: dict[str, str] = {}
    for name, tensor in weights.items():
        there = by_content.get(tensor_key(tensor), [])
        if len(there) != 1 or there[0] == name:
            continue
        here, other = name.split(".")[:-1], there[0].split(".")[:-1]
        while here and other and here != other:
            paths.setdefault(".".join(here), ".".join(other))
            if here[-1] != other[-1]:
                break
            here, other = here[:-1], other[:-1]
    return paths


def same_name(name: str) -> str | None:
    """The learner's name for a name of the reference's, unless an exercise says otherwise."""
    return name
