"""What boxes say."""

from collections import Counter
from dataclasses import replace

from grader.atlas.architecture import Architecture
from grader.atlas.layer import Layer, Mixer, Mlp
from grader.atlas.told import SPARSE
from grader.atlas.whole import kind_name, kind_names, turned_words

ACTIVATIONS = {
    "silu": "SiLU",
    "swish": "SiLU",
    "gelu_new": "GELU (tanh)",
    "gelu_pytorch_tanh": "GELU (tanh)",
    "gelu": "GELU",
    "relu": "ReLU",
    "relu2": "ReLU, squared",
}


# Of a layer of LongCat-Flash. Source: LongcatFlashDecoderLayer.forward in transformers.
DOUBLE = (
    "two attentions, each with a dense MLP behind it",
    "experts read what the first MLP reads",
    "and are added at the layer's end",
)


def short(number: float) -> str:
    """1,557,611,200 as 1.56 B."""
    rounded = float(f"{number:.3g}")  # 999,900,000 is 1 B
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if rounded >= size:
            return f"{rounded / size:.3g} {letter}" if rounded < 1000 * size else f"{number / size:,.0f} {letter}"
    return f"{number:,}"


def mixer_lines(mixer: Mixer) -> list[str]:
    """The name of what mixes tokens, and its numbers."""
    if mixer.kind == "conv":
        return [mixer.label, f"the last {mixer.conv} tokens, {mixer.value_dim:,} channels"]
    if mixer.kind == "mamba":
        return [mixer.label, f"{mixer.heads:,} channels, a state of {mixer.key_dim} each"]
    if mixer.has_state:
        return [
            mixer.label,
            _state_numbers(mixer),
            f"convolution over {mixer.conv}" if mixer.conv else "no convolution",
        ]
    lines = [mixer.label]
    if mixer.kind == "latent":
        lines += [f"{mixer.heads} heads, latent of {mixer.kv_rank} + {mixer.rope_dim}"]
    elif mixer.shared:
        lines += [f"{mixer.heads} query heads of {mixer.key_dim}", "an earlier layer's keys and values"]
    elif mixer.kv_heads == mixer.heads:
        lines += [f"{mixer.heads} heads of {mixer.key_dim}"]
    else:
        each = f"{mixer.kv_heads} keys and values" if mixer.kv_heads > 1 else "one key and value for all"
        lines += [f"{mixer.heads} query heads of {mixer.key_dim}", each]
    if mixer.index:
        picked = f"{mixer.index.topk:,} {'entries' if mixer.rate else 'tokens'}"
        lines += [f"{picked} of an earlier index" if mixer.index.shared else f"an index picks {picked}"]
    if mixer.rate:
        lines += [f"{mixer.rate} tokens in one entry, and {mixer.window} in full"]
    elif mixer.window:
        lines += [f"{'chunks' if mixer.chunked else 'window'} of {mixer.window:,} tokens"]
    lines += details(mixer)
    if mixer.beside:
        lines += [f"beside it {mixer.beside.label}", _state_numbers(mixer.beside)]
    return lines


def _state_numbers(mixer: Mixer) -> str:
    """A state's sizes in the order of the formulas: v kᵀ is value × key, x Bᵀ head × state."""
    return f"{mixer.heads} heads, a state of {mixer.value_dim} × {mixer.key_dim} each"


def details(mixer: Mixer) -> list[str]:
    """What else is particular about attention, in a line or two."""
    found, place = features(mixer), placing(mixer)
    if not found or (place and len(found) == 1 and len(place) < 24):
        return [", ".join([*found, place])] if found or place else []
    return [", ".join(found), place] if place else [", ".join(found)]


def features(mixer: Mixer) -> list[str]:
    """What attention has that not all have."""
    possible = (
        (mixer.qk_norm, "QK-norm after RoPE" if mixer.norm_after_rope else "QK-norm"),
        (mixer.gate, "gate"),
        ("attn_sub_norm" in mixer.shapes, f"RMSNorm before {mixer.out}"),
        (mixer.sinks, "sinks"),
        ("lambda_q1" in mixer.shapes, "differential"),
        (mixer.score_cap, f"scores capped at ±{mixer.score_cap:g}"),
        (mixer.bias, "bias"),
        (mixer.k_is_v, "k = v"),
    )
    return [word for there, word in possible if there]


