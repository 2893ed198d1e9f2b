"""What learners get is on an allow-list: nothing else that an author keeps in a lesson's folder is ever released."""

import re
from pathlib import Path

import pytest
from toy_course import write_course

from grader.authoring.allowed import leaked, not_released
from grader.authoring.build import build
from grader.authoring.stale import check_build
from grader.errors import GraderError
from grader.lessons.lesson import Lesson, lessons

pytestmark = pytest.mark.sampled(1)

ROOT = Path(__file__).resolve().parents[2]

PLANTED = (
    "mistakes.toml",
    "others.py",
    "benchmark.py",
    "test_toy.py",
    "equivalent_mutants.toml",
    "answers.md",
    "notes.txt",
    "solution.json",
    "old.safetensors",
    "drafts/toy.ipynb",
    "drafts/configs/toy.json",
    "configs/draw.py",
    "configs/mistakes.toml",
    ".hidden",
)
WANTED = {"toy.ipynb", "reference.safetensors", "configs/toy.json", "figures/model.svg", "texts/a/b.txt"}


def plant(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('"""Mine alone."""\n' if name.endswith(".py") else "")


@pytest.fixture
def lesson(tmp_path: Path) -> Lesson:
    first, _ = write_course(tmp_path)
    plant(first.folder, *PLANTED, "figures/model.svg", "texts/a/b.txt")
    return first


def released(lesson: Lesson) -> set[str]:
    folder = lesson.folder.parent.parent / "course" / lesson.name
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_what_an_author_keeps_beside_a_notebook_stays_there(lesson: Lesson) -> None:
    build(lesson)
    assert released(lesson) == WANTED
    assert check_build([lesson]) == []


@pytest.mark.parametrize("ours", lessons(ROOT), ids=lambda ours: ours.name)
def test_the_notebook_shows_every_figure_that_is_released_and_no_other(ours: Lesson) -> None:
    shown = set(re.findall(r"\]\(figures/([^)]+)\)", ours.twin.read_text(encoding="utf-8")))
    assert shown == {file.name for file in (ours.folder / "figures").iterdir()}


def test_a_configuration_that_would_release_more_is_refused(lesson: Lesson) -> None:
    config = lesson.folder.parent.parent / "nbgrader_config.py"
    text = config.read_text()
    config.write_text(text.replace("not_released(Path(__file__).parent)", '["*.py"]'))
    assert config.read_text() != text
    with pytest.raises(GraderError, match=r"nbgrader_config\.py would release .* of 00-toy\. It must ignore"):
        build(lesson)
    assert released(lesson) == set()


def test_a_name_that_would_hide_a_learners_file_is_refused(lesson: Lesson) -> None:
    plant(lesson.folder, "toy.json")
    with pytest.raises(GraderError, match=r"configs/toy\.json of 00-toy would not be released"):
        build(lesson)


def test_a_leak_is_found_by_its_place_and_by_its_name(tmp_path: Path) -> None:
    names = sorted({*WANTED, *PLANTED})
    plant(tmp_path, *names)
    found = leaked(tmp_path, [tmp_path / name for name in names])
    assert {str(path.relative_to(tmp_path)) for path in found} == set(PLANTED)


def test_nbgrader_ignores_every_authors_file_of_this_course() -> None:
    ignored = not_released(ROOT)
    for lesson in lessons(ROOT):
        for path in lesson.folder.iterdir():
            allowed = path.suffix == ".ipynb" or path.name in ("reference.safetensors", "configs", "texts", "figures")
            assert allowed or path.name in ignored or path.name.startswith((".", "__")), path


@pytest.mark.parametrize("built", [False, True], ids=["before it is built", "once it is built"])
def test_a_lessons_other_python_files_are_not_taken_for_its_twin(lesson: Lesson, built: bool) -> None:
    if built:
        build(lesson)
    assert lesson.notebook == lesson.folder / "toy.ipynb"
    assert lesson.twin == lesson.folder / "toy.py"
