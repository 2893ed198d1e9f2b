"""What a config.json says, or its class in transformers takes where the file says nothing; and which of the two."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from grader.errors import GraderError

NOT_TOLD = "not told"
CLASSES = files("grader.atlas") / "classes.json"


@dataclass(frozen=True)
class Fact:
    """Something known of a model.

    value: a number, a word, or None where it can't be told. source: the field of the config.json, ``default of
    Qwen3Config`` where the file leaves the field out, ``code of Qwen3Config's model`` where no field says it,
    or the fields that it was worked out from.
    """

    value: Any
    source: str


def shown(value: Any) -> str:
    """A fact's value as people write it."""
    if value is None:
        return NOT_TOLD
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


@cache
def classes() -> dict[str, dict[str, Any]]:
    """For each model_type: its class's name, the values of fields that a file leaves out, and other names of fields."""
    found: dict[str, dict[str, Any]] = json.loads(CLASSES.read_text(encoding="utf-8"))
    return found


class Fields:
    """The fields of one config.json, over the defaults of its class.

    own: the file's fields. kind: the model_type whose class is asked for the rest. asked: the sources of the values
    that were asked for, in that order; whoever clears it learns which fields a part of the model is read from.
    model: what they describe, in words. least_width: what the width of the residual stream is at least.
    """

    least_width = 1

    def __init__(self, own: Mapping[str, Any], kind: str) -> None:
        known = classes()[kind]
        self.own, self.kind, self.model = dict(own), kind, f"a {kind} model"
        self.asked: dict[str, None] = {}
        self.class_name: str = known["class"]
        self._defaults: dict[str, Any] = known["fields"]
        self._names: dict[str, str] = known["names"]

    @property
    def code(self) -> str:
        """The source of what only the class's code says."""
        return f"code of {self.class_name.removesuffix('Config')} in transformers"

    def _spellings(self, name: str) -> list[str]:
        """The name, and what else transformers takes for it."""
        others = [other for other, meant in self._names.items() if meant == name]
        meant = self._names.get(name)
        return [name, *([meant] if meant else []), *others]

    def fact(self, *names: str) -> Fact:
        """The first of these fields that the file has, or its class has a default for."""
        found = self._found(names)
        if found.value is not None:
            self.asked[found.source] = None
        return found

    def peek(self, name: str) -> Any:
        """The value alone, by someone who may not use it: its source is not noted."""
        return self._found((name,)).value

    def mine(self, name: str) -> Any:
        """The value that the file itself has under exactly this name; None where it has none."""
        value = self.own.get(name)
        if value is not None:
            self.asked[name] = None
        return value

    def _found(self, names: tuple[str, ...]) -> Fact:
        for name in names:
            spellings = self._spellings(name)
            for spelling in spellings:
                if self.own.get(spelling) is not None:
                    return Fact(self.own[spelling], spelling)
            if any(spelling in self.own for spelling in spellings):
                continue  # a file that says null means it
            for spelling in spellings:
                if self._defaults.get(spelling) is not None:
                    return Fact(self._defaults[spelling], f"default of {self.class_name}: {spelling}")
        return Fact(None, names[0])

    def of_layer(self, layer: int) -> "Fields":
        """The fields with what `per_layer_config` says of one layer alone, as transformers 5 writes it: ``"05"``."""
        by_layer = self.own.get("per_layer_config") or {}
        changed = next((fields for key, fields in by_layer.items() if int(key) == layer), None)
        if not changed:
            return self
        found = copy(self)
        found.own = {**self.own, **changed}
        return found

    def get(self, *names: str) -> Any:
        """The value alone; None where neither the file nor the class has one."""
        return self.fact(*names).value

    def has(self, name: str) -> bool:
        """Whether the file itself has the field, or null in it."""
        return any(spelling in self.own for spelling in self._spellings(name))

    def number(self, *names: str, least: int = 0) -> int:
        """A whole number, 0 where there is none. Raises GraderError for anything else, and below `least`."""
        fact = self.fact(*names)
        value = 0 if fact.value is None else fact.value
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int or value < least:
            if fact.value is None:
                what = f"this config has {'null as' if self.has(names[0]) else 'no'} `{names[0]}`"
                raise GraderError(f"{what}, and {self.model} can't be read without it. {self._close()}")
            kind = "a positive whole number" if least else "a whole number"
            raise GraderError(f"`{fact.source}` is {fact.value!r} in this config, and should be {kind}.")
        return value

    def needed(self, *names: str) -> int:
        """A positive whole number. Raises GraderError where there is none."""
        return self.number(*names, least=1)

    def truth(self, name: str) -> bool:
        """A field that is true or false. Raises GraderError for anything else."""
        value = self.get(name)
        if value not in (None, True, False, 0, 1):
            raise GraderError(f"`{name}` is {value!r} in this config, and should be true or false.")
        return bool(value)

    def listed(self, name: str, count: int) -> list[Any] | None:
        """A list with an entry for each layer, or None. Raises GraderError where it is none, or too short."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, (list, tuple)):
            raise GraderError(f"`{name}` is {value!r} in this config, and should be a list with an entry a layer.")
        if len(value) < count:
            raise GraderError(f"`{name}` has {len(value)} entries in this config, and the model has {count} layers.")
        return list(value)

    def _close(self) -> str:
        if any(part in self.own for part in ("vision_config", "image_size", "patch_size")):
            return "It looks like the config of a model for images; the language model's part is what is read here."
        if not self.own:
            return "It has no fields at all."
        return f"Its fields are: {', '.join(list(self.own)[:12])}{', ...' if len(self.own) > 12 else '.'}"


class ShapeFields(Fields):
    """Those of a config without a model_type, which takes nothing from a class. kind: whose rules it follows."""

    least_width = 0  # no cache depends on it

    def __init__(self, own: Mapping[str, Any], kind: str) -> None:
        super().__init__(own, kind)
        self.model = "a shape without a model_type"
        self._defaults, self._names = {}, classes()["gpt2"]["names"]


@contextmanager
def explained(fields: Fields) -> Iterator[None]:
    """Raises GraderError, with the field that was read last, where a field is not of the kind that it should be."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
        near = f" The last one that was read is `{list(fields.asked)[-1]}`." if fields.asked else ""
        raise GraderError(f"a field of this config is not what a config.json has there: {error}.{near}") from None
