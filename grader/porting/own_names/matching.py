"""Which of a program's tensors is which of the reference's, within one layer or outside of all.

First what the names say, then what only the shapes leave possible, then the order. What nothing of these decides
is a question, with its answers in order of likelihood; running the modules answers it.
"""

import difflib
from collections.abc import Callable, Sequence

from grader.porting.own_names.experts import match_experts
from grader.porting.own_names.fused import match_fused
from grader.porting.own_names.pool import Pool, fit
from grader.porting.own_names.questions import Matched, Sizes
from grader.porting.own_names.units import Unit

OF_ATTENTION = {"q", "k", "v", "o", "q_norm", "k_norm"}  # what names that say one of these never mean another


def match(own: Sequence[Unit], wanted: Sequence[Unit], sizes: Sizes) -> Matched:
    """All of a program's units that can be matched with the reference's."""
    pool = Pool(own, wanted, sizes)
    _match_by(pool, lambda unit: unit.relative)
    _match_by(pool, lambda unit: (unit.word.last, unit.word.inner, unit.word.place) if unit.word.at == () else None)
    _match_by(pool, _role_of)
    match_fused(pool)
    match_experts(pool)
    _match_norms(pool)
    _match_alike(pool)
    _match_the_last(pool)
    pool.like_the_others()
    return pool.found


def _match_by(pool: Pool, key: Callable[[Unit], object]) -> None:
    """Match units that alone have the same key."""
    for value in list(dict.fromkeys(map(key, pool.own))):
        own = [unit for unit in pool.own if key(unit) == value]
        wanted = [unit for unit in pool.wanted if key(unit) == value]
        if value and len(own) == len(wanted) == 1:
            pool.take(own[0], wanted[0], "name")


def _match_norms(pool: Pool) -> None:
    """A layer's norms: by where they stand, as far as the names say, and by their order."""
    places = [unit.word.at[0] for unit in pool.wanted if unit.word.role == "norm" and unit.word.at]
    for place in places:
        own = [u for u in pool.own if u.word.role == "norm" and _stands(u, places) == place]
        wanted = [u for u in pool.wanted if u.word.role == "norm" and u.word.at[:1] == (place,)]
        if len(own) == len(wanted) == 1:
            pool.take(own[0], wanted[0], "name")
    own = [unit for unit in pool.own if unit.word.role == "norm"]
    wanted = [unit for unit in pool.wanted if unit.word.role == "norm"]
    if len(own) != len(wanted) or not own:
        return
    numbered = all(unit.word.last[-1:].isdigit() for unit in own)
    own.sort(key=lambda unit: unit.word.last if numbered else "")
    pairs = list(zip(own, wanted, strict=True))
    done = [mine for mine, theirs in pairs if pool.take(mine, theirs, "order")]
    if len(done) == 2 == len(pairs) and not numbered:
        pool.swap(done)


def _match_alike(pool: Pool) -> None:
    """What is left: by shape where that leaves one possibility, else by likeness of names and by order."""
    for unit in list(pool.own):
        if unit not in pool.own:
            continue
        candidates = [w for w in pool.wanted if _can_be(unit, w)]
        rivals = [u for u in pool.own if any(_can_be(u, w) for w in candidates)]
        if len(candidates) == len(rivals) == 1:
            pool.take(unit, candidates[0], "shape")
        elif len(candidates) == len(rivals) == 2:
            _take_two(pool, rivals, candidates)
        elif len(candidates) == len(rivals):
            for rival in rivals:
                left = [w for w in candidates if w in pool.wanted]
                best = max(left, key=lambda w: (_likeness(rival, w), -candidates.index(w)))
                pool.take(rival, best, "order")


def _match_the_last(pool: Pool) -> None:
    """What is the only one left on both sides, where it holds as many values and its name says nothing else."""
    if len(pool.own) == len(pool.wanted) == 1:
        own, wanted = pool.own[0], pool.wanted[0]
        other = own.word.role and wanted.word.role and own.word.role != wanted.word.role
        if own.names.keys() == wanted.names.keys() and not other:
            pool.take(own, wanted, "only")


def _take_two(pool: Pool, own: list[Unit], wanted: list[Unit]) -> None:
    straight = _likeness(own[0], wanted[0]) + _likeness(own[1], wanted[1])
    crossed = _likeness(own[0], wanted[1]) + _likeness(own[1], wanted[0])
    wanted = wanted[::-1] if crossed > straight + 0.5 else wanted
    if pool.take(own[0], wanted[0], "order") and pool.take(own[1], wanted[1], "order"):
        pool.swap(own)


def _can_be(own: Unit, wanted: Unit) -> bool:
    if own.names.keys() != wanted.names.keys() or own.word.inner != wanted.word.inner or own.shared != wanted.shared:
        return False
    if "norm" in own.word.role and not ("norm" in wanted.word.role or "norm" in wanted.word.last):
        return False
    if {own.word.role, wanted.word.role} <= OF_ATTENTION and own.word.role != wanted.word.role:
        return False
    places = own.word.place, wanted.word.place
    if all(places) and places[0] != places[1]:
        return False
    return all(fit(own, wanted, leaf) is not None for leaf in own.names)


def _role_of(unit: Unit) -> object:
    word = unit.word
    return (word.role, word.inner, unit.shared) if word.role and word.role != "norm" else None


def _stands(unit: Unit, places: Sequence[str]) -> str:
    return next((place for place in unit.word.at if place in places), "")


def _likeness(own: Unit, wanted: Unit) -> float:
    return difflib.SequenceMatcher(None, own.word.last, wanted.word.last).ratio()
