"""Clocks: how long a call takes, when other programs run on the machine too.

The environment variable GRADER_CLOCK_REPEATS bounds how often a call is repeated; at 0 its first call is what counts.
`make test` sets it to that: it runs every cell of every lesson again, and nobody reads the times it gets.
"""

import os
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch


def milliseconds(run: Callable[[], Any], repeats: int = 5) -> float:
    """The median time of `run()`, in milliseconds, of `repeats` calls without gradients.

    One call before them is not counted: the first one also allocates memory and loads kernels. The median leaves out
    what a busy moment of the machine adds. Raises ValueError where repeats is below 1.
    """
    return in_turns({"": run}, repeats)[""]


def once(run: Callable[[], Any]) -> float:
    """The time of one call, in milliseconds, with all that a first call loads or builds."""
    return 1000 * _seconds(run)


def in_turns(runs: Mapping[Any, Callable[[], Any]], repeats: int = 5) -> dict[Any, float]:
    """The median time of each call, in milliseconds, by its key in `runs`.

    The calls take turns, so that a busy moment of the machine falls on all of them and their ratios stay right.
    Each is called once more at the start, without a clock. Raises ValueError where repeats is below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}: a median needs at least one call.")
    repeats = min(repeats, int(os.environ.get("GRADER_CLOCK_REPEATS", repeats)))
    times: dict[Any, list[float]] = {key: [] for key in runs}
    with torch.no_grad():
        for key, run in runs.items():
            if repeats:
                run()
            else:
                times[key].append(_seconds(run))
        for _ in range(repeats):
            for key, run in runs.items():
                times[key].append(_seconds(run))
    return {key: 1000 * median(own) for key, own in times.items()}


def _seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    _wait_for_devices()
    return time.perf_counter() - began


def _wait_for_devices() -> None:
    """Calls on an accelerator return before their work is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    elif torch.backends.mps.is_available():
        torch.mps.synchronize()
