"""What the project says of itself stands in one place, and is so."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

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


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/not-tried.md",
        "docs/files.md",
        "docs/grading.md",
        "docs/learning.md",
    ],
)
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


def test_the_pages_that_are_made_of_docstrings_are_current(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "scripts/pages.py", "--check"], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_module_says_in_a_line_what_it_is_for(project: Path) -> None:
    page = (project / "docs" / "files.md").read_text("utf-8")
    listed = dict(re.findall(r"^ *- \[.+?\]\(\.\./(.+?)\): (.*)$", page, re.MULTILINE))
    modules = [path for path in (project / "grader").rglob("*.py") if path.name != "__init__.py"]
    assert [path for path in modules if not listed.get(path.relative_to(project).as_posix())] == []


def asked(project: Path, *files: str) -> list[str]:
    """The tests that `make quick` runs for a change of these files."""
    command = [sys.executable, "scripts/changed.py", *files]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=True).stdout.splitlines()


def test_a_change_of_a_room_asks_for_its_tests_and_for_those_that_import_it(project: Path) -> None:
    found = asked(project, "grader/kv/sizes.py", "grader/steps.py")
    assert found[:2] == ["tests/kv", "tests/project"]
    assert "tests/layers/test_steps.py" in found


def test_a_change_of_a_lesson_asks_for_that_lesson(project: Path) -> None:
    found = asked(project, "solutions/01-gpt2/others.py", "course/01-gpt2/gpt2.ipynb")
    assert found == ["tests/project", "--lesson 01-gpt2"]


def test_a_test_that_changed_is_run(project: Path) -> None:
    assert asked(project, "tests/kv/test_kv.py") == ["tests/kv/test_kv.py", "tests/project"]
    assert "tests/cli/test_cli.py" in asked(project, "tests/support/toy_course.py")


def test_a_hook_passes_where_the_environment_is_not_made_yet(project: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((project / ".pre-commit-config.yaml").read_text("utf-8"))
    hooks = {hook["id"]: hook for repo in config["repos"] for hook in repo["hooks"]}
    assert not [hook for hook in hooks.values() if ".venv" in hook["entry"]]
    constraints = (project / "constraints.txt").read_text("utf-8").splitlines()
    assert {each for hook in hooks.values() for each in hook.get("additional_dependencies", [])} <= set(constraints)
    (tmp_path / "scripts").mkdir()
    shutil.copy(project / "scripts" / "installed.sh", tmp_path / "scripts")
    for name in ("mypy", "build"):
        done = subprocess.run(hooks[name]["entry"].split(), cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and "make .venv/test.stamp" in done.stdout
