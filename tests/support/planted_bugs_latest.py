"""Bugs in ports of Qwen3.5 and DeepSeek-V4, in the form that `planted_bugs` has."""

from typing import Any

Change = tuple[str, str, str]  # the class or function, what stands in it once, and what is put in its place

CONFIGS: dict[str, dict[str, Any]] = {
    "Qwen3.5": {"model_type": "qwen3_5_text", "hidden_size": 4096, "num_hidden_layers": 2, "num_attention_heads": 16}
    | {"num_key_value_heads": 4, "head_dim": 256, "intermediate_size": 12288, "vocab_size": 248320}
    | {"rms_norm_eps": 1e-6, "hidden_act": "silu", "linear_num_key_heads": 16, "linear_num_value_heads": 32}
    | {"linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4}
    | {"partial_rotary_factor": 0.25, "rope_theta": 10000000, "max_position_embeddings": 262144}
    | {"layer_types": ["linear_attention", "full_attention"]},
    "DeepSeek-V4": {"model_type": "deepseek_v4", "hidden_size": 4096, "num_hidden_layers": 4, "vocab_size": 129280}
    | {"num_attention_heads": 64, "num_key_value_heads": 1, "head_dim": 512, "qk_rope_head_dim": 64}
    | {"q_lora_rank": 1024, "o_groups": 8, "o_lora_rank": 1024, "moe_intermediate_size": 2048}
    | {"n_routed_experts": 256, "num_experts_per_tok": 6, "routed_scaling_factor": 1.5, "sliding_window": 128}
    | {"compress_ratios": [0, 128, 4, 4], "num_hash_layers": 2, "hc_mult": 4, "swiglu_limit": 10.0}
    | {"index_n_heads": 64, "index_head_dim": 128, "index_topk": 512, "max_position_embeddings": 1048576}
    | {"rope_theta": 10000, "compress_rope_theta": 160000}
    | {"rope_scaling": {"type": "yarn", "factor": 16, "original_max_position_embeddings": 65536}},
}  # fmt: skip

BUGS: dict[str, dict[str, tuple[Change, str]]] = {
    # family: what is wrong: the change, and the end of the culprit's path
    "Qwen3.5": {
        "norms without the 1 that is added to their weight": (
            ("Qwen3_5RMSNorm", "(1.0 + self.weight.float())", "self.weight.float()"), "layers.0.input_layernorm"),
        "the gated norm gated by a sigmoid": (
            ("Qwen3_5RMSNormGated", "ACT2FN[self.activation](gate", "torch.sigmoid(gate"), "linear_attn.norm"),
        "a norm over all heads at once": (
            ("Qwen3_5RMSNormGated", "hidden_states.pow(2).mean(-1, keepdim=True)", "hidden_states.pow(2).mean()"),
            "linear_attn.norm"),
        "a decay without its exponential": (
            ("Qwen3_5GatedDeltaNet", "-self.A_log.float().exp()", "-self.A_log.float().abs()"),
            "linear_attn:delta_rule"),
        "dt bent by a ReLU": (
            ("Qwen3_5GatedDeltaNet", "F.softplus(a.float() + self.dt_bias)", "F.relu(a.float() + self.dt_bias)"),
            "linear_attn:delta_rule"),
        "beta without its sigmoid": (
            ("Qwen3_5GatedDeltaNet", "beta = b.sigmoid()", "beta = b"), "linear_attn:delta_rule"),
        "beta and decay exchanged": (
            ("Qwen3_5GatedDeltaNet", "b = self.in_proj_b(hidden_states)\n        a = self.in_proj_a(hidden_states)",
             "a = self.in_proj_b(hidden_states)\n        b = self.in_proj_a(hidden_states)"),
            "linear_attn:delta_rule"),
        "keys before queries": (
            ("Qwen3_5GatedDeltaNet", "query, key, value = torch.split", "key, query, value = torch.split"),
            "linear_attn:delta_rule"),
        "key heads repeated in turns": (
            ("torch_chunk_gated_delta_rule", "key = key.repeat_interleave(num_v_heads // num_k_heads, dim=2)",
             "key = key.repeat(1, 1, num_v_heads // num_k_heads, 1)"), "linear_attn:delta_rule"),
        "values without beta": (
            ("torch_chunk_gated_delta_rule", "v_beta = value * beta.unsqueeze(-1)", "v_beta = value"),
            "linear_attn:delta_rule"),
        "keys that do not decay until their chunk's end": (
            ("torch_chunk_gated_delta_rule", "key = key * (cum_decay[..., -1:] - cum_decay).exp().unsqueeze(-1)",
             "key = key"), "linear_attn:delta_rule"),
        "a convolution that sees later tokens": (
            ("causal_conv1d_fn", "[:, :, :seq_len]", "[:, :, -seq_len:]"), "linear_attn:conv"),
        "a convolution with its taps turned around": (
            ("causal_conv1d_fn", "weight=weight.unsqueeze(1)", "weight=weight.unsqueeze(1).flip(-1)"),
            "linear_attn:conv"),
        "an output gate of SiLU": (
            ("Qwen3_5Attention", "torch.sigmoid(gate)", "torch.nn.functional.silu(gate)"), "layers.1.self_attn"),
        "the gate before the queries": (
            ("Qwen3_5Attention", "query_states, gate = torch.chunk", "gate, query_states = torch.chunk"),
            "layers.1.self_attn"),
        "no norm of the keys": (
            ("Qwen3_5Attention", "self.k_norm(self.k_proj(hidden_states).view(hidden_shape))",
             "self.k_proj(hidden_states).view(hidden_shape)"), "layers.1.self_attn"),
        "RoPE over the end of each head": (
            ("apply_rotary_pos_emb", "k_rot, k_pass = k[..., :rotary_dim], k[..., rotary_dim:]",
             "k_pass, k_rot = k[..., :-rotary_dim], k[..., -rotary_dim:]"), "layers.1.self_attn:rope"),
        "gate and up exchanged": (
            ("Qwen3_5MLP", "self.act_fn(self.gate_proj(x)) * self.up_proj(x)",
             "self.act_fn(self.up_proj(x)) * self.gate_proj(x)"), "layers.0.mlp"),
    },
    "DeepSeek-V4": {
        "residual streams mixed by the transposed matrix": (
            ("DeepseekV4DecoderLayer",
             "post.to(dtype).unsqueeze(-1) * attn_output.unsqueeze(-2) + torch.matmul(\n"
             "            comb.to(dtype).transpose(-1, -2), hidden_states",
             "post.to(dtype).unsqueeze(-1) * attn_output.unsqueeze(-2) + torch.matmul(\n"
             "            comb.to(dtype), hidden_states"), "layers.0"),
        "weights of the residual streams of one row alone": (
            ("DeepseekV4HyperConnection", "for _ in range(self.hc_sinkhorn_iters - 1):", "for _ in range(0):"),
            "layers.0.attn_hc"),
        "what goes back to the streams not doubled": (
            ("DeepseekV4HyperConnection", "post = 2 * torch.sigmoid", "post = torch.sigmoid"), "layers.0.attn_hc"),
        "streams weighted by a softmax at the end": (
            ("DeepseekV4HyperHead", "torch.sigmoid(mixes * self.hc_scale.float() + self.hc_base.float())",
             "torch.softmax(mixes * self.hc_scale.float() + self.hc_base.float(), dim=-1)"), "model.hc_head"),
        "queries without their last norm": (
            ("DeepseekV4Attention", "q = self.q_b_norm(q)", "q = q"), "layers.0.self_attn"),
        "RoPE over the start of each head": (
            ("apply_rotary_pos_emb", "nope, rope = x[..., :-rope_dim], x[..., -rope_dim:]",
             "rope, nope = x[..., :rope_dim], x[..., rope_dim:]"), "layers.0.self_attn:rope"),
        "an output that is not rotated back": (
            ("DeepseekV4Attention", "apply_rotary_pos_emb(attn_output.transpose(1, 2), cos, -sin)",
             "apply_rotary_pos_emb(attn_output.transpose(1, 2), cos, sin)"), "layers.0.self_attn:rope"),
        "sliding layers that rotate as compressed ones do": (
            ("DeepseekV4Attention", '"main" if self.layer_type == "sliding_attention" else "compress"', '"compress"'),
            "layers.0.self_attn:rope"),
        "weights that add up to 1 without the sink": (
            ("eager_attention_forward", "scores = probs[..., :-1]",
             "scores = probs[..., :-1] / probs[..., :-1].sum(-1, keepdim=True)"), "layers.0.self_attn:weights"),
        "scores not scaled": (
            ("eager_attention_forward", "transpose(2, 3)) * scaling", "transpose(2, 3))"),
            "layers.0.self_attn:weights"),
        "output groups of every eighth head": (
            ("DeepseekV4Attention", "attn_output.reshape(*input_shape, self.config.o_groups, -1)",
             "attn_output.transpose(-1, -2).reshape(*input_shape, self.config.o_groups, -1)"), "layers.0.self_attn"),
        "a compressor without its position bias": (
            ("DeepseekV4HCACompressor", "self.compress_rate, -1) + self.position_bias", "self.compress_rate, -1)"),
            "layers.1.self_attn.compressor:rope"),
        "a compressed entry seen a token early": (
            ("DeepseekV4HCACompressor", "causal_threshold = (position_ids + 1) //",
             "causal_threshold = (position_ids + 2) //"), "layers.1.self_attn.compressor"),
        "compressed entries at the places of whole tokens": (
            ("DeepseekV4HCACompressor", "positions * self.compress_rate + first_window_position",
             "positions + first_window_position"), "layers.1.self_attn.compressor"),
        "compressed entries that do not overlap": (
            ("DeepseekV4CSACompressor", "if n_windows > 1:", "if False:"), "layers.2.self_attn.compressor:rope"),
        "the two series exchanged": (
            ("DeepseekV4CSACompressor", "new_kv[:, :, ratio:] = chunk_kv[..., self.head_dim :]",
             "new_kv[:, :, ratio:] = chunk_kv[..., : self.head_dim]"),
            "layers.2.self_attn.compressor:rope"),
        "an indexer without its ReLU": (
            ("DeepseekV4IndexerScorer", "F.relu(scores)", "scores"), "compressor.indexer.scorer"),
        "an indexer that chooses the lowest": (
            ("DeepseekV4Indexer", "index_scores.topk(top_k, dim=-1).indices  # [B, S, k]",
             "(-index_scores).topk(top_k, dim=-1).indices"), "compressor.indexer"),
        "scores by a softmax": (
            ("DeepseekV4TopKRouter", "self.score_fn(logits)", "logits.softmax(-1)"), "layers.2.mlp.gate"),
        "the router without its bias": (
            ("DeepseekV4TopKRouter", "scores + self.e_score_correction_bias", "scores"), "layers.2.mlp.gate"),
        "experts by their scores where the token's id decides": (
            ("DeepseekV4HashRouter", "self.tid2eid[input_ids.reshape(-1)].long()",
             "torch.topk(scores, self.top_k, dim=-1).indices"), "layers.0.mlp.gate"),
        "experts' weights not scaled": (
            ("DeepseekV4HashRouter", "weights * self.routed_scaling_factor", "weights"), "layers.0.mlp.gate"),
        "gates of experts that are not cut off": (
            ("DeepseekV4Experts", "gate.clamp(max=self.limit)", "gate"), "layers.0.mlp.experts"),
        "no shared expert": (
            ("DeepseekV4SparseMoeBlock", "routed + self.shared_experts(residual)", "routed"), "layers.0.mlp"),
    },
}  # fmt: skip
OTHER_WAYS: dict[str, list[Change]] = {
    "Qwen3.5": [
        ("Qwen3_5GatedDeltaNet", "torch_chunk_gated_delta_rule(\n", "torch_recurrent_gated_delta_rule(\n"),
        ("Qwen3_5MLP", "self.act_fn(self.gate_proj(x)) * self.up_proj(x)",
         "self.up_proj(x) * self.act_fn(self.gate_proj(x))"),
        ("l2norm", "x * inv_norm", "x / (1 / inv_norm)"),
    ],
    "DeepSeek-V4": [
        ("DeepseekV4SparseMoeBlock", "routed + self.shared_experts(residual)",
         "self.shared_experts(residual) + routed"),
        ("DeepseekV4GroupedLinear",
         "y = torch.bmm(x, w).transpose(0, 1)", 'y = torch.einsum("gbi,gio->bgo", x, w)'),
        ("eager_attention_forward", "torch.matmul(query, key_states.transpose(2, 3)) * scaling",
         "torch.matmul(query * scaling, key_states.transpose(2, 3))"),
    ],
}  # fmt: skip
