"""For authors: build lessons."""

from pathlib import Path
from typing import Annotated

import typer

from grader.cli.course import FAILED, choose_lessons, find_project


def build(
    lessons: Annotated[
        list[str] | None, typer.Argument(metavar="LESSON", help="Folders under solutions/; all if none is named.")
    ] = None,
    check_only: Annotated[
        bool, typer.Option("--check", help="Change nothing; say what is stale, and exit with 1 if anything is.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a released notebook that was worked in; a backup is kept.")
    ] = False,
) -> None:
    """For authors: record the reference, run the notebooks, and release them to course/."""
    from rich.console import Console

    from grader.authoring.build import build as build_lesson
    from grader.authoring.stale import check_build

    chosen = choose_lessons(find_project(Path.cwd()), lessons or [])
    console = Console(stderr=True)
    if check_only:
        problems = check_build(chosen, console=console)
        for problem in problems:
            print(problem)
        if not problems:
            print(f"{len(chosen)} {'lesson is' if len(chosen) == 1 else 'lessons are'} up to date")
        raise typer.Exit(FAILED if problems else 0)
    for lesson in chosen:
        for path in build_lesson(lesson, force=force, console=console):
            print(path)
