"""How much memory a KV cache takes."""

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from grader.cli.options import Json, Model, earlier, the_model, tokens
from grader.errors import GraderError

if TYPE_CHECKING:
    from grader import Config
    from grader.kv import Quantised


def kv(
    model: Model = None,
    context: Annotated[
        int, typer.Option(parser=tokens, metavar="TOKENS", help="How many tokens a sequence has: 8192, 128k.")
    ] = 8192,
    batch: Annotated[int, typer.Option(help="How many sequences.", min=1)] = 1,
    dtype: Annotated[str, typer.Option(help="Of what is kept: float32, bfloat16, float8, int4, ...")] = "bfloat16",
    bits: Annotated[
        int | None, typer.Option(help="Quantised: of each number of a key, and of a value. Scales are counted too.")
    ] = None,
    value_bits: Annotated[int | None, typer.Option(help="Of each number of a value, where it has other bits.")] = None,
    way: Annotated[
        str, typer.Option(help="What is kept beside the bits: token, group, turboquant, turboquant-product.")
    ] = "token",
    recent: Annotated[int, typer.Option(help="How many of the newest tokens stay in 16 bits.", min=0)] = 0,
    as_json: Json = False,
    config: Annotated[str | None, earlier("--config", instead="grader kv FILE")] = None,
    named: Annotated[str | None, earlier("--model", instead="grader kv NAME")] = None,
) -> None:
    """Say how much memory a model's KV cache takes.

    For one more token, in total, and by kind of layer.
    """
    from grader.atlas.cache import readable_kib
    from grader.kv import Quantised, bytes_at, bytes_by_kind, bytes_per_token, known_model, readable
    from grader.kv.sizes import ELEMENT_BYTES, remark

    if dtype not in ELEMENT_BYTES:
        raise GraderError(f"--dtype {dtype} is not known; there are: {', '.join(ELEMENT_BYTES)}.")
    found, size = known_model(the_model(model, config, named)), ELEMENT_BYTES[dtype]
    if bits is not None:
        _quantised(found, (context, batch), Quantised(bits, value_bits or bits, way, recent), as_json=as_json)
        return
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
    _print_beside(lines)


def _quantised(found: "Config", texts: tuple[int, int], kept: "Quantised", *, as_json: bool) -> None:
    """Print what a quantised cache takes, beside one of 16 bits. texts: how long they are, and how many."""
    from grader.atlas.cache import readable_kib
    from grader.kv import bytes_at, bytes_per_token, quantised_bytes_at, quantised_bytes_per_token, readable
    from grader.kv.quantised import is_all_quantised

    context, batch = texts
    one, total = quantised_bytes_per_token(found, kept), quantised_bytes_at(found, context, kept, batch)
    whole, before = bytes_at(found, context, batch), bytes_per_token(found)
    if not is_all_quantised(found):
        print("Only keys and values are quantised; what else the layers keep stays in 16 bits.", file=sys.stderr)
    if as_json:
        numbers = {"bytes_per_token": one, "total_bytes": total, "total_bytes_in_bfloat16": whole}
        said = {"key_bits": kept.key_bits, "value_bits": kept.value_bits, "way": kept.way, "recent": kept.recent}
        print(json.dumps({"context": context, "batch": batch, **said, **numbers}, indent=2))
        return
    name = (
        f"{kept.key_bits} bits" if kept.key_bits == kept.value_bits else f"{kept.key_bits} and {kept.value_bits} bits"
    )
    lines = {
        f"one token in {name}, all counted": f"{readable_kib(one)}, {16 * one / before:.2f} bits a number",
        f"{batch} x {context:,} tokens in {name}": readable(total),
        f"{batch} x {context:,} tokens in bfloat16": f"{readable(whole)}, {whole / total:.2f} times as much",
    }
    _print_beside(lines)


def _print_beside(lines: Mapping[str, str]) -> None:
    """Print labels, and what belongs to each, one below the other."""
    width = max(map(len, lines)) + 2
    for label, number in lines.items():
        print(f"{label + ':':<{width}}{number}")
