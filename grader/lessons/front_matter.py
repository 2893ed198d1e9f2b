"""What lists of lessons say of one, from its own ``lesson.toml``::

    title = "GPT-2"
    minutes = [90, 120]                  # an estimate, by the rule of grader/authoring/minutes.py
    difficulty = 2                       # of 5
    prerequisites = "you know PyTorch, and lesson 00"
    you_build = "LayerNorm, GELU, attention, MLP, block, model, generation"
    you_know = "the architecture that all others are a diff of"
    you_can = "build GPT-2 from its config and have it write the reference's text"

The opening of the notebook says the first four too, and they must agree (`require_opening`).
"""

import tomllib
from dataclasses import MISSING, dataclass, fields
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grader.errors import RecordingError

if TYPE_CHECKING:  # a lesson brings PyTorch, and `grader diff` reads one name of this module
    from grader.lessons.lesson import Lesson

FILE_NAME = "lesson.toml"
TAUGHT = ".lessons.toml"  # beside the released lessons: what of it goes with a release
HARDEST = 5
FIGURES = "figures"  # what lesson.toml says for grader/authoring/figures.py


@dataclass(frozen=True)
class FrontMatter:
    """What a list says of a lesson.

    title: without its number. minutes: from and to. difficulty: 1 to 5. you_build, you_know, you_can: they complete
    "you build ...", "and know afterwards ...", "afterwards you can ...". teaches: concepts, for `grader diff`.
    """

    title: str
    minutes: tuple[int, int]
    difficulty: int
    prerequisites: str
    you_build: str
    you_know: str
    you_can: str
    teaches: tuple[str, ...] = ()

    @property
    def dots(self) -> str:
        """The difficulty as it is shown: ●●○○○."""
        return "●" * self.difficulty + "○" * (HARDEST - self.difficulty)

    @property
    def hours(self) -> str:
        """How long it takes at most, in half hours: "1.5 h"."""
        return f"{ceil(self.minutes[1] / 30) / 2:g} h"

    @property
    def line(self) -> str:
        """The line in which the notebook's opening says what the lesson takes."""
        return f"{self.minutes[0]} to {self.minutes[1]} minutes · difficulty {self.dots} · {self.prerequisites}"


def read_front_matter(lesson: "Lesson") -> FrontMatter:
    """The lesson's front matter. Raises RecordingError where its lesson.toml is missing or says something else."""
    path = lesson.folder / FILE_NAME
    names = [field.name for field in fields(FrontMatter) if field.default is MISSING]
    found = read_toml(path, f"what lists say of the lesson: {', '.join(names)}")
    missing = [name for name in names if name not in found]
    more = [name for name in found if name not in (*names, "teaches", FIGURES)]
    if missing or more:
        what = f"lacks `{missing[0]}`" if missing else f"has `{more[0]}`, which no list shows"
        raise RecordingError(f"{path} {what}. It must hold: {', '.join(names)}.")
    listed = {name: value for name, value in found.items() if name != FIGURES}
    for name, value in listed.items():
        if what := _wrong(name, value):
            raise RecordingError(f"{path}: `{name}` must be {what}, and is {value!r}.")
    listed |= {name: tuple(value) for name, value in listed.items() if isinstance(value, list)}
    return FrontMatter(**listed)


def read_toml(path: Path, says: str) -> dict[str, Any]:
    """A file that an author writes. says: what it says. Raises RecordingError where it is missing, or no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordingError(f"{path} is missing. It says {says}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecordingError(f"{path} is not valid TOML: {error}. Mend that place.") from None


def number(lesson: "Lesson") -> str:
    """The number that a lesson's name begins with: "01"."""
    return lesson.name.partition("-")[0]


def require_opening(lesson: "Lesson") -> None:
    """Raise RecordingError unless the notebook's first cell has the title and the line of the lesson's front matter.

    A lesson that no list shows needs no lesson.toml.
    """
    if not (lesson.folder / FILE_NAME).exists():
        return
    front = read_front_matter(lesson)
    lines = lesson.cells()[0].source.splitlines() or [""]
    heading = f"# {number(lesson)} · {front.title}"
    if lines[0] != heading and not lines[0].startswith(f"{heading}: "):
        raise RecordingError(
            f"{lesson.twin} begins with `{lines[0]}`, and {FILE_NAME} has another title. Begin with `{heading}`, or go"
            " on after a colon; or change the title there."
        )
    if front.line not in lines:
        raise RecordingError(
            f"{lesson.twin}: the first cell does not say what {FILE_NAME} says. Give it the line `{front.line}`, or"
            " change minutes, difficulty or prerequisites there."
        )


def _wrong(name: str, value: Any) -> str:
    """What a value should be and is not; empty where it is."""
    if name == "minutes":
        whole = isinstance(value, list) and len(value) == 2 and all(type(minutes) is int for minutes in value)
        return "" if whole and 0 < value[0] <= value[1] else "two whole numbers, from and to, as in [90, 120]"
    if name == "difficulty":
        return "" if type(value) is int and 1 <= value <= HARDEST else f"a whole number from 1 to {HARDEST}"
    if name == "teaches":
        texts = isinstance(value, list) and all(isinstance(concept, str) for concept in value)
        return "" if texts else 'a list of concepts, as in ["rope", "head"]'
    fits = isinstance(value, str) and value.strip() and "\n" not in value and "|" not in value
    return "" if fits else "a text of one line without |, which would end a table's cell"
