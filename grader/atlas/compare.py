"""Two models side by side, and what one's program has to change to become the other's."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from grader.atlas.architecture import Architecture
from grader.atlas.card_rows import Row, rows, shown
from grader.atlas.drawing.words import alike, group_lines, mlp_lines, mlps, short
from grader.atlas.layer import Mixer


@dataclass(frozen=True)
class Line:
    """One line of a comparison."""

    label: str
    left: str
    right: str

    @property
    def differs(self) -> bool:
        return self.left != self.right


def compare(left: Architecture, right: Architecture) -> list[Line]:
    """The talk's table: what is shared and what is not."""
    told = [summary(left), summary(right)]
    return [Line(label, told[0].get(label, "–"), told[1].get(label, "–")) for label in {**told[0], **told[1]}]


def summary(model: Architecture) -> dict[str, str]:
    """The lines of the talk's card, in its order."""
    cache = {row.label: row.shown for row in rows(model) if row.label.startswith("cache")}
    size = short(model.parameters) + " parameters"
    if model.active != model.parameters:
        size += f", {short(model.active)} active"
    experts = any(layer.mlp and layer.mlp.experts for layer in model.layers)
    stateful = any(layer.mixer and layer.mixer.has_state for layer in model.layers)
    facts = model.facts
    return {
        "attention": " / ".join("; ".join(group_lines(group)) for group in alike(model)),
        "cache for one token": cache["cache for one token"],
        "cache at 131,072 tokens": cache["cache at 131,072 tokens"],
        "decoder": f"{'sparse (experts)' if experts else 'dense'}{', hybrid' if stateful else ''}",
        "layer mix": str(facts["layer mix"].value),
        "MLP": " / ".join("; ".join(mlp_lines(part, model.width)) for part, _ in mlps(model)) or "none",
        "scale": size,
        "width": f"{model.width:,}",
        "context": shown(facts["context"].value),
        "positions": str(facts["positions"].value),
        "norm": f"{facts['norm'].value}, {facts['norms stand'].value}",
        "activation": shown(facts["activation"].value),
        "vocabulary": f"{model.vocabulary:,}",
        "head": "the embedding's weights" if "head" not in model.head else "weights of its own",
    }


@dataclass(frozen=True)
class Step:
    """One thing to change in a program, in the order of a port. concept: what a lesson's `teaches` calls it."""

    concept: str
    module: str
    change: str


def steps(left: Architecture, right: Architecture) -> list[Step]:
    """What a program for `left` has to change to become one for `right`, from the embedding to the head."""
    mine, theirs = concepts(left), concepts(right)
    found = []
    for concept, (module, words) in theirs.items():
        before = mine.get(concept)
        if before is None:
            found.append(Step(concept, module, f"add: {words}"))
        elif before[1] != words:
            found.append(Step(concept, module, f"{before[1]} → {words}"))
    gone = [Step(c, module, f"remove: {words}") for c, (module, words) in mine.items() if c not in theirs]
    order = list(ORDER)
    return sorted(found + gone, key=lambda step: order.index(step.concept))


# Concepts in the order of a port. A lesson's lesson.toml names those that it teaches.
ORDER = (
    *("embedding", "embedding_scale", "learned_positions", "layer_norm", "rms_norm", "norm_placement", "plain_mlp"),
    *("gated_mlp", "experts", "rope", "nope", "alibi", "multi_head_attention", "grouped_queries", "latent_attention"),
    *("sparse_attention", "compressed_attention", "qk_norm", "attention_gate", "sinks", "attention_bias"),
    *("sliding_window", "linear_attention", "state_space", "short_convolution", "shared_kv", "k_is_v", "soft_cap"),
    "head",
)


STATE_CONCEPTS = {
    **dict.fromkeys(("delta", "kda", "lightning"), "linear_attention"),
    **dict.fromkeys(("mamba", "mamba2"), "state_space"),
    "conv": "short_convolution",
}


