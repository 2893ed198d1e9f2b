"""Whether a trace shows all that its architecture has: what is changed in the config or the weights moves a row."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from grader.calls import record_calls
from grader.capstone.model import ACTIVATIONS, Model, Router
from grader.config import Config
from grader.recordings.traces import Trace
from grader.tolerance import Tolerance, agree

CLEARLY = Tolerance(5e-4)  # ten times what is allowed in float32
FACTOR = 1.3  # of a number that is no size
OTHERS: dict[str, tuple[Any, ...]] = {
    "norm_type": ("rms_norm", "layer_norm"),
    "norm_placement": ("pre", "post", "both"),
    "qk_norm_over": ("head", "all_heads"),
    "hidden_act": tuple(ACTIVATIONS),
    "scoring_func": ("softmax", "sigmoid"),
    "layer_types": ("full_attention", "sliding_attention", "linear_attention"),
    "no_rope_layers": (0, 1),
    "rope_type": ("linear", "yarn"),
}
YARN = ("original_max_position_embeddings", "beta_fast", "beta_slow")  # which are rounded to whole pairs
Path = tuple[str | int, ...]


def changes(config: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    """Every field of a config, those within fields included, with each other value that it might have."""
    for path, value in _leaves(config):
        name = next(str(part) for part in reversed(path) if isinstance(part, str))
        if name in OTHERS:
            yield from ((path, other) for other in OTHERS[name] if other != value)
        elif isinstance(value, bool):
            yield path, not value
        elif name.endswith("eps"):
            yield path, value * 10
        elif name in YARN:
            yield path, value * 2
        elif isinstance(value, int):
            yield path, value + 1
        elif value is None:
            yield path, 8
        else:
            yield path, value * FACTOR


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, Mapping | list):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from _leaves(item, (*path, key))
    else:
        yield path, value


def with_change(config: Mapping[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """A copy of a config with one value changed."""
    changed: Any = copy.deepcopy(dict(config))
    place = changed
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return dict(changed)


def hidden_fields(config: Mapping[str, Any], model: nn.Module, trace: Trace) -> Iterator[str]:
    """The fields of which a change leaves a model that takes the same weights, and gives the same in every row."""
    weights = model.state_dict()
    for path, value in changes(config):
        if path == ("tie_word_embeddings",):  # a tied head has no weights of its own
            continue
        try:
            other = Model(Config(with_change(config, path, value)))
            other.load_state_dict(weights)
        except Exception:  # other weights, or none at all: that shows
            continue
        if not moves(other, trace):
            yield f"{'.'.join(map(str, path))} = {value}"


def idle_experts(model: Model, ids: Tensor) -> bool:
    """Whether there is an expert that no token goes to."""
    routers = {path: module for path, module in model.named_modules() if isinstance(module, Router)}
    with torch.no_grad():
        calls = [call for call in record_calls(model, lambda: model(ids))[1] if call.path in routers]
    return any(len(set(call.further[0].flatten().tolist())) < len(routers[call.path].weight) for call in calls)


def moves(other: nn.Module, trace: Trace) -> bool:
    """Whether another model with the same parts gives something else than a trace has in some row."""
    with torch.no_grad():
        try:
            output, calls = record_calls(other, lambda: other(*trace.args))
        except Exception:  # it can't be run
            return True
    recorded = {(call.path, call.index): call.outputs for call in trace.calls}
    pairs = [(output, trace.output)]
    pairs += [
        pair for call in calls for pair in zip(call.outputs, recorded.get((call.path, call.index), ()), strict=False)
    ]
    return any(got.shape != want.shape or not agree(got, want, CLEARLY) for got, want in pairs)
