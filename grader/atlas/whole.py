"""Facts of a model as a whole, each with where it is from."""

from collections import Counter
from collections.abc import Mapping, Sequence

from grader.atlas.fields import Fact, Fields, shown
from grader.atlas.layer import Layer
from grader.atlas.mixers import score_cap
from grader.atlas.mlps import ACTIVATION
from grader.atlas.rope import parameters, scaling, theta, typed
from grader.atlas.shapes import says, width
from grader.atlas.traits import Traits

EPSILON = ("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps", "norm_eps", "norm_epsilon")
ROOT = "√width"  # what multiplies Gemma's embedding
# What multiplies something on its way, by the field's name.
SCALES = {
    "embedding_multiplier": "embedding",
    "scale_emb": "embedding",
    "residual_multiplier": "each part's output",
    "scale_depth": "each part's output, over the root of the number of layers",
    "attention_multiplier": "scores",
    "query_pre_attn_scalar": "scores, by one over its root",
    "logits_scaling": "logits, divided by it",
    "logit_scale": "logits",
    "routed_scaling_factor": "experts' output",
    "router_scaling_factor": "experts' output",
    "route_scale": "experts' output",
    "attention_value_scale": "values",
    "lm_head_multiplier": "logits",
    "full_attn_alpha_factor": "the stream under attention",
    "full_attn_beta_factor": "attention's output",
    "linear_attn_alpha_factor": "the stream under linear attention",
    "linear_attn_beta_factor": "linear attention's output",
    "mlp_alpha_factor": "the stream under the MLP",
    "mlp_beta_factor": "the MLP's output",
}


def facts_of(f: Fields, traits: Traits, layers: Sequence[Layer], sources: Mapping[str, str]) -> dict[str, Fact]:
    """Facts by name, in the order of a card."""
    facts = {
        "layers": Fact(len(layers), sources["layers"]),
        "layer mix": Fact(layer_mix(layers), sources["layer mix"]),
        "width": f.fact("hidden_size", "n_embd", "d_model"),
        "vocabulary": f.fact("vocab_size"),
        "context": f.fact("max_position_embeddings", "n_positions", "model_max_length", "max_seq_len"),
        "positions": _positions(f, traits, layers),
        "positions stretched": Fact(scaling(f) or "no", _scaling_source(f, traits)),
        "norm": Fact(norm_name(traits), f.code),
        "norms stand": Fact(norms_stand(layers), f.code),
        "norm epsilon": Fact(traits.epsilon, f.code) if traits.epsilon else f.fact(*EPSILON),
        "activation": Fact(traits.activation, f.code) if traits.activation else f.fact(*ACTIVATION),
        "tied head": f.fact("tie_embedding", "tie_word_embeddings"),
        "soft cap of logits": f.fact("final_logit_softcapping"),
        "soft cap of scores": score_cap(f, traits),
        "multi-token prediction": f.fact("num_nextn_predict_layers", "num_mtp_layers"),
    }
    if any(layer.mlp and layer.mlp.experts for layer in layers):
        facts["layers with experts"] = Fact(sum(bool(x.mlp and x.mlp.experts) for x in layers), sources["experts"])
        facts["weights of the chosen sum to 1"] = _renormalised(f, traits)
        if any(layer.mlp and "router.per_expert_scale" in layer.mlp.shapes for layer in layers):
            facts["scale of each expert's weight"] = Fact("a number that the checkpoint holds", f.code)
        if hashed := sum(bool(layer.mlp and layer.mlp.hashed) for layer in layers):
            source = f.fact("mlp_layer_types", "num_hash_layers")
            facts["layers whose experts the token's id chooses"] = Fact(
                hashed, source.source if source.value else f.code
            )
    if says(f, traits.embedding_scale):
        facts["scale of embedding"] = Fact(ROOT, f.code if traits.embedding_scale == "yes" else traits.embedding_scale)
    facts |= _stretched_alone(f, traits, layers) | _particular(f, traits) | _told(layers)
    for name, what in SCALES.items():
        found = f.fact(name)
        if found.value not in (None, 1) or (name == "attention_multiplier" and found.value):  # in place of 1 / root
            facts[f"scale of {what}"] = found
    return facts


