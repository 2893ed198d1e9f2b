"""Ports of eight architectures with a bug in each: transformers' own file, changed in one place.

`BUGS` says for each what is changed, where, and which module or step is to be named. `OTHER_WAYS` are changes that
keep a port right: another order of operations, or another algorithm for the same.
"""

import copy
import inspect
import sys
from types import ModuleType
from typing import Any

import planted_bugs_latest as latest
from planted_bugs_latest import Change

MOE = {"hidden_size": 2048, "num_attention_heads": 16, "vocab_size": 151936, "rms_norm_eps": 1e-6, "hidden_act": "silu"}
CONFIGS: dict[str, dict[str, Any]] = {
    "Qwen3-Next": MOE
    | {"model_type": "qwen3_next", "num_hidden_layers": 2, "num_key_value_heads": 2, "head_dim": 256}
    | {"moe_intermediate_size": 512, "num_experts": 16, "shared_expert_intermediate_size": 512}
    | {"num_experts_per_tok": 4, "linear_num_key_heads": 16, "linear_num_value_heads": 32, "norm_topk_prob": True}
    | {"linear_key_head_dim": 128, "linear_value_head_dim": 128, "partial_rotary_factor": 0.25}
    | {"layer_types": ["linear_attention", "full_attention"]},
    "Nemotron-H": {"model_type": "nemotron_h", "hidden_size": 2688, "num_attention_heads": 32, "vocab_size": 131072}
    | {"num_key_value_heads": 2, "head_dim": 128, "intermediate_size": 1856, "moe_intermediate_size": 1856}
    | {"n_routed_experts": 128, "num_experts_per_tok": 6, "mamba_num_heads": 64, "mamba_head_dim": 64}
    | {"ssm_state_size": 128, "n_groups": 8, "hybrid_override_pattern": "ME*ME", "routed_scaling_factor": 2.5},
    "MiniMax": MOE
    | {"model_type": "minimax", "num_hidden_layers": 2, "num_key_value_heads": 8, "num_local_experts": 8}
    | {"intermediate_size": 9216, "num_experts_per_tok": 2, "layer_types": ["linear_attention", "full_attention"]}
    | {"full_attn_alpha_factor": 3.5, "linear_attn_alpha_factor": 3.5, "mlp_alpha_factor": 3.5},
    "Kimi Linear": MOE
    | {"model_type": "kimi_linear", "num_hidden_layers": 3, "intermediate_size": 9216, "moe_intermediate_size": 1024}
    | {"num_local_experts": 16, "num_experts_per_tok": 4, "linear_num_heads": 32, "linear_head_dim": 128}
    | {"layer_types": ["linear_attention", "linear_attention", "full_attention"], "num_key_value_heads": 16}
    | {"mlp_layer_types": ["dense", "sparse", "sparse"]},
    "LongCat-Flash": {"model_type": "longcat_flash", "hidden_size": 6144, "num_layers": 2, "num_attention_heads": 64}
    | {"q_lora_rank": 1536, "kv_lora_rank": 512, "n_routed_experts": 16, "zero_expert_num": 8, "moe_topk": 4}
    | {"vocab_size": 131072, "rope_theta": 10000000.0},
    "gpt-oss": {"model_type": "gpt_oss", "hidden_size": 2880, "num_hidden_layers": 2, "num_attention_heads": 64}
    | {"num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 2880, "vocab_size": 201088}
    | {"num_local_experts": 32, "num_experts_per_tok": 4, "sliding_window": 128, "rope_theta": 150000}
    | {"swiglu_limit": 7.0, "layer_types": ["sliding_attention", "full_attention"], "max_position_embeddings": 131072}
    | {"rope_scaling": {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096}},
}  # fmt: skip

ROPE: Change = ("rotate_half", "torch.cat((-x2, x1)", "torch.cat((x2, -x1)")
ACAUSAL: Change = ("causal_conv1d_fn", "[:, :, :seq_len]", "[:, :, -seq_len:]")
UNBENT: Change = ("causal_conv1d_fn", "if activation is not None:", "if False:")
UNSCALED: Change = ("eager_attention_forward", "transpose(2, 3)) * scaling", "transpose(2, 3))")
BUGS: dict[str, dict[str, tuple[Change, str]]] = {
    # family: what is wrong: the change, and the end of the culprit's path
    "Qwen3-Next": {
        "norms without the 1 that is added to their weight": (
            ("Qwen3NextRMSNorm", "(1.0 + self.weight.float())", "self.weight.float()"), "layers.0.input_layernorm"),
        "the gated norm gated by a sigmoid": (
            ("Qwen3NextRMSNormGated", "ACT2FN[self.activation](gate", "torch.sigmoid(gate"), "linear_attn.norm"),
        "beta doubled": (
            ("Qwen3NextGatedDeltaNet", "beta = b.sigmoid()", "beta = b.sigmoid() * 2"), "linear_attn:delta_rule"),
        "a decay that is the square root": (
            ("Qwen3NextGatedDeltaNet", "self.A_log.float().exp()", "self.A_log.float().exp().sqrt()"),
            "linear_attn:delta_rule"),
        "dt without its bias": (
            ("Qwen3NextGatedDeltaNet", "a.float() + self.dt_bias", "a.float()"), "linear_attn:delta_rule"),
        "queries and keys not normalised": (
            ("torch_chunk_gated_delta_rule", "if use_qk_l2norm_in_kernel:", "if False:"), "linear_attn:delta_rule"),
        "queries scaled by the values' size": (
            ("torch_chunk_gated_delta_rule", "scaling = query.shape[-1]", "scaling = value.shape[-1]"),
            "linear_attn:delta_rule"),
        "beta and decay exchanged": (
            ("Qwen3NextGatedDeltaNet", "b, a = torch.split", "a, b = torch.split"), "linear_attn:delta_rule"),
        "a convolution that sees later tokens": (ACAUSAL, "linear_attn:conv"),
        "a convolution without its activation": (UNBENT, "linear_attn:conv"),
        "an output gate of SiLU": (
            ("Qwen3NextAttention", "torch.sigmoid(gate)", "torch.nn.functional.silu(gate)"), "layers.1.self_attn"),
        "RoPE that turns backwards": (ROPE, "self_attn:rope"),
        "experts' weights not normalised": (
            ("Qwen3NextTopKRouter", "if self.norm_topk_prob:", "if False:"), "layers.0.mlp.gate"),
        "the shared expert without its gate": (
            ("Qwen3NextSparseMoeBlock", "F.sigmoid(self.shared_expert_gate(hidden_states_reshaped)) * ", ""),
            "layers.0.mlp"),
    },
    "Nemotron-H": {
        "A without its exponential": (
            ("NemotronHMamba2Mixer", "A = -torch.exp(self.A_log.float())", "A = -self.A_log.float().abs()"),
            "layers.0.mixer:scan"),
        "dt bent by a ReLU": (("mamba2_chunk_scan", "F.softplus(dt)", "F.relu(dt)"), "layers.0.mixer:scan"),
        "dt without its bias": (
            ("mamba2_chunk_scan", "dt = dt + dt_bias.to(dt.dtype)", "dt = dt"), "layers.0.mixer:scan"),
        "the skip connection D left out": (
            ("mamba2_chunk_scan", "output = output + D_residual", "output = output"), "layers.0.mixer:scan"),
        "groups repeated in turns": (
            ("mamba2_chunk_scan",
             "B = B.float().repeat_interleave(num_heads // num_groups, dim=2, output_size=num_heads)",
             "B = B.float().repeat(1, 1, num_heads // num_groups, 1)"), "layers.0.mixer:scan"),
        "B and C exchanged": (
            ("NemotronHMamba2Mixer", "hidden_states, B, C = torch.split", "hidden_states, C, B = torch.split"),
            "layers.0.mixer:scan"),
        "a convolution that sees later tokens": (ACAUSAL, "layers.0.mixer:conv"),
        "a convolution without its activation": (UNBENT, "layers.0.mixer:conv"),
        "a norm over all groups at once": (
            ("NemotronHRMSNormGated", "hidden_states_group.pow(2).mean(-1, keepdim=True)",
             "hidden_states_group.pow(2).mean((-2, -1), keepdim=True)"), "layers.0.mixer.norm"),
        "experts of ReLU for its square": (
            ("NemotronHExperts", "self.act_fn(current_hidden_states)", "F.relu(current_hidden_states)"),
            "layers.1.mixer.experts"),
        "scores by a softmax": (
            ("NemotronHTopkRouter", "router_logits.sigmoid()", "router_logits.softmax(-1)"), "layers.1.mixer.gate"),
        "the router without its bias": (
            ("NemotronHTopkRouter", "scores + self.e_score_correction_bias", "scores"), "layers.1.mixer.gate"),
        "experts' weights not scaled": (
            ("NemotronHTopkRouter", "topk_weights * self.routed_scaling_factor", "topk_weights"),
             "layers.1.mixer.gate"),
        "scores not scaled": (UNSCALED, "layers.2.mixer:weights"),
    },
    "MiniMax": {
        "queries that don't decay": (
            ("MiniMaxLightningAttention", "current_query_states * current_query_decay", "current_query_states"),
            "layers.0.self_attn"),
        "no decay inside a block": (
            ("MiniMaxLightningAttention", "attn_weights_intra * current_diagonal_decay", "attn_weights_intra"),
            "layers.0.self_attn"),
        "a state that doesn't decay": (
            ("MiniMaxLightningAttention", "attn_weights_inter * block_decay + next", "attn_weights_inter + next"),
            "layers.0.self_attn"),
        "keys that decay from the other end": (
            ("MiniMaxLightningAttention", "self.key_decay[:, -current_block_size:]",
             "self.key_decay[:, :current_block_size].flip(1)"), "layers.0.self_attn"),
        "an output gate of SiLU": (
            ("MiniMaxLightningAttention", "F.sigmoid(self.output_gate(hidden_states))",
             "F.silu(self.output_gate(hidden_states))"), "layers.0.self_attn"),
        "no activation of queries, keys and values": (
            ("MiniMaxLightningAttention", "self.act_fn(self.qkv_proj(hidden_states))", "self.qkv_proj(hidden_states)"),
            "layers.0.self_attn"),
        "no norm of what linear attention gives": (
            ("MiniMaxLightningAttention", "attn_output = self.norm(attn_output)", "attn_output = attn_output"),
            "layers.0.self_attn"),
        "the residual from before the norm": (
            ("MiniMaxDecoderLayer",
             "hidden_states = self.input_layernorm(hidden_states)\n        residual = hidden_states",
             "residual = hidden_states\n        hidden_states = self.input_layernorm(hidden_states)"), "layers.0"),
        "a residual that is not scaled": (
            ("MiniMaxDecoderLayer", "residual * self.mlp_alpha_factor", "residual"), "layers.0"),
        "experts' weights not normalised": (
            ("MiniMaxTopKRouter", "router_top_value /= router_top_value.sum(dim=-1, keepdim=True)", "pass"),
            "layers.0.mlp.gate"),
        "gate and up exchanged": (
            ("MiniMaxExperts", "self.act_fn(gate) * up", "self.act_fn(up) * gate"), "layers.0.mlp.experts"),
        "RoPE that turns backwards": (ROPE, "layers.1.self_attn:rope"),
        "scores not scaled": (UNSCALED, "layers.1.self_attn:weights"),
    },
    "Kimi Linear": {
        "a decay without its rate": (
            ("KimiLinearForgetGate", "-decay_rate * g_softplus", "-g_softplus"), "layers.0.self_attn.forget_gate"),
        "dt without its bias": (
            ("KimiLinearForgetGate", "(forget_gate.float() + self.dt_bias.float().view(1, 1, -1))",
             "forget_gate.float()"), "layers.0.self_attn.forget_gate"),
        "beta without its sigmoid": (
            ("KimiLinearDeltaAttention", "torch.sigmoid(self.b_proj(hidden_states))", "self.b_proj(hidden_states)"),
            "layers.0.self_attn:delta_rule"),
        "queries and keys not normalised": (
            ("chunk_kimi_delta_attention", "if use_qk_l2norm_in_kernel:", "if False:"),
             "layers.0.self_attn:delta_rule"),
        "queries not scaled": (
            ("chunk_kimi_delta_attention", "F.pad(query, (0, 0, 0, pad_size)) * scale",
             "F.pad(query, (0, 0, 0, pad_size))"), "layers.0.self_attn:delta_rule"),
        "a decay that is not summed up": (
            ("chunk_kimi_delta_attention", "g = g.cumsum(dim=-2)", "g = g"), "layers.0.self_attn:delta_rule"),
        "a convolution that sees later tokens": (ACAUSAL, "layers.0.self_attn:conv"),
        "a convolution without its activation": (UNBENT, "layers.0.self_attn:conv"),
        "the output norm gated by SiLU": (
            ("KimiLinearRMSNormGated", "ACT2FN[self.activation](gate", "nn.functional.silu(gate"),
            "layers.0.self_attn.o_norm"),
        "scores scaled by a part of the head": (
            ("KimiLinearAttention", "self.scaling = self.qk_head_dim", "self.scaling = self.qk_nope_head_dim"),
            "layers.2.self_attn:weights"),
        "no norm of the latent": (
            ("KimiLinearAttention", "kv_nope = self.kv_a_layernorm(kv_nope)", "kv_nope = kv_nope"),
            "layers.2.self_attn"),
        "the router without its bias": (
            ("KimiLinearTopkRouter", "scores + self.e_score_correction_bias", "scores"), "layers.1.mlp.gate"),
        "scores by a softmax": (
            ("KimiLinearTopkRouter", "router_logits.sigmoid()", "router_logits.softmax(-1)"), "layers.1.mlp.gate"),
        "no shared expert": (
            ("KimiLinearMoE", "hidden_states + self.shared_experts(residuals)", "hidden_states"), "layers.1.mlp"),
    },
    "LongCat-Flash": {
        "the latent not scaled": (
            ("LongcatFlashMLA", "k_pass = k_pass * self.mla_scale_kv_lora", "k_pass = k_pass"), "self_attn.0"),
        "rotated queries not scaled": (
            ("LongcatFlashMLA", "q_rot = q_rot * self.mla_scale_q_lora", "q_rot = q_rot"), "self_attn.0:rope"),
        "queries not scaled": (
            ("LongcatFlashMLA", "q_pass = q_pass * self.mla_scale_q_lora", "q_pass = q_pass"), "self_attn.0:weights"),
        "RoPE that turns backwards": (
            ("apply_rotary_pos_emb_interleave", "[q1 * cos - q2 * sin, q2 * cos + q1 * sin]",
             "[q1 * cos + q2 * sin, q2 * cos - q1 * sin]"), "self_attn.0:rope"),
        "RoPE over halves for neighbours": (
            ("apply_rotary_pos_emb_interleave", "q1, q2 = q[..., 0::2], q[..., 1::2]", "q1, q2 = q.chunk(2, dim=-1)"),
            "self_attn.0:rope"),
        "queries' parts in the other order": (
            ("LongcatFlashMLA", "torch.cat((q_pass, q_rot), dim=-1)", "torch.cat((q_rot, q_pass), dim=-1)"),
            "self_attn.0:weights"),
        "experts that give nothing for the identity": (
            ("LongcatFlashExperts", "self.identity_expert(current_state)", "self.identity_expert(current_state) * 0"),
            "layers.0.mlp.experts"),
        "experts' weights not scaled": (
            ("LongcatFlashTopkRouter", "topk_weights * self.routed_scaling_factor", "topk_weights"),
            "layers.0.mlp.router"),
        "the router without its bias": (
            ("LongcatFlashTopkRouter", " + self.e_score_correction_bias.unsqueeze(0)", ""), "layers.0.mlp.router"),
        "scores by a sigmoid": (
            ("LongcatFlashTopkRouter", "router_logits.softmax(dim=-1)", "router_logits.sigmoid()"),
            "layers.0.mlp.router"),
        "no shortcut": (
            ("LongcatFlashDecoderLayer", "residual + hidden_states + shortcut_mlp_output", "residual + hidden_states"),
            "layers.0"),
        "the first norm used twice": (
            ("LongcatFlashDecoderLayer", "self.input_layernorm[1](hidden_states)",
             "self.input_layernorm[0](hidden_states)"),
            "layers.0"),
        "gate and up exchanged": (
            ("LongcatFlashMLP", "self.act_fn(self.gate_proj(x)) * self.up_proj(x)",
             "self.act_fn(self.up_proj(x)) * self.gate_proj(x)"), "layers.0.mlps.0"),
        "scores not scaled": (UNSCALED, "self_attn.0:weights"),
    },
    "gpt-oss": {
        "up without the 1": (("GptOssExperts", "(up + 1) * glu", "up * glu"), "layers.0.mlp.experts"),
        "gates that are not cut off": (
            ("GptOssExperts", "gate.clamp(min=None, max=self.limit)", "gate"), "layers.0.mlp.experts"),
        "halves for every second": (
            ("GptOssExperts", "gate_up[..., ::2], gate_up[..., 1::2]", "gate_up.chunk(2, dim=-1)"),
            "layers.0.mlp.experts"),
        "alpha left out": (
            ("GptOssExperts", "torch.sigmoid(gate * self.alpha)", "torch.sigmoid(gate)"), "layers.0.mlp.experts"),
        "experts without their last bias": (
            ("GptOssExperts", " + self.down_proj_bias[expert_idx]", ""), "layers.0.mlp.experts"),
        "weights that add up to 1 without the sink": (
            ("eager_attention_forward", "scores = probs[..., :-1]",
             "scores = probs[..., :-1] / probs[..., :-1].sum(-1, keepdim=True)"),
            "layers.0.self_attn:weights"),
        "scores not scaled": (UNSCALED, "layers.0.self_attn:weights"),
        "key and value heads repeated in turns": (
            ("repeat_kv", "return hidden_states.reshape(", "return hidden_states.transpose(1, 2).reshape("),
            "layers.0.self_attn:weights"),
        "RoPE that turns one half backwards": (
            ("_apply_rotary_emb", "second_half * cos + first_half * sin", "second_half * cos - first_half * sin"),
            "layers.0.self_attn:rope"),
        "a softmax before the choice": (
            ("GptOssTopKRouter", "torch.topk(router_logits, self.top_k, dim=-1)",
             "torch.topk(router_logits.softmax(-1), self.top_k, dim=-1)"), "layers.0.mlp.router"),
        "norms without their eps": (
            ("GptOssRMSNorm", "variance + self.variance_epsilon", "variance"), "layers.0.input_layernorm"),
        "no residual connection around attention": (
            ("GptOssDecoderLayer", "hidden_states = residual + hidden_states\n\n        # Fully", "# Fully"),
             "layers.0"),
        "cosines not scaled as YaRN does": (
            ("GptOssRotaryEmbedding", "emb.cos() * self.attention_scaling", "emb.cos()"), "model.rotary_emb"),
        "a full mask in sliding layers": (
            ("GptOssModel", "create_sliding_window_causal_mask(**mask_kwargs)", "create_causal_mask(**mask_kwargs)"),
            "model"),
    },
}  # fmt: skip
OTHER_WAYS: dict[str, list[Change]] = {
    "Qwen3-Next": [
        ("Qwen3NextGatedDeltaNet", "torch_chunk_gated_delta_rule(\n", "torch_recurrent_gated_delta_rule(\n"),
        ("Qwen3NextMLP", "self.act_fn(self.gate_proj(x)) * self.up_proj(x)",
         "self.up_proj(x) * self.act_fn(self.gate_proj(x))"),
        ("l2norm", "x * inv_norm", "x / (1 / inv_norm)"),
    ],
    "Nemotron-H": [
        ("NemotronHMamba2Mixer", "chunk_size=self.chunk_size,\n                D=self.D,\n                z=None",
         "chunk_size=5,\n                D=self.D,\n                z=None"),
        ("NemotronHMoE", "hidden_states + self.shared_experts(residuals)",
         "self.shared_experts(residuals) + hidden_states"),
    ],
    "MiniMax": [
        ("MiniMaxLightningAttention", "attn_output_inter + attn_output_intra", "attn_output_intra + attn_output_inter"),
        ("eager_attention_forward", "torch.matmul(query, key_states.transpose(2, 3)) * scaling",
         "torch.matmul(query * scaling, key_states.transpose(2, 3))"),
    ],
    "Kimi Linear": [
        ("KimiLinearDeltaAttention", "chunk_kimi_delta_attention(\n", "recurrent_kimi_delta_attention(\n"),
        ("eager_attention_forward", "torch.matmul(query, key_states.transpose(2, 3)) * scaling",
         "torch.matmul(query * scaling, key_states.transpose(2, 3))"),
    ],
    "LongCat-Flash": [
        ("LongcatFlashDecoderLayer", "residual + hidden_states + shortcut_mlp_output",
         "shortcut_mlp_output + residual + hidden_states"),
        ("eager_attention_forward", "torch.matmul(query, key_states.transpose(2, 3)) * scaling",
         "torch.matmul(query * scaling, key_states.transpose(2, 3))"),
    ],
    "gpt-oss": [
        ("eager_attention_forward", "combined_logits - combined_logits.max(dim=-1, keepdim=True).values",
         "combined_logits - 1"),
        ("GptOssExperts", "glu = gate * torch.sigmoid(gate * self.alpha)",
         "glu = gate / (1 + torch.exp(-gate * self.alpha))"),
    ],
}  # fmt: skip
CONFIGS |= latest.CONFIGS
BUGS |= latest.BUGS
OTHER_WAYS |= latest.OTHER_WAYS


def port(model: Any, *changes: Change) -> Any:
    """A model like `model`, of transformers' own file with some places changed, and with its weights."""
    home = sys.modules[type(model).__module__]
    source = inspect.getsource(home)
    for scope, find, put in changes:
        part = inspect.getsource(getattr(home, scope))
        assert part.count(find) == 1, f"{find!r} occurs {part.count(find)} times in {scope}"
        assert source.count(part) == 1
        source = source.replace(part, part.replace(find, put))
    ported = ModuleType(f"{home.__name__}_ported")
    ported.__package__, ported.__file__ = home.__package__, home.__file__
    sys.modules[ported.__name__] = ported
    exec(compile(source, str(home.__file__), "exec"), ported.__dict__)
    options = {"attn_implementation": "eager", "experts_implementation": "eager"}
    other = getattr(ported, type(model).__name__)._from_config(copy.deepcopy(model.config), **options)
    other.load_state_dict(model.state_dict())
    return other.eval()
