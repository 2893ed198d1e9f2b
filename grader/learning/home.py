"""A learner's folder: the lessons as they work in them, and, hidden beside them, the release that those came from."""

import json
import shutil
from dataclasses import dataclass
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from grader.digest import digest
from grader.errors import GraderError
from grader.learning.places import clone_around
from grader.learning.release import Release, released_course
from grader.learning.trust import sign_own
from grader.lessons.notebooks import is_as_released, read_notebook
from grader.progress import HIDDEN, learners_folder

FORMAT = 1
IN_A_CLONE = "work"
KEPT = "kept"
START = "`grader start FOLDER` makes one."


@dataclass(frozen=True)
class Home:
    """The learner's folder `folder`.

    `.grader/home.json` marks it, `.grader/release` holds the notebooks that it came from, `.grader/files.json` what
    the release's files were like, `.grader/progress` what checks reported.
    """

    folder: Path

    @property
    def hidden(self) -> Path:
        """What the learner need not see."""
        return self.folder / HIDDEN

    @property
    def release(self) -> Release:
        """The release that the folder was made from, or last brought up to: its notebooks alone."""
        return Release(self.hidden / "release")

    def digests(self) -> dict[str, str]:
        """What every file of that release was like; of a notebook that somebody had worked in there, nothing."""
        return dict(_read_json(self.hidden / "files.json"))

    def about(self) -> dict[str, Any]:
        """What `.grader/home.json` says: format, version, and what was taken over from where."""
        return _read_json(self.hidden / "home.json")

    def base(self, name: str) -> NotebookNode | None:
        """A notebook of the release that the folder came from; None where that is not known."""
        path = self.release.folder / name
        return read_notebook(path) if path.is_file() else None

    def keep(self, name: str) -> Path:
        """Put a copy of a file aside before it is changed, in ``kept/<lesson>/``; returns the copy."""
        path = self.folder / name
        folder = self.folder / KEPT / Path(name).parent
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"{path.stem}-{date.today():%Y-%m-%d}"
        free = (folder / f"{stem}{f'-{n}' if n > 1 else ''}{path.suffix}" for n in count(1))
        return Path(shutil.copy2(path, next(copy for copy in free if not copy.exists())))

    def install(self, name: str, notebook: NotebookNode | None, source: Release) -> None:
        """Remember of a file what the release `source` has, so that the next update knows it."""
        if notebook is not None:
            write_notebook(notebook, self.release.folder / name)
        if not name.endswith(".ipynb") or is_as_released(source.folder / name):
            digests = self.digests() | {name: digest((source.folder / name).read_bytes())}
            write_json(self.hidden / "files.json", digests)


def find_home(start: Path) -> Home | None:
    """The learner's folder around `start`; from a clone, that is the clone's ``work/``. None where there is none."""
    folder = learners_folder(start)
    clone = clone_around(start)
    if folder is None and clone is not None:
        folder = learners_folder(clone / IN_A_CLONE)
    return Home(folder) if folder is not None else None


def require_home(start: Path) -> Home:
    """The learner's folder around `start`. Raises GraderError where there is none."""
    home = find_home(start)
    if home is None:
        raise GraderError(f"{start} is not in a folder that you work in. {START}")
    return home


def folder_to_start(named: Path | None, here: Path) -> Path:
    """Where `grader start` makes a learner's folder: where it is told; else in a clone ``work/``, else here."""
    if named is not None:
        return here / named
    clone = clone_around(here)
    return here if clone is None else clone / IN_A_CLONE


def start_home(folder: Path, version: str) -> Home:
    """Copy the lessons into `folder`, unless that was done before.

    Raises GraderError where the folder holds other things: only hidden files and environments of Python may be there.
    """
    home = Home(folder)
    if (home.hidden / "home.json").is_file():
        return home
    release = released_course(folder)
    if release.folder in (folder, *folder.parents):
        raise GraderError(f"{folder} is what is released. Name another folder to work in.")
    begun = home.hidden.is_dir()  # and stopped: it goes on
    if not begun and (other := _other_things(folder)):
        raise GraderError(
            f"{folder} is not empty: it has {other}. Name a new folder, as in `grader start course`, or go to one."
        )
    home.hidden.mkdir(parents=True, exist_ok=True)
    for name in release.files():
        target, notebook = folder / name, release.notebook(name) if name.endswith(".ipynb") else None
        target.parent.mkdir(parents=True, exist_ok=True)
        if notebook is None:
            shutil.copyfile(release.folder / name, target)
        elif not target.exists():
            write_notebook(notebook, target)
        home.install(name, notebook, release)
    write_json(home.hidden / "home.json", {"format": FORMAT, "version": version, "taken": {}})
    return home


def write_notebook(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook, whole or not at all."""
    _replace(path, nbformat.writes(notebook) + "\n")


def write_own(notebook: NotebookNode, path: Path) -> None:
    """Write a learner's notebook, whole or not at all, and keep Jupyter's trust in what `read_own` read of it."""
    text = nbformat.writes(notebook) + "\n"
    _replace(path, text)
    sign_own(notebook, text)


def write_json(path: Path, value: object) -> None:
    """Write a small file of the folder's own, whole or not at all."""
    _replace(path, json.dumps(value, indent=1) + "\n")


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _other_things(folder: Path) -> str:
    """The name of something in the folder that is neither hidden nor an environment of Python."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    shown = (path for path in paths if not path.name.startswith("."))
    return next((path.name for path in shown if not (path / "pyvenv.cfg").is_file()), "")
