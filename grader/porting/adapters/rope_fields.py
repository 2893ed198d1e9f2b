"""What programs call the numbers by which RoPE is stretched, as YaRN does, and where a config.json has them."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

OWN_NAMES: tuple[tuple[str, str], ...] = (
    ("rope_factor rope_scaling_factor scaling_factor yarn_factor factor rope_scale", "factor"),
    ("beta_fast yarn_beta_fast rope_ntk_beta ntk_beta", "beta_fast"),
    ("beta_slow yarn_beta_slow rope_ntk_alpha ntk_alpha", "beta_slow"),
    (
        "original_seq_len original_max_position_embeddings original_max_seq_len initial_context_length"
        " original_context_length rope_orig_max rope_original_max_position_embeddings"
        " yarn_original_max_position_embeddings",
        "original_max_position_embeddings",
    ),
    ("mscale yarn_mscale", "mscale"),
    ("mscale_all_dim yarn_mscale_all_dim", "mscale_all_dim"),
    ("attention_factor attn_factor yarn_attention_factor rope_attention_factor", "attention_factor"),
    ("rope_type", "rope_type"),
    ("low_freq_factor rope_low_freq_factor", "low_freq_factor"),
    ("high_freq_factor rope_high_freq_factor", "high_freq_factor"),
    ("rope_theta rope_base theta rope_freq_base theta_base rotary_base", "rope_theta"),
)
BY_KIND = (  # the angles of one kind of layers, where the config has them by kind
    ("rope_local_base rope_local_base_freq rope_local_theta rope_theta_local", "sliding_attention"),
    ("rope_global_base rope_base rope_theta rope_theta_global", "full_attention"),
)
WHOLE = "rope_freq freq_config rope_scaling rope_scaling_config rope_config rope_scaling_params"
LEFT_OUT = {"beta_fast": "32.0", "beta_slow": "1.0", "mscale": "1.0"}  # what YaRN takes where a file says nothing


def rope_value(name: str, fields: Mapping[str, Any]) -> str | None:
    """The expression for a program's field `name`; None if it is no such field, or nothing scales RoPE."""
    kind = next((kind for own, kind in BY_KIND if name in own.split()), None)
    part = (fields.get("rope_parameters") or {}).get(kind)
    if isinstance(part, Mapping) and part.get("rope_theta") is not None:
        return f'config.rope_parameters["{kind}"]["rope_theta"]'
    of_kind = re.fullmatch(r"rope_(local|global)_(\w+)", name)
    if of_kind:
        kind = {"local": "sliding_attention", "global": "full_attention"}[of_kind[1]]
        field = {"type": "rope_type", "base": "rope_theta", "theta": "rope_theta"}.get(of_kind[2], of_kind[2])
        part = (fields.get("rope_parameters") or {}).get(kind)
        if isinstance(part, Mapping) and field in part:
            return f'config.rope_parameters["{kind}"]["{field}"]'
    if name in WHOLE.split():
        return _whole(fields)
    theirs = next((theirs for own, theirs in OWN_NAMES if name in own.split()), None)
    if theirs is None:
        return None
    scaled = [place for place in _places(fields) if theirs == "rope_theta" or "factor" in place[1]]
    for expression, part in scaled:
        if part.get(theirs) is not None:
            return f'{expression}["{theirs}"]'
    return LEFT_OUT.get(theirs) if scaled else None


def _whole(fields: Mapping[str, Any]) -> str | None:
    """All of them in one mapping, with the trained length under another name of it, too."""
    for expression, part in _places(fields):
        if part.get("factor") is not None and "low_freq_factor" in part:
            if "original_max_position_embeddings" not in part:
                return expression
            length = f'{expression}["original_max_position_embeddings"]'
            return f'{{**{expression}, "original_context_length": {length}}}'
    return None


def _places(fields: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name in ("rope_scaling", "rope_parameters"):
        part = fields.get(name)
        if isinstance(part, Mapping):
            yield f"config.{name}", part
            for key, inner in part.items():
                if isinstance(inner, Mapping):
                    yield f'config.{name}["{key}"]', inner
