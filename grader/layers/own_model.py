"""A model's class, found in a Python file or a notebook."""

import ast
import contextlib
import importlib.util
import io
import linecache
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from grader.checks.probe.running import learner_traceback
from grader.errors import GraderError
from grader.layers.missing import can_stub, stubs
from grader.lessons.cells import RUN_BY_EVERY_EXERCISE, cell_from
from grader.recordings.tasks import configured

MODULE_NAME = "learners_model"
PERCENT_CELL = re.compile(r"^# %%", re.MULTILINE)  # a notebook as text


def load_model(target: str, name: str | None = None) -> Any:
    """What `target` names: ``model.py:GPT2``, ``notebook.ipynb:GPT2``, or a file and `name`.

    Without a name it is the only nn.Module class of the file. Of a notebook the cells up to the last one that
    defines the name are run; of a lesson's, those that its exercises rely on, and where none of them defines the name,
    those that do. What they print is not shown.
    Raises GraderError where there is no such file or name, or where the file fails.
    """
    path, name = _parted(target, name)
    if not path.is_file():
        raise GraderError(f"{path} {'is no file' if path.exists() else 'does not exist'}. Is the path right?")
    if path.suffix not in (".py", ".ipynb"):
        raise GraderError(f"{path} is neither a Python file (.py) nor a notebook (.ipynb).")
    source = _source(path) if path.suffix == ".py" else ""
    cells = [source] if source and not PERCENT_CELL.search(source) else _cells(path, name)
    before = set(sys.modules)
    module, error = _loaded(cells, path, name)
    while (name is None or not hasattr(module, name)) and can_stub(error):
        for new in set(sys.modules) - before:  # what was half imported
            if str(getattr(sys.modules[new], "__file__", "")).startswith(str(roots(path)[-1])):
                del sys.modules[new]
        module, error = _loaded(cells, path, name)
    if error is not None and (name is None or not hasattr(module, name)):
        raise GraderError("\n  ".join((f"{path} fails:", *learner_traceback(error)))) from None
    if name is None:
        name = _only_model(module, path)
    if not hasattr(module, name):
        raise GraderError(f"{path} defines no `{name}`. {_models_in(module)}")
    return getattr(module, name)


def _loaded(cells: list[str], path: Path, name: str | None) -> tuple[ModuleType, Exception | None]:
    """What a file's sources define, and the first error."""
    module = ModuleType(MODULE_NAME)
    module.__file__ = str(path)
    module.__package__ = _package(path)[1]
    sys.modules[MODULE_NAME] = module
    with _at_home(path), stubs():
        return module, _run_all(cells, path, name, module)


def file_of(target: str) -> Path:
    """The file that a target names."""
    return _parted(target, None)[0]


def called_with_config(model: Any, build: Mapping[str, Any]) -> Any:
    """A model's class or instance as it is; of a function, what it makes of the config."""
    if isinstance(model, type | nn.Module) or not callable(model):
        return model
    try:
        return model(*configured(build).values())
    except Exception as error:  # the learner's code may raise anything
        name = getattr(model, "__name__", "the function")
        raise GraderError("\n  ".join((f"`{name}` fails:", *learner_traceback(error)))) from None


def _parted(target: str, name: str | None) -> tuple[Path, str | None]:
    head, colon, tail = target.rpartition(":")
    if colon and tail.isidentifier() and not Path(target).exists():
        return Path(head), tail if name is None else name
    return Path(target), name


@contextlib.contextmanager
def _at_home(path: Path) -> Iterator[None]:
    """In the file's folder, without showing what is printed. Imports are looked for there, and beside its package."""
    folders = dict.fromkeys(map(str, roots(path)))
    sys.path[:0] = folders
    try:
        with contextlib.chdir(path.resolve().parent), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for folder in folders:
            sys.path.remove(folder)


