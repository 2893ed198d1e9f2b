"""Whether a notebook's cell that was to define what is checked did not run, so that an older one is checked."""

import ast
import re
import sys
from typing import Any


def not_from_the_last_cell(name: str) -> str:
    """A warning where the last cell that defines `name` has a SyntaxError; otherwise "".

    name: of a class or function. What is checked is then what an earlier cell defined.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    history = getattr(getattr(shell, "history_manager", None), "input_hist_raw", None)
    if shell is None or not history:
        return ""
    defines = re.compile(rf"^\s*(class|(async )?def) +{re.escape(name)}\b", re.MULTILINE)
    source = next((cell for cell in reversed(history) if defines.search(cell)), "")
    error = _syntax_error(shell, source)
    if error is None:
        return ""
    where = f"line {error.lineno}: " if error.lineno else ""
    return (
        f"The last cell that defines `{name}` has a SyntaxError ({where}{error.msg}), so it did not run."
        f" This report is about the `{name}` from before."
    )


def _syntax_error(shell: Any, source: str) -> SyntaxError | None:
    try:
        ast.parse(shell.transform_cell(source))
    except SyntaxError as error:
        return error
    return None
