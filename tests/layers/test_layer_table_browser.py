"""A layer table as a browser shows it: no number and no verdict is cut off where there is little room."""

from typing import Literal

import pytest
from jupyterlab_driver import running_browser

from conftest import chromium
from grader.report import Line, row
from grader.report_page import to_page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

TABLE = [
    Line(
        "✗ Start here: `layers.0.self_attn.kv_a_layernorm` (RMSNorm): it is wrong even on the reference's input.", "bad"
    ),
    row("head", "", "module", "max", "mean", ""),
    row("row_ok", "[OK]", "embed_tokens", "0", "0", ""),
    row("row_dim", "[DIFF]", "  layers.0.self_attn", "4.7e-01", "9.7e-02", "error inside"),
    row("row_guilty", "[DIFF]", "    layers.0.self_attn.kv_a_layernorm", "5.9e-01", "1.1e-01", "own error"),
    row("row_ok", "[OK]", "    layers.0.self_attn.kv_a_proj_with_mqa", "0", "0", ""),
    row(
        "row_dim", "[DIFF]", "    layers.0.self_attn.o_proj", "4.7e-01", "9.7e-02", "inherited; the shape is [2, 7, 48]"
    ),
]
CUT = """() => [...document.querySelectorAll('td')].filter(cell => {
    const text = document.createRange(); text.selectNodeContents(cell);
    return text.getBoundingClientRect().right > innerWidth || cell.scrollWidth > cell.clientWidth + 1;
}).map(cell => cell.innerText)"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [800, 400])
def test_names_wrap_so_that_numbers_and_verdicts_stay(width: int, scheme: Literal["light", "dark"]) -> None:
    with running_browser(chromium() or "") as browser:
        page = browser.new_page(viewport={"width": width, "height": 700}, color_scheme=scheme)
        page.set_content(to_page(TABLE, "Layers"))
        assert page.evaluate(CUT) == []
        assert page.evaluate(
            "document.querySelector('.table').scrollWidth <= document.querySelector('.table').clientWidth"
        )
        assert page.locator("tr.row_guilty td").last.inner_text() == "own error"
        numbers = page.locator("tr.row_guilty .num").evaluate_all("cells => cells.map(cell => cell.innerText)")
        assert numbers == ["5.9e-01", "1.1e-01"]
        assert page.locator("td", has_text="kv_a_layernorm").inner_text().strip() == "layers.0.self_attn.kv_a_layernorm"
