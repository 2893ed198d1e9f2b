"""The fields of a program's config, filled in from the reference's config.json."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from grader.porting.adapters.rope_fields import rope_value

# What teaching and inference code calls the fields of a config, and what config.json files do.
FIELDS: tuple[tuple[str, str], ...] = (
    ("vocab_size n_vocab padded_vocab_size vocab vocabulary_size vocab_len embedding_size", "vocab_size"),
    (
        "block_size context_length max_seq_len max_seq_length n_positions n_ctx ctx_len seq_len max_len context_window"
        " max_context_length max_position_embeddings context_size max_length max_sequence_length",
        "max_position_embeddings n_positions max_seq_len",
    ),
    (
        "dim emb_dim n_embd n_embed d_model hidden_size embed_dim embedding_dim model_dim embed_size d_emb width",
        "hidden_size n_embd d_model",
    ),
    ("n_heads n_head num_heads num_attention_heads heads nhead n_q_heads", "num_attention_heads n_head n_heads"),
    (
        "n_kv_heads num_kv_heads n_kv_groups num_key_value_heads n_local_heads n_query_groups kv_heads num_kv_groups"
        " n_kv_head",
        "num_key_value_heads num_kv_heads num_attention_heads n_head",
    ),
    ("n_layers n_layer num_layers num_hidden_layers depth n_blocks num_blocks", "num_hidden_layers n_layer n_layers"),
    (
        "hidden_dim intermediate_size ffn_dim d_ff ff_dim mlp_dim ffn_hidden_size ffn_hidden_dim n_inner inner_dim"
        " intermediate_dim dim_feedforward mlp_hidden_dim inter_dim",
        "intermediate_size n_inner",
    ),
    (
        "moe_intermediate_size moe_hidden_dim moe_inter_dim expert_dim expert_hidden_dim",
        "moe_intermediate_size intermediate_size",
    ),
    ("head_dim head_size d_head dim_head d_k", "head_dim"),
    (
        "norm_eps rms_norm_eps eps layer_norm_eps layer_norm_epsilon rms_eps epsilon",
        "rms_norm_eps layer_norm_epsilon layer_norm_eps norm_eps",
    ),
    ("rope_theta rope_base theta rope_freq_base theta_base rotary_base", "rope_theta rotary_emb_base"),
    ("rope_local_base rope_local_base_freq rope_local_theta rope_theta_local", "rope_local_base_freq"),
    ("sliding_window window window_size sliding_window_size", "sliding_window"),
    (
        "num_experts n_experts n_expert num_local_experts n_routed_experts",
        "num_experts num_local_experts n_routed_experts",
    ),
    (
        "num_experts_per_tok experts_per_token top_k n_expert_per_token num_activated_experts n_experts_per_tok"
        " n_activated_experts num_experts_per_token experts_per_tok",
        "num_experts_per_tok experts_per_token",
    ),
    ("final_logit_softcap logit_softcap final_softcap", "final_logit_softcapping"),
    ("attn_logit_softcap attn_softcap", "attn_logit_softcapping"),
    ("n_dense_layers num_dense_layers", "first_k_dense_replace"),
    ("n_expert_groups num_expert_groups", "n_group"),
    ("n_limited_groups topk_groups", "topk_group"),
    ("route_scale routing_scale", "routed_scaling_factor"),
    ("score_func", "scoring_func"),
    ("d_state ssm_state", "state_size ssm_state_size mamba_d_state"),
    (
        "d_conv conv_kernel_size kernel_size conv_size conv_width",
        "conv_kernel mamba_d_conv linear_conv_kernel_dim conv_L_cache",
    ),
    ("dt_rank", "time_step_rank mamba_dt_rank"),
    ("conv_bias", "use_conv_bias mamba_conv_bias"),
    ("rotary_pct rotary_percentage partial_rotary_factor", "rotary_pct partial_rotary_factor"),
)
DERIVED = {"head_dim": "config.hidden_size // config.num_attention_heads", "intermediate_size": "4 * config.n_embd"}
SHARE = "config.intermediate_size / (4 * config.hidden_size)"
PROJECTION_BIAS = r"(q_proj|c_attn|query_key_value|query)\.bias$"


class Default(NamedTuple):
    """What a field of a program's config is where nobody says otherwise."""

    value: Any