def _told(layers: Sequence[Layer]) -> dict[str, Fact]:
    """What parts multiply, clamp or cap, with the number of layers where not all that have the part do."""
    each: dict[str, list[Fact]] = {}
    for layer in layers:
        mixer = layer.mixer
        for part in (mixer, mixer and mixer.beside, layer.mlp):
            for one in part.told if part else ():
                each.setdefault(one.label, []).append(one.fact)
        if layer.mlp and layer.mlp.router_cap:
            cap = Fact(layer.mlp.router_cap, "moe_router_logit_softcapping")
            each.setdefault("soft cap of the router's logits", []).append(cap)
    found = {}
    for label, facts in each.items():
        counted = Counter(shown(fact.value) for fact in facts)
        words = "; ".join(f"{value}, in {number} of {len(layers)} layers" for value, number in counted.items())
        found[label] = facts[0] if len(facts) == len(layers) and len(counted) == 1 else Fact(words, facts[0].source)
    return found


def _renormalised(f: Fields, traits: Traits) -> Fact:
    """Whether the weights of the experts that a router chooses sum to 1."""
    if traits.router == "softmax of the chosen" or traits.renormalised == "yes":
        return Fact(True, f.code)
    return Fact(False, f.code) if traits.renormalised == "no" else f.fact(traits.renormalised)


def _particular(f: Fields, traits: Traits) -> dict[str, Fact]:
    """What few families have, of those that have it."""
    found: dict[str, Fact] = {}
    own = f.fact("hidden_size_per_layer_input")
    if traits.per_layer_embeddings and own.value:
        found["width of the embeddings that each layer has"] = own
    streams = f.fact("hc_mult") if traits.hyper_connections else f.fact("altup_num_inputs")
    if (traits.hyper_connections or traits.altup) and streams.value:
        found["residual streams"] = streams
    if traits.embedding_norm:
        found["norm of the embedding"] = Fact(norm_name(traits), f.code)
    if traits.layer_scalar:
        found["scale of each layer's output"] = Fact("a number that the checkpoint holds", f.code)
    if traits.v_norm:
        found["norm of values"] = Fact("RMSNorm without weight", f.code)
    if traits.unscaled:
        found["scale of scores"] = Fact("1, not one over the root of a head's width", f.code)
    base = f.fact("dim_model_base")
    if base.value and width(f) != base.value:  # MiniCPM3 divides what its head reads
        found["scale of logits, divided by it"] = Fact(width(f) / f.needed("dim_model_base"), base.source)
    if traits.head_bias != "no" and says(f, traits.head_bias):
        found["bias of the head"] = Fact(True, f.code if traits.head_bias == "yes" else traits.head_bias)
    return found


def _positions(f: Fields, traits: Traits, layers: Sequence[Layer]) -> Fact:
    if traits.positions == "learned":
        return Fact("learned, added to the embedding", f.code)
    if traits.positions == "alibi" or (traits.positions == "falcon" and f.truth("alibi")):
        return Fact("ALiBi: a penalty for distance on the scores", f.code)
    mixing = [layer.mixer for layer in layers if layer.mixer and not layer.mixer.has_state]
    turned = [mixer for mixer in mixing if mixer.rotary]
    if not turned:
        return Fact("none", _rope_source(f, traits) if traits.positions == "rope_theta" else f.code)
    bases = sorted({mixer.theta for mixer in turned if mixer.theta})
    words = f"RoPE, θ = {' and '.join(f'{base:,.0f}' for base in bases)}"
    if interleaved(f, traits):
        words += ", interleaved"
    parts = {(mixer.rotary, mixer.rope_dim or mixer.key_dim, mixer.proportional) for mixer in turned}
    if any(rotary != whole for rotary, whole, _ in parts):
        each = (turned_words(*part) for part in sorted(parts))
        words += ", on " + " and ".join(each)
    if len(turned) < len(mixing):
        words += f", left out in {len(mixing) - len(turned)} of {len(mixing)} attention layers"
    return Fact(words, _rope_source(f, traits))


