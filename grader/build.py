"""Builds a lesson from what its author edits, and finds what was not built since.

    solutions/01-gpt2/gpt2.py, gpt2.ipynb, exercises.py
      -> sync the twin and the notebook, fill given cells, record the reference, execute, release
      -> solutions/01-gpt2/{gpt2.py, gpt2.ipynb, reference.safetensors}, course/01-gpt2/

Everything happens in a copy of the lesson, which replaces the lesson only when all of it went well.
The notebook's metadata says what it was built from::

    "grader": {"sources": ..., "recording": ..., "released": ...}

hashes of the cells and the recording that were executed, and of the released notebook's cells. The
released notebook carries the same, so a learner's edits show.
"""

import hashlib
import json
import logging
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import nbformat
from nbformat import NotebookNode
from rich.console import Console

from grader import headless
from grader.errors import GraderError, RecordingError
from grader.exercise import Exercise
from grader.lesson import RECORDING, Lesson, cell_from, read_twin, without_markers, write_twin
from grader.recorder import differences, made_from, record_lesson
from grader.recording import Recording

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python", "pygments_lexer": "ipython3"}
WIDGET = "application/vnd.jupyter.widget-view+json"
VARIES = "nbval-ignore-output"
LEFT_BY_PROGRAMS = (".*", "__pycache__", "*.tmp")
# The metadata of a cell that its author writes; the rest is nbgrader's, Jupyter's or jupytext's.
AUTHORS = ("exercise", "check", "given", "tags", "jupyter")


def build(lesson: Lesson, *, force: bool = False, console: Console | None = None) -> list[Path]:
    """Bring a lesson's twin, notebook, recording and release up to date. Returns the files that changed.

    force: replace a released notebook that was worked in, after moving it to ``<name>-backup-1.ipynb``.
    console: where progress is shown; nowhere when None.
    Raises GraderError, and then nothing has changed, where the lesson can't be built, and where a released
    notebook was worked in and `force` is not given.
    """
    console = console or Console(quiet=True)
    lesson = Lesson(lesson.folder.resolve())
    released = _course_folder(lesson) / lesson.notebook.name
    was_worked_in = released.exists() and not _is_as_released(released)
    if was_worked_in and not force:
        raise GraderError(
            f"{_shown(released, lesson)} has been worked in since it was released, and building would overwrite that. "
            f"Move it elsewhere, or let `grader build {lesson.name} --force` move it to a backup beside it."
        )
    with console.status("") as status, _staged(lesson) as staged:

        def step(text: str) -> None:
            status.update(f"{lesson.name}: {text} ...")

        def done(text: str) -> None:
            console.print(f"{lesson.name}: {text}", highlight=False)

        step("reading")
        taken = _sync(staged)
        if taken is not None:
            done(f"took the cells of {taken.name}")
        if filled := _fill_given(staged, _root(lesson)):
            done(f"given cells filled: {filled}")
        staged.validate()
        kept = _record(staged, step)
        done(f"{RECORDING} {'is up to date' if kept else 'recorded'}")
        _execute(staged, _read_if_there(lesson.notebook), step)
        done(f"executed {staged.notebook.name}")
        step("releasing")
        release = _release(staged, _root(lesson))
        backup = _move_aside(released) if was_worked_in else None
        if backup is not None:
            done(f"moved the notebook that was worked in to {_shown(backup, lesson)}")
        changed = _install([staged.twin, staged.notebook, staged.recording], staged.folder, lesson.folder)
        changed += _install(_files(release), release, _course_folder(lesson))
        done(f"released to {_shown(_course_folder(lesson), lesson)}")
    return changed


def check_build(lessons: Sequence[Lesson], *, console: Console | None = None) -> list[str]:
    """What `build` would bring up to date, a line for each; empty where everything is.

    Values are compared within tolerance and outputs not at all, so the answer is the same on every machine.
    """
    console = console or Console(quiet=True)
    problems = []
    for lesson in (Lesson(lesson.folder.resolve()) for lesson in lessons):
        with console.status(f"{lesson.name}: checking ..."):
            found = _problems_of(lesson)
        console.print(f"{lesson.name}: checked", highlight=False)
        problems += [
            f"{_shown(path, lesson)}: {what}. Mend it with: grader build {lesson.name}" for path, what in found
        ]
    return problems


