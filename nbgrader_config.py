"""nbgrader's view of this course: authors work in solutions/, `nbgrader generate_assignment` writes course/."""

c = get_config()  # noqa: F821  (nbgrader defines it)

c.CourseDirectory.course_id = "from-scratch-to-scale"
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "course"

# Learners get the notebook, its recording, configs/, texts/ and figures/; all else in a lesson's folder holds answers.
from pathlib import Path  # noqa: E402

from grader.authoring.allowed import not_released  # noqa: E402

c.CourseDirectory.ignore = not_released(Path(__file__).parent)

# Students hand in as often as they like, and the last one counts: `nbgrader collect` fetches it, as the formgrader does.
c.ExchangeCollect.update = True

# A lesson may train or generate for a while; the stock limit is 30 seconds a cell.
c.ExecutePreprocessor.timeout = 600

# Feedback is a page without a kernel: where an output has a widget and a picture, the picture is what can be shown.
c.DataTypeFilter.display_data_priority = [
    "text/html",
    "text/markdown",
    "image/svg+xml",
    "text/latex",
    "image/png",
    "image/jpeg",
    "application/vnd.jupyter.widget-view+json",
    "text/plain",
]

# Submitted code never runs in a kernel: `nbgrader autograde` and the formgrader grade as `grader autograde` does.
from grader.grading.nbgrader_plugin import install  # noqa: E402

install(c)
