"""Teach: grade a class, give back, export, record hidden cases."""

from pathlib import Path
from typing import Annotated

import typer

from grader.cli.course import FAILED, choose_lessons, find_project


def collect(
    lesson: Annotated[str, typer.Argument(metavar="LESSON", help="The lesson, as its folder is called.")],
    student: Annotated[list[str] | None, typer.Option(metavar="ID", help="Only this student; may be repeated.")] = None,
) -> None:
    """Collect the last that each student has handed in.

    It comes from nbgrader's exchange to submitted/. Whose it is and when it came says the file system; what can't be
    used is left out and named.
    """
    from grader.grading.classroom.collecting import collect as take

    taken = take(find_project(Path.cwd()), Path(lesson).name, student or ())
    for said in taken.remarks:
        print(said)
    fresh = sum(one.fresh for one in taken.submissions)
    print(f"{fresh} collected, {len(taken.submissions) - fresh} as before, {len(taken.left_out)} left out")


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
    """Grade what is under submitted/, each submission in a jail.

    The marks are stored through nbgrader. Exits with 1 if anything could not be graded. A run that was stopped goes
    on where it was.
    """
    from grader.grading.classroom.only_linux import refuse_elsewhere

    refuse_elsewhere(on_a_cluster=bool(dask))
    from grader.grading.sandbox.launch import launch_early
    from grader.grading.sandbox.limits import Limits

    limits = Limits(exercise_seconds=exercise_seconds, submission_seconds=submission_seconds, memory_mb=memory)
    root, name = find_project(Path.cwd()), Path(lesson).name
    if not dask and not unsafe:
        launch_early(root, name, limits, workers, force=force)

    from grader.grading.classroom.lean_jsonschema import without_unused_formats

    without_unused_formats()
    from grader.grading.classroom import command  # imports torch, while the jails do

    chosen = command.Chosen(name, tuple(student or ()), workers, force, dask, unsafe, limits)
    raise typer.Exit(0 if command.autograde(root, chosen) else FAILED)


def feedback(
    lesson: Annotated[str, typer.Argument(metavar="LESSON", help="The lesson, as its folder is called.")],
    student: Annotated[list[str] | None, typer.Option(metavar="ID", help="Only this student; may be repeated.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Make also those anew in which nothing has changed.")] = False,
) -> None:
    """Make the pages that students get back.

    They are made where a mark, a comment or a submission has changed, and written to feedback/, from where
    `nbgrader release_feedback` takes them.
    """
    from grader.grading.feedback.make import make_feedback

    pages = make_feedback(find_project(Path.cwd()), Path(lesson).name, student or (), force=force)
    for made in pages:
        if made.problem:
            print(f"{made.student} has no feedback: {made.problem}")
    failed = sum(bool(made.problem) for made in pages)
    fresh = sum(made.fresh for made in pages)
    print(f"{fresh} made, {len(pages) - fresh - failed} as before, {failed} could not be made")
    raise typer.Exit(FAILED if failed else 0)


def export(
    lessons: Annotated[list[str] | None, typer.Argument(metavar="LESSON", help="Only these; all by default.")] = None,
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where the files go.")] = Path("export"),
) -> None:
    """Write the marks for Canvas and for Moodle.

    For Canvas that is one wide table, for Moodle a table a lesson.
    """
    from grader.grading.nbgrader.export import export as write_marks

    names = [Path(lesson).name for lesson in lessons or ()]
    done = write_marks(find_project(Path.cwd()), to, names)
    for path in done.files:
        print(path)
    if done.unnamed:
        shown = ", ".join(done.unnamed[:5]) + (", ..." if len(done.unnamed) > 5 else "")
        print(f"{len(done.unnamed)} without a name in the gradebook ({shown}): nbgrader db student import FILE")
    if done.by_hand:
        print(f"{len(done.by_hand)} still to be marked by hand: {', '.join(done.by_hand[:5])}")


