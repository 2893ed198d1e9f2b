"""The models that the gallery shows, each with where its config was seen."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

from grader.atlas.architecture import Architecture
from grader.atlas.family import class_name
from grader.atlas.reading import read
from grader.errors import GraderError

MODELS = files("grader.atlas") / "models"
SOURCES = files("grader.atlas") / "sources.toml"
KINDS = {
    "copy": "a copy of its config.json",
    "code": "its makers' own program",
    "preset": "a preset of another program, not its makers' own file",
}
OF_CLASS = (
    "Read off the defaults of transformers' {}, for want of a config.json of its own: sizes are the model's; context,"
    " norm epsilon, multipliers and RoPE, where it has them, may be others."
)
MOST_CLOSE = 8
TOLD = ("date", "licence", "published", "hub", "report", "notes")  # what is said of a model beside its config


@dataclass(frozen=True)
class GalleryModel:
    """One model. config: None where no public file with it was seen; nothing is computed then.

    source: the repository, path and commit of the file with the config, the package that carries it, or the family
    whose class in transformers has it as its defaults; kind: a ``copy`` of its makers' file, their ``code``, or a
    ``preset`` of somebody else's program; confirmed: the source that agrees with the defaults of a class that names
    another model. published: sizes as they were published, in short. notes: where published figures differ, and why.
    date: of the release, as year-month-day or year-month. seen: of each fact in TOLD that is not empty, the source in
    sources.toml that it was seen in, of notes one each. What was not found in one is empty.
    """

    slug: str
    name: str
    developer: str
    date: str
    licence: str
    hub: str
    report: str
    read: str
    source: Mapping[str, str] | None
    published: str
    notes: tuple[str, ...]
    seen: Mapping[str, Any]
    config: Mapping[str, Any] | None

    @property
    def verified(self) -> bool:
        """Whether its config was seen in a public file, or is the default of transformers' class."""
        return self.config is not None

    @property
    def of_class(self) -> bool:
        """Whether what is shown are the defaults of its class in transformers, for want of a file of its own."""
        return bool(self.source and "default_of" in self.source)

    @cached_property
    def architecture(self) -> Architecture | None:
        if self.config is None:
            return None
        found = read(self.config, self.name)
        return replace(found, remark=OF_CLASS.format(class_name(found.family))) if self.of_class else found

    @property
    def source_words(self) -> str:
        """Where its config was seen, in words."""
        if not self.source:
            return "config.json not seen: what was published, not verified"
        if "default_of" in self.source:
            words = f"the defaults of transformers' {self.source['default_of']} class"
            other = self.source.get("confirmed")
            words += f", confirmed by {sources()[other].place}" if other else ", which names this model"
            return words
        if "package" in self.source:
            return f"{self.source['package']}, {self.source['path']}"
        return f"{KINDS[self.source['kind']]}: {_place(self.source)}"

    @property
    def source_link(self) -> str:
        """The address of the file; empty where there is none."""
        return _address(self.source) if self.source else ""

    def told_by(self, fact: str) -> list["Source"]:
        """The sources of one fact of TOLD, in the order of the notes; none for a fact that is empty."""
        names = self.seen.get(fact, [])
        return [sources()[name] for name in ([names] if isinstance(names, str) else names)]


@dataclass(frozen=True)
class Source:
    """Something public in which facts were seen. what: whose it is. place: where, in words. link: its address."""

    what: str
    place: str
    link: str


@cache
def sources() -> dict[str, Source]:
    """The entries of sources.toml by name."""
    written = tomllib.loads(SOURCES.read_text(encoding="utf-8"))
    return {name: Source(entry["what"], _place(entry), _address(entry)) for name, entry in written.items()}


def _place(entry: Mapping[str, str]) -> str:
    if "page" in entry:
        return entry["page"]
    if "package" in entry:
        return f"{entry['package']}, {entry['path']}"
    return f"{entry['repository']}, {entry['path']} at {entry['commit'][:10]}"


def _address(entry: Mapping[str, str]) -> str:
    if "repository" in entry:
        return f"https://github.com/{entry['repository']}/blob/{entry['commit']}/{entry['path']}"
    return entry.get("page", "")


@cache
def gallery_models() -> dict[str, GalleryModel]:
    """Every model, by its slug, in the order of their names."""
    found = {}
    for path in sorted(MODELS.iterdir(), key=lambda path: path.name):
        if path.name.endswith(".json"):
            fields = json.loads(path.read_text(encoding="utf-8"))
            slug = path.name.removesuffix(".json")
            found[slug] = GalleryModel(slug=slug, **{**fields, "notes": tuple(fields["notes"])})
    return found


def gallery_model(name: str) -> GalleryModel:
    """A model by its slug or its name, whatever their case. Raises GraderError, with the closest, for another."""
    models, wanted = gallery_models(), _plain(name)
    for model in models.values():
        if wanted in (_plain(model.slug), _plain(model.name)):
            return model
    holding = [slug for slug in models if wanted in _plain(slug)]
    close = holding or get_close_matches(name.lower(), models, MOST_CLOSE, cutoff=0.5)
    there = f"; close to it: {', '.join(close[:MOST_CLOSE])}" if close else ""
    raise GraderError(f"{name!r} is not in the gallery{there}. `grader models` lists all; or give a config.json.")


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum() or letter == ".")
