"""The size of a KV cache, told from a config: against transformers' own cache, and against published figures."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from hypothesis import given, settings
from hypothesis import strategies as st
from nbconvert import HTMLExporter
from traitlets.config.loader import PyFileConfigLoader
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache
from typer.testing import CliRunner

from grader import Config, GraderError
from grader.atlas import caches, gallery_models, read
from grader.atlas.fields import classes
from grader.authoring.outputs import without_widget
from grader.cli import app
from grader.kv import (
    LayerCache,
    bytes_at,
    bytes_by_kind,
    bytes_per_token,
    known_model,
    known_models,
    kv_panel,
    layers,
    methods,
)
from grader.kv.sizes import remark
from grader.kv.ways import plain

SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOW = SMALL | {"sliding_window": 5, "head_dim": 8}
MLA = {"kv_lora_rank": 12, "q_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 6, "v_head_dim": 8}
INDEX = {
    "index_head_dim": 8,
    "index_n_heads": 2,
    "index_topk": 4,
    "first_k_dense_replace": 6,
    "n_routed_experts": 8,
} | {"num_key_value_heads": 4}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_layer": 3, "n_head": 4, "n_embd": 32, "n_positions": 64, "vocab_size": 50, "eos_token_id": 2},
    "llama": SMALL,
    "mistral": WINDOW,
    "qwen2": WINDOW | {"use_sliding_window": True, "max_window_layers": 2},
    "qwen3": WINDOW | {"use_sliding_window": False},
    "gemma2": WINDOW,
    "gemma3_text": WINDOW,
    "gemma4_text": WINDOW
    | {"global_head_dim": 16, "num_global_key_value_heads": 1, "attention_k_eq_v": True}
    | {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 50, "num_kv_shared_layers": 0},
    "olmo3": WINDOW,
    "gpt_oss": WINDOW | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "cohere2": WINDOW,
    "phi3": WINDOW,
    "deepseek_v3": SMALL | MLA | {"first_k_dense_replace": 6, "n_routed_experts": 8, "num_key_value_heads": 4},
    "deepseek_v32": SMALL | MLA | INDEX,
    "glm_moe_dsa": SMALL | MLA | INDEX,
    "qwen3_next": SMALL
    | {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 16}
    | {"num_experts": 4, "num_experts_per_tok": 2, "head_dim": 8},
    "nemotron_h": SMALL
    | {"hybrid_override_pattern": "M*M-M*", "mamba_num_heads": 4, "mamba_head_dim": 8, "ssm_state_size": 16}
    | {"n_groups": 2, "head_dim": 8},
    "qwen3_5_text": SMALL
    | {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 16}
    | {"head_dim": 8},
    "granitemoehybrid": SMALL
    | {"layer_types": ["mamba", "mamba", "attention"] * 2, "mamba_n_heads": 8, "mamba_d_head": 8}
    | {"mamba_d_state": 16, "mamba_n_groups": 2, "num_local_experts": 2, "num_experts_per_tok": 1},
    "lfm2": SMALL | {"layer_types": ["conv", "full_attention"] * 3},
    "llama4_text": SMALL
    | {"head_dim": 8, "attention_chunk_size": 5, "intermediate_size_mlp": 48, "num_local_experts": 2},
    "deepseek_v2": SMALL
    | MLA
    | {"first_k_dense_replace": 6, "n_routed_experts": 8, "num_experts_per_tok": 2, "num_key_value_heads": 4},
    "minicpm3": SMALL | MLA | {"num_key_value_heads": 4},
    "gpt_bigcode": {"n_layer": 3, "n_head": 4, "n_embd": 32, "n_positions": 64, "vocab_size": 50, "eos_token_id": 2},
    "bloom": {"n_layer": 3, "n_head": 4, "hidden_size": 32, "vocab_size": 50},
    "falcon": {name: value for name, value in SMALL.items() if name != "num_key_value_heads"},
    "smollm3": SMALL,
    "mimo_v2_flash": WINDOW
    | {"v_head_dim": 6, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    # The last layers use what earlier ones keep.
    "gemma3n_text": WINDOW
    | {"num_kv_shared_layers": 3, "layer_types": ["sliding_attention", "full_attention"] * 3, "laurel_rank": 4}
    | {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 50, "activation_sparsity_pattern": [0.0] * 6}
    | {"altup_num_inputs": 2, "intermediate_size": [48] * 6},
    "gemma4_text that shares": WINDOW
    | {"num_kv_shared_layers": 2, "layer_types": ["sliding_attention", "full_attention"] * 3}
    | {"global_head_dim": 16, "num_global_key_value_heads": 1, "attention_k_eq_v": False}
    | {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 50},
    "glm_moe_dsa that shares": SMALL | MLA | INDEX | {"indexer_types": ["full", "shared", "shared"] * 2},
    "kimi_linear": SMALL
    | MLA
    | {"linear_num_heads": 2, "linear_head_dim": 8, "num_local_experts": 4}
    | {"q_lora_rank": None, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "num_key_value_heads": 4},
    "axk1": SMALL | MLA | {"n_routed_experts": 16, "num_experts_per_tok": 2, "num_key_value_heads": 4},
    "cwm": WINDOW,
    "hy_v3": SMALL | {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "jamba": SMALL
    | {"attn_layer_period": 3, "attn_layer_offset": 1, "num_experts": 2, "num_experts_per_tok": 1}
    | {"mamba_d_state": 6, "use_mamba_kernels": False},
    "longcat_flash": {
        name: value for name, value in SMALL.items() if name not in ("num_hidden_layers", "num_key_value_heads")
    }
    | MLA
    | {
        "num_layers": 3,
        "head_dim": 4,
        "ffn_hidden_size": 48,
        "expert_ffn_hidden_size": 16,
        "n_routed_experts": 4,
        "moe_topk": 2,
    }
    | {"zero_expert_num": 2},
    "mellum": WINDOW
    | {"layer_types": ["sliding_attention", "full_attention"] * 3, "num_experts": 4, "num_experts_per_tok": 2}
    | {"moe_intermediate_size": 16},
    "deepseek_v4": SMALL
    | {"num_hidden_layers": 3, "head_dim": 16, "q_lora_rank": 12, "o_lora_rank": 8, "o_groups": 2}
    | {"index_head_dim": 6, "index_n_heads": 2, "index_topk": 2, "sliding_window": 5, "num_key_value_heads": 1}
    | {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "qk_rope_head_dim": 4}
    | {"compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 8}}
    | {"layer_types": ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"]},
}


def tensors_of(layer: Any) -> list[torch.Tensor]:
    """All that a layer of transformers' cache holds."""
    found = []
    for value in vars(layer).values():
        values = value.values() if isinstance(value, dict) else [value]
        found += [v for v in values if isinstance(v, torch.Tensor) and v.is_floating_point()]
    return list({id(tensor): tensor for tensor in found}.values())  # DeepSeek-V4's keys are its values


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_bytes_are_those_of_transformers_own_cache(kind: str) -> None:
    config = AutoConfig.for_model(kind.split()[0], **ARCHITECTURES[kind])
    model, cache = AutoModelForCausalLM.from_config(config).eval(), DynamicCache(config=config)
    batch, length = 2, 11
    with torch.no_grad():
        model(torch.randint(3, 50, (batch, length)), cache=cache, use_cache=True)
    measured = sum(t.numel() * t.element_size() for layer in cache.layers for t in tensors_of(layer))
    # Between two steps transformers holds one token less than the window: the next one is still to come.
    told = [LayerCache(**{**vars(c), "window": c.window - 1 if c.window else None}) for c in layers(config.to_dict())]
    assert measured == batch * sum(layer.bytes_at(length, 4) for layer in told) > 0


