"""Grade one submission: its code runs in jailed children, the judge works here, where no submitted code ever runs.

One child runs the cells and probes every exercise. Where it dies at an exercise, that exercise is lost and another
child goes on with the rest. A composite that is wrong is looked at in two more children: one is given
the inputs of the reference's parts, the other their outputs; each alone gives no answer away.

An exercise that lost points and builds on a wrong or missing one is judged once more, in a child in which the lesson's
own solution stands for that one: an error costs the points of its own exercise.

With a hidden recording, that one scores, and nothing of it is shown: an exercise that fails is run again in a child
that has seen only the released recording, and that run's report is what the student gets.
"""

import itertools
import time
from collections.abc import Mapping, Sequence

from grader.checks.verdict import Verdict
from grader.grading.children import SubmissionRun
from grader.grading.kit import Kit
from grader.grading.plan import PlanStep
from grader.grading.results import ExerciseResult, SubmissionResult
from grader.grading.sandbox.jail import Jail
from grader.grading.solutions import uses, with_solutions
from grader.grading.submission import Part, Submission, program
from grader.grading.told import exercise_result, with_help
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
    helped = _with_solutions(kit, run, verdicts, parts)
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
            result = exercise_result(check.points, verdicts[e], shown.get(e), run.lost.get(e, ""), hidden)
            results.append(with_help(result, *helped[e]) if e in helped else result)
    seconds = time.monotonic() - started
    return SubmissionResult(
        tuple(results), submission.notes, submission.problem, seconds, run.children, run.own_cells or ()
    )


def before_any_solution(kit: Kit) -> list[PlanStep]:
    """The lesson's own cells that run before anything of a student's."""
    return list(itertools.takewhile(lambda step: not step.exercise, kit.plan.steps))


def _with_solutions(
    kit: Kit, run: SubmissionRun, verdicts: Mapping[str, Verdict], parts: Sequence[Part]
) -> dict[str, tuple[Verdict, list[str]]]:
    """Verdicts on exercises that lost points and build on wrong ones, with the lesson's solutions in place of those.

    With each come the exercises that were replaced for it. An exercise whose cell is as released is not judged again.
    """
    replaced = {e: s for e, s in kit.solutions.items() if e not in verdicts or not verdicts[e].right}
    recording = kit.hidden_recording or kit.public_recording
    names = recording.solutions(kit.plan.exercises)
    stubs = {step.exercise: step.source.strip() for step in kit.plan.steps}
    built: dict[str, list[str]] = {}
    for part in parts:
        e = part.exercise
        if e not in verdicts or verdicts[e].carried or part.source.strip() == stubs[e]:
            continue
        behind = (kit.builds_on.get(e, frozenset()) | uses(part, names)) & replaced.keys()
        if behind:
            built[e] = [name for name in kit.plan.exercises if name in behind]
    if not built:
        return {}
    found = run.with_solutions(recording, list(built), with_solutions(kit.plan, parts, replaced))
    return {e: (verdict, built[e]) for e, verdict in found.items()}
