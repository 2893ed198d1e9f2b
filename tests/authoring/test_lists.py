"""The lists of lessons are made from the lessons' own front matter, and a stale one is found."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from toy_course import write_course
from typer.testing import CliRunner

from grader.authoring.build import build
from grader.authoring.lists import stale_lists, write_lists
from grader.authoring.stale import check_build
from grader.cli import app
from grader.errors import GraderError, RecordingError
from grader.lessons.front_matter import FILE_NAME, TAUGHT, FrontMatter, require_opening
from grader.lessons.lesson import Lesson, lessons

ROOT = Path(__file__).resolve().parents[2]
OPENING = """\
# # {number} · {title}: small
#
# 10 to 20 minutes · difficulty ●●○○○ · nothing is needed
"""
FRONT = """\
title = "{title}"
minutes = [10, 20]
difficulty = 2
prerequisites = "nothing is needed"
you_build = "a line"
you_know = "`y = x`"
you_can = "build {title}"
"""
README = """\
# A course

<!-- lessons: grader build writes this list -->
<!-- end of lessons -->

Nothing else changes.
"""
SYLLABUS = """\
<!-- first lesson: grader build writes this list -->
old
<!-- end of first lesson -->

<!-- syllabus: grader build writes this list -->
<!-- end of syllabus -->

<!-- first check: grader build writes this list -->
<!-- end of first check -->
"""
MADE_README = """\
# A course

<!-- lessons: grader build writes this list -->

| lesson | you build | and know afterwards |
|---|---|---|
| [00 · Toy](course/00-toy) | a line | `y = x` |
| [01 · Next](course/01-next) | a line | `y = x` |

<!-- end of lessons -->

Nothing else changes.
"""
MADE_SYLLABUS = """\
<!-- first lesson: grader build writes this list -->

**Start here: [00 · Toy](00-toy/toy.ipynb)**

<!-- end of first lesson -->

<!-- syllabus: grader build writes this list -->

| lesson | time | difficulty | afterwards you can |
|---|---|---|---|
| [00 · Toy](00-toy/toy.ipynb) | 0.5 h | ●●○○○ | build Toy |
| [01 · Next](01-next/next.ipynb) | 0.5 h | ●●○○○ | build Next |

<!-- end of syllabus -->

<!-- first check: grader build writes this list -->

```
grader check 00-toy/toy.ipynb
```