def placing(mixer: Mixer) -> str:
    """How it knows where a token stands; empty where the embedding says it."""
    if not mixer.rotary:
        return "no RoPE" if mixer.unplaced else ""
    whole = mixer.rope_dim or mixer.key_dim
    part = "" if mixer.rotary == whole else f" on {turned_words(mixer.rotary, whole, mixer.proportional)}"
    return f"RoPE{part}, θ = {mixer.theta:,.0f}" if mixer.theta else f"RoPE{part}"


def mlp_lines(mlp: Mlp, width: int) -> list[str]:
    """The name of an MLP, and its numbers."""
    if not mlp.experts:
        lines = [mlp.label, f"{width:,} → {mlp.width:,} → {width:,}" + (", bias" if mlp.bias else "")]
        lines += [f"RMSNorm before {mlp.names[2]}"] if "ffn_sub_norm" in mlp.shapes else []
        return [*lines, "most of the gate set to 0"] if any(one.label == SPARSE for one in mlp.told) else lines
    lines = [
        f"{mlp.experts} {mlp.label}",
        f"{mlp.chosen} for each token"
        + (f", {mlp.empty} empty ones" if mlp.empty else "")
        + ", by its id" * mlp.hashed,
    ]
    inner = mlp.latent or width
    lines.append(f"each {inner:,} → {mlp.expert_width:,} → {inner:,}" + ", bias" * biased(mlp))
    if mlp.limit:
        lines.append(f"gate and up clamped at {mlp.limit:g}")
    if mlp.latent:
        lines.append(f"in a latent of {inner:,}")
    if mlp.shared:
        lines.append(f"and {mlp.shared_count} shared of {mlp.shared // mlp.shared_count:,}")
    if mlp.dense_beside:
        lines += [f"beside a dense MLP of {mlp.dense_beside:,}", "experts norm the stream apart"]
    return lines


def biased(mlp: Mlp) -> bool:
    """Whether the layers of experts have a bias."""
    return "up_proj.bias" in mlp.expert


def router_words(mlp: Mlp) -> str:
    """How a router chooses; empty for a dense MLP."""
    return f"router: {', '.join([mlp.router, *choice_words(mlp)])}" if mlp.router else ""


def choice_words(mlp: Mlp) -> list[str]:
    """What else decides which experts a router chooses, and what its weights are for."""
    groups = [f"from the best {mlp.chosen_groups} of {mlp.groups} groups"] if mlp.groups else []
    before = ["weights multiply what experts read"] if mlp.router == "sigmoid of the chosen" else []  # Llama 4's
    linear = ["a bias"] if "router.bias" in mlp.shapes else []
    capped = [f"logits capped at ±{mlp.router_cap:g}"] if mlp.router_cap else []
    chosen = ["a table chooses by the token's id"] if mlp.hashed else []
    return [*linear, *capped, *chosen, *groups, *before, *["a bias for the choice alone"] * mlp.choice_bias]


def mixers(model: Architecture) -> list[tuple[Mixer, int]]:
    """The kinds of mixers with how many layers have each, the most frequent first; what takes from others is last."""
    counted = Counter(_mixer_key(layer) for layer in model.layers if layer.mixer)
    merged: dict[tuple[str, ...], tuple[Mixer, int]] = {}
    for key, number in counted.most_common():
        mixer = next(layer.mixer for layer in model.layers if layer.mixer and _mixer_key(layer) == key)
        lines = tuple(mixer_lines(mixer))
        first, before = merged.get(lines, (mixer, 0))
        merged[lines] = (first, before + number)
    return sorted(merged.values(), key=lambda found: found[0].shared or bool(found[0].index and found[0].index.shared))


def _mixer_key(layer: Layer) -> tuple[str, ...]:
    assert layer.mixer
    return (kind_name(layer), *mixer_lines(layer.mixer))


def mlps(model: Architecture) -> list[tuple[Mlp, int]]:
    """The kinds of MLPs with how many layers have each, the most frequent first."""
    counted: dict[tuple[str, ...], tuple[Mlp, int]] = {}
    for layer in model.layers:
        if layer.mlp:
            key = tuple(mlp_lines(layer.mlp, model.width))
            first, before = counted.get(key, (layer.mlp, 0))
            counted[key] = (first, before + 1)
    return sorted(counted.values(), key=lambda found: -found[1])


