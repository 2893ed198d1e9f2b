"""The syllabus as a picture: the lessons in tracks, what each needs, and how long each way through takes.

``solutions/tracks.toml`` says which track a lesson is in, by its number::

    [[tracks]]
    name = "Caches"
    lessons = ["02", "06"]

All else is each lesson's own front matter. A lesson needs those that the first part of its prerequisites names, up to
a semicolon: "you know GPT-2 (lesson 01); its code is given". A course without the file has no picture.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from grader.atlas.drawing.svg import Box, Canvas, fitted
from grader.errors import RecordingError
from grader.lessons.front_matter import FrontMatter, read_toml

FILE, PICTURE = "tracks.toml", "syllabus.svg"
COLOURS = ("mixer", "state", "norm", "query", "value", "mlp")  # one a track, beside its name
_LESSONS = re.compile(r"lessons? (\d\d(?:(?:, | and )\d\d)*)")
WIDTH, HEIGHT, ROW, GUTTER, TOP = 200.0, 40.0, 52.0, 46.0, 46.0
LANE, LANES = 7.0, 5  # between lines that stand side by side in a gutter


@dataclass(frozen=True)
class Stop:
    """A lesson in the picture. number: as in "03"; track: which one, from 0; needs: the numbers of other lessons."""

    number: str
    title: str
    minutes: tuple[int, int]
    track: int
    needs: tuple[str, ...]


@dataclass(frozen=True)
class Tracks:
    """The tracks by name, and their lessons in order."""

    names: tuple[str, ...]
    stops: tuple[Stop, ...]

    def way(self, track: int) -> list[Stop]:
        """What one takes for the whole of a track: its lessons, and all that they need."""
        wanted = {stop.number for stop in self.stops if stop.track == track}
        for stop in reversed(self.stops):
            if stop.number in wanted:
                wanted.update(stop.needs)
        return [stop for stop in self.stops if stop.number in wanted]


def read_tracks(root: Path, fronts: Mapping[str, FrontMatter]) -> Tracks | None:
    """The tracks of the course in `root`; None where it has no such file. fronts: the lessons, by their numbers.

    Raises RecordingError where a lesson is in no track, or in two, or where it needs one that comes later.
    """
    path = root / "solutions" / FILE
    if not path.is_file():
        return None
    listed = read_toml(path, "which track a lesson is in").get("tracks", [])
    places = [(number, index) for index, track in enumerate(listed) for number in track["lessons"]]
    for number in fronts:
        if (count := [known for known, _ in places].count(number)) != 1:
            raise RecordingError(f"{path}: lesson {number} is in {count or 'no'} tracks. Name it in one.")
    by_number = dict(places)
    stops = []
    for number, front in sorted(fronts.items()):
        needs = needed(front.prerequisites)
        if wrong := [other for other in needs if other >= number]:
            raise RecordingError(f"lesson {number} needs lesson {wrong[0]}, which comes later. Name earlier ones.")
        here = tuple(other for other in needs if other in fronts)
        stops.append(Stop(number, front.title, front.minutes, by_number[number], here))
    return Tracks(tuple(track["name"] for track in listed), tuple(stops))


def needed(prerequisites: str) -> tuple[str, ...]:
    """The numbers of the lessons that these prerequisites name before their first semicolon."""
    found = _LESSONS.findall(prerequisites.partition(";")[0])
    return tuple(sorted({number for group in found for number in re.findall(r"\d\d", group)}))


def hours(stops: Sequence[Stop]) -> str:
    """How long these lessons take together: "8 to 12 h", and one alone in half hours: "1.5 to 2 h"."""
    step = 30 if len(stops) == 1 else 60
    low, high = (round(sum(stop.minutes[end] for stop in stops) / step) * step / 60 for end in (0, 1))
    return f"{low:g} to {high:g} h" if low != high else f"{high:g} h"


def in_words(tracks: Tracks) -> str:
    """The picture in words, for its alternative text."""
    said = []
    for index, name in enumerate(tracks.names):
        of_it = [stop for stop in tracks.stops if stop.track == index]
        if of_it:
            said.append(f"{name}: {', '.join(map(_said, of_it))}")
    return "The lessons in tracks. " + ". ".join(said) + "."


def _said(stop: Stop) -> str:
    needs = f" (needs {', '.join(stop.needs)})" if stop.needs else ""
    return f"{stop.number} {stop.title}{needs}"


def ways(tracks: Tracks) -> str:
    """A table of the ways through the course: for each track its lessons with what they need, and the hours."""
    rows = [
        f"| {name} | {', '.join(stop.number for stop in way)} | {hours(way)} |"
        for index, name in enumerate(tracks.names)
        if (way := tracks.way(index))
    ]
    rows.append(f"| all of it | {tracks.stops[0].number} to {tracks.stops[-1].number} | {hours(tracks.stops)} |")
    return "\n".join(["| way through | lessons, with those that they need | time |", "|---|---|---|", *rows])


def picture(tracks: Tracks) -> str:
    """The picture as SVG: a column a track, a row a lesson, and a line from each lesson to those that need it."""
    shown = [index for index in range(len(tracks.names)) if any(stop.track == index for stop in tracks.stops)]
    columns = {track: place for place, track in enumerate(shown)}
    canvas = Canvas()
    boxes = {
        stop.number: Box(_left(columns[stop.track]), TOP + row * ROW, WIDTH, HEIGHT)
        for row, stop in enumerate(tracks.stops)
    }
    for stop in tracks.stops:
        for other in stop.needs:
            _connect(canvas, boxes[other], boxes[stop.number], tracks.stops.index(_stop(tracks, other)))
    for track, column in columns.items():
        role = COLOURS[track % len(COLOURS)]
        canvas.area(Box(_left(column), 14, WIDTH, 22), role, 11)
        canvas.text(_left(column) + WIDTH / 2, 29.5, tracks.names[track], "b", 12)
    for stop in tracks.stops:
        box, name = boxes[stop.number], f"{stop.number} · {stop.title}"
        canvas.area(box, COLOURS[stop.track % len(COLOURS)])
        canvas.text(box.cx, box.y + 17, name, "b", fitted(name, 13, WIDTH - 12, bold=True))
        canvas.text(box.cx, box.y + 32.5, hours([stop]), "", 11)
    width, height = _left(len(shown)), TOP + len(tracks.stops) * ROW + 4
    return canvas.written(width, height, "The syllabus", in_words(tracks))


def _left(column: int) -> float:
    return GUTTER + column * (WIDTH + GUTTER)


def _stop(tracks: Tracks, number: str) -> Stop:
    return next(stop for stop in tracks.stops if stop.number == number)


def _connect(canvas: Canvas, above: Box, below: Box, lane: int) -> None:
    """A line in the gutter beside the lower box, where no box is; each upper lesson has a lane of its own there."""
    x = below.x - 9 - LANE * (lane % LANES)
    start, end = (above.right if below.x > above.x else above.x), below.x
    if below.x < above.x:
        x, end = x + WIDTH + GUTTER, below.right
    y, y_end = above.y + HEIGHT / 2, below.y + HEIGHT / 2 + (lane % LANES - LANES // 2) * 7
    canvas.line((start, y), (x, y), (x, y_end), (end, y_end))
