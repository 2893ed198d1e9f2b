"""A lesson's folder, and the cells of its notebook by the part they play.

An author says in a cell's metadata what the cell is; in the text twin that is the cell's first line::

    # %% tags=["setup"]                        imports and helpers that every exercise may rely on
    # %% given="01-gpt2 gpt2.layer_norm"       copied here by `grader build` from another lesson's solution
    # %% exercise="gpt2.layer_norm"            a solution, with ### BEGIN SOLUTION and ### END SOLUTION
    # %% check="gpt2.layer_norm"               the cell that checks it
"""

import ast
import contextlib
import linecache
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import nbformat
from nbformat import NotebookNode

from grader.errors import RecordingError
from grader.exercise import Exercise

BEGIN_SOLUTION = "### BEGIN SOLUTION"
END_SOLUTION = "### END SOLUTION"
EXERCISES = "exercises.py"
RECORDING = "reference.safetensors"
TWIN_FORMAT = "py:percent"

Kind = Literal["markdown", "setup", "given", "exercise", "check", "other"]
RUN_BY_EVERY_EXERCISE: tuple[Kind, ...] = ("setup", "given", "exercise")


@dataclass(frozen=True)
class Cell:
    """One cell. `name` is the exercise's name, for a given cell "lesson exercise", and otherwise empty."""

    kind: Kind
    source: str
    name: str = ""

    @property
    def title(self) -> str:
        """How an error names this cell."""
        return f"{self.kind} cell" + (f" of `{self.name}`" if self.name else "")


@dataclass(frozen=True)
class Lesson:
    """The lesson in `folder`; nothing is read until it is asked for."""

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", self.folder.resolve())  # cells run in the folder itself

    @property
    def name(self) -> str:
        """The folder's name, which is nbgrader's name of the assignment: ``01-gpt2``."""
        return self.folder.name

    @property
    def twin(self) -> Path:
        """The notebook as text, in jupytext's percent format."""
        return self.notebook.with_suffix(".py")

    @property
    def notebook(self) -> Path:
        """The notebook's path, whether or not it has been built. Raises RecordingError unless there is exactly one."""
        paths = [*self.folder.glob("*.ipynb"), *self.folder.glob("*.py")]
        stems = {path.stem for path in paths if path.name != EXERCISES}
        if len(stems) != 1:
            found = ", ".join(sorted(stems)) or "none"
            raise RecordingError(f"{self.folder} must hold one notebook and its text twin; found: {found}.")
        return self.folder / f"{stems.pop()}.ipynb"

    @property
    def exercises_file(self) -> Path:
        """The file that says what each exercise is checked against."""
        return self.folder / EXERCISES

    @property
    def recording(self) -> Path:
        """The recording beside the notebook."""
        return self.folder / RECORDING

    def cells(self) -> tuple[Cell, ...]:
        """The twin's cells, in order."""
        return _cells_of(_twin_text(self.twin))

    def exercises(self) -> tuple[list[Exercise], str | None]:
        """EXERCISES and TRACE of the lesson's exercises.py, which is run anew each time.

        Raises RecordingError where it is missing, fails, repeats a name, or holds something else.
        """
        path = self.exercises_file
        if not path.exists():
            raise RecordingError(f"{path} is missing. It says what the exercises of {self.name} are checked against.")
        module = _registered_module(f"{self._module_name}_exercises", str(path))
        _execute(path.read_text(encoding="utf-8"), str(path), module.__dict__, title=str(path))
        exercises, trace = getattr(module, "EXERCISES", None), getattr(module, "TRACE", None)
        if not isinstance(exercises, list | tuple) or not all(isinstance(e, Exercise) for e in exercises):
            raise RecordingError(f"{path} must define EXERCISES, a list of grader.exercise.Exercise.")
        names = [exercise.name for exercise in exercises]
        if repeated := _repeated(names):
            raise RecordingError(f"{path} has more than one exercise named `{repeated[0]}`.")
        if trace is not None and trace not in names:
            raise RecordingError(f"{path} has TRACE = {trace!r}, which none of its exercises is named.")
        return list(exercises), trace

    def source_of(self, exercise: str) -> str:
        """The source of an exercise's solution cell. Raises RecordingError where the notebook has none."""
        for cell in self.cells():
            if cell.kind == "exercise" and cell.name == exercise:
                return cell.source
        raise RecordingError(
            f'{self.twin} has no solution cell for `{exercise}`. Start one with the line: # %% exercise="{exercise}"'
        )

    def namespace(self, patch: tuple[str, str] | None = None) -> dict[str, Any]:
        """What the setup, given and exercise cells define when they alone are run, in order, in the lesson's folder.

        patch: (exercise, source) runs that source in place of the exercise's cell.
        Raises RecordingError where a cell fails; what it raised is the error's cause.
        """
        if patch is not None:
            return self.changed(patch[0])(patch[1])
        module = _registered_module(self._module_name, str(self.twin))
        self._run(range(len(self.cells())), module.__dict__)
        return module.__dict__

    def changed(self, exercise: str) -> Callable[[str], dict[str, Any]]:
        """What takes one changed source of the exercise after the other, and gives the namespace with it.

        The cells above the exercise's run once, the exercise's and those below it each time, in one and the same
        namespace: what an earlier source gave no longer holds. Both raise RecordingError as `namespace` does.
        """
        self.source_of(exercise)
        at = next(i for i, cell in enumerate(self.cells()) if cell.kind == "exercise" and cell.name == exercise)
        module = _registered_module(self._module_name, str(self.twin))
        self._run(range(at), module.__dict__)
        above = dict(module.__dict__)

        def with_source(source: str) -> dict[str, Any]:
            sys.modules[module.__name__] = module
            module.__dict__.clear()
            module.__dict__.update(above)
            self._run(range(at, len(self.cells())), module.__dict__, (exercise, source))
            return module.__dict__

        return with_source

    def _run(self, cells: range, namespace: dict[str, Any], patch: tuple[str, str] | None = None) -> None:
        """Run those of the cells at these places that every exercise relies on."""
        with contextlib.chdir(self.folder):
            for i in cells:
                cell = self.cells()[i]
                if cell.kind not in RUN_BY_EVERY_EXERCISE:
                    continue
                source, filename = cell.source, f"<{self.name}, cell {i + 1}: {cell.title}>"
                if patch is not None and cell.kind == "exercise" and cell.name == patch[0]:
                    source, filename = patch[1], f"<{self.name}, cell {i + 1}: {cell.title}, changed>"
                _show_in_tracebacks(filename, source)
                _execute(source, filename, namespace, title=f"{self.twin}, cell {i + 1} ({cell.title})")

    def validate(self) -> None:
        """Raise RecordingError unless the cells are well formed and name just the exercises of exercises.py."""
        cells = self.cells()
        _validate_cells(cells, str(self.twin))
        exercises, _ = self.exercises()
        recorded, written = [e.name for e in exercises], [c.name for c in cells if c.kind == "exercise"]
        for name in recorded:
            if name not in written:
                raise RecordingError(
                    f"{self.exercises_file} has `{name}`, but {self.twin} has no solution cell for it."
                )
        for name in written:
            if name not in recorded:
                raise RecordingError(f"{self.twin} has a solution cell for `{name}`, which {EXERCISES} does not have.")
        for exercise in exercises:
            if exercise.solution not in _defined_by(self.source_of(exercise.name), exercise.name):
                raise RecordingError(
                    f"{self.twin}: the solution cell of `{exercise.name}` does not define `{exercise.solution}`, "
                    f"which {EXERCISES} names as its solution."
                )

    @property
    def _module_name(self) -> str:
        return "lesson_" + "".join(c if c.isalnum() else "_" for c in self.name)


