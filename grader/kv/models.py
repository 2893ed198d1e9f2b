"""Models by name."""

from grader.atlas.opening import config_of
from grader.atlas.shown_models import gallery_models
from grader.config import Config


def known_models() -> dict[str, Config]:
    """The gallery's models by name, each with the fields of its config.json that matter."""
    return {model.name: Config(model.config) for model in gallery_models().values() if model.config}


def known_model(name: str) -> Config:
    """A model's config, by whatever `grader card` takes: ``qwen3-8b`` (or ``Qwen3 8B``), a path, or owner/name.

    Raises GraderError for a name that the gallery does not have, with the closest, for a model whose config was not
    seen, and for a file that can't be read.
    """
    return config_of(name)[0]
