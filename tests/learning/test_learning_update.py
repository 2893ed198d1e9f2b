"""`grader start` and `grader update`, on files: whatever happens to them, a learner's work is there afterwards."""

import itertools
import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from learners_course import edit, lesson_cells, source, write_lesson, write_release

from grader.errors import GraderError
from grader.guesses import Guess, keep_guess, read_guesses
from grader.learning.home import Home, find_home, folder_to_start, start_home
from grader.learning.release import Release, released_course
from grader.learning.update import needs_update, take_over, update
from grader.lessons.notebooks import read_notebook
from grader.progress import note, read_progress

SOLVED = "class norm: ..."


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return write_release(tmp_path / "clone")


@pytest.fixture
def home(release: Release) -> Home:
    return start_home(folder_to_start(None, release.folder.parent), "1")


def notebook(home: Home) -> Path:
    return home.folder / "00-toy" / "toy.ipynb"


def released_anew(release: Release, cell: str, text: str) -> None:
    """Release lesson 00 with one cell changed."""
    cells = lesson_cells("00", "toy", {"norm": 10, "mlp": 20})
    next(each for each in cells if each.id == cell).source = text
    write_lesson(release.folder, "00-toy/toy.ipynb", cells)


def kept(home: Home) -> list[Path]:
    return sorted(path for path in (home.folder / "kept").rglob("*") if path.is_file())


def test_a_learners_folder_has_every_released_file(release: Release, home: Home) -> None:
    assert home.folder == release.folder.parent / "work"
    for name in release.files():
        assert (home.folder / name).is_file()
    assert read_notebook(notebook(home)) == release.notebook("00-toy/toy.ipynb")
    assert not needs_update(home, release)


def test_a_learners_copy_begins_and_ends_with_links_to_what_is_there(home: Home) -> None:
    (home.folder / "Where am I.md").write_text("")
    for path in home.folder.glob("*/*.ipynb"):
        above, *_, below = nbformat.read(path, as_version=4).cells
        links = [re.findall(r"\]\((.+?)\)", cell.source) for cell in (above, below)]
        assert [len(each) for each in links] == ([2, 3] if path.parent.name == "00-toy" else [3, 2])
        for link in itertools.chain(*links):
            assert (path.parent / unquote(link)).is_file()


def test_starting_again_changes_nothing(home: Home) -> None:
    edit(notebook(home), "toy-norm", SOLVED)
    before = notebook(home).read_bytes()
    start_home(home.folder, "1")
    assert notebook(home).read_bytes() == before


