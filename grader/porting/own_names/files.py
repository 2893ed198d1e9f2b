"""Names that a person gives, or keeps: a file of them, and single ones on the command line."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from grader.errors import GraderError
from grader.porting.own_names.recipes import Piece, Recipe, as_json, from_json
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


def renamed(renames: Iterable[str], own: Shapes, wanted: Shapes) -> dict[str, Recipe]:
    """The recipes that `YOURS=THE REFERENCE'S` stand for: names of modules or of tensors, `*` being any number.

    The reference's may be in every form that the table of names prints: `{q_proj, k_proj}` or `one + other` for what is
    joined, and `, transposed` or `, part 1 of 3 of its rows` after it. wanted: the reference's tensors.
    Raises GraderError where one of the names is neither's.
    """
    found = {}
    for text in renames:
        mine, sign, theirs = text.partition("=")
        if not sign or not mine or not theirs:
            raise GraderError(f"--rename {text} is not YOURS=THE_REFERENCES, as in 'blocks.*.ln=model.layers.*.norm'.")
        theirs, _, said = theirs.partition(", ") if "{" not in theirs else _after_braces(theirs)
        expression = re.compile(re.escape(mine).replace(r"\*", r"(\d+)") + r"(\..+)?")
        matching = [(name, match) for name in own if (match := expression.fullmatch(name))]
        if not matching:
            raise GraderError(f"--rename {text}: your program has no `{mine}`.")
        for name, match in matching:
            *numbers, rest = match.groups()
            sources = [_source(text, _filled(one, numbers) + (rest or ""), wanted) for one in _each(theirs)]
            found[name] = _recipe(text, sources, own[name], wanted, said)
    return found


def _after_braces(text: str) -> tuple[str, str, str]:
    end = text.rindex("}")
    head, comma, said = text[end:].partition(", ")
    return text[:end] + head, comma, said


def _each(theirs: str) -> list[str]:
    """The single names in `attn.{q, k}.weight`, or in `one + other`."""
    names: list[str] = []
    for name in theirs.split(" + "):
        match = re.fullmatch(r"(.*)\{(.+)\}(.*)", name)
        names += [match[1] + part.strip() + match[3] for part in match[2].split(",")] if match else [name]
    return names


def _source(text: str, full: str, wanted: Shapes) -> str:
    leaf = full.rpartition(".")[2].lower()
    instead = "weight" if leaf in WEIGHTS else "bias" if leaf in BIASES else leaf
    options = [full, f"{full.rpartition('.')[0]}.{instead}"]
    source = next((option for option in options if option in wanted), None)
    if source is None:
        raise GraderError(f"--rename {text}: the reference has no tensor `{full}`.")
    return source


def _recipe(text: str, sources: list[str], shape: tuple[int, ...], wanted: Shapes, said: str) -> Recipe:
    """What a program's tensor of `shape` is made of."""
    whole_shape = wanted[sources[0]]
    part = re.search(r"part (\d+) of (\d+)", said)
    if part is None and len(sources) == 1:
        turned = "transposed" in said or (shape != whole_shape and shape == whole_shape[::-1])
        return Recipe((Piece(sources[0], turned=turned),), shape)
    if part is None:
        rows = sum(wanted[source][0] for source in sources)
        return Recipe(tuple(map(Piece, sources)), shape, turned="transposed" in said or shape[:1] != (rows,))
    number, count = int(part[1]) - 1, int(part[2])
    turned = whole_shape[0] in shape[-1:] or "transposed" in said
    total, mine = whole_shape[-1 if turned and len(whole_shape) > 1 else 0], shape[0]
    others = (total - mine) // (count - 1) if count > 1 and number == 0 else mine
    parts = (mine if number == 0 else total - mine * (count - 1), *[others] * (count - 1))
    if sum(parts) != total:
        raise GraderError(f"--rename {text}: {count} parts do not make up the {total} rows of `{sources[0]}`.")
    return Recipe((Piece(sources[0], turned=turned, part=number, parts=parts),), shape)


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
