"""The `grader` command.

Exit codes: 0 for success, 1 where a check did not pass or a build is stale, 2 for input that can't be used.
What a command needs is imported when it runs, so that `grader --help` answers at once.
"""

import io
import sys
from typing import Annotated

import typer

from grader.cli.atlas import card, diff, gallery, models
from grader.cli.authors import build, new_lesson, site
from grader.cli.caches import kv
from grader.cli.chat import chat
from grader.cli.home import lab, next_exercise, reset, solution, start, status, update
from grader.cli.instructors import autograde, doctor, export, feedback, new_course, record_cases, similar
from grader.cli.learners import check
from grader.cli.porters import compare, port, trace
from grader.cli.weights import weights_get, weights_list, weights_record
from grader.errors import GraderError
from grader.package import distribution

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

to_jupyterlab = {"allow_extra_args": True, "ignore_unknown_options": True}
app.command(context_settings=to_jupyterlab)(start)
app.command(context_settings=to_jupyterlab)(lab)
app.command()(check)
app.command()(status)
app.command("next")(next_exercise)
app.command()(reset)
app.command()(solution)
app.command()(update)
app.command()(build)
app.command("new-lesson")(new_lesson)
app.command()(site)
app.command()(autograde)
app.command()(feedback)
app.command()(export)
app.command()(similar)
app.command("new-course")(new_course)
app.command()(doctor)
app.command("record")(record_cases)
app.command()(trace)
app.command()(compare)
app.command()(port)
app.command()(kv)
app.command()(chat)
app.command()(card)
app.command()(diff)
app.command()(models)
app.command()(gallery)
weights_app.command("list")(weights_list)
weights_app.command("get")(weights_get)
weights_app.command("record")(weights_record)


def main() -> None:
    """Run the command; what a person can put right is said in a line or two, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file or a pipe on Windows has no arrows and no circles
            stream.reconfigure(errors="replace")
    try:
        app()
    except GraderError as error:
        print(f"grader: {error}", file=sys.stderr)
        raise SystemExit(BAD_INPUT) from None


def _show_version(wanted: bool) -> None:
    if wanted:
        print(distribution().version)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass
