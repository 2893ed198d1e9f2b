"""What the atlas tells of multipliers, clamps and caps is what transformers' code computes."""

import re
from statistics import NormalDist
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.deepseek_v4.modeling_deepseek_v4 import DeepseekV4HashRouter
from transformers.models.falcon_h1.modeling_falcon_h1 import compute_mup_vector
from transformers.models.gemma3n.modeling_gemma3n import Gemma3nTextMLP
from transformers.models.gemma4.modeling_gemma4 import Gemma4TextRotaryEmbedding
from transformers.models.llama4 import modeling_llama4 as llama4
from transformers.models.ministral3.modeling_ministral3 import get_llama_4_attn_scale
from transformers.models.nanochat.modeling_nanochat import apply_rotary_pos_emb as turned_by_nanochat
from transformers.models.qwen3.modeling_qwen3 import apply_rotary_pos_emb

from grader.atlas import architecture_of, read
from grader.atlas.card_rows import rows
from grader.atlas.changes import steps
from grader.atlas.drawing import parts
from grader.errors import GraderError

SMALL: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
LATENT = {"q_lora_rank": 12, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8}
FEW_EXPERTS = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 8,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 40.0, "original_max_position_embeddings": 4096}
LLAMA = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}


def said(kind: str, fields: dict[str, Any]) -> dict[str, str]:
    return {row.label: row.shown for row in rows(read({"model_type": kind, **fields}))}


def drawn(kind: str, fields: dict[str, Any]) -> str:
    return "".join(part.svg for part in parts(read({"model_type": kind, **fields})))


