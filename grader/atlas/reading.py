"""Reads a config.json: by the lines of its family, and where it has none here, only as far as transformers agrees."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from grader.atlas.arbiter import Asked, held
from grader.atlas.architecture import Architecture, architecture_in
from grader.atlas.cache import caches, counts
from grader.atlas.family import family_of, is_known, text_part

HELD = " Its parameters and its cache are as many as those of transformers' own model; the rest was not compared."


def read(config: Mapping[str, Any], name: str = "") -> Architecture:
    """Read a config.json. config: its fields, as on the hub or as transformers writes it.

    A family that is not known here is read as its nearest relative. What is then counted is held to transformers' own
    model, where that knows the family. Raises GraderError where the config does not say enough, contradicts itself, or
    describes what is not known here; Unread, which is one, where transformers has a model of it that counts otherwise.
    """
    own, kind = text_part(config) if isinstance(config, Mapping) else ({}, "")
    if not kind or is_known(kind) or own.get("is_encoder_decoder"):
        return architecture_in(family_of(config), name)
    found, agreed = held(own, kind, lambda: architecture_in(family_of(config), name), _agrees, name)
    return replace(found, remark=found.remark + HELD) if agreed else found


def _agrees(found: Architecture, asked: Asked) -> bool:
    return found.parameters == asked.parameters and counts(caches(found)) == counts(asked.kept or ())
