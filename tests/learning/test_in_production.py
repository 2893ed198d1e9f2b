"""The map from the course's modules to production code: `grader where`, its page, and how its rows are verified."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import transformers
from typer.testing import CliRunner

from grader.cli import app
from grader.errors import GraderError
from grader.learning.in_production import (
    DATA,
    LEVELS,
    PAGE,
    Place,
    Repository,
    modules,
    page,
    repositories,
    terminal_lines,
    where,
)
from grader.lessons.lesson import lessons

ROOT = Path(__file__).resolve().parents[2]
COMMIT, TAG = re.compile("[0-9a-f]{9,40}"), re.compile(r"v\d+(\.\d+)+")
CHECK = re.compile(r'^check\("([\w.]+)"', re.MULTILINE)
EXERCISES = {name for module in modules() for name in module.exercises}


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("production_map", ROOT / "scripts" / "production_map.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def built() -> dict[str, list[str]]:
    """The exercises of every lesson that is here, as its notebook checks them."""
    return {lesson.name: CHECK.findall(lesson.twin.read_text(encoding="utf-8")) for lesson in lessons(ROOT)}


def test_the_page_is_what_the_data_says() -> None:
    assert (ROOT / "course" / PAGE).read_text(encoding="utf-8") == page(ROOT / "course")


def test_every_revision_is_one_that_does_not_move() -> None:
    for repository in repositories().values():
        assert COMMIT.fullmatch(repository.at) or TAG.fullmatch(repository.at), repository
        assert repository.level in LEVELS


def test_the_repositories_of_the_talk_are_there() -> None:
    assert [known.level for known in repositories().values()] == sorted(
        (known.level for known in repositories().values()), key=LEVELS.index
    )
    assert {"transformers", "torchtitan", "trl", "olmo-core", "open-instruct", "nanotron", "prime-rl"} < set(
        repositories()
    )


def test_every_row_names_a_repository_a_line_and_what_differs() -> None:
    for module in modules():
        assert module.places
        for place in module.places:
            assert place.repository in repositories() and place.line > 0 and place.differs, (module.name, place)
            assert "|" not in place.differs + place.name


def test_an_exercise_of_the_map_is_one_of_its_lesson() -> None:
    for exercises in built().values():
        stem = exercises[0].partition(".")[0]
        assert {name for name in EXERCISES if name.partition(".")[0] == stem} <= set(exercises)


def test_a_lesson_that_is_in_the_map_is_in_it_with_every_exercise() -> None:
    """But for the lessons after linear attention, of which the map has what production code has too."""
    for lesson, exercises in built().items():
        if lesson < "11":
            assert set(exercises) <= EXERCISES, lesson


def test_no_exercise_stands_in_two_modules() -> None:
    named = [name for module in modules() for name in module.exercises]
    assert len(named) == len(set(named))


@pytest.mark.parametrize("name", ["qwen3.rope", "RoPE", "rope"])
def test_a_module_is_found_by_its_exercise_and_by_its_name(name: str) -> None:
    assert [module.name for module in where(name)] == ["RoPE"]


@pytest.mark.parametrize("name", ["07-moe", "moe"])
def test_a_lesson_names_all_of_its_modules(name: str) -> None:
    assert [module.name for module in where(name)] == ["Counting parameters and work", "Routers", "Experts"]


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(GraderError, match=r"Did you mean `qwen3[.]attention`"):
        where("qwen3.atention")


def test_the_command_prints_file_difference_and_a_pinned_link() -> None:
    said = CliRunner().invoke(app, ["where", "qwen3.attention"]).output
    assert said.rstrip("\n").splitlines() == terminal_lines(where("qwen3.attention"))
    assert "vllm: Qwen3Attention" in said and "https://github.com/vllm-project/vllm/blob/4ba787ec9/" in said


def test_the_rows_of_transformers_are_as_the_installed_one_has_them(tmp_path: Path) -> None:
    repository = repositories()["transformers"]
    if repository.at != f"v{transformers.__version__}":
        pytest.skip(f"the map was made with transformers {repository.at}")
    tree = tmp_path / f"huggingface+transformers@{repository.at}" / "src"
    tree.mkdir(parents=True)
    (tree / "transformers").symlink_to(Path(transformers.__file__).parent)
    places = [place for module in modules() for place in module.places if place.repository == "transformers"]
    assert len(places) > 30
    assert [said for place in places if (said := script().wrong(place, repository, [tmp_path])[0])] == []


SOURCE = "class Norm:\n    def forward(self):\n        pass\n\n\ndef helper():\n    pass\n"


@pytest.fixture
def mirror(tmp_path: Path) -> tuple[Repository, Path]:
    """A repository as a git directory without a work tree, and its revision."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "norm.py").write_text(SOURCE)
    (work / "norm.cpp").write_text("// norm(\nstruct cache {\n};\n\nint graph::norm(int x) {\n    other(x);\n}\n")
    (work / "norm.rs").write_text(
        "pub struct Norm {\n}\n\nimpl Norm {\n    pub fn new() -> Self {\n        other()\n    }\n}\n"
    )
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *words], cwd=work, check=True)
    at = subprocess.run(["git", "rev-parse", "HEAD"], cwd=work, check=True, capture_output=True, text=True)
    mirrors = tmp_path / "mirrors"
    mirrors.mkdir()
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(mirrors / "jane+norms")], check=True)
    return Repository("norms", "jane/norms", at.stdout.strip(), "today", "pro", "norms", ()), mirrors


def row(file: str, name: str, line: int) -> Place:
    return Place("norms", file, name, line, "nothing")


@pytest.mark.parametrize(
    ("file", "name", "line"),
    [
        ("norm.py", "Norm", 1),
        ("norm.py", "Norm.forward", 2),
        ("norm.cpp", "graph::norm", 5),
        ("norm.cpp", "cache", 2),
        ("norm.rs", "Norm", 1),
        ("norm.rs", "Norm::new", 5),
    ],
)
def test_a_right_row_is_verified(mirror: tuple[Repository, Path], file: str, name: str, line: int) -> None:
    repository, mirrors = mirror
    assert script().wrong(row(file, name, line), repository, [mirrors]) == ("", line)


@pytest.mark.parametrize(
    ("file", "name", "line", "said"),
    [
        ("norms.py", "Norm", 1, "no norms.py at"),
        ("norm.py", "RMSNorm", 1, "norm.py defines no RMSNorm"),
        ("norm.py", "helper", 1, "helper is in line 6, not 1"),
        ("norm.cpp", "other", 6, "norm.cpp defines no other"),
        ("norm.rs", "Norm::other", 6, "norm.rs defines no Norm::other"),
    ],
)
def test_a_wrong_row_is_named(mirror: tuple[Repository, Path], file: str, name: str, line: int, said: str) -> None:
    repository, mirrors = mirror
    assert said in script().wrong(row(file, name, line), repository, [mirrors])[0]


def test_a_repository_that_no_mirror_has_is_not_taken_for_verified(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "production_map.py", tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 1 and "0 of" in done.stdout


def test_the_data_names_each_row_on_a_line_of_its_own() -> None:
    rows = [line for line in DATA.read_text(encoding="utf-8").splitlines() if line.startswith("    { in = ")]
    assert len(rows) == sum(len(module.places) for module in modules())
