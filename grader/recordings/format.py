"""The file's name and format, and the versions of what a recording is made with."""

from importlib.metadata import PackageNotFoundError, version

from grader.errors import RecordingError

RECORDING = "reference.safetensors"
FORMAT = 1


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
