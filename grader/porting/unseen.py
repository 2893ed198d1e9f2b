"""What no comparison with a small reference can see: weights, fields and epsilons whose change moves no row.

Each is changed by itself, the reference runs again, and its rows are compared with those of its trace.
"""

import contextlib
import copy
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import chain
from operator import getitem
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from grader.calls import Call, WatchedCall, copied, first_tensor, tensors_in, watch
from grader.names import in_any_layer, layers_as_one
from grader.porting.coverage import Coverage
from grader.porting.reference import HOUSEKEEPING, Reference
from grader.quiet import quiet_transformers
from grader.tolerance import agree, tolerance_for, widened

Item = TypeVar("Item")
Progress = Callable[[Sequence[Item]], Iterable[Item]]
# What nothing reads in a forward pass: training, special tokens, what is returned, and how things are stored.
NOT_READ = re.compile(
    r"dropout|drop_rate|pdrop|_drop$|initializer|init_|_coef|loss|token_id|token_index|use_cache|gradient|summary_|"
    r"output_|return_|dtype|quantiz|_name|pruned|finetuning|problem|pretraining|tie_|router_jitter|^tokenizer|^use_mamba"
)
ACTIVATIONS = ("silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "swish", "relu2", "gelu_fast", "quick_gelu")
TINY = 1e-3  # an epsilon: changed tenfold, as from 1e-6 to 1e-5
EPSILONS = ("eps", "epsilon", "variance_epsilon", "norm_eps")  # what a norm's module calls its own
NUDGE = 0.25  # of a weight's typical size
LARGE = 64  # a whole number above it is a measure, and one more makes little difference
NAMED = 12  # unseen ones that are named; of more, how many there are


@dataclass(frozen=True)
class Measured:
    """What was changed, and what of it no row shows, by name."""

    weights: int
    fields: int
    unseen: tuple[str, ...]

    def coverage(self) -> Coverage:
        """The same as a line of what a small model covers."""
        name = "every weight and every field of the config shows"
        what = f"{self.weights} tensors and {self.fields} fields, changed one by one"
        if not self.unseen:
            return Coverage(name, True, what)
        more = f" and {len(self.unseen) - NAMED} more" if len(self.unseen) > NAMED else ""
        listed = ", ".join(f"`{one}`" for one in self.unseen[:NAMED])
        return Coverage(name, False, f"of {what}, no row changes with {listed}{more}")


def measured(reference: Reference, progress: Progress[Any] = iter) -> Measured:
    """Change every weight and every field of a small reference, one by one, and note what moves no row.

    A field may be that of many norms, and so each norm's own epsilon is changed, too.

    progress: gives the items that are to be changed, and may show how far it is.
    """
    every = {name: value for name, value in reference.config.items() if name not in HOUSEKEEPING}
    fields = [path for path, value in _leaves(every) if _others(value)]
    names = list(_tensors(reference.model))
    weights = _Weights(reference)
    seen: dict[Any, bool] = {}
    with quiet_transformers():
        for item in progress([*names, *fields]):
            seen[item] = weights.shows(item) if isinstance(item, str) else _field_shows(reference, item)
    unseen = layers_as_one([name for name in names if not seen[name]])
    unseen += weights.idle_experts()
    unseen += [".".join(map(str, path)) for path in fields if not seen[path]]
    unseen += weights.hidden_epsilons()
    return Measured(len(names), len(fields), tuple(unseen))


def _tensors(model: nn.Module) -> Iterator[str]:
    saved = model.state_dict()
    yield from (name for name, _ in model.named_parameters())
    yield from (name for name, buffer in model.named_buffers() if name in saved and buffer.is_floating_point())


# Weights


class _Weights:
    """A weight is changed, and the module that holds it called again; if that gives the same, the whole model."""

    def __init__(self, reference: Reference) -> None:
        self.model, self.trace, self.ids = reference.model, reference.trace, reference.ids
        self.idle: dict[tuple[str, tuple[int, ...]], None] = {}
        paths = {path for path, _ in self.model.named_modules()}
        with torch.no_grad():
            calls, _ = watch(self.model, lambda: self.model(self.ids), paths)
        self.calls: dict[str, list[WatchedCall]] = {}
        for call in calls:
            self.calls.setdefault(call.path, []).append(call)

    def shows(self, name: str) -> bool:
        """Whether any row changes with a tensor."""
        tensor: Tensor = dict(chain(self.model.named_buffers(), self.model.named_parameters()))[name]
        holder = self.calls.get(name.rpartition(".")[0], [])
        if tensor.ndim == 3 and holder:
            self._experts(name, tensor, holder)
        with _nudged(tensor):
            return self._differs(holder) or _differs(self.model, self.trace.calls, self.trace.output, self.ids)

    def _experts(self, name: str, tensor: Tensor, holder: Sequence[WatchedCall]) -> None:
        idle = []
        for number, part in enumerate(tensor):
            with _nudged(part):
                idle += [] if self._differs(holder) else [number]
        if idle and len(idle) < len(tensor):
            self.idle[name.rpartition(".")[0], tuple(idle)] = None

    def idle_experts(self) -> list[str]:
        """Of modules that hold one matrix for each expert, those that no token chooses."""
        return [f"{path}: number {', '.join(map(str, numbers))}" for path, numbers in self.idle]

    def hidden_epsilons(self) -> list[str]:
        """Norms whose epsilon may be another in every layer, since no token is small where they stand."""
        shown: dict[str, bool] = {}
        for path, module in self.model.named_modules():
            for name in EPSILONS:
                eps = getattr(module, name, None)
                if isinstance(eps, float) and eps and path in self.calls:
                    setattr(module, name, 10 * eps)
                    where = in_any_layer(f"{path}.{name}")
                    shown[where] = self._differs(self.calls[path]) or shown.get(where, False)
                    setattr(module, name, eps)
        return [where for where, shows in shown.items() if not shows]

    def _differs(self, calls: Sequence[WatchedCall]) -> bool:
        for call in calls:
            try:
                with torch.no_grad():
                    outputs = tensors_in(call.again({}))
            except Exception:  # it can't be called by itself
                return False
            if not all(agree(got, want) for got, want in zip(outputs, call.outputs, strict=False)):
                return True
        return False


@contextlib.contextmanager
def _nudged(tensor: Tensor) -> Iterator[None]:
    """With other values in the tensor, each by its own share."""
    with torch.no_grad():
        before = tensor.detach().clone()
        size = before.float().square().mean().sqrt().clamp_min(1e-3)
        wave = torch.cos(torch.arange(before.numel(), dtype=torch.float32) * 1.7 + 0.3).reshape(before.shape)
        tensor.copy_((before.float() + NUDGE * size * wave).to(before.dtype))
        try:
            yield
        finally:
            tensor.copy_(before)


# Fields


def _leaves(fields: Mapping[str, Any], path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, name))
        elif not NOT_READ.search(str(name)):
            yield (*path, name), value


