"""What `grader trace`, `grader compare` and `grader port` do, once their options are read."""

import io
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from grader.errors import GraderError, NeedsAdapter
from grader.layers.own_model import file_of, load_model, roots
from grader.layers.wording import Open, report_lines
from grader.package import distribution
from grader.porting.adapters.adapter import Adapter, adapter_for, is_module
from grader.porting.comparing import port_report
from grader.porting.dump import dump_report
from grader.porting.own_names.files import read_names, write_names
from grader.porting.own_names.loading import OwnNames
from grader.porting.own_names.wording import table
from grader.porting.real import real_model
from grader.porting.reference import small_reference
from grader.porting.report import PortReport, as_json
from grader.porting.runs import ONE_PASS, Ways
from grader.porting.sizes import TOKENS
from grader.porting.unseen import measured
from grader.recordings.tracefile import read_trace, write_trace
from grader.recordings.traces import Trace
from grader.report import print_report
from grader.report_page import to_page

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class TraceOptions:
    """What to trace: a small random model of a config, or with `weights` a folder's real one. output: where to write.

    model: what names it, as for `grader.atlas.architecture_of`; with `weights` a folder.
    dtype: a name of DTYPES. changes: `FIELD=VALUE` of the small config. tokens: how many; None: as many as show what
    the layers do. ways: how the model is run besides.
    """

    model: str
    weights: bool = False
    output: Path = Path("trace.safetensors")
    dtype: str = "float32"
    changes: Sequence[str] = ()
    tokens: int | None = None
    ways: Ways = ONE_PASS


def trace(options: TraceOptions) -> None:
    """Write a trace, and print what it shows. Raises GraderError where they contradict, or no model can be run."""
    if find_spec("transformers") is None:
        raise GraderError(
            "`grader trace` runs transformers' own class, and transformers is not installed here. "
            f"Install it: pip install '{distribution().name}[reference]'"
        )
    if options.dtype not in DTYPES:
        raise GraderError(f"--dtype {options.dtype} is not known; there are: {', '.join(DTYPES)}.")
    if options.weights:
        _trace_real(options, Path(options.model))
    else:
        _trace_small(options)


def _trace_real(options: TraceOptions, folder: Path) -> None:
    if options.changes:
        raise GraderError("--set changes the config of a small random model. With --weights the weights fix it.")
    real = real_model(folder, DTYPES[options.dtype], options.tokens or TOKENS, options.ways)
    write_trace(real.trace, options.output, real.kind)
    print(f"{real.kind} in {options.dtype}, {real.size:,} parameters, those of {folder}; {options.output}")


def _trace_small(options: TraceOptions) -> None:
    changes = dict(map(_change, options.changes))
    reference = small_reference(options.model, DTYPES[options.dtype], changes, options.tokens, options.ways)
    found = measured(reference, _with_bar)
    write_trace(replace(reference.trace, unseen=found.unseen), options.output, reference.kind)
    print(f"{reference.kind} in {options.dtype}, {reference.size:,} parameters, all random; {options.output}")
    print(f"small in: {', '.join(reference.trace.changed)}")
    for item in (*reference.coverage, found.coverage()):
        print(f"{'yes' if item.covered else 'no ':3} {item.name}: {item.detail}")


def _with_bar(items: Sequence[Any]) -> Iterable[Any]:
    """The items, with a bar in a terminal that shows how far it is."""
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


@dataclass(frozen=True)
class CompareOptions:
    """What to compare, and how to show it. target, name: the program, as of `load_model`, or a file of its arrays.

    trace: a trace's file, or a recording. open: which blocks are shown from inside. names, renames, reordered: what is
    known of the program's names, as of `OwnNames`; names is a file. save_names, page: where to write. json: whether to
    print JSON.
    """

    target: str
    trace: Path
    name: str | None = None
    open: Open = "first"
    names: Path | None = None
    renames: Sequence[str] = ()
    reordered: bool = False
    save_names: Path | None = None
    json: bool = False
    page: Path | None = None


def compare(options: CompareOptions) -> bool:
    """Print what a comparison found; whether every row is right. Raises GraderError where the two can't be compared."""
    recorded = read_trace(options.trace)
    if options.target.endswith(".safetensors"):
        report = dump_report(Path(options.target), recorded)
    else:
        report = _program_report(options, recorded)
    if report.alignment and options.save_names:
        write_names(report.alignment.recipes, options.save_names)
    found, names = report_lines(report, options.open), table(report.alignment) if report.alignment else []
    if options.page is not None:
        page = to_page([*found, *names], f"grader compare {Path(options.target).name}")
        try:  # a page is read from its top, and a terminal from its end
            options.page.write_text(page, encoding="utf-8")
        except OSError as error:
            raise GraderError(f"{options.page} can't be written: {error.strerror}.") from None
    if options.json:
        print(json.dumps(as_json(report), indent=1))
    else:
        print_report([*names, *found])
    return report.ok


def _program_report(options: CompareOptions, recorded: Trace) -> PortReport:
    names: Mapping[str, Any] = read_names(options.names) if options.names else {}
    own = OwnNames(names, options.renames, options.reordered)
    loaded = load_model(options.target, options.name)
    try:
        with redirect_stdout(io.StringIO()):  # what the model prints
            return port_report(loaded, recorded, own)
    except NeedsAdapter as error:
        if not is_module(loaded):
            raise GraderError(str(error)) from None
        file = file_of(options.target)
        written = f"`grader port {file}:{loaded.__name__} {options.trace}` writes this one"
        advice = f"Give it what it needs in a file beside it; {written}:\n\n{_adapter(loaded, file, recorded).source}"
        raise GraderError(f"{error}\n{advice}") from None


def port(target: str, trace: Path, name: str | None = None, output: Path | None = None) -> None:
    """Write the adapter that a program needs. output: port.py beside it if None.

    Raises GraderError where it can't have one, or the file exists.
    """
    recorded, loaded, file = read_trace(trace), load_model(target, name), file_of(target)
    if not is_module(loaded):
        raise GraderError(f"{target} is no class of a model. Name the class: {file}:CLASS")
    output = output or file.with_name("port.py")
    if output.exists():
        raise GraderError(f"{output} exists. Say where to write: --to FILE")
    made = _adapter(loaded, file, recorded)
    output.write_text(made.source)
    beside = output.resolve().parent == file.resolve().parent
    found = "" if beside else f"PYTHONPATH={shlex.quote(str(roots(file)[1]))} "  # where its imports are looked for
    print(f"{output}: compare it with: {found}grader compare {output}:Port {trace}")
    if made.missing:
        print(f"Fill in what is written as `...`: {', '.join(made.missing)}")


def _adapter(model: type, file: Path, recorded: Trace) -> Adapter:
    return adapter_for(model, file, recorded.build, list(recorded.weights), recorded.runs)
