"""A lesson's folder: its files, its cells, and what its exercises.py declares."""

import contextlib
import importlib
import linecache
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from nbformat import NotebookNode

from grader.digest import digest
from grader.errors import RecordingError
from grader.lessons.cells import RUN_BY_EVERY_EXERCISE, Cell, cell_from, without_markers
from grader.lessons.exercise import Exercise
from grader.lessons.twin import parsed_twin, read_twin, twin_text
from grader.lessons.wellformed import defined_by, repeated_names, validate_cells
from grader.recordings.format import RECORDING

EXERCISES = "exercises.py"
BESIDE_THE_TWIN = (EXERCISES, "reference.py", "drives.py", "others.py", "benchmark.py")


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
        """The notebook's path, whether or not it has been built. Raises RecordingError unless there is exactly one.

        Other Python files of the lesson may lie beside its text twin: those of `BESIDE_THE_TWIN`, and test_*.py.
        """
        paths = [*self.folder.glob("*.ipynb"), *(p for p in self.folder.glob("*.py") if not is_beside(p.name))]
        stems = {path.stem for path in paths}
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
        """The twin's cells, in order; a given one with the solution that it names."""
        written = _cells_of(twin_text(self.twin))
        return tuple(replace(c, source=self.given(c.name)) if c.kind == "given" else c for c in written)

    def given(self, reference: str) -> str:
        """The solution that a given cell names as "lesson exercise", without its markers.

        Raises RecordingError where that lesson does not lie beside this one, or has no such exercise.
        """
        lesson, _, exercise = reference.partition(" ")
        folder = self.folder.parent / lesson
        if not exercise or not folder.is_dir():
            there = "" if folder.is_dir() else f" There is no {folder}."
            raise RecordingError(
                f'given="{reference}" must name a lesson and its exercise, as in "01-gpt2 gpt2.mlp".{there}'
            )
        return without_markers(Lesson(folder).source_of(exercise.strip()))

    def exercises(self) -> tuple[list[Exercise], str | None]:
        """EXERCISES and TRACE of the lesson's exercises.py, which is run anew each time.

        Raises RecordingError where it is missing, fails, repeats a name, or holds something else.
        """
        path = self.exercises_file
        if not path.exists():
            raise RecordingError(f"{path} is missing. It says what the exercises of {self.name} are checked against.")
        with _failing_as(str(path)):
            module = self.module(path.stem, anew=True)
        exercises, trace = getattr(module, "EXERCISES", None), getattr(module, "TRACE", None)
        if not isinstance(exercises, list | tuple) or not all(isinstance(e, Exercise) for e in exercises):
            raise RecordingError(f"{path} must define EXERCISES, a list of grader.lessons.exercise.Exercise.")
        names = [exercise.name for exercise in exercises]
        if repeated := repeated_names(names):
            raise RecordingError(f"{path} has more than one exercise named `{repeated[0]}`.")
        if trace is not None and trace not in names:
            raise RecordingError(f"{path} has TRACE = {trace!r}, which none of its exercises is named.")
        return list(exercises), trace

    def module(self, name: str, *, anew: bool = False) -> ModuleType:
        """The lesson's file of that name, such as "others", as a module of a package that is the lesson's folder.

        So ``from .drives import ...`` finds this lesson's drives.py, and an editor finds the same. anew: it and all
        that it imports of them are read again.
        """
        package = f"{self._module_name}_{digest(str(self.folder))[:8]}"  # a build works on a copy in another folder
        before = {name: file for name, file in sys.modules.items() if anew and name.partition(".")[0] == package}
        for known in before:
            del sys.modules[known]
        if package not in sys.modules:
            _registered_module(package, str(self.folder / "__init__.py")).__path__ = [str(self.folder)]
            importlib.invalidate_caches()
        try:
            with _no_bytecode():  # it is known by the second in which a file was changed
                return importlib.import_module(f"{package}.{name}")
        finally:
            for known, file in before.items():  # what was not read again still has classes, whose source is asked for
                sys.modules.setdefault(known, file)

    def source_of(self, exercise: str) -> str:
        """The source of an exercise's solution cell. Raises RecordingError where the notebook has none."""
        for cell in _cells_of(twin_text(self.twin)):
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
        self._run(self._relied_on(), module.__dict__)
        return module.__dict__

    def changed(self, exercise: str) -> Callable[[str], dict[str, Any]]:
        """What takes one changed source of the exercise after the other, and gives the namespace with it.

        The cells above the exercise's run once, the exercise's and those below it each time, in one and the same
        namespace: what an earlier source gave no longer holds. Both raise RecordingError as `namespace` does.
        """
        self.source_of(exercise)
        cells = self._relied_on()
        at = next(i for i, (_, cell) in enumerate(cells) if cell.kind == "exercise" and cell.name == exercise)
        module = _registered_module(self._module_name, str(self.twin))
        self._run(cells[:at], module.__dict__)
        above = dict(module.__dict__)

        def with_source(source: str) -> dict[str, Any]:
            sys.modules[module.__name__] = module
            module.__dict__.clear()
            module.__dict__.update(above)
            self._run(cells[at:], module.__dict__, (exercise, source))
            return module.__dict__

        return with_source

    def _relied_on(self) -> list[tuple[int, Cell]]:
        """The cells that every exercise relies on, each with its number in the notebook, from 1."""
        return [(i, cell) for i, cell in enumerate(self.cells(), start=1) if cell.kind in RUN_BY_EVERY_EXERCISE]

    def _run(
        self, cells: Sequence[tuple[int, Cell]], namespace: dict[str, Any], patch: tuple[str, str] | None = None
    ) -> None:
        """Run cells, each given with its number in the notebook."""
        twin = self.twin
        with contextlib.chdir(self.folder):
            for number, cell in cells:
                source, filename = cell.source, f"<{self.name}, cell {number}: {cell.title}>"
                if patch is not None and cell.kind == "exercise" and cell.name == patch[0]:
                    source, filename = patch[1], f"<{self.name}, cell {number}: {cell.title}, changed>"
                linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
                with _failing_as(f"{twin}, cell {number} ({cell.title})"):
                    exec(_compiled(source, filename), namespace)

    def validate(self) -> None:
        """Raise RecordingError unless the cells are well formed and name just the exercises of exercises.py."""
        cells = self.cells()
        validate_cells(cells, str(self.twin))
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
            if exercise.solution not in defined_by(self.source_of(exercise.name), exercise.name):
                raise RecordingError(
                    f"{self.twin}: the solution cell of `{exercise.name}` does not define `{exercise.solution}`, "
                    f"which {EXERCISES} names as its solution."
                )

    @property
    def _module_name(self) -> str:
        return "lesson_" + "".join(c if c.isalnum() else "_" for c in self.name)


