"""Which of a program's tensors is which of the reference's, within one layer or outside of all.

First what the names say, then what only the shapes leave possible, then the order. What nothing of these decides
is a question, with its answers in order of likelihood; running the modules answers it.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from grader.layers.own_names.recipes import Piece, Recipe
from grader.layers.own_names.units import Shape, Unit

Change = Callable[[Recipe], Recipe]
FUSED = {"qkv": ("q", "k", "v"), "kv": ("k", "v"), "gate_up": ("gate", "up")}
OF_ATTENTION = {"q", "k", "v", "o", "q_norm", "k_norm"}  # what names that say one of these never mean another
LINEAR, TURNED = ("Linear",), ("Conv1D",)


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

    answers: the most likely first. certain: whether an answer other than the first may be taken without being asked
    for: not where the tensor's shape is the same, so that a loader that copies it as it is goes wrong unnoticed.
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


class Matching:
    """Matches units of a program with units of the reference."""

    def __init__(self, own: Sequence[Unit], wanted: Sequence[Unit], sizes: Sizes) -> None:
        self.own, self.wanted, self.sizes = list(own), list(wanted), sizes
        self.found = Matched()
        self.turned: list[bool] = []  # of matrices whose class does not say, and whose shape does

    def run(self) -> Matched:
        """All that can be matched."""
        self._by(lambda unit: unit.relative, "name")
        self._by(
            lambda unit: (unit.word.last, unit.word.inner, unit.word.place) if unit.word.at == () else None, "name"
        )
        self._by(_role_of, "name")
        self._fused()
        self._stacked()
        self._norms()
        self._alike()
        self._like_the_others()
        return self.found

    def _by(self, key: Callable[[Unit], object], how: str) -> None:
        """Match units that alone have the same key."""
        for value in list(dict.fromkeys(map(key, self.own))):
            own = [unit for unit in self.own if key(unit) == value]
            wanted = [unit for unit in self.wanted if key(unit) == value]
            if value and len(own) == len(wanted) == 1:
                self._take(own[0], wanted[0], how)

    def _take(self, own: Unit, wanted: Unit, how: str) -> bool:
        """Match two units, if their tensors can be of the same content."""
        made = {}
        for leaf, name in own.names.items():
            if leaf not in wanted.names:
                if how == "name" and leaf == "bias" and "weight" in wanted.names:
                    continue  # it stays unmatched, and is named
                return False
            recipe = self._recipe(own, wanted, leaf)
            if recipe is None:
                return False
            made[name] = recipe
        if not made:
            return False
        self.found.recipes |= made
        self.found.how |= dict.fromkeys(made, how)
        self._forget(own, wanted, made)
        if own.word.role == wanted.word.role == "qkv" and own.word.last != wanted.word.last:
            self._relaid(own, wanted)
        self._paired(own, wanted.word.role)
        return True

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

    def _recipe(self, own: Unit, wanted: Unit, leaf: str) -> Recipe | None:
        """The likeliest way in which a tensor of the one is a tensor of the other; asks where there are two."""
        mine, theirs = own.shapes[leaf], wanted.shapes[leaf]
        source = wanted.names[leaf]
        plain, turned = Recipe((Piece(source),), mine), Recipe((Piece(source, turned=True),), mine)
        if len(mine) < 2 or len(theirs) < 2:
            return plain if _numel(mine) == _numel(theirs) else None
        known = _is_turned(own), _is_turned(wanted)
        if len(theirs) == 2 and known[1] is None:  # of transformers' matrices, only Conv1D's are [in, out]
            known = known[0], False
        if mine == theirs and mine == mine[::-1]:
            if None not in known:
                return turned if known[0] != known[1] else plain
            if wanted.word.role in ("embed", "positions", "head"):
                return plain
            name = own.names[leaf]
            self._ask(ROWS_OR_COLUMNS, [name], [Answer("as it is"), Answer("transposed", {name: _turn})])
            return turned if known[1] else plain
        if mine == theirs:
            self.turned += [False] if known[0] is None else []
            return plain if None in known or known[0] == known[1] else None
        if mine == (*theirs[:-2], theirs[-1], theirs[-2]):
            self.turned += [True] if known[0] is None else []
            return None if None not in known and known[0] == known[1] else turned
        if _numel(mine) != _numel(theirs) or None not in known:
            return None
        return plain if mine[-1] == theirs[-1] or mine[0] == theirs[0] else turned

    def _like_the_others(self) -> None:
        """Square matrices whose class does not say how they lie: most likely as the others do."""
        if not self.turned or not all(self.turned):
            return
        for question in self.found.questions:
            if question.about == ROWS_OR_COLUMNS:
                (name,) = question.names
                self.found.recipes[name] = _turn(self.found.recipes[name])
                question.answers = [Answer("transposed"), Answer("as it is", {name: _turn})]

    def _ask(self, about: str, names: list[str], answers: list[Answer], free: bool = True) -> None:
        self.found.questions.append(Question(about, names, answers, free))

    # One tensor for several, and several for one

    def _fused(self) -> None:
        """Projections that one of the two holds in one matrix, and the other in several."""
        for one, several in FUSED.items():
            for group in dict.fromkeys(_group_of(unit) for unit in [*self.own, *self.wanted]):
                roles = (one, *several)
                mine = {u.word.role: u for u in self.own if _is_one_of(u, roles, group)}
                theirs = {u.word.role: u for u in self.wanted if _is_one_of(u, roles, group)}
                if one in mine and set(several) <= theirs.keys():
                    self._join(mine[one], [theirs[role] for role in several])
                elif one in theirs and set(several) <= mine.keys():
                    self._part([mine[role] for role in several], theirs[one])
                elif one in theirs and one == "gate_up":
                    unnamed = [u for u in self.own if _group_of(u) == group and _expands(u, self.sizes.hidden)]
                    if len(unnamed) == 2:
                        self._part(unnamed, theirs[one])
                        self._swap(unnamed)

    def _join(self, own: Unit, wanted: list[Unit]) -> None:
        made = {}
        for leaf, name in own.names.items():
            if any(leaf not in unit.names for unit in wanted):
                return
            turned = [bool(_turned_by(unit, self.sizes.hidden)) for unit in wanted]
            pieces = tuple(Piece(u.names[leaf], turned=t) for u, t in zip(wanted, turned, strict=True))
            rows = [
                unit.shapes[leaf][-1 if t and leaf == "weight" else 0] for unit, t in zip(wanted, turned, strict=True)
            ]
            turns = bool(_turned_by(own, self.sizes.hidden)) and leaf == "weight"
            if sum(rows) * _numel(own.shapes[leaf][1:] if not turns else own.shapes[leaf][:-1]) != _numel(
                own.shapes[leaf]
            ):
                return
            made[name] = Recipe(pieces, own.shapes[leaf], turned=turns)
        self._made(made, [own], wanted)
        self._by_turns(list(made), rows, lambda groups: lambda recipe: replace(recipe, groups=groups))
        self._paired(own, own.word.role)

    def _part(self, own: list[Unit], wanted: Unit) -> None:
        made, parts = {}, ()
        for leaf in wanted.names:
            if any(leaf not in unit.names for unit in own):
                return
            mine = [bool(_turned_by(unit, self.sizes.hidden)) for unit in own]
            parts = tuple(u.shapes[leaf][-1 if t and leaf == "weight" else 0] for u, t in zip(own, mine, strict=True))
            turned = bool(_turned_by(wanted, self.sizes.hidden)) and leaf == "weight"
            if sum(parts) != wanted.shapes[leaf][-1 if turned else 0]:
                return
            for i, unit in enumerate(own):
                piece = Piece(wanted.names[leaf], turned=turned, part=i, parts=parts)
                made[unit.names[leaf]] = Recipe((piece,), unit.shapes[leaf], turned=mine[i] and leaf == "weight")
        self._made(made, own, [wanted])
        self._by_turns(list(made), parts, _in_groups)
        for unit in own:
            self._paired(unit, unit.word.role)

    def _made(self, made: Mapping[str, Recipe], own: list[Unit], wanted: list[Unit]) -> None:
        self.found.recipes |= made
        self.found.how |= dict.fromkeys(made, "name")
        self.own = [unit for unit in self.own if unit not in own]
        self.wanted = [unit for unit in self.wanted if unit not in wanted]

    def _by_turns(self, names: list[str], rows: Sequence[int], change: Callable[[int], Change]) -> None:
        """Ask whether parts of a matrix stand one after the other, or by turns: head by head, or row by row."""
        counts = dict.fromkeys([self.sizes.kv_heads, self.sizes.heads, min(rows)])
        groups = [n for n in counts if n > 1 and all(count % n == 0 for count in rows)]
        if len(rows) == 2 and rows[0] == rows[1]:
            groups = [n for n in groups if n == rows[0]]  # gate and up have no heads
        answers = [Answer("one part after the other")]
        answers += [Answer(f"by turns in {n} groups", dict.fromkeys(names, change(n))) for n in groups]
        if len(answers) > 1:
            self._ask("the order of rows", names, answers)

    def _relaid(self, own: Unit, wanted: Unit) -> None:
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
                           dict.fromkeys(names, _relay(parts, groups, 1))))  # fmt: skip
                answers.append(
                    Answer(f"rows of queries, keys and values in {groups} groups, where the checkpoint has them apart",
                           dict.fromkeys(names, _relay(parts, 1, groups))))  # fmt: skip
        self._ask("the order of rows", names, answers, free=False)

    def _paired(self, own: Unit, role: str) -> None:
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
            [Answer("as in the reference"), Answer(PAIRED, dict.fromkeys(names, _pair(d, role)))],
            as_meta,
        )
        same = next((q for q in self.found.questions if q.about == "RoPE"), None)
        if same is None:
            self.found.questions.append(question)
        else:
            self.found.questions[self.found.questions.index(same)] = same.joined(question)

    # Experts in a list, and in one tensor

    def _stacked(self) -> None:
        """Experts that one of the two holds one by one, and the other in one tensor."""
        listed = _experts([u for u in self.own if u.word.inner])
        for wanted in [u for u in self.wanted if len(u.weight) == 3 and not u.word.inner]:
            self._unstack(listed, wanted)
        listed = _experts([u for u in self.wanted if u.word.inner])
        for own in [u for u in self.own if len(u.weight) == 3 and not u.word.inner]:
            self._stack(own, listed)

    def _unstack(self, listed: Mapping[str, list[Unit]], wanted: Unit) -> None:
        count, role = wanted.weight[0], wanted.word.role
        groups = {word: units for word, units in listed.items() if len(units) == count}
        contracts = role == "down"
        mine = [g for g in groups.values() if _expands(g[0], self.sizes.hidden) != contracts]
        mine = [group for group in mine if group[0] in self.own]
        parts = FUSED.get(role, (role,))
        if len(mine) != len(parts):
            return
        named = {group[0].word.role: group for group in mine}
        ordered = [named[part] for part in parts] if set(parts) <= named.keys() else mine
        turned = wanted.weight[1] == self.sizes.hidden if not contracts else wanted.weight[2] == self.sizes.hidden
        rows = [group[0].shapes["weight"][0] for group in ordered]
        made = {}
        for i, group in enumerate(ordered):
            for e, unit in enumerate(group):
                for leaf, name in unit.names.items():
                    if leaf not in wanted.names:
                        return
                    piece = Piece(wanted.names[leaf], e, turned and leaf == "weight")
                    piece = replace(piece, part=i, parts=tuple(rows)) if len(parts) > 1 else piece
                    made[name] = Recipe((piece,), unit.shapes[leaf])
        self._made(made, [unit for group in ordered for unit in group], [wanted])
        if len(parts) > 1:
            self._by_turns(list(made), rows, _in_groups)
        if len(ordered) == 2 and ordered is mine:
            swaps = {}
            for first, second in zip(*ordered, strict=True):
                swaps |= _swaps([first, second])
            self._ask("gate and up", list(swaps), [Answer("in their order"), Answer("the other way round", {}, swaps)])

    def _stack(self, own: Unit, listed: Mapping[str, list[Unit]]) -> None:
        count, role = own.weight[0], own.word.role
        groups = {units[0].word.role: units for units in listed.values() if len(units) == count}
        parts = FUSED.get(role, (role,))
        if not set(parts) <= groups.keys() or any(groups[part][0] not in self.wanted for part in parts):
            return
        wanted = [groups[part] for part in parts]
        rows = [group[0].shapes["weight"][0] for group in wanted]
        made = {}
        for leaf, name in own.names.items():
            if any(leaf not in unit.names for group in wanted for unit in group):
                return
            pieces = tuple(Piece(group[e].names[leaf]) for e in range(count) for group in wanted)
            turned = leaf == "weight" and own.weight[1:] != (sum(rows), *wanted[0][0].weight[1:])
            made[name] = Recipe(pieces, own.shapes[leaf], each=len(parts), stacked=True, turned=turned)
        self._made(made, [own], [unit for group in wanted for unit in group])
        if len(parts) > 1:
            self._by_turns(list(made), rows, lambda groups: lambda recipe: replace(recipe, groups=groups))

    # What the names leave open

    def _norms(self) -> None:
        """A layer's norms: by where they stand, as far as the names say, and by their order."""
        places = [unit.word.at[0] for unit in self.wanted if unit.word.role == "norm" and unit.word.at]
        for place in places:
            own = [u for u in self.own if u.word.role == "norm" and _stands(u, places) == place]
            wanted = [u for u in self.wanted if u.word.role == "norm" and u.word.at[:1] == (place,)]
            if len(own) == len(wanted) == 1:
                self._take(own[0], wanted[0], "name")
        own = [unit for unit in self.own if unit.word.role == "norm"]
        wanted = [unit for unit in self.wanted if unit.word.role == "norm"]
        if len(own) != len(wanted) or not own:
            return
        numbered = all(unit.word.last[-1:].isdigit() for unit in own)
        own.sort(key=lambda unit: unit.word.last if numbered else "")
        pairs = list(zip(own, wanted, strict=True))
        done = [mine for mine, theirs in pairs if self._take(mine, theirs, "order")]
        if len(done) == 2 == len(pairs) and not numbered:
            self._swap(done)

    def _alike(self) -> None:
        """What is left: by shape where that leaves one possibility, else by likeness of names and by order."""
        for unit in list(self.own):
            if unit not in self.own:
                continue
            candidates = [w for w in self.wanted if self._can_be(unit, w)]
            rivals = [u for u in self.own if any(self._can_be(u, w) for w in candidates)]
            if len(candidates) == len(rivals) == 1:
                self._take(unit, candidates[0], "shape")
            elif len(candidates) == len(rivals) == 2:
                self._take_two(rivals, candidates)
            elif len(candidates) == len(rivals):
                for rival in rivals:
                    left = [w for w in candidates if w in self.wanted]
                    best = max(left, key=lambda w: (_likeness(rival, w), -candidates.index(w)))
                    self._take(rival, best, "order")

    def _take_two(self, own: list[Unit], wanted: list[Unit]) -> None:
        told = _likeness(own[0], wanted[0]) + _likeness(own[1], wanted[1])
        crossed = _likeness(own[0], wanted[1]) + _likeness(own[1], wanted[0])
        wanted = wanted[::-1] if crossed > told + 0.5 else wanted
        if self._take(own[0], wanted[0], "order") and self._take(own[1], wanted[1], "order"):
            self._swap(own)

    def _can_be(self, own: Unit, wanted: Unit) -> bool:
        if (
            own.names.keys() != wanted.names.keys()
            or own.word.inner != wanted.word.inner
            or own.shared != wanted.shared
        ):
            return False
        if "norm" in own.word.role and not ("norm" in wanted.word.role or "norm" in wanted.word.last):
            return False
        if {own.word.role, wanted.word.role} <= OF_ATTENTION and own.word.role != wanted.word.role:
            return False
        places = own.word.place, wanted.word.place
        if all(places) and places[0] != places[1]:
            return False
        known = self.found.questions[:]
        fits = all(self._recipe(own, wanted, leaf) is not None for leaf in own.names)
        self.found.questions = known
        return fits

    def _swap(self, own: list[Unit]) -> None:
        swaps = _swaps(own)
        about = " and ".join(unit.word.last for unit in own)
        self._ask(about, list(swaps), [Answer("in their order"), Answer("the other way round", {}, swaps)])


