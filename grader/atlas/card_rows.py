"""A card: what is known of a model, line by line, each with where it is from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grader.atlas.arbiter import Asked
from grader.atlas.architecture import Architecture
from grader.atlas.cache import (
    LayerCache,
    at,
    caches,
    entry_values,
    index_keys,
    per_token,
    readable,
    readable_kib,
)
from grader.atlas.drawing.words import alike, all_mlps, first_dense, group_lines, mlp_lines, pattern_words, router_words
from grader.atlas.family import class_name
from grader.atlas.fields import NOT_TOLD, Fact, shown

CONTEXTS = (8_192, 131_072)
WITHOUT_ENDS = "the same without embedding and head"
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
    if model.active != model.parameters:
        inner = model.active - model.ends
        found.append(Row(WITHOUT_ENDS, inner, f"{inner:,}", "what some publish as active"))
    found += [_row("layers", facts["layers"]), _row("layer mix", facts["layer mix"])]
    if pattern := pattern_words(model):
        found.append(Row("pattern", pattern, pattern, facts["layer mix"].source))
    for i, group in enumerate(alike(model)):
        words = "; ".join(group_lines(group))
        label = "attention" if i == 0 else f"attention, {i + 1}"
        found.append(Row(label, words, words, _sources([mixer.sources for mixer, _ in group], model)))
    for i, (part, _) in enumerate(all_mlps(model)):
        words = "; ".join(filter(None, [*mlp_lines(part, model.width), router_words(part)]))
        found.append(Row("MLP" if i == 0 else f"MLP, {i + 1}", words, words, _sources([part.sources], model)))
    if dense := first_dense(model):
        found.append(Row("experts stand", dense, dense, facts["layers with experts"].source))
    for name, fact in facts.items():
        absent = fact.value is None and name in MAY_LACK
        absent |= name == "positions stretched" and not str(facts["positions"].value).startswith("RoPE")
        if name not in ("layers", "layer mix") and not absent:
            found.append(_row(name, fact))
    return found + cache_rows(model)


def _sources(groups: Sequence[Sequence[str]], model: Architecture) -> str:
    """The file's fields, then those that are the class's defaults, then the code, which says what they mean."""
    every = list(dict.fromkeys(source for one in groups for source in one))
    own = [source for source in every if not source.startswith("default of ")]
    defaults = [source.rpartition(": ")[2] for source in every if source.startswith("default of ")]
    parts = [", ".join(own)] if own else []
    parts += [f"default of {class_name(model.family)}: {', '.join(defaults)}"] if defaults else []
    return "; ".join([*parts, model.facts["norm"].source])


def _row(label: str, fact: Fact) -> Row:
    return Row(label, fact.value, shown(fact.value), fact.source)


def context_of(model: Architecture) -> float:
    """How many tokens its config says that it reads; without end where it says nothing."""
    return _longest(model.facts)


def _longest(facts: Mapping[str, Fact]) -> float:
    told = facts["context"].value
    return told if isinstance(told, int) else math.inf


def cache_rows(model: Architecture) -> list[Row]:
    """What its cache takes in bfloat16: for one token, at contexts, and what does not grow."""
    kept = caches(model)
    one = per_token(kept)
    source = "counted from the layers, in bfloat16"
    found = [Row("cache for one token", one, readable_kib(one), source)]
    if index := sum(map(index_keys, model.mixers)):
        without = one - 2 * index
        found.append(Row("the same without index keys", without, readable_kib(without), "what published cards give"))
    if entries := 2 * entry_values(model.mixers):
        words = "what published cards give: neither windows nor index keys"
        found.append(Row("compressed entries alone", entries, readable_kib(entries), words))
    if state := at(kept, 0):
        words = "what the next entry needs of the last" if entries else "float32, with inputs of convolutions"
        found.append(Row("state, of one size", state, readable(state), words))
    return found + _at_contexts(kept, model.facts, source)


def _at_contexts(kept: Sequence[LayerCache], facts: Mapping[str, Fact], source: str) -> list[Row]:
    found, longest = [], _longest(facts)
    for context in CONTEXTS:
        total = at(kept, context)
        beyond = f"; its context is shorter, {longest:,}" if context > longest else ""
        found.append(Row(f"cache at {context:,} tokens", total, readable(total), f"{source}{beyond}"))
    return found


def rows_of_asked(asked: Asked) -> list[Row]:
    """The lines of a card of a model that transformers alone knows: what its own model tells, and what it does not."""
    source = f"counted on transformers' own {asked.model_class}"
    found = [Row("parameters", asked.parameters, f"{asked.parameters:,}", source)]
    if asked.active is None:
        found.append(Row("active parameters", None, NOT_TOLD, "which tensors are the experts' is not clear"))
    elif asked.active != asked.parameters:
        found.append(
            Row("active parameters", asked.active, f"{asked.active:,}", f"{source}: all but experts not chosen")
        )
    found += [_row(label, fact) for label, fact in asked.facts.items()]
    if asked.kept is None:
        return [*found, Row("cache", None, NOT_TOLD, asked.why)]
    one, state = per_token(asked.kept), at(asked.kept, 0)
    source = f"{source}, run without weights, in bfloat16"
    found.append(Row("cache for one token", one, readable_kib(one), source))
    if state:
        found.append(Row("state, of one size", state, readable(state), source))
    return found + _at_contexts(asked.kept, asked.facts, source)
