"""The engine's rooms: who imports whom, and what a verdict depends on."""

import subprocess
import sys
from pathlib import Path

import grimp
import pytest

from grader.grading.running.engine_version import MODULES, engine_version

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "grader"


def test_rooms_import_only_downwards_and_in_no_circle() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_engine_version_covers_what_can_change_a_verdict_and_nothing_else() -> None:
    graph = grimp.build_graph(PACKAGE, exclude_type_checking_imports=True, cache_dir=None)
    for imported in graph.find_modules_directly_imported_by(PACKAGE):  # on first use, of what a notebook names
        graph.remove_import(importer=PACKAGE, imported=imported)
    needed: set[str] = set()
    for module in ("grader.grading.running.run", "grader.grading.sandbox.zygote"):
        needed |= {module, *graph.find_upstream_modules(module)}
    packages = {module for module in needed if graph.find_children(module)}  # a docstring each
    assert {f"{PACKAGE}/{module}".replace("/", ".") for module in MODULES} == needed - packages


@pytest.mark.parametrize("module", MODULES)
def test_every_module_that_the_engine_version_covers_is_there(module: str) -> None:
    assert (ROOT / PACKAGE / f"{module}.py").is_file()


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
