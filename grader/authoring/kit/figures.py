"""What a figure is, how it is measured, and the table it is printed in."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

RUNS = 7


@dataclass(frozen=True)
class Figure:
    """One line of the table. `target` is empty where there is none."""

    what: str
    value: str
    target: str = ""
    met: bool = True


def show(figures: Iterable[Figure], title: str = "") -> bool:
    """Print the figures, and say whether every target is met."""
    figures = list(figures)
    table = Table(title=title or machine(), title_justify="left")
    for heading in ("figure", "measured", "target"):
        table.add_column(heading, justify="left" if heading == "figure" else "right")
    for figure in figures:
        table.add_row(figure.what, figure.value, figure.target, style="" if figure.met else "bold red")
    Console(width=None if Console().is_terminal else 120).print(table)
    return all(figure.met for figure in figures)


def machine() -> str:
    """What the figures were measured on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    python = platform.python_version()
    return f"{processor}, {os.cpu_count()} cores, {platform.system()}, Python {python}, torch {torch.__version__}"


def median(measure: Callable[[], float], runs: int = RUNS) -> float:
    """The median of several measurements, after one that is not counted."""
    measure()
    return statistics.median(measure() for _ in range(runs))


def side_by_side(ways: Mapping[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """The median seconds of each way; all are run in turn, so that a busy moment hits them alike."""
    for way in ways.values():
        way()
    rounds = [{name: elapsed(way) for name, way in ways.items()} for _ in range(runs)]
    return {name: statistics.median(times[name] for times in rounds) for name in ways}


def elapsed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def ms(seconds: float) -> str:
    """Seconds as milliseconds, for the table."""
    return f"{1000 * seconds:.1f} ms"
