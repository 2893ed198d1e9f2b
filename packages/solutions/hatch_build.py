"""Puts every lesson's worked notebook, and nothing else of its author's, into the package of solutions."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "grader_solutions"


class WorkedNotebooks(BuildHookInterface):
    """Takes the notebooks from the clone around this folder."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See hatchling's documentation of build hooks."""
        root = Path(self.root)
        build_data["force_include"][str(root / "package.py")] = f"{PACKAGE}/__init__.py"
        for notebook in sorted((root.parents[1] / "solutions").glob("*/*.ipynb")):
            build_data["force_include"][str(notebook)] = f"{PACKAGE}/{notebook.parent.name}/{notebook.name}"
