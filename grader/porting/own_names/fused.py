"""Projections that one of two programs holds in one matrix, and the other in several."""

import math
from collections.abc import Sequence
from dataclasses import replace

from grader.porting.own_names.layout import expands, turned_by
from grader.porting.own_names.pool import Pool
from grader.porting.own_names.questions import Answer, Change, in_groups
from grader.porting.own_names.recipes import Piece, Recipe
from grader.porting.own_names.units import Unit

FUSED = {"qkv": ("q", "k", "v"), "kv": ("k", "v"), "gate_up": ("gate", "up"), "conv": ("q_conv", "k_conv", "v_conv")}


def match_fused(pool: Pool) -> None:
    """Projections that one of the two holds in one matrix, and the other in several."""
    for one, several in FUSED.items():
        for group in dict.fromkeys(_group_of(unit) for unit in [*pool.own, *pool.wanted]):
            roles = (one, *several)
            mine = {u.word.role: u for u in pool.own if _is_one_of(u, roles, group)}
            theirs = {u.word.role: u for u in pool.wanted if _is_one_of(u, roles, group)}
            if one in mine and set(several) <= theirs.keys():
                _join(pool, mine[one], [theirs[role] for role in several])
            elif one in theirs and set(several) <= mine.keys():
                _part(pool, [mine[role] for role in several], theirs[one])
            elif one in theirs and one == "gate_up":
                unnamed = [u for u in pool.own if _group_of(u) == group and expands(u, pool.sizes.hidden)]
                if len(unnamed) == 2 and _part(pool, unnamed, theirs[one]):
                    pool.swap(unnamed)


def _join(pool: Pool, own: Unit, wanted: list[Unit]) -> None:
    made = {}
    for leaf, name in own.names.items():
        if any(leaf not in unit.names for unit in wanted):
            return
        turned = [bool(turned_by(unit, pool.sizes.hidden)) for unit in wanted]
        pieces = tuple(Piece(u.names[leaf], turned=t) for u, t in zip(wanted, turned, strict=True))
        rows = [unit.shapes[leaf][-1 if t and leaf == "weight" else 0] for unit, t in zip(wanted, turned, strict=True)]
        turns = bool(turned_by(own, pool.sizes.hidden)) and leaf == "weight"
        shape = own.shapes[leaf]
        if sum(rows) * math.prod(shape[:-1] if turns else shape[1:]) != math.prod(shape):
            return
        made[name] = Recipe(pieces, shape, turned=turns)
    pool.match_as(made, [own], wanted)
    if own.word.role == "gate_up" and len(rows) == 2 and not {"gate", "up"} & set(own.word.last.split("_")):
        crossed: dict[str, Change] = dict.fromkeys(made, lambda recipe: replace(recipe, pieces=recipe.pieces[::-1]))
        pool.ask("gate and up", list(made), [Answer("gate before up"), Answer("up before gate", crossed)])
    pool.by_turns(list(made), rows, lambda groups: lambda recipe: replace(recipe, groups=groups))
    pool.paired(own, own.word.role)


def _part(pool: Pool, own: list[Unit], wanted: Unit) -> bool:
    """Take one matrix apart; whether that could be done."""
    made: dict[str, Recipe] = {}
    parts: tuple[int, ...] = ()
    for leaf in wanted.names:
        if any(leaf not in unit.names for unit in own):
            return False
        mine = [bool(turned_by(unit, pool.sizes.hidden)) for unit in own]
        parts = tuple(u.shapes[leaf][-1 if t and leaf == "weight" else 0] for u, t in zip(own, mine, strict=True))
        turned = bool(turned_by(wanted, pool.sizes.hidden)) and leaf == "weight"
        if sum(parts) != wanted.shapes[leaf][-1 if turned else 0]:
            return False
        for i, unit in enumerate(own):
            piece = Piece(wanted.names[leaf], turned=turned, part=i, parts=parts)
            made[unit.names[leaf]] = Recipe((piece,), unit.shapes[leaf], turned=mine[i] and leaf == "weight")
    pool.match_as(made, own, [wanted])
    pool.by_turns(list(made), parts, in_groups)
    for unit in own:
        pool.paired(unit, unit.word.role)
    return True


def _is_one_of(unit: Unit, roles: Sequence[str], group: object) -> bool:
    return unit.word.role in roles and _group_of(unit) == group and (len(unit.weight) <= 2 or "conv" in unit.word.role)


def _group_of(unit: Unit) -> object:
    return unit.word.inner, unit.shared, unit.word.place
