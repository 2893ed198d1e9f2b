"""What every test starts from: no network, fixed seeds, and one place that says why a test can't run here."""

import contextlib
import gc
import importlib.util
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before huggingface_hub is imported: it reads this once. Tests of the hub set their own, in processes of their own.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import providers

from grader.instruments.rounding import another_processor

PROJECT = Path(__file__).resolve().parent

pytest_plugins = ["proofs"]  # tests/support

# The same examples every time, so that a failure in CI is one that anybody can repeat.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
# Hypothesis also tries constants of whatever modules of ours are imported, and these depend on what ran before.
providers.is_local_module_file = lambda path: False


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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lesson", action="append", help="run only what is about lessons of these names")
    parser.addoption("--seconds", type=float, help="skip the tests that have not begun by then, and say so")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Workers share the tests by file; of those that are about one lesson, wherever they stand, one worker has all.

    So a lesson's recordings are made and its trained weights are read once.
    """
    if config.getoption("dist") != "loadscope":
        return None
    from proofs import lesson_of  # a plugin, which pytest imports itself
    from xdist.scheduler import LoadScopeScheduling

    class ByLesson(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return lesson_of(nodeid) or str(super()._split_scope(nodeid))

    return ByLesson(config, log)


# What takes longest comes first, so that the workers end together; then lesson by lesson, then all other files.
LONGEST_FIRST = (
    "test_grading.py",
    "test_browser.py",
    "test_nbgrader.py",
    "test_attacks.py",
    "test_cli.py",
    "test_capstone.py",
    "test_trace.py",
    "test_planted_bugs.py",
    "test_checks.py",
    "test_capstone_class.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    from proofs import lesson_of  # a plugin, which pytest imports itself

    if names := config.getoption("--lesson"):
        asked = [lesson_of(item.nodeid) in names for item in items]
        config.hook.pytest_deselected(items=[item for item, wanted in zip(items, asked, strict=True) if not wanted])
        items[:] = [item for item, wanted in zip(items, asked, strict=True) if wanted]
    place = {name: at for at, name in enumerate(LONGEST_FIRST)}
    if not config.getoption("--seconds"):  # where there is not time for all, what was named first comes first
        items.sort(key=lambda item: (place.get(item.path.name, len(place)), lesson_of(item.nodeid) or "~"))
    reason = why_no_browser()
    for item in items:
        if reason and item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.skip(reason=f"browser test: {reason}"))


BEGAN = time.monotonic()


def pytest_runtest_setup(item: pytest.Item) -> None:
    limit = item.config.getoption("--seconds")
    if limit and time.monotonic() - BEGAN > limit:
        pytest.skip(f"after {limit:g} s nothing is begun: `make test` runs it")


gc.disable()  # while the tests are collected: what is imported stays, and is walked through nineteen times else


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.freeze()
    gc.set_threshold(700, 10, 100)  # what is imported by tests stays too: only what is new is looked through as often
    gc.enable()


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Every test draws the same random numbers."""
    import torch

    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def processor() -> Iterator[None]:
    """ANOTHER_PROCESSOR=3 runs every test as on another machine, whose roundings the number picks."""
    seed = os.environ.get("ANOTHER_PROCESSOR")
    with another_processor(int(seed)) if seed else contextlib.nullcontext():
        yield


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


@pytest.fixture
def grader(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Runs the command in this process: its exit code, what it prints, and what it complains of."""
    from grader.cli import main

    def run(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["grader", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            main()
        printed = capsys.readouterr()
        code = done.value.code
        assert isinstance(code, int | None)
        return code or 0, printed.out, printed.err

    return run


@pytest.fixture(scope="module")
def small_references(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For modules that use support/small_references.py: their models are so small that threads only wait for others."""
    import torch
    from small_references import HOME

    HOME.append(tmp_path_factory.mktemp("configs"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    HOME.pop()
    request.module.reference.cache_clear()
