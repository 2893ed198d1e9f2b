"""Where a learner is in the course: from what checks reported, which stays on their machine."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from nbformat import NotebookNode

from grader.guesses import Guess, read_guesses
from grader.learning.copies import WHERE_AM_I, title_of
from grader.learning.home import Home
from grader.learning.places import SYLLABUS
from grader.lessons.cells import EXERCISE_MINUTES
from grader.progress import HIDDEN, Progress, State, read_progress

PAGE = WHERE_AM_I
BAR = 10
_MINUTES = re.compile(r"^(?:(\d+) to )?(\d+) minutes · difficulty", re.MULTILINE)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class ExerciseStatus:
    """An exercise as a learner's table shows it: what its last check said, and the minutes that it usually takes."""

    name: str
    heading: str
    minutes: int
    state: State


@dataclass(frozen=True)
class LessonStatus:
    """How far a lesson is. notebook: its path below the learner's folder. minutes: of the whole lesson, at most.

    guesses: how many of its questions the learner made a guess at, and how many there are.
    """

    notebook: str
    title: str
    minutes: int
    exercises: tuple[ExerciseStatus, ...]
    worked_at: float
    guesses: tuple[int, int] = (0, 0)

    @property
    def done(self) -> int:
        """How many exercises are right."""
        return self.count("right")

    @property
    def finished(self) -> bool:
        """Whether every exercise is right."""
        return self.done == len(self.exercises)

    @property
    def minutes_left(self) -> int:
        """What is left of the lesson's minutes, by the minutes of its exercises; in steps of five."""
        whole = sum(exercise.minutes for exercise in self.exercises) or 1
        left = sum(exercise.minutes for exercise in self.exercises if exercise.state != "right")
        return 5 * round(self.minutes * left / whole / 5)

    @property
    def next_exercise(self) -> ExerciseStatus | None:
        """The first one that is not right."""
        return next((exercise for exercise in self.exercises if exercise.state != "right"), None)

    @property
    def bar(self) -> str:
        """Ten squares, as many of them full as the share of exercises that are right."""
        full = BAR * self.done // len(self.exercises) if self.exercises else 0
        return "■" * full + "□" * (BAR - full)

    def count(self, state: State) -> int:
        """How many exercises are in that state."""
        return sum(exercise.state == state for exercise in self.exercises)


def status(home: Home) -> list[LessonStatus]:
    """How far each lesson of the learner's folder is, in the course's order."""
    return [_lesson_status(home, name) for name in home.release.notebooks() if home.base(name) is not None]


def next_lesson(lessons: Sequence[LessonStatus]) -> LessonStatus | None:
    """The lesson to go on with: the one worked in last, unless it is finished; else the first that is not."""
    open_lessons = [lesson for lesson in lessons if not lesson.finished]
    begun = [lesson for lesson in open_lessons if lesson.worked_at]
    return max(begun, key=lambda lesson: lesson.worked_at, default=open_lessons[0] if open_lessons else None)


def table(lessons: Sequence[LessonStatus]) -> list[tuple[str, ...]]:
    """The lessons as rows of text, the first of them the heads of the columns."""
    head = ("lesson", "", "right", "the others", "guesses", "time left")
    return [
        head,
        *(
            (
                lesson.title,
                lesson.bar,
                f"{lesson.done} of {len(lesson.exercises)}",
                _others(lesson),
                _guesses(lesson),
                _time(lesson),
            )
            for lesson in lessons
        ),
    ]


def page(lessons: Sequence[LessonStatus]) -> str:
    """The table of lessons as a page in Markdown, whose links open notebooks in JupyterLab."""
    head, *cells = table(lessons)
    rows = [
        f"| [{title}]({quote(lesson.notebook)}) | {' | '.join(more)} |"
        for lesson, (title, *more) in zip(lessons, cells, strict=True)
    ]
    following = next_lesson(lessons)
    if following is None:
        ahead = "Every exercise is right. That is the whole course."
    else:
        exercise = following.next_exercise
        assert exercise is not None
        ahead = f"**Next: [{exercise.heading}]({quote(following.notebook)})** in {following.title}"
    return "\n".join(
        [
            "# Where am I",
            "",
            ahead,
            "",
            f"| {' | '.join(head)} |",
            "|---" * len(head) + "|",
            *rows,
            "",
            "This page is made anew whenever you open it, from what the checks in your notebooks reported. "
            f"That stays on this machine. [To the syllabus]({SYLLABUS})",
            "",
        ]
    )


def write_page(home: Home) -> Path:
    """Make the page anew in the learner's folder, if it says something else now."""
    path, text = home.folder / PAGE, page(status(home))
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
    return path


def _others(lesson: LessonStatus) -> str:
    red, unwritten = lesson.count("wrong"), lesson.count("unwritten")
    said = ([f"{red} red"] if red else []) + ([f"{unwritten} not started"] if unwritten else [])
    return ", ".join(said) or "finished"


def _guesses(lesson: LessonStatus) -> str:
    made, asked = lesson.guesses
    return f"{made} of {asked}" if asked else ""


def _time(lesson: LessonStatus) -> str:
    minutes = lesson.minutes_left
    if lesson.finished:
        return ""
    hours, rest = divmod(minutes, 60)
    return " ".join(([f"{hours} h"] if hours else []) + ([f"{rest} min"] if rest or not hours else []))


def _lesson_status(home: Home, name: str) -> LessonStatus:
    base, lesson = home.base(name), name.partition("/")[0]
    assert base is not None
    progress = read_progress(home.folder, lesson)
    texts = (cell.source for cell in base.cells if cell.cell_type == "markdown")
    minutes = next((found for text in texts if (found := _MINUTES.search(text))), None)
    kept = home.folder / HIDDEN / "progress" / f"{lesson}.json"
    return LessonStatus(
        notebook=name,
        title=title_of(base) or lesson,
        minutes=int(minutes[2]) if minutes else 0,
        exercises=_exercises(base, progress),
        guesses=_made(base, read_guesses(home.folder, lesson)),
        worked_at=kept.stat().st_mtime if progress and kept.is_file() else 0.0,
    )


def _made(base: NotebookNode, guesses: Mapping[str, Guess]) -> tuple[int, int]:
    asked = [str(cell.metadata["prediction"]) for cell in base.cells if "prediction" in cell.metadata]
    return sum(name in guesses for name in asked), len(asked)


def _exercises(base: NotebookNode, progress: dict[str, Progress]) -> tuple[ExerciseStatus, ...]:
    """The notebook's exercises; what is said of each stands in the last heading above it that names minutes."""
    found, heading, minutes = [], "", 0
    for cell in base.cells:
        opening = EXERCISE_MINUTES.search(cell.source) if cell.cell_type == "markdown" else None
        if opening is not None:
            heading, minutes = _last_heading(cell.source[: opening.start()]), int(opening[1])
        if name := cell.metadata.get("exercise"):
            state = progress.get(name, Progress()).state
            found.append(ExerciseStatus(name, heading or name, minutes, state))
            heading, minutes = "", 0
    return tuple(found)


def _last_heading(text: str) -> str:
    headings = _HEADING.findall(text)
    return str(headings[-1]) if headings else ""
