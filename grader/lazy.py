"""Names of a package that are imported on first use, so that importing the package alone is quick."""

import ast
import gc
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def on_first_use(package: str, file: str) -> tuple[Callable[[str], Any], list[str]]:
    """The `__getattr__` and the `__all__` of a package, whose source is `file`.

    They are of the names that it imports under ``if TYPE_CHECKING:``, as ``from home import name as name``: from there
    type checkers and editors know them, and a name is written once.
    """
    with open(file, encoding="utf-8") as source:
        tree = ast.parse(source.read())
    known = [node for block in tree.body if isinstance(block, ast.If) for node in block.body]
    homes = {a.name: node.module or "" for node in known if isinstance(node, ast.ImportFrom) for a in node.names}

    def __getattr__(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        collecting = gc.isenabled()
        gc.disable()  # else one collection in the middle walks through all of torch, which takes as long as the import
        try:
            own_module = homes[name] == package
            value = import_module(f"{package}.{name}") if own_module else getattr(import_module(homes[name]), name)
        finally:
            if collecting:
                gc.enable()
        setattr(sys.modules[package], name, value)  # also where a module of that name was loaded meanwhile
        return value

    return __getattr__, sorted(homes)
