"""The cells of a lesson's notebook by the part they play.

An author says in a cell's metadata what the cell is; in the text twin that is the cell's first line::

    # %% tags=["setup"]                        imports and helpers that every exercise may rely on
    # %% given="01-gpt2 gpt2.layer_norm"       another lesson's solution, which `grader build` writes into the notebook
    # %% exercise="gpt2.layer_norm"            a solution, with ### BEGIN SOLUTION and ### END SOLUTION
    # %% check="gpt2.layer_norm"               the cell that checks it
    # %% prediction="gpt2.parameters"          a question, with `guess=...` for the learner to replace

and at the end of that line the cell's id, which `grader build` gives it once: ``id="check-gpt2-layer_norm"``.
"""

import ast
import re
from dataclasses import dataclass
from typing import Any, Literal

BEGIN_SOLUTION = "### BEGIN SOLUTION"
END_SOLUTION = "### END SOLUTION"
EXERCISE_MINUTES = re.compile(r"^difficulty .* · (\d+) minutes", re.MULTILINE)  # as it stands above an exercise
CellKind = Literal["markdown", "setup", "given", "exercise", "check", "prediction", "other"]
RUN_BY_EVERY_EXERCISE: tuple[CellKind, ...] = ("setup", "given", "exercise")


@dataclass(frozen=True)
class Cell:
    """One cell. `name` is the exercise's or prediction's name, for a given cell "lesson exercise", else empty."""

    kind: CellKind
    source: str
    name: str = ""

    @property
    def title(self) -> str:
        """How an error names this cell."""
        return f"{self.kind} cell" + (f" of `{self.name}`" if self.name else "")


def cell_from(cell_type: str, source: str, metadata: dict[str, Any]) -> Cell:
    """A notebook's cell by the part its metadata gives it."""
    if cell_type != "code":
        return Cell("markdown" if cell_type == "markdown" else "other", source)
    kinds: tuple[CellKind, ...] = ("exercise", "check", "given", "prediction")
    for kind in kinds:
        if kind in metadata:
            return Cell(kind, source, str(metadata[kind]))
    return Cell("setup" if "setup" in metadata.get("tags", []) else "other", source)


def identity(cell: Any) -> tuple[str, str]:
    """By what a notebook's cell is known where it has lost its id: its kind, with its name or else its text."""
    role = cell_from(cell.cell_type, cell.source, cell.metadata)
    return role.kind, role.name or role.source


def calls_of(function: str, tree: ast.AST) -> list[ast.Call]:
    """The calls in a cell of what is known there by that name."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == function]


def guess_in(source: str) -> slice | None:
    """Where in a prediction's cell the guess stands; None where there is no single call of `predict` with one."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return None
    guesses = [word.value for call in calls_of("predict", tree) for word in call.keywords if word.arg == "guess"]
    if len(guesses) != 1:
        return None
    lines = source.splitlines(keepends=True)

    def place(line: int, column: int) -> int:  # the syntax tree counts bytes
        return sum(map(len, lines[: line - 1])) + len(lines[line - 1].encode()[:column].decode())

    node = guesses[0]
    return slice(place(node.lineno, node.col_offset), place(node.end_lineno or 1, node.end_col_offset or 0))


def without_markers(source: str) -> str:
    """A solution's source without the lines that mark where the solution begins and ends."""
    lines = source.splitlines()
    return "\n".join(line for line in lines if line.strip() not in (BEGIN_SOLUTION, END_SOLUTION))
