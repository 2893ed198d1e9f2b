"""Finds a model's architecture from whatever names it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grader.atlas.architecture import Architecture
from grader.atlas.reading import read
from grader.atlas.shown_models import GalleryModel, gallery_model, gallery_models
from grader.config import Config
from grader.errors import GraderError


def architecture_of(model: str | Path | Mapping[str, Any], name: str = "") -> Architecture:
    """The architecture of a config (its fields), a config.json (its path), a gallery model or a hub repository.

    A name with a slash that is no file, ``Qwen/Qwen3-8B``, is looked up in the hub's cache, then on the hub where it
    is in reach. Raises GraderError where nothing is found, or what is found can't be read.
    """
    if isinstance(model, str) and not _is_path(model) and "/" not in model:
        found = _of_gallery(model).architecture
        assert found  # its config was seen
        return found
    config, own_name = config_of(model)
    return read(config, name or own_name)


def config_of(model: str | Path | Mapping[str, Any]) -> tuple[Config, str]:
    """The config that `architecture_of` would read, as its file has it, and its name. Raises GraderError."""
    if isinstance(model, Mapping):
        return Config(model), ""
    if _is_path(model):
        file = Path(model) / "config.json" if Path(model).is_dir() else Path(model)
        return Config.read(file), file.resolve().parent.name if file.name == "config.json" else file.stem
    text = str(model)
    if "/" in text:
        found = _from_hub(text)
        config = Config.read(found) if isinstance(found, Path) else Config.parse(found, f"{text}'s config.json")
        return config, text.rpartition("/")[2]
    in_gallery = _of_gallery(text)
    return Config(in_gallery.config or {}), in_gallery.name


def _is_path(model: str | Path) -> bool:
    return Path(model).suffix == ".json" or Path(model).exists()


def _of_gallery(name: str) -> GalleryModel:
    """A gallery model with a config. Raises GraderError for another."""
    found = gallery_model(name)
    if found.config is None:
        raise GraderError(
            f"the config.json of {found.name} was not seen, so nothing can be read off it."
            " Give the file itself, from the model's page on the hub."
        )
    return found


def _from_hub(repository: str) -> Path | str:
    """The config.json of a hub repository: out of the hub's cache, else its text. Raises GraderError."""
    from huggingface_hub import constants, get_session, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # exported, not in its __all__

    try:
        kept = try_to_load_from_cache(repository, "config.json")
        url = hf_hub_url(repository, "config.json")
    except HFValidationError:
        raise GraderError(f"{repository} is neither a file here nor a name that the hub could have.") from None
    if isinstance(kept, str):
        return Path(kept)
    if constants.HF_HUB_OFFLINE:
        raise GraderError(_unreached(repository, "HF_HUB_OFFLINE=1 forbids asking it"))
    try:  # a few kB, asked for once: the client's own download asks six times, for half a minute
        answer = get_session().get(url, headers=build_hf_headers(), timeout=10, follow_redirects=True)
    except Exception as error:  # whatever the client's library raises without a network
        raise GraderError(_unreached(repository, str(error).splitlines()[0])) from None
    if answer.status_code in (401, 403):
        raise GraderError(
            f"the hub has no config.json of {repository} for you: there is no such model, or its licence has to be"
            f" accepted first, at https://huggingface.co/{repository}, and then `hf auth login`."
        )
    if answer.status_code != 200:
        raise GraderError(f"the hub has no config.json of {repository} (it answers {answer.status_code}).")
    return str(answer.text)


def _unreached(repository: str, reason: str) -> str:
    """What to do where the hub can't be asked."""
    page = f"https://huggingface.co/{repository}"
    here = next((model.slug for model in gallery_models().values() if model.verified and model.hub == page), None)
    gallery = f" The gallery has this model: `grader card {here}`." if here else ""
    return (
        f"the hub can't be asked for {repository} ({reason}). Where there is a network, save"
        f" {page}/raw/main/config.json, and give its path.{gallery}"
    )
