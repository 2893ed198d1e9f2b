"""Real, trained weights on this machine."""

import shutil
import textwrap
from typing import Annotated

import typer

FROM = {"cached": "hub", "packaged": "package"}  # where a checkpoint on this machine has come from
NOT_HERE = ("hub", "package", "missing")


def weights_list() -> None:
    """Say which there are, and which are on this machine."""
    from grader.checkpoints import list_checkpoints

    width = min(shutil.get_terminal_size().columns, 100)
    listed = list_checkpoints()
    print(f"{'name':<22} {'from':<9} {'parameters':>11} {'download':>9} {'on disk':>9}")
    for item in listed:  # not in a table, which in a narrow terminal would cut licences off
        parameters = "" if item.parameters is None else f"{item.parameters / 1e6:,.1f} M"
        here = item.place not in NOT_HERE
        sizes = [None if item.size is None or not here else item.size, item.download]
        on_disk, download = ("" if size is None else f"{size / 1e6:,.0f} MB" for size in sizes)
        licence = f"{item.licence} (gated)" if item.gated else item.licence
        print(f"{item.name:<22} {FROM.get(item.place, item.place):<9} {parameters:>11} {download:>9} {on_disk:>9}")
        print(textwrap.fill(f"{item.description}. {licence}", width, initial_indent="    ", subsequent_indent="    "))
    print(
        "\nThose with a size on disk are on this machine. `grader weights get NAME` brings another: of the Hugging Face"
    )
    print("hub it downloads the files; of a Python package it converts them once, after pip has installed it.")
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
