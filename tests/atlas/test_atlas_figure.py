"""The figure of an architecture: deterministic, small, told in words, no text over another (measured in Chromium)."""

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from figure_measure import MEASURE
from jupyterlab_driver import CHROMIUM_FLAGS
from playwright.sync_api import Page, sync_playwright

from conftest import chromium, why_no_browser
from grader.atlas import Architecture, figure, gallery_models, read
from grader.atlas.changes import steps
from grader.atlas.drawing import parts
from grader.atlas.fields import classes

ROOT = Path(__file__).resolve().parents[2]
SVG = "{http://www.w3.org/2000/svg}"
NEEDED: dict[str, dict[str, Any]] = {
    "deepseek_v2": {"num_experts_per_tok": 6},
    "nemotron": {"head_dim": 128},
    "dots1": {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "hunyuan_v1_dense": {"head_dim": 128},
    "ministral": {"head_dim": 128},
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention"] * 4, "num_hidden_layers": 12},
}


def drawn() -> dict[str, Architecture]:
    """Every gallery model that is read, and every family at its class's defaults."""
    found = {name: model.architecture for name, model in gallery_models().items() if model.architecture}
    return found | {kind: read({"model_type": kind, **NEEDED.get(kind, {})}) for kind in classes()}


DRAWN = drawn()


def lesson_config(path: str, name: str) -> Architecture:
    return read(json.loads((ROOT / "solutions" / path).read_text()), name)


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_a_figure_is_one_small_file_with_a_title_and_a_description(name: str) -> None:
    text = figure(DRAWN[name])
    assert text == figure(DRAWN[name])
    assert len(text.encode()) < 60_000
    root = ET.fromstring(text)
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert root.get("role") == "img" and title is not None and description is not None
    assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert title.text == DRAWN[name].name and len(description.text or "") > 80
    assert "http" not in re.sub(r'xmlns="[^"]*"', "", text)  # nothing is fetched


def test_a_file_by_itself_follows_light_and_dark_in_the_colours_of_the_atlas_pages() -> None:
    style = (ROOT / "grader" / "atlas" / "static" / "style.css").read_text(encoding="utf-8")
    page = dict(re.findall(r"(--atlas-[\w-]+): (#\w+);", style))
    for model in gallery_models().values():
        if model.architecture is not None:
            drawn = figure(model.architecture)
            dark = re.findall(r"@media\(prefers-color-scheme:dark\){\.atlas:root{(.*?)}}", drawn)
            colours = dict(re.findall(r"(--atlas-[\w-]+):(#\w+);", dark[0]))
            assert colours.items() <= page.items()
            assert set(re.findall(r"var\((--atlas-[\w-]+)", drawn)) == set(colours)  # none stays as on a light page


def test_panels_fill_the_columns_of_one_file() -> None:
    """Kimi Linear's four other panels find room beside the first, and none lies over another."""
    model = DRAWN["kimi-linear-48b-a3b"]
    root, found = ET.fromstring(figure(model)), parts(model)
    assert len(found) == 5 and float(root.get("height", 0)) == pytest.approx(found[0].height, abs=1)
    places = [re.findall(r"[\d.]+", group.get("transform", "")) for group in root.findall(f"{SVG}g")]
    columns: dict[str, float] = {}
    for (x, y), part in zip(places, found, strict=True):
        assert float(y) >= columns.get(x, 0)
        columns[x] = float(y) + part.height
    assert len(columns) == 3


def test_text_is_large_enough_for_a_phone() -> None:
    """A panel of 440 pixels is drawn 358 wide there: no text of the gallery is below 8.5 pixels."""
    for name, model in DRAWN.items():
        if name in gallery_models():
            sizes = {float(size) for part in parts(model) for size in re.findall(r'font-size="([\d.]+)"', part.svg)}
            assert min(sizes) >= 8.5 * 440 / 358, name


def test_the_panel_of_compressed_attention_draws_what_is_compressed() -> None:
    panels = {part.title: part for part in parts(DRAWN["deepseek-v4-flash"])}
    svg = panels["DeepSeek V4 Flash: Compressed sparse attention, in 21 layers"].svg
    assert "compressor" in svg and "4 tokens → 1" in svg and "for every 4 tokens of the text: 512 + 128" in svg
    window = panels["DeepSeek V4 Flash: Multi-query attention, in 2 layers"].svg
    assert "compressor" not in window
    rows = ("RoPE backwards on 64 of 512", "each is key and value", "it is key and value", "kv_norm", "kv_proj")
    assert boxes_of(svg, *rows) == [rows[0], rows[1], "kv_norm", "kv_norm", "kv_proj"]
    assert boxes_of(window, *rows) == [rows[0], rows[2], "kv_norm", "kv_proj"]  # its value is normed and turned, too
    assert ">SiLU; gate and up clamped at 10<" in panels["DeepSeek V4 Flash: 256 SwiGLU experts"].svg


@pytest.mark.parametrize(
    ("slug", "words"),
    [
        ("deepseek-v3", "context 163,840, by YaRN from 4,096, factor 40"),
        ("gemma-3-27b", "context 131,072, by linear scaling, factor 8"),
        ("llama-3.2-1b", "context 131,072, by Llama 3&#x27;s scaling from 8,192, factor 32"),
        ("phi-4-mini", "context 131,072, by LongRoPE from 4,096"),
    ],
)
def test_a_context_that_scaled_rope_reaches_says_so(slug: str, words: str) -> None:
    model = parts(DRAWN[slug])[0]
    assert f">{words}<" in model.svg and model.svg.count("context") == 2  # in the header, and in the description
    compared_ = parts(DRAWN[slug], DRAWN["gpt2"])[0]
    assert f">{words}<" in compared_.svg and compared_.height - model.height >= 9  # room for the legend of rings
    assert "by " not in parts(DRAWN["qwen3-8b"])[0].svg


def test_soft_caps_are_drawn_where_the_model_has_them() -> None:
    model, attention, *_ = parts(DRAWN["gemma-2-9b"])
    assert ">logits capped at ±30<" in model.svg and ">scores capped at ±50<" in model.svg
    assert ">softmax( 50 · tanh( s / 50 ) + mask ) · v<" in attention.svg
    assert "capped" not in "".join(part.svg for part in parts(DRAWN["gemma-3-27b"]))  # its files keep a field for it


@pytest.mark.parametrize(
    ("slug", "boxes"),
    [
        ("deepseek-v3.2", ["wq_b", "1,536 → 64 × 128", "wk, k_norm", "→ 128, cached", "weights_proj", "7,168 → 64"]),
        ("glm-5", ["wq_b", "2,048 → 32 × 128", "wk, k_norm", "→ 128, cached", "weights_proj", "6,144 → 32"]),
        ("deepseek-v4-flash", ["q_b_proj", "1,024 → 64 × 128", "compressor", "4 tokens → 1", "weights_proj"]),
    ],
)
def test_an_index_is_drawn_with_its_projections(slug: str, boxes: list[str]) -> None:
    svg = parts(DRAWN[slug])[1].svg
    assert all(f">{words}<" in svg for words in [*boxes, "query latent"]) and "best of Σ w · ReLU( q · kᵀ )" in svg
    assert "ReLU" not in parts(DRAWN["deepseek-v3"])[1].svg


@pytest.mark.parametrize(
    ("slug", "notes"),
    [
        ("deepseek-v4-flash", ["first 2 sliding", "compressed sparse, then heavily compressed"]),
        ("kimi-linear-48b-a3b", ["3 Kimi Delta Attention, then 1 MLA", "the last MLA", "the first dense"]),
        ("glm-5.2", ["57 look where an earlier index chose", "32 index heads of 128 choose 2,048 tokens to look at"]),
        ("gemma-3-27b", ["5 sliding, then 1 full"]),
    ],
)
def test_a_figure_says_how_its_layers_follow_one_another(slug: str, notes: list[str]) -> None:
    drawn_ = "".join(part.svg for part in parts(DRAWN[slug]))
    assert all(f">{note}<" in drawn_ for note in notes)


def test_a_long_pattern_takes_two_lines() -> None:
    svg = parts(DRAWN["lara-4-mini"])[0].svg
    assert ">Gated DeltaNet, then 1 sliding,<" in svg and ">then Gated DeltaNet, then 1 full, then 1 sliding<" in svg


def boxes_of(svg: str, *words: str) -> list[str]:
    """Which of these texts a panel has, in its order: from the top, which is the output, down."""
    return [text for text in re.findall(r">([^<>]+)<", svg.partition("</style>")[2]) if text in words]


@pytest.mark.parametrize(("kind", "first"), [("hunyuan_v1_dense", "q_norm"), ("qwen3", "RoPE: rotate by position")])
def test_a_norm_of_queries_stands_before_or_behind_rope_as_in_the_code(kind: str, first: str) -> None:
    assert boxes_of(parts(DRAWN[kind])[1].svg, "q_norm", "RoPE: rotate by position")[0] == first


def test_parts_side_by_side_have_a_norm_each_where_the_code_has_two() -> None:
    rows = ("Multi-head attention", "Multi-query attention", "GELU MLP", "LayerNorm")
    assert boxes_of(parts(DRAWN["gpt-neox-20b"])[0].svg, *rows)[1:] == [
        *("GELU MLP", "LayerNorm", "Multi-head attention", "LayerNorm")
    ]
    assert boxes_of(parts(DRAWN["falcon-7b"])[0].svg, *rows)[1:] == ["GELU MLP", "Multi-query attention", "LayerNorm"]
    sequential = read({"model_type": "gpt_neox", "use_parallel_residual": False})
    plusses = [parts(model)[0].svg.count('class="sign"') for model in (sequential, DRAWN["gpt_neox"])]
    assert plusses == [2, 1]


def test_norms_before_the_last_projections_are_drawn_and_told() -> None:
    panels = [part.svg for part in parts(DRAWN["bitnet"])]
    assert "RMSNorm before o_proj" in panels[0]
    assert ">RMSNorm before down_proj<" in panels[0]
    assert boxes_of(panels[1], "o_proj", "attn_sub_norm") == ["o_proj", "attn_sub_norm"]
    assert boxes_of(panels[2], "down_proj", "ffn_sub_norm", "×") == ["down_proj", "ffn_sub_norm"]
    assert {step.concept for step in steps(DRAWN["llama"], DRAWN["bitnet"])} >= {"norm_placement"}


@pytest.mark.parametrize(("name", "norm"), [("jamba", True), ("falcon_mamba", True), ("mamba", False)])
def test_what_mamba_selects_by_is_made_behind_the_convolution(name: str, norm: bool) -> None:
    svg = next(part.svg for part in parts(DRAWN[name]) if "x_proj" in part.svg)
    rows = ("RMSNorm of each", "x_proj: dt, B, C", "convolution over 4, SiLU", "x")
    assert sorted(boxes_of(svg, *rows)) == sorted(rows if norm else rows[1:])
    heights = {words: float(y) for y, words in re.findall(r' y="([\d.]+)"[^>]*>([^<>]+)<', svg) if words in rows}
    assert heights["x_proj: dt, B, C"] < heights["convolution over 4, SiLU"] < heights["x"]


def test_a_state_beside_attention_has_a_panel() -> None:
    model, attention, state, mlp = parts(DRAWN["falcon_h1"])
    assert (attention.name, state.name, mlp.name) == ("attention", "attention-2", "mlp")
    assert ">Mamba-2, beside attention<" in state.svg and ">beside it Mamba-2<" in model.svg


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mamba_rms_norm": False}, "× SiLU(z)"),
        ({"mamba_rms_norm": True, "mamba_norm_before_gate": True}, "RMSNorm, then × SiLU(z)"),
        ({"mamba_rms_norm": True, "mamba_norm_before_gate": False}, "× SiLU(z), then RMSNorm"),
    ],
)
def test_a_states_gate_has_its_norm_where_the_fields_say(fields: dict[str, Any], words: str) -> None:
    assert f">{words}<" in parts(read({"model_type": "falcon_h1", **fields}))[2].svg


