"""What a cache holds: found in whatever form a program keeps it, and compared with what the reference's holds."""

import copy
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from grader.layers.outcome import Outcome
from grader.tolerance import tolerance_for

DEPTH = 6  # lists in objects in lists
LEAST_AXES = 3  # a state has texts, and two axes more
WORDS = (
    ("keys", r"key|(^|[._])k([._\[]|$)|k_cache"),
    ("values", r"val|(^|[._])v([._\[]|$)|v_cache"),
    ("conv", r"conv"),
    ("recurrent", r"recurr|ssm|state|linear"),
)

PYTORCHS = frozenset(vars(nn.Module()))  # names of what every module holds, `training` among them


def held_by(cache: Any) -> dict[str, Tensor]:
    """The tensors in a cache that may be states, each with its place: ``layers.0.keys``."""
    found: dict[str, Tensor] = {}
    _walk(cache, "", found, DEPTH, set())
    return {name: tensor for name, tensor in found.items() if tensor.ndim >= LEAST_AXES and tensor.numel()}


def held_in(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that a model's modules hold and that are no parameters."""
    found: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        own = {**dict(module.named_buffers(recurse=False)), **_attributes(module)}
        for name, value in own.items():
            _walk(value, f"{path}.{name}" if path else name, found, DEPTH, set())
    return {name: tensor for name, tensor in found.items() if tensor.ndim >= LEAST_AXES and tensor.numel()}


def _walk(value: Any, name: str, found: dict[str, Tensor], depth: int, seen: set[int]) -> None:
    if isinstance(value, Tensor):
        if not isinstance(value, nn.Parameter):
            found[name] = value
        return
    if depth == 0 or value is None or isinstance(value, str | int | float | type | nn.Module) or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Mapping):
        items: Any = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        items = [(key, item) for key, item in getattr(value, "__dict__", {}).items() if not key.startswith("__")]
    for key, item in items:
        _walk(item, f"{name}.{key}" if name else str(key), found, depth - 1, seen)


def _attributes(module: nn.Module) -> dict[str, Any]:
    """What a module holds besides modules, parameters and buffers, and may change: tensors, lists, numbers, caches."""
    own = {name: value for name, value in vars(module).items() if name not in PYTORCHS and name != "config"}
    return {name: value for name, value in own.items() if not callable(value)}


class Snapshot:
    """The state that a model holds itself at one moment; it can be brought back to it."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.fixed = {id(part): part for part in (*model.modules(), *model.parameters())}
        states = {path: (module._buffers, _attributes(module)) for path, module in model.named_modules()}
        self.held = self._copied(states)

    def restore(self) -> None:
        """Bring the model back."""
        held = self._copied(self.held)
        for path, module in self.model.named_modules():
            buffers, attributes = held[path]
            module._buffers.update(buffers)
            vars(module).update(attributes)

    def _copied(self, held: Any) -> Any:
        return copy.deepcopy(held, dict(self.fixed))


# A state by texts: which, and what is kept of these.
TextStates = tuple[tuple[slice, Tensor], ...]


@dataclass(frozen=True)
class State:
    """One of the reference's states beside what the program has for it. place: where, "" where it has nothing such."""

    name: str
    place: str
    outcome: Outcome


def compared_states(
    recorded: Mapping[str, Tensor], held: Mapping[str, Tensor], mask: Tensor | None = None
) -> list[State]:
    """For each of the reference's states, what the program holds that is equal to it, or else the likeliest.

    Axes may have another order, a layer's states lie in one tensor with others', keys beside values; there may be more
    room than tokens, and slots in another order, as in a ring. mask: [B, tokens so far], True where a token is and no
    padding; what is kept of padding is not looked at.
    """
    pieces = {name: piece for name, tensor in held.items() for name, piece in _pieces(name, tensor)}
    wanted = {name: _by_texts(name, state, mask) for name, state in recorded.items()}
    found: dict[str, State] = {}
    taken: set[str] = set()
    for name, want in wanted.items():
        for place, piece in pieces.items():
            if place not in taken and (outcome := _best_of_all(piece, want, _kind(name))) is not None and outcome.ok:
                found[name] = State(name, place, outcome)
                taken.add(place)
                break
    for name, want in wanted.items():
        if name not in found:
            found[name] = _likeliest(name, want, {p: t for p, t in pieces.items() if p not in taken})
    return [found[name] for name in recorded]


