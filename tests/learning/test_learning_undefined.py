"""A cell that is run before those that it needs says which these are."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from learners_course import code, lesson_cells, write_lesson

from grader.learning.server import LearnersKernels
from grader.learning.undefined import defined, origin

SETUP = code("setup", "import math\nfrom grader import check", tags=["setup"])
GIVEN = code("given", "def helper(x):\n    y = x\n    return y")
EXERCISE = code("toy-norm", "class norm:\n    size = 3", exercise="toy.norm")
CHECK = code("check", 'check("toy.norm", norm)', check="toy.norm")
CELLS = [SETUP, GIVEN, EXERCISE, CHECK]


@pytest.mark.parametrize(
    ("name", "which"),
    [
        ("check", "the lesson's first code cell"),
        ("helper", "the cell that begins with `def helper(x):`"),
        ("norm", "the cell of exercise `toy.norm`"),
    ],
)
def test_a_missing_name_is_traced_to_the_cell_that_defines_it(name: str, which: str) -> None:
    assert f"`{name}` comes from {which}, which has not run" in origin(name, CELLS, [], CHECK.source)


@pytest.mark.parametrize("name", ["nrom", "y", "size"])
def test_of_a_name_that_no_cell_above_defines_nothing_is_said(name: str) -> None:
    assert origin(name, CELLS, [], CHECK.source) == ""


def test_of_a_cell_that_ran_nothing_is_said() -> None:
    assert origin("norm", CELLS, [f"{EXERCISE.source}\n"], CHECK.source) == ""


def test_cells_below_do_not_count_and_of_those_above_the_last_does() -> None:
    first, last = code("a", "x = 1", exercise="first"), code("b", "x = 2", exercise="last")
    use, below = code("c", "print(x)"), code("d", "x = 3", exercise="below")
    assert "`last`" in origin("x", [SETUP, first, last, use, below], [], use.source)
    assert origin("x", [SETUP, use, below], [], use.source) == ""


def test_the_names_that_a_cell_defines() -> None:
    assert defined("import a.b, c as d\nfrom e import f as g\nh, (i, *j) = 1\nk: int = 2") == set("adghijk")
    assert defined("for m in n:\n    with o() as p:\n        q = [r for r in m]") == set("mpq")
    assert defined("def s():\n    t = 1\nclass u:\n    v = 2\nw = lambda: (x := 1)") == set("suw")
    assert defined("%matplotlib inline") == set()


async def told(folder: Path, *cells: str) -> list[str]:
    """What a kernel of a learner's says of errors in these cells, of which the last is run after a restart."""
    kernels = LearnersKernels(root_dir=str(folder), connection_dir=str(folder))
    environment = {**os.environ, "JPY_SESSION_NAME": str(folder / "00-toy/toy.ipynb")}
    kernel_id = await kernels.start_kernel(path="00-toy", kernel_name="python3", env=environment)
    said: list[str] = []
    try:
        for place, cell in enumerate(cells, 1):
            if place == len(cells):
                await kernels.restart_kernel(kernel_id)
            said.append(await _run(kernels.get_kernel(kernel_id).client(), cell))
    finally:
        await kernels.shutdown_kernel(kernel_id, now=True)
    return said


async def _run(client: Any, cell: str) -> str:
    shown: list[str] = []
    client.start_channels()
    await client.wait_for_ready(timeout=300)
    await client.execute_interactive(
        cell, output_hook=lambda message: shown.extend(message["content"].get("traceback", [])), timeout=300
    )
    client.stop_channels()
    return "\n".join(shown)


@pytest.mark.slow
def test_a_kernel_that_a_learner_starts_says_it_and_other_errors_are_as_ever(tmp_path: Path) -> None:
    write_lesson(tmp_path, "00-toy/toy.ipynb", lesson_cells("00", "toy", {"norm": 10}))
    check = 'check("toy.norm", norm)'
    with_check = "check = print\n" + check
    first, known, other, again = asyncio.run(told(tmp_path, check, with_check, "1 / 0", with_check))
    assert "name 'check' is not defined" in first and "comes from" not in first, "nothing in that lesson defines it"
    assert "`norm` comes from the cell of exercise `toy.norm`" in known and "`norm` comes from" in again
    assert "ZeroDivisionError" in other and "comes from" not in other
