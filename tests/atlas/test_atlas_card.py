"""Cards, comparisons, broken configs, the gallery's data, and the commands."""

import inspect
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pytest
from meta_models import parameters
from transformers import AutoConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from typer.testing import CliRunner

from grader.atlas import Architecture, architecture_of, caches, card, gallery_model, gallery_models, read, site
from grader.atlas.cache import per_token
from grader.atlas.card_rows import rows
from grader.atlas.changes import ORDER, concepts, steps, with_lessons
from grader.atlas.compare import compare
from grader.atlas.drawing import figure
from grader.atlas.drawing.words import short
from grader.atlas.panel import Card, changed_fields
from grader.atlas.shown_models import KINDS, SOURCES, TOLD, sources
from grader.cli import app
from grader.errors import GraderError
from grader.instruments.panel import Panel
from grader.kv.panel import kv_panel

LLAMA: dict[str, Any] = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
FALCON_40B = {"new_decoder_architecture": True, "num_kv_heads": 8, "num_attention_heads": 64, "hidden_size": 4096}
GEMMA = {"model_type": "gemma3_text", "num_hidden_layers": 3}
# transformers allocates rows for LongCat's experts that do nothing.
SURPLUS = {"longcat-flash-560b"}
VERIFIED = [slug for slug, model in gallery_models().items() if model.verified]
# The systems that the talk shows or names.
TALK = (
    *("gpt-2-xl", "llama-3-8b", "qwen3-4b", "qwen3-32b", "gemma-3-270m", "gemma-3-1b", "gemma-4-31b", "deepseek-v3"),
    *("deepseek-r1", "deepseek-v3.2", "glm-5.1", "sarvam-30b", "sarvam-105b", "qwen3.5-397b-a17b", "smollm2-135m"),
    *("smollm2-360m", "smollm3-3b", "olmo-3-32b", "intellect-3", "nemotron-3-nano-30b-a3b", "nemotron-3-super-120b"),
)


def said(model: Architecture) -> dict[str, str]:
    return {row.label: row.shown for row in rows(model)}


@pytest.mark.parametrize("slug", [slug for slug in VERIFIED if slug not in SURPLUS])
def test_a_gallery_models_parameters_are_transformers_own(slug: str) -> None:
    model = gallery_model(slug).architecture
    assert model
    fields = {name: value for name, value in (gallery_model(slug).config or {}).items() if name != "model_type"}
    assert model.parameters == parameters(model.family, fields)
    assert 0 < model.active <= model.parameters


def test_the_gallery_says_where_each_config_was_seen() -> None:
    models = gallery_models().values()
    assert len(models) >= 70 and len(VERIFIED) >= 40 and set(TALK) <= set(gallery_models())
    for model in models:
        assert model.name and model.developer
        if not model.verified:
            assert model.source is None and model.architecture is None and "not verified" in model.source_words
            continue
        assert model.source
        fields = set(model.source) - {"confirmed"}
        assert fields in ({"repository", "path", "commit", "kind"}, {"default_of"}, {"package", "path"})
        if "commit" in fields:
            assert re.fullmatch("[0-9a-f]{40}", model.source["commit"])
            # Only a file called config.json can be a copy of one.
            assert model.source["kind"] in KINDS
            assert (model.source["kind"] == "copy") <= model.source["path"].endswith("config.json")


DEFAULTS = [slug for slug, model in gallery_models().items() if "default_of" in (model.source or {})]
# Whose class names another checkpoint: layers, width, heads and KiB a token, as the source says that confirms them.
CONFIRMED = {"opt-125m": (12, 768, 12, None)}


@pytest.mark.parametrize("slug", DEFAULTS)
def test_the_class_whose_defaults_stand_for_a_model_names_it(slug: str) -> None:
    model = gallery_model(slug)
    assert model.source and model.architecture
    if slug in CONFIRMED:
        assert model.source["confirmed"] in sources()
        read_off, mixer = model.architecture, model.architecture.layers[0].mixer
        assert mixer
        found = (len(read_off.layers), read_off.width, mixer.heads, per_token(caches(read_off)) / 1024)
        assert all(want in (None, got) for want, got in zip(CONFIRMED[slug], found, strict=True))
        return
    source = inspect.getsource(sys.modules[CONFIG_MAPPING[model.source["default_of"]].__module__])
    named = [name.lower() for name in re.findall(r'checkpoint="([^"]+)"', source)]
    assert model.hub.removeprefix("https://huggingface.co/").lower() in named