def assemble(lesson: Lesson, exercises: Sequence[Exercise]) -> NotebookNode:
    """The lesson's notebook as its twin has it, without outputs, with what nbgrader and Jupyter need to know."""
    points = {exercise.name: exercise.points for exercise in exercises}
    notebook = nbformat.v4.new_notebook(cells=[_authors_cell(cell) for cell in read_twin(lesson.twin).cells])
    taken: Counter[str] = Counter()
    for cell in notebook.cells:
        role = cell_from(cell.cell_type, cell.source, cell.metadata)
        grade_id = re.sub(r"[^A-Za-z0-9_-]+", "-", role.name)
        if role.kind == "exercise":
            cell.metadata["nbgrader"] = _nbgrader(grade_id, solution=True)
        elif role.kind == "check":
            cell.metadata["nbgrader"] = _nbgrader(f"check-{grade_id}", grade=True, points=points[role.name])
        elif role.kind in ("setup", "given"):
            cell.metadata["nbgrader"] = _nbgrader(_unused(f"{role.kind}-{grade_id}".rstrip("-"), taken))
        # An id that stays when other cells change: the grade_id, or a hash of the source.
        own = cell.metadata.get("nbgrader", {}).get("grade_id") or _hash(cell.source.encode())[:8]
        cell.id = own if "nbgrader" in cell.metadata else _unused(own, taken)
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": LANGUAGE})
    return notebook


def sources_hash(notebook: NotebookNode) -> str:
    """A hash of the notebook's cells as the author writes them: type, source, and the author's metadata."""
    return _hash(json.dumps(_authored(notebook), sort_keys=True).encode())


def released_hash(notebook: NotebookNode) -> str:
    """A hash of what a learner can work on in a notebook: its cells' types and sources."""
    return _hash(json.dumps([(cell.cell_type, cell.source) for cell in notebook.cells]).encode())


# --- the steps of a build, each on the staged copy ---


@contextmanager
def _staged(lesson: Lesson) -> Iterator[Lesson]:
    """A copy of the lesson in a folder laid out as nbgrader expects it; errors name files below the course's root."""
    with TemporaryDirectory(prefix="grader-build-") as temporary:
        root = Path(temporary).resolve()
        copy = root / "solutions" / lesson.name
        shutil.copytree(lesson.folder, copy, ignore=shutil.ignore_patterns(*LEFT_BY_PROGRAMS))
        try:
            yield Lesson(copy)
        except GraderError as error:
            message = str(error).replace(f"{root}/", "").replace(f"{_root(lesson)}/", "")
            raise type(error)(message) from error


def _sync(lesson: Lesson) -> Path | None:
    """Make the twin say what the notebook says, or leave it to be built from; returns the file that was taken.

    Returns None where both have the same cells. Which one was edited is known from the hash of what was
    built last; without one the newer file is taken. Raises RecordingError where both were edited.
    """
    twin = read_twin(lesson.twin) if lesson.twin.exists() else None
    notebook = _read_if_there(lesson.notebook)
    if notebook is None:
        return lesson.twin
    if twin is not None:
        if _authored(twin) == _authored(notebook):
            return None
        built = notebook.metadata.get("grader", {}).get("sources")
        if built == sources_hash(notebook):
            return lesson.twin
        if built is None and lesson.twin.stat().st_mtime >= lesson.notebook.stat().st_mtime:
            return lesson.twin
        if built is not None and built != sources_hash(twin):
            raise RecordingError(
                f"{lesson.twin.name} and {lesson.notebook.name} were both edited since {lesson.name} was last built. "
                "Move what is to be kept into one of them, delete the other, and build again."
            )
    if any(cell.get("attachments") for cell in notebook.cells):
        raise RecordingError(
            f"{lesson.notebook} has a pasted picture, which its text twin can't hold. "
            "Save it as a file in the lesson's folder and link to that."
        )
    write_twin(lesson.twin, [_authors_cell(cell) for cell in notebook.cells])
    return lesson.notebook


def _fill_given(lesson: Lesson, root: Path) -> int:
    """Copy other lessons' solutions into the given cells; returns how many cells that changed."""
    notebook = read_twin(lesson.twin)
    changed = 0
    for cell in notebook.cells:
        role = cell_from(cell.cell_type, cell.source, cell.metadata)
        if role.kind == "given":
            source = _given_source(role.name, root)
            changed += source != cell.source
            cell.source = source
    if changed:
        write_twin(lesson.twin, notebook.cells)
    return changed


