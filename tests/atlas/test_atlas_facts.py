"""What the atlas reads off a config, against transformers' own models and caches."""

import importlib.util
import inspect
import json
import pkgutil
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from meta_models import names, parameters
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from grader.atlas import caches, read
from grader.atlas.fields import CLASSES, classes
from grader.atlas.traits import family_names, traits_of
from grader.errors import GraderError

ROOT = Path(__file__).resolve().parents[2]

# What a class's defaults leave open, and its files say.
NEEDED: dict[str, dict[str, Any]] = {
    "deepseek_v2": {"num_experts_per_tok": 6},
    "nemotron": {"head_dim": 128, "num_key_value_heads": 8},
    "dots1": {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128, "num_experts": 8, "moe_topk": 2},
    "ministral": {"head_dim": 128},
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention"] * 4, "num_hidden_layers": 12},
    "bamba": {"attn_layer_indices": [3, 6]},
}
# Every dimension of its own, so that one taken for another shows.
ODD = {
    "vocab_size": 1009,
    "hidden_size": 96,
    "intermediate_size": 208,
    "num_hidden_layers": 7,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
}
LATENT = {"num_key_value_heads": 12}
OWN_LISTS: dict[str, dict[str, Any]] = {
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv", "conv", "full_attention", "conv", "conv"]},
    "gemma3n_text": {"num_kv_shared_layers": 2, "intermediate_size": [208] * 7},
    "nemotron_h": {"layers_block_type": ["mamba", "moe", "attention", "mlp", "mamba", "moe", "mamba"]},
    "gpt_neo": {"attention_types": [[["global"], 7]], "num_layers": 7, "num_hidden_layers": None},
    "mamba2": {"num_heads": 3, "num_hidden_layers": 7},
    "granitemoehybrid": {"layer_types": ["mamba", "attention", "mamba", "mamba", "mamba", "mamba", "mamba"]}
    | {"mamba_n_heads": 24, "mamba_d_head": 8},
    "bamba": {"mamba_n_heads": 24, "mamba_d_head": 8},
    "falcon_h1": {"mamba_d_ssm": 48, "mamba_n_heads": 6, "mamba_d_head": 8},
    "longcat_flash": {"num_layers": 7},
    "helium": {"head_dim": 8},
    "mimo_v2_flash": {"num_key_value_heads": 3},
    "qwen3_5_moe_text": {"num_experts": 6, "num_experts_per_tok": 2},
}
# transformers allocates rows in `gate_up_proj` for the experts that do nothing; the published 560 B has none.
SURPLUS = {"longcat_flash"}


def check_count(kind: str, fields: dict[str, Any]) -> None:
    config = AutoConfig.for_model(kind, **fields)
    want = parameters(kind, fields)
    if kind in SURPLUS:
        want -= config.num_layers * config.zero_expert_num * 2 * config.expert_ffn_hidden_size * config.hidden_size
    assert read({"model_type": kind, **fields}).parameters == want
    assert read(config.to_dict()).parameters == want  # as transformers writes it, with everything filled in


@pytest.mark.parametrize("kind", sorted(classes()))
def test_parameters_are_those_of_transformers_own_model(kind: str) -> None:
    check_count(kind, NEEDED.get(kind, {}))


@pytest.mark.parametrize("kind", sorted(set(classes()) - {"mpt", "openai-gpt"}))
def test_parameters_of_an_odd_shape_are_too(kind: str) -> None:
    names = type(AutoConfig.for_model(kind, **NEEDED.get(kind, {}))).attribute_map
    known = classes()[kind]["fields"]
    shape = ODD | (LATENT if "kv_lora_rank" in known else {})
    odd = {name: value for name, value in shape.items() if name in known or names.get(name, name) in known}
    fields = {**NEEDED.get(kind, {}), **odd, **OWN_LISTS.get(kind, {})}
    check_count(kind, {name: value for name, value in fields.items() if value is not None})


# A field at a value that is not the class's own, and what else that needs.
OTHERWISE: list[tuple[str, dict[str, Any]]] = [
    ("granitemoehybrid", ODD | OWN_LISTS["granitemoehybrid"] | {"num_local_experts": 0}),
    ("apertus1p5_text", ODD | {"output_vocab_size": 501}),
    ("lfm3", ODD | {"use_sandwich_norm": False, "use_attention_gate": False}),
    ("phi", {"qk_layernorm": True}),
    ("persimmon", {"qk_layernorm": False}),
    ("solar_open", {"use_qk_norm": True}),
    ("laguna", {"gating": "per-head"}),
    ("laguna", {"gating": "per-element"}),
    ("gpt_neox", {"use_parallel_residual": False}),
    ("stablelm", {"use_parallel_residual": True}),
]