def lessons(root: Path) -> list[Lesson]:
    """The lessons below ``root/solutions``, in the order of their names: folders that hold an exercises.py."""
    return [Lesson(path.parent) for path in sorted((root / "solutions").glob(f"*/{EXERCISES}"))]


def cell_from(cell_type: str, source: str, metadata: dict[str, Any]) -> Cell:
    """A notebook's cell by the part its metadata gives it."""
    if cell_type != "code":
        return Cell("markdown" if cell_type == "markdown" else "other", source)
    kinds: tuple[Kind, ...] = ("exercise", "check", "given")
    for kind in kinds:
        if kind in metadata:
            return Cell(kind, source, str(metadata[kind]))
    return Cell("setup" if "setup" in metadata.get("tags", []) else "other", source)


def without_markers(source: str) -> str:
    """A solution's source without the lines that mark where the solution begins and ends."""
    lines = source.splitlines()
    return "\n".join(line for line in lines if line.strip() not in (BEGIN_SOLUTION, END_SOLUTION))


def read_twin(path: Path) -> NotebookNode:
    """The notebook that the text at `path` stands for. Raises RecordingError where there is none."""
    return _parsed_twin(_twin_text(path))


def write_twin(path: Path, cells: list[NotebookNode]) -> None:
    """Write notebook cells as text, with all of their metadata and without a header."""
    keep = {"notebook_metadata_filter": "-all", "cell_metadata_filter": "all"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"jupytext": keep})
    path.write_text(_jupytext().writes(notebook, fmt=TWIN_FORMAT), encoding="utf-8")


