"""How much memory a KV cache takes."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from grader.errors import GraderError

if TYPE_CHECKING:
    from grader.config import Config


def kv(
    config: Annotated[Path | None, typer.Option("--config", help="A model's config.json, as the hub has it.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="In its place: a model by name (`grader models`).")
    ] = None,
    context: Annotated[int, typer.Option(help="How many tokens a sequence has.", min=1)] = 8192,
    batch: Annotated[int, typer.Option(help="How many sequences.", min=1)] = 1,
    dtype: Annotated[str, typer.Option(help="Of what is kept: float32, bfloat16, float8, int4, ...")] = "bfloat16",
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Say how much memory a model's KV cache takes: for one more token, in total, and by kind of layer."""
    from grader.config import Config
    from grader.kv import (
        ELEMENT_BYTES,
        bytes_at,
        bytes_by_kind,
        bytes_per_token,
        readable,
        readable_kib,
        remark,
    )

    if (config is None) == (model is None):
        raise GraderError("give either --config FILE or --model NAME.")
    if dtype not in ELEMENT_BYTES:
        raise GraderError(f"--dtype {dtype} is not known; there are: {', '.join(ELEMENT_BYTES)}.")
    found, size = Config.read(config) if config else _named(str(model)), ELEMENT_BYTES[dtype]
    one, total = bytes_per_token(found, size), bytes_at(found, context, batch, size)
    later = bytes_per_token(found, size, after=context)
    kinds = bytes_by_kind(found, context, batch, size)
    if note := remark(found):
        print(note, file=sys.stderr)
    if as_json:
        by_kind = {kind: {"count": count, "bytes": own} for kind, (count, own) in kinds.items()}
        numbers = {"bytes_per_token": one, "bytes_per_token_at_context": later, "total_bytes": total}
        print(json.dumps({"context": context, "batch": batch, "dtype": dtype, **numbers, "layers": by_kind}, indent=2))
        return
    lines = {
        "one token, at the start": readable_kib(one),
        f"one token, after {context:,}": readable_kib(later),
        f"{batch} x {context:,} tokens in {dtype}": readable(total),
        **{f"  {count} {kind} layer{'s' * (count > 1)}": readable(own) for kind, (count, own) in kinds.items()},
    }
    width = max(map(len, lines)) + 2
    for label, number in lines.items():
        print(f"{label + ':':<{width}}{number}")


def _named(name: str) -> "Config":
    """A model's config, by the calculator's name for it or the gallery's. Raises GraderError for another."""
    from grader.atlas.shown_models import gallery_model
    from grader.config import Config
    from grader.kv import known_model

    try:
        return known_model(name)
    except GraderError:
        found = gallery_model(name)
    if found.config is None:
        raise GraderError(f"no public file with the config of {found.name} was seen, so its cache can't be counted.")
    return Config(found.config)