def concepts(model: Architecture) -> dict[str, tuple[str, str]]:
    """What a program of this model is made of: for each concept the module that holds it, and how it is there."""
    traits, facts = model.traits, model.facts
    mixers = [layer.mixer for layer in model.layers if layer.mixer]
    found = {"embedding": ("embedding", f"{model.vocabulary:,} tokens of {model.width:,}")}
    if traits.embedding_scale:
        found["embedding_scale"] = ("embedding", "multiplied by the root of the width")
    if "positions" in model.embedding:
        found["learned_positions"] = ("embedding", f"{model.embedding['positions'][0]:,} learned positions")
    norm = "layer_norm" if traits.norm == "LayerNorm" else "rms_norm"
    found[norm] = ("norms", f"{facts['norm'].value}, epsilon {shown(facts['norm epsilon'].value)}")
    found["norm_placement"] = ("block", str(facts["norms stand"].value))
    for part, _ in mlps(model):
        name = "experts" if part.experts else "gated_mlp" if part.gated else "plain_mlp"
        found.setdefault(name, ("MLP", "; ".join(mlp_lines(part, model.width))))
    attention = [mixer for mixer in mixers if not mixer.has_state]
    if any(mixer.rotary for mixer in attention):
        found["rope"] = ("attention", str(facts["positions"].value))
    if any(mixer.unplaced for mixer in attention):
        found["nope"] = ("attention", f"{sum(mixer.unplaced for mixer in attention)} layers without RoPE")
    if str(facts["positions"].value).startswith("ALiBi"):
        found["alibi"] = ("attention", str(facts["positions"].value))
    found |= _attention_concepts(attention)
    for mixer in mixers:
        if mixer.kind in STATE_CONCEPTS:
            found[STATE_CONCEPTS[mixer.kind]] = ("mixer", mixer.label)
    if cap := facts["soft cap of logits"].value:
        found["soft_cap"] = ("head", f"logits capped at ±{cap:g}")
    found["head"] = ("head", "the embedding's weights" if "head" not in model.head else "weights of its own")
    return found


def _attention_concepts(attention: Sequence[Mixer]) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for mixer in attention:
        numbers = f"{mixer.heads} heads of {mixer.key_dim}"
        if mixer.kind == "latent":
            words = f"{mixer.heads} heads over a latent of {mixer.kv_rank} + {mixer.rope_dim}"
            found.setdefault("latent_attention", ("attention", words))
        elif mixer.kind == "compressed":
            found.setdefault("compressed_attention", ("attention", mixer.label))
        elif mixer.kv_heads == mixer.heads:
            found.setdefault("multi_head_attention", ("attention", numbers))
        else:
            words = f"{numbers}, {mixer.kv_heads} keys and values"
            found.setdefault("grouped_queries", ("attention", words))
        told: Mapping[str, object] = {
            "sparse_attention": mixer.index and f"an index picks {mixer.index.topk:,} tokens",
            "qk_norm": mixer.qk_norm
            and f"QK-norm over {'each head' if mixer.qk_norm.startswith('head') else 'the width'}",
            "attention_gate": mixer.gate and f"a gate for {mixer.gate}",
            "sinks": mixer.sinks and "a learned sink for each head",
            "attention_bias": mixer.bias and f"bias of {mixer.bias}",
            "sliding_window": mixer.window and f"{mixer.window:,} tokens",
            "shared_kv": mixer.shared and "the last layers use earlier keys and values",
            "k_is_v": mixer.k_is_v and "values are the keys' projection",
        }
        for name, words_ in told.items():
            if words_:
                found.setdefault(name, ("attention", str(words_)))
    return found


def with_lessons(found: Iterable[Step], teaching: Mapping[str, Sequence[str]]) -> list[tuple[Step, tuple[str, ...]]]:
    """Each step with the lessons that teach it. teaching: for each lesson's name the concepts of its lesson.toml."""
    return [
        (step, () if step.change.startswith("remove") else tuple(n for n, t in teaching.items() if step.concept in t))
        for step in found
    ]


def differences(left: Architecture, right: Architecture) -> list[Row]:
    """The lines of right's card that are not as on left's."""
    before = {row.label: row.shown for row in rows(left)}
    return [row for row in rows(right) if before.get(row.label) != row.shown]
