"""A model's tensors as units: what one module holds itself, its weight and its bias."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from grader.porting.own_names.roles import BIASES, ROUTERS, WEIGHTS, Word, core, read

ENDS = re.compile(r"(.+)_(weight|bias|w|b)$")
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Unit:
    """Tensors that belong together. word: what their names say. kind: the class of their module, "" if not known.

    names, shapes: each tensor's full name and shape, by "weight" or "bias".
    """

    word: Word
    kind: str
    names: Mapping[str, str] = field(hash=False)
    shapes: Mapping[str, Shape] = field(hash=False)

    @property
    def weight(self) -> Shape:
        """The shape of its weight, or of the tensor that it has instead."""
        return self.shapes.get("weight") or next(iter(self.shapes.values()))

    @property
    def shared(self) -> bool:
        """Whether it belongs to an expert that sees every token."""
        return "shared" in self.word.path

    @property
    def relative(self) -> str:
        """Its path within its layer."""
        path, layer = self.word.path, self.word.layer
        return path if layer is None else path.split(f".{layer}.", 1)[-1]


def stack_of(names: Mapping[str, Shape]) -> tuple[str | None, int]:
    """The path of the list that holds most of a model's tensors, its layers, and how long it is."""
    found: dict[str, list[int]] = {}
    for name in names:
        match = re.match(r"(.*?)\.(\d+)\.", name)
        if match:
            found.setdefault(match[1], []).append(int(match[2]))
    if not found:
        return None, 0
    stack = max(found, key=lambda path: len(found[path]))
    return stack, len(set(found[stack]))


def units_of(shapes: Mapping[str, Shape], kinds: Mapping[str, str], stack: str | None, experts: int = 0) -> list[Unit]:
    """The units among tensors of these names and shapes. kinds: the modules' classes by path.

    experts: how many experts a layer has, by which a router is known.
    """
    gathered: dict[str, dict[str, str]] = {}
    for name in shapes:
        path, leaf = _parted(name)
        if leaf in gathered.get(path, {}):
            path, leaf = name, "weight"
        gathered.setdefault(path, {})[leaf] = name
    units = []
    for path, names in gathered.items():
        unit = Unit(
            read(path, stack, experts > 0), kinds.get(path, ""), names, {leaf: shapes[n] for leaf, n in names.items()}
        )
        if experts and experts in unit.weight and len(unit.weight) == 2 and _routes(unit.word):
            unit = replace(unit, word=replace(unit.word, place="mlp", role="router"))
        units.append(unit)
    return units


def _routes(word: Word) -> bool:
    return not word.inner and (word.last in ROUTERS or core(word.last) in ROUTERS or "router" in word.path)


def _parted(name: str) -> tuple[str, str]:
    path, _, leaf = name.rpartition(".")
    low = leaf.lower()
    if path and low in WEIGHTS:
        return path, "weight"
    if path and low in BIASES:
        return path, "bias"
    match = ENDS.match(leaf)
    prefix = f"{path}." if path else ""
    if match:
        return prefix + match[1], "weight" if match[2].startswith("w") else "bias"
    return name, "weight"