def test_streams_are_as_many_as_the_field_says_and_experts_do_what_the_code_does() -> None:
    streams = parts(read({"model_type": "deepseek_v4", "hc_mult": 2}))[0].svg
    assert (
        ">2 streams, mixed around each part<" in streams and ">4 streams (AltUp)" in parts(DRAWN["gemma3n_text"])[0].svg
    )
    panels = {name: parts(DRAWN[name])[-1].svg for name in ("gpt_oss", "llama4_text")}
    assert ">activation: clamped SwiGLU, alpha 1.702, times (up + 1)<" in panels["gpt_oss"]
    assert ">weights multiply what experts read<" in panels["llama4_text"]


def test_differential_attention_subtracts_a_softmax() -> None:
    assert ">( softmax₁ − λ · softmax₂ ) · v<" in parts(DRAWN["diffllama"])[1].svg
    assert "softmax₁" not in parts(DRAWN["llama"])[1].svg


def test_where_longcats_experts_are_added_is_told() -> None:
    svg = parts(DRAWN["longcat-flash-560b"])[0].svg
    assert ">experts read what the first MLP reads<" in svg and "are added at the layer&#x27;s end" in svg


def test_norms_on_the_stream_are_drawn_there_with_what_multiplies_it() -> None:
    """MiniMax-01 adds what a part gives to the normed stream, and the stream is multiplied."""
    plain, scaled = (read({"model_type": "minimax", **fields}) for fields in ({}, {"mlp_alpha_factor": 3.5}))
    boxes = re.findall(r'<rect class="norm" x="([\d.]+)"', parts(plain)[0].svg)
    assert len(boxes) == 3 and min(float(x) for x in boxes) > 320  # at the right, where the stream is
    assert "stream ×" not in parts(plain)[0].svg and ">the MLP: stream × 3.5<" in parts(scaled)[0].svg
    changed = {step.concept: step.change for step in steps(DRAWN["mixtral"], scaled)}["norm_placement"]
    assert "on the stream itself; the MLP: stream × 3.5" in changed
    lightning = parts(plain)[2].svg
    assert boxes_of(lightning, "SiLU", "q, k, v") == ["SiLU", "q, k, v"]


