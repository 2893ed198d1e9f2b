"""In which names and shapes a module's parameters differ from a checkpoint's."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

MAX_NAMES = 8  # lines of names; more would say nothing new


def explain_names(own: Mapping[str, tuple[int, ...]], wanted: Mapping[str, Tensor], extra: Sequence[str]) -> list[str]:
    """A line for each name or shape in which a module differs from a checkpoint; empty where it does not.

    own: the module's names and shapes. wanted: the checkpoint's tensors. extra: names of the module's
    that the checkpoint would have to have and has not. What repeats from layer to layer is one line.
    """
    missing = [name for name in wanted if name not in own]
    lines = []
    for name in extra:
        like = [m for m in missing if m.count(".") == name.count(".")]
        close = difflib.get_close_matches(name, like, n=1, cutoff=0.7)
        asked = "; what does that say of the head?" if name == "lm_head.weight" else ""
        asked = f"; did you mean `{close[0]}`?" if close else asked
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


def layers_as_one(lines: Iterable[str]) -> list[str]:
    """Lines that differ only in the number of a layer as one, with ``h.*`` for ``h.0``, ``h.1``, ..."""
    groups: dict[str, list[str]] = {}
    for line in lines:
        groups.setdefault(re.sub(r"\.\d+(?=\.)", ".*", line), []).append(line)
    return [pattern if len(group) > 1 else group[0] for pattern, group in groups.items()]
