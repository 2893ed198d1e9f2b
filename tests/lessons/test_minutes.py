"""What lessons say of their length is what the rule gives, and a long one can be left for the day."""

from pathlib import Path

import pytest

from grader.authoring.minutes import STEP, STOP, STOP_AFTER, estimated, minutes_by_rule
from grader.lessons.front_matter import read_front_matter
from grader.lessons.lesson import Lesson

pytestmark = pytest.mark.sampled(1)

ROOT = Path(__file__).resolve().parents[2]
LESSONS = [Lesson(path.parent) for path in sorted((ROOT / "solutions").glob("*/lesson.toml"))]
every_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)

TWIN = """# %% [markdown]
# # 00 · Toy
#
# one two three four ![a picture of many words](toy.svg)

# %% [markdown]
# difficulty ●●○○○ · importance ●●○○○ · 10 minutes
#
# <details><summary>Hint</summary>
#
# Words that a reader may not open.
#
# </details>

# %% tags=["setup"]
import torch

x = torch.ones(2)

# %% jupyter={"source_hidden": true}
print(x)

# %% exercise="toy.double"
def double(x):
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION

# %% check="toy.double"
check("toy.double", double)
"""


def test_words_code_and_exercises_count(tmp_path: Path) -> None:
    folder = tmp_path / "solutions" / "00-toy"
    folder.mkdir(parents=True)
    (folder / "toy.py").write_text(TWIN)
    words = 16  # of both markdown cells, without the picture and the hint
    assert estimated(Lesson(folder)) == pytest.approx(words / 200 + 2 / 10 + 10)
    assert minutes_by_rule(Lesson(folder)) == (10, 10)


@every_lesson
def test_a_lesson_takes_as_long_as_it_says(lesson: Lesson) -> None:
    told, rule = read_front_matter(lesson).minutes, minutes_by_rule(lesson)
    apart = max(abs(one - other) for one, other in zip(told, rule, strict=True))
    mend = "Write that there and into the notebook's first cell"
    assert apart <= STEP, f"lesson.toml says {told}, and the rule (grader/authoring/minutes.py) gives {rule}. {mend}"


@every_lesson
def test_a_long_lesson_has_a_place_to_stop_for_the_day(lesson: Lesson) -> None:
    if minutes_by_rule(lesson)[1] > STOP_AFTER:
        assert f"{STOP}\n" in lesson.twin.read_text(encoding="utf-8").replace("# ## ", "## ")
