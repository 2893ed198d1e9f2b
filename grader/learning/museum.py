"""The museum of mistakes: for the web edition, a page for each mistake that a check of the course knows by name."""

import difflib
import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from grader.checks.judge.difference import difference
from grader.lessons.cells import without_markers
from grader.lessons.exercise import Exercise, Mistake
from grader.lessons.lesson import Lesson
from grader.recordings.answers import Answer, MistakeAnswer
from grader.recordings.recording import Recording

MUSEUM = "mistakes"
ABOUT = (
    "Every mistake that a check of this course knows by name. A check says: *this is what comes out when ...*, and "
    "then where to look. Behind each name is a page with what changes in the numbers and in the code. Where a mistake "
    "was published in somebody's program, its report is linked."
)
CONTEXT = 2  # lines around a changed one
FILTER = """<form class="museum" onsubmit="return false">
<label>Find <input id="find" type="search" placeholder="mask, RoPE, eps, off by one ..."></label>
<label>Lesson <select id="lesson"><option value="">all</option>{options}</select></label>
<label><input id="shipped" type="checkbox"> published in somebody's program</label>
</form>
<p id="count" role="status"></p>
<ul id="found"></ul>
<script src="_static/mistakes.js"></script>
<script src="_static/museum.js"></script>"""


@dataclass(frozen=True)
class Shown:
    """A mistake in the museum's filter. page: its address from the museum's first page. hint: in a line."""

    name: str
    exercise: str
    page: str
    hint: str
    shipped: bool


