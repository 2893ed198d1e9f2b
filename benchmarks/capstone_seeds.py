"""Whether capstones can be solved from their config and README alone.

    python benchmarks/capstone_seeds.py FROM COUNT [LEVEL]

The solver of the tests, put together from the lessons' solutions, is compared with the trace of each seed, on one
level, or else on level 1, 2 or 3 in turn. Failures are printed; it exits with 1 if there is one.
"""

import sys
import time
from collections import Counter
from importlib import import_module
from pathlib import Path

import torch

from grader.capstone.checking import check_program
from grader.capstone.drawing import LEVELS
from grader.capstone.making import make
from grader.errors import GraderError

SUPPORT = Path(__file__).resolve().parents[1] / "tests" / "support"


def main() -> None:
    first, count = int(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    sys.path.insert(0, str(SUPPORT))
    program = import_module("capstone_solver").Model
    failed, bases, started = 0, Counter[str](), time.time()
    for seed in range(first, first + count):
        level = int(sys.argv[3]) if len(sys.argv) > 3 else LEVELS[seed % len(LEVELS)]
        capstone = make(seed, level)
        bases[f"{level} {capstone.drawn.base}".strip()] += 1
        try:
            found = check_program(program, capstone.trace)
            said = "" if found.ok else f"{found.points} points, {found.report.culprit}, {found.failings}"
        except GraderError as error:
            said = str(error)
        if said:
            failed += 1
            print(f"seed {seed}, level {level}: {said}\n  {capstone.drawn.config}", flush=True)
        if (seed - first) % 25 == 24:
            print(f"{seed - first + 1} seeds, {failed} failed, {time.time() - started:.0f} s", flush=True)
    print(f"{count} seeds from {first}, {failed} failed, {time.time() - started:.0f} s; {dict(sorted(bases.items()))}")
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