def test_norms_that_not_all_layers_have_say_how_many_do() -> None:
    svg = parts(DRAWN["olmo_hybrid"])[0].svg
    assert svg.count(">RMSNorm, in 8 layers<") == svg.count(">RMSNorm, in 24 layers<") == 2
    assert ">RMSNorm, in 60 layers<" in parts(DRAWN["axk1"])[0].svg


def test_what_multiplies_no_scores_is_not_drawn() -> None:
    for name, scale in (("gpt-neo-1.3b", False), ("gemma-4-31b", False), ("gpt-2-xl", True)):
        assert ("q · kᵀ × scale" in parts(DRAWN[name])[1].svg) == scale
    assert ">GELU (tanh)<" in parts(DRAWN["bloom"])[2].svg


def test_a_norm_of_the_embedding_and_a_doubled_beta_are_drawn() -> None:
    assert ">then LayerNorm<" in parts(DRAWN["bloom"])[0].svg
    assert ">then RMSNorm without weight<" in parts(DRAWN["nanochat"])[0].svg
    assert "then LayerNorm" not in parts(DRAWN["gpt2"])[0].svg
    assert "through LayerNorm" in steps(DRAWN["gpt2"], DRAWN["bloom"])[0].change
    assert ">decay, β &lt; 2<" in parts(DRAWN["olmo_hybrid"])[1].svg
    assert ">decay, β<" in parts(DRAWN["qwen3_next"])[1].svg


