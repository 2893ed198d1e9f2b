"""Where this package's own files are, wherever in it the asking module stands."""

from functools import cache
from importlib.resources import files
from pathlib import Path


@cache
def package_folder() -> Path:
    """The folder of the package `grader`, as Python found it."""
    return Path(str(files("grader")))
