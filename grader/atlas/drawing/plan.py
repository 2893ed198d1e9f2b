"""What the first panel shows of a model, from the head down, before anything has its place."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from grader.atlas.architecture import ON_STREAM, Architecture
from grader.atlas.drawing.header import SECOND, stretched
from grader.atlas.drawing.svg import text_width
from grader.atlas.drawing.words import (
    ACTIVATIONS,
    DOUBLE,
    Group,
    alike,
    first_dense,
    group_lines,
    mlp_lines,
    mlps,
    pattern_words,
)
from grader.atlas.layer import Layer
from grader.atlas.whole import ROOT, norm_places

GAP = 18
NORM_H = 28
NOTE, NOTES = 11.5, 320.0  # the font's size of a note, and the pixels that it takes at most before it is parted
PLUS, LEAVE = 10 + GAP, 2 + 24  # from a branch's sum down to its first box, from its last box's gap to the next sum
BETWEEN = "between branches"
PER_LAYER = "per-layer"


@dataclass(frozen=True)
class Slot:
    """A place in a branch: one box, or several of which each layer has one. boxes: role and lines of each."""

    key: str
    boxes: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def height(self) -> float:
        if self.key.startswith("norm"):
            return NORM_H
        inner = sum(box_height(lines) for _, lines in self.boxes)
        return inner if len(self.boxes) == 1 else inner + 10 * (len(self.boxes) - 1) + 36


def box_height(lines: tuple[str, ...]) -> float:
    """Pixels of a box with these lines."""
    return 16 + 15 * (len(lines) - 1) + 18


@dataclass(frozen=True)
class Plan:
    """What is drawn, from the head down. branches: each a list of slots from top to bottom.

    on_stream: whether norms stand on the stream, and not in the branches. stretched: whether the header has a second
    line, of a context that scaled RoPE reaches.
    """

    head: tuple[str, ...]
    embedding: tuple[str, ...]
    norm: str
    repeated: str
    notes: tuple[str, ...]
    branches: tuple[tuple[Slot, ...], ...]
    parallel: bool
    on_stream: bool
    stretched: bool


def plan(model: Architecture) -> Plan:
    """The rows of a model's first panel."""
    norm = model.traits.norm
    here = _norm_words(model)
    mixing = Slot("mixer", tuple(_mixer_box(model, group) for group in alike(model)))
    working = Slot("mlp", tuple(("mlp", tuple(_counted(mlp_lines(m, model.width), n, model))) for m, n in mlps(model)))
    if model.traits.one_norm:
        boxes = mixing.boxes + working.boxes
        branches: tuple[tuple[Slot, ...], ...] = ((Slot("mixer", boxes), _norm("before", norm)),)
    else:
        branches = (_branch("MLP", working, here), _branch("attention", mixing, here))
        if own := _per_layer(model):
            branches = (own, *branches)
        if model.parallel:  # with a norm each, or one for both
            both = () if "before both" not in here else (_norm("both", norm),)
            branches = ((*branches[-2], *branches[-1], *both),)
    lines = (*pattern_words(model).split("; "), first_dense(model), *_oddities(model))
    notes = tuple(part for note in lines if note for part in _wrapped(note))
    return Plan(
        head=("Output head", *_head_lines(model)),
        embedding=("Token embedding", *_embedding_lines(model)),
        norm=norm,
        repeated=str(len(model.layers)),
        notes=notes,
        branches=branches,
        parallel=model.parallel,
        on_stream=model.traits.norms == ON_STREAM,
        stretched=bool(stretched(model)),
    )


def _wrapped(note: str) -> list[str]:
    """A note in as many lines as it takes, parted where it says what comes next."""
    first, *rest = note.split(", then ")
    found = [first]
    for part in rest:
        longer = f"{found[-1]}, then {part}"
        if text_width(longer, NOTE) <= NOTES:
            found[-1] = longer
        else:
            found[-1] += ","
            found.append(f"then {part}")
    return found


def _typical(model: Architecture) -> Layer:
    return next((layer for layer in reversed(model.layers) if layer.mixer), model.layers[0])


def _per_layer(model: Architecture) -> tuple[Slot, ...]:
    """The branch of the embedding that each layer has of its own, after the MLP's; empty where there is none.

    Source: Gemma4TextDecoderLayer.forward in transformers. Gemma 3n's works on other streams, and is a note.
    """
    gate = _typical(model).extra.get("per_layer_input_gate")
    if not gate or model.traits.altup:
        return ()
    own, width = gate
    activation = ACTIVATIONS.get(str(model.facts["activation"].value), "activation")
    lines = ("Embedding of this layer", f"{width:,} → {own:,}, {activation}, times it", f"{own:,} → {width:,}")
    return _norm(f"after {PER_LAYER}", model.traits.norm), Slot(PER_LAYER, (("token", lines),))


