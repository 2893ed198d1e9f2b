"""What of a lesson's folder learners get: an allow-list, so that nothing else of an author's is ever released."""

from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

FILES = ("*.ipynb", "reference.safetensors")
FOLDERS = ("configs", "texts", "figures")
NEVER = ("*.py", "*.pyc", "*.toml", "__pycache__", ".*", "*.bak", "*.log")


def not_released(root: Path) -> list[str]:
    """Names and patterns that nbgrader has to ignore, for all that lies in ``root/solutions`` now."""
    others = (path for path in (root / "solutions").glob("*/*") if not _is_allowed(path))
    return sorted({*NEVER, *(path.name for path in others)})


def leaked(release: Path, files: Iterable[Path]) -> list[Path]:
    """Those of a released lesson's files, below `release`, that learners should not get."""
    return [path for path in files if not _may_go(path.relative_to(release))]


def allowed(folder: Path, files: Iterable[Path]) -> set[Path]:
    """Those of a lesson's files, below `folder`, that learners get, by their places in it."""
    return {relative for path in files if _may_go(relative := path.relative_to(folder))}


def _may_go(relative: Path) -> bool:
    first, *deeper = relative.parts
    return _matches(first, FOLDERS if deeper else FILES) and not any(_matches(part, NEVER) for part in relative.parts)


def _is_allowed(path: Path) -> bool:
    return _matches(path.name, FOLDERS if path.is_dir() else FILES)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