def _given_source(reference: str, root: Path) -> str:
    """The solution that a given cell names as "lesson exercise", without its markers."""
    lesson, _, exercise = reference.partition(" ")
    folder = root / "solutions" / lesson
    if not exercise or not folder.is_dir():
        raise RecordingError(f'given="{reference}" must name a lesson and its exercise, as in "01-gpt2 gpt2.mlp".')
    return without_markers(Lesson(folder).source_of(exercise.strip()))


def _record(lesson: Lesson, step: Callable[[str], None]) -> bool:
    """Record the reference; returns whether the recording there was is still right, and kept to the byte."""
    before = lesson.recording.read_bytes() if lesson.recording.exists() else None
    old = _recording_if_readable(lesson.recording)
    record_lesson(lesson.folder, lambda exercise: step(f"recording {exercise}"))
    new = Recording.read(lesson.recording)
    if before is None or old is None or old.header["made_from"] != new.header["made_from"] or differences(old, new):
        return False
    lesson.recording.write_bytes(before)
    return True


def _execute(lesson: Lesson, previous: NotebookNode | None, step: Callable[[str], None]) -> None:
    """Write the notebook with the outputs it has here and now.

    Outputs that differ from run to run are kept from `previous` where that was made from the same sources.
    """
    exercises, _ = lesson.exercises()
    notebook = assemble(lesson, exercises)
    made_of = {"sources": sources_hash(notebook), "recording": _hash(lesson.recording.read_bytes())}
    step("executing")

    def on_cell(index: int, _: NotebookNode) -> None:
        step(f"executing, cell {index + 1} of {len(notebook.cells)}")

    try:
        headless.execute(notebook, lesson.folder, on_cell)
    except headless.ExecutionStopped as error:
        raise GraderError(f"{lesson.notebook.name} of {lesson.name} does not run: {error}") from None
    _make_portable(notebook, lesson)
    if previous is not None and made_of.items() <= previous.metadata.get("grader", {}).items():
        _keep_varying_outputs(notebook, previous)
    notebook.metadata = nbformat.from_dict({"grader": made_of, "kernelspec": KERNEL, "language_info": LANGUAGE})
    _write(notebook, lesson.notebook)


def _release(lesson: Lesson, root: Path) -> Path:
    """Have nbgrader write the learners' copy beside the staged lesson; returns its folder.

    The lesson's notebook is marked with the hash of what was released, and so is the released one, just as
    if nbgrader had been run on the marked one.
    """
    release = _generate_assignment(lesson, root)
    path = release / lesson.notebook.name
    solution, released = headless.read(lesson.notebook), headless.read(path)
    for notebook, target in ((solution, lesson.notebook), (released, path)):
        built_from = solution.metadata.get("grader", {})
        notebook.metadata["grader"] = {**built_from, "released": released_hash(released)}
        _write(notebook, target)
    return release


def _generate_assignment(lesson: Lesson, root: Path) -> Path:
    """Run nbgrader's own GenerateAssignment, without a gradebook, with the project's configuration."""
    from nbgrader.converters import GenerateAssignment
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config.loader import PyFileConfigLoader

    stage = _root(lesson)
    if not (root / "nbgrader_config.py").is_file():
        raise GraderError(f"{root} has no nbgrader_config.py, which says what is released. Is it the course's folder?")
    config = PyFileConfigLoader("nbgrader_config.py", path=str(root)).load_config()
    config.CourseDirectory.root = str(stage)
    config.CourseDirectory.assignment_id = lesson.name
    config.SaveCells.enabled = False
    shutil.rmtree(stage / "course", ignore_errors=True)
    with _collected_log() as (log, lines):
        directory = CourseDirectory(config=config, log=log)
        try:
            GenerateAssignment(coursedir=directory, config=config, no_database=True, log=log).start()
        except Exception as error:  # nbgrader raises many kinds; what was wrong is in its log
            raise GraderError(f"nbgrader can't release {lesson.name}: {lines[-1] if lines else error}") from error
    release = stage / "course" / lesson.name
    if leaked := [path.name for path in release.rglob("*.py")]:
        raise GraderError(f"nbgrader_config.py must ignore *.py: it would release {leaked[0]} of {lesson.name}.")
    return release


