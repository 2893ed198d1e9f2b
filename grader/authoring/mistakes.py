"""Known mistakes as data: a lesson's ``mistakes.toml``, and the families of mistakes that lessons share.

``mistakes.toml`` holds tables named after the exercises. A table is one place in the solution; every line in it
is a mistake: its name, what stands at that place instead, and the hint::

    [[gemma3.rms_norm]]
    at = "1.0 + self.weight"
    "the weight is taken as 1 - w" = ["1.0 - self.weight",
      "Which sign stands before the weight in the reference?"]

Where a mistake needs two edits, `at` is a list of places, and so is what stands there instead. A text of several
lines is written without the indentation that it has in the solution. A third value says where the mistake
shipped: ``{ shipped = ["owner/repo#123"] }``, an issue, a pull request or, as ``owner/repo@1a2b3c4``, a commit.

A table with `family` takes mistakes from ``families/<family>.toml``, here or in the lesson's folder. The lesson gives
the text that stands for each ``{placeholder}`` there; every mistake of which all placeholders are given applies::

    [[gemma3.rms_norm]]
    family = "norm"
    root = "torch.rsqrt(mean_square + self.eps)"
    root_plus_eps = "(1 / (torch.sqrt(mean_square) + self.eps))"
    hints."eps is missing" = ["A hint of this lesson's own.", "the reason why the family's does not fit"]
    without."the weight is missing" = "the reason why it does not apply here"

A mistake of a family has `hint`, `at`, `put` and, where it shipped, `shipped`.
"""

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from grader.authoring.edits import Edits, fitted, short
from grader.errors import RecordingError
from grader.lessons.exercise import Exercise, Mistake
from grader.lessons.front_matter import read_toml
from grader.lessons.lesson import Lesson
from grader.recordings.format import SHIPPED

FILE_NAME = "mistakes.toml"
FAMILIES = Path(__file__).parent / "families"
PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")
OF_A_FAMILY = {"hint", "at", "put"}


def with_mistakes(exercises_file: str | Path, exercises: Sequence[Exercise]) -> list[Exercise]:
    """The exercises with the mistakes of the ``mistakes.toml`` beside their own file, in the file's order.

    exercises_file: the ``exercises.py`` that defines them. Raises RecordingError, naming file, table and key, where
    the mistakes are not well formed, or don't fit the solution cells of the lesson's notebook.
    """
    lesson = Lesson(Path(exercises_file).parent)
    path = lesson.folder / FILE_NAME
    tables = _tables_by_exercise(path)
    names = [exercise.name for exercise in exercises]
    for name in tables:
        if name not in names:
            raise RecordingError(f"{path}: [[{name}]] is no exercise. Name one of exercises.py: {', '.join(names)}.")
    return [
        replace(exercise, mistakes=_mistakes_of(path, exercise.name, lesson, tables[exercise.name]))
        if exercise.name in tables
        else exercise
        for exercise in exercises
    ]


def files_read(folder: Path) -> list[Path]:
    """The files that a lesson's mistakes come from: its mistakes.toml, and the families used there."""
    path = folder / FILE_NAME
    if not path.exists():
        return []
    tables = [table for tables in _tables_by_exercise(path).values() for table in tables]
    families = sorted({str(table["family"]) for table in tables if "family" in table})
    return [path, *(_family_file(name, folder) for name in families)]


# The tables of an exercise


def _mistakes_of(path: Path, exercise: str, lesson: Lesson, tables: Sequence[Mapping[str, Any]]) -> list[Mistake]:
    source = lesson.source_of(exercise)
    mistakes: list[Mistake] = []
    unfit: list[str] = []
    for table in tables:
        where = f"{path}: [[{exercise}]]"
        family = "family" in table
        for edits in _from_family(where, table, path.parent) if family else _from_place(where, table):
            if any(mistake.name == edits.name for mistake in mistakes):
                raise RecordingError(
                    f"{edits.where} is there twice. Give each of the exercise's mistakes its own name."
                )
            try:
                mistakes.append(fitted(edits, source))
            except RecordingError as error:
                unfit.append(str(error))
    if unfit:
        raise RecordingError("\n".join(unfit))
    return mistakes


def _from_place(where: str, table: Mapping[str, Any]) -> Iterator[Edits]:
    """The mistakes of a table that is a place."""
    if "at" not in table:
        raise RecordingError(f"{where} has neither `at`, a place in the solution, nor `family`. Add one of them.")
    places = _texts(table["at"], f"{where}, `at`")
    shown = f"{where} at {short(places[0])}"
    for name, value in table.items():
        if name == "at":
            continue
        key = f"{shown}, {name!r}"
        if not isinstance(value, list) or len(value) not in (2, 3) or not isinstance(value[1], str):
            raise RecordingError(f"{key} must be a list: what stands there instead, and the hint.")
        more = value[2] if len(value) == 3 else {"shipped": []}
        if not isinstance(more, dict) or list(more) != ["shipped"]:
            raise RecordingError(f'{key}: the third value must be {{ shipped = ["owner/repo#123"] }}.')
        puts = _texts(value[0], key)
        yield Edits(key, name, value[1], places, puts, _references(more["shipped"], key))


