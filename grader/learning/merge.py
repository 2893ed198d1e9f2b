"""Two changes of one notebook, the learner's and the course's, become one: three ways, cell by cell, by id.

What the learner changed or added stays, whatever kind of cell it is. What only the course changed is new. Where both
changed a cell, both stand in the notebook, one below the other, with a sentence in between.
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import nbformat
from nbformat import NotebookNode

from grader.digest import digest
from grader.lessons.cells import guess_in, identity

BOTH_CHANGED = (
    "**The course has a new version of this cell, and you changed it too.** Yours is above, the course's is below. "
    "Delete the one that you don't need, and this note."
)
NO_LONGER_THERE = (
    "**The course no longer has the cell below.** It is still here because you changed it. "
    "Delete it if you don't need it, and this note."
)
NEW_STUB = "**The course has a new version of this exercise's stub.** Your code above is as you left it. The new stub:"
ALIKE = 0.6  # of an exercise's text: from there on a stub of another name and id is the same one, renamed
ROLES = ("exercise", "check", "given", "prediction", "nbgrader")
PROTECTED = (*ROLES, "deletable", "editable")
TRUSTED = "trusted"  # Jupyter's mark, which is in no file: grader.learning.trust

Cells = Mapping[str, NotebookNode]


@dataclass(frozen=True)
class Merged:
    """A merged notebook, and how many of its cells are which.

    new: from the course alone. yours: changed or added by the learner. twice: changed by both, and there twice.
    """

    notebook: NotebookNode
    new: int
    yours: int
    twice: int


def merge(base: NotebookNode, mine: NotebookNode, new: NotebookNode) -> Merged:
    """The learner's notebook `mine`, made from the release `base`, brought to the release `new`.

    None of the three is changed. A cell is known by its id, and one that lost its id by its exercise or its text.
    """
    renamed = _renamed_exercises(base.cells, new.cells)
    old = {renamed.get(cell.id, cell.id): cell for cell in base.cells}
    course = {cell.id: cell for cell in new.cells}
    own = _with_known_ids(mine.cells, old, course)
    cells: list[NotebookNode] = []
    counts = {"new": 0, "yours": 0, "twice": 0}
    taken = {*old, *course, *own}
    for name in _order(list(old), list(own), list(course)):
        kind, settled = _settled(old.get(name), own.get(name), course.get(name), own)
        if kind:
            counts[kind] += 1
        for cell in settled:
            if not cell.id:
                cell.id = unused_id(cell.source, taken)
            taken.add(cell.id)
        cells += settled
    metadata = {**deepcopy(mine.metadata), **deepcopy(new.metadata)}
    notebook = nbformat.from_dict({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})
    return Merged(notebook, **counts)


def unknown_base(mine: NotebookNode, new: NotebookNode) -> NotebookNode:
    """What to merge with where nobody knows the release that `mine` was made from.

    Only cells that both have: so every difference counts as the learner's, and a cell that they lack is new.
    """
    known = {*_with_known_ids(mine.cells, {}, {cell.id: cell for cell in new.cells})}
    base = deepcopy(new)
    base.cells = [cell for cell in base.cells if cell.id in known]
    return base


def renamed_exercises(base: NotebookNode, new: NotebookNode) -> dict[str, str]:
    """Old name -> new name, of the exercises that are called otherwise in the new release."""
    ids = _renamed_exercises(base.cells, new.cells)
    names = {cell.id: cell.metadata["exercise"] for cell in new.cells if "exercise" in cell.metadata}
    pairs = {
        cell.metadata["exercise"]: names.get(ids.get(cell.id, cell.id))
        for cell in base.cells
        if "exercise" in cell.metadata
    }
    return {old: name for old, name in pairs.items() if name is not None and name != old}


def same(one: NotebookNode, other: NotebookNode) -> bool:
    """Whether two cells are alike for a reader: type, text and pasted pictures. Outputs and metadata don't count."""
    return _content(one) == _content(other)


def unused_id(text: str, taken: Iterable[str]) -> str:
    """An id for a cell with that text, other than all that are taken."""
    taken, number = set(taken), 0
    while (found := digest(f"{text}{number or ''}")[:12]) in taken:
        number += 1
    return found


def _content(cell: NotebookNode) -> tuple[str, str, Any]:
    return cell.cell_type, cell.source, cell.get("attachments") or {}


def _settled(
    base: NotebookNode | None, mine: NotebookNode | None, new: NotebookNode | None, own: Cells
) -> tuple[str, list[NotebookNode]]:
    """What stands in a cell's place, and as what it counts: "new", "yours", "twice", or "" for a cell as it was."""
    if mine is None:
        if new is None or (base is not None and same(base, new) and not _has_role(new)):
            return "", []
        return "new", [deepcopy(new)]
    if base is None:
        if new is None:
            return "yours", [deepcopy(mine)]
        base = new  # an update that did not end had put it there
    if new is None:
        changed = not same(mine, base)
        return ("yours", [_note(NO_LONGER_THERE), _detached(mine)]) if changed else ("", [])
    if same(mine, base) or same(mine, new):
        as_it_was = same(mine, new)
        return "" if as_it_was else "new", [_in_place_of(mine, new) if as_it_was else deepcopy(new)]
    if same(base, new):
        return "yours", [_in_place_of(mine, new)]
    if "exercise" in new.metadata:
        shown = _shown_stub(new)
        there = any(cell.source == shown for cell in own.values())
        return "twice", [_in_place_of(mine, new), *([] if there else [_note(shown)])]
    if (asked := _with_guess(new, mine)) is not None:
        return "yours", [asked]
    return "twice", [_detached(mine), _note(BOTH_CHANGED), deepcopy(new)]