def test_every_fact_of_the_gallery_says_where_it_was_seen() -> None:
    used = set()
    for slug, model in gallery_models().items():
        told = {fact for fact in TOLD if getattr(model, fact)}
        assert set(model.seen) == told, slug
        assert len(model.told_by("notes")) == len(model.notes), slug
        assert re.fullmatch(r"(\d{4}-\d\d(-\d\d)?)?", model.date), slug
        for names in (*model.seen.values(), (model.source or {}).get("confirmed", [])):
            used |= {names} if isinstance(names, str) else set(names)
    assert used == set(sources())  # nothing that is not there, and no source that nothing is from
    for name, entry in tomllib.loads(SOURCES.read_text(encoding="utf-8")).items():
        where = set(entry) - {"what"}
        assert entry["what"] and where in ({"repository", "path", "commit"}, {"page"}, {"package", "path"}), name
        assert "commit" not in entry or re.fullmatch("[0-9a-f]{40}", entry["commit"]), name


@pytest.mark.parametrize(
    ("slug", "words"),
    [
        ("gpt2-xl", ["300 KiB"]),
        ("qwen3-8b", ["144 KiB"]),
        ("llama-3.1-405b", ["RoPE, θ = 500,000", "Llama 3's scaling from 8,192, factor 8"]),
        ("deepseek-v4-flash", ["5.406 KiB", "51.72 KiB", "θ = 160,000", "an index picks 512 entries"]),
        ("kimi-linear-48b-a3b", ["7.875 KiB", "20 Kimi Delta Attention + 7 MLA"]),
        ("nemotron-3-super-120b", ["each 1,024 → 2,688 → 1,024; in a latent of 1,024"]),
        ("glm-5.2", ["93 KiB", "87.75 KiB"]),
        ("gemma-3-270m", ["18 KiB"]),
        ("deepseek-v3.2", ["83.88 KiB", "68.62 KiB"]),
        ("nemotron-3-nano-30b-a3b", ["6 KiB", "23 Mamba-2 + 23 experts + 6 GQA"]),
        ("minimax-m2", ["248 KiB", "RoPE on 64 of 128, θ = 5,000,000"]),
        ("kimi-k2", ["68.62 KiB", "384 SwiGLU experts"]),
        ("qwen3.5-397b-a17b", ["30 KiB"]),
    ],
)
def test_published_numbers_of_the_talks_models(slug: str, words: list[str]) -> None:
    told = "\n".join(said(architecture_of("gpt-2-xl" if slug == "gpt2-xl" else slug)).values())
    for word in words:
        assert word in told


# Whose files leave the base of RoPE out, the class's own being the model's: Llama 2's, and GPT-J's 10,000 in its code.
BASE_OF_CLASS = {"llama-2-7b", "llama-2-70b", "gpt-j-6b"}


def test_no_position_of_a_preset_is_a_default_that_stepped_in_unseen() -> None:
    guessed = set()
    for slug, model in gallery_models().items():
        if model.architecture and (model.source or {}).get("kind") == "preset":
            source = model.architecture.facts["positions"].source
            guessed |= {slug} if source.startswith("default of") else set()
    assert guessed == BASE_OF_CLASS


def test_a_comparison_says_how_a_context_is_reached_and_a_gallery_card_its_length_alone() -> None:
    lines = {line.label: line for line in compare(architecture_of("gpt-2-xl"), architecture_of("deepseek-v3"))}
    assert (lines["context"].left, lines["context"].right) == ("1,024", "163,840, by YaRN from 4,096, factor 40")
    assert site.entry(gallery_model("deepseek-v3"))["context"] == "163,840"


