"""What must hold of a lesson's cells before anything is built from them."""

import ast
from collections.abc import Iterable

from grader.errors import RecordingError
from grader.lessons.cells import BEGIN_SOLUTION, END_SOLUTION, Cell, calls_of


def validate_cells(cells: Iterable[Cell], where: str) -> None:
    cells = list(cells)
    _validate_predictions(cells, where)
    written = [cell.name for cell in cells if cell.kind == "exercise"]
    checked = [cell.name for cell in cells if cell.kind == "check"]
    if repeated := repeated_names(written):
        raise RecordingError(f"{where} has more than one solution cell for `{repeated[0]}`.")
    if repeated := repeated_names(checked):
        raise RecordingError(f"{where} has more than one check cell for `{repeated[0]}`.")
    for name in checked:
        if name not in written:
            raise RecordingError(f"{where} has a check cell for `{name}`, but no solution cell for it.")
    for name in written:
        if name not in checked:
            raise RecordingError(
                f'{where} has no check cell for `{name}`. Start one with the line: # %% check="{name}"'
            )
    for cell in cells:
        if cell.kind == "exercise":
            _validate_markers(cell, where)
        elif BEGIN_SOLUTION in cell.source or END_SOLUTION in cell.source:
            raise RecordingError(f"{where}: the {cell.title} has solution markers, which only solution cells may have.")
        if cell.kind == "check" and (called := _name_checked(cell)) not in (None, cell.name):
            raise RecordingError(f"{where}: the {cell.title} calls check on `{called}`.")


def _validate_markers(cell: Cell, where: str) -> None:
    """nbgrader cuts from each BEGIN to the next END; anything else would release an answer."""
    is_open, regions = False, 0
    for line in cell.source.splitlines():
        if ("BEGIN SOLUTION" in line or "END SOLUTION" in line) and line.strip() not in (BEGIN_SOLUTION, END_SOLUTION):
            raise RecordingError(
                f"{where}: the {cell.title} has the line `{line.strip()}`; "
                f"write {BEGIN_SOLUTION} or {END_SOLUTION} alone on its line."
            )
        if line.strip() == (BEGIN_SOLUTION if is_open else END_SOLUTION):
            wanted, found = (END_SOLUTION, BEGIN_SOLUTION) if is_open else (BEGIN_SOLUTION, END_SOLUTION)
            raise RecordingError(f"{where}: the {cell.title} has {found} where {wanted} should come first.")
        if line.strip() in (BEGIN_SOLUTION, END_SOLUTION):
            is_open = not is_open
            regions += is_open
    if is_open:
        raise RecordingError(f"{where}: the {cell.title} has {BEGIN_SOLUTION} without {END_SOLUTION}.")
    if not regions:
        raise RecordingError(f"{where}: the {cell.title} has no {BEGIN_SOLUTION}, so learners would get the answer.")


def _validate_predictions(cells: list[Cell], where: str) -> None:
    """Each question has a cell of its own, in which the guess is left to the learner, and is measured below it."""
    for place, cell in enumerate(cells):
        asked = _asked_in(cell) if cell.kind in ("prediction", "other") else []
        if cell.kind == "other" and asked:
            raise RecordingError(
                f"{where}: `{asked[0][0]}` is asked in a cell that does not say so. "
                f'Start it with the line: # %% prediction="{asked[0][0]}"'
            )
        if cell.kind == "prediction" and asked != [(cell.name, True)]:
            raise RecordingError(
                f'{where}: the {cell.title} must have one call, `predict("{cell.name}", "...", guess=...)`, '
                "with the three dots for the learner to replace."
            )
        used = f'measured("{cell.name}", '
        if cell.kind == "prediction" and not any(used in later.source for later in cells[place + 1 :]):
            raise RecordingError(f"{where}: no cell below the {cell.title} has `{used}...)`, so nobody is answered.")


def _asked_in(cell: Cell) -> list[tuple[str, bool]]:
    """The questions that a cell asks, each with whether its guess is three dots."""
    found = []
    for call in calls_of("predict", _parsed(cell.source, cell.name)) if "predict(" in cell.source else ():
        if call.args:
            guess = next((word.value for word in call.keywords if word.arg == "guess"), None)
            name = call.args[0].value if isinstance(call.args[0], ast.Constant) else ""
            found.append((str(name), isinstance(guess, ast.Constant) and guess.value is ...))
    return found


def _name_checked(cell: Cell) -> str | None:
    """The exercise in a cell's call of ``check("...", ...)``, if it is spelt out there."""
    for call in calls_of("check", _parsed(cell.source, cell.name)):
        first = call.args[0] if call.args else None
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            return first.value
    return None


def defined_by(source: str, exercise: str) -> set[str]:
    definitions = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in _parsed(source, exercise).body if isinstance(node, definitions)}


def _parsed(source: str, exercise: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise RecordingError(f"A cell of `{exercise}` is not valid Python: {error.msg}, in `{line}`.") from None


def repeated_names(names: list[str]) -> list[str]:
    return [name for i, name in enumerate(names) if name in names[:i]]
