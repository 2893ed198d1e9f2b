"""Reads DeepSeek-V4's attention: a window of tokens, and the whole text in entries that stand for several each."""

from collections.abc import Mapping

from grader.atlas.fields import Fields
from grader.atlas.layer import Index, Mixer
from grader.atlas.rope import compressed_theta, partial_factor, theta
from grader.atlas.shapes import Shape, linear, width
from grader.errors import GraderError

# How many tokens share an entry, by the kind of layer, where a config does not say.
RATES = {"compressed_sparse_attention": 4, "heavily_compressed_attention": 128}


def compressed(f: Fields, kind: str) -> Mixer:
    """One key/value head that is both, queries of low rank, output in groups, and a compressor by the layer's kind."""
    d, heads, dim, rank = width(f), f.needed("num_attention_heads"), f.needed("head_dim"), f.needed("q_lora_rank")
    groups, low = f.needed("o_groups"), f.needed("o_lora_rank")
    shapes: dict[str, Shape] = {"sinks": (heads,), "q_a_norm": (rank,), "kv_norm": (dim,)}
    shapes |= linear("q_a_proj", rank, d) | linear("q_b_proj", heads * dim, rank) | linear("kv_proj", dim, d)
    shapes |= linear("o_a_proj", groups * low, heads * dim // groups) | linear("o_b_proj", d, groups * low)
    rate, index = rate_of(f, kind), None
    if kind != "sliding_attention":
        twice = 2 if kind == "compressed_sparse_attention" else 1  # entries overlap, each made of two halves
        shapes |= {"compressor.position_bias": (rate, twice * dim), "compressor.kv_norm": (dim,)}
        shapes |= linear("compressor.kv_proj", twice * dim, d) | linear("compressor.gate_proj", twice * dim, d)
    if kind == "compressed_sparse_attention":
        index = Index(f.needed("index_n_heads"), f.needed("index_head_dim"), f.needed("index_topk"))
        wide = 2 * index.dim
        shapes |= {"indexer.position_bias": (rate, wide), "indexer.kv_norm": (index.dim,)}
        shapes |= linear("indexer.kv_proj", wide, d) | linear("indexer.gate_proj", wide, d)
        shapes |= linear("indexer.q_b_proj", index.heads * index.dim, rank) | linear("indexer.scorer", index.heads, d)
    return Mixer(
        kind="compressed",
        label={
            "sliding_attention": "Multi-query attention",
            "compressed_sparse_attention": "Compressed sparse attention",
        }.get(kind, "Heavily compressed attention"),
        shapes=shapes,
        heads=heads,
        kv_heads=1,
        key_dim=dim,
        value_dim=dim,
        window=f.needed("sliding_window"),
        rotary=int(dim * (f.get("partial_rotary_factor") or partial_factor(f, kind, dim))),
        theta=compressed_theta(f) if rate else theta(f, kind),
        q_rank=rank,
        index=index,
        k_is_v=True,
        sinks=True,
        qk_norm="head without weight",
        rate=rate,
    )


def rate_of(f: Fields, kind: str) -> int:
    """How many tokens share an entry in a layer of this kind; 0 for one with a window alone. Raises GraderError."""
    if kind == "sliding_attention":
        return 0
    if kind not in RATES:
        raise GraderError(f"this config has layers of type {kind!r}, which {f.model} does not have.")
    own = f.own.get("compress_rates")
    return Fields({**RATES, **(own if isinstance(own, Mapping) else {})}, f.kind).needed(kind)