def test_a_state_has_its_sizes_in_the_order_of_its_formula() -> None:
    assert "a matrix of 192 × 96<" in parts(DRAWN["olmo_hybrid"])[1].svg  # v kᵀ, with values of 192 and keys of 96
    assert "a state of 64 × 128 each" in parts(DRAWN["bamba"])[0].svg + parts(DRAWN["mamba2"])[0].svg


def test_layers_that_take_from_earlier_ones_have_a_panel_that_keeps_nothing_of_that() -> None:
    panels = {part.title.partition(": ")[2]: part.svg for part in parts(DRAWN["gemma-4-e2b"])}
    assert "2 × 1 × 256 = 512 numbers" in panels["Multi-query attention, in 12 layers"]
    borrowing = panels["Multi-query attention, in 16 layers"]
    assert "keeps nothing" in borrowing and "k_proj" not in borrowing and "v_norm" not in borrowing
    panels = {part.title.partition(": ")[2]: part.svg for part in parts(DRAWN["glm-5.2"])}
    assert "512 + 64 + 128 = 704 numbers" in panels["Multi-head latent attention, in 21 layers"]
    assert "512 + 64 = 576 numbers" in panels["Multi-head latent attention, in 57 layers"]


def test_what_is_not_as_in_the_other_is_ringed_and_rows_stand_at_one_height() -> None:
    gpt2, qwen3 = (
        lesson_config("01-gpt2/configs/gpt2-xl.json", "GPT-2"),
        lesson_config("03-qwen3/configs/qwen3-8b.json", "Qwen3"),
    )
    assert 'class="ring"' not in parts(qwen3)[0].svg
    left, right = parts(gpt2, qwen3)[0], parts(qwen3, gpt2)[0]
    assert right.svg.count('class="ring"') >= 6 and "not as in GPT-2" in right.svg
    assert left.height == right.height

    def plus_signs(svg: str) -> list[str]:
        return re.findall(r'<circle [^>]*cy="([\d.]+)"', svg)

    assert plus_signs(left.svg) == plus_signs(right.svg)
    assert parts(qwen3, qwen3)[0].svg.count('class="ring"') == 1  # the legend's own


