"""Runs notebooks without a person: for ``grader check`` and ``grader build``."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from grader.errors import GraderError
from grader.report import VERDICT_MIME

TIMEOUT_SECONDS = 600


class ExecutionStopped(GraderError):
    """A notebook did not run to its end: a cell raised, took too long, or took the kernel down."""


@dataclass(frozen=True)
class Result:
    """What one graded check of a notebook came to.

    reason: what is wrong where it did not pass. waits_for: the exercises that have to be mended for it to pass,
    where it is right by itself and only a part of it is wrong.
    """

    exercise: str
    passed: bool
    points: float = 0.0
    max_points: float = 0.0
    reason: str = ""
    waits_for: tuple[str, ...] = ()

    @property
    def waits(self) -> bool:
        """Whether it has all its points, and does not pass only because a part from another exercise is wrong."""
        return not self.passed and 0 < self.max_points <= self.points


def read(path: Path) -> NotebookNode:
    """The notebook at `path`. Raises GraderError where there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise GraderError(f"{path} does not exist. Is the path right?") from None
    except IsADirectoryError:
        raise GraderError(f"{path} is a folder; name the notebook in it.") from None
    except OSError as error:
        raise GraderError(f"{path} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise GraderError(f"{path} is not a notebook: it is not text.") from None
    try:
        notebook = nbformat.reads(text, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # nbformat raises many kinds, some not its own
        first_line = str(error).strip().partition("\n")[0]
        raise GraderError(f"{path} is not a notebook that Jupyter can read: {first_line}") from None
    return notebook


def execute(
    notebook: NotebookNode,
    cwd: Path,
    on_cell: Callable[[int, NotebookNode], None] | None = None,
    *,
    allow_errors: bool = False,
    timeout: int = TIMEOUT_SECONDS,
    env: dict[str, str] | None = None,
) -> NotebookNode:
    """Run every cell of `notebook` in a fresh kernel started in `cwd`, filling in its outputs.

    on_cell: called with the index and the cell before each code cell runs.
    allow_errors: go on after a cell that raises; a cell tagged ``raises-exception`` may always raise.
    timeout: seconds that one cell may take. env: variables added to the kernel's environment.
    Raises ExecutionStopped where the notebook did not run to its end; outputs up to there are kept.
    """
    running = 0

    def started(cell: NotebookNode, cell_index: int) -> None:
        nonlocal running
        running = cell_index
        if on_cell is not None:
            on_cell(cell_index, cell)

    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        allow_errors=allow_errors,
        coalesce_streams=True,  # one output for text that a cell prints bit by bit
        resources={"metadata": {"path": str(cwd)}},
        extra_arguments=["--IPKernelApp.log_level=40"],  # errors only: it warns about its transport otherwise
        on_cell_execute=started,
    )
    client.log.disabled = True  # what it logs is in the errors below
    # Without this variable the kernel warns on our stderr about Python's frozen modules.
    environment = {**os.environ, "PYDEVD_DISABLE_FILE_VALIDATION": "1", **(env or {})}
    try:
        client.execute(cwd=str(cwd), env=environment)
    except CellExecutionError as error:
        raise ExecutionStopped(f"cell {running + 1} raised {_one_line(error.ename, error.evalue)}") from None
    except CellTimeoutError:
        raise ExecutionStopped(
            f"cell {running + 1} ran longer than {timeout} s and was stopped. Does it loop for ever?"
        ) from None
    except DeadKernelError:
        raise ExecutionStopped(
            f"cell {running + 1} took the kernel down. It may have run out of memory, or have called exit()."
        ) from None
    except RuntimeError as error:
        raise GraderError(f"no Python kernel could be started: {error}. Is ipykernel installed here?") from None
    return notebook


def results(notebook: NotebookNode) -> list[Result]:
    """What each graded check of an executed notebook came to, in the notebook's order.

    In a notebook without graded cells every check that ran counts.
    """
    graded = [cell for cell in notebook.cells if _is_graded(cell)]
    cells = graded or [cell for cell in notebook.cells if _verdicts(cell)]
    return [result for cell in cells for result in _results_of(cell)]


def unchecked(results: Iterable[Result], folder: Path) -> list[Result]:
    """A result that did not pass for each exercise of the lesson in `folder` that no check of the notebook was about.

    None where no recording in it can be read: what is checked can't be right then.
    """
    from grader.recordings.format import RECORDING as FILE_NAME  # imports torch
    from grader.recordings.recording import Recording  # imports torch

    try:
        recorded = Recording.read(folder / FILE_NAME)
    except GraderError:
        return []
    checked = {result.exercise for result in results}
    return [
        Result(name, passed=False, max_points=recorded.answer(name).points, reason="its check is not in this notebook")
        for name in recorded.exercises
        if name not in checked
    ]


def unexpected_errors(notebook: NotebookNode) -> list[str]:
    """A line for each cell that raised, outside the graded checks and those tagged ``raises-exception``."""
    lines = []
    for index, cell in enumerate(notebook.cells):
        error = _error(cell)
        expected = _is_graded(cell) or "raises-exception" in cell.metadata.get("tags", [])
        if error and not expected:
            lines.append(f"cell {index + 1} raised {error}")
    return lines


def _results_of(cell: NotebookNode) -> list[Result]:
    """One result per verdict the cell displayed; one that did not pass where it displayed none."""
    error = _error(cell)
    found = [
        Result(
            exercise=str(verdict["exercise"]),
            passed=bool(verdict["passed"]),
            points=float(verdict.get("points", 0)),
            max_points=float(verdict.get("max_points", 0)),
            reason="" if verdict["passed"] else str(verdict.get("summary", "")),
            waits_for=tuple(str(name) for name in verdict.get("waits_for", ())),
        )
        for verdict in _verdicts(cell)
    ]
    if found and error and all(result.passed for result in found):
        return [*found, _without_verdict(cell, error)]
    return found or [_without_verdict(cell, error or "the check did not run")]


def _without_verdict(cell: NotebookNode, reason: str) -> Result:
    name = cell.metadata.get("check") or cell.metadata.get("nbgrader", {}).get("grade_id", "a check")
    points = float(cell.metadata.get("nbgrader", {}).get("points", 0))
    return Result(exercise=str(name), passed=False, max_points=points, reason=reason)


def _is_graded(cell: NotebookNode) -> bool:
    """Whether nbgrader gives points for this cell by running it."""
    return cell.cell_type == "code" and bool(cell.metadata.get("nbgrader", {}).get("grade", False))


def _verdicts(cell: NotebookNode) -> list[dict[str, Any]]:
    """What the checks in a cell displayed; a comparison of layers, which is about no exercise, is left out."""
    shown = [
        dict(output.data[VERDICT_MIME])
        for output in cell.get("outputs", [])
        if output.output_type in ("display_data", "execute_result") and VERDICT_MIME in output.data
    ]
    return [verdict for verdict in shown if "exercise" in verdict]


def _error(cell: NotebookNode) -> str:
    """The error a cell ended with, in one line, or an empty string."""
    for output in cell.get("outputs", []):
        if output.output_type == "error":
            return _one_line(output.ename, output.evalue)
    return ""


def _one_line(name: str, message: str) -> str:
    first_line = message.strip().partition("\n")[0]
    return f"{name}: {first_line}" if first_line else name