def all_mlps(model: Architecture) -> list[tuple[Mlp, int]]:
    """Those, and LongCat-Flash's dense ones, which stand behind each attention beside the experts."""
    found = mlps(model)
    shape = model.layers[0].extra.get("first dense.up_proj")
    if not shape:
        return found
    names = ("gate_proj", "up_proj", "down_proj")
    shapes = dict.fromkeys(names, shape)
    label = f"{found[0][0].label.removesuffix(' experts')} MLP"
    beside = Mlp(label, shapes, activation=found[0][0].activation, width=shape[1], names=names)
    return [*found, (beside, 2 * len(model.layers))]


def pattern_words(model: Architecture) -> str:
    """How kinds of layers follow one another: ``5 sliding, then 1 full``; empty where all are alike.

    Layers before the first turn, and a last one of its own kind, stand in parts of their own, behind a semicolon.
    """
    names = kind_names(model.layers)
    if len(set(names)) == 1:
        return ""
    for before, after in ((0, 0), (0, 1), (1, 0), (2, 0)):
        inner = names[before : len(names) - after]
        cycle = _cycle(inner)
        if cycle and len(inner) >= 2 * len(cycle):
            counted = runs(names[:before])
            first = [", ".join(f"first {f'{n} ' * (n > 1)}{name}" for n, name in counted)] if counted else []
            turns = ", then ".join(f"{n} {name}" if n > 1 or len(name) < 8 else name for n, name in runs(cycle))
            return "; ".join([*first, turns, *[f"the last {name}" for name in names[len(names) - after :]]])
    return str(model.facts["layer mix"].value)


def _cycle(names: list[str]) -> list[str]:
    """The shortest run of at most twelve layers that is repeated; empty where there is none."""
    for period in range(2, 13):
        cycle = names[:period]
        if len(set(cycle)) > 1 and all(name == cycle[i % period] for i, name in enumerate(names)):
            return cycle
    return []


def runs(names: list[str]) -> list[tuple[int, str]]:
    """Neighbours that are alike, counted."""
    found: list[tuple[int, str]] = []
    for name in names:
        if found and found[-1][1] == name:
            found[-1] = (found[-1][0] + 1, name)
        else:
            found.append((1, name))
    return found


def first_dense(model: Architecture) -> str:
    """``the first 3 dense`` where the layers before the ones with experts have none; else empty."""
    has = [bool(layer.mlp and layer.mlp.experts) for layer in model.layers if layer.mlp]
    if not any(has) or all(has) or model.traits.one_norm:
        return ""
    first = has.index(True)
    if first and all(has[first:]):
        return f"the first {first} dense" if first > 1 else "the first dense"
    return f"{sum(has)} of {len(has)} with experts"


Group = list[tuple[Mixer, int]]


def alike(architecture: Architecture) -> list[Group]:
    """Kinds of mixers in groups that differ at most in how far they see and in RoPE's base: a panel each."""
    groups: dict[object, Group] = {}
    for mixer, number in mixers(architecture):
        plain = replace(mixer, window=None, chunked=False, theta=None, shapes={}, index=None, unplaced=False)
        key = (repr(plain), mixer.index and mixer.index.shared)  # what takes an earlier choice keeps no keys for it
        groups.setdefault(key, []).append((mixer, number))
    return list(groups.values())


def group_lines(group: Group) -> list[str]:
    """What a box says of mixers that share a panel: what they have in common, and what each has of its own."""
    if len(group) == 1:
        return mixer_lines(group[0][0])
    members = [mixer for mixer, _ in group]
    lines = mixer_lines(replace(members[0], window=None))[
        : 3 if members[0].kv_heads < members[0].heads or members[0].shared else 2
    ]
    common = [word for word in features(members[0]) if all(word in features(mixer) for mixer in members)]
    if common:
        lines.append(", ".join(common))
    place = placing(members[0])
    alike_placed = all(placing(mixer) == place for mixer in members)
    if alike_placed and place:
        lines.append(place)
    for mixer, number in group:
        seen = f"{'chunks' if mixer.chunked else 'window'} of {mixer.window:,}" if mixer.window else "all tokens"
        own = [] if alike_placed else [placing(mixer).removeprefix("RoPE, ")]
        own += [word for word in features(mixer) if word not in common]
        lines.append(", ".join([f"{number} layers: {seen}", *own]))
    return lines