# --- what a check finds: files that are not as a build would leave them, and what is wrong with each ---

Problem = tuple[Path, str]


def _problems_of(lesson: Lesson) -> list[Problem]:
    found: list[Problem] = []
    try:
        with _staged(lesson) as staged:
            found += _stale_sources(lesson, staged)
            found += _stale_release(lesson, staged)
            found += _stale_recording(lesson, staged)
    except GraderError as error:
        found.append((lesson.folder, " ".join(str(error).split()).rstrip(".")))
    return found


def _stale_sources(lesson: Lesson, staged: Lesson) -> list[Problem]:
    notebook = _read_if_there(lesson.notebook)
    if notebook is None:
        return [(lesson.notebook, "is missing")]
    taken = _sync(staged)
    if not lesson.twin.exists():
        return [(lesson.twin, "is missing")]
    if taken is not None:
        stale = lesson.notebook if taken.suffix == ".py" else lesson.twin
        return [(stale, f"differs from {taken.name}, which was edited since the last build")]
    if _fill_given(staged, _root(lesson)):
        return [(lesson.twin, "has given cells that are not what the lesson they come from says")]
    staged.validate()
    executed = notebook.metadata.get("grader", {})
    if executed.get("sources") != sources_hash(notebook):
        return [(lesson.notebook, "was not executed since its cells were edited")]
    exercises, _ = staged.exercises()
    if _without_outputs(notebook) != _without_outputs(assemble(staged, exercises)):
        return [(lesson.notebook, "has other points, cell ids or locks than a build gives it")]
    if lesson.recording.exists() and executed.get("recording") != _hash(lesson.recording.read_bytes()):
        return [(lesson.notebook, f"was not executed since {RECORDING} was recorded")]
    return []


def _stale_recording(lesson: Lesson, staged: Lesson) -> list[Problem]:
    if not lesson.recording.exists():
        return [(lesson.recording, "is missing")]
    old = Recording.read(lesson.recording)
    if old.header["made_from"] != made_from(staged):
        return [(lesson.recording, "was recorded from other solutions or exercises")]
    record_lesson(staged.folder)
    if found := differences(old, Recording.read(staged.recording)):
        return [(lesson.recording, f"is not what the reference gives here: {found[0]}")]
    return []


def _stale_release(lesson: Lesson, staged: Lesson) -> list[Problem]:
    course = _course_folder(lesson)
    if not lesson.notebook.exists():
        return []
    release = _release(staged, _root(lesson))
    wanted = {path.relative_to(release): path.read_bytes() for path in _files(release)}
    there = {path.relative_to(course): path.read_bytes() for path in _files(course)}
    found = [(course / path, "is missing") for path in wanted if path not in there]
    found += [
        (course / path, "is not what the lesson releases")
        for path, content in wanted.items()
        if there.get(path, content) != content
    ]
    found += [(course / path, "is not part of the release; move it elsewhere") for path in there if path not in wanted]
    return found


# --- notebooks ---


def _authored(notebook: NotebookNode) -> list[tuple[str, str, dict[str, Any]]]:
    return [(cell.cell_type, cell.source, _authors(cell.metadata)) for cell in notebook.cells]


def _authors(metadata: dict[str, Any]) -> dict[str, Any]:
    return {key: metadata[key] for key in AUTHORS if metadata.get(key)}


def _authors_cell(cell: NotebookNode) -> NotebookNode:
    """The cell without what programs wrote into it."""
    return nbformat.from_dict({**cell, "metadata": _authors(cell.metadata)})


def _without_outputs(notebook: NotebookNode) -> list[dict[str, Any]]:
    return [{k: v for k, v in cell.items() if k not in ("outputs", "execution_count")} for cell in notebook.cells]


def _nbgrader(grade_id: str, *, grade: bool = False, solution: bool = False, points: int = 0) -> dict[str, Any]:
    """A cell's metadata for nbgrader; every cell but a solution is locked."""
    metadata = {
        "grade": grade,
        "grade_id": grade_id,
        "locked": not solution,
        "schema_version": 3,
        "solution": solution,
        "task": False,
    }
    return metadata | ({"points": points} if grade else {})