def _twin_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecordingError(
            f"{path} is missing. `grader build {path.parent.name}` writes it from the notebook."
        ) from None


def _parsed_twin(text: str) -> NotebookNode:
    return _jupytext().reads(text, fmt=TWIN_FORMAT)


@lru_cache(maxsize=8)
def _cells_of(twin: str) -> tuple[Cell, ...]:
    return tuple(cell_from(cell.cell_type, cell.source, cell.metadata) for cell in _parsed_twin(twin).cells)


@cache
def _jupytext() -> Any:
    try:
        import jupytext
    except ImportError:
        raise RecordingError("Reading a lesson's source needs jupytext: pip install -e '.[reference]'") from None
    return jupytext


def _registered_module(name: str, file: str) -> ModuleType:
    """A fresh module that classes defined in it can find by their ``__module__``, as dataclasses do."""
    module = ModuleType(name)
    module.__file__ = file
    sys.modules[name] = module
    return module


def _execute(source: str, filename: str, namespace: dict[str, Any], title: str) -> None:
    try:
        exec(compile(source, filename, "exec", dont_inherit=True), namespace)
    except RecordingError:
        raise
    except Exception as error:
        needs = " Authors need: pip install -e '.[reference]'" if isinstance(error, ModuleNotFoundError) else ""
        raise RecordingError(f"{title} fails: {type(error).__name__}: {error}.{needs}") from error


def _show_in_tracebacks(filename: str, source: str) -> None:
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)


def _validate_cells(cells: Iterable[Cell], where: str) -> None:
    written = [cell.name for cell in cells if cell.kind == "exercise"]
    checked = [cell.name for cell in cells if cell.kind == "check"]
    if repeated := _repeated(written):
        raise RecordingError(f"{where} has more than one solution cell for `{repeated[0]}`.")
    if repeated := _repeated(checked):
        raise RecordingError(f"{where} has more than one check cell for `{repeated[0]}`.")
    for name in checked:
        if name not in written:
            raise RecordingError(f"{where} has a check cell for `{name}`, but no solution cell for it.")
    for name in written:
        if name not in checked:
            raise RecordingError(
                f'{where} has no check cell for `{name}`. Start one with the line: # %% check="{name}"'
            )
    for cell in cells:
        if cell.kind == "exercise":
            _validate_markers(cell, where)
        elif BEGIN_SOLUTION in cell.source or END_SOLUTION in cell.source:
            raise RecordingError(f"{where}: the {cell.title} has solution markers, which only solution cells may have.")
        if cell.kind == "check" and (called := _name_checked(cell)) not in (None, cell.name):
            raise RecordingError(f"{where}: the {cell.title} calls check on `{called}`.")


def _validate_markers(cell: Cell, where: str) -> None:
    """nbgrader cuts from each BEGIN to the next END; anything else would release an answer."""
    is_open, regions = False, 0
    for line in cell.source.splitlines():
        if ("BEGIN SOLUTION" in line or "END SOLUTION" in line) and line.strip() not in (BEGIN_SOLUTION, END_SOLUTION):
            raise RecordingError(
                f"{where}: the {cell.title} has the line `{line.strip()}`; "
                f"write {BEGIN_SOLUTION} or {END_SOLUTION} alone on its line."
            )
        if line.strip() == (BEGIN_SOLUTION if is_open else END_SOLUTION):
            wanted, found = (END_SOLUTION, BEGIN_SOLUTION) if is_open else (BEGIN_SOLUTION, END_SOLUTION)
            raise RecordingError(f"{where}: the {cell.title} has {found} where {wanted} should come first.")
        if line.strip() in (BEGIN_SOLUTION, END_SOLUTION):
            is_open = not is_open
            regions += is_open
    if is_open:
        raise RecordingError(f"{where}: the {cell.title} has {BEGIN_SOLUTION} without {END_SOLUTION}.")
    if not regions:
        raise RecordingError(f"{where}: the {cell.title} has no {BEGIN_SOLUTION}, so learners would get the answer.")


def _name_checked(cell: Cell) -> str | None:
    """The exercise in a cell's call of ``check("...", ...)``, if it is spelt out there."""
    for node in ast.walk(_parsed(cell.source, cell.name)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "check" and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                return first.value
    return None


def _defined_by(source: str, exercise: str) -> set[str]:
    definitions = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in _parsed(source, exercise).body if isinstance(node, definitions)}


def _parsed(source: str, exercise: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise RecordingError(f"A cell of `{exercise}` is not valid Python: {error.msg}, in `{line}`.") from None


def _repeated(names: list[str]) -> list[str]:
    return [name for i, name in enumerate(names) if name in names[:i]]
