"""In a learner's kernel: a name that is not defined since the cell that defines it has not run yet.

Somebody who opens a lesson to go on with its fifth exercise runs that cell first, in a kernel that knows nothing.
Python says `NameError: name 'check' is not defined`; below that stands which cell defines it. `grader lab` has each
kernel load this extension of IPython's. It changes no cell and adds no name, and what it can't find out it does not
say.
"""

import ast
import contextlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbformat import NotebookNode

RUN_ABOVE = "Run > Run All Above Selected Cell runs it and all others, up to the first that fails."


def load_ipython_extension(shell: Any) -> None:
    """By this IPython starts it."""

    def with_origin(
        _: Any, kind: type[NameError], error: NameError, trace: TracebackType, tb_offset: int | None = None
    ) -> None:
        with contextlib.suppress(Exception):
            history = [text for text in shell.history_manager.input_hist_raw if text]
            if note := origin(error.name or "", _code_cells(), history[:-1], history[-1]):
                error.add_note(note)
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)

    shell.set_custom_exc((NameError,), with_origin)


def origin(name: str, cells: "Sequence[NotebookNode]", ran: Iterable[str], running: str) -> str:
    """Where a name comes from that is not defined in the cell `running`: a sentence, or nothing where it isn't known.

    cells: the notebook's code cells. ran: the sources of what was run before. Of several cells above that define it,
    the last one counts.
    """
    sources = [cell.source.strip() for cell in cells]
    place = sources.index(running.strip()) if running.strip() in sources else len(sources)
    found = next((i for i in reversed(range(place)) if name in defined(sources[i])), None)
    if found is None or sources[found] in {text.strip() for text in ran}:
        return ""
    if exercise := cells[found].metadata.get("exercise"):
        which = f"the cell of exercise `{exercise}`"
    elif found == 0:
        which = "the lesson's first code cell"
    else:
        which = f"the cell that begins with `{sources[found].splitlines()[0]}`"
    return f"`{name}` comes from {which}, which has not run since the kernel started.\n{RUN_ABOVE}"


def defined(source: str) -> set[str]:
    """The names that a cell defines, those in its functions and classes not counted; none where it is no Python."""
    try:
        todo: list[ast.AST] = [ast.parse(source)]
    except SyntaxError:  # magics among others
        return set()
    names = set()
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif not isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            todo += ast.iter_child_nodes(node)
    return names


def _code_cells() -> "list[NotebookNode]":
    """Those of the notebook that this kernel is for, as it was last saved."""
    from grader.lessons.notebooks import read_notebook

    named = Path(os.environ.get("JPY_SESSION_NAME", ""))
    (path,) = [named] if named.is_file() else Path.cwd().glob("*.ipynb")
    return [cell for cell in read_notebook(path).cells if cell.cell_type == "code"]