def similar(
    lesson: Annotated[str, typer.Argument(metavar="LESSON", help="The lesson, as its folder is called.")],
) -> None:
    """Show solutions that are alike, as a hint.

    They are the same but for names, comments and layout, or nearly.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from grader.grading.classroom.similarity import PUBLISHED
    from grader.grading.classroom.similarity import similar as alike

    found = alike(find_project(Path.cwd()), Path(lesson).name)
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("exercise", "alike", "of", "how far", "who"):
        table.add_column(heading, justify="right" if heading in ("alike", "of", "how far") else "left")
    for group in found:
        who = [*group.students, *([PUBLISHED] if group.published else [])]
        numbers = (str(len(group.students)), str(group.of), f"{int(100 * group.likeness)}%")  # 100% are the same
        table.add_row(*map(Text, (group.exercise, *numbers, ", ".join(who))))
    if found:
        Console().print(table)
        print("A hint and no proof: few lines have few forms, and a group of half the class says nothing.")
    else:
        print("No two solutions are alike, but for those too short to tell.")


def hidden_cases(
    lesson: Annotated[str, typer.Argument(metavar="LESSON", help="A folder among those with solutions.")],
    secret: Annotated[Path, typer.Option(metavar="FILE", help="What it depends on; made where there is none.")],
    student: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Make one for this student alone; may be repeated.")
    ] = None,
    roster: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Make one for each student of a roster who has none yet.")
    ] = None,
) -> None:
    """Record cases for grading that no student has.

    They are a lesson's exercises with other weights, inputs and sizes. What it writes to hidden/ holds answers:
    students must not get it, nor the secret.
    """
    from rich.console import Console

    from grader.grading.classroom.hidden import read_secret, record_hidden, remember_secret, without_cases
    from grader.grading.nbgrader.gradebook_file import course_config, course_directory

    root = find_project(Path.cwd())
    source = course_directory(root, course_config(root)).source_directory
    (chosen,) = choose_lessons(root, [lesson], source)
    word = read_secret(secret)
    with Console(stderr=True).status("recording") as status:
        waiting = without_cases(root, chosen, roster) if roster else []
        for number, one in enumerate([*(student or []), *waiting] or ([] if roster else [""]), start=1):
            name = f" for {one}" if one else ""
            name += f" ({number} of {len(waiting)})" if waiting else ""
            path = record_hidden(root, chosen, word, one, lambda e: status.update(f"recording {e}{name}"))  # noqa: B023
            print(path)
    remember_secret(root, secret)
    if roster and not waiting:
        print("Each student of the roster has cases of their own.")


def new_course(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new or empty folder, for one class.")],
    course_id: Annotated[str, typer.Option("--id", metavar="ID", help="What nbgrader calls the course.")],
    exchange: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="nbgrader's exchange, if it is not in the usual place.")
    ] = None,
    lesson: Annotated[list[str] | None, typer.Option(metavar="LESSON", help="Only this; may be repeated.")] = None,
    clone: Annotated[
        Path | None,
        typer.Option("--from", metavar="CLONE", help="The project with its solutions; by default this one."),
    ] = None,
) -> None:
    """Make the folder of a class, which only you can enter.

    It has the lessons, their solutions, and nbgrader's configuration.
    """
    from grader.grading.classroom.exposure import exposed
    from grader.grading.classroom.new_course import new_course as make_course

    made = make_course(folder, clone or find_project(Path.cwd()), course_id, exchange, lesson or ())
    print(f"{made} is the folder of {course_id}. Only you can enter it; run all that follows in it:")
    print("  grader hidden-cases --secret ~/course.secret LESSON   # cases that no student has")
    print("  nbgrader db assignment add LESSON --duedate='2027-01-31 23:59 UTC'")
    print("  nbgrader release_assignment LESSON")
    print("docs/class.md goes on from there.")
    if count := len(exposed(made)):
        print(f"{count} things of it, or of the clone, others could read yet: cd {folder}; grader doctor --class")


def doctor(
    a_class: Annotated[bool, typer.Option("--class", help="Say what students could read of the class in this folder.")],
) -> None:
    """Say what students could read that they should not.

    Exits with 1 if there is anything.
    """
    from grader.grading.classroom.exposure import closing, exposed, open_exchange

    root = find_project(Path.cwd())
    found, exchange = exposed(root), open_exchange(root)
    for one in found:
        print(f"{one.who} could read {one.what}: {one.path}")
    for command in dict.fromkeys(closing(root, one.path) for one in found if one.secret):
        print(f"Close it: {command}")
    if exchange:
        print(exchange)
    if any(not one.secret for one in found):
        print("A group may be the instructors' own. If students are in it: chmod -R g-rwx, on each of these.")
    if not found:
        print(f"Nobody but you, and root, can read anything of {root} that is not the students' own.")
    raise typer.Exit(FAILED if found or exchange else 0)
