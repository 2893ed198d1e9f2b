"""What the project says of itself stands in one place, and is so."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from grader.package import distribution


@pytest.fixture
def about(project: Path) -> dict[str, object]:
    found: dict[str, object] = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    return found


def test_the_engine_knows_its_name_from_pyproject_alone(project: Path, about: dict[str, object]) -> None:
    name = str(about["name"])
    assert distribution().name == name
    assert not [path for path in (project / "grader").rglob("*.py") if name in path.read_text("utf-8")]


def test_the_changelog_begins_with_this_version(project: Path, about: dict[str, object]) -> None:
    versions = re.findall(r"^## \[(.+?)\]", (project / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert versions[0] == about["version"]
    assert len(set(versions)) == len(versions)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/not-tried.md"])
def test_the_files_that_a_page_links_to_are_there(project: Path, page: str) -> None:
    text = (project / page).read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert links
    assert [link for link in links if not (project / page).parent.joinpath(link).exists()] == []


def test_a_lesson_that_did_not_change_is_not_built_for_a_commit(project: Path) -> None:
    done = subprocess.run(
        ["sh", "scripts/changed_lessons.sh", "README.md", "grader/calls.py", "course/README.md"],
        cwd=project,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
