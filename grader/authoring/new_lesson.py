"""A new lesson: one folder with one exercise that is green at once, to be turned into the lesson that is wanted.

Its files are made from those in ``template/``, where ``{{name}}`` stands for "07-some-name", ``{{number}}`` for "07",
``{{module}}`` for "some_name" and ``{{title}}`` for "Some name".
"""

import importlib.util
import re
import shutil
from pathlib import Path

from grader.authoring.ids import give_ids
from grader.errors import GraderError
from grader.lessons.lesson import Lesson, is_beside

TEMPLATE = Path(__file__).parent / "template"
FILLED = ".template"  # a file that ends so holds words in braces
TWIN = "twin.py"
NAME = re.compile(r"(\d\d)-([a-z][a-z0-9]*(?:-[a-z0-9]+)*)")


def new_lesson(root: Path, name: str) -> list[Path]:
    """Make ``solutions/<name>/`` in the course at `root`; returns the files, in order.

    Raises GraderError, and then nothing has changed, where `root` has no solutions/ folder, and where the name is not
    of the form 07-some-name, is taken, or would hide a Python module.
    """
    solutions = root / "solutions"
    if not solutions.is_dir():
        raise GraderError(
            f"{root} has no folder solutions/, in which lessons are. Go to a course's folder, or name it:"
            f" grader new-lesson {name} FOLDER. In a new course, make the folder first."
        )
    words = _words(name)
    _require_free(solutions, name, words)
    folder = solutions / name
    for source in sorted(path for path in TEMPLATE.rglob("*") if path.is_file()):
        target = folder / source.relative_to(TEMPLATE).parent / _file_name(source.name, words["module"])
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.name.endswith(FILLED):
            target.write_text(_filled(source.read_text(encoding="utf-8"), words), encoding="utf-8")
        else:
            shutil.copyfile(source, target)
    give_ids(Lesson(folder))
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _words(name: str) -> dict[str, str]:
    """What stands for the words in braces."""
    found = NAME.fullmatch(name)
    if not found:
        raise GraderError(
            f"`{name}` can't be a lesson's name: it must be two digits, a dash, and small letters, digits and dashes,"
            " as in 07-mixture-of-experts."
        )
    number, words = found.groups()
    title = words.replace("-", " ")
    return {"name": name, "number": number, "module": words.replace("-", "_"), "title": title[0].upper() + title[1:]}


def _require_free(solutions: Path, name: str, words: dict[str, str]) -> None:
    there = sorted(path.name for path in solutions.glob("[0-9][0-9]-*"))
    if same := [other for other in there if other[:2] == name[:2]]:
        free = f"{max(int(other[:2]) for other in there) + 1:02}"
        raise GraderError(
            f"{same[0]} is there already, and a number is one lesson's. The next free one is {free}: grader new-lesson"
            f" {free}{name[2:]}"
        )
    module = words["module"]
    if is_beside(f"{module}.py") or importlib.util.find_spec(module):
        raise GraderError(
            f"The notebook of `{name}` would be {module}.py as text, which hides the file or the Python package of that"
            " name. Choose another name."
        )


def _file_name(template: str, module: str) -> str:
    name = template.removesuffix(FILLED)
    return f"{module}.py" if name == TWIN else name


def _filled(text: str, words: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: words[found[1]], text)
