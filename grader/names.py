"""In which names and shapes a module's parameters differ from a checkpoint's."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

MAX_NAMES = 8  # lines of names; more would say nothing new

TIED = "; what does that say of the head? (A copy, or the same `.data`, would be a second Parameter.)"


def explain_names(own: Mapping[str, tuple[int, ...]], wanted: Mapping[str, Tensor], extra: Sequence[str]) -> list[str]:
    """A line for each name or shape in which a module differs from a checkpoint; empty where it does not.

    own: the module's names and shapes. wanted: the checkpoint's tensors. extra: names of the module's
    that the checkpoint would have to have and has not. What repeats from layer to layer is one line.
    """
    if not extra and all(own.get(name) == tuple(tensor.shape) for name, tensor in wanted.items()):
        return []
    lines, layers = _other_number_of_layers(own, wanted)
    missing = [name for name in wanted if name not in own and not name.startswith(layers)]
    for name in extra:
        if name.startswith(layers):
            continue
        like = [m for m in missing if _could_be_meant(m, name, wanted[m].shape, own.get(name))]
        close = difflib.get_close_matches(name, like, n=1, cutoff=0.7)
        asked = TIED if name == "lm_head.weight" else ""
        # A bias where a weight is missing is no slip of the pen: the layer is of another kind.
        kinds = {name.rpartition(".")[2], close[0].rpartition(".")[2]} if close else set()
        asked = f"; did you mean `{close[0]}`?" if close and kinds != {"weight", "bias"} else asked
        lines.append(f"`{name}` is not in the checkpoint{asked}")
        missing = [m for m in missing if not close or m != close[0]]
    lines.extend(f"`{name}` {list(wanted[name].shape)} is in the checkpoint, and missing here" for name in missing)
    for name, tensor in wanted.items():
        shape = tuple(tensor.shape)
        if name in own and own[name] != shape:
            note = ", transposed" if len(shape) == 2 and own[name] == shape[::-1] else ""
            lines.append(f"`{name}` has shape {list(own[name])}; in the checkpoint it is {list(shape)}{note}")
    lines = layers_as_one(lines)
    if len(lines) > MAX_NAMES:
        lines[MAX_NAMES - 1 :] = [f"and {len(lines) - MAX_NAMES + 1} more like these"]
    return lines


def _could_be_meant(wanted: str, name: str, shape: Sequence[int], own: Sequence[int] | None) -> bool:
    """Whether a name may be a slip for the checkpoint's: as deep, in the same layer, of the same sizes in any order.

    Without that, a module of another kind would be told by the names of parts that only sound like its own.
    """
    if wanted.count(".") != name.count(".") or own is None or sorted(own) != sorted(shape):
        return False
    return re.findall(r"\.\d+(?=\.)", wanted) == re.findall(r"\.\d+(?=\.)", name)


def _other_number_of_layers(own: Iterable[str], wanted: Iterable[str]) -> tuple[list[str], tuple[str, ...]]:
    """A line for each list of layers that is too long or too short, and the beginnings of those layers' names."""
    counts = [_layers(names) for names in (own, wanted)]
    lines, beginnings = [], []
    for stem in counts[0].keys() & counts[1].keys():
        here, there = counts[0][stem], counts[1][stem]
        odd = [f"{stem}.{number}" for number in sorted(here ^ there)]
        if not odd or not (here < there or there < here):
            continue
        named = f"`{odd[0]}` is" if len(odd) == 1 else f"`{odd[0]}` to `{odd[-1]}` are"
        what = "too many" if there < here else "missing"
        lines.append(f"{named} {what}: the checkpoint has {len(there)} in `{stem}`, and this has {len(here)}")
        beginnings += [f"{name}." for name in odd]
    return lines, tuple(beginnings)


def _layers(names: Iterable[str]) -> dict[str, set[int]]:
    """The lists of modules among the names of parameters, each with the numbers in it: {"h": {0, 1, 2}}."""
    found: dict[str, set[int]] = {}
    for name in names:
        for match in re.finditer(r"\.(\d+)\.", name):
            found.setdefault(name[: match.start()], set()).add(int(match[1]))
    return found


def in_any_layer(line: str) -> str:
    """A line with ``h.*`` for ``h.0``."""
    return re.sub(r"\.\d+(?=\.)", ".*", line)


def layers_as_one(lines: Iterable[str]) -> list[str]:
    """Lines that differ only in the number of a layer as one, with ``h.*`` for ``h.0``, ``h.1``, ..."""
    groups: dict[str, list[str]] = {}
    for line in lines:
        groups.setdefault(in_any_layer(line), []).append(line)
    return [pattern if len(group) > 1 else group[0] for pattern, group in groups.items()]