HUB_FILES: list[dict[str, Any]] = [
    {},
    {"num_hidden_layers": 12, "num_attention_heads": 16, "num_key_value_heads": 4},
    {"hidden_size": 3072, "num_attention_heads": 24},
]


@pytest.mark.parametrize("kind", sorted(classes()))
def test_a_file_that_leaves_fields_out_means_what_the_class_takes_it_to_mean(kind: str) -> None:
    """Gemma 3 4B's names neither heads nor their width, 12B's no width; the class has them."""
    compared = 0
    for written in HUB_FILES:
        names = type(AutoConfig.for_model(kind)).attribute_map
        file = {names.get(name, name): value for name, value in written.items()}
        try:
            config = AutoConfig.for_model(kind, **file).to_dict()
        except StrictDataclassClassValidationError:
            continue  # not a shape that this class allows
        assert layers(file | {"model_type": kind}) == layers(config)
        compared += 1
    assert compared


def test_falcons_file_counts_its_key_value_heads() -> None:
    """Falcon 40B: 8 of 128, although it says `multi_query`. (transformers keeps them once for every query head.)"""
    file = {"model_type": "falcon", "multi_query": True, "new_decoder_architecture": True, "num_kv_heads": 8}
    falcon = file | {"hidden_size": 8192, "num_attention_heads": 128, "num_hidden_layers": 60}
    assert bytes_per_token(falcon) == 60 * 8 * 2 * 64 * 2


