"""One exercise that is left out costs at most its own points: the table in the docs, and a part of it done again."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from solved import every_lesson, solved

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT / "scripts"))
import points_lost  # type: ignore[import-not-found]  # noqa: E402


@pytest.fixture(autouse=True)
def jails_end() -> Iterator[None]:
    yield
    points_lost.close_jails()


def table() -> dict[tuple[str, str], list[float]]:
    lines = points_lost.PAGE.read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[2:3].isdigit()]
    return {(lesson, exercise): [float(n) for n in numbers] for lesson, exercise, *numbers in cells}


def test_the_table_has_every_exercise_and_none_costs_more_than_it_is_worth() -> None:
    found = table()
    assert set(found) == {(lesson.name, name) for lesson in every_lesson() for name in lesson.recording.exercises}
    for row, (worth, *each) in found.items():
        assert all(0 < lost <= worth for lost in each), row


@pytest.mark.parametrize(
    ("lesson", "exercise"),
    [("01-gpt2", "gpt2.conv1d"), ("05-mla", "mla.compress"), ("06-sliding-window", "sliding_window.mask")],
)
def test_the_table_is_what_grading_gives(lesson: str, exercise: str) -> None:
    bundle = points_lost.bundle_of(solved(lesson).lesson)
    _, *written = table()[lesson, exercise]
    assert [points_lost.lost(bundle, exercise, way) for way in points_lost.WAYS] == written
