"""Spare a run's start what it has no use for. Import before anything that imports nbformat."""

import sys
from importlib import import_module

# jsonschema, which nbformat checks notebooks with, imports these where they are installed, to check two formats that no
# notebook has: an internationalised address and a duration. The first builds a grammar, which takes 0.9 seconds.
UNUSED = ("rfc3987_syntax", "isoduration")


def without_unused_formats() -> None:
    """Import jsonschema without the packages of formats that no notebook has; they can be imported afterwards."""
    if "jsonschema" in sys.modules:
        return
    spared = [name for name in UNUSED if name not in sys.modules]
    for name in spared:
        sys.modules[name] = None  # type: ignore[assignment]  # importing it fails at once, which jsonschema allows for
    try:
        import_module("jsonschema")
    finally:
        for name in spared:
            del sys.modules[name]
