"""A lesson's models on trained weights against transformers on the same: speed, loading, memory (`make bench`).

A lesson's benchmark.py says which it has, and calls `main`.
Each model runs in a process of its own, on one thread: two that wait for each other measure how busy the machine is.
"""

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from grader.authoring.kit.figures import Figure, elapsed, median, show, side_by_side
from grader.checkpoints import load_checkpoint
from grader.lessons.lesson import Lesson


@dataclass(frozen=True)
class Measured:
    """A checkpoint, and the class of the lesson at `folder` that it is loaded into."""

    folder: Path
    checkpoint: str
    model: str
    prompt: str
    new_tokens: int
    runs: int


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
LOAD_TARGET = 3.0  # seconds, from the cache


def main(models: Sequence[Measured]) -> None:
    """Measure every model that is on this machine in a process of its own, and print a table.

    That process runs the same program again, with the checkpoint and the dtype for arguments.
    """
    if len(sys.argv) == 3:
        measured = next(m for m in models if m.checkpoint == sys.argv[1])
        print(json.dumps([vars(figure) for figure in figures(measured, DTYPES[sys.argv[2]])]))
        return
    found = []
    for measured in models:
        if load_checkpoint(measured.checkpoint, optional=True) is None:
            continue
        for dtype in DTYPES:
            command = [sys.executable, sys.argv[0], measured.checkpoint, dtype]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr)
            found += [Figure(**fields) for fields in json.loads(done.stdout.splitlines()[-1])]
    raise SystemExit(0 if show(found) else 1)


def figures(measured: Measured, dtype: torch.dtype) -> list[Figure]:
    """What one model costs in one dtype. Raises SystemExit where the solution writes another text in float32."""
    torch.set_num_threads(1)
    solution = Lesson(measured.folder).namespace()
    checkpoint = load_checkpoint(measured.checkpoint)
    name = f"{measured.checkpoint}, {str(dtype).removeprefix('torch.')}"
    before = psutil.Process().memory_info().rss
    model = loaded(measured, solution)
    model.to(dtype)
    prompt = torch.tensor([checkpoint.tokenizer.encode(measured.prompt).ids])
    with torch.no_grad():
        model(prompt)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    rows = speed(name, measured, dtype, solution["generate"], model, checkpoint, prompt)
    if dtype == torch.float32:  # in the other dtype it is loaded as float32 first
        load = median(lambda: elapsed(lambda: loaded(measured, solution)), 3)
        ratio = peak / sum(p.numel() * p.element_size() for p in model.parameters())
        rows += [
            Figure(f"{name}: loading from the cache", f"{load:.2f} s", f"< {LOAD_TARGET:g} s", load < LOAD_TARGET),
            Figure(f"{name}: peak memory of loading and a forward, over its parameters' bytes", f"{ratio:.2f}"),
        ]
    return rows


def loaded(measured: Measured, solution: dict[str, Any]) -> torch.nn.Module:
    """The lesson's model with the checkpoint's weights."""
    model: torch.nn.Module = load_checkpoint(measured.checkpoint).build(solution[measured.model])
    return model


def speed(
    name: str,
    measured: Measured,
    dtype: torch.dtype,
    generate: Callable[..., Any],
    model: torch.nn.Module,
    checkpoint: Any,
    prompt: torch.Tensor,
) -> list[Figure]:
    """Greedy decoding of the same tokens: the solution, and transformers without and with its cache."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    reference: Any = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=dtype)
    reference.eval()
    count = measured.new_tokens

    def with_solution() -> list[int]:
        return [int(token) for token in generate(model, prompt, count)]

    def with_transformers(use_cache: bool) -> list[int]:
        ids = reference.generate(
            prompt, max_new_tokens=count, min_new_tokens=count, do_sample=False, use_cache=use_cache
        )
        return [int(token) for token in ids[0, prompt.shape[1] :]]

    ways: dict[str, Callable[[], list[int]]] = {
        "ours": with_solution,
        "uncached": partial(with_transformers, use_cache=False),
        "cached": partial(with_transformers, use_cache=True),
    }
    with torch.no_grad():
        if dtype == torch.float32 and with_solution() != with_transformers(use_cache=False):
            raise SystemExit(f"{name}: the solution and transformers wrote different tokens: nothing to compare")
        seconds = side_by_side(ways, measured.runs)
    return [
        Figure(f"{name}: decoding with the solution (no cache)", f"{count / seconds['ours']:.1f} tokens/s"),
        Figure(f"{name}: its time over transformers' without a cache", f"{seconds['ours'] / seconds['uncached']:.2f}"),
        Figure(f"{name}: its time over transformers' with its cache", f"{seconds['ours'] / seconds['cached']:.2f}"),
    ]
