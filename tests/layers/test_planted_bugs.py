"""Bugs that were planted in ports of architectures that are no plain transformers: each is named, or its step is."""

from functools import cache

import pytest
from planted_bugs import BUGS, CONFIGS, OTHER_WAYS, port
from small_references import small

from grader.instruments.rounding import another_processor
from grader.layers.debugger import layer_report
from grader.layers.wording import report_lines
from grader.porting.reference import Reference
from grader.report import to_text

pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("small_references")


@cache
def reference(family: str) -> Reference:
    return small(CONFIGS[family])


@pytest.mark.parametrize("family", CONFIGS)
def test_a_right_port_with_another_order_of_operations_is_right(family: str) -> None:
    found = reference(family)
    report = layer_report(port(found.model, *OTHER_WAYS[family]), found.trace)
    assert report.ok, to_text(report_lines(report, "all"))
    with another_processor(7):
        report = layer_report(found.model, found.trace)
    assert report.ok, to_text(report_lines(report, "all"))


@pytest.mark.parametrize(("family", "bug"), [(family, bug) for family, bugs in BUGS.items() for bug in bugs])
def test_a_planted_bug_is_named_or_its_step_is(family: str, bug: str) -> None:
    change, culprit = BUGS[family][bug]
    found = reference(family)
    report = layer_report(port(found.model, change), found.trace)
    assert not report.ok and report.culprit is not None, to_text(report_lines(report, "all"))
    assert report.culprit.path.endswith(culprit), to_text(report_lines(report))


def test_there_are_twelve_bugs_of_each_family() -> None:
    assert len(BUGS) >= 8 and all(len(bugs) >= 12 for bugs in BUGS.values())