def turned_words(rotary: int, whole: int, pairs: bool) -> str:
    """Of how many of a head's numbers RoPE turns how many; pairs: those of the whole head, i and i + half of it."""
    if pairs:
        return f"{rotary // 2} of {whole // 2} pairs"
    return f"{rotary} of {whole}" if rotary != whole else f"all {whole}"


def _rope_source(f: Fields, traits: Traits) -> str:
    for name in ("rope_parameters", "rope_theta", "rope_scaling"):
        if f.own.get(name) is not None or (name in f.own and traits.positions == name):
            return name
    return f"default of {f.class_name}: rope_parameters" if theta(f, "full_attention") else f.code


def interleaved(f: Fields, traits: Traits) -> bool:
    """Whether RoPE turns neighbours (0 and 1, 2 and 3) together, not the two halves of a head."""
    own = f.get("rope_interleave")
    return traits.interleaved if own is None else bool(own)


def _stretched_alone(f: Fields, traits: Traits, layers: Sequence[Layer]) -> dict[str, Fact]:
    """Which layers a scaling of RoPE is of, where those with a window keep their own."""
    turned = [layer.mixer for layer in layers if layer.mixer and layer.mixer.rotary]
    wide = [mixer for mixer in turned if mixer.rate or not mixer.window]
    told = parameters(f, "sliding_attention") if typed(f) else None
    kept = traits.stretched == "full" if told is None else str(told.get("rope_type", "default")) == "default"
    if not scaling(f) or not kept or len(wide) in (0, len(turned)):
        return {}
    return {"layers with stretched positions": Fact(f"the {len(wide)} that see all", f.code)}


def _scaling_source(f: Fields, traits: Traits) -> str:
    return "rope_scaling" if f.own.get("rope_scaling") is not None else _rope_source(f, traits)


def norm_name(traits: Traits) -> str:
    """The norm, with what is particular about it."""
    name = traits.norm
    if not traits.norm_weight:
        name += " without weight"
    if traits.norm_centred:
        name += " with 1 + weight"
    return name


def norms_stand(layers: Sequence[Layer]) -> str:
    """Where the norms of a layer stand; of how many layers, where not all are alike."""
    places = Counter(norm_places(layer) for layer in layers)
    if len(places) == 1:
        return ", ".join(next(iter(places)))
    counted = ((", ".join(names), number) for names, number in places.most_common())
    return "; ".join(f"{words} in {number} layer{'s' * (number > 1)}" for words, number in counted)


def norm_places(layer: Layer) -> tuple[str, ...]:
    """Where the norms of one layer stand."""
    return tuple(name for name in layer.norms if ", bias" not in name)


def layer_mix(layers: Sequence[Layer]) -> str:
    """How many layers of each kind there are: ``15 sliding + 3 full``."""
    counted = Counter(kind_names(layers))
    if len(counted) == 1:
        return f"{len(layers)} {next(iter(counted))}"
    return " + ".join(f"{number} {name}" for name, number in counted.items())


def kind_names(layers: Sequence[Layer]) -> list[str]:
    """Each layer's kind; beside layers with a window, the others are called full."""
    names = [kind_name(layer) for layer in layers]
    if not {"sliding", "chunked"} & set(names):
        return names
    return ["full" if name in ("MHA", "MQA", "GQA") else name for name in names]


def kind_name(layer: Layer) -> str:
    """A layer's kind in a word or two."""
    mixer = layer.mixer
    if mixer is None:
        return "experts" if layer.mlp and layer.mlp.experts else "MLP"
    if mixer.has_state:
        return mixer.label
    if mixer.kind == "latent":
        return "sparse MLA" if mixer.index else "MLA"
    if mixer.kind == "compressed":
        return {0: "sliding"}.get(mixer.rate, "compressed sparse" if mixer.index else "heavily compressed")
    if mixer.window:
        return "chunked" if mixer.chunked else "sliding"
    short = {"Multi-head attention": "MHA", "Multi-query attention": "MQA"}.get(mixer.label, "GQA")
    return f"{short} + {mixer.beside.label}" if mixer.beside else short
