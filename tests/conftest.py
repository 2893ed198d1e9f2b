"""What every test starts from: no network, fixed seeds, and one place that says why a test can't run here."""

import importlib.util
import os
import random
import shutil
from pathlib import Path

# Before huggingface_hub is imported: it reads this once. Tests of the hub set their own, in processes of their own.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import pytest
from hypothesis import settings

PROJECT = Path(__file__).resolve().parent.parent

# The same examples every time, so that a failure in CI is one that anybody can repeat.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


def chromium() -> str | None:
    """The browser that is driven, or None."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def why_no_browser() -> str:
    """What the browser tests lack here, or an empty string."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed (pip install -e '.[test]')"
    if chromium() is None:
        return "chromium is not installed (sudo apt install chromium)"
    return ""


# What takes longest comes first, so that two workers end together. A file that is not named here comes after these.
LONGEST_FIRST = (
    "test_every_lesson.py",
    "test_grading.py",
    "test_mutants.py",
    "test_browser.py",
    "test_nbgrader.py",
    "test_cli.py",
    "test_mistakes.py",
    "test_attacks.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: at for at, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))
    reason = why_no_browser()
    for item in items:
        if reason and item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.skip(reason=f"browser test: {reason}"))


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Every test draws the same random numbers."""
    import torch

    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def project() -> Path:
    """The project's folder. Tests read it; what they write goes to tmp_path."""
    return PROJECT


@pytest.fixture(scope="session")
def test_output() -> Path:
    """Where tests leave what a person may want to look at. Not in git."""
    folder = PROJECT / "test-output"
    folder.mkdir(exist_ok=True)
    return folder