def test_a_pattern_in_letters_is_read() -> None:
    exaone = {"model_type": "exaone4", "num_hidden_layers": 8, "sliding_window": 16, "sliding_window_pattern": "LLLG"}
    assert [layer.kind[0] for layer in layers(exaone)] == list("sssfsssf")


@pytest.mark.parametrize("kind", ["gemma3_text", "gemma2", "olmo3", "gpt_oss", "cohere2", "mistral", "qwen2", "qwen3"])
def test_a_file_without_layer_types_means_the_classs_own_pattern(kind: str) -> None:
    config = AutoConfig.for_model(kind, **ARCHITECTURES[kind]).to_dict()
    file = {k: v for k, v in config.items() if k not in ("layer_types", "_sliding_window_pattern")}
    assert [c.kind for c in layers(file | {"model_type": kind})] == [c.kind for c in layers(config)]


@pytest.mark.parametrize(
    ("name", "kib"),
    [
        ("GPT-2 124M", 36), ("GPT-2 XL", 300), ("Llama 3 8B", 128), ("Qwen3 0.6B", 112), ("Qwen3 4B", 144),
        ("Qwen3 8B", 144), ("Qwen3 32B", 256), ("Qwen3 235B-A22B", 188), ("Gemma 3 270M", 18), ("Gemma 3 27B", 496),
        ("OLMo 2 7B", 512), ("OLMo 3 7B", 512),
        ("OLMo 3 32B", 256), ("SmolLM2 135M", 22.5), ("SmolLM2 360M", 40), ("SmolLM3 3B", 72),
        ("gpt-oss 20B", 48),
        ("gpt-oss 120B", 72), ("DeepSeek V3", 68.625), ("Kimi K2", 68.625),
        ("DeepSeek V3.2", 83.875), ("GLM-5", 107.25), ("Sarvam 30B", 19),
        ("Sarvam 105B", 36), ("Qwen3-Next 80B-A3B", 24), ("Qwen3.5 397B-A17B", 30), ("Nemotron 3 Nano 30B-A3B", 6),
    ],
)  # fmt: skip
def test_kib_a_token_are_the_published_ones(name: str, kib: float) -> None:
    assert bytes_per_token(known_model(name)) == kib * 1024


@pytest.mark.parametrize(("name", "gallery", "kept"), [("Gemma 4 31B", 840, 880), ("Gemma 4 26B-A4B", 210, 220)])
def test_gemma_4_keeps_both_its_keys_and_its_values(name: str, gallery: int, kept: int) -> None:
    """The gallery counts a full layer's keys as its values too; they come out different, and both are kept."""
    gemma = known_models()[name]
    assert bytes_per_token(gemma) == kept * 1024
    full = sum(layer.values_per_token for layer in layers(gemma) if layer.kind == "full")
    assert bytes_per_token(gemma) - full == gallery * 1024


@pytest.mark.parametrize(("name", "gallery"), [("DeepSeek V3.2", 68.625), ("GLM-5", 87.75)])
def test_sparse_attention_keeps_an_index_too(name: str, gallery: float) -> None:
    model = known_models()[name]
    without = model.replace(model_type="deepseek_v3")
    assert bytes_per_token(without) == gallery * 1024 < bytes_per_token(model)


def test_layers_that_mix_no_tokens_keep_nothing() -> None:
    """Nemotron 3 Nano: 6 of 52 blocks are attention, with 2 key-value heads; 23 are experts, 23 Mamba."""
    blocks = ["attention"] * 6 + ["moe"] * 46
    shape = {"layers_block_type": blocks, "num_attention_heads": 32, "num_key_value_heads": 2, "head_dim": 128}
    assert bytes_per_token(shape) == 6 * 1024
    assert {kind: count for kind, (count, _) in bytes_by_kind(known_model("Nemotron 3 Nano 30B-A3B"), 1).items()} == {
        "full": 6,
        "state": 23,
    }
    assert plain(known_model("Nemotron 3 Nano 30B-A3B")).num_hidden_layers == 29


@pytest.mark.parametrize(
    ("name", "count", "state", "inputs"),
    [
        ("Qwen3-Next 80B-A3B", 36, 32 * 128 * 128, (2 * 16 * 128 + 32 * 128) * 4),
        ("Qwen3.5 397B-A17B", 45, 64 * 128 * 128, (2 * 16 * 128 + 64 * 128) * 4),
        ("Nemotron 3 Nano 30B-A3B", 23, 64 * 64 * 128, (64 * 64 + 2 * 8 * 128) * 4),
    ],
)
def test_a_state_is_of_one_size_whatever_the_length(name: str, count: int, state: int, inputs: int) -> None:
    """DeltaNet and Mamba-2: a float32 matrix for each head, and what their convolution has yet to see."""
    for context in (1, 1000, 131_072):
        assert bytes_by_kind(known_model(name), context)["state"] == (count, count * (4 * state + 2 * inputs))


