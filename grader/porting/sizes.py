"""Which fields of a config make a model large, and their small values: no two widths are equal."""

from collections.abc import Mapping
from typing import Any

BATCH, TOKENS, EXPERTS = 2, 14, 8
HIDDEN, HEADS, KV_HEADS, HEAD_DIM, WINDOW, VOCAB, POSITIONS, TRAINED_POSITIONS = 64, 4, 2, 24, 5, 97, 32, 8
SPECIAL_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
OTHER_TOKEN = 3  # what any other special token becomes; drawn tokens lie above
NAMES = {
    "hidden": "hidden_size d_model n_embd embedding_size embedding_dim word_embed_proj_dim attention_hidden_size",
    "heads": "num_attention_heads n_head n_heads num_heads attention_heads decoder_attention_heads"
    " encoder_attention_heads swa_num_attention_heads num_decoder_attention_heads num_encoder_attention_heads",
    "kv_heads": "num_key_value_heads num_kv_heads swa_num_key_value_heads kv_n_heads num_query_groups",
    "head_dim": "head_dim kv_channels d_head dim_head attention_head_size attention_head_dim swa_head_dim d_kv",
    "window": "sliding_window sliding_window_size window_size attention_chunk_size attention_window_size"
    " keep_window_size local_attention_window_len",
    "layers": "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers num_decoder_layers"
    " num_encoder_layers num_blocks",
    "positions": "max_position_embeddings n_positions n_ctx max_seq_len context_length model_max_length seq_length",
    "vocab": "vocab_size vocab_size_per_layer_input unpadded_vocab_size encoder_hash_byte_group_vocab",
    "experts": "num_experts n_routed_experts num_local_experts moe_num_experts",
    "chosen": "num_experts_per_tok num_experts_per_token moe_top_k moe_topk moe_k top_k_experts experts_per_token",
}
ROLES = {name: role for role, names in NAMES.items() for name in names.split()}
# What else makes a model large, and its small value. A smaller original is left alone.
SIZES = {
    **{"intermediate_size": 80, "ffn_dim": 80, "decoder_ffn_dim": 80, "encoder_ffn_dim": 80, "n_inner": 80},
    **{"dim_ff": 80, "dff": 80, "d_inner": 80, "ffn_hidden_size": 80, "feed_forward_size": 80, "emb_dim": HIDDEN},
    **{"intermediate_size_mlp": 88, "dense_intermediate_size": 88, "moe_intermediate_size": 24},
    **{"expert_ffn_hidden_size": 24, "shared_expert_intermediate_size": 40, "shared_intermediate_size": 40},
    **{"moe_shared_expert_intermediate_size": 40, "shared_experts_intermediate_size": 40},
    **{"q_lora_rank": 20, "kv_lora_rank": 12, "o_lora_rank": 14, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4},
    **{"qk_head_dim": 12, "v_head_dim": 10, "index_n_heads": 2, "index_head_dim": 8, "index_topk": 4},
    **{"n_group": 4, "topk_group": 2, "num_expert_group": 4, "num_limited_groups": 2, "global_head_dim": 28},
    **{"num_global_key_value_heads": 1, "query_pre_attn_scalar": 20, "rotary_dim": 8, "hidden_size_per_layer_input": 6},
    **{"linear_key_head_dim": 8, "linear_value_head_dim": 12, "linear_num_key_heads": 2, "linear_num_value_heads": 4},
    **{"linear_num_heads": 4, "linear_head_dim": 8, "mamba_d_state": 8, "ssm_state_size": 8, "state_size": 8},
    **{"mamba_n_heads": 8, "n_mamba_heads": 8, "mamba_num_heads": 8, "mamba_d_head": 16, "mamba_head_dim": 16},
    **{"mamba_headdim": 16, "mamba_d_ssm": 2 * HIDDEN, "mamba_n_groups": 2, "n_groups": 2, "mamba_chunk_size": 8},
    **{"chunk_size": 8, "mamba_dt_rank": 4, "time_step_rank": 4, "laurel_rank": 6, "lru_width": HIDDEN},
    **{"original_max_position_embeddings": TRAINED_POSITIONS, "floor_scale": 4, "log_scaling_n_floor": 4},
    **{"local_attention": 2 * WINDOW, "index_block_size": 4, "index_topk_blocks": 2, "block_size": 4},
    **{"heavily_compressed_attention": 6},
}
CHOSEN_ENTRIES = 2  # index_topk where it chooses among compressed entries, which are few
LIMITS = {"swiglu_limit": 1.0, "clip_qkv": 1.0}  # at a model's own limits, values of a small one never arrive
# Numbers that are no sizes, and that programs have in their code: a published one is tried where a small one is wrong.
CONSTANTS = ("original_max_position_embeddings", "floor_scale", "log_scaling_n_floor", "query_pre_attn_scalar",
             "state_size", *LIMITS)  # fmt: skip
WIDTHS = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")  # often 4 times the hidden size, in the code
COUNTS_POSITIONS = "llama_4_scaling_beta"  # a scale that counts how often the trained positions were passed
FIXED = ("mamba_d_head", "mamba_head_dim", "mamba_headdim")  # 8 heads of these make up twice the hidden size
LARGE_ENDINGS = ("_size", "_dim", "_rank", "_heads", "_width", "_dims", "_base", "_features")
LARGE, OTHER_SIZE = 64, 16
PER_LAYER, IN_SOME_LAYERS = "per_layer_config", {"head_dim": 28, "num_key_value_heads": 1}  # Gemma 4's full layers
NOT_SHRUNK = ("id2label", "label2id")
LISTS_OF_THREE = ("mrope_section",)


def first_of(role: str, fields: Mapping[str, Any]) -> int | None:
    """The first whole number among the fields of a role: "heads", "hidden" and so on, as in NAMES."""
    return next((fields[name] for name in NAMES[role].split() if type(fields.get(name)) is int), None)
