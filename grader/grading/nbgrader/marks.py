"""What the gradebook says of a submission: its marks as nbgrader exports them, those given by hand, and comments."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from nbgrader.api import Gradebook, MissingEntry


@dataclass(frozen=True)
class CellMark:
    """What a graded cell earned. manual: the score given by hand in place of the automatic one. extra: extra credit."""

    max_points: float
    automatic: float
    manual: float | None = None
    extra: float = 0.0

    @property
    def points(self) -> float:
        """What counts."""
        return (self.automatic if self.manual is None else self.manual) + self.extra

    @property
    def by_hand(self) -> bool:
        """Whether a person had a say in it."""
        return self.manual is not None or bool(self.extra)


@dataclass(frozen=True)
class Mark:
    """What a submission earned. cells and comments: by grade_id. late: how many seconds. penalty: points, for that.

    timestamp: when it was handed in, in UTC, where that is known.
    """

    raw: float
    max_points: float
    penalty: float = 0.0
    late: float = 0.0
    timestamp: datetime | None = None
    cells: Mapping[str, CellMark] = field(default_factory=dict)
    comments: Mapping[str, str] = field(default_factory=dict)

    @property
    def points(self) -> float:
        """What nbgrader exports: the penalty taken off, and never less than 0."""
        return max(0.0, self.raw - self.penalty)

    @property
    def by_hand(self) -> dict[str, CellMark]:
        """The cells in whose marks a person had a say."""
        return {name: cell for name, cell in self.cells.items() if cell.by_hand}


def read_mark(gradebook: Gradebook, lesson: str, notebook: str, student: str) -> Mark | None:
    """A student's mark for a lesson; None where the gradebook has no submission of theirs."""
    try:
        saved = gradebook.find_submission_notebook(notebook, lesson, student)
    except MissingEntry:
        return None
    cells = {
        grade.name: CellMark(
            float(grade.max_score or 0.0), float(grade.auto_score or 0.0), grade.manual_score, grade.extra_credit or 0.0
        )
        for grade in sorted(saved.grades, key=lambda grade: grade.name)
    }
    comments = {comment.name: comment.comment for comment in saved.comments if comment.comment}
    submission = saved.assignment
    return Mark(
        sum(cell.points for cell in cells.values()),
        sum(cell.max_points for cell in cells.values()),
        float(saved.late_submission_penalty or 0.0),
        max(0.0, submission.total_seconds_late),
        submission.timestamp,
        cells,
        comments,
    )
