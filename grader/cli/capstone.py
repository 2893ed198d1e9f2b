"""For the end of the course: a model that exists nowhere, drawn from a seed."""

import json
from pathlib import Path
from typing import Annotated

import typer

from grader.cli.course import FAILED
from grader.cli.options import Json


def capstone(
    seed: Annotated[int | None, typer.Option(metavar="NUMBER", help="Which one: any whole number.")] = None,
    level: Annotated[
        int, typer.Option(metavar="1|2|3", help="1: two changes of a known model; 2: five; 3: everything is drawn.")
    ] = 2,
    take: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Which of the seed's draws, as seeds.csv of a class says.")
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", metavar="FOLDER", help="Where to write it: a new folder.")] = None,
    check: Annotated[
        Path | None,
        typer.Option("--check", metavar="FOLDER", help="Compare the program in it with its trace."),
    ] = None,
    roster: Annotated[
        Path | None, typer.Option(metavar="CSV", help="For a class, in its folder: one for each student of a roster.")
    ] = None,
    secret: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --roster: what seeds depend on; made if there is none.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Build a model that exists nowhere.

    It writes a folder with a config, weights, and a trace of a model whose architecture was drawn from the seed. Its
    source is not there: you write the program. --check says how much of it is right. Exits with 1 if a row is not.
    """
    if [seed, check, roster].count(None) != 2:
        raise typer.BadParameter(
            "Name a seed, to get a model; or with --check the folder of one; or --roster, for a class."
        )
    if (roster is None) != (secret is None):
        raise typer.BadParameter("--roster and --secret go together.")
    if roster is not None and secret is not None:
        _for_a_class(roster, secret, level)
        return
    if check is not None:
        raise typer.Exit(0 if _checked(check, as_json) else FAILED)
    assert seed is not None
    from grader.capstone.assignment import recording_of
    from grader.capstone.folder import is_fetched, require_new, write_folder
    from grader.capstone.making import make
    from grader.recordings.format import RECORDING

    folder = to or Path(f"capstone-{seed}-{level}")
    require_new(folder)
    made, fetched = make(seed, level, take), is_fetched(folder)
    write_folder(made, folder)
    if fetched:
        recording_of(made).write(folder / RECORDING)
    print(f"{folder}: a model of {len(made.drawn.config['layer_types'])} layers. Begin with {folder / 'README.md'}.")


def _for_a_class(roster: Path, secret: Path, level: int) -> None:
    from rich.console import Console

    from grader.cli.course import find_project
    from grader.grading.classroom.capstones import release_capstone

    with Console(stderr=True).status("a capstone") as status:
        released, new = release_capstone(
            find_project(Path.cwd()), secret, roster, level, lambda one: status.update(f"a capstone for {one}")
        )
    print(f"{released}: with hidden cases for {len(new)} students more. nbgrader release_assignment {released.name}")


def _checked(folder: Path, as_json: bool) -> bool:
    from grader.capstone.checking import POINTS, check_folder
    from grader.layers.wording import report_lines
    from grader.report import print_report

    found = check_folder(folder)
    if as_json:
        print(json.dumps(found.as_json(), indent=1))
        return found.ok
    print_report(report_lines(found.report, "first"))
    print(f"Right: {', '.join(f'{name} {got:g} of {of}' for name, (got, of) in found.shares.items())}.")
    for failing in found.failings:
        print(f"✗ {failing}")
    print(f"{found.points:g} of {POINTS} points")
    return found.ok
