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
from collections.abc import Iterable, Iterator
from pathlib import Path

import nbformat
import psutil

from grader.authoring.kit.figures import Figure, ms, show
from grader.grading.running.bundle import pack_bundle
from grader.grading.sandbox.jail import Jail
from grader.lessons.lesson import Lesson, lessons

ROOT = Path(__file__).resolve().parent.parent
UNTIL = "# Submitted code never runs"  # where nbgrader_config.py begins to replace what nbgrader does
CHILDREN = 30
FASTER = 50  # times, than nbgrader and than otter-grader
FLAT = 1.2  # times: what peak memory may grow with the class
LOOP_EXTRA = 1.0  # seconds: to see that the child is lost, and to start another for the exercises after it


def main() -> None:
    """Measure, and print a table; exits with 1 where a target is missed."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--lesson", default="01-gpt2")
    options.add_argument("--class-size", type=int, default=40)
    options.add_argument("--stock", type=int, default=3, help="how many submissions stock nbgrader and otter get")
    options.add_argument("--others", type=int, nargs=2, default=(20, 1), help="class size and stock, of other lessons")
    options.add_argument("--memory", type=int, nargs=2, default=(20, 400), help="class sizes for peak memory")
    options.add_argument("--loop-seconds", type=float, default=5.0, help="the limit of the exercise that never ends")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="grader-bench-") as folder:
        raise SystemExit(0 if show(told(figures(chosen, Path(folder)))) else 1)


def told(figures: Iterable[Figure]) -> Iterator[Figure]:
    """The figures, each printed as soon as it is measured: the table comes when all are, after many minutes."""
    for figure in figures:
        print(f"  {figure.what}: {figure.value}", file=sys.stderr, flush=True)
        yield figure


def figures(chosen: argparse.Namespace, folder: Path) -> Iterator[Figure]:
    """Everything that is measured, below a folder that is thrown away."""
    lesson = Lesson(ROOT / "solutions" / chosen.lesson)
    solved = solved_notebook(lesson, folder / "solved.ipynb")
    yield Figure("a jailed child, from asking for it to its end", ms(child_seconds(ROOT / "course" / lesson.name)))
    yield from throughput(folder, lesson.name, solved, chosen)
    yield from memory(folder, lesson.name, solved, chosen.memory)
    yield loop(folder / "loop", lesson, solved, chosen.loop_seconds)
    yield from other_lessons(folder, lesson.name, *chosen.others)


def throughput(folder: Path, lesson: str, solved: Path, chosen: argparse.Namespace) -> Iterator[Figure]:
    """Submissions a second, here and by others."""
    ours = ours_per_second(folder / "ours", lesson, solved, chosen.class_size)
    yield Figure(f"{lesson}, {chosen.class_size} submissions, 2 workers", f"{ours:.2f} /s")
    stock = stock_per_second(folder / "stock", lesson, solved, chosen.stock)
    yield Figure(f"stock nbgrader, {chosen.stock} of them", f"{stock:.3f} /s")
    yield faster(ours / stock)
    if not (otter := os.environ.get("OTTER")):
        yield Figure("otter-grader", "not here")
        return
    other = otter_per_second(otter, folder / "otter", lesson, solved, chosen.stock)
    yield Figure(f"otter-grader, {chosen.stock} of them, no container", f"{other:.3f} /s")
    yield faster(ours / other)


def faster(times: float) -> Figure:
    """By how much this engine is faster than the grader of the line before."""
    return Figure("... this engine is faster by", f"{times:.0f} times", f">= {FASTER}", times >= FASTER)


def other_lessons(folder: Path, measured: str, size: int, stock: int) -> Iterator[Figure]:
    """What every other lesson's grading takes, beside stock nbgrader: shown, and held to nothing."""
    for lesson in lessons(ROOT):
        if lesson.name == measured or not size:
            continue
        place = folder / lesson.name
        place.mkdir()
        solved = solved_notebook(lesson, place / "solved.ipynb")
        ours = ours_per_second(place / "ours", lesson.name, solved, size)
        theirs = stock_per_second(place / "stock", lesson.name, solved, stock)
        yield Figure(f"{lesson.name}, {size} submissions", f"{ours:.2f} /s")
        yield Figure(f"... and faster than stock nbgrader ({stock} of them) by", f"{ours / theirs:.0f} times")


def memory(folder: Path, lesson: str, solved: Path, sizes: tuple[int, int]) -> Iterator[Figure]:
    """The grader's own peak memory for a small class and a large one."""
    small, large = (peak_memory(folder / f"m{size}", lesson, solved, size) for size in sizes)
    yield Figure(f"the grader's own peak memory at {sizes[0]} submissions", f"{small / 1e6:.0f} MB")
    yield Figure(f"... at {sizes[1]}", f"{large / 1e6:.0f} MB", f"< {FLAT:g} times that", large < FLAT * small)


def loop(root: Path, lesson: Lesson, solved: Path, limit: float) -> Figure:
    """What a submission costs more than a right one because its first exercise never ends.

    Two runs, so that neither waits for the other: the second is charged the limit, and another child for the rest.
    """
    notebook = nbformat.read(solved, as_version=4)
    first = next(cell for cell in notebook.cells if "exercise" in cell.metadata)
    first.source = "while True:\n    pass"
    endless = root.with_suffix(".ipynb")
    nbformat.write(notebook, endless)
    seconds = []
    for i, one in enumerate((solved, endless)):
        place = root.with_name(f"{root.name}{i}")
        make_class(place, lesson.name, one, 1)
        command(place, "grader.cli", "autograde", lesson.name, "--exercise-seconds", f"{limit:g}")
        journal = (place / "journal" / f"{lesson.name}.jsonl").read_text().splitlines()
        results = [json.loads(line)["result"] for line in journal if '"entry":"graded"' in line]
        seconds.append(results[0]["seconds"])
    cost = seconds[1] - seconds[0]
    return Figure(
        f"an exercise that never ends, limit {limit:g} s, costs",
        f"{cost:.1f} s",
        f"< {limit + LOOP_EXTRA:g} s",
        limit - LOOP_EXTRA < cost < limit + LOOP_EXTRA,
    )


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
    print(f"{root.name}: {' '.join(words)} ...", file=sys.stderr, flush=True)  # all of it takes minutes
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
        jail = Jail(pack_bundle(released, None).unpack_files(Path(folder) / "lesson"))
        jail.start()
        times = []
        for _ in range(CHILDREN):
            started = time.perf_counter()
            with jail.child():
                pass
            times.append(time.perf_counter() - started)
        jail.close()
    return statistics.median(times)


def peak_memory(root: Path, lesson: str, solved: Path, size: int) -> int:
    """The most resident memory of the grader's process in bytes, jails not counted."""
    make_class(root, lesson, solved, size)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(
        [sys.executable, "-m", "grader.cli", "autograde", lesson],
        cwd=root, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    print(f"{root.name}: memory at {size} submissions ...", file=sys.stderr, flush=True)
    peak, process = 0, psutil.Process(run.pid)
    while run.poll() is None:
        try:
            peak = max(peak, process.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.1)
    if run.wait():
        raise SystemExit(f"grading {size} submissions for the memory figure failed")
    shutil.rmtree(root)
    return peak


if __name__ == "__main__":
    main()
