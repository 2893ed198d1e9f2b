"""A card: what is known of a model, line by line, each with where it is from."""

from dataclasses import dataclass
from typing import Any

from grader.atlas.architecture import Architecture
from grader.atlas.cache import at, caches, entry_values, index_values, per_token, state_bytes
from grader.atlas.drawing.words import alike, first_dense, group_lines, mlp_lines, mlps, pattern_words
from grader.atlas.fields import Fact
from grader.kv import readable, readable_kib

CONTEXTS = (8_192, 131_072)
NOT_TOLD = "not told"
# What most models have not: said only where there is one.
MAY_LACK = ("soft cap of logits", "soft cap of scores", "multi-token prediction")


@dataclass(frozen=True)
class Row:
    """One line of a card. value: the number or word itself; shown: as people write it."""

    label: str
    value: Any
    shown: str
    source: str


def rows(model: Architecture) -> list[Row]:
    """The card's lines, in their order."""
    facts = model.facts
    found = [
        Row("parameters", model.parameters, f"{model.parameters:,}", "counted, tensor by tensor"),
        Row("active parameters", model.active, f"{model.active:,}", "all but experts that a token is not sent to"),
    ]
    found += [_row("layers", facts["layers"]), _row("layer mix", facts["layer mix"])]
    if pattern := pattern_words(model):
        found.append(Row("pattern", pattern, pattern, facts["layer mix"].source))
    for i, group in enumerate(alike(model)):
        words = "; ".join(group_lines(group))
        found.append(Row("attention" if i == 0 else f"attention, {i + 1}", words, words, _source(model)))
    for i, (part, _) in enumerate(mlps(model)):
        words = "; ".join(mlp_lines(part, model.width))
        if part.router:
            words += f"; router: {part.router}"
        if part.groups:
            words += f", first {part.chosen_groups} of {part.groups} groups"
        found.append(Row("MLP" if i == 0 else f"MLP, {i + 1}", words, words, _source(model)))
    if dense := first_dense(model):
        found.append(Row("experts stand", dense, dense, facts["layers with experts"].source))
    for name, fact in facts.items():
        absent = fact.value is None and name in MAY_LACK
        if name not in ("layers", "layer mix") and not absent:
            found.append(_row(name, fact))
    return found + cache_rows(model)


def _source(model: Architecture) -> str:
    return f"the config's fields, and the code of {model.family} in transformers"


def _row(label: str, fact: Fact) -> Row:
    return Row(label, fact.value, shown(fact.value), fact.source)


def shown(value: Any) -> str:
    """A fact's value as people write it."""
    if value is None:
        return NOT_TOLD
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def cache_rows(model: Architecture) -> list[Row]:
    """What its cache takes in bfloat16: for one token, at contexts, and what does not grow."""
    kept = caches(model)
    one = per_token(kept)
    source = "counted from the layers, in bfloat16"
    found = [Row("cache for one token", one, readable_kib(one), source)]
    if index := index_values(model):
        without = one - 2 * index
        found.append(Row("the same without index keys", without, readable_kib(without), "what published cards give"))
    if entries := 2 * entry_values(model):
        words = "what published cards give: neither windows nor index keys"
        found.append(Row("compressed entries alone", entries, readable_kib(entries), words))
    if state := state_bytes(kept):
        words = "what the next entry needs of the last" if entries else "float32, with inputs of convolutions"
        found.append(Row("state, of one size", state, readable(state), words))
    for context in CONTEXTS:
        total = at(kept, context)
        found.append(Row(f"cache at {context:,} tokens", total, readable(total), source))
    return found
