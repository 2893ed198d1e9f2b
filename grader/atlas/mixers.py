"""Reads the part of a layer that mixes tokens, with the shapes of its parameters."""

from dataclasses import replace
from typing import Any

from grader.atlas.compressed import compressed
from grader.atlas.fields import Fact, Fields
from grader.atlas.layer import Index, Mixer
from grader.atlas.rope import partial_factor, theta
from grader.atlas.shapes import Shape, linear, query_heads, says, width
from grader.atlas.states import STATES, short_convolution
from grader.atlas.traits import Traits
from grader.errors import GraderError
from grader.kv.fields import takes_earlier_choice


def key_heads(f: Fields, layer_kind: str, layer: int) -> int:
    """How many heads of keys and values a layer has."""
    heads = query_heads(f, layer)
    if f.kind == "falcon":
        if f.truth("new_decoder_architecture"):
            return f.number("num_kv_heads", "num_attention_heads") or heads
        return 1 if f.truth("multi_query") else heads
    if f.kind == "gpt_bigcode" and f.truth("multi_query"):
        return 1
    if f.kind == "gemma4_text" and layer_kind == "full_attention" and f.truth("attention_k_eq_v"):
        return f.number("num_global_key_value_heads") or f.number("num_key_value_heads") or heads
    if f.kind == "mimo_v2_flash" and layer_kind == "sliding_attention":
        return f.number("swa_num_key_value_heads") or 2 * f.needed("num_key_value_heads")
    return f.number("num_key_value_heads") or heads


def head_width(f: Fields, layer_kind: str, layer: int) -> int:
    """How many numbers one head's query and key have."""
    if f.kind == "gemma4_text" and layer_kind == "full_attention":
        return f.number("global_head_dim") or 512
    own = f.fact("head_dim")
    if own.value is not None and f.kind not in ("cohere2",):
        return f.needed("head_dim")
    each, rest = divmod(width(f), query_heads(f, layer))
    if not each or (rest and f.kind not in ROUNDED):
        raise GraderError(
            f"the width {width(f):,} of this config can't be split among {query_heads(f, layer)} heads"
            " and there is no `head_dim`; are `hidden_size` and `num_attention_heads` right?"
        )
    return each


# Their classes round hidden_size / num_attention_heads down; Llama's and others refuse what does not divide.
ROUNDED = ("glm4_moe", "solar_open", "sarvam_moe")


def mixer_of(f: Fields, traits: Traits, kind: str, layer: int) -> Mixer | None:
    """The mixer of one layer, a kind of `schedule.KINDS`; None for a layer that mixes nothing."""
    if kind in ("moe", "mlp"):
        return None
    if kind == "conv":
        return short_convolution(f)
    if kind == "linear_attention":
        if traits.linear not in STATES:
            raise GraderError(f"`layer_types` has linear_attention, which a {f.kind} model does not have.")
        return STATES[traits.linear](f, traits)
    if traits.compressed:
        return compressed(f, kind)
    found = _latent(f, traits, kind, layer) if f.get("kv_lora_rank") else _attention(f, traits, kind, layer)
    if traits.side_by_side:
        return replace(found, beside=STATES[traits.linear](f, traits))
    return found


def label_of(heads: int, kv: int) -> str:
    """How people call attention with so many heads."""
    if kv == heads:
        return "Multi-head attention"
    return "Multi-query attention" if kv == 1 else "Grouped-query attention"


def _attention(f: Fields, traits: Traits, kind: str, layer: int) -> Mixer:
    d, heads, kv = width(f), query_heads(f, layer), key_heads(f, kind, layer)
    if heads % kv:
        raise GraderError(f"{heads} query heads can't share {kv} key/value heads evenly; is one of them a slip?")
    dim = head_width(f, kind, layer)
    value = f.number("v_head_dim") or dim if f.kind == "mimo_v2_flash" else dim
    bias, out_bias = says(f, traits.qkv_bias), says(f, traits.o_bias) or f.kind == "gpt_neo"
    k_is_v = f.kind == "gemma4_text" and kind == "full_attention" and f.truth("attention_k_eq_v")
    last = f.number("num_kv_shared_layers")  # of the model use what earlier ones keep
    shared = bool(last) and layer >= f.needed("num_hidden_layers", "num_layers") - last
    shapes = linear("q_proj", heads * dim * (2 if traits.gate == "query" else 1), d, bias)
    if not shared:
        shapes |= linear("k_proj", kv * dim, d, bias) | ({} if k_is_v else linear("v_proj", kv * value, d, bias))
    shapes |= linear("o_proj", d, heads * value, out_bias)
    norm = _qk_norm(f, traits, kind)
    shapes |= _norm_shapes(norm, heads, kv, dim, not shared)
    if traits.gate == "projection":
        shapes |= linear("gate_proj", heads * dim, d)
    if traits.gate == "head":
        shapes |= linear("g_proj", heads, d) if f.truth("gating") else {}
    if sinks := traits.sinks == "all" or (traits.sinks == "sliding" and kind == "sliding_attention"):
        shapes |= {"sinks": (heads,)}
    if traits.sub_norms:
        shapes |= {"attn_sub_norm": (d,)}
    if f.kind == "diffllama":
        shapes |= {f"lambda_{name}": (dim,) for name in ("q1", "k1", "q2", "k2")}
    turned = rotates(f, traits, kind, layer)
    return Mixer(
        kind="attention",
        label=label_of(heads, kv),
        shapes=shapes,
        heads=heads,
        kv_heads=kv,
        key_dim=dim,
        value_dim=value,
        window=window(f, kind),
        chunked=kind == "chunked_attention",
        rotary=int(dim * partial_factor(f, kind, dim)) if turned else 0,
        theta=theta(f, kind) if turned else None,
        unplaced=not turned and traits.positions not in ("learned", "alibi", "falcon"),
        qk_norm=norm,
        v_norm=traits.v_norm and not shared,
        gate={"query": "each number", "projection": "each number", "head": "each head"}.get(traits.gate, ""),
        sinks=sinks,
        score_cap=float(score_cap(f).value or 0),
        bias=" and ".join(["q, k, v"] * bias + ["o"] * out_bias),
        k_is_v=k_is_v,
        shared=shared,
        qkv=traits.qkv_name,
        out=traits.out_name,
    )


