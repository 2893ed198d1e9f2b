"""What a small model covers of what tells programs apart."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grader.porting.filling import SMALL, SMALL_ROWS
from grader.porting.sizes import NAMES, TOKENS, first_of


@dataclass(frozen=True)
class Coverage:
    """One thing that tells programs apart: whether the small model has it, and in what form or why not."""

    name: str
    covered: bool
    detail: str


def coverage_of(
    config: Mapping[str, Any], found: Sequence[str], original: Sequence[str], unequal: bool, length: int = TOKENS
) -> list[Coverage]:
    """What the small model has of what tells programs apart.

    found, original: the kinds of its layers, and of all. unequal: whether its embeddings are.
    length: how many tokens it is given.
    """
    counts, missing = Counter(found), len(set(original) - set(found))
    absent = f"; {missing} {'kinds are' if missing > 1 else 'kind is'} missing" if missing else ""
    numbers = " + ".join(str(count) for count in counts.values())
    several = not missing and all(count >= min(2, original.count(kind)) for kind, count in counts.items())
    windows = {n: config[n] for n in NAMES["window"].split() if type(config.get(n)) is int and config[n] > 0}
    heads, kv_heads = first_of("heads", config), first_of("kv_heads", config)
    hidden, head_dim = first_of("hidden", config), first_of("head_dim", config)
    even = hidden // heads if hidden and heads else None
    experts, chosen = first_of("experts", config), first_of("chosen", config)
    kinds_of = f"{len(counts)} kinds of layers" if len(counts) > 1 else "one kind of layer"
    covered = [
        Coverage("every kind of layer, twice where the model has two", several,
             f"{len(found)} layers: {numbers} of {kinds_of}{absent}"),
        Coverage("more tokens than the window", any(w < length for w in windows.values()),
             ", ".join(f"{n} {w}, {length} tokens" for n, w in windows.items()) or "the config has no window"),
        Coverage("fewer key and value heads than heads", bool(kv_heads and heads and kv_heads != heads),
             f"{heads} heads, {kv_heads or heads} for keys and values" if heads else "the config has no heads"),
        Coverage("head_dim that is not hidden size / heads", bool(head_dim and head_dim != even),
             f"{head_dim or even}, and {hidden} / {heads} = {even}" if even else "the config has no heads"),
    ]  # fmt: skip
    sizes = f"every {SMALL_ROWS}th is {SMALL:g} times as large" if unequal else "the model has no table of embeddings"
    covered += [
        Coverage("random weights", True, "norms, biases and buffers of a checkpoint included"),
        Coverage("token embeddings of unequal size", unequal, sizes),
    ]
    if experts:
        covered.append(Coverage("more experts than are chosen", experts > (chosen or 0), f"{chosen} of {experts}"))
    return covered
