"""Finds a model's architecture from whatever names it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grader.atlas.architecture import Architecture, read
from grader.atlas.shown_models import gallery_model, gallery_models
from grader.config import Config
from grader.errors import GraderError


def architecture_of(model: str | Path | Mapping[str, Any], name: str = "") -> Architecture:
    """The architecture of a config (its fields), a config.json (its path), a gallery model or a hub repository.

    A name with a slash that is no file, ``Qwen/Qwen3-8B``, is looked up in the hub's cache, then on the hub where it
    is in reach. Raises GraderError where nothing is found.
    """
    if isinstance(model, Mapping):
        return read(model, name)
    file = _file_of(model)
    if file is not None:
        return read(Config.read(file), name or _name_of(file))
    if "/" in str(model):
        return read(config_of(model), name or str(model).rpartition("/")[2])
    return _seen(str(model))


def config_of(model: str | Path) -> Config:
    """The config.json of what names a model, as for `architecture_of`, with its fields as they are."""
    file = _file_of(model)
    if file is not None:
        return Config.read(file)
    text = str(model)
    if "/" in text:
        found = _from_hub(text)
        return Config.read(found) if isinstance(found, Path) else Config.parse(found, f"{text}'s config.json")
    return Config(_seen(text).given)


def _file_of(model: str | Path) -> Path | None:
    path = Path(model)
    if path.suffix == ".json" or path.exists():
        return path / "config.json" if path.is_dir() else path
    return None


def _seen(name: str) -> Architecture:
    """A gallery model's. Raises GraderError where its config.json was not seen."""
    model = gallery_model(name)
    if model.architecture is None:
        raise GraderError(
            f"the config.json of {model.name} was not seen, so nothing can be read off it."
            " Give the file itself, from the model's page on the hub."
        )
    return model.architecture


def _name_of(path: Path) -> str:
    return path.resolve().parent.name if path.name == "config.json" else path.stem


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
