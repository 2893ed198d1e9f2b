"""What a submission earned."""

from dataclasses import dataclass

from grader.report import Line


@dataclass(frozen=True)
class ExerciseResult:
    """What a submission earned with one exercise, and what the student is told.

    lines: the report. text, html: what nbgrader shows. right: whether nothing is left to mend. helped: whether points
    were earned with the lesson's own solutions of other exercises, which the summary says.
    """

    exercise: str
    points: float
    max_points: float
    right: bool
    summary: str
    lines: tuple[Line, ...]
    helped: bool = False


@dataclass(frozen=True)
class SubmissionResult:
    """What a submission earned, and what it took. notes: for the student. ran: which of their own cells ran."""

    exercises: tuple[ExerciseResult, ...]
    notes: tuple[str, ...]
    problem: str
    seconds: float
    children: int
    ran: tuple[int, ...] = ()

    @property
    def points(self) -> float:
        """The sum of the points."""
        return sum(e.points for e in self.exercises)

    @property
    def max_points(self) -> float:
        """What could have been earned."""
        return sum(e.max_points for e in self.exercises)
