"""Experts that one of two programs holds one by one, and the other in one tensor."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from grader.porting.own_names.fused import FUSED
from grader.porting.own_names.layout import expands
from grader.porting.own_names.pool import Pool
from grader.porting.own_names.questions import Answer, in_groups, swaps
from grader.porting.own_names.recipes import Piece, Recipe
from grader.porting.own_names.units import Unit


def match_experts(pool: Pool) -> None:
    """Experts that one of the two holds one by one, and the other in one tensor."""
    listed = _experts([u for u in pool.own if u.word.inner])
    for wanted in [u for u in pool.wanted if len(u.weight) == 3 and not u.word.inner]:
        _unstack(pool, listed, wanted)
    listed = _experts([u for u in pool.wanted if u.word.inner])
    for own in [u for u in pool.own if len(u.weight) == 3 and not u.word.inner]:
        _stack(pool, own, listed)


def _unstack(pool: Pool, listed: Mapping[str, list[Unit]], wanted: Unit) -> None:
    count, role = wanted.weight[0], wanted.word.role
    groups = {word: units for word, units in listed.items() if len(units) == count}
    contracts = role == "down"
    mine = [g for g in groups.values() if expands(g[0], pool.sizes.hidden) != contracts]
    mine = [group for group in mine if group[0] in pool.own]
    parts = FUSED.get(role, (role,))
    if len(mine) != len(parts):
        return
    named = {group[0].word.role: group for group in mine}
    ordered = [named[part] for part in parts] if set(parts) <= named.keys() else mine
    turned = wanted.weight[1] == pool.sizes.hidden if not contracts else wanted.weight[2] == pool.sizes.hidden
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
    pool.match_as(made, [unit for group in ordered for unit in group], [wanted])
    if len(parts) > 1:
        pool.by_turns(list(made), rows, in_groups)
    if len(ordered) == 2 and ordered is mine:
        crossed: dict[str, str] = {}
        for first, second in zip(*ordered, strict=True):
            crossed |= swaps([first, second])
        pool.ask("gate and up", list(crossed), [Answer("in their order"), Answer("the other way round", {}, crossed)])


def _stack(pool: Pool, own: Unit, listed: Mapping[str, list[Unit]]) -> None:
    count, role = own.weight[0], own.word.role
    groups = {units[0].word.role: units for units in listed.values() if len(units) == count}
    parts = FUSED.get(role, (role,))
    if not set(parts) <= groups.keys() or any(groups[part][0] not in pool.wanted for part in parts):
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
    pool.match_as(made, [own], [unit for group in wanted for unit in group])
    if len(parts) > 1:
        pool.by_turns(list(made), rows, lambda groups: lambda recipe: replace(recipe, groups=groups))


def _experts(units: Sequence[Unit]) -> dict[str, list[Unit]]:
    """Units of experts by their name, in the experts' order."""
    found: dict[str, list[Unit]] = {}
    for unit in sorted(units, key=lambda unit: unit.word.inner):
        found.setdefault(unit.word.last, []).append(unit)
    return found
