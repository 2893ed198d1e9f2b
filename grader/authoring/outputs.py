"""What of a notebook's outputs is stored."""

import re
import sys
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import nbformat
from nbformat import NotebookNode

from grader.lessons.lesson import Lesson
from grader.package import package_folder

WIDGET = "application/vnd.jupyter.widget-view+json"
VARIES = "nbval-ignore-output"


def make_portable(notebook: NotebookNode, lesson: Lesson) -> None:
    """Take out what only this machine or this run has: times and paths."""
    packages = package_folder().resolve().parent
    places = {str(lesson.folder): ".", str(packages): "<packages>", sys.prefix: "<python>", str(Path.home()): "~"}
    longest_first = "|".join(re.escape(place) for place in sorted(places, key=len, reverse=True))
    pattern = re.compile(rf"(?:{longest_first})(?=[/:\s'\"]|$)")
    in_kernel = re.compile(re.escape(gettempdir()) + r"/ipykernel_\d+/\d+\.py")

    def portable(value: Any) -> Any:
        if isinstance(value, str):
            return pattern.sub(lambda found: places[found[0]], in_kernel.sub("<cell>", value))
        if isinstance(value, list):
            return [portable(item) for item in value]
        if isinstance(value, dict):
            return {key: item if key.startswith("image/") else portable(item) for key, item in value.items()}
        return value

    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            for output in cell.outputs:
                without_widget(output)
                without_html_of_a_picture(output)
            cell.outputs = [nbformat.from_dict(portable(output)) for output in cell.outputs]


def without_widget(output: NotebookNode) -> None:
    """A widget lives as long as its kernel; where the output has a picture too, only that is stored."""
    data = output.get("data", {})
    if WIDGET in data and "image/png" in data:
        del data[WIDGET]


def without_html_of_a_picture(output: NotebookNode) -> None:
    """Of a picture of `instruments.plots` the PNG is stored: GitHub takes an image out of HTML, and shows that one.

    Its words stay beside it, as text and in the image's metadata.
    """
    if output.get("metadata", {}).get("image/png", {}).get("alt"):
        output.data.pop("text/html", None)


def keep_varying_outputs(notebook: NotebookNode, previous: NotebookNode) -> None:
    for cell, old in zip(notebook.cells, previous.cells, strict=True):
        if VARIES in cell.metadata.get("tags", []):
            cell.outputs = old.outputs
