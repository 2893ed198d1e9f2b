"""How much memory a KV cache takes."""

import json
import sys
from typing import Annotated

import typer

from grader.cli.options import Json, Model, earlier, the_model, tokens
from grader.errors import GraderError


def kv(
    model: Model = None,
    context: Annotated[
        int, typer.Option(parser=tokens, metavar="TOKENS", help="How many tokens a sequence has: 8192, 128k.")
    ] = 8192,
    batch: Annotated[int, typer.Option(help="How many sequences.", min=1)] = 1,
    dtype: Annotated[str, typer.Option(help="Of what is kept: float32, bfloat16, float8, int4, ...")] = "bfloat16",
    as_json: Json = False,
    config: Annotated[str | None, earlier("--config", instead="grader kv FILE")] = None,
    named: Annotated[str | None, earlier("--model", instead="grader kv NAME")] = None,
) -> None:
    """Say how much memory a model's KV cache takes.

    For one more token, in total, and by kind of layer.
    """
    from grader.atlas.cache import readable_kib
    from grader.kv import bytes_at, bytes_by_kind, bytes_per_token, known_model, readable
    from grader.kv.sizes import ELEMENT_BYTES, remark

    if dtype not in ELEMENT_BYTES:
        raise GraderError(f"--dtype {dtype} is not known; there are: {', '.join(ELEMENT_BYTES)}.")
    found, size = known_model(the_model(model, config, named)), ELEMENT_BYTES[dtype]
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