def gigabytes(config: Config, context: int) -> float:
    return bytes_at(config, context) / 1e9


@pytest.mark.parametrize(("latent", "rope", "gb"), [(1024, 0, 12.88), (512, 0, 6.44), (256, 0, 3.22), (64, 0, 0.805)])
def test_the_talks_chart_of_latents(latent: int, rope: int, gb: float) -> None:
    # 2048 channels are not 24 equal heads: the chart counts the channels.
    talk = Config({"num_hidden_layers": 48, "num_attention_heads": 1, "head_dim": 2048})
    assert gigabytes(talk, 131_072) == pytest.approx(51.54, abs=0.005)
    assert gigabytes(methods(talk, latent, rope, 1, 1)["MLA"], 131_072) == pytest.approx(gb, abs=0.005)


def test_what_the_talks_chart_of_latents_leaves_out() -> None:
    talk = Config({"num_hidden_layers": 48, "num_attention_heads": 1, "head_dim": 2048})
    assert gigabytes(methods(talk, 512, 64, 1, 1)["MLA"], 131_072) == pytest.approx(7.25, abs=0.005)


def test_the_talks_chart_of_windows() -> None:
    talk = Config({"num_hidden_layers": 36, "num_attention_heads": 48, "num_key_value_heads": 12, "hidden_size": 4096})
    exact = talk.replace(num_attention_heads=64, num_key_value_heads=16)  # 4096 channels are not 48 equal heads
    found = {name: gigabytes(c, 131_072) for name, c in methods(exact, 512, 64, 2048, 5).items()}
    assert [round(found[name], 2) for name in ("MHA", "MHA + SWA", "GQA", "GQA + SWA")] == [77.31, 13.89, 19.33, 3.47]


def test_the_chart_of_grouped_queries() -> None:
    talk = Config({"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096})
    found = {name: gigabytes(c, 32_768) for name, c in methods(talk, 512, 64, 1024, 5).items()}
    assert round(found["MHA"], 2) == 17.18
    assert round(found["GQA"], 2) == 4.29
    assert round(found["MHA + SWA"], 2) == 3.14
    assert round(found["GQA + SWA"], 2) == 0.78


def test_a_window_is_never_longer_than_the_context() -> None:
    """Published charts that forget it have sliding windows cost more than none at short contexts."""
    both = methods(known_models()["Qwen3 8B"], 512, 64, 2048, 5)
    assert bytes_at(both["GQA + SWA"], 500) == bytes_at(both["GQA"], 500)
    charted = sum(2 * layer.values_per_token * (layer.window or 500) for layer in layers(both["GQA + SWA"]))
    assert charted == 30 * 4096 * 2048 + 6 * 4096 * 500 > 3 * bytes_at(both["GQA"], 500)


def test_one_number_a_token_misleads_where_windows_fill() -> None:
    gemma = known_models()["Gemma 3 27B"]
    assert bytes_per_token(gemma) == 496 * 1024
    assert bytes_at(gemma, 100_001) - bytes_at(gemma, 100_000) == 80 * 1024
    assert bytes_by_kind(gemma, 10) == {"sliding": (52, 10 * 416 * 1024), "full": (10, 10 * 80 * 1024)}


def test_batch_and_dtype_multiply() -> None:
    qwen = known_models()["Qwen3 4B"]
    assert bytes_at(qwen, 100, batch=3, element_bytes=4) == 6 * bytes_at(qwen, 100)
    assert 2 * bytes_at(qwen, 7, element_bytes=0.5) == bytes_at(qwen, 7, element_bytes=1)


def test_a_config_for_images_and_text_is_read_for_its_text() -> None:
    text = dict(known_models()["Gemma 3 27B"])
    assert bytes_at({"model_type": "gemma3", "text_config": text}, 5000) == bytes_at(text, 5000)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "no `num_hidden_layers`.*no fields at all"),
        ({"num_hidden_layers": 3}, "no `num_attention_heads`"),
        ({"num_hidden_layers": 3, "num_attention_heads": 4}, "no `hidden_size`"),
        ({"layer_types": ["conv"], "conv_L_cache": 3}, "no `hidden_size`"),
        ({"layer_types": ["conv"], "compress_rates": {}, "block_types": ["a"]}, "`block_types` and no model_type"),
        ({"is_encoder_decoder": True}, "encoder and a decoder"),
        ({"num_hidden_layers": "3"}, "`num_hidden_layers` is '3'"),
        ({"num_hidden_layers": 3, "num_attention_heads": 0}, "`num_attention_heads` is 0"),
        ({"layer_types": ["hyperbolic"]}, "'hyperbolic'"),
        ({"layer_types": "full_attention"}, "should be a list"),
        ({"layer_types": ["linear_attention"]}, "linear_attention, which a shape"),
        ({"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 3}, "can't be split among 4 heads"),
        ({"model_type": "llama", "per_layer_config": {"first": {}}}, "not what a config.json has there"),
        (AutoConfig.for_model("t5").to_dict(), "an encoder and a decoder"),
        (AutoConfig.for_model("recurrent_gemma").to_dict(), "keeps no cache that can be counted"),
        (AutoConfig.for_model("mllama").to_dict(), "`cross_attention_layers`, which no architecture"),
        ({"model_type": "deepseek_v4", "compress_ratios": [0, 5], "num_hidden_layers": 2}, "none of 0, 4 and 128"),
        ({"model_type": "deepseek_v4", "compress_ratios": [0, 4], "num_hidden_layers": 3}, "should be a list"),
        ({"num_hidden_layers": 10**9, "num_attention_heads": 4, "head_dim": 8}, "1,000,000,000 layers"),
        (AutoConfig.for_model("rwkv").to_dict(), "keeps no cache that can be counted"),
        ({"model_type": "gpt_neo", "num_layers": 3, "attention_types": [[["local"], 2]]}, "speaks of 2 layers"),
        ({"model_type": "gpt_neo", "attention_types": [[["sideways"], 24]]}, "neither global nor local"),
        ({"model_type": "jamba", "attn_layer_period": 0}, "`attn_layer_period` is 0"),
    ],
)
def test_a_config_that_does_not_say_enough_is_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(GraderError, match=words):
        layers(config)


ANY_JSON = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 70),
    st.floats(allow_nan=False),
    st.text(max_size=3),
    st.sampled_from([["full_attention"], [1], [], {}, {"1": 3}, {"0": {"head_dim": 4}}, "auto", "MM*"]),
)
READ = sorted({name for model in known_models().values() for name in model})
READ += ["layer_types", "per_layer_config", "indexer_types", "num_kv_shared_layers", "text_config", "model_type"]


