"""The museum of mistakes: for the web edition, a page for each mistake that a check of the course knows by name."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
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


def write_mistake_pages(lesson: Lesson, title: str, page: str, target: Path) -> list[str]:
    """Write a page for each mistake of a lesson, below `target`; returns the lines of the list that leads to them.

    title: the lesson's. page: its page's name, without an ending, from `target`.
    """
    lines = [f"## [{title}]({page}.ipynb)", ""]
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
        lines += [f"### {exercise.name}", ""]
        for mistake in exercise.mistakes:
            name = page_name(mistake.name)
            text = _page(exercise, mistake, f"[{title}](../../{page}.ipynb)")
            text += [*_numbers(cases, answer, recorded[mistake.name]), *_code(source, mistake)]
            (folder / f"{name}.md").write_text("\n".join(text) + "\n", encoding="utf-8")
            here = f"{MUSEUM}/{exercise.name}/{name}.md"
            lines.append(f"- **[{mistake.name}]({here}).** {one_line(mistake.hint)}{_shipped(mistake)}")
        lines.append("")
    return lines


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
