"""A lesson may use instruments in any cell: where submissions run they are there too, without the network or a home."""

from pathlib import Path

import pytest
from attack_course import LESSON, RIGHT, submit
from toy_course import write_course

from grader.authoring.build import build
from grader.grading.classroom.engine import Settings, grade_class

IMPORT = "from grader.instruments import clock, patch, plots, progress, tables, work, writing"
RELU = """\
def relu(x):
    with patch.replaced(globals(), floor=0.0):
        assert work.multiply_adds(lambda: x[None] @ x[:, None]) == len(x)
        assert clock.milliseconds(lambda: x + 1, repeats=1) > 0
        assert plots.lines({"x": (range(len(x)), x)}).svg().startswith("<svg")
        return x.clamp(min=floor)
"""


@pytest.mark.slow
def test_a_lesson_whose_setup_imports_instruments_is_graded_in_the_jail(tmp_path: Path) -> None:
    for lesson in write_course(tmp_path):
        if lesson.name == LESSON:
            text = lesson.twin.read_text()
            assert text.count("from grader import check\n") == 1
            imports = f"from grader import check\n{IMPORT}\n\nfloor = -1.0\n"
            lesson.twin.write_text(text.replace("from grader import check\n", imports))
            build(lesson)
    submit(tmp_path, "ada", RIGHT | {"toy.relu": RELU})
    submit(tmp_path, "bob", RIGHT | {"toy.relu": RELU.replace("== len(x)", "== 0")})
    graded = grade_class(tmp_path, LESSON, Settings())
    scores = {each.student: each.result.points for each in graded if each.result}
    assert scores == {"ada": 5.0, "bob": 3.0}
