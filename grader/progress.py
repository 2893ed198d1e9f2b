"""What checks reported, kept beside a learner's work: nothing leaves the machine, and there is no account.

A learner's folder is one that `grader start` made; it has a hidden folder `.grader`, in which a file for each lesson
says of every exercise whether it is right, and how often it was tried::

    .grader/progress/01-gpt2.json     {"gpt2.block": {"state": "wrong", "tries": 2, "solution_seen": false}}
"""

import contextlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

HIDDEN = ".grader"
State = Literal["right", "wrong", "unwritten"]
STATES: tuple[State, ...] = ("right", "wrong", "unwritten")


@dataclass(frozen=True)
class Progress:
    """How far an exercise is.

    state: what its last check said. tries: how many checks found it wrong. solution_seen: whether its worked solution
    was asked for.
    """

    state: State = "unwritten"
    tries: int = 0
    solution_seen: bool = False


def learners_folder(start: Path) -> Path | None:
    """The closest folder, from `start` upwards, that `grader start` made; None where there is none."""
    return next((folder for folder in (start, *start.parents) if (folder / HIDDEN / "home.json").is_file()), None)


def place_of(notebooks_folder: Path) -> tuple[Path, str] | None:
    """The learner's folder and the lesson that a notebook's folder belongs to; None where it lies in no such folder."""
    folder = learners_folder(notebooks_folder)
    if folder is None or folder == notebooks_folder:
        return None
    return folder, notebooks_folder.relative_to(folder).parts[0]


def read_progress(folder: Path, lesson: str) -> dict[str, Progress]:
    """How far each exercise of a lesson is that was checked, by name; a damaged file counts as none."""
    try:
        found = json.loads(_file(folder, lesson).read_text(encoding="utf-8"))
        return {str(name): Progress(**entry) for name, entry in found.items() if entry["state"] in STATES}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def write_progress(folder: Path, lesson: str, progress: dict[str, Progress]) -> None:
    """Keep how far the exercises of a lesson are."""
    text = json.dumps({name: asdict(entry) for name, entry in progress.items()}, indent=1)
    replace_file(_file(folder, lesson), text)


def replace_file(path: Path, text: str) -> None:
    """Write a file, with the folders that it needs; it is replaced whole or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, "utf-8")
    temporary.replace(path)


def note(notebooks_folder: Path, exercise: str, state: State) -> Progress | None:
    """Keep what a check in a notebook of that folder said; None where it lies in no learner's folder.

    A folder that can't be written changes nothing for the check: then None is returned too.
    """
    place = place_of(notebooks_folder)
    if place is None:
        return None
    folder, lesson = place
    with contextlib.suppress(OSError):
        progress = read_progress(folder, lesson)
        before = progress.get(exercise, Progress())
        progress[exercise] = replace(before, state=state, tries=before.tries + (state == "wrong"))
        write_progress(folder, lesson, progress)
        return progress[exercise]
    return None


def _file(folder: Path, lesson: str) -> Path:
    return folder / HIDDEN / "progress" / f"{lesson}.json"