def is_beside(name: str) -> bool:
    """Whether a Python file of this name belongs to a lesson and is not its text twin."""
    return name in BESIDE_THE_TWIN or name.startswith("test_")


def read_filled(twin: Path) -> NotebookNode:
    """The notebook that the text at `twin` stands for, its given cells with the solutions that they name.

    Raises RecordingError as `Lesson.given` does, and where there is no text.
    """
    notebook = read_twin(twin)
    for cell in notebook.cells:
        role = cell_from(cell.cell_type, cell.source, cell.metadata)
        if role.kind == "given":
            cell.source = Lesson(twin.parent).given(role.name)
    return notebook


def lessons(root: Path, source: str = "solutions") -> list[Lesson]:
    """The lessons below ``root/source``, in the order of their names: folders that hold an exercises.py."""
    return [Lesson(path.parent) for path in sorted((root / source).glob(f"*/{EXERCISES}"))]


@lru_cache(maxsize=32)  # more than there are lessons: tests go round them
def _cells_of(twin: str) -> tuple[Cell, ...]:
    return tuple(cell_from(cell.cell_type, cell.source, cell.metadata) for cell in parsed_twin(twin).cells)


def _registered_module(name: str, file: str) -> ModuleType:
    """A fresh module that classes defined in it can find by their ``__module__``, as dataclasses do."""
    module = ModuleType(name)
    module.__file__ = file
    sys.modules[name] = module
    return module


@contextlib.contextmanager
def _no_bytecode() -> Iterator[None]:
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


@contextlib.contextmanager
def _failing_as(title: str) -> Iterator[None]:
    """What fails in here is a RecordingError that names `title`."""
    try:
        yield
    except RecordingError:
        raise
    except Exception as error:
        needs = " Authors need: pip install -e '.[reference]'" if isinstance(error, ModuleNotFoundError) else ""
        raise RecordingError(f"{title} fails: {type(error).__name__}: {error}.{needs}") from error


@lru_cache(maxsize=512)  # a cell runs again for each mistake in the cells above it
def _compiled(source: str, filename: str) -> CodeType:
    return compile(source, filename, "exec", dont_inherit=True)
