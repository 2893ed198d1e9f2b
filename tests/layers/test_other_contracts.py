"""Modules with contracts of their own are not blamed for what is wrong around them, and are for their own errors."""

from functools import cache

import pytest
from other_contracts import BUGS, CONFIGS, program
from small_references import small

from grader.layers.rows import LayerReport
from grader.layers.wording import report_lines
from grader.porting.comparing import program_report
from grader.porting.reference import Reference
from grader.report import to_text

pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("small_references")
PLANTED = [(name, bug) for name, bugs in BUGS.items() for bug in bugs]


@cache
def reference(name: str) -> Reference:
    return small(CONFIGS[name])


def report_of(name: str, *bugs: str) -> LayerReport:
    return program_report(program(name, *(BUGS[name][bug] for bug in bugs)), reference(name).trace)


def text(report: LayerReport) -> str:
    return to_text(report_lines(report, "all"))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_right_program_with_other_contracts_is_right(name: str) -> None:
    report = report_of(name)
    assert report.ok, text(report)


@pytest.mark.parametrize(("name", "bug"), PLANTED)
def test_a_bug_among_other_contracts_is_named_where_it_is(name: str, bug: str) -> None:
    report = report_of(name, bug)
    assert not report.ok and report.culprit is not None, text(report)
    assert report.culprit.path.endswith(BUGS[name][bug][2]) or report.culprit.type == BUGS[name][bug][2], text(report)


def test_there_are_twenty_bugs_in_each() -> None:
    assert all(len(bugs) >= 20 for bugs in BUGS.values())


def test_what_a_right_module_leaves_to_its_caller_is_said() -> None:
    found = text(report_of("Hybrid", "the gate before the norm"))
    assert "is not to blame: what is yet to be multiplied by the SiLU of the reference's `gate`" in found


def test_a_step_over_neighbours_counts_as_right_where_only_the_order_differs() -> None:
    rows = {row.name: row for row in report_of("Sparse", "scores not scaled").rows}
    assert rows["layers.0.attention:rope[0]"].outcome.note == "another way: the same values in another order"


def test_tokens_of_joined_texts_show_numbers_where_they_are_wrong() -> None:
    rows = {row.name: row for row in report_of("Sparse", "scores not scaled").rows}
    wrong = rows["layers.0.attention"].outcome
    assert not wrong.ok and wrong.max > 0 and wrong.mean > 0 and "other layout, [28, 64] for [2, 14, 64]" in wrong.note


def test_a_mask_of_joined_texts_is_told_in_tokens() -> None:
    assert "a `mask` that reaches 9 tokens too far back" in text(report_of("Sparse", "no window"))