class Known(NamedTuple):
    """What a value is told from: the fields of the reference's config, and the names of its weights."""

    fields: Mapping[str, Any]
    weights: Sequence[str]

    @property
    def has_experts(self) -> bool:
        """Whether the config speaks of experts."""
        return any("expert" in field for field in self.fields)

    @property
    def scales_rope(self) -> bool:
        """Whether the config stretches RoPE."""
        scaling = self.fields.get("rope_scaling") or self.fields.get("rope_parameters")
        return isinstance(scaling, Mapping) and "factor" in scaling

    def if_given(self, expression: str) -> str | None:
        """An expression of the config's fields, if it has all of them."""
        return expression if set(re.findall(r"config\.(\w+)", expression)) <= self.fields.keys() else None

    def first(self, names: str) -> Any:
        """The first of these fields that the config has."""
        return next((self.fields[name] for name in names.split() if self.fields.get(name) is not None), None)

    def any_weight(self, pattern: str) -> str:
        """Whether one of the weights has such a name: "True" or "False"."""
        return str(any(re.search(pattern, weight) for weight in self.weights))


# Of what no config.json has a field for: a pattern of its name, and its value, or how that is told. The first that is
# not None counts. Meta's programs make the width of the feed-forward layers from two numbers: these give the config's.
RULES: tuple[tuple[str, str | Callable[[Known], str | None]], ...] = (
    (r"^multiple_of$", lambda known: known.if_given(SHARE) and "config.intermediate_size"),
    (r"^ffn_dim_multiplier$", lambda known: known.if_given(SHARE)),
    (r"drop", "0.0"),
    (r"^dtype$", "torch.float32"),
    (r"^device$", '"cpu"'),
    (r"^(pad_vocab_size_multiple|padding_multiple)$", "1"),
    (r"^(max_batch_size|batch_size)$", "2"),
    (r"^(dp|pp|tp|cp|ep|world)(_size)?$|_parallel(ism)?_size$", "1"),  # one process has whole layers
    (r"^(qkv_|attention_|attn_)?bias$", lambda known: known.any_weight(PROJECTION_BIAS)),
    (r"^include_bias$", lambda known: known.any_weight(r"proj\.bias$")),
    (r"qk_norm|norm_qk$", lambda known: known.any_weight("q_norm")),
    (r"pre_(ffw|ff|ffn|mlp|feedforward)_?norm$", lambda known: known.any_weight("pre_feedforward")),
    (r"post_(ffw|ff|ffn|mlp|feedforward)_?norm$", lambda known: known.any_weight("post_feedforward")),
    (r"norm_with_affine$", lambda known: known.any_weight(r"norm\.weight$")),
    (r"^parallel_(residual|block|attn)$", lambda known: str(bool(known.first("use_parallel_residual parallel_attn")))),
    (r"^rope$|^use_rope$", lambda known: str(known.first("rope_theta rope_parameters") is not None)),
    (r"^(rotary_percentage|rotary_pct|partial_rotary_factor)$", "1.0"),  # transformers rotates the whole head
    (r"^use_scaled_rope$", lambda known: str(known.scales_rope)),
    (r"tie_embeddings|weight_tying|tie_weights|tied_embeddings", lambda known: known.if_given(TIED)),
)
# What has to be said only where the program gives no default.
REQUIRED: tuple[tuple[str, str | Callable[[Known], str | None]], ...] = (
    (r"^(model_type|name)$", "None"),
    (r"expert", lambda known: None if known.has_experts else "0"),
    (r"rope", lambda known: None if known.scales_rope else "None"),
)
TIED = "config.tie_word_embeddings"


def filled_in(
    wanted: Mapping[str, bool | Default], fields: Mapping[str, Any], weights: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """For each field of a program's config an expression, and those without any. What its default says as well is left
    out. wanted: whether a field has a default, or it itself.
    """
    values, missing, known = {}, [], Known(fields, weights)
    for name, default in wanted.items():
        value = _value(name, known, bool(default))
        if value is None and not default:
            missing.append(name)
            value = "..."
        if isinstance(default, Default) and isinstance(default.value, str) and value == "torch.float32":
            value = '"float32"'  # a dtype by its name
        if value is not None and not (isinstance(default, Default) and value == repr(default.value)):
            values[name] = value
    return values, missing


def _value(name: str, known: Known, has_default: bool = False) -> str | None:
    theirs = next((theirs.split() for own, theirs in FIELDS if name in own.split()), [])
    if not theirs and name in known.fields and name not in ("model_type", "name", "dtype"):
        return f"config.{name}"
    if theirs and (known.has_experts or not re.search("expert|moe", name)):
        found = next((f"config.{field}" for field in theirs if known.fields.get(field) is not None), None)
        derived = known.if_given(DERIVED[theirs[0]]) if theirs[0] in DERIVED else None
        value = found or rope_value(name, known.fields) or derived
        if value:
            return value
    value = rope_value(name, known.fields) or _by_rules(name, known, RULES)
    return value if value is not None or has_default else _by_rules(name, known, REQUIRED)


def _by_rules(name: str, known: Known, table: Any) -> str | None:
    rules = (rule if isinstance(rule, str) else rule(known) for pattern, rule in table if re.search(pattern, name))
    return next((value for value in rules if value is not None), None)