def _with_guess(new: NotebookNode, mine: NotebookNode) -> NotebookNode | None:
    """The course's question as it is asked now, with the learner's guess; None where they wrote something else."""
    own, place = guess_in(mine.source), guess_in(new.source)
    if "prediction" not in new.metadata or own is None or place is None:
        return None
    cell = _in_place_of(mine, new)
    cell.source = new.source[: place.start] + mine.source[own.start : own.stop] + new.source[place.stop :]
    return cell


def _in_place_of(mine: NotebookNode, new: NotebookNode) -> NotebookNode:
    """The learner's cell in the course's place: their text and outputs; what the cell is for is the course's to say.

    Whether outputs are trusted goes with the outputs.
    """
    cell = deepcopy(mine)
    kept = {key: value for key, value in mine.metadata.items() if key not in PROTECTED}
    said = {key: value for key, value in new.metadata.items() if key != TRUSTED}
    cell.metadata = nbformat.from_dict(deepcopy({**said, **kept}))
    cell.id = new.id
    return cell


def _detached(mine: NotebookNode) -> NotebookNode:
    """The learner's cell as one of their own, which no check and no gradebook knows."""
    cell = deepcopy(mine)
    cell.metadata = nbformat.from_dict({key: value for key, value in cell.metadata.items() if key not in PROTECTED})
    cell.id = ""
    return cell


def _note(text: str) -> NotebookNode:
    return nbformat.from_dict({"cell_type": "markdown", "id": "", "metadata": {}, "source": text})


def _shown_stub(cell: NotebookNode) -> str:
    fence = "```"
    while fence in cell.source:
        fence += "`"
    return f"{NEW_STUB}\n\n{fence}python\n{cell.source}\n{fence}"


def _has_role(cell: NotebookNode) -> bool:
    """Whether the lesson can't do without the cell: it comes back where it was deleted."""
    return any(role in cell.metadata for role in ROLES)


def _with_known_ids(cells: Sequence[NotebookNode], old: Cells, course: Cells) -> dict[str, NotebookNode]:
    """The learner's cells by the ids that the releases know them by, in order; their own cells get ids of their own.

    Editors that know no ids give every cell another, or none, and some keep the old one in the metadata.
    """
    known = {**old, **{name: cell for name, cell in course.items() if name not in old}}
    found: list[str] = []
    for cell in cells:
        given = [str(name) for name in (cell.get("id"), cell.metadata.get("id")) if name]
        name = next((name for name in given if name in known and name not in found), "")
        if name and name not in old and not same(cell, known[name]) and not _same_role(cell, known[name]):
            name = ""  # of the learner's own making, by a coincidence
        found.append(name)
    free = [name for name in known if name not in found]
    for place, cell in enumerate(cells):
        if not found[place]:
            match = next((name for name in free if identity(cell) == identity(known[name])), "")
            if match:
                found[place] = match
                free.remove(match)
    taken = {*known, *found}
    for place, cell in enumerate(cells):
        if not found[place]:
            given_id = str(cell.get("id") or "")
            found[place] = given_id if given_id and given_id not in taken else unused_id(cell.source, taken)
            taken.add(found[place])
    named = {}
    for name, cell in zip(found, cells, strict=True):
        named[name] = deepcopy(cell)
        named[name].id = name
    return named


def _same_role(one: NotebookNode, other: NotebookNode) -> bool:
    return identity(one)[0] not in ("markdown", "other") and identity(one) == identity(other)


def _renamed_exercises(base: Sequence[NotebookNode], new: Sequence[NotebookNode]) -> dict[str, str]:
    """Old id -> new id, of exercises and checks that got another id too: by their stub's text."""
    before, now = ({c.id: c for c in cells if "exercise" in c.metadata} for cells in (base, new))
    gone = [cell for name, cell in before.items() if name not in now]
    come = [cell for name, cell in now.items() if name not in before]
    found = {}
    for old in gone:
        alike = {cell.id: SequenceMatcher(None, old.source, cell.source, autojunk=False).ratio() for cell in come}
        best = max(alike, key=lambda name: alike[name], default="")
        if best and alike[best] >= ALIKE:
            found[old.id] = best
            come = [cell for cell in come if cell.id != best]
            _pair_checks(found, (base, old.metadata["exercise"]), (new, now[best].metadata["exercise"]))
    return found


def _pair_checks(
    found: dict[str, str], old: tuple[Sequence[NotebookNode], str], new: tuple[Sequence[NotebookNode], str]
) -> None:
    pair = [next((c.id for c in cells if c.metadata.get("check") == name), "") for cells, name in (old, new)]
    if all(pair):
        found[pair[0]] = pair[1]


def _order(base: list[str], mine: list[str], new: list[str]) -> list[str]:
    """Every cell's id in the order of the merged notebook: the course's, or the learner's if only they moved cells."""
    first, second = (mine, new) if _moved(base, mine) and not _moved(base, new) else (new, mine)
    result = list(first)
    there, place = set(first), 0
    for name in second:  # each stays behind the cell that it followed
        if name in there:
            place = result.index(name) + 1
        else:
            result.insert(place, name)
            there.add(name)
            place += 1
    return result


def _moved(base: list[str], other: list[str]) -> bool:
    common = set(base) & set(other)
    return [name for name in base if name in common] != [name for name in other if name in common]
