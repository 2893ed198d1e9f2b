"""A transcript: what a program did, event by event, one event a line of text.

An exercise whose `axes` is "events" has transcripts for outputs: the text's bytes, uint8 [bytes]. Each line is an
event, as a harness's call of a model, a refusal, or a file that it wrote. They are compared exactly, and a report shows
the first event that differs.
"""

import re

from torch import Tensor

from grader.checks.observation import temporary_folder

EVENTS = ("events",)
LONGEST = 160  # characters of an event that are shown


def events_of(output: Tensor) -> list[str]:
    """The lines of a transcript. Bytes that are no text, and characters that a terminal would obey, become escapes."""
    text = bytes(output.flatten().tolist()).decode("utf-8", "backslashreplace")
    text = re.sub(temporary_folder(), ".../", text)
    return ["".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in text.split("\n")]


def describe_transcript(got: Tensor, want: Tensor) -> str:
    """The first event that differs: what came and what belongs there."""
    if got.dtype != want.dtype or got.ndim != 1:
        return f"it gave {str(got.dtype).removeprefix('torch.')} of shape {list(got.shape)}, where a transcript belongs"
    own, right = events_of(got), events_of(want)
    first = next((i for i, (a, b) in enumerate(zip(own, right, strict=False)) if a != b), min(len(own), len(right)))
    if first == len(own):
        return f"it ends after {_events(first)}, and the next should be {_around(right[first], '')}"
    if first == len(right):
        return f"it should end after {_events(first)}, and goes on with {_around(own[first], '')}"
    yours, theirs = _around(own[first], right[first]), _around(right[first], own[first])
    return f"event {first + 1} of {len(right)} differs: yours is {yours}, and {theirs} belongs there"


def _events(count: int) -> str:
    return f"{count} event{'' if count == 1 else 's'}"


def _around(event: str, other: str) -> str:
    """An event, or of a long one the part in which it begins to differ from the other."""
    if len(event) <= LONGEST:
        return f"`{event}`"
    start = max(0, min(_common(event, other) - LONGEST // 4, len(event) - LONGEST))
    dots = "..." if start else "", "..." if start + LONGEST < len(event) else ""
    return f"`{dots[0]}{event[start : start + LONGEST]}{dots[1]}`"


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with that are the same."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
