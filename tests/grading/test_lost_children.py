"""Who is to blame where a child is lost in a cell of the lesson's: the lesson, or whoever killed it."""

import time
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest

from grader.errors import GraderError
from grader.grading.running.children import TRIES, Children, KilledAgain, Program, _KilledFromOutside
from grader.grading.running.submission import ProgramCell
from grader.grading.sandbox.frames import FrameEnd
from grader.grading.sandbox.jail import Ended

SETUP = ProgramCell("", "setup cell", "import torch")
LIMITS = SimpleNamespace(cpu_seconds=60, exercise_seconds=5, children=20, memory_mb=1000)


class Gone:
    """A child that has ended before it answers."""

    def __init__(self, ended: Ended) -> None:
        self._ended = ended

    def ask(self, *command: Any) -> NoReturn:
        raise FrameEnd

    def finish(self) -> Ended:
        return self._ended


def run(children: Children, ended: Ended) -> None:
    child = cast(Any, Gone(ended))
    children.run(child, SETUP, Program([SETUP], 1, {}), time.monotonic() + 5)


@pytest.fixture
def children() -> Children:
    return Children(cast(Any, SimpleNamespace(limits=LIMITS)), time.monotonic() + 60)


def test_a_child_that_is_killed_from_outside_again_and_again_is_not_the_lessons_fault(children: Children) -> None:
    for _ in range(TRIES - 1):
        with pytest.raises(_KilledFromOutside):  # it is started once more
            run(children, Ended(signal=9, code=0, cpu=0.1, memory_mb=100))
    with pytest.raises(KilledAgain, match="out of memory"):
        run(children, Ended(signal=9, code=0, cpu=0.1, memory_mb=100))


def test_a_child_that_ends_itself_there_is_the_lessons_fault(children: Children) -> None:
    with pytest.raises(GraderError, match=r"own cell `setup cell` does not run in the jail: .*exit code 3"):
        run(children, Ended(signal=0, code=3, cpu=0.1, memory_mb=100))
