"""The `grader` command.

Exit codes: 0 for success, 1 where a check did not pass or a build is stale, 2 for input that can't be used.
What a command needs is imported when it runs, so that `grader --help` answers at once.
"""

import io
import sys
from collections.abc import Callable
from typing import Annotated, Any, cast

import typer

from grader.cli.atlas import card, diff, gallery, models
from grader.cli.authors import build, new_lesson, site
from grader.cli.caches import kv
from grader.cli.capstone import capstone
from grader.cli.chat import chat
from grader.cli.home import lab, next_exercise, reset, solution, start, status, update
from grader.cli.hub import export_model
from grader.cli.instructors import autograde, collect, doctor, export, feedback, hidden_cases, new_course, similar
from grader.cli.learners import check
from grader.cli.options import renamed
from grader.cli.porters import compare, port, trace
from grader.cli.weights import weights_generate, weights_get, weights_list
from grader.cli.where import where
from grader.errors import GraderError
from grader.package import distribution

BAD_INPUT = 2
# What typer raises for words that it can't read. It has no public name that holds for all of its versions.
UsageError = cast(type[Exception], typer.BadParameter.__mro__[1])

app = typer.Typer(
    name="grader",
    help="Learn from the lessons of this course, look at models, port one, teach a class, write lessons.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
weights_app = typer.Typer(help="Trained weights: list them, get them onto this machine.", no_args_is_help=True)

# By what people come for: each command with an example, which its help shows, and a complaint about its arguments too.
PANELS: dict[str, dict[str, tuple[Callable[..., None], str]]] = {
    "Learn": {
        "start": (start, "grader start my-course"),
        "lab": (lab, "grader lab --no-browser --port 9999"),
        "check": (check, "grader check 01-gpt2/gpt2.ipynb"),
        "status": (status, "grader status"),
        "next": (next_exercise, "grader next"),
        "reset": (reset, "grader reset gpt2.block"),
        "solution": (solution, "grader solution gpt2.block"),
        "update": (update, "grader update"),
        "where": (where, "grader where qwen3.attention"),
        "chat": (chat, "grader chat 02-kv-cache/kv_cache.ipynb:CachedGPT2 --weights austen-gpt2"),
        "capstone": (capstone, "grader capstone --seed 7 --level 2"),
    },
    "Models": {
        "card": (card, "grader card qwen3-8b"),
        "diff": (diff, "grader diff gpt2-xl qwen3-4b"),
        "kv": (kv, "grader kv qwen3-8b --context 128k"),
        "models": (models, "grader models"),
        "gallery": (gallery, "grader gallery --to gallery"),
        "export-model": (export_model, "grader export-model austen-qwen3 --to my-qwen3"),
    },
    "Port a model": {
        "trace": (trace, "grader trace config.json --to trace.safetensors"),
        "compare": (compare, "grader compare mistral.py:Mistral trace.safetensors"),
        "port": (port, "grader port mistral.py:Mistral trace.safetensors"),
    },
    "Teach": {
        "new-course": (new_course, "grader new-course my-class --id llm27"),
        "hidden-cases": (hidden_cases, "grader hidden-cases --secret ~/course.secret 01-gpt2"),
        "collect": (collect, "grader collect 01-gpt2"),
        "autograde": (autograde, "grader autograde 01-gpt2"),
        "feedback": (feedback, "grader feedback 01-gpt2"),
        "export": (export, "grader export --to export"),
        "similar": (similar, "grader similar 01-gpt2"),
        "doctor": (doctor, "grader doctor --class"),
    },
    "Write lessons": {
        "new-lesson": (new_lesson, "grader new-lesson 12-alibi"),
        "build": (build, "grader build 01-gpt2"),
        "site": (site, "grader site --to build/site"),
    },
}
WEIGHTS: dict[str, tuple[Callable[..., None], str]] = {
    "list": (weights_list, "grader weights list"),
    "get": (weights_get, "grader weights get gpt2"),
    "generate": (weights_generate, "grader weights generate austen-gpt2"),
}


def _paragraphs(command: Callable[..., None]) -> str:
    """The command's docstring, with each paragraph on one line: a terminal breaks it where it must."""
    return "\n\n".join(" ".join(part.split()) for part in (command.__doc__ or "").split("\n\n"))


_to_jupyterlab = {"allow_extra_args": True, "ignore_unknown_options": True}
for _panel, _commands in PANELS.items():
    for _name, (_command, _example) in _commands.items():
        _settings = _to_jupyterlab if _name in ("start", "lab") else None
        _help, _epilog = _paragraphs(_command), f"For example: {_example}"
        app.command(_name, rich_help_panel=_panel, context_settings=_settings, help=_help, epilog=_epilog)(_command)
for _name, (_command, _example) in WEIGHTS.items():
    weights_app.command(_name, help=_paragraphs(_command), epilog=f"For example: {_example}")(_command)
app.add_typer(weights_app, name="weights", rich_help_panel="Models")
app.command("record", hidden=True)(renamed(hidden_cases, "record", "hidden-cases"))
weights_app.command("record", hidden=True)(renamed(weights_generate, "weights record", "weights generate"))


def main() -> None:
    """Run the command; what a person can put right is said in a line or two, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file or a pipe on Windows has no arrows and no circles
            stream.reconfigure(errors="replace")
    try:
        code = app(standalone_mode=False)
    except GraderError as error:
        print(f"grader: {error}", file=sys.stderr)
        raise SystemExit(BAD_INPUT) from None
    except UsageError as error:
        print(_complaint(error), end="", file=sys.stderr)
        raise SystemExit(BAD_INPUT) from None
    except typer.Abort:
        raise SystemExit(1) from None
    raise SystemExit(code or 0)


def _complaint(error: Any) -> str:
    """What is wrong with the words of a command, with an example of right ones."""
    said, context, parameter = error.format_message(), error.ctx, getattr(error, "param", None)
    if not said:  # no words at all: the help was shown
        return ""
    if type(error).__name__ == "MissingParameter" and parameter is not None:
        name = parameter.opts[0] if parameter.opts[0].startswith("-") else parameter.metavar or parameter.name.upper()
        said = f"{name} is missing{f': {parameter.help}' if parameter.help else ''}"
    elif parameter is None and hasattr(error, "param"):  # of a command, not of one of its words
        said = error.message
    if context is None:
        return f"grader: {said}\n"
    example = context.command.epilog or f"`{context.command_path} --help` lists what there is."
    return f"{context.command_path}: {said[0].lower() if said[1].islower() else said[0]}{said[1:]}\n{example}\n"


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
