"""Names that a person gives, or keeps: a file of them, and single ones on the command line."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from grader.errors import GraderError
from grader.porting.own_names.recipes import Recipe, as_json, from_json, whole
from grader.porting.own_names.roles import BIASES, WEIGHTS

Shapes = Mapping[str, tuple[int, ...]]


def write_names(recipes: Mapping[str, Recipe], path: Path) -> None:
    """Keep which tensor is which, one line for all layers where they are alike. Raises GraderError."""
    text = json.dumps({"names": patterns(recipes)}, indent=1)
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise GraderError(f"{path} can't be written: {error.strerror}") from None


def read_names(path: Path) -> dict[str, Any]:
    """What `write_names` wrote, or a person. Raises GraderError for what is not of that form."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["names"]
    except OSError as error:
        raise GraderError(f"{path} can't be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise GraderError(
            f'{path} is no file of names. It looks like this: {{"names": {{"YOURS": "THE REFERENCE\'S"}}}};'
            " `grader compare --save-names` writes one."
        ) from None
    if not isinstance(found, dict):
        raise GraderError(f"{path}: `names` is no object of names.")
    return found


def patterns(recipes: Mapping[str, Recipe]) -> dict[str, Any]:
    """Recipes as JSON, with `*` for the number of a layer where all layers are alike."""
    groups: dict[str, dict[str, Any]] = {}
    for name, recipe in recipes.items():
        groups.setdefault(_starred(name), {})[name] = as_json(_with_star(recipe, _layer(name)))
    found: dict[str, Any] = {}
    for pattern, items in groups.items():
        first = next(iter(items.values()))
        if all(item == first for item in items.values()):
            found[pattern] = first
        else:
            found |= {name: as_json(recipes[name]) for name in items}
    return found


def expanded(names: Mapping[str, Any], own: Shapes, wanted: Iterable[str]) -> dict[str, Recipe]:
    """The recipes that names stand for. own: the program's tensors. wanted: the reference's names.

    Raises GraderError where one of the names is neither's.
    """
    wanted, found = set(wanted), {}
    for pattern, value in names.items():
        expression = re.compile(re.escape(pattern).replace(r"\*", r"(\d+)"))
        matching = [(name, match) for name in own if (match := expression.fullmatch(name))]
        if not matching:
            raise GraderError(f"Your program has no tensor `{pattern}`.")
        for name, match in matching:
            try:
                recipe = from_json(value, own[name])
            except (TypeError, KeyError, AttributeError):
                raise GraderError(f"`{pattern}` is given as {value!r}, which is no name of the reference's.") from None
            recipe = recipe.with_source({source: _filled(source, match.groups()) for source in recipe.sources})
            strange = [source for source in recipe.sources if source not in wanted]
            if strange:
                raise GraderError(f"`{pattern}`: the reference has no tensor `{strange[0]}`.")
            found[name] = recipe
    return found


def renamed(renames: Iterable[str], own: Shapes, wanted: Iterable[str]) -> dict[str, Recipe]:
    """The recipes that `YOURS=THE REFERENCE'S` stand for: names of modules or of tensors, `*` being any number.

    Raises GraderError where one of the names is neither's.
    """
    wanted, found = set(wanted), {}
    for text in renames:
        mine, sign, theirs = text.partition("=")
        if not sign or not mine or not theirs:
            raise GraderError(f"--rename {text} is not YOURS=THE_REFERENCES, as in 'blocks.*.ln=model.layers.*.norm'.")
        expression = re.compile(re.escape(mine).replace(r"\*", r"(\d+)") + r"(\..+)?")
        matching = [(name, match) for name in own if (match := expression.fullmatch(name))]
        if not matching:
            raise GraderError(f"--rename {text}: your program has no `{mine}`.")
        for name, match in matching:
            *numbers, rest = match.groups()
            full = _filled(theirs, numbers) + (rest or "")
            leaf = full.rpartition(".")[2].lower()
            instead = "weight" if leaf in WEIGHTS else "bias" if leaf in BIASES else leaf
            options = [full, f"{full.rpartition('.')[0]}.{instead}"]
            source = next((option for option in options if option in wanted), None)
            if source is None:
                raise GraderError(f"--rename {text}: the reference has no tensor `{full}`.")
            found[name] = whole(source, own[name])
    return found


def _layer(name: str) -> str | None:
    match = re.search(r"\.(\d+)\.", name)
    return match[1] if match else None


def _starred(name: str) -> str:
    return re.sub(r"\.\d+\.", ".*.", name, count=1)


def _with_star(recipe: Recipe, layer: str | None) -> Recipe:
    return recipe.with_source({s: _starred(s) for s in recipe.sources if layer is not None and _layer(s) == layer})


def _filled(name: str, numbers: Iterable[str]) -> str:
    for number in numbers:
        name = name.replace("*", number, 1)
    return name