def test_the_rows_of_every_figure_follow_one_another_as_the_page_that_aligns_them_takes_them() -> None:
    script = (ROOT / "grader/atlas/static/align.js").read_text(encoding="utf-8")
    listed = re.search(r"const ROWS = (\[.*?\]);", script, re.DOTALL)
    assert listed
    order = json.loads(listed[1])
    for name, model in DRAWN.items():
        bands, last = parts(model)[0].canvas.bands, 0.0
        assert set(bands) - {"block"} <= set(order) and {"head", "norm", "mixer", "embedding"} <= set(bands), name
        for row in [row for row in order if row in bands]:
            top, bottom, first, second = bands[row]
            assert last <= top <= first <= second <= bottom, (name, row)
            last = bottom


def test_the_picture_has_the_numbers_of_the_config() -> None:
    model, attention, mlp = parts(lesson_config("03-qwen3/configs/qwen3-8b.json", "Qwen3 8B"))
    for words in ("32 query heads of 128", "8 keys and values", "θ = 1,000,000", "151,936 tokens", "36 ×", "40,960"):
        assert words in model.svg
    assert "2 × 8 × 128 = 2,048 numbers" in attention.svg and "4,096 → 12,288" in mlp.svg


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    if why := why_no_browser():
        pytest.skip(why)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_FLAGS)
        yield browser.new_page(viewport={"width": 460, "height": 900})
        browser.close()


def test_no_text_lies_over_another_or_leaves_its_box(page: Page) -> None:
    """All gallery models and families, at the width of a panel; text of a line is about 14 pixels tall."""
    for start in range(0, len(DRAWN), 20):
        names = sorted(DRAWN)[start : start + 20]
        page.set_content("".join(part.svg for name in names for part in parts(DRAWN[name])))
        assert page.evaluate(MEASURE) == []


def test_the_measure_would_find_text_over_text(page: Page) -> None:
    svg = parts(DRAWN["gpt2"])[0].svg
    page.set_content(svg.replace("</svg>", '<text x="200" y="36">a second title over the first one</text></svg>'))
    page.evaluate("document.querySelector('svg text').setAttribute('x', 180)")
    assert page.evaluate(MEASURE)
