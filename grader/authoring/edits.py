"""A mistake's edits, and how they become one change of a solution's text."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from grader.errors import RecordingError
from grader.lessons.exercise import Mistake


@dataclass(frozen=True)
class Edits:
    """A mistake's places in the solution, and what stands there instead.

    where: where all this is written, for errors. shipped: where the mistake was published. mend: what to do where a
    place is not in the solution once. A text of several lines has none of the indentation that it has in the solution.
    """

    where: str
    name: str
    hint: str
    places: Sequence[str]
    puts: Sequence[str]
    shipped: Sequence[str] = ()
    mend: str = "Copy the text from there, with enough around it."


def fitted(edits: Edits, source: str) -> Mistake:
    """The mistake as one change of the solution's text: from its first place to the end of its last.

    Raises RecordingError where a place is not in the solution's cell, or is there twice.
    """
    if len(edits.places) != len(edits.puts):
        raise RecordingError(
            f"{edits.where} changes {len(edits.puts)} of {len(edits.places)} places. Give one text for each place."
        )
    found = sorted((*_find(edits, place, source), put) for place, put in zip(edits.places, edits.puts, strict=True))
    begin, last = found[0][0], found[-1][1]
    changed, at = "", begin
    for start, end, put in found:
        if start < at:
            raise RecordingError(f"{edits.where} has places that overlap. Name each part of the solution once.")
        changed += source[at:start] + _indented(put, _indentation(source, start))
        at = end
    return Mistake(edits.name, edits.hint, source[begin:last], changed, tuple(edits.shipped))


def _find(edits: Edits, place: str, source: str) -> tuple[int, int]:
    """Where a place begins and ends in the solution."""
    first = place.partition("\n")[0]
    if not first:
        raise RecordingError(f"{edits.where} has an empty place. Give a text of the solution's cell.")
    starts = [match.start() for match in re.finditer(re.escape(first), source)]
    found = []
    for start in starts:
        text = _indented(place, _indentation(source, start))
        if source.startswith(text, start):
            found.append((start, start + len(text)))
    if len(found) != 1:
        times = "not at all" if not found else f"{len(found)} times"
        raise RecordingError(
            f"{edits.where}: {short(place)} occurs {times} in the solution's cell, and must occur once. {edits.mend}"
        )
    return found[0]


def _indentation(source: str, position: int) -> str:
    line = source[source.rfind("\n", 0, position) + 1 :]
    return line[: len(line) - len(line.lstrip())]


def _indented(text: str, indentation: str) -> str:
    """The text with all lines but its first indented."""
    return "\n".join(f"{indentation}{line}" if i and line else line for i, line in enumerate(text.split("\n")))


def short(text: str) -> str:
    """A text's first line, for errors."""
    first, _, rest = text.partition("\n")
    return f"`{first}{' ...' if rest else ''}`"