def _make_portable(notebook: NotebookNode, lesson: Lesson) -> None:
    """Take out what only this machine or this run has: times, paths, how a stream was cut into pieces."""
    packages = Path(__file__).resolve().parent.parent
    places = {str(lesson.folder): ".", str(packages): "<packages>", sys.prefix: "<python>", str(Path.home()): "~"}
    longest_first = "|".join(re.escape(place) for place in sorted(places, key=len, reverse=True))
    pattern = re.compile(rf"(?:{longest_first})(?=[/:\s'\"]|$)")
    in_kernel = re.compile(re.escape(gettempdir()) + r"/ipykernel_\d+/\d+\.py")

    def portable(value: Any) -> Any:
        if isinstance(value, str):
            return pattern.sub(lambda found: places[found[0]], in_kernel.sub("<cell>", value))
        if isinstance(value, list):
            return [portable(item) for item in value]
        if isinstance(value, dict):
            return {key: item if key.startswith("image/") else portable(item) for key, item in value.items()}
        return value

    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            for output in cell.outputs:
                without_widget(output)
            cell.outputs = [nbformat.from_dict(portable(output)) for output in _joined_streams(cell.outputs)]


def without_widget(output: NotebookNode) -> None:
    """A widget lives as long as its kernel; where the output has a picture too, only that is stored."""
    data = output.get("data", {})
    if WIDGET in data and "image/png" in data:
        del data[WIDGET]


def _joined_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """The outputs, with pieces of one stream that follow each other put together."""
    joined: list[NotebookNode] = []
    for output in outputs:
        if joined and output.output_type == "stream" == joined[-1].output_type and output.name == joined[-1].name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def _keep_varying_outputs(notebook: NotebookNode, previous: NotebookNode) -> None:
    for cell, old in zip(notebook.cells, previous.cells, strict=True):
        if VARIES in cell.metadata.get("tags", []):
            cell.outputs = old.outputs


def _is_as_released(path: Path) -> bool:
    """Whether nobody changed a released notebook's cells; running them changes nothing."""
    try:
        notebook = headless.read(path)
    except GraderError:
        return False
    return bool(notebook.metadata.get("grader", {}).get("released") == released_hash(notebook))


def _read_if_there(path: Path) -> NotebookNode | None:
    return headless.read(path) if path.exists() else None


def _write(notebook: NotebookNode, path: Path) -> None:
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


# --- files ---


def _root(lesson: Lesson) -> Path:
    return lesson.folder.parent.parent


def _course_folder(lesson: Lesson) -> Path:
    return _root(lesson) / "course" / lesson.name


def _shown(path: Path, lesson: Lesson) -> Path:
    return path.relative_to(_root(lesson))


def _files(folder: Path) -> list[Path]:
    """The files below `folder`, but for what programs leave there."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in paths if not any(map(_left_by_programs, path.relative_to(folder).parts))]


def _left_by_programs(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in LEFT_BY_PROGRAMS)


def _move_aside(path: Path) -> Path:
    """Rename a notebook to the first free ``<name>-backup-N.ipynb`` beside it."""
    backups = (path.with_stem(f"{path.stem}-backup-{n}") for n in count(1))
    return path.rename(next(backup for backup in backups if not backup.exists()))


def _install(files: Sequence[Path], source: Path, target: Path) -> list[Path]:
    """Copy the files that differ, each whole or not at all; returns where they went."""
    changed = []
    for file in files:
        path = target / file.relative_to(source)
        if path.exists() and path.read_bytes() == file.read_bytes():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        shutil.copyfile(file, temporary)
        temporary.replace(path)
        changed.append(path)
    return changed


def _recording_if_readable(path: Path) -> Recording | None:
    try:
        return Recording.read(path)
    except RecordingError:
        return None


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _unused(name: str, taken: Counter[str]) -> str:
    """`name`, numbered where it was taken before."""
    taken[name] += 1
    return name if taken[name] == 1 else f"{name}-{taken[name]}"


@contextmanager
def _collected_log() -> Iterator[tuple[logging.Logger, list[str]]]:
    """A logger whose errors are collected, not shown."""
    lines: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage().strip().splitlines()[-1])

    log = logging.Logger("nbgrader")
    log.addHandler(Collect(logging.ERROR))
    yield log, lines
