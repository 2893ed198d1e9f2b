"""Warm processes that are started before anything else is imported, for what a run will probably need."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import PROJECT
from grader.grading.nbgrader.gradebook_file import _newest_migration
from grader.grading.running.bundle import pack_bundle
from grader.grading.sandbox import launch
from grader.grading.sandbox.jail import Jail
from grader.grading.sandbox.launch import end_early, launch_early, lessons_own_cells, take_early
from grader.grading.sandbox.limits import Limits

LESSON = "00-orientation"


@pytest.fixture
def course(tmp_path: Path) -> Iterator[Path]:
    """A course with one submission."""
    shutil.copytree(PROJECT / "course" / LESSON, tmp_path / "course" / LESSON)
    shutil.copytree(PROJECT / "course" / LESSON, tmp_path / "submitted" / "s1" / LESSON)
    tmp_path.chmod(0o755)
    yield tmp_path
    end_early()


def released(course: Path) -> tuple[str, ...]:
    folder = course / "course" / LESSON
    (notebook,) = folder.glob("*.ipynb")
    return lessons_own_cells(json.loads(notebook.read_text(encoding="utf-8")))


def test_what_was_started_early_is_the_jail_of_the_kit_that_needs_it(course: Path, tmp_path: Path) -> None:
    launch_early(course, LESSON, Limits(), workers=2)
    assert len(launch._started) == 2
    bundle = pack_bundle(course / "course" / LESSON, None)
    warm = take_early(bundle.unpack_files(tmp_path / "unpacked"), bundle.lessons_own_cells, bundle.limits)
    assert warm is not None and warm.place is not None and len(launch._started) == 1
    jail = Jail(warm.place / "lesson", bundle.limits, cells=bundle.lessons_own_cells, early=warm)
    with jail.child() as child:
        assert child.pid
    assert jail.pid == warm.process.pid
    jail.close()
    shutil.rmtree(warm.place)


def test_other_limits_files_or_cells_are_not_given_it(course: Path) -> None:
    launch_early(course, LESSON, Limits(), workers=1)
    files, lesson = course / "course" / LESSON, released(course)
    assert take_early(files, lesson, Limits()) is None, "notebook and recording are not what submissions may read"
    view = launch.lesson_view(files, course / "view")
    assert take_early(view, lesson, Limits(memory_mb=1024)) is None
    assert take_early(view, (*lesson, "x = 1"), Limits()) is None
    (view / "extra.json").write_text("{}")
    assert take_early(view, lesson, Limits()) is None
    (view / "extra.json").unlink()
    warm = take_early(view, lesson, Limits())
    assert warm is not None
    warm.end()


def test_where_nothing_is_new_nothing_is_started(course: Path) -> None:
    journal = course / "journal" / f"{LESSON}.jsonl"
    journal.parent.mkdir()
    journal.touch()
    (notebook,) = (course / "submitted" / "s1" / LESSON).glob("*.ipynb")
    os.utime(notebook, (1, 1))
    launch_early(course, LESSON, Limits(), workers=2)
    assert launch._started == []
    launch_early(course, LESSON, Limits(), workers=1, force=True)
    assert len(launch._started) == 1


def test_what_is_not_taken_is_ended_and_leaves_nothing(course: Path) -> None:
    launch_early(course, LESSON, Limits(), workers=1)
    ((_, warm),) = launch._started
    end_early()
    assert warm.process.poll() is not None
    assert warm.place is not None and not warm.place.exists() and not warm.mount_point.exists()


@pytest.mark.parametrize("broken", ["no lesson", "no notebook", "not JSON"])
def test_what_is_wrong_is_left_to_what_needs_it(course: Path, broken: str) -> None:
    released = course / "course" / LESSON
    (notebook,) = released.glob("*.ipynb")
    if broken == "no lesson":
        shutil.rmtree(released)
    elif broken == "no notebook":
        notebook.unlink()
    else:
        notebook.write_text("{")
    launch_early(course, LESSON, Limits(), workers=2)
    assert launch._started == []


def test_jsonschema_is_imported_without_what_notebooks_have_no_use_for() -> None:
    code = (
        "import sys; from grader.grading.classroom.lean_jsonschema import without_unused_formats as spare; spare();"
        "import nbformat;"
        "assert not {'rfc3987_syntax', 'isoduration'} & {m for m in sys.modules if sys.modules[m]};"
        "nbformat.validate(nbformat.v4.new_notebook()); spare();"
        "import importlib.util as u; assert 'rfc3987_syntax' not in sys.modules; u.find_spec('rfc3987_syntax')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT)


def test_a_new_gradebook_has_the_version_that_nbgrader_gives_it() -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    asked = subprocess.run(
        [sys.executable, "-c", "import nbgrader.api; print(nbgrader.api.get_alembic_version())"],
        check=True, capture_output=True, text=True, env={**os.environ, "PATH": path},
    )  # fmt: skip
    assert asked.stdout.split()[-1] == _newest_migration()