def _others(value: Any) -> list[Any]:
    """What a field is changed to; nothing where there is no telling."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1, *([2 * value, value // 2] if value > LARGE else [])]
    if isinstance(value, float):
        return [value * 10] if 0 < abs(value) < TINY else [value * 1.5, value / 4] if value else [0.5]
    if isinstance(value, str) and value in ACTIVATIONS:
        return ["relu" if value != "relu" else "silu"]
    if isinstance(value, list) and value and all(type(item) in (int, float) for item in value):
        return [[value[0] + 1, *value[1:]]]
    return []


def _field_shows(reference: Reference, path: tuple[Any, ...]) -> bool:
    """Whether any row changes with a field. A value that is refused, or asks for other weights, shows."""
    for other in _others(reduce(getitem, path, reference.config)):
        try:
            model = reference.remade(copy.deepcopy(_with(reference.config, path, other)))
            model.load_state_dict(reference.model.state_dict())
            if _differs(model, reference.trace.calls, reference.trace.output, reference.ids):
                return True
        except Exception:  # transformers may refuse it in any way
            return True
    return False


def _with(fields: Mapping[str, Any], path: Sequence[Any], value: Any) -> dict[str, Any]:
    name, *rest = path
    return {**fields, name: _with(fields[name], rest, value) if rest else value}


# Rows


class _Different(Exception):
    """A row is not the trace's."""


def _differs(model: nn.Module, recorded: Sequence[Call], output: Tensor, ids: Tensor) -> bool:
    """Whether a pass has a row that is not the recorded one; it ends with the first."""
    right = {(call.path, call.index): call for call in recorded}
    count: Counter[str] = Counter()

    def hook(path: str) -> Callable[..., None]:
        def compare(module: nn.Module, args: Any, given: Any) -> None:
            call = right.get((path, count[path]))
            count[path] += 1
            for got, want in zip(tensors_in(given), call.outputs if call else (), strict=False):
                if not _alike(got, want, call.floor if call else 0.0):
                    raise _Different

        return compare

    try:
        with torch.no_grad(), contextlib.ExitStack() as hooks:
            for path, module in model.named_modules():
                if path:
                    hooks.enter_context(module.register_forward_hook(hook(path)))
            logits = copied(first_tensor(model(ids)))
    except _Different:
        return True
    return logits is None or not agree(logits, output)


def _alike(got: Tensor, want: Tensor, floor: float) -> bool:
    return agree(got, want) or bool(floor and agree(got, want, widened(tolerance_for(want.dtype), floor)))
