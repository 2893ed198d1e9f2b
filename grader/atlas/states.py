"""Reads mixers that keep a state of fixed size instead of keys and values."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from grader.atlas.fields import Fields
from grader.atlas.layer import Mixer
from grader.atlas.shapes import Shape, linear, query_heads, says, width
from grader.atlas.traits import Traits
from grader.errors import GraderError

OUT = "out_proj"  # what most call their output projection


def delta(f: Fields, traits: Traits) -> Mixer:
    """Gated DeltaNet, of Qwen3-Next and Qwen3.5 (Yang et al., 2024)."""
    d, three = width(f), traits.linear == "delta with three projections"
    heads = f.number("linear_num_value_heads") or query_heads(f, 0)
    keys = f.number("linear_num_key_heads") or query_heads(f, 0)
    key = f.number("linear_key_head_dim") or int(0.75 * d / keys)
    value = f.number("linear_value_head_dim") or 2 * key
    conv = f.needed("linear_conv_kernel_dim")
    mixed = 2 * keys * key + heads * value
    shapes: dict[str, Shape] = {"dt_bias": (heads,), "A_log": (heads,), "conv1d": (mixed, 1, conv), "norm": (value,)}
    if three:
        shapes |= linear("q_proj", keys * key, d) | linear("k_proj", keys * key, d)
        shapes |= linear("v_proj", heads * value, d)
    else:
        shapes |= linear("in_proj_qkv", mixed, d)
    shapes |= linear("in_proj_z", heads * value, d) | linear("in_proj_b", heads, d) | linear("in_proj_a", heads, d)
    shapes |= linear("out_proj", d, heads * value)
    out = "o_proj" if three else OUT
    found = Mixer("delta", "Gated DeltaNet", shapes, heads, keys, key, value, conv=conv, gate="each number", out=out)
    return replace(found, doubled=three and f.truth("linear_allow_neg_eigval"))


def kda(f: Fields, traits: Traits) -> Mixer:
    """Kimi Delta Attention: a delta rule that forgets each channel at its own pace."""
    given = f.mine("linear_attn_config") or {}
    if not isinstance(given, Mapping):
        raise GraderError(f"`linear_attn_config` is {given!r} in this config, and should be an object with fields.")
    d, own = width(f), Fields(given, f.kind)
    heads = own.number("num_heads") or f.needed("linear_num_heads")
    dim = own.number("head_dim") or f.needed("linear_head_dim")
    conv = own.number("short_conv_kernel_size") or f.needed("linear_conv_kernel_dim")
    total = heads * dim
    shapes: dict[str, Shape] = linear("q_proj", total, d) | linear("k_proj", total, d) | linear("v_proj", total, d)
    shapes |= {"conv1d": (3 * total, 1, conv), "dt_bias": (total,), "A_log": (heads,), "o_norm": (dim,)}
    shapes |= linear("f_a_proj", dim, d) | linear("f_b_proj", total, dim) | linear("b_proj", heads, d)
    shapes |= linear("g_a_proj", dim, d) | linear("g_b_proj", total, dim) | linear("o_proj", d, total)
    return Mixer("kda", "Kimi Delta Attention", shapes, heads, heads, dim, dim, conv=conv, gate="each number")


def whole_kda(f: Fields, traits: Traits) -> Mixer:
    """Ling 3's: decay and gate come from a projection each, where Kimi's have two of low rank."""
    d, heads = width(f), query_heads(f, 0)
    dim = f.mine("linear_head_dim") or f.needed("head_dim")  # what transformers writes has 64 as head_dim, MLA's
    conv, total = f.needed("short_conv_kernel_size"), heads * dim
    shapes: dict[str, Shape] = linear("q_proj", total, d) | linear("k_proj", total, d) | linear("v_proj", total, d)
    shapes |= {"conv1d": (3 * total, 1, conv), "dt_bias": (total,), "A_log": (heads,), "o_norm": (dim,)}
    shapes |= linear("f_proj", total, d) | linear("b_proj", heads, d)
    shapes |= linear("g_proj", total, d) | linear("o_proj", d, total)
    return Mixer("kda", "Kimi Delta Attention", shapes, heads, heads, dim, dim, conv=conv, gate="each number")


def lightning(f: Fields, traits: Traits) -> Mixer:
    """MiniMax's lightning attention."""
    d, heads = width(f), query_heads(f, 0)
    dim = f.number("head_dim") or d // heads
    total = heads * dim
    shapes: dict[str, Shape] = linear("qkv_proj", 3 * total, d) | linear("output_gate", total, d)
    shapes |= linear("out_proj", d, total) | {"norm": (total,)}
    return Mixer("lightning", "Lightning attention", shapes, heads, heads, dim, dim, gate="each number", out=OUT)


