"""The source that travels in a recording: drives, and the pieces that they are made of."""

import ast
import builtins
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from grader.authoring import drives
from grader.errors import RecordingError
from grader.lessons.exercise import Case, Exercise

GIVEN = {"torch", "nn", "Tensor", *dir(builtins)}  # what a drive finds where it runs


def source_of(functions: Iterable[Callable[..., Any]]) -> str:
    """The source of drives, with that of the functions and classes that they name in front of it, each once.

    What is named is looked for in the lesson's own files and below `grader.authoring.drives`. Raises RecordingError for
    what has no name or no file of its own, such as a lambda, and for what names something else.
    """
    return _source_of(tuple(functions))


@lru_cache(maxsize=64)  # asked for with every case of an exercise
def _source_of(functions: tuple[Callable[..., Any], ...]) -> str:
    found: dict[Any, str] = {}
    for function in functions:
        _collect(function, found)
    names = [thing.__name__ for thing in found]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise RecordingError(f"Two pieces of the exercise's drives are named {repeated}. Rename one of them.")
    return "\n\n".join(found.values())


def drive_source(exercise: Exercise) -> str:
    """The source of the drives of an exercise's cases, with their pieces; empty where its cases are simply called."""
    return source_of([drive for case in exercise.cases if (drive := case.drive or exercise.drive)])


def drive_name(exercise: Exercise, case: Case) -> str:
    """The name of the drive that a case is used with; empty where it is simply called."""
    drive = case.drive or exercise.drive
    return drive.__name__ if drive else ""


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


def _pieces(thing: Any, source: str) -> list[Any]:
    """The functions and classes that a source names and that have to travel with it."""
    home, package = _home(thing), thing.__module__.rpartition(".")[0]
    tree = ast.parse(source)
    of_types = {id(node) for annotation in _annotations(tree) for node in ast.walk(annotation)}
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in of_types]
    pieces = []
    for name in sorted({node.id for node in nodes} - {thing.__name__} - GIVEN):
        value = home.get(name)
        is_plain = inspect.isfunction(value) or inspect.isclass(value)
        if is_plain and value.__module__.rpartition(".")[0] in (package, drives.__name__):
            pieces.append(value)
        elif name in home and name not in _own_names(nodes, tree):
            raise RecordingError(
                f"{thing.__name__} uses `{name}`, which does not travel in the recording. A drive may use torch, nn and"
                " Tensor, and functions and classes of its lesson's own files and of grader.authoring.drives."
            )
    return pieces


def _home(thing: Any) -> Mapping[str, Any]:
    """What the names in a function or class stand for. A lesson's files may have been read again since."""
    functions = [thing] if inspect.isfunction(thing) else filter(inspect.isfunction, vars(thing).values())
    home = next((f.__globals__ for f in functions if f.__module__ == thing.__module__), None)
    return home or vars(sys.modules[thing.__module__])


def _own_names(nodes: Iterable[ast.Name], tree: ast.AST) -> set[str]:
    """The names that a source gives to values of its own."""
    own = {node.id for node in nodes if isinstance(node.ctx, ast.Store)}
    return own | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}


def _annotations(tree: ast.AST) -> list[ast.expr]:
    """What a source says of types, which is not looked up where it runs."""
    found: list[ast.expr | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            found.append(node.returns)
        elif isinstance(node, ast.arg | ast.AnnAssign):
            found.append(node.annotation)
    return [annotation for annotation in found if annotation is not None]