def _from_family(where: str, table: Mapping[str, Any], folder: Path) -> Iterator[Edits]:
    """The mistakes of a family of which the lesson's table gives every placeholder."""
    family = str(table["family"])
    where = f"{where}, family {family!r}"
    known = _read_family(_family_file(family, folder))
    mend = (
        f"Copy the placeholders' texts from there. Where the words that {family}.toml puts around them do not fit, take"
        ' a placeholder out of this table, or say why the mistake is left out: without."its name" = "why".'
    )
    without, hints = table.get("without", {}), table.get("hints", {})
    words = {key: value for key, value in table.items() if key not in ("family", "without", "hints")}
    for key, value in words.items():
        _text(value, f"{where}, `{key}`")
    applied = [name for name, mistake in known.items() if _placeholders(mistake) <= words.keys()]
    used = {word for name in applied for word in _placeholders(known[name])}
    if unused := [word for word in words if word not in used]:
        raise RecordingError(
            f"{where}, `{unused[0]}`: no mistake of the family needs this one alone. See {family}.toml for the names of"
            " its placeholders; a mistake applies where all of its own are given."
        )
    for key, name in [("without", name) for name in without] + [("hints", name) for name in hints]:
        if name not in applied:
            raise RecordingError(f"{where}, `{key}`: {name!r} does not apply here as it is. Remove the line.")
    for name, reason in without.items():
        if not isinstance(reason, str) or not reason.strip():
            raise RecordingError(f"{where}, `without`, {name!r}: give the reason why it is left out, as a text.")
    for name in applied:
        if name in without:
            continue
        mistake, key = known[name], f"{where}, {name!r}"
        hint = mistake["hint"]
        if name in hints:
            hint = _own_hint(hints[name], hint, f"{where}, `hints`, {name!r}")
        places = [_filled(place, words) for place in _texts(mistake["at"], key)]
        puts = [_filled(put, words) for put in _texts(mistake["put"], key)]
        yield Edits(key, name, _filled(hint, words), places, puts, mistake.get("shipped", []), mend)


def _own_hint(value: Any, familys: str, where: str) -> str:
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(item, str) and item for item in value):
        raise RecordingError(f"{where} must be a list: the lesson's own hint, and why the family's does not fit.")
    if value[0] == familys:
        raise RecordingError(f"{where} is the family's own hint. Remove the line.")
    return str(value[0])


# Files


def _tables_by_exercise(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The tables of a mistakes.toml by the exercise's whole name."""
    found: dict[str, list[dict[str, Any]]] = {}
    for lesson, exercises in read_toml(path, "which mistakes the exercises beside it know").items():
        if not isinstance(exercises, dict):
            raise RecordingError(f"{path}: `{lesson}` stands alone. Start each table with [[lesson.exercise]].")
        for name, tables in exercises.items():
            if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
                raise RecordingError(f"{path}: {lesson}.{name} must be a table that starts with [[{lesson}.{name}]].")
            found[f"{lesson}.{name}"] = tables
    return found


def _family_file(name: str, folder: Path) -> Path:
    """Where a family stands: in the lesson's own families/, or in those that lessons share."""
    path = next(
        (path for path in (folder / "families" / f"{name}.toml", FAMILIES / f"{name}.toml") if path.exists()), None
    )
    if path is None:
        known = ", ".join(sorted(other.stem for other in FAMILIES.glob("*.toml")))
        raise RecordingError(
            f"There is no family {name!r} of mistakes. Use one of {known}, or write {FAMILIES / f'{name}.toml'}."
        )
    return path


@cache
def _read_family(path: Path) -> dict[str, dict[str, Any]]:
    found = read_toml(path, "which mistakes lessons share")
    for name, mistake in found.items():
        where = f"{path}: {name!r}"
        if not isinstance(mistake, dict) or not OF_A_FAMILY <= mistake.keys() <= OF_A_FAMILY | {"shipped"}:
            raise RecordingError(f"{where} must be a table with hint, at and put, and with shipped where it shipped.")
        _text(mistake["hint"], f"{where}, `hint`")
        _references(mistake.get("shipped", []), where)
        if len(_texts(mistake["at"], f"{where}, `at`")) != len(_texts(mistake["put"], f"{where}, `put`")):
            raise RecordingError(f"{where}: `at` and `put` must be as many. Give one text for each place.")
    return found


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise RecordingError(f"{where} must be a text, and is {value!r}.")
    return value


def _texts(value: Any, where: str) -> list[str]:
    """One text, or several: a text of several lines loses the indentation that its lines share."""
    texts = [_text(item, where) for item in (value if isinstance(value, list) else [value])]
    if not texts:
        raise RecordingError(f"{where} is empty. Give a text of the solution.")
    return [textwrap.dedent(text).strip("\n") if "\n" in text else text for text in texts]


def _references(value: Any, where: str) -> list[str]:
    for reference in value if isinstance(value, list) else [None]:
        if not isinstance(reference, str) or not SHIPPED.fullmatch(reference):
            raise RecordingError(
                f'{where}, `shipped`: {reference!r} must be an issue or a pull request, "owner/repo#123", or a commit,'
                ' "owner/repo@1a2b3c4", in a list.'
            )
    return list(value)


# Placeholders


def _placeholders(mistake: Mapping[str, Any]) -> set[str]:
    texts = [mistake["hint"], *_texts(mistake["at"], ""), *_texts(mistake["put"], "")]
    return {word for text in texts for word in PLACEHOLDER.findall(text)}


def _filled(text: str, words: Mapping[str, str]) -> str:
    return PLACEHOLDER.sub(lambda found: words.get(found[1], found[0]), text)
