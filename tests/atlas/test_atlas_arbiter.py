"""Families that no line of the atlas is of: what it says of them is counted on transformers' own model, or not said."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from meta_models import parameters
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from typer.testing import CliRunner

from grader.atlas import arbiter, read
from grader.atlas.arbiter import Asked, Unread, asked_of
from grader.atlas.cache import at
from grader.atlas.family import family_names
from grader.cli import app
from grader.errors import GraderError
from grader.kv import bytes_at
from grader.kv.sizes import remark

# Whatever the installed transformers has: a family that comes with its next release is asked here without a new line.
UNKNOWN = sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) & set(CONFIG_MAPPING) - set(family_names()))
PARTS = ("text_config", "llm_config", "language_config")  # of a model for images or sound too: the text's alone is read
SMALL: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 48,
    "intermediate_size": 40,  # a multiple of what grouped products on a CPU take
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
}


def config_of(kind: str, **fields: Any) -> dict[str, Any]:
    return {"model_type": kind, **AutoConfig.for_model(kind, **fields).to_dict()}


@pytest.fixture
def without_caches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Only parameters are counted: to run a hundred models, if without weights, takes minutes."""
    monkeypatch.setattr(arbiter, "_kept", lambda model: (None, "not asked for"))
    arbiter._asked.cache_clear()
    yield
    arbiter._asked.cache_clear()


def asked_as(kind: str, **fields: Any) -> Asked:
    with pytest.raises(Unread) as caught:
        read(config_of(kind, **fields))
    return caught.value.asked


@pytest.mark.parametrize("kind", UNKNOWN)
def test_no_number_of_a_family_that_is_not_known_is_a_guess(kind: str, without_caches: None) -> None:
    """Each is counted as transformers' own model, which another piece of code makes here, or refused in a sentence."""
    try:
        config = config_of(kind)
        counted = parameters(kind, {}) if not any(config.get(part) for part in PARTS) else None
    except Exception as error:
        pytest.skip(f"transformers makes no model of its own defaults: {type(error).__name__}")
    try:
        found = read(config).parameters
    except Unread as unread:
        found = unread.asked.parameters
    except GraderError as error:
        assert any(words in str(error) for words in ("not known here", "read here", "refuses this config")), error
        return
    assert counted is None or found == counted


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2", "mistral"])
def test_what_it_counts_of_families_that_are_known_is_what_their_lines_say(kind: str) -> None:
    config = config_of(kind, **SMALL)
    asked, model = asked_of(config, kind), read(config)
    assert asked and asked.parameters == model.parameters and asked.active == model.active
    assert asked.kept is not None and at(asked.kept, 300) == bytes_at(config, 300)


def test_experts_whose_tensors_do_not_say_so_are_told_by_the_router_beside_them(without_caches: None) -> None:
    assert asked_as("jetmoe").active == 1_198_491_648  # 2 of 8 experts, of attention and MLP


def test_a_class_that_can_have_experts_and_has_none_uses_all_its_parameters(without_caches: None) -> None:
    asked = asked_as("doge")
    assert asked.active == asked.parameters
    with_experts = asked_as("doge", is_moe=True, num_experts=16, num_experts_per_tok=2)
    assert with_experts.active is None  # rows of two embeddings, which are not told apart


def test_stacks_of_the_same_layers_are_counted_together_and_weights_of_several_layers_are_told(
    without_caches: None,
) -> None:
    """HRM runs two stacks of 16 again and again; Zamba2's transformer is one in nine places; BLT has four stacks."""
    facts = {kind: asked_as(kind).facts for kind in ("hrm_text", "zamba2", "blt", "rwkv")}
    assert facts["hrm_text"]["a layer"].value.endswith("; made 32 times")
    assert "shared_transformer (196,943,360, the same weights in several layers); 9 layers" in (
        facts["zamba2"]["a layer, 2"].value
    )
    assert sum(label.startswith("a layer") for label in facts["blt"]) == 4
    assert facts["rwkv"]["a layer"].value.endswith("; 1 layer")


