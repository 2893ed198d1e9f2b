"""Each lesson's sly.toml: wrong programs that a handful of cases lets through, of which none is accepted."""

import pytest
from solved import Solved, every_lesson

from grader.authoring.sly import Sly, sly_programs
from grader.checks.examine import examine_here

pytestmark = pytest.mark.sampled(1)

PROGRAMS = [
    pytest.param(lesson, sly, id=f"{lesson.name} {sly.exercise}: {sly.wrong}")
    for lesson in every_lesson()
    for sly in sly_programs(lesson)
]


@pytest.mark.parametrize(("lesson", "sly"), PROGRAMS)
def test_a_sly_program_is_not_accepted(lesson: Solved, sly: Sly) -> None:
    verdict = examine_here(lesson.recording, sly.exercise, sly.program(lesson))
    assert not verdict.right
    assert verdict.points < lesson.exercises[sly.exercise].points