@pytest.mark.parametrize(("kind", "fields"), OTHERWISE)
def test_parameters_follow_the_fields_that_the_code_reads(kind: str, fields: dict[str, Any]) -> None:
    check_count(kind, fields)


def test_norms_behind_each_sum_are_refused() -> None:
    with pytest.raises(GraderError, match="norms the stream itself after each sum"):
        read({"model_type": "opt", "do_layer_norm_before": False})


def test_what_transformers_writes_of_single_layers_is_read() -> None:
    """Its `per_layer_config` says how wide the heads of Gemma 4's full layers are, and how many."""
    heads = {"head_dim": 8, "num_key_value_heads": 6, "global_head_dim": 20, "num_global_key_value_heads": 3}
    assert "per_layer_config" in AutoConfig.for_model("gemma4_text", **ODD | heads).to_dict()
    check_count("gemma4_text", ODD | heads)


@pytest.mark.parametrize("kind", sorted(classes()))
def test_projections_are_called_as_in_the_checkpoint(kind: str) -> None:
    fields = NEEDED.get(kind, {})
    told: set[str] = set()
    for layer in read({"model_type": kind, **fields}).layers:
        mixer, mlp = layer.mixer, layer.mlp
        if mixer and mixer.kind == "attention":
            told |= {*([mixer.qkv] if mixer.qkv else ["q_proj", "k_proj", "v_proj"])}
        if mixer and mixer.kind != "compressed":
            told |= {mixer.out}
        if mlp and not mlp.experts:
            gate, up, down = mlp.names
            told |= {down, *([mlp.gate_up] if mlp.gate_up else [up, *[gate] * mlp.gated])}
    assert told <= names(kind, fields)


@pytest.mark.parametrize("kind", sorted(set(classes()) - {"falcon_h1"}))
def test_each_layer_is_of_the_kind_that_its_class_says(kind: str) -> None:
    config = AutoConfig.for_model(kind, **NEEDED.get(kind, {}))
    model = read({"model_type": kind, **NEEDED.get(kind, {})})
    if getattr(config, "layer_types", None):
        assert list(model.kinds) == list(config.layer_types)
    if getattr(config, "mlp_layer_types", None):
        assert [bool(x.mlp and x.mlp.experts) for x in model.layers] == [k != "dense" for k in config.mlp_layer_types]


