"""Where a checkpoint's files are: already cached, shipped with the course, converted from a package, or on the hub."""

from pathlib import Path

from grader.checkpoints.registry import Entry
from grader.errors import Unavailable


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
    if entry.packaged is not None:
        from grader.checkpoints import packaged

        return "packaged", packaged.convert(entry, progress)
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
    from grader.checkpoints import packaged

    return packaged.converted_folder(entry)


def _lacking(entry: Entry, folder: Path) -> list[str]:
    """The files of the entry that are not in the folder."""
    return [name for name in entry.files if not (folder / name).is_file()]


def _not_here(entry: Entry) -> str:
    """Why a checkpoint that ships with the course can't be had, and what to do."""
    folder = entry.shipped_folder
    lacking = "is missing" if not folder.is_dir() else f"lacks {', '.join(_lacking(entry, folder))}"
    return f"{entry.name} ships with the course, but {folder} {lacking}. Install the course again."
