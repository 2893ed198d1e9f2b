"""What a student is told of an exercise, and what never: anything of a hidden recording."""

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum

from grader.checks.judge.verdict import Verdict
from grader.checks.judge.wording import report, summary
from grader.grading.running.results import ExerciseResult
from grader.report import Line, shipped_line


class Shown(Enum):
    """How much of an error in hidden cases a student sees: the instructor's choice (`GradeInJail.shown`).

    MISTAKE: how many cases are right, and the known mistake's name. COUNT: how many. VERDICT: whether all are.
    """

    MISTAKE = "mistake"
    COUNT = "count"
    VERDICT = "verdict"


def exercise_result(
    points: float, verdict: Verdict, shown: Verdict, lost: str, of_hidden: Shown | None
) -> ExerciseResult:
    """What the student earns and reads. shown: the verdict on the cases that they have. lost: see `hidden_report`.

    of_hidden: how much they see of an error, where the verdict is on hidden cases."""
    earned = _earned(points, verdict)
    short = str(summary(verdict)["summary"])
    if of_hidden is None:
        lines = report(verdict)
    elif verdict.right:
        lines = [Line(f"✓ {verdict.exercise} · {_hidden_headline(verdict, Shown.COUNT)}", "ok")]
    elif shown.unwritten and not verdict.points:
        lines, short = report(shown), str(summary(shown)["summary"])
    else:
        lines, short = hidden_report(verdict, shown, lost, of_hidden), _hidden_headline(verdict, of_hidden)
    return ExerciseResult(verdict.exercise, earned, points, verdict.right, short, tuple(lines))


def with_help(result: ExerciseResult, verdict: Verdict, replaced: Sequence[str]) -> ExerciseResult:
    """The result where the exercise earns more with the lesson's solutions of others, and says so.

    verdict: the one with these. replaced: those exercises. Of the verdict the student learns the points alone.
    """
    points = _earned(result.max_points, verdict)
    if points <= result.points:
        return result
    names = " and ".join(f"`{name}`" for name in replaced)
    earned = f"{round(points, 2):g} of {result.max_points:g} points"
    verb = "is" if len(replaced) == 1 else "are"
    line = Line(f"{earned}: judged with the lesson's own {names}, since yours {verb} not right.", "text", 1)
    right = "it is right" if points == result.max_points else f"it earns {earned}"
    summary = f"{result.summary.rstrip('.')}; with the lesson's own {names} {right}"
    return replace(
        result, points=points, lines=(*result.lines[:1], line, *result.lines[1:]), summary=summary, helped=True
    )


def without_effort(result: ExerciseResult) -> ExerciseResult:
    """The result where all that is right is so without any work on the exercise: it earns nothing, and says so."""
    line = Line(
        "No points: what is right so far is right too with the class that is given, or with nothing done. It counts"
        " once one of the other cases is right.",
        "text",
        1,
    )
    return replace(result, points=0.0, lines=(*result.lines, line))


def hidden_report(verdict: Verdict, shown: Verdict, lost: str, of_hidden: Shown) -> list[Line]:
    """What a student is told who fails cases that they have not seen.

    How many, the mistake's name, and how the same code does on the cases that they have. shown: the verdict on those.
    lost: what is said where the code gave no answer; then nothing else is told of them.
    """
    lines = [Line(f"✗ {verdict.exercise} · {_hidden_headline(verdict, of_hidden)}", "bad")]
    if verdict.carried and (shown.right or not shown.carried):  # else the report on the shown cases says it
        lines.append(Line("This exercise's own points are not lost.", "muted", 1))
    if not shown.right:
        return [*lines, Line("On the cases in your notebook:", "muted", 1), *(_deeper(line) for line in report(shown))]
    if lost and of_hidden is not Shown.VERDICT:
        return [*lines, Line(f"{lost}.", "text", 1)]
    lines.append(Line("All cases in your notebook are right. These have other weights, inputs and sizes.", "text", 1))
    finding = next((c.finding for c in verdict.cases if c.finding is not None and c.finding.mistake), None)
    if finding is not None and of_hidden is Shown.MISTAKE:
        lines.append(Line(finding.what, "text", 1))
        lines.append(Line(finding.hint, "hint", 1))
        lines += [shipped_line(reference, 1) for reference in finding.shipped]
    else:
        lines.append(Line("Does your code rely on a size, or on numbers, that stand in one case only?", "hint", 1))
    return lines


def _earned(points: float, verdict: Verdict) -> float:
    return points * verdict.points / verdict.max_points if verdict.max_points else 0.0


def _hidden_headline(verdict: Verdict, of_hidden: Shown) -> str:
    if of_hidden is Shown.VERDICT:
        return "not all hidden cases right"
    right = sum(case.right for case in verdict.cases)
    return f"{right} of {len(verdict.cases)} hidden cases right"


def _deeper(line: Line) -> Line:
    return replace(line, indent=line.indent + 1)