@settings(max_examples=100, deadline=None)
@given(model=st.sampled_from(list(known_models())), spoilt=st.dictionaries(st.sampled_from(READ), ANY_JSON, max_size=4))
def test_whatever_a_file_holds_it_is_counted_or_refused(model: str, spoilt: dict[str, Any]) -> None:
    config = {**known_model(model), **spoilt}
    try:
        remark(config)
        assert all(layer.values_per_token >= 0 for layer in layers(config)) and bytes_at(config, 100) >= 0
        plain(config)
    except GraderError as error:
        assert str(error)


def test_a_family_that_is_not_known_is_read_as_its_nearest_relative_or_refused(tmp_path: Path) -> None:
    """As a card reads it. A shape without a model_type means what it says."""
    shape = {"num_hidden_layers": 2, "num_attention_heads": 3, "head_dim": 64}
    assert bytes_per_token(shape) == bytes_per_token(shape | {"model_type": "llama"}) == 2 * 2 * 3 * 64 * 2
    assert remark(shape) == ""
    (tmp_path / "config.json").write_text(json.dumps(shape | {"model_type": "llama_of_mine"}))
    result = run(str(tmp_path / "config.json"), "--json")
    assert isinstance(result.exception, GraderError)
    assert "llama_of_mine model has none of `hidden_size`" in str(result.exception)
    mine = shape | {"model_type": "llama_of_mine", "hidden_size": 100, "vocab_size": 50, "intermediate_size": 48}
    assert bytes_per_token(mine) == bytes_per_token(shape)
    assert "'llama_of_mine' is not known here: it is read as if it were llama" in remark(mine)


def test_a_shape_may_have_layers_with_a_state() -> None:
    """What the published configs of three families say of their caches, without a model_type and the rest."""
    for name in ("Qwen3-Next 80B-A3B", "Qwen3.5 397B-A17B", "Nemotron 3 Nano 30B-A3B", "Gemma 4 31B"):
        file = known_model(name)
        told = ("layers", "heads", "head", "window", "pattern", "interval", "state", "conv", "groups", "k_eq_v")
        kept = {field: value for field, value in file.items() if any(word in field for word in told)}
        assert "model_type" not in kept and "hidden_size" not in kept
        assert layers(kept) == layers(file), name


def test_what_a_card_counts_is_counted() -> None:
    found = [model for model in gallery_models().values() if model.architecture]
    assert len(found) > 90
    for model in found:
        assert model.architecture and caches(model.architecture) == layers(model.config or {}), model.slug


