"""What a program is made of, and what one model's program has to change to become another's."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from grader.atlas.architecture import Architecture
from grader.atlas.drawing.plan import stream_scales
from grader.atlas.drawing.words import DOUBLE, all_mlps, mlp_lines, router_words
from grader.atlas.fields import shown
from grader.atlas.layer import Mixer
from grader.atlas.whole import ROOT


@dataclass(frozen=True)
class PortStep:
    """One thing to change in a program, in the order of a port. concept: what a lesson's `teaches` calls it."""

    concept: str
    module: str
    change: str

    @property
    def takes_away(self) -> bool:
        """Whether it only removes something, so that there is nothing to learn."""
        return self.change.startswith("remove")


# Concepts in the order of a port. A lesson's lesson.toml names those that it teaches.
ORDER = (
    *("embedding", "embedding_scale", "learned_positions", "per_layer_embeddings", "layers", "layer_norm", "rms_norm"),
    *("norm_placement", "residual_streams", "residual_scale", "layer_scale", "plain_mlp", "gated_mlp", "experts"),
    *("rope", "rope_scaling", "nope", "alibi", "multi_head_attention", "grouped_queries", "latent_attention"),
    *("sparse_attention", "compressed_attention", "qk_norm", "v_norm", "attention_scale", "score_scale", "score_cap"),
    "attention_gate",
    *("sinks", "attention_bias", "sliding_window", "linear_attention", "state_space", "short_convolution", "shared_kv"),
    *("k_is_v", "logit_scale", "soft_cap", "head"),
)
# Of each of these a part of a program has one, and another takes its place.
INSTEAD = (
    ("layer_norm", "rms_norm"),
    ("plain_mlp", "gated_mlp", "experts"),
    ("multi_head_attention", "grouped_queries", "latent_attention", "compressed_attention"),
)
STATE_CONCEPTS = {
    **dict.fromkeys(("delta", "kda", "lightning"), "linear_attention"),
    **dict.fromkeys(("mamba", "mamba2"), "state_space"),
    "conv": "short_convolution",
}
# Facts of a whole model that a program has a line for: the concept and the module, by the fact's name.
PARTICULAR = {
    "width of the embeddings that each layer has": (
        "per_layer_embeddings",
        "embedding",
        "{} numbers for each layer",
    ),
    "residual streams": ("residual_streams", "block", "{} streams, mixed around each part"),
    "scale of each part's output": ("residual_scale", "block", "each part's output times {}"),
    "scale of each part's output, over the root of the number of layers": (
        "residual_scale",
        "block",
        "each part's output times {} over the root of the number of layers",
    ),
    "scale of each layer's output": ("layer_scale", "block", "each layer's output times {}"),
    "norm of values": ("v_norm", "attention", "values through an {}"),
    "scale of scores": ("score_scale", "attention", "scores times {}"),
    "scale of scores, by one over its root": ("score_scale", "attention", "scores times one over the root of {}"),
    "soft cap of scores": ("score_cap", "attention", "scores capped at ±{}"),
    "scale of logits": ("logit_scale", "head", "logits times {}"),
    "scale of logits, divided by it": ("logit_scale", "head", "logits divided by {}"),
    "soft cap of logits": ("soft_cap", "head", "logits capped at ±{}"),
}


def steps(left: Architecture, right: Architecture) -> list[PortStep]:
    """What a program for `left` has to change to become one for `right`, from the embedding to the head."""
    mine, theirs = concepts(left), concepts(right)
    gone, new = [c for c in mine if c not in theirs], [c for c in theirs if c not in mine]
    found = []
    for one_of in INSTEAD:
        old, other = [c for c in one_of if c in gone], [c for c in one_of if c in new]
        if old and other:
            gone.remove(old[0])
            new.remove(other[0])
            found.append(PortStep(other[0], theirs[other[0]][0], f"{mine[old[0]][1]} ⇒ {theirs[other[0]][1]}"))
    found += [PortStep(c, theirs[c][0], f"add: {theirs[c][1]}") for c in new]
    found += [PortStep(c, mine[c][0], f"remove: {mine[c][1]}") for c in gone]
    for concept, (module, words) in theirs.items():
        if concept in mine and mine[concept][1] != words:
            found.append(PortStep(concept, module, f"{mine[concept][1]} ⇒ {words}"))
    return sorted(found, key=lambda step: ORDER.index(step.concept))


