"""The lists of lessons in README.md and course/README.md, made from the lessons' own front matter.

A list stands between two comments, which no reader sees, and a build writes what is between them::

    <!-- lessons: grader build writes this list -->
    <!-- end of lessons -->

``LISTS`` has the names that can stand there. A file without comments is left alone, and so is a course without either
file. With them go two files in the released course: `TAUGHT`, which learners do not see and which says which lesson
teaches what, and the syllabus as a picture, where the course has tracks (`tracks`).
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from grader.authoring.staging import course_folder, root_of
from grader.authoring.tracks import PICTURE, Tracks, in_words, picture, read_tracks, ways
from grader.errors import RecordingError
from grader.lessons.front_matter import TAUGHT, FrontMatter, number, read_front_matter
from grader.lessons.lesson import Lesson, lessons

FILES = ("README.md", "course/README.md")
LIST = re.compile(r"(<!-- ([a-z ]+): grader build writes this list -->\n)(.*?)(<!-- end of \2 -->)", re.DOTALL)

Entry = tuple[Lesson, FrontMatter]


def stale_lists(root: Path) -> dict[Path, str]:
    """The files of which a list is not what the lessons say, with the text that they should have.

    Raises RecordingError where a comment names no list, and where a lesson that belongs into one has no lesson.toml.
    """
    texts = {path: path.read_text(encoding="utf-8") for name in FILES if (path := root / name).is_file()}
    if not any(LIST.search(text) for text in texts.values()):
        return {}
    entries = [(lesson, read_front_matter(lesson)) for lesson in lessons(root)]
    written = {path: _with_lists(path, text, entries) for path, text in texts.items()}
    if course := {course_folder(lesson).parent for lesson, _ in entries}:
        path = course.pop() / TAUGHT
        written[path] = _taught(entries)
        texts[path] = path.read_text(encoding="utf-8") if path.is_file() else ""
        tracks = _tracks(entries)
        if tracks is not None:
            path = path.parent / PICTURE
            written[path] = picture(tracks)
            texts[path] = path.read_text(encoding="utf-8") if path.is_file() else ""
    return {path: text for path, text in written.items() if text != texts[path]}


def write_lists(root: Path) -> list[Path]:
    """Bring the lists up to date; returns the files that changed."""
    stale = stale_lists(root)
    for path, text in stale.items():
        path.write_text(text, encoding="utf-8")
    return list(stale)


def _with_lists(path: Path, text: str, entries: Sequence[Entry]) -> str:
    def written(found: re.Match[str]) -> str:
        if found[2] not in LISTS:
            raise RecordingError(f"{path} has a list named {found[2]!r}. There are: {', '.join(LISTS)}.")
        return f"{found[1]}\n{LISTS[found[2]](entries, path.parent)}\n\n{found[4]}"

    return LIST.sub(written, text)


def _taught(entries: Sequence[Entry]) -> str:
    """What `grader diff` and the gallery say of lessons; empty where none says what it teaches."""
    lines: list[str] = []
    head = ["# What each lesson teaches, for `grader diff` and the gallery. Written by grader build from lesson.toml."]
    for lesson, front in entries:
        if front.teaches:
            fields = {"title": front.title, "you_can": front.you_can, "teaches": front.teaches}
            written = (f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items())
            lines += ["", f"[{json.dumps(lesson.name)}]", *written]
    return "\n".join([*head, *lines]) + "\n" if lines else ""


# What can stand between two comments. Links are relative to the folder of the file.


def _lessons(entries: Sequence[Entry], folder: Path) -> str:
    """A table of what is built, for those who look at the project: links go to the lessons' folders."""
    links = [f"[{_title(entry)}]({course_folder(entry[0]).relative_to(folder)})" for entry in entries]
    rows = [
        f"| {link} | {front.you_build} | {front.you_know} |" for link, (_, front) in zip(links, entries, strict=True)
    ]
    return "\n".join(["| lesson | you build | and know afterwards |", "|---|---|---|", *rows])


def _syllabus(entries: Sequence[Entry], folder: Path) -> str:
    """A table for learners: links open the notebooks."""
    rows = [
        f"| {_link(entry, folder)} | {entry[1].hours} | {entry[1].dots} | {entry[1].you_can} |" for entry in entries
    ]
    return "\n".join(["| lesson | time | difficulty | afterwards you can |", "|---|---|---|---|", *rows])


def _first_lesson(entries: Sequence[Entry], folder: Path) -> str:
    return f"**Start here: {_link(entries[0], folder)}**"


def _first_check(entries: Sequence[Entry], folder: Path) -> str:
    lesson, _ = entries[0]
    return f"```\ngrader check {lesson.name}/{lesson.notebook.name}\n```"


def _ways(entries: Sequence[Entry], folder: Path) -> str:
    """How long each track takes with what it needs; nothing in a course without tracks."""
    tracks = _tracks(entries)
    return ways(tracks) if tracks is not None else ""


def _picture(entries: Sequence[Entry], folder: Path) -> str:
    """The syllabus as a picture; nothing in a course without tracks."""
    tracks = _tracks(entries)
    if tracks is None:
        return ""
    file = (course_folder(entries[0][0]).parent / PICTURE).relative_to(folder)
    return f"![{in_words(tracks)}]({file.as_posix()})"


def _tracks(entries: Sequence[Entry]) -> Tracks | None:
    return read_tracks(root_of(entries[0][0]), {number(lesson): front for lesson, front in entries})


def _title(entry: Entry) -> str:
    return f"{number(entry[0])} · {entry[1].title}"


def _link(entry: Entry, folder: Path) -> str:
    lesson, _ = entry
    return f"[{_title(entry)}]({(course_folder(lesson) / lesson.notebook.name).relative_to(folder)})"


LISTS: Mapping[str, Callable[[Sequence[Entry], Path], str]] = {
    "lessons": _lessons,
    "syllabus": _syllabus,
    "first lesson": _first_lesson,
    "first check": _first_check,
    "ways": _ways,
    "picture": _picture,
}
