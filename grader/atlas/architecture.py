"""A model's architecture, read off its config.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from grader.atlas.family import Family
from grader.atlas.fields import Fact, Fields, explained
from grader.atlas.layer import Layer, Mixer, Shapes, count
from grader.atlas.mixers import mixer_of
from grader.atlas.mlps import mlp_of
from grader.atlas.schedule import layer_kinds, sparse_layers
from grader.atlas.shapes import query_heads, says, width
from grader.atlas.traits import Traits
from grader.errors import GraderError

ON_STREAM = "on the stream"  # MiniMax-01's way, of a trait's `norms`
PARALLEL = "use_parallel_residual"  # the field of GPT-NeoX and StableLM


@dataclass(frozen=True)
class Architecture:
    """What a model is.

    name: what it was asked for as, or its model_type. model_type: the file's own; family: as which it was read.
    remark: what to know about the reading, empty where the family is the file's own. layers: from first to last.
    parallel: the two parts of a layer read the same stream, and their outputs are added to it together.
    embedding, head: shapes outside the layers, the head's empty where it is the embedding's. facts: what is said of
    the model as a whole, by name. config: the fields that were read, with layer_types resolved; given: the same as the
    file has them.
    """

    name: str
    model_type: str
    family: str
    remark: str
    width: int
    vocabulary: int
    layers: tuple[Layer, ...]
    kinds: tuple[str, ...]
    parallel: bool
    embedding: Shapes
    head: Shapes
    traits: Traits
    facts: Mapping[str, Fact]
    config: Mapping[str, Any] = field(repr=False)
    given: Mapping[str, Any] = field(repr=False)

    @property
    def parameters(self) -> int:
        """All parameters, a tied head counted once. Multi-token prediction and parts for images are not counted."""
        return self._outside + sum(layer.parameters for layer in self.layers)

    @property
    def active(self) -> int:
        """The parameters that one token's work uses: all but the experts that it is not sent to.

        The embedding counts in full, although a token reads one row of it: DeepSeek-V3's 37 B is counted so.
        """
        return self._outside + sum(layer.active for layer in self.layers)

    @property
    def mixers(self) -> tuple[Mixer, ...]:
        """What mixes tokens, from the first layer to the last, two for a layer that has two."""
        each = range(1 + self.traits.double)
        return tuple(layer.mixer for layer in self.layers if layer.mixer for _ in each)

    @property
    def ends(self) -> int:
        """The parameters of the embedding of tokens and of a head of its own."""
        return prod(self.embedding["tokens"]) + prod(self.head.get("head", (0,)))

    @property
    def _outside(self) -> int:
        return count(self.embedding) + count(self.head)


def architecture_in(family: Family, name: str = "") -> Architecture:
    """The architecture that a config of this family describes.

    Raises GraderError where it does not say enough, contradicts itself, or describes what is not known here.
    """
    with explained(family.fields):
        found = _read(family, name)
        assert found.parameters  # counted, so that a field of a wrong kind shows here
    return found


def _read(family: Family, name: str) -> Architecture:
    f, traits = family.fields, family.traits
    kinds, kinds_source = layer_kinds(f, traits)
    declared = f.fact("num_hidden_layers", "num_layers")
    given = {**f.own, "model_type": f.kind}
    f.own.setdefault("num_hidden_layers", len(kinds))
    vocabulary, heads_known = f.needed("vocab_size"), traits.mlp != "none"
    if heads_known:
        query_heads(f, 0)
    sparse, sparse_source = [False] * len(kinds), f.code
    if traits.mlp == "experts" and f.number("num_local_experts", "n_routed_experts", "num_experts"):
        sparse, sparse_source = sparse_layers(f, traits, len(kinds))
    layers = tuple(_layer(f.of_layer(i), traits, kind, sparse[i], i) for i, kind in enumerate(kinds))
    from grader.atlas.whole import facts_of

    sources = {
        "layers": declared.source if declared.value else kinds_source,
        "layer mix": kinds_source,
        "experts": sparse_source,
    }
    facts = facts_of(f, traits, layers, sources)
    stand = facts["norms stand"]
    if parallel(f, traits) and _two_norms(f, traits):
        facts["norms stand"] = Fact(stand.value.replace(", ", " and ") + ", which stand side by side", stand.source)
    elif traits.norms == ON_STREAM:
        facts["norms stand"] = Fact(f"{stand.value}, on the stream itself", stand.source)
    return Architecture(
        name=name or family.model_type,
        model_type=family.model_type,
        family=f.kind,
        remark=family.remark,
        width=width(f),
        vocabulary=vocabulary,
        layers=layers,
        kinds=tuple(kinds),
        parallel=parallel(f, traits),
        embedding=_embedding(f, traits, len(kinds)),
        head=_head(f, traits),
        traits=traits,
        facts=facts,
        config={**f.own, "model_type": f.kind, "layer_types": kinds},
        given=given,
    )


def _layer(f: Fields, traits: Traits, kind: str, sparse: bool, index: int) -> Layer:
    f.asked.clear()
    mixer = mixer_of(f, traits, kind, index)
    if mixer and mixer.kind == "attention" and mixer.heads % mixer.kv_heads:
        shared = f"{mixer.heads} query heads can't share {mixer.kv_heads} key/value heads evenly"
        raise GraderError(f"{shared}; is one of them a slip?")
    if mixer:
        mixer = replace(mixer, sources=tuple(f.asked))
    f.asked.clear()
    alone = traits.one_norm
    if kind == "moe":
        sparse = True
    elif kind == "mlp":
        sparse = False
    mlp = None if alone and mixer else mlp_of(f, traits, sparse, index)
    if mlp:
        mlp = replace(mlp, sources=tuple(f.asked))
    norms = _norms(f, traits, kind, sparse)
    extra: dict[str, tuple[int, ...]] = {}
    d = width(f)
    if traits.double:  # LongCat-Flash: two attentions and two dense MLPs beside the experts
        assert mixer and mlp
        dense_width = f.needed("ffn_hidden_size")
        extra |= {f"second attention.{name}": shape for name, shape in mixer.shapes.items()}
        for which in ("first", "second"):
            for part in ("gate_proj", "up_proj", "down_proj"):
                extra[f"{which} dense.{part}"] = (d, dense_width)
        extra |= {f"second {name}": shape for name, shape in norms.items()}
    if traits.per_layer_embeddings and f.number("hidden_size_per_layer_input"):
        own = f.needed("hidden_size_per_layer_input")
        extra |= {"per_layer_input_gate": (own, d), "per_layer_projection": (d, own)}
        extra |= {"post_per_layer_input_norm": (d,)}
    if traits.altup:
        n, rank = f.needed("altup_num_inputs"), f.needed("laurel_rank")
        extra |= {"altup.correct_output_scale": (d,), "altup.correction_coefs": (n, n)}
        extra |= {"altup.prediction_coefs": (n * n, n), "altup.modality_router": (n, d), "altup.router_norm": (d,)}
        extra |= {"laurel.left": (rank, d), "laurel.right": (d, rank), "laurel.norm": (d,)}
    if traits.hyper_connections:
        n = f.needed("hc_mult")
        for part in ("attn_hc", "ffn_hc"):
            extra |= {f"{part}.fn": ((n + 2) * n, n * d), f"{part}.base": ((n + 2) * n,), f"{part}.scale": (3,)}
    return Layer(mixer, mlp, norms, extra)


def parallel(f: Fields, traits: Traits) -> bool:
    """Whether attention and MLP stand side by side: both read what came into the layer."""
    rule = traits.norms
    if rule == "falcon":
        return f.truth("new_decoder_architecture") or f.truth("parallel_attn")
    return rule == "parallel" or (rule.startswith(PARALLEL) and f.truth(PARALLEL))


def _two_norms(f: Fields, traits: Traits) -> bool:
    """Whether parts side by side have a norm each. Source: FalconDecoderLayer and GPTNeoXLayer in transformers."""
    if traits.norms == "falcon":
        return f.truth("new_decoder_architecture") and f.get("num_ln_in_parallel_attn") in (None, 2)
    return traits.norms.endswith("with two norms")


def _norms(f: Fields, traits: Traits, kind: str, sparse: bool) -> Shapes:
    """The norms of one layer, by where they stand."""
    if f.kind == "opt" and not f.truth("do_layer_norm_before"):
        raise GraderError("this model norms the stream itself after each sum, and what is drawn norms parts alone.")
    where: Sequence[str] = ("before attention", "before MLP")
    rule = traits.norms
    if traits.one_norm:
        where = ("before",)
    elif rule == "both" or (rule == "use_sandwich_norm" and f.truth(rule)):  # the field is LFM3's
        where = ("before attention", "after attention", "before MLP", "after MLP")
    elif rule == "post" or (rule == "olmo_hybrid" and kind == "full_attention"):
        where = ("after attention", "after MLP")
    elif parallel(f, traits) and not _two_norms(f, traits):
        where = ("before both",)
    if traits.mlp == "gemma4" and f.truth("enable_moe_block"):
        where = (*where, "after dense MLP", "before experts", "after experts")
    if traits.post_experts_norm and sparse:
        where = (*where, "after MLP")
    return _norm_shapes(f, traits, where)


def _norm_shapes(f: Fields, traits: Traits, where: Sequence[str]) -> dict[str, tuple[int, ...]]:
    if not traits.norm_weight:
        return dict.fromkeys(where, (0,))
    d = width(f)
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(where, (d,))
    if traits.norm == "LayerNorm" and traits.norm_bias:
        shapes |= {f"{name}, bias": (d,) for name in where}
    return shapes


def _embedding(f: Fields, traits: Traits, layers: int) -> Shapes:
    d, vocabulary = width(f), f.needed("vocab_size")
    inner = f.number("word_embed_proj_dim") or d
    shapes: dict[str, tuple[int, ...]] = {"tokens": (vocabulary, inner)}
    if inner != d:
        shapes |= {"project_in": (d, inner), "project_out": (inner, d)}
    if traits.positions == "learned":
        length = f.needed("max_position_embeddings", "n_positions")
        shapes["positions"] = (length + traits.position_offset, d)
    if traits.embedding_norm:
        shapes |= _norm_shapes(f, traits, ["embedding norm"])
    if traits.per_layer_embeddings and f.number("hidden_size_per_layer_input"):
        own = f.needed("hidden_size_per_layer_input")
        shapes["per-layer tokens"] = (f.needed("vocab_size_per_layer_input"), layers * own)
        shapes |= {"per_layer_model_projection": (layers * own, d), "per_layer_projection_norm": (own,)}
    if traits.altup:
        for i in range(f.needed("altup_num_inputs") - 1):
            shapes |= {f"altup_projections.{i}": (d, d), f"altup_unembed_projections.{i}": (d, d)}
    return shapes


def _head(f: Fields, traits: Traits) -> Shapes:
    """The final norm, and the head where it is not the embedding."""
    d, vocabulary = width(f), f.needed("vocab_size")
    shapes = _norm_shapes(f, traits, ["final norm"])
    if not tied(f):
        rows = f.number("output_vocab_size") or vocabulary  # Apertus 1.5's may lack those of images and sound
        shapes["head"] = (rows, f.number("word_embed_proj_dim") or d)
    if says(f, traits.head_bias):
        shapes["head.bias"] = (vocabulary,)
    if traits.hyper_connections:
        n = f.needed("hc_mult")
        shapes |= {"hc_head.fn": (n, n * d), "hc_head.base": (n,), "hc_head.scale": (1,)}
    return shapes


def tied(f: Fields) -> bool:
    """Whether the head is the embedding's matrix."""
    own = f.own.get("tie_embedding")  # LFM2's word for it
    return bool(own) if own is not None else f.truth("tie_word_embeddings")
