"""A model's config.json with its fields as attributes."""

import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from grader.errors import GraderError

ALL_FIELDS = "; it has: "  # what comes after it in a complaint is long


class Config(Mapping[str, Any]):
    """A read-only ``config.json``: ``config.n_embd`` and ``config["n_embd"]`` are the same value.

    Raises AttributeError (or KeyError) for a field the config lacks, naming the closest one it has.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.__dict__["_fields"] = dict(fields)

    @classmethod
    def read(cls, path: str | Path) -> "Config":
        """The config in the file at `path`. Raises GraderError where that is no JSON object."""
        try:
            return cls.parse(Path(path).read_text(encoding="utf-8"), str(path))
        except OSError as error:
            raise GraderError(f"{path} can't be read: {error.strerror}. Is the path right?") from None
        except UnicodeDecodeError as error:
            raise GraderError(f"{path} is not JSON ({error}). A config.json starts with {{.") from None

    @classmethod
    def parse(cls, text: str, what: str) -> "Config":
        """The config that a text holds. what: how a complaint calls it. Raises GraderError where it is no object."""
        try:
            fields = json.loads(text, object_hook=_infinite)
        except ValueError as error:
            raise GraderError(f"{what} is not JSON ({error}). A config.json starts with {{.") from None
        if not isinstance(fields, dict):
            raise GraderError(f"{what} holds a {type(fields).__name__}, but a config.json is one object.")
        return cls(fields)

    def _complaint(self, name: str) -> str:
        close = difflib.get_close_matches(name, self._fields, n=1, cutoff=0.8)
        if close:
            return f"this config has no field `{name}`; did you mean `{close[0]}`?"
        return f"this config has no field `{name}`{ALL_FIELDS}{', '.join(self._fields)}."

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self.__dict__["_fields"][name]
        except KeyError:
            raise AttributeError(self._complaint(name)) from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a config is read-only; use config.replace({name}={value!r}) for a changed copy")

    def __getitem__(self, name: str) -> Any:
        if name not in self._fields:
            raise KeyError(self._complaint(name))
        return self._fields[name]

    def __contains__(self, name: object) -> bool:
        return name in self._fields

    def get(self, name: str, default: Any = None) -> Any:
        """The field's value, or `default`. (Mapping's own would word a complaint first, which is slow.)"""
        return self._fields.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"Config({', '.join(f'{name}={value!r}' for name, value in self._fields.items())})"

    def __reduce__(self) -> tuple[type["Config"], tuple[dict[str, Any]]]:
        return Config, (dict(self._fields),)

    def replace(self, **changes: Any) -> "Config":
        """A copy with some fields changed."""
        return Config({**self._fields, **changes})


def _infinite(found: dict[str, Any]) -> Any:
    """The number that transformers writes as {"__float__": "Infinity"}; any other object as it is."""
    number = found.get("__float__") if len(found) == 1 else None
    return float(number) if number in ("Infinity", "-Infinity", "NaN") else found
