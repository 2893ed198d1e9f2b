"""Learn: check a notebook."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from grader.cli.course import FAILED
from grader.cli.options import Json, earlier
from grader.errors import GraderError

if TYPE_CHECKING:
    from nbformat import NotebookNode
    from rich.console import Console

    from grader.lessons.results import CheckResult

INTERRUPTED = 130  # as shells have it for a program that Ctrl-C ended


def check(
    notebook: Annotated[Path, typer.Argument(help="A notebook with checks in it.")],
    timeout: Annotated[int, typer.Option(help="Seconds that one cell may take.", min=1)] = 600,
    as_json: Json = False,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE.xml", help="Write them in JUnit's format too, for CI.")
    ] = None,
    junit: Annotated[Path | None, earlier("--junit", instead="--to FILE.xml")] = None,
) -> None:
    """Run a notebook from the top and say which exercises pass.

    The notebook's file is left as it is. Exits with 0 if every graded check passes, with 1 if one does not, with 2
    if the notebook can't be run.
    """
    from rich.console import Console

    from grader.lessons.notebooks import read_notebook
    from grader.lessons.results import check_results, unchecked, unexpected_errors

    loaded = read_notebook(notebook)
    stopped = _execute(loaded, notebook.resolve().parent, timeout, Console(stderr=True))
    results = check_results(loaded)
    if not results:
        raise GraderError(stopped or f"{notebook} has no checks in it.")
    results += unchecked(results, notebook.resolve().parent)
    notes = [stopped] if stopped else unexpected_errors(loaded)
    all_passed = not stopped and all(result.passed for result in results)
    if path := to or junit:
        from grader.lessons.junit import write_junit

        write_junit(path, notebook, results, notes, stopped)
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
    from grader.lessons.execution import ExecutionStopped, execute_notebook

    where = "while a kernel started"
    with console.status("starting a kernel") as status:

        def on_cell(index: int, _: "NotebookNode") -> None:
            nonlocal where
            where = f"in cell {index + 1} of {len(notebook.cells)}"
            status.update(f"running {where.removeprefix('in ')}")

        try:
            execute_notebook(notebook, cwd, on_cell, allow_errors=True, timeout=timeout)
        except ExecutionStopped as stopped:
            return str(stopped)
        except KeyboardInterrupt:
            print(f"grader check: stopped {where}, as you asked. Nothing is said of the exercises.", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
    return ""


def _print_results(results: list["CheckResult"], notes: list[str]) -> None:
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