def test_a_folder_with_other_things_is_refused(release: Release) -> None:
    folder = release.folder.parent / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("all of it")
    with pytest.raises(GraderError, match=r"it has thesis\.txt"):
        start_home(folder, "1")
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_an_environment_of_python_and_hidden_files_may_be_there_and_a_start_that_was_stopped_goes_on(
    release: Release,
) -> None:
    folder = release.folder.parent / "mine"
    for name in ("venv/pyvenv.cfg", ".git/config"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("")
    start_home(folder, "1")
    (folder / ".grader" / "home.json").unlink()
    start_home(folder, "1")
    assert find_home(folder / "00-toy") == Home(folder)


def test_the_released_lessons_themselves_are_no_place_to_work(release: Release) -> None:
    with pytest.raises(GraderError, match="is what is released"):
        start_home(release.folder, "1")


def test_an_update_keeps_a_solution_and_brings_what_is_new(release: Release, home: Home) -> None:
    edit(notebook(home), "toy-norm", SOLVED)
    released_anew(release, "about-mlp", "Read this first.")
    assert needs_update(home, release)
    (said,) = update(home, release, "2")
    assert source(notebook(home), "toy-norm") == SOLVED
    assert source(notebook(home), "about-mlp") == "Read this first."
    (old,) = kept(home)
    assert source(old, "toy-norm") == SOLVED and source(old, "about-mlp") != "Read this first."
    assert str(old.relative_to(home.folder)) in said and "1 cell is new, 1 of yours stays" in said
    assert home.about()["version"] == "2"
    assert update(home, release, "2") == [] and len(kept(home)) == 1 and not needs_update(home, release)


def test_a_file_that_the_learner_changed_is_kept_and_one_that_is_missing_comes_back(
    release: Release, home: Home
) -> None:
    (home.folder / "00-toy/configs/toy.json").write_text('{"mine": 1}')
    (home.folder / "00-toy/reference.safetensors").unlink()
    (home.folder / "00-toy/notes.txt").write_text("mine")
    assert update(home, release, "1") == []
    assert (home.folder / "00-toy/reference.safetensors").is_file()
    (release.folder / "00-toy/configs/toy.json").write_text('{"new": 1}')
    (said,) = update(home, release, "1")
    assert (home.folder / "00-toy/configs/toy.json").read_text() == '{"new": 1}'
    assert [path.read_text() for path in kept(home)] == ['{"mine": 1}']
    assert "configs/toy.json is new; yours" in said
    assert (home.folder / "00-toy/notes.txt").read_text() == "mine"


def test_a_lesson_and_a_notebook_with_new_names_are_followed(release: Release, home: Home) -> None:
    edit(notebook(home), "toy-norm", SOLVED)
    note(notebook(home).parent, "toy.norm", "right")
    keep_guess(notebook(home).parent, "toy.cost", Guess("the cost", guess=40))
    (home.folder / "00-toy/notes.txt").write_text("mine")
    old = release.folder / "00-toy"
    old.rename(release.folder / "02-toys")
    (release.folder / "02-toys/toy.ipynb").rename(release.folder / "02-toys/toys.ipynb")
    said = update(home, release, "2")
    assert said[0] == "00-toy/toy.ipynb is called 02-toys/toys.ipynb now."
    moved = home.folder / "02-toys"
    assert source(moved / "toys.ipynb", "toy-norm") == SOLVED
    assert (moved / "notes.txt").read_text() == "mine"
    assert not (home.folder / "00-toy").exists()
    assert read_progress(home.folder, "02-toys")["toy.norm"].state == "right"
    assert read_guesses(home.folder, "02-toys")["toy.cost"].guess == 40
    assert update(home, release, "2") == []


def test_a_renamed_exercise_keeps_its_solution_and_its_progress(release: Release, home: Home) -> None:
    edit(notebook(home), "toy-norm", SOLVED)
    note(notebook(home).parent, "toy.norm", "right")
    cells = lesson_cells("00", "toy", {"norm": 10, "mlp": 20})
    for cell in cells:
        for role in ("exercise", "check"):
            if cell.metadata.get(role) == "toy.norm":
                cell.metadata[role] = "toy.rms_norm"
    write_lesson(release.folder, "00-toy/toy.ipynb", cells)
    update(home, release, "2")
    assert source(notebook(home), "toy-norm") == SOLVED
    assert {name: entry.state for name, entry in read_progress(home.folder, "00-toy").items()} == {
        "toy.rms_norm": "right"
    }


def test_a_lesson_that_the_course_drops_stays_with_the_learner(release: Release, home: Home) -> None:
    for path in (release.folder / "01-next").iterdir():
        path.unlink()
    assert update(home, release, "2")[-1] == (
        "01-next/next.ipynb is no longer in the course; your copy stays where it is."
    )
    assert (home.folder / "01-next/next.ipynb").is_file()
    assert update(home, release, "2") == []


def with_conflict(path: Path, ours: str, theirs: str) -> None:
    """A notebook's file as git leaves it where both sides changed the same line."""
    first, second = (path.read_text().replace("import math", text).splitlines(keepends=True) for text in (ours, theirs))
    lines = []
    for one, other in zip(first, second, strict=True):
        same = one == other
        lines += [one] if same else ["<<<<<<< Updated upstream\n", one, "=======\n", other, ">>>>>>> Stashed changes\n"]
    path.write_text("".join(lines))


def test_conflict_markers_are_recognised_and_an_update_keeps_both_sides(release: Release, home: Home) -> None:
    edit(notebook(home), "toy-norm", SOLVED)
    with_conflict(notebook(home), "import cmath", "import numpy")
    damaged = notebook(home).read_text()
    with pytest.raises(GraderError, match=r"conflict markers.*`grader update` mends it"):
        read_notebook(notebook(home))
    (said,) = update(home, release, "1")
    found = [cell.source for cell in read_notebook(notebook(home)).cells]
    assert {"import cmath", "import numpy", SOLVED} <= set(found)
    assert kept(home)[0].read_text() == damaged
    assert "both sides" in said


def test_a_broken_file_is_kept_and_replaced_by_the_last_checkpoint_or_the_release(release: Release, home: Home) -> None:
    edit(notebook(home), "toy-norm", SOLVED)
    whole = notebook(home).read_text()
    checkpoint = notebook(home).parent / ".ipynb_checkpoints" / "toy-checkpoint.ipynb"
    checkpoint.parent.mkdir()
    checkpoint.write_text(whole)
    notebook(home).write_text(whole[:300])
    (said,) = update(home, release, "1")
    assert "last checkpoint" in said and source(notebook(home), "toy-norm") == SOLVED
    checkpoint.unlink()
    notebook(home).write_text(whole[:200])
    (said,) = update(home, release, "1")
    assert "as released" in said and "NotImplementedError" in source(notebook(home), "toy-norm")
    assert {path.read_text() for path in kept(home)} == {whole[:300], whole[:200]}


def test_of_a_broken_file_every_cell_that_can_still_be_read_is_saved(release: Release, home: Home) -> None:
    edit(notebook(home), "toy-norm", SOLVED)
    edit(notebook(home), "toy-mlp", "class mlp: ...")
    whole, cells = notebook(home).read_text(), read_notebook(notebook(home)).cells
    place = whole.index("class mlp")
    for broken in (whole[:place], f'{whole[:place]}"{whole[place:]}'):
        notebook(home).write_text(broken)
        (said,) = update(home, release, "1")
        found = read_notebook(notebook(home)).cells
        assert [cell.id for cell in found] == [cell.id for cell in cells]
        assert source(notebook(home), "toy-norm") == SOLVED
        assert "NotImplementedError" in source(notebook(home), "toy-mlp")
        assert "could be read and are in it, the others are as released" in said


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def test_work_done_in_a_clones_released_lessons_is_taken_over_once(release: Release) -> None:
    clone = release.folder.parent
    git(clone, "init")
    git(clone, "add", ".")
    git(clone, "commit", "-m", "a release")
    path = release.folder / "00-toy/toy.ipynb"
    edit(path, "toy-norm", SOLVED)
    before = path.read_bytes()
    home = start_home(clone / "work", "1")
    assert "NotImplementedError" in source(notebook(home), "toy-norm")  # the release is what git has
    said = take_over(home, release)
    assert source(notebook(home), "toy-norm") == SOLVED
    assert "your work in" in said[0] and "git -C" in said[-1]
    assert path.read_bytes() == before
    assert take_over(home, release) == []


def test_work_done_on_an_older_release_is_taken_over_into_the_new_one(release: Release) -> None:
    clone = release.folder.parent
    git(clone, "init")
    git(clone, "add", ".")
    git(clone, "commit", "-m", "a release")
    path = release.folder / "00-toy/toy.ipynb"
    edit(path, "toy-norm", SOLVED)
    worked_in = path.read_text()
    released_anew(release, "about-mlp", "Read this first.")
    git(clone, "commit", "-am", "the next release")
    path.write_text(worked_in)  # as `git stash; git pull; git checkout --theirs` leaves it
    home = start_home(clone / "work", "1")
    take_over(home, release)
    assert source(notebook(home), "toy-norm") == SOLVED
    assert source(notebook(home), "about-mlp") == "Read this first."


def test_a_damaged_copy_is_no_reason_to_lose_work_done_in_released_lessons(release: Release, home: Home) -> None:
    edit(release.folder / "00-toy/toy.ipynb", "toy-norm", SOLVED)
    notebook(home).write_text("{ broken")
    assert take_over(home, release) == []
    update(home, release, "1")
    take_over(home, release)
    assert source(notebook(home), "toy-norm") == SOLVED


def test_without_git_work_done_in_released_lessons_is_still_taken_over(release: Release) -> None:
    edit(release.folder / "00-toy/toy.ipynb", "toy-norm", SOLVED)
    home = start_home(release.folder.parent / "work", "1")
    take_over(home, release)
    assert source(notebook(home), "toy-norm") == SOLVED
    released_anew(release, "about-mlp", "Read this first.")
    update(home, release, "2")
    assert source(notebook(home), "toy-norm") == SOLVED
    assert source(notebook(home), "about-mlp") == "Read this first."


def test_the_release_is_the_clones_where_there_is_one(release: Release, tmp_path: Path) -> None:
    assert released_course(release.folder / "00-toy").folder == release.folder
    assert released_course(tmp_path).folder != release.folder


def test_a_check_outside_a_learners_folder_keeps_nothing(release: Release) -> None:
    before = set(release.folder.parent.rglob("*"))
    assert note(release.folder / "00-toy", "toy.norm", "right") is None
    assert set(release.folder.parent.rglob("*")) == before
