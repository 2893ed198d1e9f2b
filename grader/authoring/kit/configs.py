"""Configs of exercises: the fields that one reads, the sizes that a report names, a second config unlike the first."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from grader.config import Config


def published(file: str, name: str) -> Config:
    """The config of a published model, ``configs/NAME.json`` beside `file`."""
    return Config.read(Path(file).parent / "configs" / f"{name}.json")


def fields_of(config: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The fields of these names, of those that the config has: a case gives no more than its exercise reads."""
    return {name: config[name] for name in names if name in config}


def sizes(*names: str) -> Callable[[Mapping[str, Any]], dict[str, int]]:
    """`sizes` of an exercise that is built from a config: these fields of it."""
    return lambda build: fields_of(build["config"], *names)


def head_sizes(width: str, heads: str, *more: str) -> Callable[[Mapping[str, Any]], dict[str, int]]:
    """As `sizes`, with that of a head in front: its own field, or the model's width divided among the heads."""

    def found(build: Mapping[str, Any]) -> dict[str, int]:
        config = build["config"]
        head_dim = config.get("head_dim") or config[width] // config[heads]
        return {"head_dim": head_dim, **fields_of(config, width, heads, *more)}

    return found


def second(first: Mapping[str, Any], **given: Any) -> dict[str, Any]:
    """Another config with the fields of `first`: every number is another, and no two sizes of both are equal.

    So no number can stand for another, and none can be written down. A size stays even or odd, as one that is halved
    must be. Texts and lists stay. given: fields that are taken as they are, as sizes that must divide each other.
    """
    made = {**first, **given}
    taken = {value for config in (first, given) for value in config.values() if _is_size(value)}
    for name, value in first.items():
        if name in given:
            continue
        if _is_size(value):
            value = next(n for n in range(value + 2, value + 2 * len(taken) + 4, 2) if n not in taken)
            taken.add(value)
        elif isinstance(value, bool):
            value = not value
        elif isinstance(value, float):
            value = 3 * value
        made[name] = value
    return made


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
