"""Units of a program and of the reference that have no counterpart yet, and what was matched of them."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from grader.porting.own_names.layout import is_turned
from grader.porting.own_names.questions import (
    PAIRED,
    ROWS_OR_COLUMNS,
    Answer,
    Change,
    Matched,
    Question,
    Sizes,
    pair,
    relay,
    swaps,
    turn,
)
from grader.porting.own_names.recipes import Piece, Recipe
from grader.porting.own_names.units import Unit


class Fit(NamedTuple):
    """How a tensor of a program can be one of the reference's. questions: what its shape leaves open.

    turned: of a matrix whose class does not say how it lies, and whose shape does: whether it is [in, out].
    """

    recipe: Recipe
    questions: tuple[Question, ...] = ()
    turned: tuple[bool, ...] = ()


def fit(own: Unit, wanted: Unit, leaf: str) -> Fit | None:
    """The likeliest way in which a tensor of the one is a tensor of the other; None where it can't be."""
    mine, theirs = own.shapes[leaf], wanted.shapes[leaf]
    source = wanted.names[leaf]
    plain, turned = Recipe((Piece(source),), mine), Recipe((Piece(source, turned=True),), mine)
    if len(mine) < 2 or len(theirs) < 2:
        return Fit(plain) if math.prod(mine) == math.prod(theirs) else None
    known = is_turned(own), is_turned(wanted)
    if len(theirs) == 2 and known[1] is None:  # of transformers' matrices, only Conv1D's are [in, out]
        known = known[0], False
    if mine == theirs and mine == mine[::-1]:
        if None not in known:
            return Fit(turned if known[0] != known[1] else plain)
        if wanted.word.role in ("embed", "positions", "head"):
            return Fit(plain)
        name = own.names[leaf]
        question = Question(ROWS_OR_COLUMNS, [name], [Answer("as it is"), Answer("transposed", {name: turn})])
        return Fit(turned if known[1] else plain, (question,))
    if mine == theirs:
        votes = (False,) if known[0] is None else ()
        return Fit(plain, (), votes) if None in known or known[0] == known[1] else None
    if mine == (*theirs[:-2], theirs[-1], theirs[-2]):
        votes = (True,) if known[0] is None else ()
        return None if None not in known and known[0] == known[1] else Fit(turned, (), votes)
    if math.prod(mine) != math.prod(theirs) or None not in known:
        return None
    return Fit(plain if mine[-1] == theirs[-1] or mine[0] == theirs[0] else turned)


