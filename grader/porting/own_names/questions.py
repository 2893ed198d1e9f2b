"""What names and shapes leave open about a program's tensors: questions, and what each answer changes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from grader.porting.own_names.recipes import Recipe
from grader.porting.own_names.units import Unit

Change = Callable[[Recipe], Recipe]
ROWS_OR_COLUMNS = "rows or columns"
PAIRED = "rows of each head in pairs, for RoPE that rotates neighbours"


@dataclass
class Answer:
    """One answer to a question: which recipes it changes, by the name of the program's tensor."""

    words: str
    changes: Mapping[str, Change] = field(default_factory=dict)
    swaps: Mapping[str, str] = field(default_factory=dict)

    def applied(self, recipes: Mapping[str, Recipe]) -> dict[str, Recipe]:
        """The recipes as this answer has them."""
        new = {name: recipes[self.swaps.get(name, name)] for name in recipes}
        return {name: self.changes[name](recipe) if name in self.changes else recipe for name, recipe in new.items()}


@dataclass
class Question:
    """What names and shapes leave open. about: what it is about. names: the tensors, of every layer alike.

    answers: the most likely first. free: whether another than the first may be taken without being asked for. It may
    not where rows are in another order and the shape is the same: a loader that copies them goes wrong unnoticed.
    """

    about: str
    names: list[str]
    answers: list[Answer]
    free: bool = True

    def joined(self, other: "Question") -> "Question":
        """This and the same question of another layer."""
        answers = [
            Answer(a.words, {**a.changes, **b.changes}, {**a.swaps, **b.swaps})
            for a, b in zip(self.answers, other.answers, strict=True)
        ]
        return Question(self.about, self.names + other.names, answers, self.free)


@dataclass
class Matched:
    """What was matched: a recipe for each of the program's tensors, and how it was found."""

    recipes: dict[str, Recipe] = field(default_factory=dict)
    how: dict[str, str] = field(default_factory=dict)
    questions: list[Question] = field(default_factory=list)


@dataclass(frozen=True)
class Sizes:
    """What a config says: hidden size, heads, heads for keys and values, values of a head; 0 where it does not."""

    hidden: int = 0
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0


def swaps(own: Sequence[Unit]) -> dict[str, str]:
    """The change by which two units take each other's content: the names of their tensors, crosswise."""
    first, second = (unit.names for unit in own)
    return {first[leaf]: second[leaf] for leaf in first} | {second[leaf]: first[leaf] for leaf in first}


def turn(recipe: Recipe) -> Recipe:
    """The same tensors transposed: what a square matrix is if it holds [in, out] and not [out, in], or the reverse."""
    return replace(recipe, pieces=tuple(replace(piece, turned=not piece.turned) for piece in recipe.pieces))


def in_groups(groups: int) -> Change:
    """Take parts out of matrices that hold them by turns in so many groups: q k v of head 1, q k v of head 2."""
    return lambda recipe: replace(recipe, pieces=tuple(replace(p, groups=groups) for p in recipe.pieces))


def relay(parts: tuple[int, ...], theirs: int, mine: int) -> Change:
    """Put the rows of a fused matrix into another order: parts, of so many rows each, that the reference holds by turns
    in `theirs` groups are joined by turns in `mine`; 1 is one part after the other.
    """

    def change(recipe: Recipe) -> Recipe:
        (piece,) = recipe.pieces
        pieces = tuple(replace(piece, part=i, parts=parts, groups=theirs) for i in range(len(parts)))
        return replace(recipe, pieces=pieces, groups=mine)

    return change


def pair(head_dim: int, role: str) -> Change:
    """Put the rows of each head, d = head_dim, into the order 0, d/2, 1, d/2 + 1, ...: RoPE that rotates neighbours
    then does what RoPE over halves did. Values, the last part of a fused matrix, are not rotated.
    """

    def change(recipe: Recipe) -> Recipe:
        fused = role in ("qkv", "kv") and len(recipe.pieces) > 1
        rotated = len(recipe.pieces) - fused  # all but the values
        pieces = [replace(p, paired=head_dim) if i < rotated else p for i, p in enumerate(recipe.pieces)]
        return replace(recipe, pieces=tuple(pieces))

    return change
