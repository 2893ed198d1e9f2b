"""The syllabus as a picture: what it shows is read from the lessons' front matter and from the tracks alone."""

import re
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from grader.authoring.lists import stale_lists, write_lists
from grader.authoring.tracks import FILE, PICTURE, Tracks, hours, in_words, needed, picture, read_tracks, ways
from grader.errors import RecordingError
from grader.lessons.front_matter import FrontMatter, number, read_front_matter
from grader.lessons.lesson import lessons

ROOT = Path(__file__).resolve().parents[2]
TWO = (
    '[[tracks]]\nname = "Models"\nlessons = ["00", "01", "03"]\n\n[[tracks]]\nname = "Caches"\nlessons = ["02", "09"]\n'
)


def front(title: str, prerequisites: str, minutes: tuple[int, int] = (60, 90)) -> FrontMatter:
    more: dict[str, Any] = dict.fromkeys(("you_build", "you_know", "you_can"), "x")
    return FrontMatter(title, minutes, 2, prerequisites, **more)


FRONTS = {
    "00": front("First", "nothing is needed"),
    "01": front("Models", "you know lesson 00"),
    "02": front("Caches", "you know models (lesson 01); the code of lesson 00 is given", (120, 180)),
    "03": front("Both & more", "you know lessons 01 and 02"),
}


@pytest.fixture
def tracks(tmp_path: Path) -> Tracks:
    (tmp_path / "solutions").mkdir()
    (tmp_path / "solutions" / FILE).write_text(TWO)
    found = read_tracks(tmp_path, FRONTS)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("prerequisites", "numbers"),
    [
        ("nothing is needed", ()),
        ("you know GPT-2 (lesson 01); its code and lesson 04 are given", ("01",)),
        ("you know Qwen3 (lesson 03) and windows (lesson 06); experts (lesson 07) help", ("03", "06")),
        ("you know lessons 01, 02 and 05, and lesson 02", ("01", "02", "05")),
    ],
)
def test_a_lesson_needs_what_its_prerequisites_name_before_a_semicolon(
    prerequisites: str, numbers: tuple[str, ...]
) -> None:
    assert needed(prerequisites) == numbers


def test_a_way_through_takes_a_track_and_all_that_it_needs(tracks: Tracks) -> None:
    assert ways(tracks).splitlines()[2:] == [
        "| Models | 00, 01, 02, 03 | 5 to 8 h |",
        "| Caches | 00, 01, 02 | 4 to 6 h |",
        "| all of it | 00 to 03 | 5 to 8 h |",
    ]


def test_one_lesson_is_told_in_half_hours(tracks: Tracks) -> None:
    assert [hours([stop]) for stop in tracks.stops] == ["1 to 1.5 h", "1 to 1.5 h", "2 to 3 h", "1 to 1.5 h"]


def test_the_picture_shows_each_lesson_and_a_line_for_each_need(tracks: Tracks) -> None:
    drawn = ElementTree.fromstring(picture(tracks))
    texts = ["".join(text.itertext()) for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"Models", "Caches", "00 · First", "02 · Caches", "03 · Both & more"} <= set(texts)
    lines = [path for path in drawn.iter("{http://www.w3.org/2000/svg}path") if path.get("class") == "line"]
    assert len(lines) == sum(len(stop.needs) for stop in tracks.stops) == 4


def test_no_line_crosses_a_box(tracks: Tracks) -> None:
    """Lines run across in the row of the lesson that they leave, and down beside columns."""
    for drawn in (picture(tracks), (ROOT / "course" / PICTURE).read_text(encoding="utf-8")):
        boxes = [
            tuple(map(float, found))
            for found in re.findall(r'<rect class="\w+" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="40"', drawn)
        ]
        assert boxes
        for path in re.findall(r'<path class="line" d="([^"]+)"', drawn):
            points = [tuple(map(float, point)) for point in re.findall(r"([\d.]+) ([\d.]+)", path)]
            for left, top, width in boxes:
                inside = [(x, y) for x, y in points if left < x < left + width and top < y < top + 40]
                assert not inside, path


def test_the_words_say_what_the_picture_says(tracks: Tracks) -> None:
    assert in_words(tracks) == (
        "The lessons in tracks. Models: 00 First, 01 Models (needs 00), 03 Both & more (needs 01, 02)."
        " Caches: 02 Caches (needs 01)."
    )


def test_a_lesson_that_is_not_there_yet_is_not_drawn(tracks: Tracks) -> None:
    assert "09" not in {stop.number for stop in tracks.stops}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TWO.replace('"01", ', ""), "lesson 01 is in no tracks"),
        (TWO.replace('"09"', '"01"'), "lesson 01 is in 2 tracks"),
    ],
)
def test_a_lesson_is_in_one_track(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "solutions").mkdir()
    (tmp_path / "solutions" / FILE).write_text(text)
    with pytest.raises(RecordingError, match=said):
        read_tracks(tmp_path, FRONTS)


def test_a_lesson_does_not_need_a_later_one(tmp_path: Path) -> None:
    (tmp_path / "solutions").mkdir()
    (tmp_path / "solutions" / FILE).write_text(TWO)
    with pytest.raises(RecordingError, match="lesson 01 needs lesson 03, which comes later"):
        read_tracks(tmp_path, {**FRONTS, "01": front("Models", "you know lesson 03")})


def test_a_course_without_tracks_has_no_picture(tmp_path: Path) -> None:
    assert read_tracks(tmp_path, FRONTS) is None


def test_the_picture_of_this_course_shows_every_lesson_that_is_here() -> None:
    drawn = (ROOT / "course" / PICTURE).read_text(encoding="utf-8")
    for lesson in lessons(ROOT):
        assert f"{number(lesson)} · {read_front_matter(lesson).title}" in drawn


def test_a_stale_picture_is_found_and_written_anew(tmp_path: Path) -> None:
    for name in ("course/README.md", f"course/{PICTURE}", f"solutions/{FILE}"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for lesson in lessons(ROOT):
        target = tmp_path / "solutions" / lesson.name
        target.mkdir()
        for path in (lesson.exercises_file, lesson.twin, lesson.folder / "lesson.toml"):
            shutil.copy(path, target)
    write_lists(tmp_path)
    assert stale_lists(tmp_path) == {}
    (tmp_path / "course" / PICTURE).write_text("old")
    assert list(stale_lists(tmp_path)) == [tmp_path / "course" / PICTURE]
    write_lists(tmp_path)
    assert stale_lists(tmp_path) == {}
