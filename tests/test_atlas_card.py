"""Cards, comparisons, broken configs, the gallery's data, and the commands."""

import inspect
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from meta_models import parameters
from transformers import AutoConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from typer.testing import CliRunner

from grader.atlas import Architecture, architecture_of, caches, card, gallery_model, gallery_models, read
from grader.atlas.cache import per_token
from grader.atlas.card_rows import rows
from grader.atlas.compare import ORDER, compare, concepts, steps, with_lessons
from grader.atlas.drawing import figure
from grader.atlas.gallery_models import KINDS, SOURCES, TOLD, sources
from grader.atlas.panel import changed_fields
from grader.cli import app
from grader.errors import GraderError

LLAMA: dict[str, Any] = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
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
CONFIRMED = {"minimax-m2": (62, None, None, 248.0), "opt-125m": (12, 768, 12, None)}


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
        ("deepseek-v4-flash", ["5.406 KiB", "51.72 KiB"]),
        ("gemma-3-270m", ["18 KiB"]),
        ("deepseek-v3.2", ["83.88 KiB", "68.62 KiB"]),
        ("nemotron-3-nano-30b-a3b", ["6 KiB", "23 Mamba-2 + 23 experts + 6 GQA"]),
        ("kimi-k2", ["68.62 KiB", "384 SwiGLU experts"]),
        ("qwen3.5-397b-a17b", ["30 KiB"]),
    ],
)
def test_published_numbers_of_the_talks_models(slug: str, words: list[str]) -> None:
    told = "\n".join(said(architecture_of("gpt-2-xl" if slug == "gpt2-xl" else slug)).values())
    for word in words:
        assert word in told


BROKEN: list[tuple[Any, str]] = [
    ({}, "none of `hidden_size`"),
    ([1, 2], "is a list"),
    (LLAMA | {"hidden_size": "64"}, "`hidden_size` is '64'"),
    (LLAMA | {"num_hidden_layers": None}, "no `num_hidden_layers`"),
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
    ({"model_type": "mine", "hidden_size": 64, "mamba_d_state": 16}, "layers with a state"),
]


@pytest.mark.parametrize(("config", "words"), BROKEN)
def test_a_broken_config_is_refused_with_what_is_wrong(config: Any, words: str) -> None:
    with pytest.raises(GraderError) as raised:
        read(config)
    assert words in str(raised.value)


def test_an_unknown_family_is_read_as_its_nearest_with_a_remark() -> None:
    mine = read(LLAMA | {"model_type": "llama_of_mine"})
    assert "'llama_of_mine' is not known here" in mine.remark and mine.family == "llama"
    assert mine.parameters == read(LLAMA).parameters and not read(LLAMA).remark


def test_each_fact_says_which_field_it_is_from() -> None:
    facts = read(LLAMA | {"rms_norm_eps": 1e-5}).facts
    assert facts["norm epsilon"].value == 1e-5 and facts["norm epsilon"].source == "rms_norm_eps"
    assert facts["vocabulary"].source == "default of LlamaConfig: vocab_size"
    assert facts["norm"].source == "code of Llama in transformers"
    assert read({"model_type": "gpt2", "n_embd": 96}).facts["width"].source == "n_embd"


def test_the_steps_of_a_port_are_in_the_order_of_a_program_and_name_lessons() -> None:
    gpt2, qwen3 = architecture_of("gpt-2-xl"), architecture_of("qwen3-4b")
    found = with_lessons(steps(gpt2, qwen3), {"03-qwen3": ["rms_norm", "rope", "qk_norm"]})
    named = [step.concept for step, _ in found]
    assert named == sorted(named, key=ORDER.index)
    assert {"rms_norm", "rope", "qk_norm", "grouped_queries", "learned_positions"} <= set(named)
    taught = {step.concept: lessons for step, lessons in found}
    assert taught["rope"] == ("03-qwen3",) and taught["learned_positions"] == ()
    assert steps(qwen3, qwen3) == []


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
    shown.controls["changed"].value = ""
    shown.controls["model"].value = "gemma-3-270m"
    assert "268,098,176" in shown.text
    shown.controls["pasted"].value = "{"
    assert "not JSON" in shown.text
    shown.controls["pasted"].value = json.dumps(LLAMA)
    assert shown.text.startswith("the pasted config")
    assert shown._repr_mimebundle_()["image/svg+xml"] == figure(read(LLAMA, "the pasted config"))


def test_changes_of_fields_are_read_as_json() -> None:
    assert changed_fields('a = 4, b = null, c = "x"') == {"a": 4, "b": None, "c": "x"}
    with pytest.raises(GraderError, match="not a change"):
        changed_fields("heads")


def run(*args: str) -> Any:
    return CliRunner().invoke(app, list(args), env={"COLUMNS": "160"})


def test_the_commands_print_and_draw(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(LLAMA))
    printed = run("card", "--config", str(config), "--svg", str(tmp_path / "card.svg"))
    assert "num_hidden_layers" in printed.stdout and (tmp_path / "card.svg").read_text().startswith("<svg")
    told = json.loads(run("card", "qwen3-8b", "--json").stdout)
    assert told["facts"]["parameters"]["value"] == 8_190_735_360
    compared = run("diff", "gpt-2-xl", "qwen3-4b", "--svg", str(tmp_path / "pair.svg")).stdout
    assert "≠ attention" in compared and "= decoder" in compared and "RMSNorm" in compared
    assert 'class="ring"' in (tmp_path / "pair.svg").read_text()
    assert "qwen3-8b" in run("models").stdout
    assert "is not in the gallery" in str(run("card", "qwen9").exception)
    assert "was not seen" in str(run("card", "intellect-3").exception)
