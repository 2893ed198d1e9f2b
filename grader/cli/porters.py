"""For people who port a model: a trace of a small reference, and a comparison with it."""

import io
import json
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from grader.cli.course import FAILED
from grader.cli.options import Json, Model, earlier, the_model
from grader.errors import GraderError, NeedsAdapter
from grader.package import distribution

if TYPE_CHECKING:
    from grader.layers.rows import LayerReport
    from grader.recordings.traces import Trace


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
    if find_spec("transformers") is None:
        raise GraderError(
            "`grader trace` runs transformers' own class, and transformers is not installed here. "
            f"Install it: pip install '{distribution().name}[reference]'"
        )
    import torch

    from grader.porting.real import real_model
    from grader.porting.reference import small_reference
    from grader.porting.runs import Ways
    from grader.porting.sizes import TOKENS
    from grader.porting.unseen import measured
    from grader.recordings.tracefile import write_trace

    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype not in dtypes:
        raise GraderError(f"--dtype {dtype} is not known; there are: {', '.join(dtypes)}.")
    ways = Ways(cached, padded, offset)
    chosen, to = the_model(model, config, folder), output or to
    if weights or folder:
        if changes:
            raise GraderError("--set changes the config of a small random model. With --weights the weights fix it.")
        real = real_model(Path(chosen), dtypes[dtype], tokens or TOKENS, ways)
        write_trace(real.trace, to, real.kind)
        print(f"{real.kind} in {dtype}, {real.size:,} parameters, those of {chosen}; {to}")
        return
    reference = small_reference(chosen, dtypes[dtype], dict(map(_change, changes or [])), tokens, ways)
    found = measured(reference, _with_bar)
    write_trace(replace(reference.trace(), unseen=found.unseen), to, reference.kind)
    print(f"{reference.kind} in {dtype}, {reference.size:,} parameters, all random; {to}")
    for item in (*reference.kept, found.kept()):
        print(f"{'yes' if item.kept else 'no ':3} {item.name}: {item.detail}")


def _with_bar(items: Sequence[Any]) -> Iterable[Any]:
    """The items, with a bar in a terminal that shows how far it is."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(items, "What shows", console=console, transient=True, disable=not console.is_terminal)


def _change(text: str) -> tuple[str, object]:
    """A field and its value, which is read as JSON if it is any."""
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise GraderError(f"--set {text} is not FIELD=VALUE.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


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
    from grader.layers.debugger import port_report
    from grader.layers.dump import dump_report
    from grader.layers.own_model import load_model
    from grader.layers.own_names.files import read_names, write_names
    from grader.layers.own_names.naming import OwnNames
    from grader.recordings.tracefile import read_trace

    recorded, page = read_trace(reference), to or page
    if model.endswith(".safetensors"):
        _tell(dump_report(Path(model), recorded), rows, as_json, page, model)
    own = OwnNames(read_names(names) if names else {}, renames or (), reordered)
    loaded = load_model(model, name)
    try:
        with redirect_stdout(io.StringIO()):  # what the model prints
            report = port_report(loaded, recorded, own)
    except NeedsAdapter as error:
        advice = _advice(model, loaded, reference, recorded)
        raise GraderError(f"{error}\n{advice}" if advice else str(error)) from None
    if report.alignment and save_names:
        write_names(report.alignment.recipes, save_names)
    _tell(report, rows, as_json, page, model)


def _tell(report: "LayerReport", rows: Rows, as_json: bool, page: Path | None, model: str) -> NoReturn:
    """Print what a comparison found, write it as a page where that is asked for, and end with the exit code."""
    from grader.layers.as_json import as_json as json_of
    from grader.layers.own_names.told import table
    from grader.layers.shown import report_lines
    from grader.report import print_report
    from grader.report_page import to_page

    found, names = report_lines(report, rows.value), table(report.alignment) if report.alignment else []
    if page is not None:
        try:  # a page is read from its top, and a terminal from its end
            page.write_text(to_page([*found, *names], f"grader compare {Path(model).name}"), encoding="utf-8")
        except OSError as error:
            raise GraderError(f"{page} can't be written: {error.strerror}.") from None
    if as_json:
        print(json.dumps(json_of(report), indent=1))
    else:
        print_report([*names, *found])
    raise typer.Exit(0 if report.ok else FAILED)


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
    from grader.layers.adapter import adapter_for, is_module
    from grader.layers.own_model import file_of, load_model
    from grader.recordings.tracefile import read_trace

    recorded, loaded, file = read_trace(reference), load_model(model, name), file_of(model)
    if not is_module(loaded):
        raise GraderError(f"{model} is no class of a model. Name the class: {file}:CLASS")
    output = to or output or file.with_name("port.py")
    if output.exists():
        raise GraderError(f"{output} exists. Say where to write: --to FILE")
    made = adapter_for(loaded, file, recorded.build, list(recorded.weights), recorded.runs)
    output.write_text(made.source)
    print(f"{output}: compare it with: grader compare {output}:Port {reference}")
    if made.missing:
        print(f"Fill in what is written as `...`: {', '.join(made.missing)}")


def _advice(target: str, loaded: Any, reference: Path, recorded: "Trace") -> str:
    """The adapter that a program needs, as far as one can be made."""
    from grader.layers.adapter import adapter_for, is_module
    from grader.layers.own_model import file_of

    if not is_module(loaded):
        return ""
    file = file_of(target)
    made = adapter_for(loaded, file, recorded.build, list(recorded.weights), recorded.runs)
    named = f"{file}:{loaded.__name__}"
    written = f"`grader port {named} {reference}` writes this one"
    return f"Give it what it needs in a file beside it; {written}:\n\n{made.source}"