def mamba2(f: Fields, traits: Traits) -> Mixer:
    """Mamba-2 (Dao and Gu, 2024): heads that share a decay each, B and C in groups."""
    d = width(f)
    heads = f.needed("mamba_num_heads", "mamba_n_heads", "num_heads")
    head = f.get("mamba_head_dim", "mamba_d_head", "head_dim")
    inner = f.number("mamba_d_ssm")
    if not inner and (head in (None, "auto")):
        inner = f.needed("mamba_expand", "expand") * d
    inner = inner or heads * int(head)
    state, groups = f.needed("ssm_state_size", "mamba_d_state", "state_size"), f.needed("n_groups", "mamba_n_groups")
    conv = f.needed("conv_kernel", "mamba_d_conv")
    bias = f.truth(traits.state_bias)
    mixed = inner + 2 * groups * state
    shapes: dict[str, Shape] = {"dt_bias": (heads,), "A_log": (heads,), "D": (heads,), "conv1d": (mixed, 1, conv)}
    if f.truth("use_conv_bias") or f.truth("mamba_conv_bias"):
        shapes |= {"conv1d.bias": (mixed,)}
    shapes |= linear("in_proj", inner + mixed + heads, d, bias)
    if says(f, traits.state_norm):
        shapes |= {"norm": (inner,)}
    shapes |= linear("out_proj", d, inner, bias)
    found = Mixer(
        "mamba2", "Mamba-2", shapes, heads, groups, state, inner // heads, conv=conv, gate="each number", out=OUT
    )
    return replace(found, norm_first=traits.side_by_side and f.truth("mamba_norm_before_gate"))


def mamba(f: Fields, traits: Traits) -> Mixer:
    """Mamba (Gu and Dao, 2023): a state for each channel."""
    d = width(f)
    inner = f.needed("mamba_expand", "expand") * d
    state, conv = f.needed("mamba_d_state", "state_size"), f.needed("mamba_d_conv", "conv_kernel")
    rank = f.get("mamba_dt_rank", "time_step_rank")
    rank = math.ceil(d / 16) if rank in (None, "auto") else int(rank)
    shapes: dict[str, Shape] = {"A_log": (inner, state), "D": (inner,), "conv1d": (inner, 1, conv)}
    if f.truth("use_conv_bias") or f.truth("mamba_conv_bias"):
        shapes |= {"conv1d.bias": (inner,)}
    bias = f.truth("use_bias") or f.truth("mamba_proj_bias")
    shapes |= linear("in_proj", 2 * inner, d, bias) | linear("x_proj", rank + 2 * state, inner)
    shapes |= linear("dt_proj", inner, rank, True) | linear("out_proj", d, inner, bias)
    if traits.mamba_norms == "with weight":
        shapes |= {"dt_layernorm": (rank,), "b_layernorm": (state,), "c_layernorm": (state,)}
    found = Mixer("mamba", "Mamba", shapes, inner, 1, state, 1, conv=conv, gate="each number", out=OUT)
    return replace(found, parts_normed=bool(traits.mamba_norms))


def short_convolution(f: Fields) -> Mixer:
    """LFM2's gated convolution over the last few tokens."""
    d, conv, bias = width(f), f.needed("conv_L_cache"), f.truth("conv_bias")
    shapes: dict[str, Shape] = {"conv": (d, 1, conv)} | ({"conv.bias": (d,)} if bias else {})
    shapes |= linear("in_proj", 3 * d, d, bias) | linear("out_proj", d, d, bias)
    return Mixer("conv", "Gated short convolution", shapes, 0, 0, 0, d, conv=conv, gate="each number", out=OUT)


STATES: dict[str, Callable[[Fields, Traits], Mixer]] = {
    "delta": delta,
    "delta with three projections": delta,
    "kda": kda,
    "kda with whole projections": whole_kda,
    "lightning": lightning,
    "mamba": mamba,
    "mamba2": mamba2,
}
