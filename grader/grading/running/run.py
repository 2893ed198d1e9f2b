"""Grade one submission: its code runs in jailed children, the judge works here, where no submitted code ever runs.

One child runs the cells and probes every exercise. Where it dies at an exercise, that exercise is lost and another
child goes on with the rest. A composite that is wrong is looked at in two more children: one is given
the inputs of the reference's parts, the other their outputs; each alone gives no answer away.

Cases that are right without any work on the exercise count only beside one that is not (`effortless`).

An exercise that lost points and builds on a wrong or missing one is judged once more, in a child in which the lesson's
own solution stands for that one: an error costs the points of its own exercise.

With a hidden recording, that one scores, and nothing of it is shown. All exercises are run on the released recording
before, in a child that has seen no other: that run's report is what the student gets, and what comes first can tell
nothing of what comes later. An exercise at which that child is lost is not run again.
"""

import itertools
import time
from collections.abc import Mapping

from grader.checks.judge.verdict import Verdict
from grader.grading.running.bundle import Bundle
from grader.grading.running.children import Children, Program
from grader.grading.running.effortless import effortless_cases, only_effortless
from grader.grading.running.plan import PlanStep
from grader.grading.running.prober import InChildren
from grader.grading.running.results import ExerciseResult, SubmissionResult
from grader.grading.running.solutions import uses, with_solutions
from grader.grading.running.student_report import exercise_result, with_help, without_effort
from grader.grading.running.submission import Submission, program
from grader.grading.sandbox.jail import Jail
from grader.report import Line


def grade(bundle: Bundle, submission: Submission, jail: Jail) -> SubmissionResult:
    """Grade one submission. Raises JailError where the jail fails, GraderError where the lesson itself does."""
    started = time.monotonic()
    cells = program(submission, bundle.plan)
    scoring = bundle.hidden_recording or bundle.public_recording
    lost: dict[str, str] = {}
    if submission.problem:
        lost = dict.fromkeys(bundle.plan.exercises, submission.problem)
    else:
        present = {cell.exercise for cell in cells}
        lost = {e: "Its solution cell is not in the notebook." for e in bundle.plan.exercises if e not in present}
    wanted = [e for e in bundle.plan.exercises if e not in lost]
    hidden = bundle.hidden_recording is not None
    children = Children(jail, started + bundle.limits.submission_seconds)
    own = Program(cells, len(before_any_solution(bundle)), scoring.solutions(bundle.plan.exercises))
    prober = InChildren(children, own, scoring, hidden)
    first = InChildren(children, own, bundle.public_recording, hidden=False) if hidden else prober
    verdicts = shown = first.examine(wanted)
    if hidden:
        prober.take_lost(first)
        verdicts = prober.examine([e for e in wanted if e not in first.lost])
    helped = {}
    if built := _built_on_wrong_ones(bundle, verdicts, own):
        other = own.with_cells(with_solutions(bundle.plan, cells, _replaced(bundle, verdicts)))
        helped = InChildren(children, other, scoring, hidden).judge_alone(list(built))
    results = []
    for check in bundle.plan.checks:
        e = check.exercise
        if e in lost:
            lines = (Line(f"{e}   no points", "bad"), Line(lost[e], "text", 1))
            results.append(ExerciseResult(e, 0.0, check.points, False, lost[e], lines))
        else:
            unseen = bundle.shown if hidden and e not in first.lost else None
            result = exercise_result(check.points, verdicts[e], shown[e], prober.lost.get(e, ""), unseen)
            counted = verdicts[e]
            if e in helped and (better := with_help(result, helped[e], built[e])) is not result:
                result, counted = better, helped[e]
            if 0 < result.points < result.max_points and only_effortless(counted, effortless_cases(bundle, e, jail)):
                result = without_effort(result)
            results.append(result)
    seconds = time.monotonic() - started
    ran = children.own_cells or ()
    return SubmissionResult(tuple(results), submission.notes, submission.problem, seconds, children.started, ran)


def before_any_solution(bundle: Bundle) -> list[PlanStep]:
    """The lesson's own cells that run before anything of a student's."""
    return list(itertools.takewhile(lambda step: not step.exercise, bundle.plan.steps))


def _replaced(bundle: Bundle, verdicts: Mapping[str, Verdict]) -> dict[str, str]:
    """The lesson's solutions of the exercises that are not right."""
    return {e: source for e, source in bundle.solutions.items() if e not in verdicts or not verdicts[e].right}


def _built_on_wrong_ones(bundle: Bundle, verdicts: Mapping[str, Verdict], own: Program) -> dict[str, list[str]]:
    """The exercises that lost points and build on wrong ones, each with those; they are judged once more.

    The lesson's solutions then stand in for wrong ones. They earn points, and not a word of them is shown: these
    children know solutions. An exercise whose cell is as released is not judged again.
    """
    replaced = _replaced(bundle, verdicts)
    stubs = {step.exercise: step.source.strip() for step in bundle.plan.steps}
    built: dict[str, list[str]] = {}
    for cell in own.cells:
        e = cell.exercise
        if e not in verdicts or verdicts[e].carried or cell.source.strip() == stubs[e]:
            continue
        behind = (bundle.builds_on.get(e, frozenset()) | uses(cell, own.solutions)) & replaced.keys()
        if behind:
            built[e] = [name for name in bundle.plan.exercises if name in behind]
    return built
