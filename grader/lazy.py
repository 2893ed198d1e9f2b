"""Names of a package that are imported on first use, so that importing the package alone is quick."""

import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def on_first_use(package: str, homes: Mapping[str, str], modules: Sequence[str] = ()) -> Callable[[str], Any]:
    """The `__getattr__` of a package. homes: the module that each name is in; modules: names that are modules of it.

    Type checkers and editors know the names from imports under TYPE_CHECKING, as ``from home import name as name``.
    """

    def __getattr__(name: str) -> Any:
        if name not in homes and name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        collecting = gc.isenabled()
        gc.disable()  # else one collection in the middle walks through all of torch, which takes as long as the import
        try:
            value = import_module(f"{package}.{name}") if name in modules else getattr(import_module(homes[name]), name)
        finally:
            if collecting:
                gc.enable()
        setattr(sys.modules[package], name, value)  # also where a module of that name was loaded meanwhile
        return value

    return __getattr__