<!-- end of first check -->
"""


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """Two lessons with front matter, never built, and the two files with empty lists."""
    for lesson, title in zip(write_course(tmp_path), ("Toy", "Next"), strict=True):
        text = lesson.twin.read_text().removeprefix("# %% [markdown]\n# # Two small exercises\n\n")
        opening = OPENING.format(number=lesson.name[:2], title=title)
        lesson.twin.write_text(f"# %% [markdown]\n{opening}\n{text}")
        (lesson.folder / FILE_NAME).write_text(FRONT.format(title=title))
    (tmp_path / "README.md").write_text(README)
    (tmp_path / "course").mkdir()
    (tmp_path / "course" / "README.md").write_text(SYLLABUS)
    return tmp_path


def replace_in(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_lists_are_written_from_front_matter_and_nothing_else_changes(course: Path) -> None:
    assert write_lists(course) == [course / "README.md", course / "course" / "README.md"]
    assert (course / "README.md").read_text() == MADE_README
    assert (course / "course" / "README.md").read_text() == MADE_SYLLABUS
    assert write_lists(course) == [] and stale_lists(course) == {}


def test_what_a_lesson_teaches_goes_with_the_release(course: Path) -> None:
    first, _ = lessons(course)
    replace_in(first.folder / FILE_NAME, "you_can", 'teaches = ["rope", "head"]\nyou_can')
    assert course / "course" / TAUGHT in write_lists(course)
    told = tomllib.loads((course / "course" / TAUGHT).read_text())
    assert told == {"00-toy": {"title": "Toy", "you_can": "build Toy", "teaches": ["rope", "head"]}}
    replace_in(first.folder / FILE_NAME, '"rope", ', "")
    (problem,) = stale_lists(course)
    assert problem == course / "course" / TAUGHT


def test_a_build_writes_the_lists_and_a_check_finds_a_stale_one(course: Path) -> None:
    first, second = lessons(course)
    changed = build(first)
    assert {course / "README.md", course / "course" / "README.md"} <= set(changed)
    assert (course / "README.md").read_text() == MADE_README
    assert check_build([first]) == []
    replace_in(second.folder / FILE_NAME, "a line", "a curve")
    (problem,) = check_build([first])
    assert problem == (
        "README.md: its list of lessons is not what their lesson.toml say. Mend it with: grader build --lists"
    )


def test_the_command_writes_the_lists_alone(course: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(course)
    assert CliRunner().invoke(app, ["build", "--lists"]).exit_code == 0
    assert (course / "README.md").read_text() == MADE_README
    assert not list(course.rglob("*.ipynb"))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (FILE_NAME, 'title = "Toy"', 'title = "Game"', r"begins with `# 00 · Toy: small`.*Begin with `# 00 · Game`"),
        (
            FILE_NAME,
            "[10, 20]",
            "[10, 30]",
            r"Give it the line `10 to 30 minutes · difficulty ●●○○○ · nothing is needed`",
        ),
        ("toy.py", "●●○○○", "●●●○○", r"Give it the line `10 to 20 minutes · difficulty ●●○○○ · nothing is needed`"),
    ],
)
def test_an_opening_that_says_something_else_stops_a_build_and_a_check(
    course: Path, file: str, old: str, new: str, message: str
) -> None:
    first, _ = lessons(course)
    replace_in(first.folder / file, old, new)
    with pytest.raises(RecordingError, match=message):
        require_opening(first)
    with pytest.raises(GraderError, match=message):
        build(first)
    assert not first.notebook.exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("difficulty = 2\n", "", "lacks `difficulty`. It must hold: title, minutes"),
        ("difficulty = 2", "difficulty = 6", "`difficulty` must be a whole number from 1 to 5, and is 6"),
        ("[10, 20]", "20", "`minutes` must be two whole numbers"),
        ("[10, 20]", "[20, 10]", "`minutes` must be two whole numbers"),
        ('"a line"', '"a | line"', r"`you_build` must be a text of one line without \|"),
        ('"a line"', '""', "`you_build` must be a text"),
        ('"a line"', '"a line"\nauthor = "me"', "has `author`, which no list shows"),
        ('"a line"', '"a line"\nteaches = "rope"', "`teaches` must be a list of concepts"),
        ('"a line"', "a line", "is not valid TOML"),
    ],
)
def test_front_matter_that_is_not_well_formed_is_refused(course: Path, old: str, new: str, message: str) -> None:
    replace_in(course / "solutions" / "00-toy" / FILE_NAME, old, new)
    with pytest.raises(RecordingError, match=message) as raised:
        write_lists(course)
    assert "\n" not in str(raised.value) and FILE_NAME in str(raised.value)
    assert (course / "README.md").read_text() == README


def test_a_lesson_without_front_matter_is_refused_where_it_is_listed(course: Path) -> None:
    (course / "solutions" / "00-toy" / FILE_NAME).unlink()
    with pytest.raises(RecordingError, match=r"00-toy/lesson\.toml is missing. It says what lists say of the lesson"):
        write_lists(course)
    for path in (course / "README.md", course / "course" / "README.md"):
        path.write_text("# No lists here\n")
    assert write_lists(course) == []


def test_a_list_of_an_unknown_name_is_refused(course: Path) -> None:
    path = course / "README.md"
    path.write_text(README.replace("lessons:", "lesson:").replace("of lessons", "of lesson"))
    with pytest.raises(RecordingError, match=r"a list named 'lesson'\. There are: lessons, syllabus"):
        write_lists(course)


def test_what_a_lesson_takes_is_shown_in_hours_and_dots() -> None:
    def front(*minutes: int) -> FrontMatter:
        more: dict[str, Any] = dict.fromkeys(("title", "prerequisites", "you_build", "you_know", "you_can"), "x")
        return FrontMatter(minutes=minutes, difficulty=4, **more)  # type: ignore[arg-type]

    assert [front(1, most).hours for most in (10, 30, 40, 60, 90, 120, 170)] == [
        *("0.5 h", "0.5 h", "1 h", "1 h", "1.5 h", "2 h", "3 h")
    ]
    assert front(1, 2).dots == "●●●●○"


@pytest.mark.parametrize("lesson", lessons(ROOT), ids=lambda lesson: lesson.name)
def test_a_lessons_opening_says_what_lists_say(lesson: Lesson) -> None:
    assert (lesson.folder / FILE_NAME).exists()
    require_opening(lesson)


def test_the_lists_of_this_course_are_up_to_date() -> None:
    assert stale_lists(ROOT) == {}
    text = (ROOT / "README.md").read_text() + (ROOT / "course" / "README.md").read_text()
    outside = re.sub(r"(?s)<!-- [a-z ]+: grader build writes this list -->.*?<!-- end of [a-z ]+ -->", "", text)
    assert not re.search(r"\]\((course/)?\d\d-", outside), "a list of lessons that no build writes"
