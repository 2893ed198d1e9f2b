"""The engine's rooms: who imports whom, and what a verdict depends on."""

import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

from grader.grading.running.engine_version import DECIDING, digest_of_code, engine_version

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "grader"


def test_rooms_import_only_downwards_and_in_no_circle() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_engine_version_covers_all_that_can_change_a_verdict() -> None:
    graph = grimp.build_graph(PACKAGE, exclude_type_checking_imports=True, cache_dir=None)
    for imported in graph.find_modules_directly_imported_by(PACKAGE):  # on first use, of what a notebook names
        graph.remove_import(importer=PACKAGE, imported=imported)
    needed: set[str] = set()
    for module in ("grader.grading.running.run", "grader.grading.sandbox.zygote"):
        needed |= {module, *graph.find_upstream_modules(module)}
    covered = {path for pattern in DECIDING for path in (ROOT / PACKAGE).glob(pattern)}
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in covered}
    packages = {module for module in needed if graph.find_children(module)}  # a docstring each
    assert needed - packages <= modules


@pytest.mark.parametrize("changed", ["tolerance.py", "checks/judge/judging.py", "grading/sandbox/wire.py"])
def test_a_change_in_what_decides_changes_the_engine_version(changed: str, tmp_path: Path) -> None:
    package = copied_package(tmp_path)
    before = digest_of_code(package)
    with (package / changed).open("a", encoding="utf-8") as file:
        file.write("# another word\n")
    assert digest_of_code(package) != before


def test_a_change_in_what_decides_nothing_leaves_the_engine_version(tmp_path: Path) -> None:
    package = copied_package(tmp_path)
    before = digest_of_code(package)
    (package / "kv" / "panel.py").unlink()
    assert digest_of_code(package) == before == digest_of_code(ROOT / PACKAGE)


def copied_package(folder: Path) -> Path:
    return shutil.copytree(ROOT / PACKAGE, folder / PACKAGE, ignore=shutil.ignore_patterns("__pycache__", "course"))


def test_a_warm_process_and_so_its_children_hold_nothing_that_judges() -> None:
    program = "import sys; from grader.grading.sandbox import zygote; zygote._warm_up([]); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert {"grader.checks.probe.cases", "grader.grading.sandbox.child"} <= imported
    answers = {"grader.recordings.answers", "grader.recordings.recording", "grader.checks.examine"}
    assert not {name for name in imported if name.startswith("grader.checks.judge")} | (imported & answers)


def test_the_engine_version_is_the_same_twice() -> None:
    again = "from grader.grading.running.engine_version import engine_version; print(engine_version())"
    done = subprocess.run([sys.executable, "-c", again], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == engine_version()


def test_what_notebooks_import_does_not_wait_for_what_few_use() -> None:
    program = "import sys, grader; [getattr(grader, name) for name in grader.__all__]; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert "grader.checks.check" in imported
    assert not imported & {"nbformat", "transformers", "torch._dynamo", "grader.layers.debugger"}
