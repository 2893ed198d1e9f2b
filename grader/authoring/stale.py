"""What was not built since its sources changed: files that are not as a build would leave them."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from grader.authoring.assemble import assemble, sources_hash, without_outputs
from grader.authoring.differences import differences
from grader.authoring.figures import stale_figures
from grader.authoring.ids import give_ids
from grader.authoring.lists import stale_lists
from grader.authoring.made_from import made_from
from grader.authoring.recorder import record
from grader.authoring.release import LEFT_OVER, left_over, release_staged
from grader.authoring.staging import course_folder, files_below, root_of, shown_path, staged_copy
from grader.authoring.sync import empty_given, given_texts, read_if_there, sync_twin
from grader.errors import GraderError, RecordingError
from grader.lessons.front_matter import require_opening
from grader.lessons.lesson import Lesson, read_filled
from grader.recordings.format import RECORDING
from grader.recordings.recording import Recording


def check_build(lessons: Sequence[Lesson], *, console: Console | None = None, record_again: bool = True) -> list[str]:
    """What `build` would bring up to date, a line for each; empty where everything is.

    Values are compared within tolerance and outputs not at all, so the answer is the same on every machine.
    record_again: whether the reference runs, and is compared with the recording; else that is taken for right where it
    was made from these sources.
    """
    console = console or Console(quiet=True)
    problems = []
    for lesson in (Lesson(lesson.folder.resolve()) for lesson in lessons):
        with console.status(f"{lesson.name}: checking ..."):
            found = _problems_of(lesson, record_again)
        console.print(f"{lesson.name}: checked", highlight=False)
        problems += [f"{shown_path(path, lesson)}: {what}. {_how_to_mend(path, what, lesson)}" for path, what in found]
    for root in {root_of(lesson): None for lesson in lessons}:
        problems += _stale_lists(root)
    return problems


Stale = tuple[Path, str]


def _how_to_mend(path: Path, what: str, lesson: Lesson) -> str:
    if what == LEFT_OVER and path.name != RECORDING:  # a build brings a recording back, and leaves other files
        return "Delete it, or move it elsewhere"
    return f"Mend it with: grader build {lesson.name}"


def _problems_of(lesson: Lesson, record_again: bool) -> list[Stale]:
    found: list[Stale] = []
    try:
        found += stale_figures(lesson)
        with staged_copy(lesson) as staged:
            found += _stale_sources(lesson, staged)
            found += _stale_release(lesson, staged)
            found += _stale_recording(lesson, staged, record_again)
    except GraderError as error:
        found.append((lesson.folder, " ".join(str(error).split()).rstrip(".")))
    return found


def _stale_sources(lesson: Lesson, staged: Lesson) -> list[Stale]:
    notebook = read_if_there(lesson.notebook)
    if notebook is None:
        return [(lesson.notebook, "is missing")]
    taken = sync_twin(staged)
    if not lesson.twin.exists():
        return [(lesson.twin, "is missing")]
    if taken is not None:
        stale = lesson.notebook if taken.suffix == ".py" else lesson.twin
        return [(stale, f"differs from {taken.name}, which was edited since the last build")]
    if empty_given(staged):
        return [(lesson.twin, "has the text of given cells, which a build takes from the lesson they come from")]
    if given_texts(notebook) != given_texts(read_filled(staged.twin)):
        return [(lesson.notebook, "has given cells that are not what the lesson they come from says")]
    if give_ids(staged):
        return [(lesson.twin, "has cells without an id")]
    staged.validate()
    require_opening(staged)
    executed = notebook.metadata.get("grader", {})
    if executed.get("sources") != sources_hash(notebook.cells):
        return [(lesson.notebook, "was not executed since its cells were edited")]
    exercises, _ = staged.exercises()
    if without_outputs(notebook) != without_outputs(assemble(staged, exercises)):
        return [(lesson.notebook, "has other points, cell ids or locks than a build gives it")]
    if lesson.recording.exists() and executed.get("recording") != _content(lesson.recording):
        return [(lesson.notebook, f"was not executed since {RECORDING} was recorded")]
    return []


def _content(recording: Path) -> str:
    """A digest of what was recorded; empty where the file can't be read."""
    try:
        return Recording.read(recording).content
    except RecordingError:
        return ""


def _stale_lists(root: Path) -> list[str]:
    try:
        found = stale_lists(root)
    except GraderError as error:
        return [str(error).replace(f"{root}/", "")]
    mend = "Mend it with: grader build --lists"
    return [
        f"{path.relative_to(root)}: its list of lessons is not what their lesson.toml say. {mend}" for path in found
    ]


def _stale_recording(lesson: Lesson, staged: Lesson, record_again: bool) -> list[Stale]:
    if not lesson.recording.exists():
        return [(lesson.recording, "is missing")]
    old = Recording.read(lesson.recording)
    if old.header["made_from"] != made_from(staged):
        return [(lesson.recording, "was recorded from other solutions or exercises")]
    if record_again and (found := differences(old, record(staged, measured=False))):
        return [(lesson.recording, f"is not what the reference gives here: {found[0]}")]
    return []


def _stale_release(lesson: Lesson, staged: Lesson) -> list[Stale]:
    course = course_folder(lesson)
    if not lesson.notebook.exists():
        return []
    release = release_staged(staged, root_of(lesson))
    wanted = {path.relative_to(release): path.read_bytes() for path in files_below(release)}
    there = {path.relative_to(course): path.read_bytes() for path in files_below(course)}
    found = [(course / path, "is missing") for path in wanted if path not in there]
    found += [
        (course / path, "is not what the lesson releases")
        for path, content in wanted.items()
        if there.get(path, content) != content
    ]
    return found + [(path, LEFT_OVER) for path in left_over(release, lesson)]