@pytest.mark.parametrize("kind", ["bamba", "falcon_h1", "mpt", "youtu", "minimax"])
def test_families_that_a_card_reads_are_counted(kind: str) -> None:
    config = AutoConfig.for_model(kind).to_dict()
    assert layers(config) == caches(read(config))


def test_mimo_keeps_twice_the_heads_in_its_windows() -> None:
    """Its files say so, transformers' class doubles; and a file may name another number."""
    published = {"model_type": "mimo_v2_flash", "num_hidden_layers": 12}
    full, sliding = 4 * (192 + 128), 8 * (192 + 128)
    assert [layer.values_per_token for layer in layers(published)] == [full, *[sliding] * 4, full, *[sliding] * 5, full]
    assert layers(published | {"swa_num_key_value_heads": 16})[1].values_per_token == 2 * sliding
    on_the_hub = {"hybrid_layer_pattern": [0, 1, 1, 1, 1, 0] * 2, "sliding_window_size": 64}
    assert [layer.window for layer in layers(published | on_the_hub)] == [None, *[65] * 4, None] * 2


def test_gpt_neo_looks_back_from_every_second_layer_no_further_than_its_window() -> None:
    """transformers keeps every token of those layers too, and never reads them: a window is what has to be kept."""
    shape: dict[str, Any] = {"vocab_size": 50, "hidden_size": 32, "num_layers": 4, "num_heads": 4, "window_size": 5}
    shape |= {"attention_types": [[["global", "local"], 2]], "intermediate_size": 48, "eos_token_id": 2}
    config = AutoConfig.for_model("gpt_neo", **shape)
    model, cache = AutoModelForCausalLM.from_config(config).eval(), DynamicCache(config=config)
    with torch.no_grad():
        model(torch.randint(3, 50, (1, 11)), cache=cache, use_cache=True)
    found = layers(config.to_dict())
    assert [layer.window for layer in found] == [None, 5] * 2
    measured = sum(t.numel() for layer in cache.layers for t in tensors_of(layer))
    assert measured == 11 * sum(layer.values_per_token for layer in found) == 11 * 4 * 2 * 32
    text = torch.randint(3, 50, (1, 11))
    with torch.no_grad():  # what lies before all windows changes nothing but through the layers that see everything
        other = text.clone()
        other[0, 0] = (other[0, 0] + 1) % 50
        local = AutoModelForCausalLM.from_config(
            AutoConfig.for_model("gpt_neo", **shape | {"num_layers": 1, "attention_types": [[["local"], 1]]})
        ).eval()
        assert torch.equal(local(text).logits[0, 5:], local(other).logits[0, 5:])
        assert not torch.equal(local(text).logits[0, 4], local(other).logits[0, 4])


def test_longcat_keeps_two_latents_in_each_layer() -> None:
    found = layers({"model_type": "longcat_flash"})
    assert len(found) == 2 * 28 and {layer.values_per_token for layer in found} == {512 + 64}
    fewer = {"model_type": "longcat_flash", "num_hidden_layers": 12}  # transformers counts attentions by this name
    assert len(layers(fewer)) == 12 == 2 * AutoConfig.for_model(**fewer).num_layers == 2 * len(read(fewer).layers)


def test_minimax_m2_says_of_each_layer_that_it_is_full() -> None:
    config = {"model_type": "minimax_m2", "num_hidden_layers": 2, "head_dim": 16, "num_key_value_heads": 3}
    assert bytes_per_token(config | {"attn_type_list": [1, 1]}) == bytes_per_token(config) == 2 * 2 * 3 * 16 * 2
    with pytest.raises(GraderError, match="linear_attention, which a minimax_m2 model does not have"):
        layers(config | {"attn_type_list": [0, 1]})


def test_both_numbers_of_sparse_attention_are_said() -> None:
    """68.6 KiB is what the talk's card of DeepSeek V3.2 has, without the keys that its index needs."""
    assert "83.9 KiB" in remark(known_model("DeepSeek V3.2")) and "68.6 without" in remark(known_model("DeepSeek V3.2"))
    assert remark(known_model("Qwen3 8B")) == remark(known_model("Nemotron 3 Nano 30B-A3B")) == ""
    assert "68.6 without" in run("DeepSeek V3.2").stderr


