"""What is known of each checkpoint: one ``registry/<name>.toml`` a checkpoint, so that a new one adds only data.

Its fields (those in brackets may be left out):

- ``description``: a line for ``grader weights list``. ``licence``. [``gated``]: whether the hub asks for a
  licence to be accepted first. [``parameters``]: how many.
- [``drop``]: fnmatch patterns of tensors in the file that are no weights, such as masks, or a copy of a tied head.
- [``hub``]: ``repo`` and ``revision``, a commit, so that nothing changes under our feet.
- [``packaged``]: ``requirements``, what pip installs; ``parts``, the files in it as module/path, which joined are a
  GGUF file of ``size`` bytes and ``sha256``. ``files`` are then what it is converted to.
- ``files."name"`` for every file: [``size``] in bytes, [``sha256``], where they are known; else what the hub says
  of the file counts.
- [``record``]: ``prompts`` that ``grader weights generate`` generates from, and how many ``tokens``: a number, or one
  for each prompt.
- [``golden``], a list: greedy generations that somebody else published; the fields of `Golden`.
"""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grader.checkpoints.golden import Golden, read_goldens
from grader.errors import GraderError
from grader.package import package_folder

HERE = package_folder() / "checkpoints"
REGISTRY = HERE / "registry"
SHIPPED = HERE / "shipped"


@dataclass(frozen=True)
class File:
    """What a file must be: `size` in bytes and a checksum in hex, each None where it is not known.

    git_sha1: git's name for the content, which is all that the hub tells of a small file.
    """

    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None


@dataclass(frozen=True)
class Hub:
    """Where a checkpoint is on the hub."""

    repo: str
    revision: str


@dataclass(frozen=True)
class Packaged:
    """A GGUF file that Python packages carry, in one part or several."""

    requirements: Sequence[str]
    parts: Sequence[str]
    size: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """One checkpoint of the registry; the module's docstring says what each field means."""

    name: str
    description: str
    licence: str
    gated: bool
    parameters: int | None
    drop: tuple[str, ...]
    files: Mapping[str, File]
    hub: Hub | None
    packaged: Packaged | None
    record_prompts: tuple[str, ...]
    record_tokens: tuple[int, ...]
    published: tuple[Golden, ...] = field(repr=False)

    @property
    def size(self) -> int | None:
        """Bytes to be fetched, all files together, or None where one is not known."""
        if self.packaged:
            return self.packaged.size
        sizes = [file.size for file in self.files.values()]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def pinned(self) -> bool:
        """Whether a download is checked against the registry's own checksums, and not the hub's word alone."""
        return self.hub is None or all(file.sha256 for file in self.files.values())

    @property
    def shipped_folder(self) -> Path:
        """Where it lies if it ships with the course."""
        return SHIPPED / self.name

    @property
    def golden_file(self) -> Path:
        """Where `grader weights generate` writes its generations."""
        ships = self.hub is None and self.packaged is None
        return self.shipped_folder / "golden.json" if ships else REGISTRY / f"{self.name}.golden.json"

    @property
    def goldens(self) -> tuple[Golden, ...]:
        """Every recorded generation: the published ones, then our own."""
        return self.published + read_goldens(self.golden_file)


def names() -> list[str]:
    """The names of all checkpoints, sorted."""
    return sorted(path.stem for path in REGISTRY.glob("*.toml"))


def entry(name: str) -> Entry:
    """The registry's entry. Raises GraderError for a name it does not have, suggesting the closest."""
    path = REGISTRY / f"{name}.toml"
    if name not in names():
        close = difflib.get_close_matches(name.lower(), names(), n=1, cutoff=0.4)
        known = f"Did you mean `{close[0]}`?" if close else f"There are: {', '.join(names())}."
        raise GraderError(f"There is no checkpoint `{name}`. {known}")
    return _parse(name, tomllib.loads(path.read_text(encoding="utf-8")))


def _parse(name: str, content: Mapping[str, Any]) -> Entry:
    hub, packaged = content.get("hub"), content.get("packaged")
    record = content.get("record", {})
    prompts, tokens = tuple(record.get("prompts", ())), record.get("tokens", 64)
    return Entry(
        name=name,
        description=content["description"],
        licence=content["licence"],
        gated=content.get("gated", False),
        parameters=content.get("parameters"),
        drop=tuple(content.get("drop", ())),
        files={file: File(**known) for file, known in content["files"].items()},
        hub=Hub(**hub) if hub else None,
        packaged=Packaged(**packaged) if packaged else None,
        record_prompts=prompts,
        record_tokens=tuple(tokens) if isinstance(tokens, list) else (tokens,) * len(prompts),
        published=tuple(Golden.from_json(golden) for golden in content.get("golden", ())),
    )