def roots(path: Path) -> list[Path]:
    """Where a program's imports are looked for: in its folder, beside its package, and beside a folder that it names as
    a package, though that has no __init__.py.
    """
    home = path.resolve().parent
    text = path.read_text(encoding="utf-8", errors="replace")
    named = set(re.findall(r"^\s*(?:from|import)\s+(\w+)", text, re.MULTILINE))
    around = [folder.parent for folder in (home, *home.parents) if folder.name in named]
    return [home, _package(path)[0], *around[:1]]


def _package(path: Path) -> tuple[Path, str]:
    """The folder that holds the package a file lies in, and the package's name; "" where it lies in none."""
    folder, names = path.resolve().parent, list[str]()
    while (folder / "__init__.py").is_file():
        folder, names = folder.parent, [folder.name, *names]
    return folder, ".".join(names)


def _source(path: Path) -> str:
    try:
        return importlib.util.decode_source(path.read_bytes())
    except (OSError, UnicodeDecodeError, SyntaxError) as error:
        raise GraderError(f"{path} can't be read as Python: {error}") from None


def _run(source: str, filename: str, module: ModuleType) -> Exception | None:
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    try:
        exec(compile(source, filename, "exec", dont_inherit=True), module.__dict__)
    except SystemExit as stopped:
        return RuntimeError(f"it exits ({stopped.code})")
    except Exception as error:  # the learner's code may raise anything
        return error
    return None


def _run_all(sources: list[str], path: Path, name: str | None, module: ModuleType) -> Exception | None:
    """Run a file's sources up to the last one that defines the name; the first error, if there was one."""
    last = max((i for i, source in enumerate(sources) if name and name in _defined(source)), default=len(sources) - 1)
    first = None
    for i, source in enumerate(sources[: last + 1]):
        filename = str(path) if len(sources) == 1 else f"<{path.name}, cell {i + 1}>"
        error = _run(source, filename, module)
        first = first or error
    return first


def _cells(path: Path, name: str | None) -> list[str]:
    """The sources of a notebook's code cells: of a lesson's, what its exercises rely on, and what else it takes to have
    the name; of another's, all of them.

    What only IPython understands is left out.
    """
    # nbformat takes a second to import, which everyone who imports `grader` would wait for
    from grader.lessons.lesson import read_filled
    from grader.lessons.notebooks import read_notebook

    notebook = read_filled(path) if path.suffix == ".py" else read_notebook(path)
    cells = [cell_from("code", cell.source, cell.metadata) for cell in notebook.cells if cell.cell_type == "code"]
    is_lesson = any(cell.kind == "exercise" for cell in cells)
    relied_on = [not is_lesson or cell.kind in RUN_BY_EVERY_EXERCISE for cell in cells]
    defines = [name is not None and name in _defined(cell.source) for cell in cells]
    elsewhere = not any(relied and here for relied, here in zip(relied_on, defines, strict=True))
    wanted = [relied or (elsewhere and here) for relied, here in zip(relied_on, defines, strict=True)]
    kept = [cell.source for cell, want in zip(cells, wanted, strict=True) if want]
    return ["" if s.startswith("%%") else "\n".join(map(_without_magic, s.splitlines())) for s in kept]


def _without_magic(line: str) -> str:
    text = line.lstrip()
    return line[: len(line) - len(text)] + "pass" if text.startswith(("%", "!")) else line


def _defined(source: str) -> set[str]:
    try:
        nodes = ast.parse(source).body
    except SyntaxError:
        return set()
    named = {node.name for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    targets = [target for node in nodes if isinstance(node, ast.Assign) for target in node.targets]
    return named | {target.id for target in targets if isinstance(target, ast.Name)}


def _models(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == MODULE_NAME
    ]


def _models_in(module: ModuleType) -> str:
    names = ", ".join(_models(module))
    return f"Its modules are: {names}." if names else "It has no class that is an nn.Module."


def _only_model(module: ModuleType, path: Path) -> str:
    names = _models(module)
    if len(names) != 1:
        raise GraderError(f"Which class of {path} is the model? Name it: {path}:CLASS. {_models_in(module)}")
    return names[0]
