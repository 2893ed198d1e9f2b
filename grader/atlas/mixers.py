"""Reads the part of a layer that mixes tokens, with the shapes of its parameters."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from grader.atlas.compressed import compressed
from grader.atlas.fields import Fact, Fields
from grader.atlas.layer import Index, Mixer
from grader.atlas.rope import partial_factor, theta, turns
from grader.atlas.shapes import WIDTHS, Shape, linear, query_heads, says, width
from grader.atlas.states import STATES, short_convolution
from grader.atlas.told import of_attention, of_state, proportional
from grader.atlas.traits import Traits
from grader.errors import GraderError

HEAD_GATE = "use_attention_gate"  # LFM3's field
LAYER_THETA = "layer_rope_theta"  # the field of Granite's models with windows


def key_heads(f: Fields, layer_kind: str, layer: int) -> int:
    """How many heads of keys and values a layer has."""
    heads = query_heads(f, layer)
    own = OWN_KEY_HEADS[f.kind](f, layer_kind) if f.kind in OWN_KEY_HEADS else f.number("num_key_value_heads")
    return own or heads


def head_width(f: Fields, traits: Traits, layer_kind: str, layer: int) -> int:
    """How many numbers one head's query and key have."""
    if traits.global_heads and layer_kind == "full_attention" and not f.peek("per_layer_config"):
        return f.number("global_head_dim") or 512
    own = f.fact("head_dim")
    if own.value is not None and traits.head_dim:
        return f.needed("head_dim")
    heads, d = query_heads(f, layer), f.needed(*WIDTHS)
    each, rest = divmod(d, heads)
    if not each or (rest and not traits.rounded_heads):
        raise GraderError(
            f"the width {d:,} of this config can't be split among {heads} heads"
            " and there is no `head_dim`; are `hidden_size` and `num_attention_heads` right?"
        )
    return each


def value_width(f: Fields, traits: Traits, key: int) -> int:
    """How many numbers one head's value has, where its key has `key`."""
    return f.number("v_head_dim") or key if traits.value_dim else key


def shares(f: Fields, layer: int) -> bool:
    """Whether a layer uses the keys and values of an earlier one, as the last `num_kv_shared_layers` do."""
    last = f.number("num_kv_shared_layers")
    return bool(last) and layer >= f.needed("num_hidden_layers", "num_layers") - last


def mixer_of(f: Fields, traits: Traits, kind: str, layer: int) -> Mixer | None:
    """The mixer of one layer, a kind of `schedule.KINDS`; None for a layer that mixes nothing."""
    if kind in ("moe", "mlp"):
        return None
    if kind == "conv":
        return short_convolution(f)
    if kind == "linear_attention":
        if traits.linear not in STATES:
            raise GraderError(f"`layer_types` has linear_attention, which {f.model} does not have.")
        return replace(STATES[traits.linear](f, traits), told=of_state(f, traits))
    if traits.compressed:
        return compressed(f, kind)
    found = _latent(f, traits, kind, layer) if f.get("kv_lora_rank") else _attention(f, traits, kind, layer)
    if traits.side_by_side:
        return replace(found, beside=replace(STATES[traits.linear](f, traits), told=of_state(f, traits)))
    return found


def label_of(heads: int, kv: int) -> str:
    """How people call attention with so many heads."""
    if kv == heads:
        return "Multi-head attention"
    return "Multi-query attention" if kv == 1 else "Grouped-query attention"


