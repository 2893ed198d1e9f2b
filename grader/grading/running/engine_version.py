"""The engine's version: what was graded by other code is graded anew.

It covers the packages that can change what a submission earns or what the student is told, whole: a word in one of
them regrades a class, which takes minutes and happens once a release; a word in the panel of cache sizes does not.
"""

from functools import cache
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from grader.digest import digest
from grader.package import distribution, package_folder

# Of this package: its own modules, and of the rooms those that running/run.py and the jailed child import.
DECIDING = ("*.py", *(f"{room}/**/*.py" for room in (
    "checks", "grading/running", "grading/sandbox", "lessons", "recordings"
)))  # fmt: skip


@cache
def engine_version() -> str:
    """The package's version, and a digest of the code that decides about verdicts."""
    try:
        number = distribution().version
    except PackageNotFoundError:
        number = "0"
    return f"{number}+{digest_of_code(package_folder())[:12]}"


def digest_of_code(package: Path) -> str:
    """A digest of the code that decides about verdicts. package: the folder that holds it."""
    paths = sorted({path.relative_to(package).as_posix() for pattern in DECIDING for path in package.glob(pattern)})
    return digest(b"".join(path.encode() + b"\0" + (package / path).read_bytes() for path in paths))
