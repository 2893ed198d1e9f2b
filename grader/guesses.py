"""A learner's guesses beside what was measured, kept with their work: nothing leaves the machine, nobody grades them.

Beside the progress of a learner's folder stands a file for each lesson::

    .grader/predictions/03-qwen3.json     {"qwen3.mlp_share": {"question": ..., "guess": [40, 60], "measured": 69.4}}
"""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from grader.progress import HIDDEN, place_of, replace_file

Form = Literal["number", "range", "choice", "choices", "order"]
Value = float | str | list[float] | list[str]


@dataclass(frozen=True)
class Guess:
    """A question with a learner's guess, and what was measured.

    question: what is asked. unit: of a number. form: what the guess is; a range is [lowest, highest], several choices
    are in the order of `names`, an order is a list. guess, measured: None as long as there is none. names: what one may
    choose among.
    """

    question: str
    unit: str = ""
    form: Form = "number"
    guess: Value | None = None
    measured: Value | None = None
    names: list[str] = field(default_factory=list)


def read_guesses(folder: Path, lesson: str) -> dict[str, Guess]:
    """The guesses of a lesson in a learner's folder, by name; a damaged file counts as none."""
    try:
        found = json.loads(_file(folder, lesson).read_text(encoding="utf-8"))
        return {str(name): _read(entry) for name, entry in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def kept_guesses(notebooks_folder: Path) -> dict[str, Guess]:
    """The guesses that are kept of a notebook of that folder; none where it lies in no folder of a learner's."""
    place = place_of(notebooks_folder)
    return read_guesses(*place) if place is not None else {}


def keep_guess(notebooks_folder: Path, name: str, guess: Guess) -> None:
    """Keep a guess that was made in a notebook of that folder, and what was measured, if it is known.

    Does nothing where the notebook lies in no folder that `grader start` made, or the folder can't be written. Without
    a guess nothing is kept, and one that was kept before is forgotten.
    """
    place = place_of(notebooks_folder)
    if place is None:
        return
    kept = read_guesses(*place)
    others = {key: value for key, value in kept.items() if key != name}
    changed = others if guess.guess is None else {**kept, name: guess}
    if changed != kept:
        with contextlib.suppress(OSError):
            write_guesses(*place, changed)


def _read(entry: Mapping[str, Any]) -> Guess:
    guess = Guess(**entry)
    if guess.guess is None or guess.form not in ("number", "range", "choice", "choices", "order"):
        raise ValueError(f"no guess: {entry}")
    return guess


def write_guesses(folder: Path, lesson: str, guesses: Mapping[str, Guess]) -> None:
    """Keep the guesses of a lesson in a learner's folder, in place of those that were kept before."""
    text = json.dumps({name: asdict(guess) for name, guess in guesses.items()}, indent=1)
    replace_file(_file(folder, lesson), text)


def _file(folder: Path, lesson: str) -> Path:
    return folder / HIDDEN / "predictions" / f"{lesson}.json"
