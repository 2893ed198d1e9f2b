"""Plots of `grader.instruments` as pictures with words, readable in light and dark."""

import re
from xml.etree import ElementTree

import nbformat
import pytest
import torch

from grader.authoring.outputs import without_html_of_a_picture
from grader.instruments import plots
from grader.instruments.picture import COLOURS, DARK_INK, DARK_PAPER, FAINT, INK

CHARTS = {
    "lines": plots.lines({"one": ([1, 2, 4], [1, 3, 9]), "two": (range(3), [2, 2, 2])}, plots.Axes("tokens", "ms")),
    "bars": plots.bars({"GPT-2": 3.0, "Qwen3": 40_960}),
    "pieces": plots.bars({"GPT-2": {"MLP": 2, "norms": 1}, "Qwen3": {"MLP": 3}}, plots.Axes("share")),
    "grid": plots.grid([[1, -2], [3, 0.5]], plots.Axes(title="a grid"), "loss", "+.1f"),
    "maps": plots.maps(torch.eye(3).expand(2, 4, 3, 3), "layer {row}, head {column}"),
    "squares": plots.squares(torch.ones(3, 3).tril(), "abc", "abc", "causal", split=1),
}
CHARTS["beside"] = plots.beside(CHARTS["lines"], CHARTS["squares"])
every_chart = pytest.mark.parametrize("chart", CHARTS.values(), ids=CHARTS)


@every_chart
def test_a_picture_has_its_words_wherever_it_is_shown(chart: plots.Picture) -> None:
    data, metadata = chart._repr_mimebundle_()
    assert len(chart.text) > 10 and data["text/plain"] == chart.text == metadata["image/png"]["alt"]
    assert re.match(r'<img alt="[^"]{10,}"', data["text/html"])
    svg = ElementTree.fromstring(chart.svg())
    names = {child.tag.rpartition("}")[2]: child.text for child in svg}
    assert svg.get("role") == "img" and names["title"] and names["desc"]


@every_chart
def test_a_pictures_paper_and_ink_follow_light_and_dark(chart: plots.Picture) -> None:
    drawn = chart.svg()
    assert "prefers-color-scheme: dark" in drawn and "var(--paper)" in drawn
    left = drawn.partition("</style>")[2]
    assert INK not in left and "#000000" not in left  # nothing is drawn in black that stays black


def test_of_a_picture_the_png_is_stored_with_its_words() -> None:
    data, metadata = CHARTS["lines"]._repr_mimebundle_()
    output = nbformat.v4.new_output("execute_result", data=data, metadata=metadata)
    without_html_of_a_picture(output)
    assert set(output.data) == {"image/png", "text/plain"} and output.metadata["image/png"].alt == CHARTS["lines"].text
    report = nbformat.v4.new_output("display_data", data={"text/html": "<p>", "text/plain": ""})
    without_html_of_a_picture(report)
    assert "text/html" in report.data


def test_lines_say_where_they_begin_and_end() -> None:
    assert "one: from 1 at 1 to 9 at 4; two: from 2 at 0 to 2 at 2" in CHARTS["lines"].text


def test_squares_say_who_sees_whom() -> None:
    assert "6 of 9 pairs. a sees a; b sees a, b; c sees a, b, c" in CHARTS["squares"].text


def test_a_grid_says_where_its_largest_number_is() -> None:
    assert "from -2 to 3; the largest in row 1, column 0" in CHARTS["grid"].text


def test_a_curve_without_its_points_is_refused() -> None:
    with pytest.raises(ValueError, match="'one' has 2 x values and 1 y values"):
        plots.lines({"one": ([1, 2], [1])})


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colour", [*COLOURS, FAINT])
def test_every_colour_stands_out_from_light_and_dark_paper(colour: str) -> None:
    assert contrast(colour, "#ffffff") >= 3 and contrast(colour, DARK_PAPER) >= 3


def test_ink_can_be_read_on_either_paper() -> None:
    assert contrast(INK, "#ffffff") >= 7 and contrast(DARK_INK, DARK_PAPER) >= 7
