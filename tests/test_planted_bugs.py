"""Bugs that were planted in ports of architectures that are no plain transformers: each is named, or its step is."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from planted_bugs import BUGS, CONFIGS, OTHER_WAYS, port

from grader.instruments.rounding import another_processor
from grader.layers.compare import layer_report, report_lines
from grader.porting.reference import Reference, small_reference
from grader.report import to_text

pytest.importorskip("transformers")
_folder = ""


@pytest.fixture(scope="module", autouse=True)
def quick_and_at_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """These models are so small that threads only wait for one another."""
    global _folder
    _folder = str(tmp_path_factory.mktemp("configs"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    reference.cache_clear()


@cache
def reference(family: str) -> Reference:
    path = Path(_folder) / "config.json"
    path.write_text(json.dumps(CONFIGS[family]))
    return small_reference(path)


@pytest.mark.parametrize("family", CONFIGS)
def test_a_right_port_with_another_order_of_operations_is_right(family: str) -> None:
    found = reference(family)
    report = layer_report(port(found.model, *OTHER_WAYS[family]), found.trace())
    assert report.ok, to_text(report_lines(report, "all"))
    with another_processor(7):
        report = layer_report(found.model, found.trace())
    assert report.ok, to_text(report_lines(report, "all"))


@pytest.mark.parametrize(("family", "bug"), [(family, bug) for family, bugs in BUGS.items() for bug in bugs])
def test_a_planted_bug_is_named_or_its_step_is(family: str, bug: str) -> None:
    change, culprit = BUGS[family][bug]
    found = reference(family)
    report = layer_report(port(found.model, change), found.trace())
    assert not report.ok and report.culprit is not None, to_text(report_lines(report, "all"))
    assert report.culprit.path.endswith(culprit), to_text(report_lines(report))


def test_there_are_twelve_bugs_of_each_family() -> None:
    assert len(BUGS) >= 6 and all(len(bugs) >= 12 for bugs in BUGS.values())
