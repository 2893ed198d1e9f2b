"""How fast a class is graded, against stock nbgrader and otter-grader on the same machine: part of `make bench`.

All grade the same right submissions of one lesson: this engine in jails on two workers, stored in a gradebook; nbgrader
one kernel after the other, stored as well; otter-grader (where OTTER names its command) by `otter check`, which
executes the notebook in a kernel and runs one test, without a container and without storing anything.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import psutil

from grader.grading.kit import pack_kit
from grader.grading.sandbox.jail import Jail
from grader.lesson import Lesson

ROOT = Path(__file__).resolve().parent.parent
UNTIL = "# Submitted code never runs"  # where nbgrader_config.py begins to replace what nbgrader does
CHILDREN = 30


def main() -> None:
    """Measure, and print a line for each figure."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--lesson", default="01-gpt2")
    options.add_argument("--class-size", type=int, default=40)
    options.add_argument("--stock", type=int, default=3, help="how many submissions stock nbgrader and otter get")
    options.add_argument("--memory", type=int, nargs=2, default=(20, 400), help="class sizes for peak memory")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="grader-bench-") as folder:
        solved = solved_notebook(Lesson(ROOT / "solutions" / chosen.lesson), Path(folder) / "solved.ipynb")
        ours = ours_per_second(Path(folder) / "ours", chosen.lesson, solved, chosen.class_size)
        print(f"this engine, 2 workers: {ours:.2f} submissions per second", flush=True)
        stock = stock_per_second(Path(folder) / "stock", chosen.lesson, solved, chosen.stock)
        print(f"stock nbgrader: {stock:.3f} per second; {ours / stock:.0f} times", flush=True)
        if otter := os.environ.get("OTTER"):
            other = otter_per_second(otter, Path(folder) / "otter", chosen.lesson, solved, chosen.stock)
            print(f"otter-grader: {other:.3f} per second; {ours / other:.0f} times", flush=True)
        print(
            f"a jailed child, start to end: {child_seconds(ROOT / 'course' / chosen.lesson) * 1000:.1f} ms", flush=True
        )
        for size in chosen.memory:
            peak, seconds = peak_memory(Path(folder) / f"m{size}", chosen.lesson, solved, size)
            print(f"{size} submissions: the grader's own peak memory {peak / 1e6:.0f} MB, {seconds:.0f} s", flush=True)


def solved_notebook(lesson: Lesson, path: Path) -> Path:
    """The released notebook with the solutions in it."""
    solutions = {cell.name: cell.source for cell in lesson.cells() if cell.kind == "exercise"}
    notebook = nbformat.read(ROOT / "course" / lesson.name / lesson.notebook.name, as_version=4)
    for cell in notebook.cells:
        if cell.metadata.get("exercise") in solutions:
            cell.source = solutions[cell.metadata["exercise"]]
    nbformat.write(notebook, path)
    return path


def make_class(root: Path, lesson: str, solved: Path, size: int) -> Path:
    """A course with the lesson and a class that has handed it in, no two notebooks the same."""
    root.mkdir()
    shutil.copy(ROOT / "nbgrader_config.py", root)
    for name in ("course", "solutions"):
        shutil.copytree(ROOT / name / lesson, root / name / lesson)
    released = next((root / "course" / lesson).glob("*.ipynb"))
    for i in range(size):
        folder = root / "submitted" / f"s{i:03}" / lesson
        shutil.copytree(root / "course" / lesson, folder)
        notebook = json.loads(solved.read_text())
        notebook["metadata"]["student"] = i
        (folder / released.name).write_text(json.dumps(notebook))
    return root


def command(root: Path, *words: str) -> float:
    """Seconds that a command takes; it must succeed."""
    started = time.perf_counter()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", *words], cwd=root, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return time.perf_counter() - started


def ours_per_second(root: Path, lesson: str, solved: Path, size: int) -> float:
    """Submissions a second over a whole run, its start included."""
    make_class(root, lesson, solved, size)
    return size / command(root, "grader.cli", "autograde", lesson)


def stock_per_second(root: Path, lesson: str, solved: Path, size: int) -> float:
    """As `ours_per_second`, with nbgrader's own autograde."""
    make_class(root, lesson, solved, size)
    config = root / "nbgrader_config.py"
    config.write_text(config.read_text().partition(UNTIL)[0])
    command(root, "nbgrader", "generate_assignment", lesson, "--force")
    return size / command(root, "nbgrader", "autograde", lesson)


def otter_per_second(otter: str, root: Path, lesson: str, solved: Path, size: int) -> float:
    """Otter's time for the same notebooks: run, with one test that reads a variable, in a process each."""
    make_class(root, lesson, solved, size)
    started = time.perf_counter()
    for i in range(size):
        folder = root / "submitted" / f"s{i:03}" / lesson
        (folder / "tests").mkdir()
        (folder / "tests" / "q1.py").write_text(OTTER_TEST)
        notebook = next(folder.glob("*.ipynb")).name
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NBGRADER_EXECUTION": "autograde"}
        done = subprocess.run([otter, "check", notebook], cwd=folder, env=environment, capture_output=True, text=True)
        if "passed" not in done.stdout:
            raise SystemExit(done.stdout + done.stderr)
    return size / (time.perf_counter() - started)


OTTER_TEST = """\
OK_FORMAT = True
test = {"name": "q1", "points": 1, "suites": [{"cases": [{"code": ">>> callable(generate)\\nTrue"}], "scored": True,
        "setup": "", "teardown": "", "type": "doctest"}]}
"""


def child_seconds(released: Path) -> float:
    """The median time from asking for a child to its end, with nothing done in it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        jail = Jail(pack_kit(released, None).unpack_files(Path(folder) / "lesson"))
        jail.start()
        times = []
        for _ in range(CHILDREN):
            started = time.perf_counter()
            with jail.child():
                pass
            times.append(time.perf_counter() - started)
        jail.close()
    return statistics.median(times)


def peak_memory(root: Path, lesson: str, solved: Path, size: int) -> tuple[int, float]:
    """The most resident memory of the grader's process, jails not counted, and the seconds that it took."""
    make_class(root, lesson, solved, size)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    run = subprocess.Popen(
        [sys.executable, "-m", "grader.cli", "autograde", lesson],
        cwd=root, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    peak, process = 0, psutil.Process(run.pid)
    while run.poll() is None:
        try:
            peak = max(peak, process.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.1)
    run.wait()
    shutil.rmtree(root)
    return peak, time.perf_counter() - started


if __name__ == "__main__":
    main()
