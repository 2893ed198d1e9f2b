"""Models that can be looked up by name, and what files of a family leave out."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from grader.config import Config
from grader.errors import GraderError

MODELS = files("grader.kv") / "models.toml"
FAMILIES = files("grader.kv") / "families.toml"


@cache
def families() -> dict[str, dict[str, Any]]:
    """For each model_type that is known: the values of the fields that decide and that a file may leave out."""
    return tomllib.loads(FAMILIES.read_text(encoding="utf-8"))


def known_models() -> dict[str, Config]:
    """Models that can be looked up by name, each with the fields of its config.json that decide about the cache."""
    return {name: Config(fields) for name, fields in tomllib.loads(MODELS.read_text(encoding="utf-8")).items()}


def known_model(name: str) -> Config:
    """One of `known_models`. Raises GraderError, with the names that come closest, for another."""
    models = known_models()
    if name not in models:
        close = [known for known in models if name.lower() in known.lower()] or list(models)
        raise GraderError(f"{name!r} is not known here; there are: {', '.join(close)}. Or give a config.json.")
    return models[name]
