"""Options that several commands share, and those of before, which still work and say what to write instead."""

import re
import sys
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

Model = Annotated[
    str | None,
    typer.Argument(metavar="MODEL", help="A gallery model (qwen3-8b), a config.json or its folder, or owner/name."),
]
Json = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]
_TOKENS = re.compile(r"(\d[\d,_]*)\s*([km]?)", re.IGNORECASE)
_TIMES = {"": 1, "k": 1024, "m": 1024**2}


def earlier(*names: str, instead: str) -> Any:
    """An option of before: it works, `--help` does not show it, and it says on stderr what to write `instead`."""

    return typer.Option(*names, hidden=True, callback=_saying(names[0], instead))


def earlier_argument(name: str, instead: str) -> Any:
    """An argument of before, in the same way."""
    return typer.Argument(metavar=name, hidden=True, callback=_saying(name, instead))


def renamed(command: Callable[..., None], name: str, instead: str) -> Callable[..., None]:
    """A command under the `name` that it had before, which says so."""

    @wraps(command)
    def under_its_old_name(*arguments: Any, **options: Any) -> None:
        _saying(f"grader {name}", f"grader {instead}")(True)
        command(*arguments, **options)

    return under_its_old_name


def _saying(old: str, instead: str) -> Callable[[Any], Any]:
    def say(value: Any) -> Any:
        if value:
            print(f"grader: `{old}` still works; write `{instead}`.", file=sys.stderr)
        return value

    return say


def tokens(text: str | int) -> int:
    """A number of tokens as people write it: 8192, 131,072, 128k (of 1,024 each) or 1M."""
    found = _TOKENS.fullmatch(str(text).strip())
    number = int(found[1].replace(",", "").replace("_", "")) * _TIMES[found[2].lower()] if found else 0
    if not number:
        raise typer.BadParameter(f"{text} is no number of tokens, as in 8192, 131,072 or 128k.")
    return number


def the_model(*values: str | None) -> str:
    """The one model that was named, by the argument or by an option of before. Raises typer.BadParameter."""
    found = [value for value in values if value is not None]
    if len(found) != 1:
        raise typer.BadParameter("One model is named, and no more." if found else "MODEL is missing.")
    return found[0]
