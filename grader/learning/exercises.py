"""One exercise of a learner's folder: begun anew, or shown as it is solved."""

import difflib
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from nbformat import NotebookNode

from grader.errors import GraderError
from grader.guesses import write_guesses
from grader.learning.damaged import is_damaged
from grader.learning.home import Home, write_own
from grader.learning.places import clone_around
from grader.learning.trust import read_own
from grader.lessons.cells import without_markers
from grader.lessons.notebooks import read_notebook
from grader.package import distribution, package_folder
from grader.progress import Progress, read_progress, write_progress

SOLUTIONS = "grader_solutions"  # the package that has the worked notebooks, where it is installed


def reset(home: Home, name: str) -> Path:
    """Begin an exercise ("gpt2.block") or a whole lesson ("01-gpt2") anew; returns the copy of what was there before.

    Raises GraderError where there is no such exercise or lesson.
    """
    lessons = {each.partition("/")[0]: each for each in home.release.notebooks()}
    place = lessons.get(Path(name).name) or _notebook_of(home, name)
    path, lesson, base = home.folder / place, place.partition("/")[0], home.base(place)
    if base is None:
        raise GraderError(f"nobody knows what {place} was like at first. `grader update` brings what is missing.")
    kept = home.keep(place) if path.is_file() else path
    progress = read_progress(home.folder, lesson)
    if Path(name).name in lessons or is_damaged(path) or not path.is_file():
        write_own(base, path)
        progress = {}
        write_guesses(home.folder, lesson, {})
    else:
        notebook, stub = read_own(path), _exercise_cell(base, name)
        own = _exercise_cell(notebook, name)
        if stub is None or own is None:
            raise GraderError(f"{place} has no cell for `{name}` any more. `grader update` brings it back.")
        own.source, own.cell_type = stub.source, stub.cell_type
        for cell in notebook.cells:
            if cell is own or cell.metadata.get("check") == name:  # a check's report is of the code that is gone
                cell.outputs, cell.execution_count = [], None
        write_own(notebook, path)
        progress.pop(name, None)
    write_progress(home.folder, lesson, progress)
    return kept


def tried(home: Home, exercise: str) -> Progress:
    """How far an exercise is. Raises GraderError where the course has none of that name."""
    lesson = _notebook_of(home, exercise).partition("/")[0]
    return read_progress(home.folder, lesson).get(exercise, Progress())


def solution(home: Home, exercise: str) -> str | None:
    """The worked solution of an exercise; None where the solutions are not on this machine.

    Raises GraderError where the course has no exercise of that name.
    """
    place = _notebook_of(home, exercise)
    folder = _solutions_folder(home)
    if folder is None:
        return None
    for path in sorted(folder.glob("*/*.ipynb")):
        cell = _exercise_cell(read_notebook(path), exercise)
        if cell is not None:
            return without_markers(cell.source)
    raise GraderError(f"the solutions that are installed have none for `{exercise}` of {place}: they are of other age.")


def solution_was_seen(home: Home, exercise: str) -> None:
    """Remember that the solution was asked for, so that nobody is asked twice."""
    lesson = _notebook_of(home, exercise).partition("/")[0]
    progress = read_progress(home.folder, lesson)
    progress[exercise] = replace(progress.get(exercise, Progress()), solution_seen=True)
    write_progress(home.folder, lesson, progress)


def solutions_package() -> str:
    """The name by which pip knows the package of the worked solutions."""
    return f"{distribution().name}-solutions"


def _solutions_folder(home: Home) -> Path | None:
    clone = clone_around(home.folder) or clone_around(package_folder())
    if clone is not None and (clone / "solutions").is_dir():
        return clone / "solutions"
    spec = find_spec(SOLUTIONS)
    places = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(places))) if places else None


def _notebook_of(home: Home, exercise: str) -> str:
    """The notebook that an exercise stands in. Raises GraderError where none has it."""
    names: list[str] = []
    for place in home.release.notebooks():
        base = home.base(place)
        found = [cell.metadata["exercise"] for cell in base.cells if "exercise" in cell.metadata] if base else []
        if exercise in found:
            return place
        names += found
    close = difflib.get_close_matches(exercise, names, n=1, cutoff=0.5)
    did_you_mean = f" Did you mean `{close[0]}`?" if close else f" There are: {', '.join(names)}."
    raise GraderError(f"there is no exercise `{exercise}`.{did_you_mean}")


def _exercise_cell(notebook: NotebookNode, name: str) -> NotebookNode | None:
    return next((cell for cell in notebook.cells if cell.metadata.get("exercise") == name), None)
