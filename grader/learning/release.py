"""The course as it is released: the files that a learner's folder is made from and brought up to date with."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from grader.digest import digest
from grader.learning.copies import learners_copy, title_of
from grader.learning.places import SYLLABUS, released_folder
from grader.lessons.notebooks import is_as_released, read_notebook, released_hash

HISTORY = 100  # changes of a released notebook that are looked through for the one that a copy was made from


@dataclass(frozen=True)
class Release:
    """The released course in `folder`: the syllabus, other pages, and a folder for each lesson."""

    folder: Path

    def files(self) -> list[str]:
        """Every file, as a path below the folder with forward slashes: lessons, then pages, and last the syllabus."""
        paths = [path.relative_to(self.folder) for path in sorted(self.folder.rglob("*")) if path.is_file()]
        shown = [path for path in paths if not any(part.startswith((".", "__")) for part in path.parts)]
        names = [path.as_posix() for path in shown]
        pages = [name for name in names if "/" not in name and name.endswith((".md", ".svg"))]
        return [name for name in names if "/" in name] + sorted(pages, key=lambda name: name == SYLLABUS)

    def notebooks(self) -> list[str]:
        """The lessons' notebooks, in order."""
        return [name for name in self.files() if name.endswith(".ipynb") and name.count("/") == 1]

    def lessons(self) -> list[str]:
        """The names of the lessons' folders, in order."""
        return [name.partition("/")[0] for name in self.notebooks()]

    def notebook(self, name: str) -> NotebookNode | None:
        """A notebook as learners get it: as it was released, between links; None where `pristine` is."""
        released = self.pristine(name)
        return None if released is None else learners_copy(released, name, self._titles)

    def pristine(self, name: str) -> NotebookNode | None:
        """A notebook as it was released, though somebody worked in the file; None where that is not known."""
        path = self.folder / name
        if is_as_released(path):
            return read_notebook(path)
        return _committed("HEAD", path)

    @cached_property
    def _titles(self) -> dict[str, str]:
        """The title of each lesson, by its notebook."""
        found = {}
        for name in self.notebooks():
            released = self.pristine(name)
            found[name] = (released is not None and title_of(released)) or name.partition("/")[0]
        return found

    def worked_in(self, known: Mapping[str, str]) -> list[str]:
        """The notebooks that somebody changed where they were released, as in a clone before learners had copies.

        known: hashes of files that are as released, which need not be read again.
        """
        unknown = [name for name in self.notebooks() if known.get(name) != digest((self.folder / name).read_bytes())]
        return [name for name in unknown if not is_as_released(self.folder / name)]


def released_course(start: Path) -> Release:
    """The release that goes with `start`: of the clone around it, else what was installed.

    Raises GraderError where there is neither.
    """
    return Release(released_folder(start))


def release_it_came_from(path: Path, notebook: NotebookNode) -> NotebookNode | None:
    """The release that a notebook of a clone was made from, out of git's history; None where that is not known."""
    wanted = str(notebook.metadata.get("grader", {}).get("released", "-"))
    listed = _git(path.parent, "log", f"-{HISTORY}", "--format=%H", "--", path.name)
    for commit in (listed or "").split():
        found = _committed(commit, path)
        if found is not None and released_hash(found) == wanted:
            return found
    return None


def _committed(commit: str, path: Path) -> NotebookNode | None:
    text = _git(path.parent, "show", f"{commit}:./{path.name}")
    if not text:
        return None
    try:
        return nbformat.reads(text, as_version=4)
    except Exception:  # nbformat raises many kinds; a release that can't be read is none
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says, or None where there is no git, or nothing that it knows."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, encoding="utf-8", timeout=60)
    except (OSError, UnicodeDecodeError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