def test_compressed_attention_keeps_windows_and_entries() -> None:
    """DeepSeek-V4: cards have 5.4 KiB a token, the entries alone; a token takes more until the windows are full."""
    told = json.loads(run("deepseek-v4-flash", "--context", "131072", "--json").stdout)
    assert (told["bytes_per_token"], told["bytes_per_token_at_context"]) == (52_960, 6_880)
    assert {kind: layers["count"] for kind, layers in told["layers"].items()} == {"sliding": 43, "compressed": 41}
    assert "51.7 KiB" in run("deepseek-v4-flash").stderr
    assert "5.4 for the compressed entries alone" in run("deepseek-v4-flash").stderr


def test_glm_5_2_keeps_the_index_keys_of_every_fourth_layer() -> None:
    """By `index_topk_freq` and `index_skip_topk_offset`, which its file has, as by the list that the class makes."""
    fields = {"index_topk_freq": 4, "index_skip_topk_offset": 3}
    file = {"model_type": "glm_moe_dsa", **fields}
    assert layers(file) == layers(AutoConfig.for_model(**file).to_dict())
    assert sum(layer.values_per_token == 512 + 64 + 128 for layer in layers(file)) == 21


def test_kimi_linears_file_says_which_layers_are_full() -> None:
    own = {"full_attn_layers": [2, 4], "kda_layers": [1, 3, 5], "num_heads": 3, "head_dim": 8}
    own |= {"short_conv_kernel_size": 4}
    file = {"model_type": "kimi_linear", "num_hidden_layers": 5, "linear_attn_config": own}
    assert [layer.kind for layer in layers(file)] == ["state", "latent", "state", "latent", "state"]
    assert layers(file) == layers(AutoConfig.for_model(**file).to_dict())


def test_a_model_of_the_hub_without_a_class_is_read_by_another() -> None:
    assert layers({"model_type": "kimi_k2", "num_attention_heads": 64}) == layers({"model_type": "deepseek_v3"})


# The command line


def run(*args: str) -> Any:
    return CliRunner().invoke(app, ["kv", *args], env={"COLUMNS": "100"})


def test_the_command_prints_both_numbers(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(dict(known_models()["Gemma 3 27B"])))
    result = run(str(tmp_path / "config.json"), "--context", "131072")
    assert result.exit_code == 0, result.output
    assert "496 KiB" in result.output and "80 KiB" in result.output and "11.2 GB" in result.output


def test_the_command_gives_json(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"n_layer": 48, "n_head": 25, "n_embd": 1600}))
    result = run(str(tmp_path / "config.json"), "--context", "1024", "--dtype", "float32", "--json")
    found = json.loads(result.output)
    assert found["bytes_per_token"] == 2 * 300 * 1024
    assert found["total_bytes"] == 2 * 300 * 1024 * 1024
    assert found["layers"] == {"full": {"count": 48, "bytes": found["total_bytes"]}}


@pytest.mark.parametrize("name", ["DeepSeek V3", "deepseek-r1"])
def test_the_command_knows_models_by_the_calculators_name_and_the_gallerys(name: str) -> None:
    assert json.loads(run(name, "--context", "1", "--json").output)["bytes_per_token"] == 70_272


def test_a_model_is_named_as_a_card_names_it(tmp_path: Path) -> None:
    """One name is shown, the gallery's; its short one, a path and the calculator's earlier names are taken too."""
    assert dict(known_model("qwen3-235b-a22b")) == dict(known_model("Qwen3 235B-A22B"))
    assert "Qwen3 235B-A22B Thinking 2507, as its config says" in kv_panel("Qwen3 235B-A22B").shown.text
    (tmp_path / "config.json").write_text(json.dumps(dict(known_model("Qwen3 8B"))))
    assert "144 KiB" in run("--model", str(tmp_path / "config.json")).output
    assert f"{tmp_path.name}, as its config says" in kv_panel(str(tmp_path)).shown.text


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["DeepSeek"], "deepseek-v3"),
        (["intellect-3"], "was not seen"),
        ([], "MODEL"),
        (["nowhere.json"], "can't be read"),
        (["Qwen3 4B", "--context", "0"], "context"),
    ],
)
def test_the_command_says_what_is_wrong(args: list[str], words: str) -> None:
    result = run(*args)
    assert result.exit_code == 2 or isinstance(result.exception, GraderError)
    assert words in result.output + str(result.exception)


# The panel


def test_the_panel_stands_for_itself_as_text_and_picture() -> None:
    bundle = kv_panel("Qwen3 8B", context=32_768)._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert re.search(r"^GQA +144 KiB +4\.83 GB +75\.0%$", bundle["text/plain"], re.MULTILINE)


