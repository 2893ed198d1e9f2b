"""Two models side by side."""

from dataclasses import dataclass

from grader.atlas.arbiter import Unread
from grader.atlas.architecture import Architecture
from grader.atlas.card_rows import rows, rows_of_asked
from grader.atlas.drawing.words import alike, all_mlps, group_lines, mlp_lines, short
from grader.atlas.fields import shown


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
    one, other = summary(left), summary(right)
    return [Line(label, one.get(label, "–"), other.get(label, "–")) for label in {**one, **other}]


def compare_counts(left: Architecture | Unread, right: Architecture | Unread) -> list[Line]:
    """What can be counted of both, where transformers alone knows one of them: the lines that both cards have."""
    cards = [rows_of_asked(model.asked) if isinstance(model, Unread) else rows(model) for model in (left, right)]
    one, other = ({row.label: row.shown for row in card} for card in cards)
    return [Line(label, one[label], other[label]) for label in one if label in other]


def summary(model: Architecture) -> dict[str, str]:
    """The lines of the talk's card, in its order."""
    cache = {row.label: row.shown for row in rows(model) if row.label.startswith("cache")}
    size = short(model.parameters) + " parameters"
    if model.active != model.parameters:
        size += f", {short(model.active)} active ({100 * model.active / model.parameters:.3g}%)"
    experts = any(layer.mlp and layer.mlp.experts for layer in model.layers)
    stateful = any(layer.mixer and layer.mixer.has_state for layer in model.layers)
    facts, stretched = model.facts, str(model.facts["positions stretched"].value)
    return {
        "attention": " / ".join("; ".join(group_lines(group)) for group in alike(model)),
        "cache for one token": cache["cache for one token"],
        "cache at 131,072 tokens": cache["cache at 131,072 tokens"],
        "decoder": f"{'sparse (experts)' if experts else 'dense'}{', hybrid' if stateful else ''}",
        "layer mix": str(facts["layer mix"].value),
        "MLP": " / ".join("; ".join(mlp_lines(part, model.width)) for part, _ in all_mlps(model)) or "none",
        "scale": size,
        "width": f"{model.width:,}",
        "context": shown(facts["context"].value) + (f", by {stretched}" if stretched != "no" else ""),
        "positions": str(facts["positions"].value),
        "norm": f"{facts['norm'].value}, {facts['norms stand'].value}",
        "activation": shown(facts["activation"].value),
        "vocabulary": f"{model.vocabulary:,}",
        "head": "the embedding's weights" if "head" not in model.head else "weights of its own",
    }