def concepts(model: Architecture) -> dict[str, tuple[str, str]]:
    """What a program of this model is made of: for each concept the module that holds it, and how it is there."""
    traits, facts = model.traits, model.facts
    mixers = [layer.mixer for layer in model.layers if layer.mixer]
    found = {"embedding": ("embedding", f"{model.vocabulary:,} tokens of {model.width:,}")}
    if "norm of the embedding" in facts:
        found["embedding"] = ("embedding", f"{found['embedding'][1]}, through {facts['norm of the embedding'].value}")
    if scale := facts.get("scale of embedding"):
        times = "the root of the width" if scale.value == ROOT else shown(scale.value)
        found["embedding_scale"] = ("embedding", f"multiplied by {times}")
    if "positions" in model.embedding:
        found["learned_positions"] = ("embedding", f"{model.embedding['positions'][0]:,} learned positions")
    found["layers"] = ("layers", str(facts["layer mix"].value))
    norm = "layer_norm" if traits.norm == "LayerNorm" else "rms_norm"
    found[norm] = ("norms", f"{facts['norm'].value}, epsilon {shown(facts['norm epsilon'].value)}")
    placed = "one part a layer, a norm before it" if traits.one_norm else f"norms {facts['norms stand'].value}"
    if traits.sub_norms:
        placed += "; an RMSNorm before each part's last projection"
    if traits.double:
        placed += f"; {', '.join(DOUBLE)}"
    placed = "; ".join([placed, *stream_scales(model)])
    found["norm_placement"] = ("block", placed)
    for name, kinds in _mlp_concepts(model).items():
        found[name] = ("MLP", " / ".join(kinds))
    attention = [mixer for mixer in mixers if not mixer.has_state]
    if any(mixer.rotary for mixer in attention):
        found["rope"] = ("attention", str(facts["positions"].value))
        if facts["positions stretched"].value != "no":
            alone = facts.get("layers with stretched positions")
            words = f"{facts['positions stretched'].value}{f', in {alone.value}' if alone else ''}"
            found["rope_scaling"] = ("attention", f"RoPE stretched: {words}")
    if unplaced := sum(mixer.unplaced for mixer in attention):
        found["nope"] = ("attention", f"{unplaced} of {len(attention)} layers without RoPE")
    if str(facts["positions"].value).startswith("ALiBi"):
        found["alibi"] = ("attention", str(facts["positions"].value))
    found |= _attention_concepts(attention)
    parts = [part for mixer in mixers for part in (mixer, mixer.beside) if part]
    if told := dict.fromkeys(one.line for part in parts for one in part.told if one.label not in PARTICULAR):
        found["attention_scale"] = ("attention", "; ".join(told))
    for mixer in mixers:
        if mixer.kind in STATE_CONCEPTS:
            found[STATE_CONCEPTS[mixer.kind]] = ("mixer", mixer.label)
    for name, (concept, module, said) in PARTICULAR.items():
        if name in facts and facts[name].value:
            found[concept] = (module, said.format(shown(facts[name].value)))
    found["head"] = ("head", "the embedding's weights" if "head" not in model.head else "weights of its own")
    return found


def _mlp_concepts(model: Architecture) -> dict[str, list[str]]:
    """What a model has of each concept of an MLP: of several kinds the most frequent first."""
    found: dict[str, list[str]] = {}
    for part, _ in all_mlps(model):
        name = "experts" if part.experts else "gated_mlp" if part.gated else "plain_mlp"
        weighing = _weighing(model) if part.experts else ""
        words = [*mlp_lines(part, model.width), router_words(part), weighing, *(one.line for one in part.told)]
        found.setdefault(name, []).append("; ".join(filter(None, words)))
    return found


def _weighing(model: Architecture) -> str:
    """How the outputs of the chosen experts are weighed."""
    one, scale = model.facts["weights of the chosen sum to 1"].value, model.facts.get("scale of experts' output")
    sums = "" if one is None else "weights sum to 1" if one else "weights do not sum to 1"
    each = "each times its expert's scale" if "scale of each expert's weight" in model.facts else ""
    return ", ".join(filter(None, [sums, each, f"times {scale.value:g}" if scale else ""]))


def _attention_concepts(attention: Sequence[Mixer]) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    windows = [mixer for mixer in attention if mixer.window]
    shared = sum(mixer.shared for mixer in attention)
    for mixer in attention:
        numbers = f"{mixer.heads} heads of {mixer.key_dim}"
        if "lambda_q1" in mixer.shapes:
            numbers += " in pairs, one softmax less λ times the other"
        if mixer.kind == "latent":
            words = f"{mixer.heads} heads over a latent of {mixer.kv_rank} + {mixer.rope_dim}"
            found.setdefault("latent_attention", ("attention", words))
        elif mixer.kind == "compressed":
            found.setdefault("compressed_attention", ("attention", f"{mixer.label}, {numbers}"))
        elif mixer.kv_heads == mixer.heads:
            found.setdefault("multi_head_attention", ("attention", numbers))
        else:
            each = f"{mixer.kv_heads} keys and values" if mixer.kv_heads > 1 else "one key and value for all"
            found.setdefault("grouped_queries", ("attention", f"{numbers}, {each}"))
        told: Mapping[str, object] = {
            "sparse_attention": mixer.index
            and f"an index picks {mixer.index.topk:,} {'entries' if mixer.rate else 'tokens'}",
            "qk_norm": mixer.qk_norm
            and f"QK-norm over {'each head' if mixer.qk_norm.startswith('head') else 'the width'}"
            + (", after RoPE" if mixer.norm_after_rope else ""),
            "attention_gate": mixer.gate and f"a gate for {mixer.gate}",
            "sinks": mixer.sinks and "a learned sink for each head",
            "attention_bias": mixer.bias and f"bias of {mixer.bias}",
            "sliding_window": mixer.window
            and f"{'chunks' if mixer.chunked else 'a window'} of {mixer.window:,} tokens"
            f" in {len(windows)} of {len(attention)} layers",
            "shared_kv": mixer.shared and f"the last {shared} layers use earlier keys and values",
            "k_is_v": mixer.k_is_v and "values are the keys' projection",
        }
        for name, words_ in told.items():
            if words_:
                found.setdefault(name, ("attention", str(words_)))
    return found


def with_lessons(
    found: Iterable[PortStep], teaching: Mapping[str, Sequence[str]]
) -> list[tuple[PortStep, tuple[str, ...]]]:
    """Each step with the lessons that teach it. teaching: for each lesson's name the concepts of its lesson.toml."""
    return [
        (step, () if step.takes_away else tuple(n for n, t in teaching.items() if step.concept in t)) for step in found
    ]