BROKEN: list[tuple[Any, str]] = [
    ({}, "none of `hidden_size`"),
    ([1, 2], "is a list"),
    (LLAMA | {"hidden_size": "64"}, "`hidden_size` is '64'"),
    (LLAMA | {"num_hidden_layers": None}, "null as `num_hidden_layers`"),
    ({"model_type": "gpt2", "vocab_size": None}, "null as `vocab_size`"),
    (LLAMA | {"num_hidden_layers": 10**9}, "1,000,000,000 layers"),
    (LLAMA | {"rope_scaling": "yarn"}, "`rope_scaling` is 'yarn'"),
    (LLAMA | {"rope_theta": "big"}, "The last one that was read is `rope_theta`"),
    (LLAMA | {"num_hidden_layers": -1}, "`num_hidden_layers` is -1"),
    (LLAMA | {"num_key_value_heads": 3}, "can't share 3"),
    (LLAMA | {"num_attention_heads": 7}, "can't be split among 7 heads"),
    (LLAMA | {"num_attention_heads": 2.5}, "`num_attention_heads` is 2.5"),
    (LLAMA | {"tie_word_embeddings": "yes"}, "`tie_word_embeddings` is 'yes'"),
    (GEMMA | {"layer_types": ["sliding_attention"]}, "has 1 entries"),
    (GEMMA | {"layer_types": ["hyperbolic"] * 3}, "'hyperbolic'"),
    (GEMMA | {"layer_types": "full_attention"}, "should be a list"),
    ({"model_type": "clip_vision_model", "hidden_size": 768, "vision_config": {"depth": 3}}, "`vision_config`"),
    ({"model_type": "nemotron_h", "hybrid_override_pattern": "MX*"}, "'X'"),
    ({"model_type": "deepseek_v3", "num_experts_per_tok": 300}, "chooses 300 of 256"),
    (AutoConfig.for_model("t5").to_dict(), "an encoder and a decoder"),
    ({"model_type": "gemma4_assistant", "text_config": LLAMA}, "drafts for another model"),
    ({"model_type": "mine", "hidden_size": 64, "mamba_d_state": 16}, "layers with a state"),
    (LLAMA | {"model_type": "mine"}, "leaves out vocab_size, intermediate_size"),
    (LLAMA | {"model_type": "vit", "image_size": 224}, "`image_size`"),
    (LLAMA | {"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "a BertForMaskedLM's"),
    ({"model_type": "kimi_linear", "linear_attn_config": 5}, "`linear_attn_config` is 5"),
    ({"model_type": "kimi_linear", "linear_attn_config": {"num_heads": "x"}}, "`num_heads` is 'x'"),
    ({"model_type": "deepseek_v4", "compress_ratios": [0, 4, 7], "num_hidden_layers": 3}, "7, which is none of"),
    ({"model_type": "glm_moe_dsa", "indexer_types": ["full"]}, "says of 1 layers"),
]


@pytest.mark.parametrize(("config", "words"), BROKEN)
def test_a_broken_config_is_refused_with_what_is_wrong(config: Any, words: str) -> None:
    with pytest.raises(GraderError) as raised:
        read(config)
    assert words in str(raised.value)


def test_an_unknown_family_is_read_as_its_nearest_with_a_remark() -> None:
    whole = LLAMA | {"vocab_size": 99, "intermediate_size": 128}
    mine = read(whole | {"model_type": "llama_of_mine"})
    assert "'llama_of_mine' is not known here" in mine.remark and mine.family == "llama"
    assert mine.parameters == read(whole).parameters and not read(whole).remark


def test_each_fact_says_which_field_it_is_from() -> None:
    facts = read(LLAMA | {"rms_norm_eps": 1e-5}).facts
    assert facts["norm epsilon"].value == 1e-5 and facts["norm epsilon"].source == "rms_norm_eps"
    assert facts["vocabulary"].source == "default of LlamaConfig: vocab_size"
    assert facts["norm"].source == "code of Llama in transformers"
    assert read({"model_type": "gpt2", "n_embd": 96}).facts["width"].source == "n_embd"
    assert read({"model_type": "gpt2"}).facts["layers"].source == "default of GPT2Config: n_layer"


def test_a_line_of_a_card_names_every_field_that_it_was_read_from() -> None:
    source = {row.label: row.source for row in rows(read(LLAMA | {"head_dim": 16, "rope_theta": 1e5}))}
    assert source["attention"] == (
        "hidden_size, num_attention_heads, head_dim, rope_theta;"
        " default of LlamaConfig: attention_bias; code of Llama in transformers"
    )
    assert source["MLP"].startswith("hidden_size; default of LlamaConfig: intermediate_size")


def test_the_steps_of_a_port_are_in_the_order_of_a_program_and_name_lessons() -> None:
    gpt2, qwen3 = architecture_of("gpt-2-xl"), architecture_of("qwen3-4b")
    found = with_lessons(steps(gpt2, qwen3), {"03-qwen3": ["rms_norm", "rope", "qk_norm"]})
    named = [step.concept for step, _ in found]
    assert named == sorted(named, key=ORDER.index)
    assert {"rms_norm", "rope", "qk_norm", "grouped_queries", "learned_positions"} <= set(named)
    taught = {step.concept: lessons for step, lessons in found}
    assert taught["rope"] == ("03-qwen3",) and taught["learned_positions"] == ()
    changed = {step.concept: step.change for step, _ in found}
    assert changed["rms_norm"].startswith("LayerNorm") and " ⇒ RMSNorm" in changed["rms_norm"]
    assert "layer_norm" not in changed and changed["layers"] == "48 MHA ⇒ 36 GQA"
    assert steps(qwen3, qwen3) == []


@pytest.mark.parametrize(
    ("left", "right", "concept", "words"),
    [
        ("qwen3-8b", "gemma-3-1b", "sliding_window", "a window of 512 tokens in 22 of 26 layers"),
        ("qwen3-8b", "gemma-3-27b", "score_scale", "one over the root of 168"),
        ("llama-3-8b", "llama-3.1-8b", "rope_scaling", "Llama 3's scaling from 8,192, factor 8"),
        ("gemma-3-4b", "gemma-4-e4b", "v_norm", "values through an RMSNorm without weight"),
        ("deepseek-v3.2", "deepseek-v4-flash", "residual_streams", "4 streams"),
        ("deepseek-v3", "glm-4.5-air", "rope", "interleaved ⇒ RoPE, θ = 1,000,000, on 64 of 128"),
        ("qwen3-30b-a3b", "glm-4.5-air", "experts", "router: sigmoid"),
        ("qwen3-30b-a3b", "minimax-m2", "experts", "a bias for the choice alone; weights sum to 1"),
        ("deepseek-v3", "longcat-flash-560b", "experts", "weights do not sum to 1"),
        ("gemma-3-4b", "gemma-4-26b-a4b", "experts", "weights sum to 1, each times its expert's scale"),
        ("deepseek-v3", "longcat-flash-560b", "gated_mlp", "6,144 → 12,288 → 6,144"),
        ("gemma-3-4b", "gemma-3n-e4b", "gated_mlp", "gate less its mean + 1.645 deviations, or 0"),
        ("deepseek-v3.2", "deepseek-v4-flash", "experts", "a table chooses by the token's id"),
        ("gpt-2-xl", "gpt-neo-1.3b", "score_scale", "scores times 1, not one over the root"),
        ("gpt-2-xl", "gpt-neox-20b", "norm_placement", "before attention and before MLP, which stand side by side"),
    ],
)
def test_a_step_of_a_port_says_what_the_reference_has(left: str, right: str, concept: str, words: str) -> None:
    changed = {step.concept: step.change for step in steps(architecture_of(left), architecture_of(right))}
    assert words in changed[concept]


@pytest.mark.parametrize(
    ("kind", "fields", "found"),
    [
        (
            "granite",
            {"embedding_multiplier": 12, "residual_multiplier": 0.22, "logits_scaling": 16.0},
            {
                "embedding_scale": "add: multiplied by 12",
                "residual_scale": "add: each part's output times 0.22",
                "logit_scale": "add: logits divided by 16.0",
            },
        ),
        ("cohere", {"logit_scale": 0.0625}, {"logit_scale": "add: logits times 0.0625"}),
    ],
)
def test_what_multiplies_the_stream_is_a_step(kind: str, fields: dict[str, Any], found: dict[str, str]) -> None:
    changed = {step.concept: step.change for step in steps(read(LLAMA), read({"model_type": kind, **fields}))}
    assert found.items() <= changed.items()


@pytest.mark.parametrize(
    ("kind", "fields", "label", "words"),
    [
        ("gpt_neox", {"use_parallel_residual": False}, "norms stand", "before attention, before MLP"),
        ("falcon", FALCON_40B, "norms stand", "before attention and before MLP, which stand side by side"),
        ("falcon", FALCON_40B | {"num_ln_in_parallel_attn": 1}, "norms stand", "before both"),
        (
            "olmo_hybrid",
            {},
            "norms stand",
            "before attention, before MLP in 24 layers; after attention, after MLP in 8 layers",
        ),
        (
            "axk1",
            {},
            "norms stand",
            "before attention, before MLP, after MLP in 60 layers; before attention, before MLP in 1 layer",
        ),
        ("olmo_hybrid", {"rope_theta": None}, "positions", "none"),
        ("olmo_hybrid", {"rope_parameters": {"rope_theta": None}}, "positions", "none"),
        ("olmo_hybrid", {"rope_theta": 5e5}, "positions", "RoPE, θ = 500,000"),
        ("jamba", {}, "weights of the chosen sum to 1", "no"),
    ],
)
def test_a_card_follows_the_fields_that_the_code_reads(
    kind: str, fields: dict[str, Any], label: str, words: str
) -> None:
    assert said(read({"model_type": kind, **fields}))[label] == words


@pytest.mark.parametrize(
    ("number", "words"), [(999_885_952, "1 B"), (999_499_999, "999 M"), (999_000, "999,000"), (1_557_611_200, "1.56 B")]
)
def test_a_size_is_rounded_before_its_unit_is_chosen(number: int, words: str) -> None:
    assert short(number) == words


def test_every_concept_that_a_model_has_stands_in_the_order() -> None:
    for slug in VERIFIED:
        model = gallery_model(slug).architecture
        assert model and set(concepts(model)) <= set(ORDER)


def test_the_talks_comparison() -> None:
    told = {line.label: line for line in compare(architecture_of("gpt-2-xl"), architecture_of("qwen3-4b"))}
    assert not told["decoder"].differs and told["decoder"].left == "dense"
    assert (told["cache for one token"].left, told["cache for one token"].right) == ("300 KiB", "144 KiB")
    assert told["attention"].differs and told["positions"].differs and told["norm"].differs


def test_the_card_of_a_notebook_follows_its_controls() -> None:
    shown = card("qwen3-8b")
    assert "8,190,735,360" in shown.text
    shown.controls["changed"].value = "num_key_value_heads = 4"
    assert "cache for one token: 72 KiB" in shown.text
    shown.controls["changed"].value = "num_key_value_heads = 5"
    assert "can't share 5" in shown.text
    shown.controls["changed"].value = "num_hidden_layers = 2"
    assert "layers: 2 " in shown.text
    shown.controls["changed"].value = ""
    shown.controls["model"].value = "gemma-3-270m"
    assert "268,098,176" in shown.text
    shown.controls["model"].value = "gemma-3-27"
    assert "gemma-3-27b. `grader models`" in shown.text
    shown.controls["pasted"].value = "{"
    assert "not JSON" in shown.text
    shown.controls["pasted"].value = json.dumps(LLAMA)
    assert shown.text.startswith("the pasted config")
    assert shown._repr_mimebundle_()["image/svg+xml"] == figure(read(LLAMA, "the pasted config"))


@pytest.mark.parametrize("panel", [card("gpt-2-xl"), kv_panel("GPT-2 XL")], ids=["card", "kv"])
def test_every_control_takes_keys_in_jupyterlab(panel: Card | Panel) -> None:
    """Its command mode takes those that are pressed on a <select>, a button or a box to tick: "x" cuts the cell."""
    taken = (widgets.Dropdown, widgets.Select, widgets.SelectMultiple, widgets.Button, widgets.Checkbox)
    assert not any(isinstance(control, taken) for control in panel.controls.values())


def test_a_changed_pattern_is_the_pattern_that_is_drawn() -> None:
    shown = card(GEMMA | {"num_hidden_layers": 6})
    assert "5 sliding + 1 full" in shown.text
    shown.controls["changed"].value = "sliding_window_pattern = 2"
    assert "3 sliding + 3 full" in shown.text


def test_changes_of_fields_are_read_as_json() -> None:
    assert changed_fields('a = 4, b = null, c = "x"') == {"a": 4, "b": None, "c": "x"}
    with pytest.raises(GraderError, match="not a change"):
        changed_fields("heads")


def run(*args: str) -> Any:
    return CliRunner().invoke(app, list(args), env={"COLUMNS": "160"})


def test_the_commands_print_and_draw(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(LLAMA))
    printed = run("card", str(config), "--to", str(tmp_path / "card.svg"))
    assert "num_hidden_layers" in printed.stdout and (tmp_path / "card.svg").read_text().startswith("<svg")
    told = json.loads(run("card", "qwen3-8b", "--json").stdout)
    assert told["facts"]["parameters"]["value"] == 8_190_735_360
    compared = run("diff", "gpt-2-xl", "qwen3-4b", "--to", str(tmp_path / "pair.svg")).stdout
    assert "≠ attention" in compared and "= decoder" in compared and "RMSNorm" in compared
    assert 'class="ring"' in (tmp_path / "pair.svg").read_text()
    assert "qwen3-8b" in run("models").stdout
    assert "is not in the gallery" in str(run("card", "qwen9").exception)
    assert "was not seen" in str(run("card", "intellect-3").exception)


def test_what_is_read_as_a_relative_is_said_so_by_card_and_diff(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    told = {name: value for name, value in LLAMA.items() if name != "model_type"}
    config.write_text(json.dumps(told | {"vocab_size": 100, "intermediate_size": 128}))
    for words in (["card", str(config)], ["diff", "qwen3-4b", str(config)]):
        assert "This config has no model_type: it is read as if it were" in run(*words).stdout
    (remark,) = json.loads(run("diff", "qwen3-4b", str(config), "--json").stdout)["remarks"]
    assert "as if it were" in remark


def test_a_change_names_the_lesson_wherever_it_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a learner's folder holds no lesson.toml
    changed = run("diff", "gpt2-xl", "qwen3-4b").stdout
    assert "LayerNorm, epsilon 1e-05 ⇒ RMSNorm, epsilon 1e-06  (lesson 03-qwen3, 04-gemma3)" in changed
    assert "no lesson here teaches it" in run("diff", "gpt2-xl", "deepseek-v4-flash").stdout
    assert "only the weights differ" in run("diff", "deepseek-r1", "deepseek-v3").stdout


def test_a_hub_that_is_out_of_reach_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(GraderError) as raised:
        architecture_of("moonshotai/Kimi-Linear-48B-A3B-Instruct")
    assert "/raw/main/config.json" in str(raised.value)
    assert "`grader card kimi-linear-48b-a3b`" in str(raised.value)


class Answer:
    """What the hub answers."""

    def __init__(self, status_code: int, text: str = "") -> None:
        self.status_code, self.text = status_code, text

    def get(self, url: str, **_: Any) -> "Answer":
        assert url.endswith("/resolve/main/config.json")
        return self


@pytest.mark.parametrize(
    ("answer", "words"), [(Answer(401), "licence"), (Answer(404), "answers 404"), (Answer(200, "<html>"), "not JSON")]
)
def test_a_hub_that_refuses_is_explained(answer: Answer, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_session", lambda: answer)
    with pytest.raises(GraderError, match=words):
        architecture_of("nobody/nothing-that-anybody-has")


def test_a_config_from_the_hub_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_session", lambda: Answer(200, json.dumps(LLAMA)))
    found = architecture_of("nobody/nothing-that-anybody-has")
    assert (found.name, found.parameters) == ("nothing-that-anybody-has", read(LLAMA).parameters)