def _attention(f: Fields, traits: Traits, kind: str, layer: int) -> Mixer:
    d, heads, kv = width(f), query_heads(f, layer), key_heads(f, kind, layer)
    dim = head_width(f, traits, kind, layer)
    value = value_width(f, traits, dim)
    bias, out_bias = says(f, traits.qkv_bias), says(f, traits.o_bias)
    k_is_v = traits.global_heads and kind == "full_attention" and f.truth("attention_k_eq_v")
    shared, norm, gate = shares(f, layer), _qk_norm(f, traits, kind), _gate(f, traits)
    turned = rotates(f, traits, kind, layer)
    found = Mixer(
        kind="attention",
        label=label_of(heads, kv),
        shapes={},
        heads=heads,
        kv_heads=kv,
        key_dim=dim,
        value_dim=value,
        window=window(f, kind),
        chunked=kind == "chunked_attention",
        rotary=int(dim * partial_factor(f, kind, dim)) if turned else 0,
        theta=(_own_theta(f, traits, layer) or theta(f, kind)) if turned else None,
        unplaced=not turned and traits.positions not in ("learned", "alibi", "falcon"),
        qk_norm=norm,
        norm_after_rope=bool(traits.norm_after_rope and norm and turned),
        v_norm=traits.v_norm and not shared,
        gate=gate,
        gate_activation=traits.gate_activation,
        sinks=traits.sinks == "all" or (traits.sinks == "sliding" and kind == "sliding_attention"),
        unscaled=traits.unscaled,
        score_cap=float(score_cap(f, traits).value or 0),
        bias=" and ".join(["q, k, v"] * bias + ["o"] * out_bias),
        k_is_v=k_is_v,
        shared=shared,
        qkv=traits.qkv_name,
        out=traits.out_name,
        proportional=turned and proportional(f, kind),
        told=of_attention(f, traits, kind, turned),
    )
    return replace(found, shapes=_attention_shapes(traits, found, d))


def _attention_shapes(traits: Traits, mixer: Mixer, d: int) -> dict[str, Shape]:
    heads, kv, dim, value = mixer.heads, mixer.kv_heads, mixer.key_dim, mixer.value_dim
    bias = mixer.bias.startswith("q")
    shapes = linear("q_proj", heads * dim * (2 if traits.gate == "query" else 1), d, bias)
    if not mixer.shared:
        shapes |= linear("k_proj", kv * dim, d, bias)
        shapes |= {} if mixer.k_is_v else linear("v_proj", kv * value, d, bias)
    shapes |= linear("o_proj", d, heads * value, mixer.bias.endswith("o"))
    shapes |= _norm_shapes(mixer)
    if traits.gate == "projection":
        shapes |= linear("gate_proj", heads * dim, d)
    if traits.gate in ("head", HEAD_GATE) and mixer.gate:
        shapes |= linear("g_proj", heads if mixer.gate == "each head" else heads * dim, d)
    if mixer.sinks:
        shapes |= {"sinks": (heads,)}
    if traits.sub_norms:
        shapes |= {"attn_sub_norm": (d,)}
    if traits.differential:
        shapes |= {f"lambda_{name}": (dim,) for name in ("q1", "k1", "q2", "k2")}
    return shapes


def _gate(f: Fields, traits: Traits) -> str:
    """What its output is multiplied by: a number for each number or each head."""
    if traits.gate == "head":  # Laguna's, whose code takes every other value as a gate for each number
        return "each head" if f.get("gating") in (True, "per-head") else "each number"
    if traits.gate == HEAD_GATE:
        return "each head" if f.truth(HEAD_GATE) else ""
    return "each number" if traits.gate else ""


def score_cap(f: Fields, traits: Traits) -> Fact:
    """What the scores are softly capped at; None where they are not."""
    return f.fact("attn_logit_softcapping") if traits.capped else Fact(None, f.code)


def _qk_norm(f: Fields, traits: Traits, kind: str) -> str:
    field, _, how = traits.qk_norm.partition(" ")
    if field not in ("use_qk_norm", "qk_layernorm"):
        return traits.qk_norm
    if not f.truth(field):
        return ""
    if how == "in chunks":
        return "head without weight" if kind == "chunked_attention" else ""
    return {"over heads": "heads", "LayerNorm": "head LayerNorm"}.get(how, "head")


def _norm_shapes(mixer: Mixer) -> dict[str, Shape]:
    heads, kv, dim = mixer.heads, mixer.kv_heads, mixer.key_dim
    if mixer.qk_norm == "head":
        names = ["q_norm"] if mixer.shared else ["q_norm", "k_norm"]
        return dict.fromkeys(names, (dim,))
    if mixer.qk_norm == "width":
        return {"q_norm": (heads * dim,), "k_norm": (kv * dim,)}
    if mixer.qk_norm == "heads":
        return {"q_norm": (heads, dim), "k_norm": (kv, dim)}
    if mixer.qk_norm == "head LayerNorm":
        return dict.fromkeys(("q_norm", "q_norm.bias", "k_norm", "k_norm.bias"), (dim,))
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
    if rule == LAYER_THETA and f.get(rule):
        return _own_theta(f, traits, layer) != 0
    if rule == "rope_theta":
        return turns(f, kind)
    if rule == "falcon":
        return not f.truth("alibi")
    return rule in ("rope", LAYER_THETA)