ROWS_OR_COLUMNS = "rows or columns"
PAIRED = "rows of each head in pairs, for RoPE that rotates neighbours"


def _swaps(own: Sequence[Unit]) -> dict[str, str]:
    first, second = (unit.names for unit in own)
    return {first[leaf]: second[leaf] for leaf in first} | {second[leaf]: first[leaf] for leaf in first}


def _turn(recipe: Recipe) -> Recipe:
    return replace(recipe, pieces=tuple(replace(piece, turned=not piece.turned) for piece in recipe.pieces))


def _in_groups(groups: int) -> Change:
    return lambda recipe: replace(recipe, pieces=tuple(replace(p, groups=groups) for p in recipe.pieces))


def _relay(parts: tuple[int, ...], theirs: int, mine: int) -> Change:
    def change(recipe: Recipe) -> Recipe:
        (piece,) = recipe.pieces
        pieces = tuple(replace(piece, part=i, parts=parts, groups=theirs) for i in range(len(parts)))
        return replace(recipe, pieces=pieces, groups=mine)

    return change


def _pair(head_dim: int, role: str) -> Change:
    def change(recipe: Recipe) -> Recipe:
        fused = role in ("qkv", "kv") and len(recipe.pieces) > 1
        rotated = len(recipe.pieces) - fused  # all but the values
        pieces = [replace(p, paired=head_dim) if i < rotated else p for i, p in enumerate(recipe.pieces)]
        return replace(recipe, pieces=tuple(pieces))

    return change


