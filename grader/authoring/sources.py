"""The source that travels in a recording: drives, and the pieces that they are made of."""

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from grader.authoring import drives
from grader.errors import RecordingError


def source_of(functions: Iterable[Callable[..., Any]]) -> str:
    """The source of drives, with that of the functions and classes that they name in front of it, each once.

    What is named is looked for in the function's own file and in `grader.authoring.drives`. Raises RecordingError for
    what has no name or no file of its own, such as a lambda.
    """
    found: dict[Any, str] = {}
    for function in functions:
        _collect(function, found)
    names = [thing.__name__ for thing in found]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise RecordingError(f"Two pieces of the exercise's drives are named {repeated}. Rename one of them.")
    return "\n\n".join(found.values())


def _collect(thing: Any, found: dict[Any, str]) -> None:
    """Add a function's or class's source after those of the pieces that it names."""
    if thing in found:
        return
    source = _own_source(thing)
    for piece in _pieces(thing, source):
        _collect(piece, found)
    found[thing] = source


def _own_source(thing: Any) -> str:
    """A function's or class's source, without docstrings: they are for authors, and a recording is small."""
    try:
        source = textwrap.dedent(inspect.getsource(thing))
    except (OSError, TypeError):
        source = ""
    if not source.startswith(("def ", "class ")):
        raise RecordingError(f"A drive and its pieces must each be a plain def or class; {thing.__name__} is not.")
    return _without_docstrings(source)


def _without_docstrings(source: str) -> str:
    """The source, cut by lines: what `ast.unparse` makes of it differs between versions of Python."""
    lines = source.rstrip().split("\n")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) and len(node.body) > 1:
            text = node.body[0]
            end = text.end_lineno or text.lineno
            lines[text.lineno - 1 : end] = [""] * (end - text.lineno + 1)
    return "\n".join(line for line in lines if line.strip())


def _pieces(thing: Any, source: str) -> Iterator[Any]:
    """The functions and classes that travel among those that a source names."""
    home = sys.modules[thing.__module__]
    names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)} - {thing.__name__}
    for name in sorted(names):
        value = getattr(home, name, None)
        is_piece = inspect.isfunction(value) or inspect.isclass(value)
        if is_piece and (value.__module__ == home.__name__ or value.__module__.startswith(f"{drives.__name__}.")):
            yield value
