"""Cards, comparisons and the gallery of architectures."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from grader.cli.options import Json, Model, earlier, the_model
from grader.errors import GraderError

if TYPE_CHECKING:
    from rich.table import Table

    from grader.atlas import Architecture
    from grader.atlas.arbiter import Unread
    from grader.atlas.card_rows import Row
    from grader.atlas.compare import Line
    from grader.atlas.site import Taught

NUMBERS_ALONE = ("layers",)  # what changes in a program's config and nowhere else
Figure = Annotated[Path | None, typer.Option("--to", metavar="FILE.svg", help="Draw it into this file, too.")]
Svg = Annotated[Path | None, earlier("--svg", instead="--to FILE.svg")]


def card(
    model: Model = None,
    to: Figure = None,
    as_json: Json = False,
    config: Annotated[str | None, earlier("--config", instead="grader card FILE")] = None,
    svg: Svg = None,
) -> None:
    """Say what a model is, read off its config.json.

    Each fact stands with the field that it is from.
    """
    from grader.atlas.arbiter import Unread
    from grader.atlas.card_rows import rows, rows_of_asked
    from grader.atlas.drawing import figure, figure_of_asked

    to = to or svg
    try:
        found = _open(the_model(model, config))
    except Unread as unread:
        name, remark, lines = unread.name, unread.remark, rows_of_asked(unread.asked)
        drawn = figure_of_asked(unread.asked, unread.name) if to else ""
    else:
        name, remark, lines, drawn = found.name, found.remark, rows(found), figure(found) if to else ""
    if to:
        to.write_text(drawn, encoding="utf-8")
    if as_json:
        facts = {row.label: {"value": row.value, "source": row.source} for row in lines}
        print(json.dumps({"name": name, "remark": remark, "facts": facts}, indent=2, ensure_ascii=False))
        return
    _print_card(name, remark, lines)
    if to:
        print(f"figure: {to}")


def _print_card(name: str, remark: str, lines: "list[Row]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=name, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(style="dim", overflow="fold")
    for row in lines:
        table.add_row(row.label, row.shown, row.source)
    console = Console()
    if remark:
        console.print(remark, style="yellow", highlight=False)
    console.print(table)


def diff(
    left: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A gallery model (qwen3-8b), a config.json or its folder, or owner/name."),
    ],
    right: Annotated[str, typer.Argument(metavar="OTHER", help="The other model, named in the same way.")],
    to: Figure = None,
    as_json: Json = False,
    svg: Svg = None,
) -> None:
    """Set two models side by side, with what a program changes.

    What they share, what not, and the changes in order, each with the lesson that teaches it.
    """
    from rich.console import Console

    from grader.atlas import Architecture
    from grader.atlas.changes import steps, with_lessons
    from grader.atlas.compare import compare
    from grader.atlas.drawing.pair import pair

    one, two, to = _open_or_ask(left), _open_or_ask(right), to or svg
    if not isinstance(one, Architecture) or not isinstance(two, Architecture):
        _diff_of_counts(one, two, to, as_json=as_json)
        return
    lines = compare(one, two)
    teaching = _teaching()
    changes = with_lessons(steps(one, two), teaching)
    if to:
        to.write_text(pair(one, two), encoding="utf-8")
    if as_json:
        table_ = [{"what": x.label, "left": x.left, "right": x.right, "differs": x.differs} for x in lines]
        ported = [{"module": s.module, "change": s.change, "concept": s.concept, "lessons": t} for s, t in changes]
        said = {"left": one.name, "right": two.name, "remarks": [m.remark for m in (one, two) if m.remark]}
        print(json.dumps({**said, "lines": table_, "change": ported}, indent=2))
        return
    console = Console()
    for model in (one, two):
        if model.remark:
            console.print(f"{model.name}: {model.remark}", style="yellow", highlight=False)
    console.print(_as_table(lines, one.name, two.name))
    console.print(
        f"\nWhat to change in your program of {one.name} to make it {two.name}:", style="bold", highlight=False
    )
    if not changes:
        console.print("  nothing: only the weights differ.")
    for number, (step, lessons) in enumerate(changes, 1):
        taught = f"  (lesson {', '.join(lessons)})" if lessons else ""
        if teaching and not lessons and not step.takes_away and step.concept not in NUMBERS_ALONE:
            taught = "  (no lesson here teaches it)"
        console.print(f"{number:>3}. {step.module}: {step.change}{taught}", highlight=False, soft_wrap=True)
    if to:
        console.print(f"figure: {to}", highlight=False)


def _as_table(lines: "list[Line]", left: str, right: str) -> "Table":
    from rich.table import Table

    table = Table("", left, right, box=None, padding=(0, 2, 0, 0), title_justify="left")
    for line in lines:
        mark, style = ("≠", "") if line.differs else ("=", "dim")
        table.add_row(f"{mark} {line.label}", line.left, line.right, style=style)
    return table


def _diff_of_counts(
    one: "Architecture | Unread", two: "Architecture | Unread", to: Path | None, *, as_json: bool
) -> None:
    """Set two models side by side of which transformers alone knows one: what can be counted of both."""
    from rich.console import Console

    from grader.atlas.compare import compare_counts

    if to:
        raise GraderError("two models are drawn side by side where the code of both was read; of one it was not.")
    lines = compare_counts(one, two)
    if as_json:
        table = [{"what": x.label, "left": x.left, "right": x.right, "differs": x.differs} for x in lines]
        print(json.dumps({"left": one.name, "right": two.name, "lines": table, "change": None}, indent=2))
        return
    console = Console()
    console.print(_as_table(lines, one.name, two.name))
    unread = " and ".join(dict.fromkeys(x.asked.kind for x in (one, two) if isinstance(x, GraderError)))
    console.print(
        f"\nWhat to change in a program is not told: the code of {unread} was not read for this atlas."
        " `grader trace` makes a small reference of it, to compare a program with.",
        highlight=False,
    )


def _open_or_ask(model: str) -> "Architecture | Unread":
    from grader.atlas.arbiter import Unread

    try:
        return _open(model)
    except Unread as unread:
        return unread


def models() -> None:
    """List the models of the gallery by their names."""
    from grader.atlas import gallery_models

    for slug, model in gallery_models().items():
        seen = "" if model.verified else "  (config.json not seen)"
        print(f"{slug:<26}{model.name}{seen}")


def gallery(
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where to write it.")] = Path("gallery"),
) -> None:
    """Write the gallery as pages that open from their folder."""
    from grader.atlas.site import write_site

    count = write_site(to, lessons_here())
    print(f"{count} models: open {to / 'index.html'}")


def _open(model: str) -> "Architecture":
    from grader.atlas import architecture_of

    return architecture_of(model)


def lessons_here(pages: Callable[[str], str] = lambda name: "") -> "dict[str, Taught]":
    """What the released lessons teach: those of the clone around here, else those installed; nothing without lessons.

    pages: where a lesson of a name can be read, from the gallery's folder lessons/.
    """
    from grader.atlas.site import Taught
    from grader.learning.places import released_folder
    from grader.lessons.front_matter import TAUGHT

    try:
        file = released_folder(Path.cwd()) / TAUGHT
    except GraderError:
        return {}
    lessons = tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {
        name: Taught(lesson["title"], lesson["teaches"], lesson["you_can"], pages(name))
        for name, lesson in lessons.items()
    }


def _teaching() -> dict[str, list[str]]:
    return {name: list(taught.concepts) for name, taught in lessons_here().items()}
