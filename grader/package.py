"""Where this package's own files are, wherever in it the asking module stands."""

from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, entry_points
from importlib.resources import files
from pathlib import Path


@cache
def package_folder() -> Path:
    """The folder of the package `grader`, as Python found it."""
    return Path(str(files("grader")))


@cache
def distribution() -> Distribution:
    """What is installed of this package: its name, version and addresses, as pyproject.toml has them.

    Raises PackageNotFoundError where it runs without being installed.
    """
    for command in entry_points(group="console_scripts", name="grader"):
        if command.value == "grader.cli:main" and command.dist is not None:
            return command.dist
    raise PackageNotFoundError("grader")
