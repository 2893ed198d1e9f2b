"""The figures that the engine is held to: `make bench`.

Each is a median of several runs on this machine, which is named with them; run it while nothing else does.
"""

import contextlib
import io
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from grader import check, load_checkpoint
from grader.checking import find_recording
from grader.lesson import Lesson, lessons

ROOT = Path(__file__).resolve().parent.parent
GPT2 = ROOT / "solutions" / "01-gpt2"
CHECKPOINT = "austen-gpt2"
TEST_SECONDS = ROOT / "test-output" / "make-test-seconds"
PROMPT, NEW_TOKENS = "It is a truth universally acknowledged", 64
CHECK_RUNS, IMPORT_RUNS, DECODE_RUNS = 7, 9, 5


@dataclass(frozen=True)
class Figure:
    """One line of the table. `target` is empty where there is none."""

    what: str
    value: str
    target: str = ""
    met: bool = True


def main() -> None:
    """Measure, and print a table; exits with 1 where a target is missed."""
    figures = [*check_cost(lessons(ROOT)), import_cost(), *decoding(), test_time()]
    table = Table(title=machine(), title_justify="left")
    for heading in ("figure", "measured", "target"):
        table.add_column(heading, justify="left" if heading == "figure" else "right")
    for figure in figures:
        table.add_row(figure.what, figure.value, figure.target, style="" if figure.met else "bold red")
    Console().print(table)
    raise SystemExit(0 if all(figure.met for figure in figures) else 1)


def machine() -> str:
    """What the figures were measured on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    python = platform.python_version()
    return f"{processor}, {os.cpu_count()} cores, {platform.system()}, Python {python}, torch {torch.__version__}"


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


def decoding() -> list[Figure]:
    """Greedy decoding of the same tokens from the same weights on one thread: the solution against transformers."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(1)  # two that wait for each other measure how busy the machine is
    checkpoint = load_checkpoint(CHECKPOINT)
    solution = Lesson(GPT2).namespace()
    model = solution["GPT2"](checkpoint.config).eval()
    checkpoint.load_into(model)
    reference: Any = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=torch.float32)
    reference.eval()
    prompt = torch.tensor([checkpoint.tokenizer.encode(PROMPT).ids])

    def with_solution() -> list[int]:
        return [int(token) for token in solution["generate"](model, prompt, NEW_TOKENS)]

    def with_transformers(use_cache: bool) -> list[int]:
        ids = reference.generate(
            prompt, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False, use_cache=use_cache
        )
        return [int(token) for token in ids[0, prompt.shape[1] :]]

    with torch.no_grad():
        ways: dict[str, Callable[[], list[int]]] = {
            "ours": with_solution,
            "uncached": partial(with_transformers, use_cache=False),
            "cached": partial(with_transformers, use_cache=True),
        }
        texts = {name: way() for name, way in ways.items()}
        if any(text != texts["ours"] for text in texts.values()):
            raise SystemExit("the solution and transformers wrote different tokens: nothing to compare the speed of")
        rounds = [{name: elapsed(way) for name, way in ways.items()} for _ in range(DECODE_RUNS)]
    seconds = {name: statistics.median(times[name] for times in rounds) for name in ways}
    ours, uncached, cached = seconds["ours"], seconds["uncached"], seconds["cached"]
    return [
        Figure(f"decoding {CHECKPOINT} with the solution (no cache)", f"{NEW_TOKENS / ours:.0f} tokens/s"),
        Figure("its time over transformers' without a cache", f"{ours / uncached:.2f}"),
        Figure("its time over transformers' with its cache", f"{ours / cached:.2f}"),
    ]


def test_time() -> Figure:
    """What the last `make test` took on this machine, by its own clock."""
    if not TEST_SECONDS.exists():
        return Figure("last `make test`", "not run yet", "< 15 min")
    seconds = int(TEST_SECONDS.read_text())
    return Figure("last `make test`", f"{seconds // 60} min {seconds % 60} s", "< 15 min", seconds < 15 * 60)


def median(measure: Callable[[], float], runs: int = CHECK_RUNS) -> float:
    """The median of several measurements, after one that is not counted."""
    measure()
    return statistics.median(measure() for _ in range(runs))


def elapsed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def ms(seconds: float) -> str:
    """Seconds as milliseconds, for the table."""
    return f"{1000 * seconds:.1f} ms"


if __name__ == "__main__":
    main()
