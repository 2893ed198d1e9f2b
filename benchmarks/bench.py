"""The figures that the engine is held to: `make bench`.

Each is a median of several runs on this machine, which is named with them; run it while nothing else does.
"""

import contextlib
import io
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial, wraps
from pathlib import Path
from typing import Any

from grader import check
from grader.authoring.kit.figures import Figure, median, ms, show
from grader.checks.check import find_recording
from grader.lessons.lesson import Lesson, lessons

ROOT = Path(__file__).resolve().parent.parent
TEST_SECONDS = ROOT / "test-output" / "make-test-seconds"
IMPORT_RUNS = 9
MINUTES_OF_17, MINUTES_OF_A_LESSON = 15, 0.5  # what `make test` may take with 17 lessons, and for each further one


def main() -> None:
    """Measure, and print a table; exits with 1 where a target is missed."""
    met = show([*check_cost(lessons(ROOT)), import_cost(), test_time()])
    raise SystemExit(0 if met else 1)


def check_cost(all_lessons: list[Lesson]) -> list[Figure]:
    """What a check of each solution costs beyond the solution's own forward: the median, and the slowest exercise."""
    costs: dict[str, float] = {}
    for lesson in all_lessons:
        solutions = lesson.namespace()
        find_recording(lesson.recording)  # a notebook's first check reads it; later ones find it read
        for exercise in lesson.exercises()[0]:
            measure = partial(engine_seconds, exercise.name, solutions[exercise.solution], lesson.recording)
            costs[exercise.name] = median(measure)
    typical = statistics.median(costs.values())
    slowest = max(costs, key=costs.__getitem__)
    return [
        Figure(f"engine's cost of a check, median of {len(costs)}", ms(typical), "< 50 ms", typical < 0.05),
        Figure(f"... of the slowest, {slowest}", ms(costs[slowest])),
    ]


def engine_seconds(exercise: str, solution: Any, recording: Path) -> float:
    """Seconds that one check takes, less those spent in the solution's own code."""
    with timed(solution) as (learner, target), contextlib.redirect_stdout(io.StringIO()):
        started = time.perf_counter()
        check(exercise, target, recording=recording)
        return time.perf_counter() - started - sum(learner)


@contextlib.contextmanager
def timed(solution: Any) -> Iterator[tuple[list[float], Any]]:
    """Yields a list that the seconds of every call of the solution are added to, and the solution to be called."""
    seconds: list[float] = []
    is_class = isinstance(solution, type)
    if is_class and not hasattr(solution, "forward"):  # a cache: its own share is counted as the check's
        yield seconds, solution
        return
    own = solution.forward if is_class else solution

    @wraps(own)
    def call(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return own(*args, **kwargs)
        finally:
            seconds.append(time.perf_counter() - started)

    if not is_class:
        yield seconds, call
        return
    solution.forward = call
    try:
        yield seconds, solution
    finally:
        solution.forward = own


def import_cost() -> Figure:
    """What importing everything that notebooks use takes in a fresh process that has already imported torch."""
    names = "check, check_generation, compare_layers, load_checkpoint, Config"
    program = f"import time, torch; s = time.perf_counter(); from grader import {names}; print(time.perf_counter() - s)"

    def fresh() -> float:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        return float(done.stdout)

    seconds = median(fresh, IMPORT_RUNS)
    return Figure("import of what notebooks use, after torch", ms(seconds), "< 150 ms", seconds < 0.15)


def test_time() -> Figure:
    """What the last `make test` took on this machine, by its own clock."""
    allowed = MINUTES_OF_17 + MINUTES_OF_A_LESSON * (len(lessons(ROOT)) - 17)
    if not TEST_SECONDS.exists():
        return Figure("last `make test`", "not run yet", f"< {allowed:g} min")
    seconds = int(TEST_SECONDS.read_text())
    return Figure(
        "last `make test`", f"{seconds // 60} min {seconds % 60} s", f"< {allowed:g} min", seconds < allowed * 60
    )


if __name__ == "__main__":
    main()
