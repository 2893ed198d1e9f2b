"""The `grader` command.

Exit codes: 0 for success, 1 where a check did not pass or a build is stale, 2 for input that can't be used.
What a command needs is imported when it runs, so that `grader --help` answers at once.
"""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from grader.errors import GraderError

if TYPE_CHECKING:
    from nbformat import NotebookNode
    from rich.console import Console

    from grader.headless import Result
    from grader.lesson import Lesson

FAILED = 1
BAD_INPUT = 2

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
    _prepend_to_path("JUPYTER_CONFIG_PATH", Path(__file__).parent / "jupyter")
    _prepend_to_path("PATH", Path(sys.executable).parent)  # nbgrader runs `alembic`, and people run `!pip`
    os.execv(sys.executable, command)


def _prepend_to_path(variable: str, folder: Path) -> None:
    os.environ[variable] = os.pathsep.join(filter(None, [str(folder), os.environ.get(variable)]))


def find_project(start: Path) -> Path:
    """The closest folder, from `start` upwards, that holds the course; else where this package was installed from."""
    for folder in (start, *start.parents, Path(__file__).resolve().parent.parent):
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

    from grader import headless

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
    from grader import headless

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

    from grader import build as builder

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


def _choose_lessons(root: Path, names: list[str]) -> list["Lesson"]:
    """The lessons of those names, which may also be paths as a shell completes them; all of them for no names."""
    from grader.lesson import lessons

    known = {lesson.name: lesson for lesson in lessons(root)}
    if not known:
        raise GraderError(f"{root / 'solutions'} has no lessons.")
    wanted = [Path(name).name for name in names]
    for name in wanted:
        if name not in known:
            raise GraderError(f"there is no lesson `{name}`. There are: {', '.join(known)}.")
    return [known[name] for name in wanted] if names else list(known.values())


@weights_app.command("list")
def weights_list() -> None:
    """Say which checkpoints there are, and which of them are on this machine."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from grader.checkpoints import list_checkpoints

    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("name", "where", "parameters", "size", "licence", "what it is"):
        justify: Literal["left", "right"] = "right" if heading in ("parameters", "size") else "left"
        table.add_column(heading, justify=justify, no_wrap=heading == "name")
    listed = list_checkpoints()
    for item in listed:
        parameters = "" if item.parameters is None else f"{item.parameters / 1e6:,.1f} M"
        size = "" if item.size is None else f"{item.size / 1e6:,.0f} MB"
        licence = f"{item.licence} (gated)" if item.gated else item.licence
        table.add_row(item.name, item.place, parameters, size, licence, item.description)
    Console().print(table)
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
