"""Builds a lesson from what its author edits.

    solutions/01-gpt2/gpt2.py, gpt2.ipynb, exercises.py
      -> sync the twin and the notebook, fill given cells, record the reference, execute, release
      -> solutions/01-gpt2/{gpt2.py, gpt2.ipynb, reference.safetensors}, course/01-gpt2/

Everything happens in a copy of the lesson, which replaces the lesson only when all of it went well.
The lists of lessons in README.md and course/README.md are written too, from every lesson's lesson.toml.
The notebook's metadata says what it was built from::

    "grader": {"sources": ..., "recording": ..., "released": ...}

hashes of the cells and of what was recorded when they were executed, and of the released notebook's cells. The
released notebook carries the same, so a learner's edits show.
"""

from collections.abc import Callable
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from rich.console import Console

from grader.authoring.assemble import KERNEL, LANGUAGE, assemble, sources_hash
from grader.authoring.differences import differences
from grader.authoring.figures import install_figures, require_figures, write_figures
from grader.authoring.ids import give_ids
from grader.authoring.lists import stale_lists, write_lists
from grader.authoring.outputs import keep_varying_outputs, make_portable
from grader.authoring.recorder import record_lesson
from grader.authoring.release import LEFT_OVER, left_over, release_staged, write_notebook
from grader.authoring.staging import (
    course_folder,
    files_below,
    install_files,
    move_aside,
    root_of,
    shown_path,
    staged_copy,
)
from grader.authoring.sync import empty_given, read_if_there, sync_twin
from grader.errors import GraderError, RecordingError
from grader.lessons.execution import ExecutionStopped, execute_notebook
from grader.lessons.front_matter import require_opening
from grader.lessons.lesson import Lesson
from grader.lessons.notebooks import is_as_released
from grader.recordings.format import RECORDING
from grader.recordings.recording import Recording
from grader.recordings.variants import Variant


def build(lesson: Lesson, *, force: bool = False, console: Console | None = None) -> list[Path]:
    """Bring a lesson's twin, notebook, recording and release up to date. Returns the files that changed.

    force: replace a released notebook that was worked in, after moving it to ``<name>-backup-1.ipynb``.
    console: where progress is shown; nowhere when None.
    Raises GraderError, and then nothing has changed, where the lesson can't be built, and where a released
    notebook was worked in and `force` is not given.
    """
    console = console or Console(quiet=True)
    lesson = Lesson(lesson.folder.resolve())
    released = course_folder(lesson) / lesson.notebook.name
    was_worked_in = released.exists() and not is_as_released(released)
    if was_worked_in and not force:
        where = shown_path(released, lesson)
        raise GraderError(
            f"{where} has been worked in since it was released, and building would overwrite that."
            f" Move it elsewhere, or let `grader build {lesson.name} --force` move it to a backup beside it."
        )
    with console.status("") as status, staged_copy(lesson) as staged:

        def step(text: str) -> None:
            status.update(f"{lesson.name}: {text} ...")

        def done(text: str) -> None:
            console.print(f"{lesson.name}: {text}", highlight=False)

        step("reading")
        taken = sync_twin(staged)
        if taken is not None:
            done(f"took the cells of {taken.name}")
        if emptied := empty_given(staged):
            done(f"given cells whose text the twin need not have: {emptied}")
        if new := give_ids(staged):
            done(f"cells that got an id: {new}")
        staged.validate()
        require_opening(staged)
        drawn = write_figures(staged)
        require_figures(staged)
        stale_lists(root_of(lesson))  # what stops them stops the build, before anything is executed
        kept = _record(staged, step)
        done(f"{RECORDING} {'is up to date' if kept else 'recorded'}")
        _execute(staged, read_if_there(lesson.notebook), step)
        done(f"executed {staged.notebook.name}")
        step("releasing")
        release = release_staged(staged, root_of(lesson))
        backup = move_aside(released) if was_worked_in else None
        if backup is not None:
            done(f"moved the notebook that was worked in to {shown_path(backup, lesson)}")
        changed = install_files([staged.twin, staged.notebook, staged.recording], staged.folder, lesson.folder)
        changed += install_files(files_below(release), release, course_folder(lesson))
        changed += [*install_figures(drawn, staged, lesson), *write_lists(root_of(lesson))]
        done(f"released to {shown_path(course_folder(lesson), lesson)}")
        for path in left_over(release, lesson):
            done(f"{shown_path(path, lesson)} {LEFT_OVER}: delete it, or move it elsewhere")
    return changed


def _record(lesson: Lesson, step: Callable[[str], None]) -> bool:
    """Record the reference; returns whether what was recorded before is still right.

    Then it is kept to the byte, but for the hashes of what it was made from.
    """
    old = _recording_if_readable(lesson.recording)
    before = lesson.recording.read_bytes() if old else b""
    record_lesson(lesson.folder, lambda exercise: step(f"recording {exercise}"))
    new = Recording.read(lesson.recording)
    if old is None or differences(old, new) or _asked(old) != _asked(new):
        return False
    declared = [recording.header["made_from"].get("exercises.py") for recording in (old, new)]
    if declared[0] != declared[1] and _variants(old) != _variants(new):  # an exercise may be without some by now
        return False
    if old.header["made_from"] == new.header["made_from"]:
        lesson.recording.write_bytes(before)
    else:
        old.header["made_from"] = new.header["made_from"]
        old.write(lesson.recording)
    return True


def _variants(recording: Recording) -> list[tuple[Variant, ...]]:
    """In which other ways each case is asked."""
    return [case.variants for name in recording.exercises for case in recording.task(name).cases]


def _asked(recording: Recording) -> set[str]:
    """The kinds of these ways: one that is new in the engine is recorded."""
    return {type(variant).__name__ for variants in _variants(recording) for variant in variants}


def _execute(lesson: Lesson, previous: NotebookNode | None, step: Callable[[str], None]) -> None:
    """Write the notebook with the outputs it has here and now.

    Outputs that differ from run to run are kept from `previous` where that was made from the same sources.
    """
    exercises, _ = lesson.exercises()
    notebook = assemble(lesson, exercises)
    made_of = {"sources": sources_hash(notebook.cells), "recording": Recording.read(lesson.recording).content}
    step("executing")

    def on_cell(index: int, _: NotebookNode) -> None:
        step(f"executing, cell {index + 1} of {len(notebook.cells)}")

    try:
        execute_notebook(notebook, lesson.folder, on_cell)
    except ExecutionStopped as error:
        raise GraderError(f"{lesson.notebook.name} of {lesson.name} does not run: {error}") from None
    make_portable(notebook, lesson)
    if previous is not None and made_of.items() <= previous.metadata.get("grader", {}).items():
        keep_varying_outputs(notebook, previous)
    notebook.metadata = nbformat.from_dict({"grader": made_of, "kernelspec": KERNEL, "language_info": LANGUAGE})
    write_notebook(notebook, lesson.notebook)


def _recording_if_readable(path: Path) -> Recording | None:
    try:
        return Recording.read(path)
    except RecordingError:
        return None