def _by_texts(name: str, state: Tensor, mask: Tensor | None) -> TextStates:
    """All texts at once; or where there is padding, one after the other, each without what is kept of its padding."""
    B, tokens = (state.shape[0], 0) if mask is None else mask.shape
    if mask is None or _kind(name) not in ("keys", "values"):
        return ((slice(0, B), state),)
    length = state.shape[-2]  # transformers keeps [B, heads, tokens, D] or [B, tokens, D], of a window the last ones
    seen = mask[:, tokens - length :] if length <= tokens else None
    if seen is None:
        return ((slice(0, B), state),)
    return tuple((slice(i, i + 1), state[i : i + 1].index_select(-2, seen[i].nonzero()[:, 0])) for i in range(B))


def _likeliest(name: str, want: TextStates, pieces: Mapping[str, Tensor]) -> State:
    options = []
    for place, piece in pieces.items():
        outcome = _best_of_all(piece, want, _kind(name))
        if (
            outcome is not None
            and _kind(place) in (_kind(name), "")
            and _numbers(place)[:1] in (_numbers(name)[:1], [])
        ):
            options.append((outcome.mean, place, outcome))
    if not options:
        return State(name, "", Outcome(False, note="your cache holds nothing of this shape", in_kind=True))
    _, place, outcome = min(options, key=lambda option: option[:2])
    return State(name, place, outcome)


def _kind(name: str) -> str:
    return next((kind for kind, pattern in WORDS if re.search(pattern, name.lower())), "")


def _numbers(name: str) -> list[str]:
    return re.findall(r"\d+", name)


def _pieces(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield name, tensor
    if tensor.ndim > LEAST_AXES:
        for i, part in enumerate(tensor):
            yield from _pieces(f"{name}[{i}]", part)


def _best_of_all(piece: Tensor, want: TextStates, kind: str) -> Outcome | None:
    """How far what a program holds is from a state, of the text for which it is furthest; None as of `_best`."""
    outcomes = [_best(piece, state, kind, texts) for texts, state in want if state.numel()]
    found = [outcome for outcome in outcomes if outcome is not None]
    if not found or len(found) < len(outcomes):
        return None
    return max(found, key=lambda outcome: (not outcome.ok, outcome.mean))


def _best(piece: Tensor, want: Tensor, kind: str, texts: slice) -> Outcome | None:
    """How far what a program holds of some texts is from a state, in that order of axes and slots that comes nearest;
    None where its shape does not fit.
    """
    if piece.ndim == want.ndim - 1 and want.shape[1] == 1:  # heads that are one need no axis
        want = want[:, 0]
    if piece.ndim != want.ndim or piece.is_floating_point() != want.is_floating_point():
        return None
    found: list[Outcome] = []
    for order in itertools.permutations(range(piece.ndim)):
        if order.index(0) > 1 and piece.ndim > 3:  # texts stand first, or second
            continue
        turned = piece.permute(order)[texts]  # there may be room for more of them
        apart = [axis for axis in range(want.ndim) if turned.shape[axis] != want.shape[axis]]
        if len(apart) > 1:
            continue
        for axis in apart or range(1, want.ndim):
            outcome = _by_slots(turned, want, axis, kind)
            if outcome is not None:
                found.append(outcome)
                if outcome.ok:
                    return outcome
    return min(found, key=lambda outcome: outcome.mean, default=None)


def _by_slots(got: Tensor, want: Tensor, axis: int, kind: str) -> Outcome | None:
    """Whether each slot of the one, along an axis, is one of the other's: of the reference's where the program has room
    for more, and of the program's where it holds one less, as it may of a convolution's.
    """
    mine, theirs = got.movedim(axis, 0).flatten(1).double(), want.movedim(axis, 0).flatten(1).double()
    if len(theirs) - (kind == "conv") > len(mine):
        return None
    looked_for, among = (theirs, mine) if len(mine) >= len(theirs) else (mine, theirs)
    if not len(looked_for):
        return None
    apart = (looked_for[:, None] - among[None]).abs()  # [slots, slots, values]
    bound = tolerance_for(want.dtype).relative * (looked_for.abs() + theirs.square().mean().sqrt())
    right = (apart <= bound[:, None]).all(-1)
    if bool(right.any(1).all()):
        nearest = apart.flatten(2).amax(-1).amin(1)
        return Outcome(True, float(nearest.max()), float(apart.mean(-1).amin(1).mean()))
    in_order = apart[torch.arange(len(looked_for)), torch.arange(len(looked_for))]
    nearest_order = in_order if in_order.mean() <= apart.mean(-1).amin(1).mean() * 4 else apart[
        torch.arange(len(looked_for)), apart.mean(-1).argmin(1)]  # fmt: skip
    mean = float(nearest_order.mean())
    size = float(theirs.square().mean().sqrt())
    return Outcome(False, float(nearest_order.max()), mean, in_kind=not mean <= 0.05 * size)
