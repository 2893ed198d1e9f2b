"""Dataclasses as JSON that refers to tensors by a hash of their content, and back: each field by its type.

A field is written under its name, in the order of the class. One that holds its default is left out, unless it is
`written`. What a class gains, both directions know.
"""

import copy
import dataclasses
import json
from collections.abc import Mapping
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from grader.config import Config
from grader.errors import RecordingError
from grader.recordings.tensors import dtype_name, tensor_key
from grader.recordings.toy_lm import ToyLM

T = TypeVar("T")
NAME = 12  # signs of a tensor's hash are its name in the file: names are a tenth of a recording
KIND = "kind"  # the name of an object's class, where that is derived from the field's


def written(default: Any) -> Any:
    """A field of a dataclass with a default that is written all the same."""
    return dataclasses.field(default=default, metadata={"written": True})


@cache
def _fields(kind: type) -> list[tuple[dataclasses.Field[Any], Any]]:
    """A dataclass's fields, each with its type, without the None that it may be."""
    hints = get_type_hints(kind)
    return [(field, _something(hints[field.name])) for field in dataclasses.fields(kind)]


def _something(hint: Any) -> Any:
    """A type without the None that a value of it may be."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    return next(option for option in get_args(hint) if option is not type(None))


def _each(hint: Any, count: int) -> tuple[Any, ...]:
    """The types of a tuple's items."""
    items = get_args(hint)
    return items[:1] * count if items[-1] is ... else items


def _subclass(kind: type, name: str | None) -> type:
    """The class itself, or the one of that name that is derived from it. Raises RecordingError where there is none."""
    if name is None:
        return kind
    derived = [kind]
    for one in derived:
        derived += one.__subclasses__()
    for one in derived:
        if one.__name__ == name:
            return one
    raise RecordingError(
        f"`{name}` is no {kind.__name__} that this grader knows: use a grader as new as the recording."
    )


def _holds_tensors(hint: Any) -> bool:
    return get_args(hint)[1] is Tensor


class Encoder:
    """Writes values. tensors: those that it refers to, each kept once."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def tensor(self, tensor: Tensor) -> str:
        """Keep the tensor and return its key."""
        tensor = tensor.detach().cpu().contiguous()
        whole = tensor_key(tensor)
        key = whole[:NAME]
        if key in self.tensors:
            assert tensor_key(self.tensors[key]) == whole, "two tensors of one name: make names longer"
        else:
            self.tensors[key] = tensor.clone()
        return key

    def argument(self, value: Any) -> dict[str, Any]:
        """What a solution is called with. Raises RecordingError for what can't be kept."""
        if isinstance(value, Tensor):
            return {"tensor": self.tensor(value)}
        if isinstance(value, ToyLM):
            return {"toy_lm": {name: self.argument(item) for name, item in value.state_dict().items()}}
        if isinstance(value, Config):
            return {"config": dict(value)}
        if isinstance(value, list | tuple) and any(isinstance(item, Tensor) for item in value):
            return {"list": [self.argument(item) for item in value]}
        try:
            return {"json": json.loads(json.dumps(value))}
        except TypeError:
            raise RecordingError(f"an argument of type {type(value).__name__} can't be recorded") from None

    def encode(self, value: Any) -> dict[str, Any]:
        """A dataclass's object as JSON. Raises RecordingError for an argument in it that can't be kept."""
        found = [(field, hint, getattr(value, field.name)) for field, hint in _fields(type(value))]  # type: ignore[arg-type]  # mypy takes no class for hashable
        return {
            field.name: self._encoded(one, hint)
            for field, hint, one in found
            if field.metadata.get("written") or isinstance(one, Tensor) or one != field.default
        }

    def _encoded(self, value: Any, hint: Any) -> Any:
        if hint is Any:
            return self.argument(value)
        if isinstance(value, Tensor):
            return self.tensor(value)
        if isinstance(value, torch.dtype):
            return dtype_name(value)
        if isinstance(value, tuple):
            return [self._encoded(item, kind) for item, kind in zip(value, _each(hint, len(value)), strict=True)]
        if isinstance(value, Mapping):
            return {name: self.tensor(item) for name, item in value.items()} if _holds_tensors(hint) else dict(value)
        if not dataclasses.is_dataclass(value):
            return value
        name = {} if type(value) is hint else {KIND: type(value).__name__}
        return name | self.encode(value)


class Decoder:
    """Undoes what an `Encoder` did. tensors: those that it kept."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors

    def argument(self, encoded: Mapping[str, Any]) -> Any:
        """Undo `Encoder.argument`."""
        ((kind, content),) = encoded.items()
        if kind == "tensor":
            return self.tensors[content]
        if kind == "list":
            return [self.argument(item) for item in content]
        if kind == "config":
            return Config(copy.deepcopy(content))
        if kind == "toy_lm":
            weights = {name: self.argument(item) for name, item in content.items()}
            model = ToyLM(len(weights["token"]), len(weights["position"]), weights["token"].shape[1])
            model.load_state_dict(weights)
            return model.eval()
        return copy.deepcopy(content)

    def decode(self, kind: type[T], encoded: Mapping[str, Any]) -> T:
        """Undo `Encoder.encode`; what `encoded` holds beside the class's fields is left out."""
        hints = [(field.name, hint) for field, hint in _fields(kind) if field.name in encoded]  # type: ignore[arg-type]  # mypy takes no class for hashable
        return kind(**{name: self._decoded(encoded[name], hint) for name, hint in hints})

    def _decoded(self, encoded: Any, hint: Any) -> Any:
        if hint is Any:
            return self.argument(encoded)
        if encoded is None:
            return None
        if hint is Tensor:
            return self.tensors[encoded]
        if hint is torch.dtype:
            return getattr(torch, encoded)
        if isinstance(encoded, list):
            inner = zip(encoded, _each(hint, len(encoded)), strict=True)
            return tuple(self._decoded(item, _something(one)) for item, one in inner)
        if dataclasses.is_dataclass(hint):
            return self.decode(_subclass(hint, encoded.get(KIND)), encoded)  # type: ignore[arg-type]
        if isinstance(encoded, dict) and _holds_tensors(hint):
            return {name: self.tensors[key] for name, key in encoded.items()}
        return encoded