def _mixer_box(model: Architecture, group: Group) -> tuple[str, tuple[str, ...]]:
    lines = _counted(group_lines(group), sum(number for _, number in group), model)
    return ("state" if group[0][0].has_state else "mixer", tuple(lines))


def _counted(lines: list[str], number: int, model: Architecture) -> list[str]:
    """With the number of layers, where not all have it."""
    if number == len(model.layers):
        return lines
    return [lines[0], f"in {number} layer{'s' if number > 1 else ''}", *lines[1:]]


def _norm(where: str, name: str) -> Slot:
    return Slot(f"norm {where}", (("norm", (name,)),))


def _norm_words(model: Architecture) -> dict[str, str]:
    """What the boxes of norms say, by where these stand: with the number of layers, where not all have it."""
    counted = Counter(name for layer in model.layers for name in norm_places(layer))
    name, total = model.traits.norm, len(model.layers)
    return {
        where: name if number == total else f"{name}, in {number} layer{'s' * (number > 1)}"
        for where, number in counted.items()
    }


def _branch(part: str, slot: Slot, here: Mapping[str, str]) -> tuple[Slot, ...]:
    after, before = (
        [_norm(where, here[where])] if where in here else [] for where in (f"after {part}", f"before {part}")
    )
    return (*after, slot, *before)


def _head_lines(model: Architecture) -> list[str]:
    lines = ["weights of its own" if "head" in model.head else "the embedding's weights"]
    if cap := model.facts["soft cap of logits"].value:
        lines.append(f"logits capped at ±{cap:g}")
    return lines


def _embedding_lines(model: Architecture) -> list[str]:
    lines = [f"{model.vocabulary:,} tokens × {model.width:,}"]
    scale = model.facts.get("scale of embedding")
    if scale:
        lines.append(f"times √{model.width:,}" if scale.value == ROOT else f"times {scale.value:g}")
    if "norm of the embedding" in model.facts:
        lines.append(f"then {model.facts['norm of the embedding'].value}")
    if "positions" in model.embedding:
        lines.append(f"+ {model.embedding['positions'][0]:,} learned positions")
    if str(model.facts["positions"].value).startswith("ALiBi"):
        lines.append("ALiBi: scores lose with distance")
    if "per-layer tokens" in model.embedding:
        lines.append("and one more of its own for each layer")
    return lines


def _oddities(model: Architecture) -> list[str]:
    found = []
    streams = model.facts["residual streams"].value if "residual streams" in model.facts else 1
    shared = sum(bool(layer.mixer and layer.mixer.shared) for layer in model.layers)
    if shared:
        found.append(f"the last {shared} use earlier keys and values")
    chosen = sum(bool(layer.mixer and layer.mixer.index and layer.mixer.index.shared) for layer in model.layers)
    if chosen:
        found.append(f"{chosen} look where an earlier index chose")
    if model.traits.double:
        found += DOUBLE
        dense = model.layers[0].extra["first dense.up_proj"][1]
        found.append(f"dense MLPs: {model.width:,} → {dense:,} → {model.width:,}")
    if model.traits.hyper_connections:
        found.append(f"{streams} streams, mixed around each part")
    found += stream_scales(model)
    if model.traits.layer_scalar:
        found.append("then times a number of its own")
    if model.traits.altup:
        found.append(f"{streams} streams (AltUp), LAuReL beside attention")
    return found


def stream_scales(model: Architecture) -> list[str]:
    """What the stream and a part's output are multiplied by where they are added, of MiniMax-01."""
    parts = (
        ("attention", "attention's output"),
        ("linear attention", "linear attention's output"),
        ("the MLP", "the MLP's output"),
    )
    found = []
    for part, output in parts:
        stream, own = (model.facts.get(f"scale of {what}") for what in (f"the stream under {part}", output))
        if stream or own:
            times = [f"{name} × {fact.value:g}" for name, fact in (("stream", stream), ("output", own)) if fact]
            found.append(f"{part}: {', '.join(times)}")
    return found


def heights_of(planned: Plan) -> dict[str, float]:
    """The height of each row, by its key."""
    found = {"head": box_height(planned.head), "embedding": box_height(planned.embedding)}
    found["notes"] = 17.0 * len(planned.notes)
    found[BETWEEN] = float(PLUS + LEAVE - GAP)
    found["header"] = float(SECOND * planned.stretched)
    for branch in planned.branches:
        for slot in branch:
            found[slot.key] = slot.height
    return found
