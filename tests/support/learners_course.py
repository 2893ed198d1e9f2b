"""A small released course, as files, and a learner's folder made from it."""

from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from grader.learning.release import Release
from grader.lessons.notebooks import released_hash

STUB = "class {0}:\n    def __call__(self, x):\n        raise NotImplementedError()\n"
OPENING = "# {0} · {1}\n\n30 to 40 minutes · difficulty ●○○○○ · you know Python"
HEADING = "### Exercise {0} · {1}\ndifficulty ●○○○○ · importance ●●●●● · {2} minutes"


def code(name: str, source: str, **metadata: object) -> NotebookNode:
    cell = {"cell_type": "code", "id": name, "metadata": metadata, "source": source}
    return nbformat.from_dict(cell | {"outputs": [], "execution_count": None})


def text(name: str, source: str) -> NotebookNode:
    return nbformat.from_dict({"cell_type": "markdown", "id": name, "metadata": {}, "source": source})


def lesson_cells(number: str, prefix: str, exercises: Mapping[str, int]) -> list[NotebookNode]:
    """The cells of a lesson with these exercises, each with its minutes."""
    cells = [text("title", OPENING.format(number, prefix.title())), code("setup", "import math", tags=["setup"])]
    for place, (name, minutes) in enumerate(exercises.items(), 1):
        told = {"grade_id": f"{prefix}-{name}", "solution": True, "grade": False, "schema_version": 3, "locked": False}
        full = f"{prefix}.{name}"
        cells += [
            text(f"about-{name}", HEADING.format(place, name, minutes)),
            code(f"{prefix}-{name}", STUB.format(name), exercise=full, nbgrader=told),
            code(f"check-{name}", f'check("{full}", {name})', check=full),
        ]
    return cells


def write_lesson(course: Path, name: str, cells: list[NotebookNode]) -> Path:
    """Release a lesson `name` ("00-toy/toy.ipynb") with these cells, marked as `grader build` marks it."""
    path = course / name
    path.parent.mkdir(parents=True, exist_ok=True)
    notebook = nbformat.from_dict({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    notebook.metadata["grader"] = {"released": released_hash(notebook)}
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    (path.parent / "reference.safetensors").write_bytes(name.encode())
    return path


def write_release(folder: Path) -> Release:
    """A course of two lessons."""
    course = folder / "course"
    write_lesson(course, "00-toy/toy.ipynb", lesson_cells("00", "toy", {"norm": 10, "mlp": 20}))
    write_lesson(course, "01-next/next.ipynb", lesson_cells("01", "next", {"model": 10}))
    (course / "00-toy" / "configs").mkdir()
    (course / "00-toy" / "configs" / "toy.json").write_text("{}", encoding="utf-8")
    (course / "README.md").write_text("# A course\n", encoding="utf-8")
    (folder / "nbgrader_config.py").write_text("", encoding="utf-8")
    return Release(course)


def edit(path: Path, cell: str, source: str) -> None:
    """Change one cell of a notebook's file, as a person does in an editor."""
    notebook = nbformat.read(path, as_version=4)
    next(each for each in notebook.cells if each.id == cell).source = source
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


def source(path: Path, cell: str) -> str:
    """What a cell of a notebook's file says."""
    return str(next(each.source for each in nbformat.read(path, as_version=4).cells if each.id == cell))
