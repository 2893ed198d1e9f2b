"""How one of a program's tensors is made of the reference's: which of them, and laid out how."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Piece:
    """What is taken of one of the reference's tensors, as rows [out, in], or [out] of a bias.

    expert: which of the matrices that a tensor stacks. turned: whether it holds [in, out]. parts: the rows of each
    part that it holds, one after the other, or `groups` times by turns; `part` is the one that is taken.
    paired: the values of a head, where the rows of each head are put in the order in which RoPE rotates neighbours.
    """

    source: str
    expert: int | None = None
    turned: bool = False
    part: int = 0
    parts: tuple[int, ...] = ()
    groups: int = 1
    paired: int = 0

    def of(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The piece itself."""
        tensor = weights[self.source]
        tensor = tensor if self.expert is None else tensor[self.expert]
        tensor = tensor.mT if self.turned and tensor.ndim > 1 else tensor
        if self.parts:
            tensor = _split(tensor, self.parts, self.groups)[self.part]
        return _in_pairs(tensor, self.paired) if self.paired else tensor


@dataclass(frozen=True)
class Recipe:
    """How one tensor of a program is made.

    pieces: one as it is; or several, joined along their rows one after the other or `groups` times by turns; or
    `stacked` along an axis in front, `each` of them joined to one matrix. turned: whether the program holds [in, out].
    """

    pieces: tuple[Piece, ...]
    shape: tuple[int, ...]
    groups: int = 1
    each: int = 1
    stacked: bool = False
    turned: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the reference's tensors in it."""
        return tuple(dict.fromkeys(piece.source for piece in self.pieces))

    @property
    def plain(self) -> bool:
        """Whether it is one of the reference's tensors, as it is there."""
        return self == whole(self.pieces[0].source, self.shape)

    def make(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The tensor, of `shape`. Raises RuntimeError where the pieces do not make it up."""
        pieces = [piece.of(weights) for piece in self.pieces]
        if self.stacked:
            rows = [_join(pieces[i : i + self.each], self.groups) for i in range(0, len(pieces), self.each)]
            tensor = torch.stack(rows)
        else:
            tensor = _join(pieces, self.groups)
        tensor = tensor.mT if self.turned and tensor.ndim > (2 if self.stacked else 1) - 1 > 0 else tensor
        return tensor.reshape(self.shape).contiguous()

    def words(self) -> str:
        """What is done to the reference's tensors: "" where nothing is."""
        first, said = self.pieces[0], []
        if first.parts and len(self.pieces) == 1:
            by_turns = f", by turns in {first.groups} groups" if first.groups > 1 else ""
            said.append(f"part {first.part + 1} of {len(first.parts)} of its rows{by_turns}")
        elif len(self.pieces) > 1 and not (self.stacked and self.each == 1):
            count = self.each if self.stacked else len(self.pieces)
            said.append(f"{count} joined" + (f" by turns in {self.groups} groups" if self.groups > 1 else ""))
        if self.stacked:
            said.append(f"{len(self.pieces) // self.each} stacked")
        if first.expert is not None and not self.stacked:
            said.append(f"number {first.expert} of a stack")
        if first.turned != self.turned and len(self.shape) > 1:
            said.append("transposed")
        if first.paired:
            said.append("rows of each head in pairs, for RoPE that rotates neighbours")
        return ", ".join(said)

    def with_source(self, renamed: Mapping[str, str]) -> "Recipe":
        """The same of other tensors."""
        pieces = tuple(replace(piece, source=renamed.get(piece.source, piece.source)) for piece in self.pieces)
        return replace(self, pieces=pieces)


def whole(source: str, shape: tuple[int, ...]) -> Recipe:
    """One of the reference's tensors, as it is."""
    return Recipe((Piece(source),), shape)


def as_json(recipe: Recipe) -> Any:
    """A recipe as a file of names holds it: a name alone where nothing is done to the tensor."""
    if recipe.plain:
        return recipe.pieces[0].source
    keep = {name: value for name, value in vars(recipe).items() if name not in ("pieces", "shape")}
    blank, blank_piece = vars(Recipe((), ())), vars(Piece(""))
    pieces = [{n: v for n, v in vars(piece).items() if n == "source" or v != blank_piece[n]} for piece in recipe.pieces]
    return {"pieces": pieces, **{name: value for name, value in keep.items() if value != blank[name]}}


def from_json(found: Any, shape: tuple[int, ...]) -> Recipe:
    """Undo `as_json`. Raises TypeError or KeyError where it is not of that form."""
    if isinstance(found, str):
        return whole(found, shape)
    fields = dict(found)
    pieces = [Piece(**item) for item in fields.pop("pieces")]
    return Recipe(tuple(replace(piece, parts=tuple(piece.parts)) for piece in pieces), shape, **fields)


def _split(tensor: Tensor, parts: tuple[int, ...], groups: int) -> list[Tensor]:
    grouped = tensor.reshape(groups, -1, *tensor.shape[1:])
    return [
        part.reshape(-1, *tensor.shape[1:]) for part in torch.split(grouped, [rows // groups for rows in parts], dim=1)
    ]


def _join(pieces: list[Tensor], groups: int) -> Tensor:
    if len(pieces) == 1:
        return pieces[0]
    grouped = [piece.reshape(groups, -1, *piece.shape[1:]) for piece in pieces]
    return torch.cat(grouped, dim=1).reshape(-1, *pieces[0].shape[1:])


def _in_pairs(tensor: Tensor, head_dim: int) -> Tensor:
    """Each head's first half and second half of rows by turns."""
    halves = tensor.reshape(-1, 2, head_dim // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)