def real_bytes(kind: str, fields: dict[str, Any], tokens: int) -> int:
    """What the cache of a small model with weights holds after a text."""
    config = AutoConfig.for_model(kind, **fields)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    with torch.no_grad():
        cache = model(torch.ones(1, tokens, dtype=torch.long), use_cache=True).past_key_values
    held = [tensor for layer in cache.layers for tensor in vars(layer).values() if isinstance(tensor, torch.Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in held if tensor.is_floating_point())


def test_a_cache_of_a_family_that_is_not_known_is_its_real_one_to_the_byte() -> None:
    fields = SMALL | {"sliding_window": 16, "num_experts": 4, "num_experts_per_tok": 2}
    asked = asked_as("cohere2_moe", **fields)
    assert asked.kept and any(layer.window for layer in asked.kept)
    for tokens in (7, 16):  # at the window's end transformers holds one token less between two steps
        expected = sum(
            layer.bytes_at(min(tokens, layer.window - 1) if layer.window else tokens) for layer in asked.kept
        )
        assert real_bytes("cohere2_moe", fields, tokens) == expected
    assert bytes_at(config_of("cohere2_moe", **fields), 7) == real_bytes("cohere2_moe", fields, 7)
    assert "transformers' own" in remark(config_of("cohere2_moe", **fields))


def test_states_are_told_apart_from_what_grows() -> None:
    kept = asked_as("zamba2").kept
    assert kept and {layer.kind for layer in kept} == {"state", "full"}
    assert at(kept, 0) > 0 and at(kept, 200) - at(kept, 100) == at(kept, 100) - at(kept, 0)


def test_a_relative_that_counts_the_same_says_what_was_compared() -> None:
    model = read(config_of("internlm3"))
    assert model.parameters == parameters("internlm3", {})
    assert "as many as those of transformers' own model; the rest was not compared" in model.remark


def test_a_cache_that_can_not_be_told_is_not_guessed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def stops(*_: Any, **__: Any) -> None:
        raise RuntimeError("Tensor.item() cannot be called on meta tensors")

    monkeypatch.setattr(arbiter, "_held", stops)
    arbiter._asked.cache_clear()
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config_of("zamba2")), encoding="utf-8")
    with pytest.raises(GraderError, match="the cache of zamba2 can't be counted here: its model can't be run without"):
        bytes_at(json.loads(file.read_text(encoding="utf-8")), 10)
    card = json.loads(CliRunner().invoke(app, ["card", str(file), "--json"]).output)
    assert card["facts"]["cache"]["value"] is None and card["facts"]["parameters"]["value"] == parameters("zamba2", {})
    arbiter._asked.cache_clear()


def test_without_transformers_a_family_that_is_not_known_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arbiter, "installed", lambda: False)
    for count in (read, lambda config: bytes_at(config, 10)):
        with pytest.raises(GraderError, match=r"'internlm3' is not known here.*pip install"):
            count(config_of("internlm3"))
    shape = {"num_hidden_layers": 2, "num_attention_heads": 3, "head_dim": 64}
    assert bytes_at(shape, 10) == 10 * 2 * 2 * 3 * 64 * 2  # a shape names no family


def test_a_config_that_transformers_refuses_is_refused_in_its_words() -> None:
    with pytest.raises(GraderError, match="transformers' class for zamba2 refuses this config"):
        read(config_of("zamba2") | {"hidden_size": "wide"})


def test_an_encoder_is_still_no_language_model() -> None:
    for kind in ("bert", "bart"):
        with pytest.raises(GraderError) as caught:
            read(config_of(kind))
        assert not isinstance(caught.value, Unread)


def test_a_decoder_whose_class_has_a_field_for_encoders_is_counted(without_caches: None) -> None:
    assert asked_as("gpt_neox_japanese").parameters == parameters("gpt_neox_japanese", {})


def test_the_commands_show_what_can_be_told(tmp_path: Path) -> None:
    file, figure = tmp_path / "config.json", tmp_path / "figure.svg"
    file.write_text(json.dumps(config_of("zamba2")), encoding="utf-8")
    shown = CliRunner().invoke(app, ["card", str(file), "--to", str(figure)])
    assert shown.exit_code == 0 and "counted on transformers' own model" in " ".join(
        shown.output.replace("\n", " ").split()
    )
    drawn = figure.read_text(encoding="utf-8")
    assert "shared_transformer" in drawn and "how it is joined is not told" in drawn
    diff = CliRunner().invoke(app, ["diff", str(file), "qwen3-8b"])
    assert (
        diff.exit_code == 0
        and "2,481,848,336" in diff.output
        and "What to change in a program is not told" in diff.output
    )
