"""For instructors: grade a class, record hidden cases."""

from pathlib import Path
from typing import Annotated

import typer

from grader.cli.course import FAILED, choose_lessons, find_project


def autograde(
    lesson: Annotated[str, typer.Argument(metavar="LESSON", help="The lesson, as its folder is called.")],
    student: Annotated[list[str] | None, typer.Option(metavar="ID", help="Only this student; may be repeated.")] = None,
    workers: Annotated[int, typer.Option(help="How many submissions at once.", min=1)] = 2,
    force: Annotated[bool, typer.Option("--force", help="Grade again what is graded already.")] = False,
    dask: Annotated[str, typer.Option(metavar="ADDRESS", help="Grade on the Dask cluster at this address.")] = "",
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Run submitted code with no jail around it; every result says so.")
    ] = False,
    exercise_seconds: Annotated[float, typer.Option(help="Seconds that one exercise may take.", min=0.1)] = 10.0,
    submission_seconds: Annotated[float, typer.Option(help="Seconds that one submission may take.", min=0.1)] = 60.0,
    memory: Annotated[int, typer.Option(metavar="MB", help="Memory that one submission may use.", min=512)] = 2048,
) -> None:
    """For instructors: grade what is under submitted/, each submission in a jail, and store it through nbgrader.

    Exits with 1 if anything could not be graded. A run that was stopped goes on where it was.
    """
    from grader.grading.only_linux import refuse_elsewhere

    refuse_elsewhere(on_a_cluster=bool(dask))
    from grader.grading.sandbox.launch import launch_early
    from grader.grading.sandbox.limits import Limits

    limits = Limits(exercise_seconds=exercise_seconds, submission_seconds=submission_seconds, memory_mb=memory)
    root, name = find_project(Path.cwd()), Path(lesson).name
    if not dask and not unsafe:
        launch_early(root, name, limits, workers, force=force)

    from grader.grading.quick_start import without_unused_formats

    without_unused_formats()
    from grader.grading import command  # imports torch, while the jails do

    chosen = command.Chosen(name, tuple(student or ()), workers, force, dask, unsafe, limits)
    raise typer.Exit(0 if command.autograde(root, chosen) else FAILED)


def record_cases(
    lesson: Annotated[str, typer.Argument(metavar="LESSON", help="A folder under solutions/.")],
    secret: Annotated[Path, typer.Option(metavar="FILE", help="What it depends on; made where there is none.")],
    student: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Make one for this student alone; may be repeated.")
    ] = None,
) -> None:
    """For instructors: record a lesson's exercises with other weights, inputs and sizes, for grading.

    What it writes to hidden/ holds answers: students must not get it, nor the secret.
    """
    from rich.console import Console

    from grader.grading.hidden import read_secret, record_hidden

    root = find_project(Path.cwd())
    (chosen,) = choose_lessons(root, [lesson])
    word = read_secret(secret)
    with Console(stderr=True).status("recording") as status:
        for one in student or [""]:
            name = f" for {one}" if one else ""
            path = record_hidden(root, chosen, word, one, lambda e: status.update(f"recording {e}{name}"))  # noqa: B023
            print(path)
