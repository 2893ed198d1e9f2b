"""Learn: a folder of one's own, where one is in the course, and an exercise begun anew or shown solved."""

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from grader.cli.course import find_project
from grader.cli.jupyterlab import open_jupyterlab
from grader.errors import GraderError
from grader.package import distribution

if TYPE_CHECKING:
    from grader.learning.status import LessonStatus

RELOAD = "If the lesson is open in JupyterLab: File > Reload Notebook from Disk."


def start(
    context: typer.Context,
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="FOLDER", help="Where you want to work: a new or empty folder; by default this one."),
    ] = None,
    copy_only: Annotated[
        bool, typer.Option("--copy-only", help="Copy the lessons, and don't open JupyterLab.")
    ] = False,
) -> None:
    """Copy the lessons into your own folder, and open JupyterLab.

    Options that are not below go to JupyterLab. What is there already is not touched: in a folder that was started
    before it only opens JupyterLab.
    """
    from grader.learning.home import folder_to_start, start_home
    from grader.learning.status import write_page

    if folder is not None and str(folder).startswith("-"):  # an option of JupyterLab's, with no folder before it
        context.args.insert(0, str(folder))
        folder = None
    home = start_home(folder_to_start(folder, Path.cwd()), distribution().version)
    write_page(home)  # every lesson links to it
    print(f"Your lessons are in {home.folder}. Next time: `grader lab` in that folder.")
    if not copy_only:
        _open(context.args, home.folder)


def lab(
    context: typer.Context,
    instructor: Annotated[
        bool, typer.Option("--instructor", help="Open the whole project, with nbgrader's menus and its formgrader.")
    ] = False,
) -> None:
    """Open your lessons in JupyterLab.

    Options that are not below go to JupyterLab: --no-browser, --port.
    """
    from grader.learning.home import IN_A_CLONE, find_home, start_home
    from grader.learning.places import clone_around

    if instructor:
        open_jupyterlab(find_project(Path.cwd()), "/lab", context.args, instructor=True)
    here = Path.cwd()
    home = find_home(here)
    if home is None:
        clone = clone_around(here) or clone_around(find_project(here))
        assert clone is not None  # find_project raises where there is none
        if not (clone / "course").is_dir():
            raise GraderError(f"{clone / 'course'} is missing, which holds the lessons. Make it with: grader build")
        home = find_home(clone) or start_home(clone / IN_A_CLONE, distribution().version)
        print(f"You work in {home.folder}: a copy of the lessons, which `git pull` never touches.")
    _open(context.args, home.folder)


def update() -> None:
    """Bring your lessons to the newest release.

    What you changed or added stays; old notebooks are kept in kept/.
    """
    from grader.learning.home import require_home
    from grader.learning.release import released_course
    from grader.learning.status import write_page
    from grader.learning.update import take_over
    from grader.learning.update import update as bring_up_to_date

    home = require_home(Path.cwd())
    release = released_course(home.folder)
    said = [*take_over(home, release), *bring_up_to_date(home, release, distribution().version)]
    write_page(home)
    print("\n".join([*said, RELOAD] if said else ["Your lessons are those of the newest release."]))


def status() -> None:
    """Say how far each lesson is.

    That is how many exercises are right, red or not started, and the time left.
    """
    from rich.console import Console
    from rich.table import Table

    from grader.learning.home import require_home
    from grader.learning.status import status as lessons_status
    from grader.learning.status import table

    lessons = lessons_status(require_home(Path.cwd()))
    shown = Table(box=None, pad_edge=False)
    head, *rows = table(lessons)
    for title in head:
        shown.add_column(title, no_wrap=title != "lesson")
    for row in rows:
        shown.add_row(*row)
    Console().print(shown)
    _print_next(lessons)


def next_exercise() -> None:
    """Say which exercise comes next, and where it is."""
    from grader.learning.home import require_home
    from grader.learning.status import status as lessons_status

    _print_next(lessons_status(require_home(Path.cwd())))


def reset(
    name: Annotated[str, typer.Argument(metavar="EXERCISE", help="As in gpt2.block; or a lesson, as in 01-gpt2.")],
) -> None:
    """Begin one exercise, or a whole lesson, anew.

    A copy of your notebook is kept in kept/.
    """
    from grader.learning.exercises import reset as begin_anew
    from grader.learning.home import require_home
    from grader.learning.status import write_page

    home = require_home(Path.cwd())
    kept = begin_anew(home, name)
    write_page(home)
    print(f"`{name}` is as it was at first. Your notebook before that is {kept}.")
    print(RELOAD)


def solution(
    exercise: Annotated[str, typer.Argument(metavar="EXERCISE", help="As in gpt2.block.")],
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask first.")] = False,
) -> None:
    """Show the worked solution of an exercise, after asking once."""
    from grader.learning.exercises import solution as worked_solution
    from grader.learning.exercises import solution_was_seen, solutions_package, tried
    from grader.learning.home import require_home

    home = require_home(Path.cwd())
    far = tried(home, exercise)
    if not yes and not far.solution_seen and far.state != "right":
        times = {0: "have not tried it yet", 1: "have tried it once"}.get(far.tries, f"have tried it {far.tries} times")
        if not typer.confirm(f"You {times}. Show the solution of {exercise}?"):
            raise typer.Exit
    text = worked_solution(home, exercise)
    if text is None:
        package = solutions_package()
        print(f"The worked solutions are a small package of their own, {package}, which is not installed here.")
        if not yes and typer.confirm("Install it now, with pip?"):
            subprocess.run(
                [sys.executable, "-m", "pip", "install", f"{package}=={distribution().version}"], check=False
            )
            text = worked_solution(home, exercise)
        if text is None:
            raise GraderError(
                f"no solution is on this machine. `pip install {package}` brings them, where it is given out."
            )
    solution_was_seen(home, exercise)
    print(text)


def _print_next(lessons: "list[LessonStatus]") -> None:
    from grader.learning.status import next_lesson

    lesson = next_lesson(lessons)
    exercise = lesson.next_exercise if lesson is not None else None
    if lesson is None or exercise is None:
        print("Every exercise is right. That is the whole course.")
    else:
        print(f"Next: {exercise.heading} ({exercise.name}, {exercise.minutes} min), in {lesson.notebook}")


def _open(options: list[str], folder: Path) -> None:
    """Open JupyterLab in a learner's folder, and say what is to be said first."""
    from grader.learning.damaged import is_damaged
    from grader.learning.home import Home
    from grader.learning.release import released_course
    from grader.learning.status import write_page
    from grader.learning.update import needs_update, take_over

    home = Home(folder)
    release = released_course(folder)
    for line in take_over(home, release):
        print(line)
    for name in home.release.notebooks():
        if is_damaged(home.folder / name):
            print(f"{name} can't be opened as it is. `grader update` keeps it aside and saves what can be saved.")
    if needs_update(home, release):
        print("The course has a newer release: `grader update` brings it, and keeps what you wrote.")
    write_page(home)
    open_jupyterlab(folder, "/lab/tree/README.md", options)
