"""A checkpoint on disk: config, tokenizer, weights, and loading them strictly into a learner's model."""

import json
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor, nn

from grader.checkpoints.experts import FUSED, together
from grader.checkpoints.golden import Golden
from grader.checkpoints.registry import Entry
from grader.config import Config
from grader.errors import GraderError
from grader.names import explain_names, layers_as_one

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
M = TypeVar("M", bound=nn.Module)
SHARD = re.compile(r"[\w-][\w.-]*\.safetensors")


class Checkpoint:
    """Trained weights with their config and tokenizer, in the folder `folder`.

    source: where they came from: cached, shipped, packaged, hub, or folder, one that the registry does not know.
    """

    def __init__(self, entry: Entry, folder: Path, source: str) -> None:
        self.entry, self.folder, self.source = entry, folder, source

    @property
    def name(self) -> str:
        """Its name in the registry."""
        return self.entry.name

    def __repr__(self) -> str:
        return f"Checkpoint({self.name!r}, {self.source}, {len(self._tensors)} tensors)"

    @cached_property
    def config(self) -> Config:
        """Its config.json."""
        return Config.read(self.folder / "config.json")

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Its tokenizer.json. Raises GraderError where that can't be read."""
        path = self.folder / "tokenizer.json"
        try:
            return Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare Exception
            raise GraderError(f"{path} is no tokenizer ({error}). {self._again}") from None

    @property
    def goldens(self) -> tuple[Golden, ...]:
        """The greedy generations that a right model repeats."""
        return self.entry.goldens

    @cached_property
    def _tensors(self) -> dict[str, Path]:
        """The name of every weight -> the file it is in; what the registry drops is left out."""
        found = {}
        for path in self._weight_files():
            with self._open(path) as file:
                for name in file.keys():  # noqa: SIM118 (not a dict)
                    if not any(fnmatchcase(name, pattern) for pattern in self.entry.drop):
                        found[name] = path
        return found

    def _weight_files(self) -> list[Path]:
        index = self.folder / INDEX
        if not index.exists():
            return [self.folder / WEIGHTS]
        try:
            shards = sorted({str(file) for file in json.loads(index.read_text("utf-8"))["weight_map"].values()})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise GraderError(f"{index} is no index of weight files ({error}). {self._again}") from None
        strange = next((shard for shard in shards if not SHARD.fullmatch(shard)), None)
        if strange is not None:
            raise GraderError(f"{index} names {strange!r}, which is no weight file in its own folder. {self._again}")
        return [self.folder / shard for shard in shards]

    def _open(self, path: Path) -> Any:
        try:
            return safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise GraderError(f"{path} can't be read ({error}). {self._again}") from None

    @property
    def _again(self) -> str:
        if self.source == "shipped":
            return "It came with the course: install the course again."
        if self.source == "folder":
            return "Save the model again."
        return f"Delete it, then run: grader weights get {self.name}"

    def state_dict(self, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """Every weight under its own name, converted to `dtype`; left out is only what the registry drops."""
        return {name: tensor.to(dtype) for name, tensor in self._read(self._tensors)}

    def stored(self) -> dict[str, Tensor]:
        """Every weight as its file has it, each in its own dtype; left out is only what the registry drops."""
        return dict(self._read(self._tensors))

    def _read(self, names: Container[str]) -> Iterator[tuple[str, Tensor]]:
        """The weights of these names, one file after the other."""
        for path in dict.fromkeys(self._tensors.values()):
            with self._open(path) as file:
                for name in (name for name, place in self._tensors.items() if place == path and name in names):
                    yield name, file.get_tensor(name)

    def unlike(self, model: nn.Module) -> str | None:
        """The name of a weight that `model` has in the same shape and with other values; None if there is none."""
        mine = model.state_dict()
        for name, theirs in self._read(mine):
            own = mine[name].cpu()
            if own.shape == theirs.shape and not torch.equal(own, theirs.to(own.dtype)):
                return name
        return None

    def build(self, model: Callable[[Config], M], /, **changes: Any) -> M:
        """A model with this config and these weights, loaded as strictly as by `load_into`, in eval mode.

        model: its class. changes: fields of the config that differ from the checkpoint's. No random first values are
        drawn for Linear and Embedding: the weights replace them, and 100 million take most of a second.
        Raises GraderError that names what does not match, and whatever the class raises.
        """
        if isinstance(model, nn.Module):
            raise GraderError(f"build was given a {type(model).__name__}, and needs its class: it makes the model.")
        with _without_first_values():
            built = model(self.config.replace(**changes))
        self.load_into(built)
        return built.eval()

    def load_into(self, model: nn.Module) -> Any:
        """Copy the weights into `model`; every name and shape must match, and nothing may be left over.

        Experts that the file has one by one are put together for a model that has them in one tensor.
        The model may be on any device that has memory, and stays there.
        Raises GraderError that names what does not match; `model` is then as it was before.
        """
        if not isinstance(model, nn.Module):
            what = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
            raise GraderError(f"load_into was given {what}, and needs a model: build it first, as in GPT2(config).")
        state = self.state_dict()
        mine = model.state_dict(keep_vars=True)
        if any(name.endswith(FUSED) for name in mine) and not any(name.endswith(FUSED) for name in state):
            state = together(state)
        if any(tensor.is_meta for tensor in mine.values()):
            raise GraderError(
                "This model is on `meta`, where tensors have no values."
                ' Give it memory first: model.to_empty(device="cpu")'
            )
        for name, tied in _tied_names(mine, state).items():
            state[name] = state[tied]
        complaint = mismatch(mine, state, {name for name, _ in model.named_buffers()})
        if complaint:
            raise GraderError("\n".join([f"{self.name} does not fit this model, which is left as it was:", *complaint]))
        return model.load_state_dict(state, strict=True)


@contextmanager
def _without_first_values() -> Iterator[None]:
    """What Linear and Embedding are made with is not drawn at random, for a while, but left as it lies in memory."""
    kinds: tuple[Any, ...] = (nn.Linear, nn.Embedding)
    before = [kind.reset_parameters for kind in kinds]
    try:
        for kind in kinds:
            kind.reset_parameters = lambda module: None
        yield
    finally:
        for kind, own in zip(kinds, before, strict=True):
            kind.reset_parameters = own


def _tied_names(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> dict[str, str]:
    """Names only the model has whose parameter is the same object as one the checkpoint has (a tied head)."""
    loaded = {id(tensor): name for name, tensor in mine.items() if name in theirs}
    return {name: loaded[id(t)] for name, t in mine.items() if name not in theirs and id(t) in loaded}


def mismatch(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor], buffers: Iterable[str] = ()) -> list[str]:
    """Why `theirs` (a checkpoint) does not load strictly into `mine` (a model's state), in a few lines.

    buffers: which of the model's names are buffers, which a model can keep out of its state.
    """
    theirs = {name: theirs[name] for name in mine if name in theirs} | dict(theirs)  # in the model's own order
    extra = [name for name in mine if name not in theirs]
    kept = [name for name in extra if name in set(buffers)]
    shapes = {name: tuple(tensor.shape) for name, tensor in mine.items()}
    lines = explain_names(shapes, theirs, [name for name in extra if name not in kept])
    return lines + layers_as_one(f"`{name}` is a buffer; register it with `persistent=False`" for name in kept)
