"""Finds a model's architecture from whatever names it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grader.atlas.architecture import Architecture, read
from grader.atlas.gallery_models import gallery_model
from grader.config import Config
from grader.errors import GraderError


def architecture_of(model: str | Path | Mapping[str, Any], name: str = "") -> Architecture:
    """The architecture of a config (its fields), a config.json (its path), a gallery model or a hub repository.

    A name with a slash that is no file, ``Qwen/Qwen3-8B``, is looked up in the hub's cache, then on the hub where it
    is in reach. Raises GraderError where nothing is found.
    """
    if isinstance(model, Mapping):
        return read(model, name)
    path = Path(model)
    if path.suffix == ".json" or path.exists():
        file = path / "config.json" if path.is_dir() else path
        return read(Config.read(file), name or _name_of(file))
    text = str(model)
    if "/" in text:
        return read(Config.read(_from_hub(text)), name or text.rpartition("/")[2])
    found = gallery_model(text)
    if found.architecture is None:
        raise GraderError(
            f"the config.json of {found.name} was not seen, so nothing can be read off it."
            " Give the file itself, from the model's page on the hub."
        )
    return found.architecture


def _name_of(path: Path) -> str:
    return path.resolve().parent.name if path.name == "config.json" else path.stem


def _from_hub(repository: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repository, "config.json"))
    except HFValidationError:
        raise GraderError(f"{repository} is neither a file here nor a name that the hub could have.") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise GraderError(f"config.json of {repository} can't be had from the hub: {reason}") from None
