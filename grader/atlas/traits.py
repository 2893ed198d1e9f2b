"""What a family's code does that its config.json does not say: the lines of families.toml."""

import tomllib
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any

FAMILIES = files("grader.atlas") / "families.toml"


@dataclass(frozen=True)
class Traits:
    """The way of one family, as in Llama where families.toml says nothing.

    norm: RMSNorm or LayerNorm; norm_bias, norm_weight: what it learns; norm_centred: it multiplies by 1 + weight.
    norms: pre (before each part), post (after each part, before the sum), both, parallel (one norm before both parts,
    which read the same input), the field that says whether they are parallel, on the stream (what a part's output is
    added to is normed, too), or a family's own way. one_norm: a layer is one part alone, with a norm before it.
    qk_norm: over each head, over the whole width, or the field that decides. head_dim: whether that field says how wide
    a head is; else the width is shared out, rounded down with rounded_heads. global_heads: full layers have heads of
    another width (Gemma 4). value_dim: values have a width of their own. differential: what is used is the difference
    of two softmaxes. turns_back: RoPE turns by minus the angle. stretched: whether a scaling of RoPE is of ``all``
    layers, or of the ``full`` ones alone. temperature: queries grow with their position, in ``every layer`` or in those
    ``without RoPE``. clips: `clip_qkv` is read. sparse_gate: the smaller numbers of an MLP's gate are set to 0.
    epsilon: of its norms, where no field says it. capped: `attn_logit_softcapping` is read. unscaled: scores are
    multiplied by nothing. positions: rope, learned, alibi, none, or the field that decides. A bias is ``yes``, ``no``
    or the field that decides. gate: what the output of attention is multiplied by, or the field that decides;
    gate_activation: of it. choice_bias: a bias of each expert is added for the choice alone; router_bias_counts: it is
    one of the parameters, too. renormalised: whether the weights of the chosen experts are divided by their sum:
    ``yes``, ``no`` or the field that decides. norm_after_rope: q and k are normed after RoPE has turned them. linear:
    what layers do that are no attention; state_bias, state_norm: of Mamba-2; mamba_norms: how Mamba norms dt, B and C,
    ``with weight`` or without. clamped: `swiglu_limit` holds gate and up. mlp: dense, experts, none, or a family's own
    rule. first_dense: how many layers come before those with experts. Names of projections are the checkpoint's;
    qkv_name and gate_up_name are of one matrix for all of them, and empty where each has its own.
    """

    norm: str = "RMSNorm"
    norm_bias: bool = True  # of a LayerNorm
    norm_weight: bool = True
    norm_centred: bool = False
    epsilon: float = 0.0
    norms: str = "pre"
    one_norm: bool = False
    sub_norms: bool = False
    embedding_norm: bool = False
    qk_norm: str = ""
    norm_after_rope: bool = False
    v_norm: bool = False
    head_dim: bool = True
    rounded_heads: bool = False
    global_heads: bool = False
    value_dim: bool = False
    differential: bool = False
    turns_back: bool = False
    stretched: str = "all"
    temperature: str = ""
    clips: bool = False
    capped: bool = True
    unscaled: bool = False
    qkv_bias: str = "no"
    o_bias: str = "no"
    mlp_bias: str = "no"
    head_bias: str = "no"
    positions: str = "rope"
    position_offset: int = 0
    interleaved: bool = False
    gate: str = ""
    gate_activation: str = "sigmoid"
    sinks: str = ""
    indexer: bool = False
    compressed: bool = False
    linear: str = ""
    mamba_norms: str = ""
    state_bias: str = "mamba_proj_bias"
    state_norm: str = "yes"
    side_by_side: bool = False
    double: bool = False
    mlp: str = "dense"
    gated: bool = True
    qkv_name: str = ""
    out_name: str = "o_proj"
    gate_name: str = "gate_proj"
    up_name: str = "up_proj"
    down_name: str = "down_proj"
    gate_up_name: str = ""
    activation: str = ""
    activation_parameters: int = 0
    clamped: bool = False
    sparse_gate: bool = False
    dense_width: str = "intermediate_size"
    expert_width: str = "moe_intermediate_size"
    expert_bias: bool = False
    shared_width: str = ""
    shared_gate: bool = False
    router: str = ""
    router_bias: bool = False
    router_bias_counts: bool = False
    choice_bias: bool = False
    renormalised: str = "norm_topk_prob"
    post_experts_norm: bool = False
    first_dense: int = 0
    embedding_scale: str = "no"
    per_layer_embeddings: bool = False
    layer_scalar: bool = False
    altup: bool = False
    hyper_connections: bool = False
    hub_only: str = ""


@cache
def _written() -> dict[str, dict[str, Any]]:
    return tomllib.loads(FAMILIES.read_text(encoding="utf-8"))


def family_names() -> tuple[str, ...]:
    """The model_types that are known."""
    return tuple(_written())


@cache
def traits_of(kind: str) -> Traits:
    """A family's way. Raises KeyError for one that is not known."""
    lines = _written()[kind]
    if lines.get("hub_only"):
        lines = {"like": lines["hub_only"], **lines}
    like = lines.get("like")
    inherited = {f.name: getattr(traits_of(like), f.name) for f in fields(Traits)} if like else {}
    return Traits(**{**inherited, **{name: value for name, value in lines.items() if name != "like"}})