def score_cap(f: Fields) -> Fact:
    """What the scores are softly capped at; None where they are not."""
    if f.kind == "gemma3_text":  # kept in its files, and read by nothing
        return Fact(None, f.code)
    return f.fact("attn_logit_softcapping")


def _qk_norm(f: Fields, traits: Traits, kind: str) -> str:
    norm = traits.qk_norm
    if norm.startswith("use_qk_norm") or norm.startswith("qk_layernorm"):
        field, _, over = norm.partition(" ")
        return ("heads" if over else "head") if f.truth(field) else ""
    if f.kind == "llama4_text":
        return "head without weight" if f.truth("use_qk_norm") and kind == "chunked_attention" else ""
    return norm


def _norm_shapes(norm: str, heads: int, kv: int, dim: int, own_keys: bool) -> dict[str, Shape]:
    found: dict[str, Shape] = {}
    if norm == "head":
        found["q_norm"] = (dim,)
        return {**found, "k_norm": (dim,)} if own_keys else found
    if norm == "width":
        return {"q_norm": (heads * dim,), "k_norm": (kv * dim,)}
    if norm == "heads":
        return {"q_norm": (heads, dim), "k_norm": (kv, dim)}
    if norm == "head LayerNorm":
        return {"q_norm": (dim,), "q_norm.bias": (dim,), "k_norm": (dim,), "k_norm.bias": (dim,)}
    return {}


def rotates(f: Fields, traits: Traits, kind: str, layer: int) -> bool:
    """Whether RoPE turns this layer's queries and keys."""
    rule = traits.positions
    if rule == "sliding only":
        return kind == "sliding_attention" or not f.get("sliding_window")
    if rule == "no_rope_layers":
        flags = f.get("no_rope_layers")
        interval = f.number("no_rope_layer_interval") or 4
        return bool(flags[layer]) if flags else (layer + 1) % interval != 0  # 1 means that RoPE is used
    if rule == "position_embedding_type":
        return bool(f.get(rule) == "rope")
    if rule == "falcon":
        return not f.truth("alibi")
    return rule == "rope"


def window(f: Fields, kind: str) -> int | None:
    """How many tokens a layer of this kind sees, its own among them; None: all."""
    if kind == "sliding_attention":
        if f.kind == "mimo_v2_flash" and f.mine("sliding_window_size"):
            return f.needed("sliding_window_size") + 1
        return f.needed("window_size" if f.kind == "gpt_neo" else "sliding_window")
    return f.needed("attention_chunk_size") if kind == "chunked_attention" else None


def _latent(f: Fields, traits: Traits, kind: str, layer: int) -> Mixer:
    d, heads = width(f), query_heads(f, layer)
    rank, rope, nope = f.needed("kv_lora_rank"), f.number("qk_rope_head_dim"), f.needed("qk_nope_head_dim")
    value, q_rank = f.number("v_head_dim") or d // heads, f.number("q_lora_rank")
    bias = says(f, traits.qkv_bias)
    if q_rank:
        shapes = linear("q_a_proj", q_rank, d, bias) | {"q_a_layernorm": (q_rank,)}
        shapes |= linear("q_b_proj", heads * (nope + rope), q_rank)
    else:
        shapes = linear("q_proj", heads * (nope + rope), d)
    shapes |= linear("kv_a_proj_with_mqa", rank + rope, d, bias) | {"kv_a_layernorm": (rank,)}
    shapes |= linear("kv_b_proj", heads * (nope + value), rank)
    shapes |= linear("o_proj", d, heads * value, bias)
    index, index_shapes = _indexer(f, traits, layer, q_rank)
    turned = rotates(f, traits, kind, layer)
    return Mixer(
        kind="latent",
        label="Multi-head latent attention",
        shapes=shapes | index_shapes,
        heads=heads,
        kv_heads=heads,
        key_dim=nope + rope,
        value_dim=value,
        rotary=rope if turned else 0,
        theta=theta(f, kind) if turned else None,
        unplaced=not turned,
        q_rank=q_rank,
        kv_rank=rank,
        rope_dim=rope,
        index=index,
        bias="down-projections and o" if bias else "",
    )


def _indexer(f: Fields, traits: Traits, layer: int, q_rank: int) -> tuple[Index | None, dict[str, Shape]]:
    if not traits.indexer:
        return None, {}
    heads, dim, topk = f.needed("index_n_heads"), f.needed("index_head_dim"), f.needed("index_topk")
    if takes_earlier_choice(f.own, layer):
        return Index(heads, dim, topk, shared=True), {}
    shapes: dict[str, Any] = linear("indexer.wq_b", heads * dim, q_rank) | linear("indexer.wk", dim, width(f))
    shapes |= {"indexer.k_norm": (dim,), "indexer.k_norm.bias": (dim,)}
    return Index(heads, dim, topk), shapes | linear("indexer.weights_proj", heads, width(f))