def reference(kind: str, fields: dict[str, Any]) -> Any:
    """A small random model of transformers'."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **fields)).eval()


@pytest.mark.parametrize("kind", ["deepseek_v2", "deepseek_v3", "youtu", "glm4_moe_lite", "minicpm3"])
@pytest.mark.parametrize("factor", [40.0, 1.0])
def test_yarns_factor_of_the_scores_of_latent_attention_is_the_references(kind: str, factor: float) -> None:
    parameters = YARN | {"factor": factor, "mscale": 1.0, "mscale_all_dim": 1.0}
    fields = SMALL | LATENT | FEW_EXPERTS | {"num_key_value_heads": 4, "rope_parameters": parameters}
    found = reference(kind, fields).model.layers[0].self_attn.scaling
    words = said(kind, fields)["scale of scores"]
    assert float(words.split()[0]) / 12**0.5 == pytest.approx(found, rel=5e-4)
    assert words.endswith(" / √12, for YaRN") and f">scale = {words}<" in drawn(kind, fields)
    without = {name: value for name, value in fields.items() if name != "rope_parameters"}
    assert "for YaRN" not in said(kind, without).get("scale of scores", "")


def test_the_gallerys_deepseek_v3_has_yarns_factor() -> None:
    change = {
        step.concept: step.change for step in steps(architecture_of("llama-3-8b"), architecture_of("deepseek-v3"))
    }
    assert "scores times 1.874 / √192, for YaRN" in change["score_scale"]


def factor_at(words: str, t: int) -> float:
    """What `1 + 0.1 · ln( 1 + ⌊t / 16,384⌋ )` is at a position."""
    growth, plus, every = re.match(r"1 \+ ([\d.]+) · ln\( 1 \+ ⌊\(?t( \+ 1)?\)? / ([\d,]+)⌋ \)", words).groups()  # type: ignore[union-attr]
    steps_ = (t + bool(plus)) // int(every.replace(",", ""))
    return 1 + float(growth) * float(torch.log(torch.tensor(1.0 + steps_)))


def test_queries_that_grow_with_their_position_grow_as_in_the_reference() -> None:
    words = said("ministral3", {})["scale of queries"]
    for t in (0, 16_383, 16_384, 100_000):
        want = get_llama_4_attn_scale(torch.tensor([[t]]), 0.1, 16_384).item()
        assert factor_at(words, t) == pytest.approx(want, rel=1e-6)
    assert "scale of queries" not in said("ministral3", {"rope_parameters": YARN})
    assert f">q × ( {words.removesuffix(' at position t')} ), at position t<" in drawn("ministral3", {})


def test_queries_of_llama_4_grow_in_layers_without_rope_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = SMALL | {"head_dim": 12, "num_local_experts": 2, "intermediate_size_mlp": 40, "floor_scale": 4}
    fields |= {"attn_scale": 0.5}
    model = reference("llama4_text", fields)
    words = said("llama4_text", fields)["scale of queries"]
    assert words.endswith("in 1 of 4 layers")
    made: list[torch.Tensor] = []
    read_by: list[torch.Tensor] = []
    last = model.model.layers[3].self_attn
    last.q_proj.register_forward_hook(lambda part, given, out: made.append(out))
    plain = llama4.eager_attention_forward

    def attention(module: Any, query: torch.Tensor, *rest: Any, **named: Any) -> Any:
        if module is last:
            read_by.append(query)
        return plain(module, query, *rest, **named)

    monkeypatch.setattr(llama4.ALL_ATTENTION_FUNCTIONS, "get_interface", lambda *_: attention)
    with torch.no_grad():
        model(torch.ones(1, 9, dtype=torch.long))
    ratio = (read_by[0] / made[0].view(1, 9, 4, 12).transpose(1, 2))[0, 0, :, 0]
    assert ratio.tolist() == pytest.approx([factor_at(words, t) for t in range(9)], rel=1e-5)
    assert "scale of queries" not in said("llama4_text", fields | {"attn_temperature_tuning": False})


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("olmo", {"clip_qkv": 0.01}),
        ("olmoe", {"clip_qkv": 0.01, "num_experts": 2, "num_experts_per_tok": 1}),
        ("mpt", {"attn_config": {"clip_qkv": 0.01}}),
    ],
)
def test_a_clamp_of_queries_keys_and_values_is_told_where_the_code_has_one(kind: str, fields: dict[str, Any]) -> None:
    small = {"d_model": 48, "n_heads": 4, "n_layers": 2, "vocab_size": 60} if kind == "mpt" else SMALL
    assert said(kind, small | fields)["q, k and v clamped at"] == "±0.01"
    assert ">q, k and v clamped at ±0.01<" in drawn(kind, small | fields)
    tokens = torch.arange(6)[None]
    with torch.no_grad():
        clamped, plain = (reference(kind, small | extra)(tokens).logits for extra in (fields, {}))
    assert not torch.allclose(clamped, plain)
    assert "q, k and v clamped at" not in said(kind, small)


def test_flex_olmo_has_the_field_of_its_relative_and_no_clamp() -> None:
    assert "q, k and v clamped at" not in said("flex_olmo", {"clip_qkv": 8.0})


@pytest.mark.parametrize("kind", ["olmo", "opt"])
def test_an_epsilon_that_no_field_says_is_the_codes(kind: str) -> None:
    want = said(kind, {})["norm epsilon"]
    model = reference(
        kind,
        {"hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 1, "vocab_size": 60}
        | (
            {"ffn_dim": 40, "word_embed_proj_dim": 48, "pad_token_id": 0}
            if kind == "opt"
            else {"intermediate_size": 40, "pad_token_id": 0}
        ),
    )
    norm = model.model.norm if kind == "olmo" else model.model.decoder.final_layer_norm
    given = torch.tensor([[1e-3, -1e-3] * 24])  # so small that epsilon shows
    expected = given / (given.var(correction=0) + float(want)) ** 0.5
    with torch.no_grad():
        torch.testing.assert_close(norm(given), expected)


def test_nanochat_turns_by_minus_the_angle() -> None:
    angles = torch.arange(5.0)[:, None] * torch.tensor([1.0, 0.1, 1.0, 0.1])
    q = torch.randn(1, 1, 5, 4, generator=torch.Generator().manual_seed(0))
    there, _ = turned_by_nanochat(q, q, angles.cos()[None], angles.sin()[None])
    back, _ = apply_rotary_pos_emb(q, q, (-angles).cos()[None], (-angles).sin()[None])
    torch.testing.assert_close(there, back)
    assert said("nanochat", {})["sense of RoPE"] == "by minus the angle"
    assert ">RoPE turns by minus the angle<" in drawn("nanochat", {}) and "minus the angle" not in drawn("qwen3", {})


def test_gemma_4s_full_layers_turn_pairs_of_the_whole_head() -> None:
    positions = said("gemma4_text", {})["positions"]
    turned, pairs = map(int, re.search(r"on (\d+) of (\d+) pairs", positions).groups())  # type: ignore[union-attr]
    config = AutoConfig.for_model("gemma4_text")
    frequencies = Gemma4TextRotaryEmbedding(config).full_attention_inv_freq
    assert len(frequencies) == pairs and int((frequencies != 0).sum()) == turned
    whole = 1e6 ** (-torch.arange(0, 2 * turned, 2) / (2 * pairs))
    torch.testing.assert_close(frequencies[:turned], whole)
    assert ">RoPE: rotate 64 of 256 pairs, i and i + 256<" in drawn("gemma4_text", {})


def test_gemma_3ns_first_layers_set_most_of_the_gate_to_0() -> None:
    fields = SMALL | {"num_hidden_layers": 12, "num_kv_shared_layers": 0, "intermediate_size": [4096] * 12}
    found = said("gemma3n_text", fields)
    assert found["sparse gate"].endswith("in 10 of 12 layers")
    config = AutoConfig.for_model("gemma3n_text", **fields)
    mlp = Gemma3nTextMLP(config, 0)
    gate = torch.randn(1, 4096, generator=torch.Generator().manual_seed(0))
    kept = mlp._gaussian_topk(gate)
    cut = gate.mean() + NormalDist().inv_cdf(0.95) * gate.std(correction=0)
    torch.testing.assert_close(kept, (gate - cut).clamp(min=0))
    assert "mean + 1.645 deviations" in found["sparse gate"] and (kept > 0).float().mean() < 0.07
    assert "sparse gate" not in said("gemma3n_text", fields | {"activation_sparsity_pattern": [0.0] * 12})
    boxes = drawn("gemma3n_text", fields)
    assert ">gate less its mean + 1.645 deviations, or 0<" in boxes and ">in 10 layers<" in boxes


def test_longcats_latents_are_multiplied_and_its_dense_mlps_have_a_panel() -> None:
    model = architecture_of("longcat-flash-560b")
    told = {row.label: row.shown for row in rows(model)}
    config = AutoConfig.for_model("longcat_flash")
    assert told["scale of queries"] == f"√({config.hidden_size:,} / {config.q_lora_rank:,})"
    assert told["scale of the latent of keys and values"] == f"√({config.hidden_size:,} / {config.kv_lora_rank:,})"
    small = SMALL | LATENT | FEW_EXPERTS | {"num_layers": 1, "ffn_hidden_size": 40, "expert_ffn_hidden_size": 8}
    attention = reference("longcat_flash", small | {"num_key_value_heads": 4}).model.layers[0].self_attn[0]
    assert (attention.mla_scale_q_lora, attention.mla_scale_kv_lora) == ((48 / 12) ** 0.5, (48 / 8) ** 0.5)
    panel = parts(model)[-1]
    assert panel.title.endswith("SwiGLU MLP, behind each attention") and "6,144 → 12,288" in panel.svg
    assert told["MLP, 2"] == "SwiGLU MLP; 6,144 → 12,288 → 6,144"


def test_layers_whose_experts_the_tokens_id_chooses_have_no_bias_for_it() -> None:
    fields = {"num_hidden_layers": 5, "num_hash_layers": 2}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("deepseek_v4", **fields))
    hashed = [isinstance(layer.mlp.gate, DeepseekV4HashRouter) for layer in model.model.layers]
    mine = [layer.mlp for layer in read({"model_type": "deepseek_v4", **fields}).layers]
    assert [part.hashed for part in mine if part] == hashed == [True, True, False, False, False]
    biased = [hasattr(layer.mlp.gate, "e_score_correction_bias") for layer in model.model.layers]
    assert [part.choice_bias for part in mine if part] == biased
    told = said("deepseek_v4", {})
    assert told["layers whose experts the token's id chooses"] == "3"
    assert "a table chooses by the token's id" in told["MLP, 2"] and "bias for the choice" not in told["MLP, 2"]
    svg = parts(architecture_of("deepseek-v4-flash"))
    assert [part.title for part in svg][-2:] == [
        "DeepSeek V4 Flash: 256 SwiGLU experts",
        "DeepSeek V4 Flash: 256 SwiGLU experts, by the token's id",
    ]
    assert ">a table chooses by the token&#x27;s id<" in svg[-1].svg and "choice alone" not in svg[-1].svg
    assert said("deepseek_v4", {"norm_topk_prob": False})["weights of the chosen sum to 1"] == "yes"  # as in the code


def test_gpt_oss_has_biases_in_experts_and_router_and_lagunas_router_a_cap() -> None:
    assert "each 2,880 → 2,880 → 2,880, bias; router: softmax of the chosen, a bias" in said("gpt_oss", {})["MLP"]
    assert "bias" not in said("mixtral", {})["MLP"]
    capped = {"moe_router_logit_softcapping": 30.0}
    assert "logits capped at ±30" in said("laguna", capped)["MLP"] and ">logits capped at ±30<" in drawn(
        "laguna", capped
    )
    assert "capped" not in said("laguna", {})["MLP"]


MULTIPLIERS = {
    "attention_in_multiplier": 2.0,
    "attention_out_multiplier": 0.9,
    "key_multiplier": 0.5,
    "ssm_in_multiplier": 1.25,
    "ssm_out_multiplier": 0.3,
    "ssm_multipliers": [0.1, 0.2, 0.3, 0.4, 0.5],
    "mlp_multipliers": [0.6, 0.7],
}


def test_falcon_h1s_multipliers_are_on_the_card_in_the_figure_and_in_a_port() -> None:
    told, boxes = said("falcon_h1", MULTIPLIERS), drawn("falcon_h1", MULTIPLIERS)
    change = {
        step.concept: step.change for step in steps(read(LLAMA), read({"model_type": "falcon_h1", **MULTIPLIERS}))
    }
    for part, words in (
        ("attention's input", "2"),
        ("keys", "0.5"),
        ("attention's output", "0.9"),
        ("Mamba-2's input", "1.25"),
        ("Mamba-2's output", "0.3"),
    ):
        assert float(told[f"scale of {part}"]) == float(words)
        assert f"{part} × {words}" in change["attention_scale"]
        assert f">{part.replace(chr(39), '&#x27;')} × {words}<" in boxes
    vector = compute_mup_vector(AutoConfig.for_model("falcon_h1", **MULTIPLIERS))[0, 0]
    assert told["scales of Mamba-2's z, x, B, C, dt"] == ", ".join(
        f"{n:g}" for n in vector.unique_consecutive().tolist()
    )
    assert (told["scale of the MLP's gate"], told["scale of the MLP's output"]) == ("0.6", "0.7")
    assert not any("Mamba-2's" in label or "keys" in label for label in said("falcon_h1", {}) if "scale" in label)


@pytest.mark.parametrize("kind", ["gemma3_text", "olmo3", "gpt_oss", "cohere2"])
def test_a_scaling_of_full_layers_alone_is_told_where_the_class_makes_it_so(kind: str) -> None:
    fields = {"num_hidden_layers": 6, "rope_scaling": YARN}
    made = AutoConfig.for_model(kind, **fields).rope_parameters
    alone = made.get("sliding_attention", {}).get("rope_type") == "default"
    assert said(kind, fields).get("layers with stretched positions") == ("the 1 that see all" if alone else None)
    assert ("layers with stretched positions" in said(kind, AutoConfig.for_model(kind, **fields).to_dict())) == alone


def test_ling_3s_states_keep_at_least_what_is_told_and_its_latent_attention_has_a_gate() -> None:
    fields = SMALL | LATENT | {"q_lora_rank": None, "head_dim": 8, "num_experts": 4, "num_experts_per_token": 2}
    fields |= {"num_expert_group": 1, "topk_group": 1, "num_key_value_heads": 4, "moe_intermediate_size": 8}
    fields |= {"layer_group_size": 2, "first_k_dense_replace": 1}
    gate = reference("bailing_hybrid", fields).model.layers[0].self_attn.forget_gate
    with torch.no_grad():
        least = min(float(gate(sign * 1e4 * torch.ones(1, 1, 48)).min()) for sign in (1, -1))
    told = said("bailing_hybrid", fields)
    assert least == pytest.approx(-5) and told["decay of a state"].startswith("e^-5 at least")
    assert "decay of a state" not in said("bailing_hybrid", fields | {"kda_safe_gate": False})
    assert (
        "× sigmoid( g_proj ), for each head" in drawn("bailing_hybrid", fields)
        and "; gate, RoPE" in told["attention, 2"]
    )


def test_kolibris_bias_is_added_to_logits_of_which_the_sigmoid_is_taken_later() -> None:
    fields = SMALL | {"moe_intermediate_size": 8, "shared_expert_intermediate_size": 8, "num_experts": 4}
    fields |= {"num_experts_per_tok": 1, "head_dim": 12}
    router = reference("kolibri1", fields).model.layers[0].mlp.gate
    with torch.no_grad():
        router.weight.zero_()
        router.weight[:2, 0] = torch.tensor([4.0, 0.0])
        router.e_score_correction_bias.copy_(torch.tensor([0.0, 3.0, -9.0, -9.0]))
        chosen = router(torch.eye(48)[:1])[2]
    assert chosen.item() == 0  # 4 > 3 among logits; of sigmoids, 0.98 + 0 < 0.5 + 3
    assert "router: sigmoid, logits choose, a bias for the choice alone" in said("kolibri1", fields)["MLP"]


def test_lfm3_has_the_norms_gate_and_rope_of_its_code() -> None:
    found = said("lfm3", {})
    assert found["norms stand"] == "before attention, after attention, before MLP, after MLP"
    assert said("lfm3", {"use_sandwich_norm": False})["norms stand"] == "before attention, before MLP"
    assert found["layer mix"] == "13 Gated short convolution + 6 full + 5 sliding"
    assert "on 32 of 64 pairs" in found["positions"] and "× sigmoid( g_proj ), for each head" in drawn("lfm3", {})
    assert "g_proj" not in drawn("lfm3", {"use_attention_gate": False})
    assert list(read({"model_type": "lfm3"}).kinds) == AutoConfig.for_model("lfm3").layer_types


@pytest.mark.parametrize("kind", ["granite_swa", "granitemoe_swa"])
def test_a_base_of_rope_for_each_layer_and_0_for_none(kind: str) -> None:
    fields = SMALL | {"layer_rope_theta": [0, 5e3, 5e3, 0]}
    assert said(kind, fields)["positions"] == "RoPE, θ = 5,000, left out in 2 of 4 attention layers"
    made = AutoConfig.for_model(kind, **SMALL)
    assert made.layer_rope_theta == [made.rope_parameters["rope_theta"]] * 4
    assert said(kind, SMALL)["positions"] == f"RoPE, θ = {made.layer_rope_theta[0]:,.0f}"
    with pytest.raises(GraderError, match="`layer_rope_theta` has 2 entries"):
        said(kind, SMALL | {"layer_rope_theta": [0, 5e3]})


def test_granites_multiplier_of_the_scores_is_told_where_it_is_1() -> None:
    """It stands in place of one over the root of a head's width, so that 1 is another model."""
    assert reference("granite", SMALL).model.layers[0].self_attn.scaling == 1
    assert said("granite", SMALL)["scale of scores"] == "1.0"


def test_minicpm3_afmoe_and_phimoe_scale_what_their_code_scales() -> None:
    assert said("minicpm3", {})["scale of logits, divided by it"] == "10.0"
    assert AutoConfig.for_model("minicpm3").logits_scaling == 10
    assert "scale of logits, divided by it" not in said("minicpm3", {"dim_model_base": None})
    afmoe = {"mup_enabled": True, "route_scale": 2.5}
    assert said("afmoe", afmoe)["scale of experts' output"] == "2.5"
    assert said("afmoe", afmoe)["scale of embedding"] == "√width" and ">times √2,048<" in drawn("afmoe", afmoe)
    assert "scale of embedding" not in said("afmoe", {})
    stretched = {"rope_type": "longrope", "rope_theta": 1e4, "short_mscale": 1.25, "long_mscale": 1.5}
    stretched |= {"original_max_position_embeddings": 4096}
    found = said("phimoe", {"rope_parameters": stretched})["scale of RoPE's cos and sin"]
    assert found == "1.25, and 1.5 in texts of more than 4,096 tokens"