class Pool:
    """What is left to match, and what was matched. Each step of `matching` takes units out, so that those after it,
    which know less, have fewer to choose from.

    own, wanted: the units that are left of the program and of the reference. found: what was matched, with questions.
    """

    def __init__(self, own: Sequence[Unit], wanted: Sequence[Unit], sizes: Sizes) -> None:
        self.own, self.wanted, self.sizes = list(own), list(wanted), sizes
        self.found = Matched()
        self.turned: list[bool] = []  # of matrices whose class does not say, and whose shape does

    def take(self, own: Unit, wanted: Unit, how: str) -> bool:
        """Match two units, if their tensors can be of the same content."""
        fits: dict[str, Fit] = {}
        for leaf, name in own.names.items():
            if leaf not in wanted.names:
                if how == "name" and leaf == "bias" and "weight" in wanted.names:
                    continue  # it stays unmatched, and is named
                return False
            found = fit(own, wanted, leaf)
            if found is None:
                return False
            fits[name] = found
        if not fits:
            return False
        made = {name: found.recipe for name, found in fits.items()}
        for found in fits.values():
            self.found.questions += found.questions
            self.turned += found.turned
        self.found.recipes |= made
        self.found.how |= dict.fromkeys(made, how)
        self._forget(own, wanted, made)
        if own.word.role == wanted.word.role == "qkv" and own.word.last != wanted.word.last:
            self._relaid(own)
        self.paired(own, wanted.word.role)
        return True

    def match_as(self, made: Mapping[str, Recipe], own: list[Unit], wanted: list[Unit]) -> None:
        """Match several units at once, by recipes that were made of all of them."""
        self.found.recipes |= made
        self.found.how |= dict.fromkeys(made, "name")
        self.own = [unit for unit in self.own if unit not in own]
        self.wanted = [unit for unit in self.wanted if unit not in wanted]

    def _forget(self, own: Unit, wanted: Unit, made: Iterable[str]) -> None:
        made = set(made)
        self.own = [unit for unit in self.own if unit is not own]
        rest = {leaf: name for leaf, name in own.names.items() if name not in made}
        if rest:
            self.own.append(replace(own, names=rest, shapes={leaf: own.shapes[leaf] for leaf in rest}))
        self.wanted = [unit for unit in self.wanted if unit is not wanted]
        rest = {leaf: name for leaf, name in wanted.names.items() if leaf not in own.names}
        if rest:
            self.wanted.append(replace(wanted, names=rest, shapes={leaf: wanted.shapes[leaf] for leaf in rest}))

    def ask(self, about: str, names: list[str], answers: list[Answer], free: bool = True) -> None:
        """Leave something open; as of `Question`."""
        self.found.questions.append(Question(about, names, answers, free))

    def swap(self, own: list[Unit]) -> None:
        """Ask whether two units that were matched by their order belong the other way round, as gate and up may."""
        crossed = swaps(own)
        about = " and ".join(unit.word.last for unit in own)
        self.ask(about, list(crossed), [Answer("in their order"), Answer("the other way round", {}, crossed)])

    def by_turns(self, names: list[str], rows: Sequence[int], change: Callable[[int], Change]) -> None:
        """Ask whether parts of a matrix stand one after the other, or by turns: head by head, or row by row.

        The shape is the same either way, and both are in use: GPT-NeoX has q, k and v of one head, then of the next;
        gpt-oss has a row of gate, then one of up. rows: of each part. change: what an answer does, by its groups.
        """
        counts = dict.fromkeys([self.sizes.kv_heads, self.sizes.heads, min(rows)])
        groups = [n for n in counts if n > 1 and all(count % n == 0 for count in rows)]
        if len(rows) == 2 and rows[0] == rows[1]:
            groups = [n for n in groups if n == rows[0]]  # gate and up have no heads
        answers = [Answer("one part after the other")]
        answers += [Answer(f"by turns in {n} groups", dict.fromkeys(names, change(n))) for n in groups]
        if len(answers) > 1:
            self.ask("the order of rows", names, answers)

    def _relaid(self, own: Unit) -> None:
        """Ask whether two fused projections of one shape hold their rows in another order."""
        sizes, rows = self.sizes, max(own.weight)
        head_dim = rows // max(1, sizes.heads + 2 * sizes.kv_heads)
        parts = (sizes.heads * head_dim, sizes.kv_heads * head_dim, sizes.kv_heads * head_dim)
        if not head_dim or sum(parts) != rows:
            return
        names = list(own.names.values())
        answers = [Answer("in the checkpoint's order")]
        for groups in dict.fromkeys((sizes.kv_heads, sizes.heads)):
            if groups > 1 and all(part % groups == 0 for part in parts):
                answers.append(
                    Answer(f"rows of queries, keys and values apart, where the checkpoint has them in {groups} groups",
                           dict.fromkeys(names, relay(parts, groups, 1))))  # fmt: skip
                answers.append(
                    Answer(f"rows of queries, keys and values in {groups} groups, where the checkpoint has them apart",
                           dict.fromkeys(names, relay(parts, 1, groups))))  # fmt: skip
        self.ask("the order of rows", names, answers, free=False)

    def paired(self, own: Unit, role: str) -> None:
        """Ask whether RoPE rotates neighbouring values here, and halves of a head in the reference."""
        d = self.sizes.head_dim
        if not d or d % 2 or role not in ("q", "k", "qkv", "kv", "q_norm", "k_norm"):
            return
        if role.endswith("norm") and own.weight != (d,):
            return
        as_meta = own.word.last in ("wq", "wk", "wqkv")
        names = [name for name in own.names.values() if name in self.found.recipes]
        question = Question(
            "RoPE",
            names,
            [Answer("as in the reference"), Answer(PAIRED, dict.fromkeys(names, pair(d, role)))],
            as_meta,
        )
        same = next((q for q in self.found.questions if q.about == "RoPE"), None)
        if same is None:
            self.found.questions.append(question)
        else:
            self.found.questions[self.found.questions.index(same)] = same.joined(question)

    def like_the_others(self) -> None:
        """Square matrices whose class does not say how they lie: most likely as the others do."""
        if not self.turned or not all(self.turned):
            return
        for question in self.found.questions:
            if question.about == ROWS_OR_COLUMNS:
                (name,) = question.names
                self.found.recipes[name] = turn(self.found.recipes[name])
                question.answers = [Answer("transposed"), Answer("as it is", {name: turn})]
