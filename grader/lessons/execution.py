"""Run a notebook without a person: for ``grader check`` and ``grader build``."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jupyter_core.utils import ensure_event_loop
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from grader.errors import GraderError

TIMEOUT_SECONDS = 600


class ExecutionStopped(GraderError):
    """A notebook did not run to its end: a cell raised, took too long, or took the kernel down."""


def execute_notebook(
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
    Raises ExecutionStopped where the notebook did not run to its end; outputs up to there are kept. Raises
    KeyboardInterrupt where a person stopped it.
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
        resources={"metadata": {"path": str(cwd)}},
        # Critical errors alone: it warns about its transport otherwise, and shows a traceback when it is ended.
        extra_arguments=["--IPKernelApp.log_level=50"],
        on_cell_execute=started,
    )
    client.log.disabled = True  # what it logs is in the errors below
    # Without this variable the kernel warns on our stderr about Python's frozen modules.
    environment = {**os.environ, "PYDEVD_DISABLE_FILE_VALIDATION": "1", **(env or {})}
    ensure_event_loop(prefer_selector_loop=True)  # as Jupyter does: Windows' usual loop can't wait for a socket of zmq
    try:
        _execute(client, cwd=str(cwd), env=environment)
    except CellExecutionError as error:
        raise ExecutionStopped(f"cell {running + 1} raised {one_line(error.ename, error.evalue)}") from None
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
    finally:
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = _joined_streams(cell.outputs)
    return notebook


def _execute(client: NotebookClient, **options: Any) -> None:
    try:
        client.execute(**options)
    except Exception:
        # At Ctrl-C nbclient ends its kernel, and what waits for that fails in one of several ways.
        if getattr(client, "_async_cleanup_kernel_future", None) is not None:
            raise KeyboardInterrupt from None
        raise


def _joined_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """The outputs, with pieces of one stream that follow each other put together.

    What stands between two pieces stays there: a line that is printed before each of several reports is above its own.
    nbclient's `coalesce_streams` would put all that a cell prints in the place of the first line.
    """
    joined: list[NotebookNode] = []
    for output in outputs:
        if joined and output.output_type == "stream" == joined[-1].output_type and output.name == joined[-1].name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def one_line(name: str, message: str) -> str:
    first_line = message.strip().partition("\n")[0]
    return f"{name}: {first_line}" if first_line else name
