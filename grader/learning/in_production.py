"""Where each module of the course stands in the programs that train and serve models: repository, file, class.

The rows are in ``in_production.toml``. Each was read at one revision, and links lead to that; what a repository has
today may be elsewhere. ``scripts/production_map.py`` compares every row with the stored source.
"""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from grader.errors import GraderError
from grader.package import package_folder

DATA = package_folder() / "learning" / "in_production.toml"
PAGE = "in-production.md"
LEVELS = ("beginner", "intermediate", "pro")
AGAIN = "python scripts/production_map.py --page"


@dataclass(frozen=True)
class Reading:
    """A file to read in a repository. after: the lesson, as in 03-qwen3, after which it can be read; why: what for."""

    file: str
    after: str
    why: str


@dataclass(frozen=True)
class Repository:
    """A repository at one revision.

    github: owner/name. at: a commit, or a release's tag. seen: the date of what was read. level: one of LEVELS.
    what: what it is for. read: what to read first, in order.
    """

    key: str
    github: str
    at: str
    seen: str
    level: str
    what: str
    read: tuple[Reading, ...]

    def link(self, file: str, line: int = 0) -> str:
        """The address of a file, or of a line in it, at the revision that was read."""
        return f"https://github.com/{self.github}/blob/{self.at}/{file}{f'#L{line}' if line else ''}"


@dataclass(frozen=True)
class Place:
    """Where a module stands in a repository. name: a class or function, defined in this line. differs: from ours."""

    repository: str
    file: str
    name: str
    line: int
    differs: str


@dataclass(frozen=True)
class Module:
    """What the course builds, and where it stands. exercises: those that build it. note: what is easily confused, and
    where it was looked for and is not.
    """

    name: str
    exercises: tuple[str, ...]
    places: tuple[Place, ...]
    note: str = ""


@cache
def _data() -> Mapping[str, object]:
    return tomllib.loads(DATA.read_text(encoding="utf-8"))


@cache
def repositories() -> Mapping[str, Repository]:
    """Every repository by its short name, in the order of the file: as one would come to them."""
    listed = _data()["repositories"]
    assert isinstance(listed, dict)
    return {
        key: Repository(key=key, **{**known, "read": tuple(Reading(**step) for step in known.get("read", ()))})
        for key, known in listed.items()
    }


@cache
def modules() -> tuple[Module, ...]:
    """Every module, in the order in which the course builds them."""
    listed = _data()["modules"]
    assert isinstance(listed, list)
    return tuple(
        Module(
            name=known["name"],
            exercises=tuple(known["exercises"]),
            places=tuple(Place(repository=place.pop("in"), **place) for place in map(dict, known["places"])),
            note=known.get("note", ""),
        )
        for known in listed
    )


def where(name: str) -> list[Module]:
    """The modules that an exercise (``qwen3.attention``), a lesson (``03-qwen3``, ``qwen3``) or a module is named by.

    Raises GraderError for a name that is none, with the nearest.
    """
    wanted = name.strip().lower()
    lesson = wanted.partition("-")[2].replace("-", "_") if wanted[:1].isdigit() else wanted
    found = [
        module
        for module in modules()
        if wanted in (module.name.lower(), *module.exercises)
        or any(exercise.partition(".")[0] == lesson for exercise in module.exercises)
    ]
    if found:
        return found
    exercises = [exercise for module in modules() for exercise in module.exercises]
    names = [*exercises, *(module.name.lower() for module in modules())]
    close = difflib.get_close_matches(wanted, names, n=1, cutoff=0.5)
    asked = f" Did you mean `{close[0]}`?" if close else ""
    raise GraderError(
        f"the map has no `{name}`.{asked} It takes an exercise (qwen3.attention), a lesson (qwen3), or a module:"
        f" {', '.join(module.name for module in modules())}."
    )


def page(course: Path) -> str:
    """The page for learners, as Markdown. course: the released lessons, which it links to where they are there."""
    notebooks = {path.parent.name: f"{path.parent.name}/{path.name}" for path in sorted(course.glob("*/*.ipynb"))}
    return "\n".join([*_head(), *_levels(notebooks), *_modules(notebooks)]) + "\n"


def _head() -> list[str]:
    return [
        "# Where it stands in production",
        "",
        f"<!-- Made by `{AGAIN}` from grader/learning/in_production.toml; don't edit it. -->",
        "",
        "What you built in the lessons is in the programs that train and serve large models too, under other names and"
        " with more around it. This page says where: the file, the class or function, and what is different there."
        " `grader where qwen3.attention` says it in a terminal. The lessons are in [the syllabus](README.md).",
        "",
        "Each row was read at one revision, and its link leads to that. A repository moves on: what it has today may"
        " be elsewhere. A missing row means that it was not looked up, unless the note below a table says that it is"
        " absent.",
        "",
    ]


def _levels(notebooks: Mapping[str, str]) -> list[str]:
    lines = [
        "## What to read, and when",
        "",
        "Three steps, as in the talk that this course is named after: understand how it works; use the libraries that"
        " make more of it easy; read the code of those who trained known models.",
        "",
    ]
    for level in LEVELS:
        lines += [f"### {level.capitalize()}", ""]
        for repository in (known for known in repositories().values() if known.level == level):
            lines.append(
                f"- **[{repository.github}](https://github.com/{repository.github})**, read at"
                f" {_revision(repository)} ({repository.seen}): {repository.what}"
            )
            for step in repository.read:
                lesson = f"[{step.after}]({notebooks[step.after]})" if step.after in notebooks else step.after
                lines.append(f"  - [`{step.file}`]({repository.link(step.file)}), after {lesson}: {step.why}")
        lines.append("")
    return lines


def _revision(repository: Repository) -> str:
    at = repository.at
    return f"`{at[:9]}`" if len(at) >= 9 and all(letter in "0123456789abcdef" for letter in at) else f"`{at}`"


def _modules(notebooks: Mapping[str, str]) -> list[str]:
    by_stem = {name.partition("-")[2].replace("-", "_"): path for name, path in notebooks.items()}
    lines = ["## Module by module", ""]
    for module in modules():
        here = [name for name in module.exercises if name.partition(".")[0] in by_stem]
        lines += [f"### {module.name}", ""]
        if here:
            links = (f"[`{name}`]({by_stem[name.partition('.')[0]]})" for name in here)
            lines += [f"You build it in {', '.join(links)}.", ""]
        lines += ["| where | file | class or function | what is different |", "|---|---|---|---|"]
        for place in module.places:
            repository = repositories()[place.repository]
            lines.append(
                f"| {place.repository} | `{place.file}` | [`{place.name}`]({repository.link(place.file, place.line)})"
                f" | {place.differs} |"
            )
        lines += ["", *([module.note, ""] if module.note else [])]
    return lines


def terminal_lines(found: Sequence[Module]) -> list[str]:
    """What `grader where` prints."""
    lines: list[str] = []
    for module in found:
        lines += [module.name, *([f"  built in {', '.join(module.exercises)}"] if module.exercises else [])]
        for place in module.places:
            repository = repositories()[place.repository]
            lines += [
                f"  {place.repository}: {place.name}",
                f"    {place.differs}",
                f"    {repository.link(place.file, place.line)}",
            ]
        if module.note:
            lines.append(f"  {module.note}")
        lines.append("")
    return lines[:-1]
