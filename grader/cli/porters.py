"""For people who port a model: a trace of a small reference, and a comparison with it."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from grader.cli.course import FAILED
from grader.cli.options import Json, Model, earlier, the_model

TRACE = Path("trace.safetensors")


class Rows(StrEnum):
    """Which blocks of a comparison are shown from inside."""

    first = "first"
    all = "all"
    none = "none"


def trace(
    model: Model = None,
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="Where to write the trace.")] = TRACE,
    weights: Annotated[
        bool, typer.Option("--weights", help="Run the weights that are in the folder MODEL, not a small random model.")
    ] = False,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16: of the weights.")] = "float32",
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="A field of the small config; may be given several times."),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=2, help="How many tokens the model is given; 14 or what shows its layers.")
    ] = None,
    cached: Annotated[
        bool, typer.Option("--cached", help="Decode with a cache, too: a prompt, chunks, tokens.")
    ] = False,
    padded: Annotated[
        bool, typer.Option("--padding", help="Texts of unequal length, too: padding before one.")
    ] = False,
    offset: Annotated[int, typer.Option(min=0, help="Begin at this position, too.")] = 0,
    config: Annotated[str | None, earlier("--config", instead="grader trace FILE")] = None,
    folder: Annotated[str | None, earlier("--model", instead="grader trace FOLDER --weights")] = None,
    output: Annotated[Path | None, earlier("--output", instead="--to FILE")] = None,
) -> None:
    """Keep what each module of a small reference does.

    It runs a small random model of any architecture that transformers knows. The model has the architecture in the
    config.json, but is narrow and cut to its first layers. `grader compare` then tells whether a model of yours
    does the same.
    """
    from grader.porting import command
    from grader.porting.runs import Ways

    chosen, real, ways = the_model(model, config, folder), weights or folder is not None, Ways(cached, padded, offset)
    command.trace(command.TraceOptions(chosen, real, output or to, dtype, changes or (), tokens, ways))


def compare(
    model: Annotated[
        str,
        typer.Argument(
            metavar="NOTEBOOK_OR_MODULE", help="model.py:CLASS, notebook.ipynb:CLASS or arrays.safetensors."
        ),
    ],
    reference: Annotated[Path, typer.Argument(metavar="TRACE", help="What `grader trace` wrote, or a recording.")],
    name: Annotated[
        str | None, typer.Option("--class", help="The model's class, a function of the config, or a model.")
    ] = None,
    rows: Annotated[Rows, typer.Option("--open", help="Which blocks to show from inside.")] = Rows.first,
    renames: Annotated[
        list[str] | None,
        typer.Option("--rename", metavar="YOURS=REFERENCE", help="Two names of one module or tensor; * is any number."),
    ] = None,
    names: Annotated[Path | None, typer.Option("--names", help="A file of names, as --save-names writes it.")] = None,
    save_names: Annotated[
        Path | None, typer.Option("--save-names", help="Keep which tensor was matched with which.")
    ] = None,
    reordered: Annotated[
        bool, typer.Option("--reordered", help="Your loader reorders rows of weights, as this command told you.")
    ] = False,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE.html", help="Write what was found as a page, too.")
    ] = None,
    as_json: Json = False,
    page: Annotated[Path | None, earlier("--html", instead="--to FILE.html")] = None,
) -> None:
    """Compare your model with a trace: where to start looking.

    The model may have names of its own: they are matched with the reference's, and the table says which is which.
    A program that is not PyTorch writes its arrays to a .safetensors file, named after the reference's modules.
    Exits with 0 if every row is right, with 1 if one is not, with 2 if the two can't be compared.
    """
    from grader.porting import command

    options = command.CompareOptions(
        model, reference, name, rows.value, names, renames or (), reordered, save_names, as_json, to or page
    )
    raise typer.Exit(0 if command.compare(options) else FAILED)


def port(
    model: Annotated[str, typer.Argument(metavar="NOTEBOOK_OR_MODULE", help="model.py:CLASS or notebook.ipynb:CLASS.")],
    reference: Annotated[Path, typer.Argument(metavar="TRACE", help="What `grader trace` wrote.")],
    name: Annotated[str | None, typer.Option("--class", help="The model's class.")] = None,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="Where to write it; by default port.py beside it.")
    ] = None,
    output: Annotated[Path | None, earlier("--output", instead="--to FILE")] = None,
) -> None:
    """Write what a program with its own config needs to be compared.

    Those are lines that fill in the fields of that config. The program itself is not changed. `grader compare
    port.py:Port TRACE` compares it.
    """
    from grader.porting import command

    command.port(model, reference, name, to or output)
