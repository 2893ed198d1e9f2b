"""Weights that a Python package carries as a GGUF file: install it, verify it, convert it once to safetensors.

A GGUF file holds weights in blocks of a few bits, and its own names. transformers reads it, undoes both, and
what comes out is written to the cache as a checkpoint like any other: config.json, tokenizer.json,
model.safetensors, in float32. Nothing in a GGUF file is ever executed: it holds numbers and text.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import constants
from safetensors import SafetensorError

from grader.checkpoints.registry import Entry, Packaged
from grader.errors import Unavailable
from grader.package import distribution
from grader.quiet import quiet_transformers

CHUNK = 1 << 20
NEEDED = ("gguf", "transformers", "accelerate")


def converted_folder(entry: Entry) -> Path:
    """Where the converted checkpoint lies, or will: beside the hub's cache, and named after what it was made from."""
    assert entry.packaged is not None
    return Path(constants.HF_HOME) / distribution().name / f"{entry.name}-{entry.packaged.sha256[:12]}"


def installed_parts(packaged: Packaged) -> list[Path] | None:
    """The file's parts in the installed packages, or None where one is missing. No package is imported."""
    found = []
    for part in packaged.parts:
        module, _, inside = part.partition("/")
        spec = importlib.util.find_spec(module)
        places = list(spec.submodule_search_locations or ()) if spec else []
        path = next((Path(place) / inside for place in places if (Path(place) / inside).is_file()), None)
        if path is None:
            return None
        found.append(path)
    return found


def install(entry: Entry) -> None:
    """Have pip install the packages that carry the weights, saying first what and under which licence.

    Raises Unavailable where pip fails.
    """
    assert entry.packaged is not None
    wanted = entry.packaged.requirements
    # Their dependencies are programs that run the model, which the course does not need.
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--disable-pip-version-check", *wanted]
    print(f"{entry.description}. {entry.packaged.size / 1e6:,.0f} MB, licence: {entry.licence}.")
    print(f"Installing: pip install --no-deps {' '.join(wanted)}", flush=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        reason = lines[-1].removeprefix("ERROR: ") if lines else "it gave no reason"
        raise Unavailable(f"pip could not install {' '.join(wanted)}: {reason} Once online: {_get(entry)}")
    importlib.invalidate_caches()


def convert(entry: Entry, progress: bool) -> Path:
    """The converted checkpoint's folder; it is made first where it is not there yet, in ten seconds to a minute.

    Raises Unavailable where a package is not installed, its file is not what it should be, or there is no room.
    """
    assert entry.packaged is not None
    folder = converted_folder(entry)
    if all((folder / name).is_file() for name in entry.files):
        return folder
    parts = installed_parts(entry.packaged)
    if parts is None:
        raise Unavailable(f"{entry.name} comes in a package that is not installed. Run: {_get(entry)}")
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise Unavailable(f"Converting {entry.name} needs {', '.join(missing)}: pip install -e '.[weights]'")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # In a folder of its own, renamed at the end: what broke off half-way is never taken for a checkpoint.
        with TemporaryDirectory(dir=folder.parent, prefix=f".{entry.name}-") as scratch:
            made = Path(scratch) / "made"
            _convert(entry, parts, Path(scratch), made, progress)
            shutil.rmtree(folder, ignore_errors=True)  # one that lacks a file
            os.replace(made, folder)
    except (OSError, SafetensorError) as error:  # the latter where the disk is full when weights are written
        reason = getattr(error, "strerror", None) or str(error)
        raise Unavailable(
            f"{entry.name} can't be converted to {folder.parent}: {reason}."
            f" Set HF_HOME to a folder of your own with room, then: {_get(entry)}"
        ) from None
    return folder


def _convert(entry: Entry, parts: list[Path], scratch: Path, made: Path, progress: bool) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    packaged = entry.packaged
    assert packaged is not None
    columns = (TextColumn("{task.description:44}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(), disable=not progress, transient=True) as bars:
        bar = bars.add_task(f"{entry.name}: verifying", total=packaged.size)
        digest = hashlib.sha256()
        joined = scratch / "joined.gguf"
        with contextlib.ExitStack() as stack:
            copy = stack.enter_context(joined.open("wb")) if len(parts) > 1 else None
            for chunk in _chunks(parts):
                digest.update(chunk)
                if copy:
                    copy.write(chunk)
                bars.advance(bar, len(chunk))
        if digest.hexdigest() != packaged.sha256:
            raise Unavailable(
                f"The weights in {' '.join(packaged.requirements)} do not have the checksum they should have."
                f" Install them again: pip install --force-reinstall --no-deps {' '.join(packaged.requirements)}"
            )
        source = joined if len(parts) > 1 else parts[0]
        bars.add_task(f"{entry.name}: reading names and vocabulary", total=None)
        with quiet_transformers(), _shown_in(bars, f"{entry.name}: de-quantising"):
            _save_converted(source, made)


def _save_converted(gguf: Path, made: Path) -> None:
    """Let transformers read the file, and write config.json, tokenizer.json and model.safetensors."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig

    place: dict[str, Any] = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(**place)
    made.mkdir()
    state, seen = {}, set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:  # a tied head is stored once
            seen.add(id(tensor))
            state[name] = tensor.detach().contiguous()
    save_file(state, made / "model.safetensors", metadata={"format": "pt"})
    (made / "model.safetensors").chmod(0o644)  # it makes files that their owner alone can read
    tokenizer.backend_tokenizer.save(str(made / "tokenizer.json"), pretty=False)
    if tokenizer.chat_template:
        (made / "chat_template.jinja").write_text(tokenizer.chat_template, encoding="utf-8")
    usual = PreTrainedConfig().to_dict()  # what every config has and none of these models needs
    fields = {key: value for key, value in model.config.to_dict().items() if key not in usual or value != usual[key]}
    config = {key: _shortest(value) for key, value in fields.items() if key[0] != "_" and key != "quantization_config"}
    config["architectures"] = [type(model).__name__]
    (made / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _shortest(value: Any) -> Any:
    """A GGUF file has its numbers in float32, where 1e-05 reads 9.999999747378752e-06: the shortest that rounds so."""
    import numpy as np

    return float(str(np.float32(value))) if isinstance(value, float) else value


def _chunks(paths: list[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk


@contextlib.contextmanager
def _shown_in(bars: Any, description: str) -> Iterator[None]:
    """Let transformers count the tensors that it de-quantises on our progress display, not on one of its own."""
    reader: Any = import_module("transformers.modeling_gguf_pytorch_utils")
    original = reader.tqdm
    reader.tqdm = lambda tensors, **_: bars.track(tensors, total=len(tensors), description=description)
    try:
        yield
    finally:
        reader.tqdm = original


def _get(entry: Entry) -> str:
    return f"grader weights get {entry.name}"