def test_the_class_defaults_are_the_installed_transformers() -> None:
    spec = importlib.util.spec_from_file_location("atlas_classes", ROOT / "scripts" / "atlas_classes.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert json.loads(script.written()) == json.loads(CLASSES.read_text(encoding="utf-8"))


LESSON_CONFIGS = sorted((ROOT / "solutions").glob("*/configs/*.json"))


@pytest.mark.parametrize("path", LESSON_CONFIGS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_every_config_of_a_lesson_is_counted(path: Path) -> None:
    fields = json.loads(path.read_text())
    model = read(fields)
    rest = {name: value for name, value in model.config.items() if name != "model_type"}
    assert model.parameters == parameters(model.family, rest)
    assert not model.remark


@pytest.mark.parametrize("kind", sorted(classes()))
def test_whether_rope_turns_neighbours_is_what_the_code_does(kind: str) -> None:
    """By the source of transformers' rotation: pairs with a stride of two, or as complex numbers."""
    module = importlib.import_module(AutoModelForCausalLM._model_mapping[CONFIG_MAPPING[kind]].__module__)
    rotations = ("rotate_half", "rotate_every_two", "apply_rotary_emb", "apply_rotary_pos_emb")
    found = [inspect.getsource(getattr(module, name)) for name in rotations if hasattr(module, name)]
    turned = "apply_rotary_pos_emb_interleave" in inspect.getsource(module)
    turned = turned or any(re.search("::2|view_as_complex", source) for source in found)
    positions = read({"model_type": kind, **NEEDED.get(kind, {})}).facts["positions"].value
    assert ("interleaved" in positions) == (turned and positions.startswith("RoPE"))


def test_importing_the_atlas_alone_loads_none_of_it() -> None:
    """So that it costs next to nothing; and a name that is a module's too is what it says, whatever was loaded."""
    program = "import sys, grader.atlas; print([name for name in sys.modules if name.startswith('grader.atlas.')])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"
    atlas = importlib.import_module("grader.atlas")
    for found in pkgutil.walk_packages(atlas.__path__, "grader.atlas."):
        importlib.import_module(found.name)
    assert all(callable(getattr(atlas, name)) for name in atlas.__all__)
    with pytest.raises(AttributeError):
        _ = atlas.nothing


TINY: dict[str, dict[str, Any]] = {
    "jamba": {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2}
    | {"mamba_d_state": 6, "use_mamba_kernels": False},
    "bamba": {"num_hidden_layers": 3, "attn_layer_indices": [1], "mamba_n_heads": 4, "mamba_d_head": 16}
    | {"mamba_d_state": 6},
    "falcon_h1": {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_ssm": 32, "mamba_d_state": 6},
    "mamba": {"state_size": 6},
    "falcon_mamba": {"state_size": 6},
    "mamba2": {"num_heads": 4, "head_dim": 16, "state_size": 6, "n_groups": 2, "hidden_size": 32},
    "olmo_hybrid": {"num_hidden_layers": 4},
    "afmoe": {"num_hidden_layers": 4, "head_dim": 8, "sliding_window": 5, "num_experts": 4}
    | {"num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "exaone_moe": {"num_hidden_layers": 4, "head_dim": 8, "sliding_window": 5, "num_experts": 4}
    | {"num_experts_per_tok": 2, "moe_intermediate_size": 16},
}
SMALL = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


@pytest.mark.parametrize("kind", sorted(TINY))
def test_the_cache_is_transformers_own(kind: str) -> None:
    known = classes()[kind]
    shape = {k: v for k, v in SMALL.items() if k in known["fields"] or k in known["names"] or "token" in k}
    config = AutoConfig.for_model(kind, **shape | TINY[kind])
    torch.manual_seed(0)
    model, cache, length = AutoModelForCausalLM.from_config(config).eval(), DynamicCache(config=config), 11
    with torch.no_grad():
        model(torch.randint(3, 50, (1, length)), cache=cache, use_cache=True)
    held = [value for layer in cache.layers for value in vars(layer).values()]
    tensors = [t for v in held for t in (v.values() if isinstance(v, dict) else [v]) if isinstance(t, torch.Tensor)]
    measured = sum(t.numel() * t.element_size() for t in tensors if t.is_floating_point())
    told = 0
    for one in caches(read(config.to_dict())):
        between = replace(one, window=one.window - 1) if one.window else one  # between two steps
        told += between.bytes_at(length, element_bytes=4)
    assert measured == told > 0


def code_of(kind: str) -> str:
    """The family's modelling code; skips one that has none of its own, as sarvam, which is read with its `like`'s."""
    folder = Path(inspect.getfile(CONFIG_MAPPING[traits_of(kind).hub_only or kind])).parent
    code = "".join(file.read_text(encoding="utf-8") for file in folder.glob("modeling_*.py"))
    if not code:
        pytest.skip("the family's code is another's")
    return code


# How the line that norms the queries begins.
NORMS = r"self\.(q_norm|q_layernorm|query_layernorm|qk_norm)\("
EXPERTS = [kind for kind in family_names() if traits_of(kind).mlp in ("experts", "gemma4")]
# A field that their files have, and transformers' code does not read: what it says is what the code does.
SAID_ALONE = ("deepseek_v2", "deepseek_v4")


@pytest.mark.parametrize("kind", [kind for kind in EXPERTS if kind not in SAID_ALONE])
def test_whether_the_weights_of_chosen_experts_sum_to_1_is_what_the_code_does(kind: str) -> None:
    traits, code = traits_of(kind), code_of(kind)
    if traits.router == "softmax of the chosen":
        return
    divided = re.search(r"(weights?|value|scores)\.sum\(\s*dim=-1, keepdim=True\)", code)
    field = "norm_topk_prob" if "config.norm_topk_prob" in code else "yes" if divided else "no"
    assert traits.renormalised == field


@pytest.mark.parametrize("kind", EXPERTS)
def test_a_bias_for_the_choice_alone_is_told_where_the_code_has_one(kind: str) -> None:
    traits = traits_of(kind)
    has = bool(re.search(r"\b(e_score_correction_bias|expert_bias)\b", code_of(kind)))
    assert (traits.choice_bias or traits.router_bias_counts) == has


@pytest.mark.parametrize("kind", [kind for kind in family_names() if traits_of(kind).qk_norm])
def test_whether_queries_are_normed_before_rope_is_what_the_code_does(kind: str) -> None:
    code = code_of(kind)
    norm, turn = (re.search(rf"= {what}", code) for what in (NORMS, r"apply_rotary\w+\("))
    if not norm or not turn:
        pytest.skip("norm and rotation are not lines of the same kind in this code")
    assert traits_of(kind).norm_after_rope == (norm.start() > turn.start())