def _own_theta(f: Fields, traits: Traits, layer: int) -> float:
    """The base of RoPE's angles that a list gives a layer, 0 for a layer that turns nothing, and where no list does."""
    found = f.get(LAYER_THETA) if traits.positions == LAYER_THETA else None
    if found and layer >= len(found):
        raise GraderError(f"`{LAYER_THETA}` has {len(found)} entries in this config, and the model has more layers.")
    return float(found[layer]) if found else 0.0


def window(f: Fields, kind: str) -> int | None:
    """How many tokens a layer of this kind sees, its own among them; None: all."""
    if kind == "sliding_attention":
        return OWN_WINDOWS[f.kind](f) if f.kind in OWN_WINDOWS else f.needed("sliding_window")
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
    if gate := traits.gate == "head":  # Ling 3's
        shapes |= linear("g_proj", heads, d)
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
        gate="each head" if gate else "",
        q_rank=q_rank,
        kv_rank=rank,
        rope_dim=rope,
        index=index,
        bias="down-projections and o" if bias else "",
        told=of_attention(f, traits, kind, turned, q_rank),
    )


def _indexer(f: Fields, traits: Traits, layer: int, q_rank: int) -> tuple[Index | None, dict[str, Shape]]:
    if not traits.indexer:
        return None, {}
    heads, dim, topk = f.needed("index_n_heads"), f.needed("index_head_dim"), f.needed("index_topk")
    if _takes_earlier_choice(f, layer):
        return Index(heads, dim, topk, shared=True), {}
    shapes: dict[str, Any] = linear("indexer.wq_b", heads * dim, q_rank) | linear("indexer.wk", dim, width(f))
    shapes |= {"indexer.k_norm": (dim,), "indexer.k_norm.bias": (dim,)}
    return Index(heads, dim, topk), shapes | linear("indexer.weights_proj", heads, width(f))


def _takes_earlier_choice(f: Fields, layer: int) -> bool:
    """Whether a layer of sparse attention looks at the tokens that an earlier layer's index chose (GLM-5.2)."""
    choices = f.own.get("indexer_types") or f.own.get("index_topk_pattern")
    if choices:
        if layer >= len(choices):
            raise GraderError(f"this config says of {len(choices)} layers whose index they use, and has more layers.")
        return choices[layer] in ("S", "shared")
    offset, own = f.own.get("index_skip_topk_offset"), Fields(f.own, f.kind)  # which notes nothing
    after = layer - (2 if offset is None else int(offset)) + 1
    return max(after, 0) % max(own.number("index_topk_freq"), 1) != 0


# What few families have by a rule of their own


def _falcon_heads(f: Fields, kind: str) -> int:
    """Falcon 40B's and 180B's files say `multi_query` too, and mean groups."""
    if f.truth("new_decoder_architecture"):
        return f.number("num_kv_heads", "num_attention_heads")
    return int(f.truth("multi_query"))


def _bigcode_heads(f: Fields, kind: str) -> int:
    return 1 if f.truth("multi_query") else f.number("num_key_value_heads")


def _gemma4_heads(f: Fields, kind: str) -> int:
    fewer = kind == "full_attention" and f.truth("attention_k_eq_v")
    return (f.number("num_global_key_value_heads") if fewer else 0) or f.number("num_key_value_heads")


def _mimo_heads(f: Fields, kind: str) -> int:
    """MiMo-V2-Flash has twice as many in its windows: its files name them, transformers' class doubles."""
    if kind != "sliding_attention":
        return f.number("num_key_value_heads")
    return f.number("swa_num_key_value_heads") or 2 * f.needed("num_key_value_heads")


def _mimo_window(f: Fields) -> int:
    """Its files count the earlier tokens, beside the newest."""
    return f.needed("sliding_window_size") + 1 if f.mine("sliding_window_size") else f.needed("sliding_window")


# Heads of keys and values in a layer of a kind; 0: as many as queries.
OWN_KEY_HEADS: dict[str, Callable[[Fields, str], int]] = {
    "falcon": _falcon_heads,
    "gpt_bigcode": _bigcode_heads,
    "gemma4_text": _gemma4_heads,
    "mimo_v2_flash": _mimo_heads,
}
OWN_WINDOWS: dict[str, Callable[[Fields], int]] = {
    "mimo_v2_flash": _mimo_window,
    "gpt_neo": lambda f: f.needed("window_size"),
}
