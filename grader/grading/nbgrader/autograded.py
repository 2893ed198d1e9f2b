"""The autograded notebook: the released one with a student's solutions and this engine's reports in it.

Nothing else of a submission gets there, so nothing in it can upset what nbgrader does next: feedback, formgrader,
export.
"""

import json
import re
from dataclasses import replace

import nbformat
from nbformat import NotebookNode

from grader.grading.running.plan import Plan
from grader.grading.running.results import ExerciseResult, SubmissionResult
from grader.grading.running.submission import Submission, program
from grader.report import VERDICT_MIME, Line, to_html, to_text

MAX_SHOWN = 40_000  # characters of all that a student wrote
NOTES_CELL = "notes-on-this-submission"
OWN = "grader_own_cell"  # marks a cell that the student added, with the exercise that needs it
RESULT = "grader_result"  # where the notebook's metadata say what is to be known of the whole submission


def autograded_notebook(plan: Plan, submission: Submission, result: SubmissionResult) -> NotebookNode:
    """The released notebook with a student's solutions, and a report under each."""
    notebook = released_notebook(plan)
    results = {check.grade_id: e for check, e in zip(plan.checks, result.exercises, strict=True)}
    free = {part.exercise: [text for i, text in part.free if i in result.ran] for part in program(submission, plan)}
    exercises = {step.grade_id: step.exercise for step in plan.steps}
    answers = dict(submission.answers)
    shown = _Shown()
    cells = [_note(result)] if result.notes or result.problem or result.points < result.max_points else []
    for cell in notebook.cells:
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id", "")
        if grade_id in results:
            cell.outputs = _outputs(results[grade_id])
        elif exercises.get(grade_id):
            own = [shown.cut(source) for source in free.get(exercises[grade_id], ())]
            cells += [nbformat.v4.new_code_cell(source, metadata={OWN: exercises[grade_id]}) for source in own]
            source = submission.source_of(grade_id)
            cell.source = "# This cell was not in the submission." if source is None else shown.cut(source)
        elif grade_id in answers:
            answer = shown.cut(answers[grade_id])
            written = cell.cell_type == "markdown" and answer != cell.source
            cell.source = _not_obeyed(answer) if written else answer
        cells.append(cell)
    notebook.cells = cells
    notebook.metadata[RESULT] = {"notes": list(result.notes), "problem": result.problem}
    return notebook


# What a page obeys in Markdown: HTML, links and pictures, and TeX that makes links or HTML.
_OBEYED = re.compile(r"<[a-z/!?]|\][(:\[]|\\(href|url|html|style|class|cssid|data|require|unicode)", re.IGNORECASE)


def _not_obeyed(answer: str) -> str:
    """An answer in words, which the formgrader shows as Markdown with HTML in it: as code, where a page obeys some."""
    if not _OBEYED.search(answer):
        return answer
    fence = "`" * max(3, *(1 + len(ticks) for ticks in ("", *re.findall("`+", answer))))
    return f"{fence}\n{answer}\n{fence}"


class _Shown:
    """Cuts what a student wrote to what a page can show: in colours, a page has thirty characters for one of code."""

    def __init__(self) -> None:
        self._left = MAX_SHOWN

    def cut(self, source: str) -> str:
        """The source, or its beginning with a line that says how much more there is."""
        kept = source[: self._left]
        self._left -= len(kept)
        more = len(source) - len(kept)
        return f"{kept}\n# ... {more:,} more characters are in the submission." if more else source


def released_notebook(plan: Plan) -> NotebookNode:
    return nbformat.from_dict(json.loads(plan.notebook))


def _note(result: SubmissionResult) -> NotebookNode:
    lines = [Line("Notes on this submission")]
    if result.problem:
        lines.append(Line(result.problem, "bad", 1))
    lines += [Line(text, "text", 1) for text in result.notes]
    if not result.problem:  # nbgrader's own list of scores above it calls every one of them "Test cell"
        lines += [line for e in result.exercises if e.points < e.max_points for line in _lost_points(e)]
    return nbformat.v4.new_markdown_cell(to_html(lines), id=NOTES_CELL)


def _lost_points(result: ExerciseResult) -> list[Line]:
    """An exercise that did not get all its points, with the first thing that its report found and the hint to it."""
    points = f"{round(result.points, 2):g} of {result.max_points:g} points. {result.summary.rstrip('.')}."
    found = [replace(line, indent=2) for line in _first_finding(result)]
    return [Line(f"`{result.exercise}`: {points}", "text", 1), *found]


def _first_finding(result: ExerciseResult) -> tuple[Line, ...]:
    """What the report found first, and the hint to it; nothing where it has no hint."""
    hint = next((i for i, line in enumerate(result.lines) if line.kind == "hint"), 0)
    return result.lines[hint - 1 : hint + 1] if hint else ()


def _outputs(result: ExerciseResult) -> list[NotebookNode]:
    """What a check shows, and the points where nbgrader looks for them."""
    verdict = {
        "exercise": result.exercise,
        "passed": result.right,
        "points": result.points,
        "max_points": result.max_points,
        "summary": result.summary,
        "found": "" if result.helped else next((line.text for line in _first_finding(result)), ""),
    }
    report = {"text/plain": to_text(result.lines), "text/html": to_html(result.lines), VERDICT_MIME: verdict}
    return [
        nbformat.v4.new_output("display_data", data=report),
        nbformat.v4.new_output("execute_result", data={"text/plain": repr(float(result.points))}, execution_count=1),
    ]
