"""Write lessons: begin one, build it, build the web edition."""

from pathlib import Path
from typing import Annotated

import typer

from grader.cli.course import FAILED, choose_lessons, find_project
from grader.cli.options import earlier, earlier_argument
from grader.errors import GraderError
from grader.package import distribution

SITE = Path("build/site")


def build(
    lessons: Annotated[
        list[str] | None, typer.Argument(metavar="LESSON", help="Folders under solutions/; all if none is named.")
    ] = None,
    check_only: Annotated[
        bool, typer.Option("--check", help="Change nothing; say what is stale, and exit with 1 if anything is.")
    ] = False,
    lists_only: Annotated[
        bool,
        typer.Option("--lists", help="Write the lists of lessons in README.md and course/README.md, nothing else."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a released notebook that was worked in; a backup is kept.")
    ] = False,
) -> None:
    """Record lessons, run their notebooks, release them to course/."""
    from rich.console import Console

    from grader.authoring.build import build as build_lesson
    from grader.authoring.lists import write_lists
    from grader.authoring.stale import check_build

    root = find_project(Path.cwd())
    if lists_only:
        for path in write_lists(root):
            print(path)
        return
    chosen = choose_lessons(root, lessons or [])
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


def site(
    to: Annotated[
        list[Path] | None,
        typer.Option("--to", metavar="FOLDER", help="Where to build it, build/site by default; or a .pdf, too."),
    ] = None,
    folder: Annotated[Path | None, earlier_argument("FOLDER", instead="--to FOLDER")] = None,
    printed: Annotated[Path | None, earlier("--pdf", instead="--to FILE.pdf")] = None,
) -> None:
    """Build the web edition of the course.

    It is made of the worked notebooks as they are stored; nothing is executed. With a second --to, which
    ends in .pdf, Chromium prints the lessons too.
    """
    import subprocess
    import sys
    from importlib.util import find_spec

    from grader.cli.atlas import lessons_here
    from grader.learning.book import find_browser, write_book
    from grader.learning.site import write_excerpts, write_site_sources

    pdf = next((path for path in to or () if path.suffix == ".pdf"), printed)
    target = next((path for path in to or () if path.suffix != ".pdf"), folder or SITE)
    if find_spec("myst_nb") is None:
        raise GraderError(f"the web edition needs Sphinx. Install it: pip install '{distribution().name}[site]'")
    if pdf:
        find_browser()  # before minutes of work
    root = find_project(Path.cwd())
    sources = target.with_name(f"{target.name}-sources")
    print("Reading the lessons and their mistakes, about a minute; then Sphinx says how far it is.", flush=True)
    write_site_sources(root, sources, lessons_here)
    quiet = [] if sys.stdout.isatty() else ["-q"]  # without a terminal a line for each of 1,600 pages
    command = [sys.executable, "-m", "sphinx", *quiet, "-b", "html", str(sources), str(target)]
    if subprocess.run(command, check=False).returncode:
        raise typer.Exit(FAILED)
    pages, size = write_excerpts(target)
    print(f"{pages:,} pages, {size:.0f} MB. Open {(target / 'index.html').resolve()}")
    if pdf:
        write_book(sources, pdf)
        print(f"Open {pdf.resolve()}")


def new_lesson(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The lesson's folder, as in 07-mixture-of-experts.")],
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="FOLDER", help="The course's folder; the one you are in if none is named."),
    ] = None,
) -> None:
    """Begin a lesson in solutions/: one exercise, green at once."""
    from grader.authoring.new_lesson import new_lesson as make_lesson

    root = find_project(Path.cwd()) if folder is None else folder
    for path in make_lesson(root, name):
        print(path)
    print(f"Next: grader build {name}; then docs/authoring.md says how it becomes the lesson that you want.")
