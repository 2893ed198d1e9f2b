"""The file's name and format, and the versions of what a recording is made with."""

import re
from importlib.metadata import PackageNotFoundError, version

from grader.errors import RecordingError

RECORDING = "reference.safetensors"
FORMAT = 1
# Where a mistake shipped: an issue or a pull request on GitHub, or a commit.
SHIPPED = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(#(?P<issue>\d+)|@(?P<commit>[0-9a-f]{7,40}))")


def versions() -> dict[str, str]:
    """The versions of what computes the reference's values."""
    found = {}
    for package in ("torch", "transformers"):
        try:
            found[package] = version(package).split("+")[0]
        except PackageNotFoundError:
            raise RecordingError(
                f"{package} is not installed, and recording needs it: pip install -e '.[reference]'"
            ) from None
    return found
