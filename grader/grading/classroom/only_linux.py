"""Where grading can run at all."""

import importlib.util
import sys

from grader.errors import GraderError


def refuse_elsewhere(on_a_cluster: bool = False) -> None:
    """Raise GraderError where submitted code can't be run: its jail needs Linux.

    on_a_cluster: other machines run it; this one then only needs the file locks of a Unix.
    It comes before everything that imports what only Linux has.
    """
    if sys.platform == "linux" or (on_a_cluster and importlib.util.find_spec("fcntl")):
        return
    raise GraderError(
        "grading runs submitted code in a jail, which needs Linux: grade there, in a container, or in WSL."
        " docs/grading.md has a recipe."
    )
