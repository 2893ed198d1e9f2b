"""The models that the gallery shows, each with where its config was seen."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

from grader.atlas.architecture import Architecture, read
from grader.errors import GraderError

MODELS = files("grader.atlas") / "models"


@dataclass(frozen=True)
class GalleryModel:
    """One model. config: None where no public file with it was seen; nothing is computed then.

    source: the repository, path and commit of the file with the config, the package that carries it, or the family
    whose class in transformers has it as its defaults. published: sizes as its makers give them, in their words.
    notes: where published figures differ, and why. date: of the release, as year-month-day, or empty.
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
    config: Mapping[str, Any] | None

    @property
    def verified(self) -> bool:
        """Whether its config was seen in a public file, or is the default of transformers' class."""
        return self.config is not None

    @cached_property
    def architecture(self) -> Architecture | None:
        return read(self.config, self.name) if self.config is not None else None

    @property
    def source_words(self) -> str:
        """Where its config was seen, in words."""
        if not self.source:
            return "config.json not seen: what was published, not verified"
        if "default_of" in self.source:
            return f"the defaults of transformers' {self.source['default_of']} class"
        if "package" in self.source:
            return f"{self.source['package']}, {self.source['path']}"
        return f"{self.source['repository']}, {self.source['path']} at {self.source['commit'][:10]}"

    @property
    def source_link(self) -> str:
        """The address of the file; empty where there is none."""
        if not self.source or "repository" not in self.source:
            return ""
        return f"https://github.com/{self.source['repository']}/blob/{self.source['commit']}/{self.source['path']}"


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
    close = [slug for slug in models if wanted in _plain(slug)] or list(models)
    raise GraderError(f"{name!r} is not in the gallery; there are: {', '.join(close)}. Or give a config.json.")


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum() or letter == ".")
