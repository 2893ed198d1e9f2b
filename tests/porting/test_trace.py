"""Traces of small transformers models, made from config.json alone, and what they tell about copies and programs."""

import copy
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config

from grader.errors import GraderError
from grader.layers.debugger import layer_report
from grader.layers.rows import LayerReport
from grader.layers.wording import report_lines
from grader.lessons.exercise import Draw
from grader.porting.filling import fill
from grader.porting.reference import Reference, small_reference
from grader.porting.sizes import EXPERTS
from grader.recordings.tracefile import read_trace, write_trace
from grader.recordings.traces import Trace
from grader.recordings.tracing import trace_of
from grader.report import to_text

pytest.importorskip("transformers")

# What the hub's config.json files say, without what no program reads.
COMMON = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "tie_word_embeddings": False}
CONFIGS: dict[str, dict[str, Any]] = {
    "Llama 3": COMMON
    | {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
    | {"num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "rope_theta": 500000.0}
    | {"rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0}}
    | {"max_position_embeddings": 131072, "bos_token_id": 128000, "eos_token_id": [128001, 128009]},
    "Qwen3": COMMON
    | {"model_type": "qwen3", "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16}
    | {"num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 3072, "vocab_size": 151936}
    | {"rope_theta": 1000000, "max_position_embeddings": 40960, "tie_word_embeddings": True}
    | {"use_sliding_window": False, "sliding_window": None, "max_window_layers": 28, "attention_bias": False},
    "Qwen3-MoE": COMMON
    | {"model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32}
    | {"num_key_value_heads": 4, "head_dim": 128, "moe_intermediate_size": 768, "intermediate_size": 6144}
    | {"num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": True, "decoder_sparse_step": 1}
    | {"mlp_only_layers": [], "vocab_size": 151936, "rope_theta": 1000000.0, "max_position_embeddings": 40960},
    "Gemma 3": {"model_type": "gemma3_text", "hidden_size": 640, "num_hidden_layers": 18, "num_attention_heads": 4}
    | {"num_key_value_heads": 1, "head_dim": 256, "intermediate_size": 2048, "vocab_size": 262144}
    | {"sliding_window": 512, "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "rms_norm_eps": 1e-6}
    | {"query_pre_attn_scalar": 256, "hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 32768}
    | {"layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 3},
    "Gemma 4": {"model_type": "gemma4_text", "hidden_size": 5376, "num_hidden_layers": 60, "num_attention_heads": 32}
    | {"num_key_value_heads": 16, "head_dim": 256, "global_head_dim": 512, "num_global_key_value_heads": 4}
    | {"attention_k_eq_v": True, "intermediate_size": 21504, "vocab_size": 262144, "sliding_window": 1024}
    | {"hidden_size_per_layer_input": 0, "final_logit_softcapping": 30.0, "max_position_embeddings": 262144},
    "OLMo 3": COMMON
    | {"model_type": "olmo3", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
    | {"num_key_value_heads": 32, "intermediate_size": 11008, "vocab_size": 100278, "sliding_window": 4096}
    | {"rope_theta": 500000, "max_position_embeddings": 65536}
    | {"rope_scaling": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8192}}
    | {"layer_types": (["sliding_attention"] * 3 + ["full_attention"]) * 8},
    "SmolLM3": COMMON
    | {"model_type": "smollm3", "hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16}
    | {"num_key_value_heads": 4, "intermediate_size": 11008, "vocab_size": 128256, "rope_theta": 5000000.0}
    | {"no_rope_layers": [1, 1, 1, 0] * 9, "tie_word_embeddings": True, "max_position_embeddings": 65536},
    "gpt-oss": {"model_type": "gpt_oss", "hidden_size": 2880, "num_hidden_layers": 24, "num_attention_heads": 64}
    | {"num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 2880, "vocab_size": 201088}
    | {"num_local_experts": 32, "num_experts_per_tok": 4, "sliding_window": 128, "rope_theta": 150000}
    | {"swiglu_limit": 7.0}
    | {"layer_types": ["sliding_attention", "full_attention"] * 12, "max_position_embeddings": 131072}
    | {"rope_scaling": {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096}},
    "DeepSeek-V3": COMMON
    | {"model_type": "deepseek_v3", "hidden_size": 7168, "num_hidden_layers": 61, "num_attention_heads": 128}
    | {"num_key_value_heads": 128, "intermediate_size": 18432, "moe_intermediate_size": 2048, "vocab_size": 129280}
    | {"q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
    | {"n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4}
    | {"first_k_dense_replace": 3, "norm_topk_prob": True, "routed_scaling_factor": 2.5, "rope_theta": 10000}
    | {"rope_scaling": {"type": "yarn", "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0, "beta_fast": 32,
                        "beta_slow": 1, "original_max_position_embeddings": 4096}},
    "GLM-4": COMMON
    | {"model_type": "glm4", "hidden_size": 4096, "num_hidden_layers": 40, "num_attention_heads": 32}
    | {"num_key_value_heads": 2, "head_dim": 128, "intermediate_size": 13696, "vocab_size": 151552}
    | {"partial_rotary_factor": 0.5, "rope_theta": 10000.0, "pad_token_id": 151329, "attention_bias": True},
    "Mistral": COMMON
    | {"model_type": "mistral", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
    | {"num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 32000, "sliding_window": 4096},
    "Phi": {"model_type": "phi", "hidden_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 32}
    | {"intermediate_size": 10240, "vocab_size": 51200, "partial_rotary_factor": 0.4, "hidden_act": "gelu_new"},
    "GPT-2": {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257}
    | {"n_positions": 1024, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-05},
    "Mixtral": COMMON
    | {"model_type": "mixtral", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
    | {"num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 32000, "num_local_experts": 8}
    | {"num_experts_per_tok": 2, "rope_theta": 1000000.0, "sliding_window": None},
    "Qwen3-Next": COMMON
    | {"model_type": "qwen3_next", "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 16}
    | {"num_key_value_heads": 2, "head_dim": 256, "moe_intermediate_size": 512, "vocab_size": 151936}
    | {"shared_expert_intermediate_size": 512, "num_experts": 512, "num_experts_per_tok": 10}
    | {"linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_key_head_dim": 128}
    | {"linear_value_head_dim": 128, "partial_rotary_factor": 0.25, "rope_theta": 10000000},
    "Nemotron-H": {"model_type": "nemotron_h", "hidden_size": 2688, "num_attention_heads": 32, "vocab_size": 131072}
    | {"num_key_value_heads": 2, "head_dim": 128, "intermediate_size": 1856, "moe_intermediate_size": 1856}
    | {"n_routed_experts": 128, "num_experts_per_tok": 6, "mamba_num_heads": 64, "mamba_head_dim": 64}
    | {"ssm_state_size": 128, "n_groups": 8, "hybrid_override_pattern": "MEMEM*EMEMEM*EMEMEM*"},
    "Cohere 2": {"model_type": "cohere2", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
    | {"num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 256000, "sliding_window": 4096},
}  # fmt: skip


@cache
def reference(name: str, dtype: torch.dtype = torch.float32) -> tuple[Reference, Trace]:
    """A small model and its trace; tests change copies of it only."""
    path = Path(_folder) / f"{name}.json"
    path.write_text(json.dumps(CONFIGS[name]))
    small = small_reference(path, dtype)
    return small, small.trace


_folder = ""


@pytest.fixture(scope="module", autouse=True)
def quick_and_at_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """These models are so small that threads only wait for one another."""
    global _folder
    _folder = str(tmp_path_factory.mktemp("configs"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    reference.cache_clear()


def text(report: LayerReport, **options: Any) -> str:
    return to_text(report_lines(report, **options))


# Every architecture: a copy is right, and a copy with one change is told apart


@pytest.mark.parametrize("name", CONFIGS)
def test_a_copy_of_the_reference_is_right_to_the_last_bit(name: str) -> None:
    small, trace = reference(name)
    report = layer_report(small.model, trace)
    assert report.ok, text(report)
    assert all(row.outcome.max == 0 for row in report.rows)
    assert len(report.rows) > 20


def put(path: str, **values: Any) -> Callable[[nn.Module], None]:
    """Set attributes of one module."""

    def plant(model: nn.Module) -> None:
        module = model.get_submodule(path)
        for name, value in values.items():
            assert getattr(module, name) != value
            setattr(module, name, value)

    return plant


def window_off_by_one(model: Any) -> None:
    model.config.sliding_window += 1


def slower_turns(model: Any) -> None:
    model.model.rotary_emb.inv_freq *= 0.9


def other_yarn(**values: Any) -> Callable[[Any], None]:
    """Tables of rotations of another YaRN."""

    def plant(model: Any) -> None:
        config = copy.deepcopy(model.config)
        every = config.rope_parameters
        for rope in [every, *(part for part in every.values() if isinstance(part, dict))]:
            rope |= values if rope.get("rope_type") == "yarn" else {}
        model.model.rotary_emb = type(model.model.rotary_emb)(config)

    return plant


def exact_gelu(path: str) -> Callable[[nn.Module], None]:
    def plant(model: nn.Module) -> None:
        model.get_submodule(path).forward = torch.nn.functional.gelu  # type: ignore[method-assign]

    return plant


def added_twice(path: str) -> Callable[[nn.Module], None]:
    """The residual connection around a module is taken twice: it adds its own input."""

    def plant(model: nn.Module) -> None:
        module = model.get_submodule(path)
        forward = module.forward
        module.forward = lambda x, *args, **kwargs: forward(x, *args, **kwargs) + x  # type: ignore[method-assign]

    return plant


CHANGES: dict[str, tuple[str, str, Callable[[Any], None]]] = {
    # what is changed: the model, the culprit, and the change
    "Llama 3: scores scaled by another number": (
        "Llama 3", "model.layers.1.self_attn:weights", put("model.layers.1.self_attn", scaling=0.2)),
    "Qwen3: eps of the norm of queries": (
        "Qwen3", "model.layers.0.self_attn.q_norm", put("model.layers.0.self_attn.q_norm", variance_epsilon=1e-3)),
    "Qwen3-MoE: experts' weights not normalised": (
        "Qwen3-MoE", "model.layers.1.mlp.gate", put("model.layers.1.mlp.gate", norm_topk_prob=False)),
    "Gemma 3: a window that is one too long": ("Gemma 3", "model", window_off_by_one),
    "Gemma 3: scale of the embeddings": (
        "Gemma 3", "model.embed_tokens", lambda m: m.model.embed_tokens.embed_scale.fill_(25.25)),
    "Gemma 4: scores of a full layer scaled": (
        "Gemma 4", "model.layers.5.self_attn:weights", put("model.layers.5.self_attn", scaling=0.25)),
    "OLMo 3: eps of a norm after a sublayer": (
        "OLMo 3", "model.layers.3.post_attention_layernorm",
        put("model.layers.3.post_attention_layernorm", variance_epsilon=1e-2)),
    "SmolLM3: RoPE in the layer without it": (
        "SmolLM3", "model.layers.3.self_attn:weights", put("model.layers.3.self_attn", use_rope=1)),
    "gpt-oss: the experts' alpha": (
        "gpt-oss", "model.layers.0.mlp.experts", put("model.layers.0.mlp.experts", alpha=1.0)),
    "gpt-oss: the limit of the experts' gates": (
        "gpt-oss", "model.layers.0.mlp.experts", put("model.layers.0.mlp.experts", limit=7.0)),
    "gpt-oss: YaRN's ramp not cut to whole pairs": ("gpt-oss", "model.rotary_emb", other_yarn(truncate=False)),
    "OLMo 3: another end of YaRN's ramp": ("OLMo 3", "model.rotary_emb", other_yarn(beta_fast=8.0)),
    "gpt-oss: a window that is one too long": ("gpt-oss", "model", window_off_by_one),
    "DeepSeek-V3: YaRN's scale left out": (
        "DeepSeek-V3", "model.layers.0.self_attn:weights", put("model.layers.0.self_attn", scaling=12**-0.5)),
    "DeepSeek-V3: eps of the latent's norm": (
        "DeepSeek-V3", "model.layers.4.self_attn.kv_a_layernorm",
        put("model.layers.4.self_attn.kv_a_layernorm", variance_epsilon=1e-3)),
    "GLM-4: another activation": (
        "GLM-4", "model.layers.0.mlp.activation_fn", exact_gelu("model.layers.0.mlp.activation_fn")),
    "Mistral: a window that is one too long": ("Mistral", "model", window_off_by_one),
    "Phi: slower turns": ("Phi", "model.rotary_emb", slower_turns),
    "GPT-2: exact gelu": ("GPT-2", "transformer.h.0.mlp.act", exact_gelu("transformer.h.0.mlp.act")),
    "Mixtral: one expert for two": ("Mixtral", "model.layers.0.mlp.gate", put("model.layers.0.mlp.gate", top_k=1)),
    "Qwen3-Next: eps of the gated norm": (
        "Qwen3-Next", "model.layers.0.linear_attn.norm", put("model.layers.0.linear_attn.norm", variance_epsilon=1e-2)),
    "Nemotron-H: a mixer that adds its input": (
        "Nemotron-H", "model.layers.1.mixer", added_twice("model.layers.1.mixer")),
    "Cohere 2: scale of the logits": ("Cohere 2", "", lambda m: setattr(m, "logit_scale", m.logit_scale * 2)),
}  # fmt: skip


def changed(model: nn.Module, change: Callable[[Any], None]) -> nn.Module:
    other = copy.deepcopy(model)
    with torch.no_grad():
        change(other)
    return other


@pytest.mark.parametrize("what", CHANGES)
def test_a_copy_with_one_change_is_told_apart_and_the_culprit_named(what: str) -> None:
    name, culprit, change = CHANGES[what]
    small, trace = reference(name)
    report = layer_report(changed(small.model, change), trace)
    assert not report.ok
    assert report.culprit is not None, text(report)
    assert report.culprit.path == culprit, text(report, open="all")


def one_percent_more(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output * 1.01
    if isinstance(output, tuple):
        return (output[0] * 1.01, *output[1:])
    first = next(iter(output))
    output[first] = output[first] * 1.01
    return output


def one_of_each_kind(trace: Trace) -> list[str]:
    """The paths of the modules that give numbers, of those in different layers the first of each class; and ""."""
    numeric = [call for call in trace.calls if call.output is not None and call.output.is_floating_point()]
    modules = [call for call in numeric if ":" not in call.path]
    paths = {(re.sub(r"\.\d+", "", call.path), call.type): call.path for call in reversed(modules)}
    return ["", *paths.values()]


@pytest.mark.parametrize("name", ["Gemma 3", "Gemma 4", "gpt-oss", "DeepSeek-V3", "Qwen3-Next", "Nemotron-H"])
def test_whichever_module_is_one_percent_off_is_the_culprit(name: str) -> None:
    """Of each model every second module; where it begins is another from model to model."""
    small, trace = reference(name)
    paths = one_of_each_kind(trace)
    assert len(paths) > 15
    for path in paths[len(name) % 2 :: 2]:
        other = copy.deepcopy(small.model)
        module = other.get_submodule(path)
        forward = module.forward
        module.forward = lambda *args, forward=forward, **kwargs: one_percent_more(forward(*args, **kwargs))
        report = layer_report(other, trace)
        assert report.culprit is not None and report.culprit.path == path, text(report, open="all")


def routers_of_two_tensors(model: Any, factor: float = 1.0) -> Any:
    """gpt-oss's router gives scores of all experts as well, which nothing needs. factor: an error of their own."""
    other = copy.deepcopy(model)
    for layer in other.model.layers:
        mlp, router = layer.mlp, layer.mlp.router.forward
        mlp.router.forward = lambda x, router=router: router(x)[1:]

        def forward(x: Tensor, mlp: Any = mlp) -> tuple[Tensor, None]:
            weights, chosen = mlp.router(x.flatten(0, 1))
            return mlp.experts(x.flatten(0, 1), chosen, weights).view_as(x) * factor, None

        mlp.forward = forward
    return other


def test_a_module_that_gives_some_of_the_references_tensors_is_not_blamed() -> None:
    small, trace = reference("gpt-oss")
    assert layer_report(routers_of_two_tensors(small.model), trace).ok
    report = layer_report(routers_of_two_tensors(small.model, 1.1), trace)
    assert report.culprit is not None and report.culprit.path == "model.layers.0.mlp", text(report, open="all")


def test_tables_in_another_dtype_are_named() -> None:
    small, trace = reference("OLMo 3", torch.bfloat16)
    other: Any = copy.deepcopy(small.model)
    rotary = other.model.rotary_emb
    del other.model.rotary_emb
    other.model.__dict__["rotary_emb"] = lambda *a, **k: tuple(t.bfloat16() for t in rotary(*a, **k))
    report = layer_report(other, trace)
    assert report.culprit is not None and report.culprit.path == "model", text(report)
    given = "`model.layers.0` is given `position_embeddings` in bfloat16, and in the reference in float32."
    assert given in report.culprit.reasons


def test_every_architecture_has_a_change() -> None:
    assert {name for name, _, _ in CHANGES.values()} == set(CONFIGS)
    assert len(CONFIGS) >= 12


def test_a_wrong_mask_is_named_as_an_argument() -> None:
    small, trace = reference("Mistral")
    report = layer_report(changed(small.model, window_off_by_one), trace)
    assert report.culprit is not None
    assert (
        "`model.layers.0` needs another `attention_mask`: it is right with the reference's `attention_mask`."
        in report.culprit.reasons
    )


@pytest.mark.parametrize("name", ["Llama 3", "Gemma 3", "Mistral", "DeepSeek-V3"])
def test_in_bfloat16_a_copy_is_right_and_a_change_is_found(name: str) -> None:
    small, trace = reference(name, torch.bfloat16)
    assert trace.dtype == torch.bfloat16 and trace.output.dtype == torch.bfloat16
    report = layer_report(small.model, trace)
    assert report.ok and all(row.outcome.max == 0 for row in report.rows)
    _, culprit, change = next(change for change in CHANGES.values() if change[0] == name)
    found = layer_report(changed(small.model, change), trace).culprit
    assert found is not None and found.path == culprit


# What the small models keep


def kept(name: str) -> dict[str, tuple[bool, str]]:
    return {item.name: (item.covered, item.detail) for item in reference(name)[0].coverage}


LAYERS = "every kind of layer, twice where the model has two"
WINDOW = "more tokens than the window"
KV_HEADS = "fewer key and value heads than heads"
HEAD_DIM = "head_dim that is not hidden size / heads"


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("Llama 3", "3 layers: 3 of one kind of layer"),
        ("Gemma 3", "12 layers: 10 + 2 of 2 kinds of layers"),
        ("Gemma 4", "12 layers: 10 + 2 of 2 kinds of layers"),
        ("OLMo 3", "8 layers: 6 + 2 of 2 kinds of layers"),
        ("SmolLM3", "8 layers: 6 + 2 of 2 kinds of layers"),
        ("gpt-oss", "4 layers: 2 + 2 of 2 kinds of layers"),
        ("DeepSeek-V3", "5 layers: 3 + 2 of 2 kinds of layers"),
        ("Qwen3-Next", "8 layers: 6 + 2 of 2 kinds of layers"),
        ("Nemotron-H", "13 layers: 6 + 5 + 2 of 3 kinds of layers"),
    ],
)
def test_it_has_two_layers_of_every_kind(name: str, detail: str) -> None:
    assert kept(name)[LAYERS] == (True, detail)


@pytest.mark.parametrize("name", ["Gemma 3", "Gemma 4", "OLMo 3", "gpt-oss", "Mistral", "Cohere 2"])
def test_it_has_more_tokens_than_the_window(name: str) -> None:
    assert kept(name)[WINDOW] == (True, "sliding_window 5, 14 tokens")


def test_what_the_config_spells_out_is_set_apart_and_what_it_leaves_to_be_derived_stays_so() -> None:
    assert kept("Qwen3")[KV_HEADS][0] and kept("Qwen3")[HEAD_DIM][0]
    assert kept("Llama 3")[KV_HEADS][0] and not kept("Llama 3")[HEAD_DIM][0]  # its file has no head_dim
    assert kept("OLMo 3")[KV_HEADS][0]  # as many as heads, but spelt out
    assert kept("GPT-2")[KV_HEADS] == (False, "4 heads, 4 for keys and values")
    assert kept("Mistral")[WINDOW][0] and kept("Qwen3")[WINDOW] == (False, "the config has no window")


def test_the_config_for_ones_own_program_has_the_fields_of_the_file() -> None:
    small, trace = reference("DeepSeek-V3")
    fields = trace.build["config"]
    assert set(CONFIGS["DeepSeek-V3"]) <= set(fields)
    assert fields["rope_theta"] == 10000 and fields["rope_scaling"]["original_max_position_embeddings"] == 4096
    assert fields["num_hidden_layers"] == 5 and fields["kv_lora_rank"] == 12
    assert json.loads(json.dumps(fields)) == fields
    assert small.size < 500_000


@pytest.mark.parametrize(("fields", "below"), [({"n_routed_experts": 3}, 3), ({}, EXPERTS)])
def test_a_table_of_chosen_experts_gets_numbers_below_theirs(fields: dict[str, int], below: int) -> None:
    model = nn.Module()
    model.config = GPT2Config(**fields)
    model.register_buffer("chosen", torch.zeros(50, 4, dtype=torch.long))
    fill(model, Draw("a table"))
    assert model.get_buffer("chosen").unique().tolist() == [*range(below)]


def test_weights_are_random_and_embeddings_of_unequal_size() -> None:
    for name in ("Gemma 3", "DeepSeek-V3", "GPT-2"):
        weights = reference(name)[1].weights
        assert all(tensor.unique().numel() > 1 for tensor in weights.values() if tensor.numel() > 1), name
        table = next(tensor for key, tensor in weights.items() if "embed_tokens" in key or "wte" in key)
        sizes = table.norm(dim=1)
        assert sizes[::4].max() < 0.01 * sizes[1::4].min()


def test_what_a_program_may_know_from_the_trace_is_the_same_every_time(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIGS["Qwen3"]))
    again = small_reference(path).trace
    first = reference("Qwen3")[1]
    assert torch.equal(again.args[0], first.args[0]) and torch.equal(again.output, first.output)


def test_of_a_model_that_also_sees_the_language_model_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "gemma3", "text_config": CONFIGS["Gemma 3"], "vision_config": {}}))
    assert small_reference(path).kind == "Gemma3ForCausalLM"


def small_of(path: Path, config: dict[str, Any], **changes: Any) -> Reference:
    path.write_text(json.dumps(config))
    return small_reference(path, changes=changes)


def test_the_language_model_may_be_known_by_the_whole_models_config_alone(tmp_path: Path) -> None:
    assert small_of(tmp_path / "config.json", {"model_type": "emu3"}).kind == "Emu3ForCausalLM"


def test_a_number_that_json_has_not_is_read_as_transformers_writes_it(tmp_path: Path) -> None:
    infinite = {"model_type": "mamba2", "time_step_limit": [0.0, {"__float__": "Infinity"}]}
    small = small_of(tmp_path / "config.json", infinite)
    assert small.fields["time_step_limit"] == [0.0, float("inf")]
    assert layer_report(small.model, small.trace).ok


def test_a_small_model_ends_in_a_layer_of_the_type_that_the_whole_one_ends_in(tmp_path: Path) -> None:
    """Gemma 4 makes its last layer a full one, and the later layers use keys and values of earlier ones."""
    shared = CONFIGS["Gemma 4"] | {"num_hidden_layers": 42, "num_kv_shared_layers": 18, "attention_k_eq_v": False}
    shared |= {"hidden_size_per_layer_input": 256}
    small = small_of(tmp_path / "config.json", shared)
    assert small.fields["layer_types"] == (["sliding_attention"] * 5 + ["full_attention"]) * 2
    assert small.fields["num_kv_shared_layers"] == 6
    assert layer_report(small.model, small.trace).ok


def test_sizes_that_must_fit_one_another_do(tmp_path: Path) -> None:
    """Its sliding layers have as many key and value heads as heads, and heads of two parts."""
    assert small_of(tmp_path / "config.json", {"model_type": "dots3_note_text"}).fields["head_dim"] == 12


def test_what_is_set_may_fit_the_smaller_number_of_layers_alone(tmp_path: Path) -> None:
    counts = {"n_input_layers": 4, "n_recurrent_layers": 4, "n_output_layers": 4}
    assert small_of(tmp_path / "config.json", {"model_type": "dory"}, num_hidden_layers=12, **counts).size < 500_000


def test_a_config_that_lacks_a_field_is_told_from_one_that_can_not_be_made_small(tmp_path: Path) -> None:
    with pytest.raises(GraderError, match=r"of this config as it is .* Does the file lack a field"):
        small_of(tmp_path / "config.json", {"model_type": "dbrx"})
    with pytest.raises(GraderError, match=r"can't run a small Qwen3ForCausalLM \(ValueError: it still has [\d,]+ para"):
        small_of(tmp_path / "config.json", CONFIGS["Qwen3"], intermediate_size=10**6)


# One's own program

QWEN3 = """
import torch
from torch import nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x):
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype)


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        D, H, K, d = config.hidden_size, config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.head_dim = d
        self.q_proj = nn.Linear(D, H * d, bias=False)
        self.k_proj = nn.Linear(D, K * d, bias=False)
        self.v_proj = nn.Linear(D, K * d, bias=False)
        self.o_proj = nn.Linear(H * d, D, bias=False)
        self.q_norm = RMSNorm(d, config.rms_norm_eps)
        self.k_norm = RMSNorm(d, config.rms_norm_eps)

    def forward(self, x, mask, cos, sin):
        B, T, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(B, T, -1, self.head_dim)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(B, T, -1, self.head_dim)).transpose(1, 2)
        v = self.v_proj(x).view(B, T, -1, self.head_dim).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
        scores = (q @ k.transpose(2, 3) * self.head_dim**-0.5).masked_fill(~mask, float("-inf"))
        weights = scores.softmax(-1, dtype=torch.float32).to(x.dtype)
        return self.o_proj((weights @ v).transpose(1, 2).reshape(B, T, -1))


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x, mask, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), mask, cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Inner(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([Layer(config) for _ in range(config.num_hidden_layers)])
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, ids):
        T, d = ids.shape[1], self.config.head_dim
        x = self.embed_tokens(ids)
        inv_freq = 1.0 / self.config.rope_theta ** (torch.arange(0, d, 2).float() / d)
        angles = torch.outer(torch.arange(T).float(), inv_freq).repeat(1, 2)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        mask = torch.ones(T, T, dtype=torch.bool).tril()
        for layer in self.layers:
            x = layer(x, mask, cos, sin)
        return self.norm(x)


class Bare(Inner):
    def forward(self, ids):
        return F.linear(super().forward(ids), self.embed_tokens.weight)


class Qwen3(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.model = Inner(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, ids):
        return self.lm_head(self.model(ids))


def build(config):
    return Qwen3(config)
"""


def program(*changes: tuple[str, str]) -> dict[str, Any]:
    """What the program defines, with parts of its source replaced."""
    source = QWEN3
    for find, replace in changes:
        assert source.count(find) == 1, f"{find!r} occurs {source.count(find)} times"
        source = source.replace(find, replace)
    names: dict[str, Any] = {"__name__": "learner"}
    exec(compile(source, "<learner>", "exec"), names)
    return names


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["Qwen3", "Bare"])
def test_a_right_program_is_right_with_the_prefix_of_the_models_inside_and_without(
    name: str, dtype: torch.dtype
) -> None:
    report = layer_report(program()[name], reference("Qwen3", dtype)[1])
    assert report.ok, text(report)
    assert {row.name for row in report.rows} >= {"model.layers.2" if name == "Qwen3" else "layers.2", "logits"}


PROGRAM_MISTAKES = {
    # the change: the culprit
    ("rope_theta **", "hidden_size **"): "model",
    ("torch.bool).tril()", "torch.bool).tril(1)"): "model",
    ("t.repeat_interleave(q.shape[1] // t.shape[1], dim=1)", "t.repeat(1, q.shape[1] // t.shape[1], 1, 1)"):
        "model.layers.0.self_attn",
    ("self.head_dim**-0.5", "x.shape[-1]**-0.5"): "model.layers.0.self_attn",
    (" + self.eps)", ")"): "model.layers.0.input_layernorm",
    ("F.silu(", "F.gelu("): "model.layers.0.mlp",
    ("x + self.mlp(self.post_attention_layernorm(x))", "x + self.mlp(self.input_layernorm(x))"): "model.layers.0",
}  # fmt: skip


@pytest.mark.parametrize("change", PROGRAM_MISTAKES)
def test_a_mistake_in_a_program_is_named(change: tuple[str, str]) -> None:
    report = layer_report(program(change)["Qwen3"], reference("Qwen3")[1])
    assert report.culprit is not None, text(report)
    assert report.culprit.path == PROGRAM_MISTAKES[change], text(report, open="all")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_program_is_compared_with_a_live_transformers_model(dtype: torch.dtype, attention: str) -> None:
    import transformers

    sizes: dict[str, Any] = {"vocab_size": 90, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    sizes["head_dim"] = 12
    config = transformers.Qwen3Config(  # type: ignore[call-arg]
        **sizes,
        num_attention_heads=4,
        num_key_value_heads=2,
        rope_theta=1e4,
        attn_implementation=attention,  # type: ignore[arg-type]
    )
    config.tie_word_embeddings = True
    live = transformers.Qwen3ForCausalLM(config).to(dtype)  # type: ignore[arg-type]
    ids = torch.arange(10)[None] * 7
    trace = trace_of(live, ids)
    mine = dict(trace.build["config"], rope_theta=1e4)
    from grader.config import Config

    built = program()["Qwen3"](Config(mine))
    report = layer_report(built, trace)
    assert report.ok, text(report)
    assert not layer_report(program(("F.silu(", "F.gelu("))["Qwen3"](Config(mine)), trace).ok


class Expert(nn.Module):
    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(dim, width, bias=False)
        self.up_proj = nn.Linear(dim, width, bias=False)
        self.down_proj = nn.Linear(width, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Experts(nn.ModuleList):
    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for i, expert in enumerate(self):
            token, place = torch.where(chosen == i)
            out.index_add_(0, token, expert(x[token]) * weights[token, place, None])
        return out


def one_module_per_expert(model: Any) -> nn.Module:
    other = copy.deepcopy(model)
    for layer in other.model.layers:
        layer.mlp.experts = Experts(Expert(64, 24) for _ in range(8))
    return other


def test_a_class_may_give_the_config_another_name() -> None:
    bare = program()["Bare"]

    class Mine(bare):  # type: ignore[misc,valid-type]
        def __init__(self, cfg: Any) -> None:
            super().__init__(cfg)

    assert layer_report(Mine, reference("Qwen3")[1]).ok


def test_experts_may_have_the_names_of_the_checkpoints_files() -> None:
    """transformers holds a layer's experts in two tensors; the hub's files hold three for each."""
    small, trace = reference("Qwen3-MoE")
    mine = one_module_per_expert(small.model)
    assert "model.layers.0.mlp.experts.7.down_proj.weight" in mine.state_dict()
    assert layer_report(mine, trace).ok
    mine.model.layers[1].mlp.experts[3].forward = lambda x: x * 0
    report = layer_report(mine, trace)
    assert report.culprit is not None and report.culprit.path.startswith("model.layers.1.mlp")


def test_modules_may_have_the_names_of_the_checkpoints_files() -> None:
    """Mixtral's `mlp` is `block_sparse_moe` in its files."""
    _, trace = reference("Mixtral")
    (layout,) = trace.layouts
    assert "model.layers.0.block_sparse_moe.experts.0.w1.weight" in layout.weights
    assert layout.paths["model.layers.0.mlp"] == "model.layers.0.block_sparse_moe"


def test_names_that_fit_neither_are_explained() -> None:
    with pytest.raises(GraderError, match=r"did you mean `model\.layers\.\*\.self_attn\.q_norm\.weight`"):
        layer_report(
            program(("self.q_norm = ", "self.qnorm = "), ("q = self.q_norm(", "q = self.qnorm("))["Qwen3"],
            reference("Qwen3")[1],
        )


# Files and the command


@pytest.mark.parametrize("name", ["Qwen3", "Mixtral", "gpt-oss"])
def test_a_trace_is_the_same_after_writing_and_reading(name: str, tmp_path: Path) -> None:
    small, trace = reference(name)
    write_trace(trace, tmp_path / "t.safetensors", small.kind)
    read = read_trace(tmp_path / "t.safetensors")
    assert read.build == trace.build and read.prefix == trace.prefix and read.dtype == trace.dtype
    assert [(c.path, c.index, c.type) for c in read.calls] == [(c.path, c.index, c.type) for c in trace.calls]
    assert [len(c.others) for c in read.calls] == [len(c.others) for c in trace.calls]
    assert layer_report(small.model, read).ok


Grader = Callable[..., tuple[int, str, str]]


@pytest.fixture
def porting(tmp_path: Path) -> Path:
    """A folder with a config.json, a program and a trace."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS["Qwen3"]))
    (tmp_path / "mine.py").write_text(QWEN3)
    write_trace(reference("Qwen3")[1], tmp_path / "trace.safetensors", "Qwen3ForCausalLM")
    return tmp_path


def test_trace_says_what_it_kept(porting: Path, grader: Grader) -> None:
    code, out, err = grader("trace", porting / "config.json", "--to", porting / "new.safetensors")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("Qwen3ForCausalLM in float32, ") and lines[0].endswith("new.safetensors")
    assert "yes fewer key and value heads than heads: 4 heads, 2 for keys and values" in lines
    assert "no  more tokens than the window: the config has no window" in lines
    assert (porting / "new.safetensors").stat().st_size < 3_000_000


def test_trace_in_bfloat16_with_fields_of_ones_own(porting: Path, grader: Grader) -> None:
    new = porting / "new.safetensors"
    options = ("--dtype", "bfloat16", "--set", "num_hidden_layers=2", "--set", "hidden_act=gelu")
    assert grader("trace", porting / "config.json", "--to", new, *options)[0] == 0
    trace = read_trace(new)
    assert trace.dtype == torch.bfloat16
    assert trace.build["config"]["num_hidden_layers"] == 2 and trace.build["config"]["hidden_act"] == "gelu"
    assert grader("compare", f"{porting / 'mine.py'}:Qwen3", new)[0] == 1


@pytest.mark.parametrize("target", ["mine.py:Qwen3", "mine.py:Bare", "mine.py:build"])
def test_compare_prints_the_table_and_exits_with_0_for_a_right_program(
    porting: Path, grader: Grader, target: str
) -> None:
    code, out, err = grader("compare", porting / target, porting / "trace.safetensors")
    assert (code, err) == (0, "")
    inside = "" if target.endswith("Bare") else "model."
    names = [*(["model"] if inside else []), f"{inside}embed_tokens", f"{inside}layers.0", f"{inside}layers.1"]
    table = [" ".join(line.split()) for line in out.splitlines()[2:]]
    assert table[: len(names)] == [f"[OK] {name} 0 0" for name in names]
    assert "rows match the reference" in out


def test_compare_exits_with_1_and_names_the_culprit_of_a_wrong_one(porting: Path, grader: Grader) -> None:
    (porting / "mine.py").write_text(QWEN3.replace("F.silu(", "F.gelu("))
    code, out, err = grader("compare", porting / "mine.py", porting / "trace.safetensors", "--class", "Qwen3")
    assert (code, err) == (1, "")
    assert re.search(r"\[DIFF\] +model\.layers\.0\.mlp ", out) and "Start here: `model.layers.0.mlp` (MLP)" in out


def test_compare_takes_a_notebook_whose_later_cells_need_what_is_not_there(porting: Path, grader: Grader) -> None:
    cells = [
        "%matplotlib inline\n!pip list",
        "print('hello')",
        *QWEN3.split("\n\n\n"),
        "raise RuntimeError",
        "%%time\nx",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(notebook, porting / "mine.ipynb")
    for arguments in ((f"{porting / 'mine.ipynb'}:Qwen3",), (porting / "mine.ipynb", "--class", "Qwen3")):
        code, out, err = grader("compare", *arguments, porting / "trace.safetensors")
        assert (code, err) == (0, "")
        assert "hello" not in out


def test_compare_takes_a_lessons_recording_and_its_text_twin(project: Path, grader: Grader) -> None:
    lesson = project / "solutions" / "01-gpt2"
    code, out, _ = grader("compare", f"{lesson / 'gpt2.py'}:GPT2", lesson / "reference.safetensors")
    assert code == 0, out


BAD_CONFIGS = {
    "not JSON": ("{", "is not JSON"),
    "no type": ('{"hidden_size": 8}', "has no `model_type`"),
    "unknown": ('{"model_type": "qwen33"}', "knows no architecture `qwen33`. The nearest names are: qwen3"),
    "code of its own": (
        '{"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "modeling_mine.Mine"}}',
        "comes with Python code of its own (modeling_mine.py), which is not run here",
    ),
    "not a language model": ('{"model_type": "vit"}', "no causal language model of type `vit`"),
    "refused": ('{"model_type": "llama", "hidden_size": "wide"}', "is no config that transformers accepts"),
}


@pytest.mark.parametrize("what", BAD_CONFIGS)
def test_a_config_that_can_not_be_used_is_explained(tmp_path: Path, grader: Grader, what: str) -> None:
    content, complaint = BAD_CONFIGS[what]
    (tmp_path / "config.json").write_text(content)
    code, out, err = grader("trace", tmp_path / "config.json", "--to", tmp_path / "t.safetensors")
    assert (code, out) == (2, "")
    assert complaint in err and "Traceback" not in err and len(err.splitlines()) <= 2
    assert not (tmp_path / "t.safetensors").exists()


def test_other_bad_input_is_explained(porting: Path, grader: Grader) -> None:
    config, trace, mine = porting / "config.json", porting / "trace.safetensors", porting / "mine.py"
    (porting / "broken.py").write_text("import torch\nx = torch.nope\n")
    (porting / "text.txt").write_text("")
    (porting / "other.safetensors").write_bytes(b"no")
    cases = [
        (("trace", porting / "none.json"), "can't be read"),
        (("trace", config, "--dtype", "int8"), "--dtype int8 is not known"),
        (("trace", config, "--set", "hidden_size"), "is not FIELD=VALUE"),
        (("trace", config, "--to", porting / "none" / "t.safetensors"), "can't be written"),
        (("trace", config, "--set", "hidden_size=-3"), "can't run a small Qwen3ForCausalLM"),
        (("compare", mine, trace), "Which class of"),
        (("compare", f"{mine}:Qwen", trace), "defines no `Qwen`. Its modules are: RMSNorm"),
        (("compare", f"{mine}:rotate", trace), "`rotate` fails:"),
        (("compare", f"{mine}:QWEN.py", trace), "does not exist"),
        (("compare", porting / "none.ipynb:A", trace), "does not exist"),
        (("compare", porting / "text.txt", trace), "neither a Python file"),
        (("compare", f"{porting / 'broken.py'}:Model", trace), "line 2, in <module>:  x = torch.nope"),
        (("compare", f"{mine}:MLP", trace), "MLP can't be compared"),
        (("compare", f"{mine}:Qwen3", porting / "none.safetensors"), "does not exist"),
        (("compare", f"{mine}:Qwen3", porting / "other.safetensors"), "is no trace"),
    ]
    for arguments, complaint in cases:
        code, out, err = grader(*arguments)
        assert (code, out) == (2, ""), arguments
        assert complaint in err and "Traceback" not in err, err