def _role_of(unit: Unit) -> object:
    word = unit.word
    return (word.role, word.inner, unit.shared) if word.role and word.role != "norm" else None


def _is_one_of(unit: Unit, roles: Sequence[str], group: object) -> bool:
    return unit.word.role in roles and _group_of(unit) == group and len(unit.weight) <= 2


def _group_of(unit: Unit) -> object:
    return unit.word.inner, unit.shared, unit.word.place


def _experts(units: Sequence[Unit]) -> dict[str, list[Unit]]:
    """Units of experts by their name, in the experts' order."""
    found: dict[str, list[Unit]] = {}
    for unit in sorted(units, key=lambda unit: unit.word.inner):
        found.setdefault(unit.word.last, []).append(unit)
    return found


def _stands(unit: Unit, places: Sequence[str]) -> str:
    return next((place for place in unit.word.at if place in places), "")


def _is_turned(unit: Unit) -> bool | None:
    """Whether a matrix is [in, out]; None where its class does not say."""
    if unit.kind in LINEAR or unit.kind == "Embedding":
        return False
    return True if unit.kind in TURNED else None


def _turned_by(unit: Unit, hidden: int) -> bool | None:
    """The same of one that maps from the hidden size, by its shape if its class does not say."""
    known = _is_turned(unit)
    if known is not None or len(unit.weight) < 2:
        return known
    return unit.weight[-2] == hidden != unit.weight[-1]


def _expands(unit: Unit, hidden: int) -> bool:
    """Whether a matrix of an MLP maps from the hidden size."""
    if unit.word.place != "mlp" or len(unit.weight) != 2 or unit.word.role == "router":
        return False
    return unit.weight[0 if _turned_by(unit, hidden) else 1] == hidden


def _likeness(own: Unit, wanted: Unit) -> float:
    return difflib.SequenceMatcher(None, own.word.last, wanted.word.last).ratio()


def _numel(shape: Shape) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
