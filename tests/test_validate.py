"""Every lesson in nbgrader's Validate and in a learner's own CI: each runs whole, four times.

Apart from test_nbgrader.py, so that two workers share what takes the longest: a file is one worker's.
"""

from pathlib import Path

from test_nbgrader import every_lesson, released_folder, validates_only_when_solved

from grader.lessons.lesson import Lesson


@every_lesson
def test_a_lesson_validates_only_when_solved(lesson: Lesson, tmp_path: Path) -> None:
    validates_only_when_solved(lesson, released_folder(lesson), tmp_path)