def write_mistake_pages(lesson: Lesson, title: str, page: str, target: Path) -> list[Shown]:
    """Write a page for each mistake of a lesson, below `target`, and the lesson's page that leads to them.

    title: the lesson's. page: its page's name, without an ending, from `target`. Returns what the filter finds.
    """
    lines = [f"# Mistakes in {title}", "", f"The lesson: [{title}](../{page}.ipynb).", ""]
    found = []
    exercises = [exercise for exercise in lesson.exercises()[0] if exercise.mistakes]
    recording = Recording.read(lesson.recording) if exercises else None
    for exercise in exercises:
        assert recording is not None
        answer = recording.answer(exercise.name)
        cases = [case.name for case in recording.task(exercise.name).cases]
        recorded = {mistake.name: mistake for mistake in answer.mistakes}
        source = lesson.source_of(exercise.name)
        folder = target / MUSEUM / exercise.name
        folder.mkdir(parents=True, exist_ok=True)
        lines += [f"## {exercise.name}", ""]
        for mistake in exercise.mistakes:
            name = page_name(mistake.name)
            text = _page(exercise, mistake, f"[{title}](../../{page}.ipynb)")
            text += [*_numbers(cases, answer, recorded[mistake.name]), *_code(source, mistake)]
            (folder / f"{name}.md").write_text("\n".join(text) + "\n", encoding="utf-8")
            hint, here = one_line(mistake.hint), f"{exercise.name}/{name}"
            lines.append(f"- **[{mistake.name}]({here}.md).** {hint}{_shipped(mistake)}")
            address = f"{MUSEUM}/{here}.html"
            found.append(Shown(mistake.name, exercise.name, address, hint, bool(mistake.shipped)))
        lines.append("")
    (target / MUSEUM).mkdir(exist_ok=True)
    (target / MUSEUM / f"{lesson.name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return found


def write_museum(found: Mapping[str, tuple[str, Sequence[Shown]]], target: Path) -> None:
    """Write the museum's first page: a filter, and the lessons. found: by a lesson's name, its title and mistakes."""
    rows = [f"| [{title}]({MUSEUM}/{name}.md) | {len(shown)} |" for name, (title, shown) in found.items()]
    options = "".join(f'<option value="{name}">{html.escape(title)}</option>' for name, (title, _) in found.items())
    lists = "\n".join(["```{toctree}", ":hidden:", "", *(f"{MUSEUM}/{name}" for name in found), "```"])
    page = ["# The museum of mistakes", "", ABOUT, "", "```{raw} html", FILTER.format(options=options), "```", ""]
    page += ["## By lesson", "", "| lesson | mistakes |", "|---|---|", *rows, "", lists]
    (target / f"{MUSEUM}.md").write_text("\n".join(page) + "\n", encoding="utf-8")
    told = [
        [name, each.name, each.exercise, each.page, each.hint, each.shipped]
        for name, (_, shown) in found.items()
        for each in shown
    ]
    data = f"window.MISTAKES = {json.dumps(told, ensure_ascii=False)};\n"
    (target / "_own" / "mistakes.js").write_text(data, encoding="utf-8")


def page_name(mistake: str) -> str:
    """A mistake's name as that of a file."""
    return re.sub(r"[^a-z0-9]+", "-", mistake.lower()).strip("-")


def _page(exercise: Exercise, mistake: Mistake, lesson: str) -> list[str]:
    """What a report says of it, and where that happens. Sphinx calls a page that is in no menu an orphan."""
    title = f"# `{exercise.name}`: {mistake.name}"  # many exercises share a mistake, and a search shows titles alone
    head = ["---", "orphan: true", "---", "", title, ""]
    hint = f"*This is what comes out when {mistake.name}.* {one_line(mistake.hint)}{_shipped(mistake)}"
    where = f"In {lesson}, exercise `{exercise.name}`; one of [all known mistakes](../../{MUSEUM}.md)."
    return [*head, f"{where} The report of the check:", "", hint, ""]


def _numbers(cases: Sequence[str], answer: Answer, mistake: MistakeAnswer) -> Iterator[str]:
    """A table of the exercise's cases: how many values the mistake changes, and by how much."""
    yield from ("## What it looks like", "")
    rows = []
    for i, (got, want) in enumerate(zip(mistake.outputs, answer.outputs, strict=True)):
        if got.shape != want.shape or got.dtype != want.dtype:
            rows.append((cases[i], f"{_form(got)}, and {_form(want)} is right", "", ""))
            continue
        found = difference(got, want, answer.tolerances[i])
        if not found.wrong:
            rows.append((cases[i], "none", "", ""))
            continue
        numbers = (f"{found.largest:.3g}", f"{found.mean:.2g}") if not found.whole else ("", "")
        rows.append((cases[i], f"{found.wrong:,} of {found.total:,}", *numbers))
    if all(row[1] == "none" for row in rows):
        yield from ("Every value is right. The gradients are not, so the module computes well and learns badly.", "")
        return
    yield from ("| case | wrong values | largest difference | mean |", "|---|---|---|---|")
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def _form(tensor: object) -> str:
    shape, dtype = list(getattr(tensor, "shape", ())), str(getattr(tensor, "dtype", "")).removeprefix("torch.")
    return f"shape {shape}, {dtype}"


def _code(source: str, mistake: Mistake) -> list[str]:
    """The change, folded, since it shows the solution too."""
    right = without_markers(source).splitlines()
    wrong = without_markers(source.replace(mistake.find, mistake.replace)).splitlines()
    changed = list(difflib.unified_diff(right, wrong, n=CONTEXT, lineterm=""))[2:]
    lines = [line if not line.startswith("@@") else "..." for line in changed]
    body = "\n".join(lines[1:] if lines and lines[0] == "..." else lines)
    fold = "<details><summary>The change in the code. It shows lines of the solution.</summary>"
    return ["## In the code", "", fold, "", "```diff", body, "```", "", "</details>"]


def _shipped(mistake: Mistake) -> str:
    pages: Mapping[str, str] = {
        each: each.replace("#", "/issues/").replace("@", "/commit/") for each in mistake.shipped
    }
    links = [f"[{name}](https://github.com/{page})" for name, page in pages.items()]
    return f" *Shipped in {', '.join(links)}.*" if links else ""


def one_line(text: str) -> str:
    """The text without its line breaks."""
    return " ".join(text.split())
