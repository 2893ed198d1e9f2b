"""Grade one submission: its code runs in jailed children, the judge works here, where no submitted code ever runs.

One child runs the cells and probes every exercise. Where it dies at an exercise, that exercise is lost and another
child goes on with the rest. A composite that is wrong is looked at in two more children: one is given
the inputs of the reference's parts, the other their outputs; each alone gives no answer away.

With a hidden recording, that one scores, and nothing of it is shown: an exercise that fails is run again in a child
that has seen only the released recording, and that run's report is what the student gets.
"""

import itertools
import time

from grader.grading.children import SubmissionRun
from grader.grading.kit import Kit
from grader.grading.plan import PlanStep
from grader.grading.results import ExerciseResult, SubmissionResult
from grader.grading.sandbox.jail import Jail
from grader.grading.submission import Submission, program
from grader.grading.told import exercise_result
from grader.report import Line


def grade(kit: Kit, submission: Submission, jail: Jail) -> SubmissionResult:
    """Grade one submission. Raises JailError where the jail fails, GraderError where the lesson itself does."""
    started = time.monotonic()
    parts = program(submission, kit.plan)
    scoring = kit.hidden_recording or kit.public_recording
    lost: dict[str, str] = {}
    if submission.problem:
        lost = dict.fromkeys(kit.plan.exercises, submission.problem)
    else:
        present = {part.exercise for part in parts}
        lost = {e: "Its solution cell is not in the notebook." for e in kit.plan.exercises if e not in present}
    wanted = [e for e in kit.plan.exercises if e not in lost]
    hidden = kit.hidden_recording is not None
    deadline = started + kit.limits.submission_seconds
    solutions = scoring.solutions(kit.plan.exercises)
    run = SubmissionRun(jail, parts, len(before_any_solution(kit)), deadline, solutions, hidden)
    verdicts = run.examine(scoring, wanted)
    shown = verdicts
    if hidden:
        shown = run.again(kit.public_recording, [e for e in wanted if not verdicts[e].right])
    results = []
    for check in kit.plan.checks:
        e = check.exercise
        if e in lost:
            lines = (Line(f"{e}   no points", "bad"), Line(lost[e], "text", 1))
            results.append(ExerciseResult(e, 0.0, check.points, False, lost[e], lines))
        else:
            results.append(exercise_result(check.points, verdicts[e], shown.get(e), run.lost.get(e, ""), hidden))
    seconds = time.monotonic() - started
    return SubmissionResult(
        tuple(results), submission.notes, submission.problem, seconds, run.children, run.own_cells or ()
    )


def before_any_solution(kit: Kit) -> list[PlanStep]:
    """The lesson's own cells that run before anything of a student's."""
    return list(itertools.takewhile(lambda step: not step.exercise, kit.plan.steps))