def test_the_panel_follows_every_control() -> None:
    panel = kv_panel("Qwen3 8B", context=32_768)
    moved = {
        "model": "Gemma 3 27B", "heads": 16, "kv_heads": 2, "latent": 64, "window": 512, "ratio": 1, "dtype": "int8",
        "batch": 2, "context": 1024,
    }  # fmt: skip
    for name, value in moved.items():
        before = panel.shown.text
        panel.controls[name].value = value
        assert panel.shown.text != before, name


@pytest.mark.parametrize(
    ("model", "own"),
    [
        ("Gemma 3 27B", {"heads": 32, "kv_heads": 16, "window": 1024, "ratio": 5}),
        ("gpt-oss-20b", {"heads": 64, "kv_heads": 8, "window": 128, "ratio": 1}),
        ("DeepSeek V3", {"heads": 128, "latent": 512}),
    ],
)
def test_a_model_brings_its_own_heads_latent_and_window(model: str, own: dict[str, int]) -> None:
    panel = kv_panel("GPT-2 XL")
    panel.controls["model"].value = model
    assert {name: panel.controls[name].value for name in own} == own
    panel.controls["model"].value = "GPT-2 XL"
    assert panel.controls["window"].value == 1024


def test_the_panel_knows_the_models_of_the_gallery() -> None:
    known = {model.name for model in gallery_models().values() if model.verified}
    assert set(kv_panel().controls["model"].options) == known


def test_the_panels_picture_is_dark_where_its_page_is() -> None:
    image = re.search(r"data:image/svg\+xml;base64,([^\"]+)", kv_panel().children[0].value)
    assert image and "prefers-color-scheme: dark" in base64.b64decode(image[1]).decode()


@pytest.mark.parametrize(
    ("pasted", "words"),
    [
        ("{", "not JSON"),
        ("[1]", "holds a list"),
        ("{}", "no `num_hidden_layers`"),
        (json.dumps({"layer_types": ["hyperbolic"], "num_attention_heads": 4, "head_dim": 8}), "'hyperbolic'"),
        (json.dumps({"model_type": "t5", "is_encoder_decoder": True}), "an encoder and a decoder"),
    ],
)
def test_what_is_pasted_wrongly_is_explained_and_mended(pasted: str, words: str) -> None:
    panel = kv_panel("GPT-2 XL")
    before = panel.shown
    panel.controls["pasted"].value = pasted
    assert words in panel.error and panel.shown == before  # the figure stays, below the words
    panel.controls["pasted"].value = json.dumps({"num_hidden_layers": 2, "num_attention_heads": 3, "head_dim": 64})
    assert re.search(r"^MHA +1\.5 KiB", panel.shown.text, re.MULTILINE)


def test_bytes_for_one_token_are_all_in_one_unit() -> None:
    """Twice as many heads, twice the number that stands there: 992 and 496, not 1.02 and 496."""
    text = kv_panel("Gemma 3 27B").shown.text
    assert re.search(r"^MHA +992 KiB", text, re.MULTILINE) and re.search(r"^GQA +496 KiB", text, re.MULTILINE)


def test_a_model_may_have_more_heads_than_the_slider() -> None:
    """Falcon 180B has 232."""
    panel = kv_panel("GPT-2 XL")
    falcon = {"model_type": "falcon", "new_decoder_architecture": True, "num_kv_heads": 8, "num_hidden_layers": 80}
    pasted = json.dumps(falcon | {"hidden_size": 14_848, "num_attention_heads": 232})
    panel.controls["pasted"].value = pasted
    assert (panel.controls["heads"].value, panel.controls["kv_heads"].value) == (232, 8)
    assert re.search(r"^what the pasted config says +160 KiB", panel.shown.text, re.MULTILINE)


def test_a_pasted_config_of_an_unknown_family_is_refused() -> None:
    panel = kv_panel("GPT-2 XL")
    shape = {"model_type": "mine", "num_hidden_layers": 2, "num_attention_heads": 3, "head_dim": 64}
    panel.controls["pasted"].value = json.dumps(shape)
    assert "config of a mine model has none of" in panel.error


def test_feedback_shows_the_picture_and_not_an_empty_widget(project: Path) -> None:
    data = kv_panel()._repr_mimebundle_()
    cell = nbformat.v4.new_code_cell("kv_panel()", outputs=[nbformat.v4.new_output("display_data", data)])
    loader = PyFileConfigLoader("nbgrader_config.py", path=str(project))
    page, _ = HTMLExporter(config=loader.load_config()).from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    assert "data:image/png;base64" in page
    assert "application/vnd.jupyter.widget-view+json" not in page


def test_a_stored_notebook_keeps_the_picture_alone() -> None:
    output = nbformat.v4.new_output("display_data", kv_panel()._repr_mimebundle_())
    without_widget(output)
    assert set(output["data"]) == {"image/png", "text/plain"}
