"""The figures of a lesson, drawn from configs that its lesson.toml names::

    [[figures]]
    config = "configs/gemma-3-270m.json"     # beside lesson.toml
    name = "Gemma 3 270M"
    against = "configs/qwen3-0.6b.json"      # optional: what is not as there gets an orange ring
    against_name = "Qwen3 0.6B"
    panels = ["model", "attention"]          # optional: these alone; without it all, "mlp" too

Each panel becomes a file, ``figures/gemma-3-270m-model.svg``, 440 pixels wide, for a markdown cell to show. Other
pictures in the folder are the author's own.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grader.atlas import architecture_of
from grader.atlas.drawing import parts
from grader.authoring.staging import install_files
from grader.errors import GraderError
from grader.lessons.front_matter import FIGURES, read_toml
from grader.lessons.front_matter import FILE_NAME as FRONT_MATTER
from grader.lessons.lesson import Lesson

FOLDER = "figures"
SHOWN = re.compile(r"!\[[^\]]*\]\(figures/([^)\s]+)\)")
DRAWN = 'class="atlas"'  # stands at the top of every figure that is drawn from a config


def drawn_figures(lesson: Lesson) -> dict[Path, str]:
    """Each file below the lesson's folder, and what it should hold. Raises GraderError for an entry that can't be."""
    path = lesson.folder / FRONT_MATTER
    entries = read_toml(path, "what is drawn").get(FIGURES, []) if path.exists() else []
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise GraderError(f"{path}: `figures` should be a list of tables, each with `config` and `name`.")
    found: dict[Path, str] = {}
    for entry in entries:
        found |= _drawn(lesson.folder, entry)
    return found


def _drawn(folder: Path, entry: Mapping[str, Any]) -> dict[Path, str]:
    if not entry.get("config") or not entry.get("name"):
        raise GraderError(f"{folder / FRONT_MATTER}: a figure needs `config` and `name`, and one has {dict(entry)}.")
    model = architecture_of(folder / entry["config"], entry["name"])
    other = None
    if entry.get("against"):
        other = architecture_of(folder / entry["against"], entry.get("against_name", ""))
    stem, panels = Path(entry["config"]).stem, {part.name: part.svg for part in parts(model, other)}
    wanted = entry.get("panels", list(panels))
    if unknown := [name for name in wanted if name not in panels]:
        known = ", ".join(panels)
        raise GraderError(f"{folder / FRONT_MATTER}: {entry['name']} has no panel {unknown[0]!r}. It has: {known}.")
    return {Path(FOLDER) / f"{stem}-{name}.svg": panels[name] for name in wanted}


def write_figures(lesson: Lesson) -> list[Path]:
    """Bring the lesson's figures up to date, and remove those that no entry names. Returns the files that changed."""
    wanted, changed = drawn_figures(lesson), []
    for path, text in wanted.items():
        file = lesson.folder / path
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
            changed.append(file)
    for file in _drawn_before(lesson):
        if file.relative_to(lesson.folder) not in wanted:
            file.unlink()
            changed.append(file)
    return changed


def install_figures(changed: Sequence[Path], staged: Lesson, lesson: Lesson) -> list[Path]:
    """Do in the lesson's folder what `write_figures` did in a copy of it. Returns the files that changed there."""
    kept = [file for file in changed if file.exists()]
    found = install_files(kept, staged.folder, lesson.folder)
    for gone in set(changed) - set(kept):
        file = lesson.folder / gone.relative_to(staged.folder)
        file.unlink(missing_ok=True)
        found.append(file)
    return found


def require_figures(lesson: Lesson) -> None:
    """Raise GraderError where the notebook shows a figure that the lesson's folder does not have."""
    for cell in lesson.cells():
        for name in SHOWN.findall(cell.source) if cell.kind == "markdown" else ():
            if not (lesson.folder / FOLDER / name).exists():
                raise GraderError(
                    f"{lesson.twin} shows {FOLDER}/{name}, which is not there. Put the picture into"
                    f" {lesson.folder / FOLDER}, or take the link out."
                )


def _drawn_before(lesson: Lesson) -> list[Path]:
    """The files that were drawn here. An author's own pictures lie beside them, and are left alone."""
    files = sorted((lesson.folder / FOLDER).glob("*.svg"))
    return [file for file in files if DRAWN in file.read_text(encoding="utf-8")[:400]]


def stale_figures(lesson: Lesson) -> list[tuple[Path, str]]:
    """Figures that are not what their configs give, and what is wrong with each."""
    wanted = drawn_figures(lesson)
    found = []
    for path, text in wanted.items():
        file = lesson.folder / path
        if not file.exists():
            found.append((file, "is missing"))
        elif file.read_text(encoding="utf-8") != text:
            found.append((file, "is not what its config gives"))
    return found + [
        (file, "is named by no entry of lesson.toml")
        for file in _drawn_before(lesson)
        if file.relative_to(lesson.folder) not in wanted
    ]
