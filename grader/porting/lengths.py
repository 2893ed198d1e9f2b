"""How many tokens a reference needs, so that what its layers do with long texts shows."""

import inspect
import sys
from collections.abc import Mapping
from typing import Any

from torch import nn

from grader.porting.coverage import Coverage
from grader.porting.sizes import TOKENS

MORE = 6  # tokens of a second chunk
LONGEST_CHUNK = 64
CHUNK = "chunk_size"


def enough_tokens(model: nn.Module, config: Mapping[str, Any]) -> int:
    """How many tokens a small model is given where nothing else is asked for.

    A scan in chunks needs a second one, and an indexer more compressed entries than it may choose.
    """
    chunk, rate, chosen = chunk_of(model, config), _rate(config), config.get("index_topk") or 0
    compressed = rate * (chosen + 2) + 2 if rate else 0
    return max(TOKENS, chunk + MORE if chunk else 0, compressed)


def chunk_of(model: nn.Module, config: Mapping[str, Any]) -> int:
    """The size of the chunks in which a function of a model's file takes a text; 0 if there is none.

    Only sizes that no config names count: those in a config are made small.
    """
    if any(name.endswith(CHUNK) for name in config):
        return 0
    found = [0]
    for home in {type(module).__module__ for module in model.modules()}:
        if home in sys.modules and not home.startswith("torch."):
            defined = [value for value in vars(sys.modules[home]).values() if inspect.isfunction(value)]
            found += [size for function in defined if (size := _default(function)) <= LONGEST_CHUNK]
    return max(found)


def long_enough(model: nn.Module, config: Mapping[str, Any], length: int) -> list[Coverage]:
    """Whether `length` tokens are more than one chunk, and give more compressed entries than are chosen."""
    chunk, rate, chosen = chunk_of(model, config), _rate(config), config.get("index_topk")
    covered = (
        [Coverage("more tokens than a chunk", length > chunk, f"chunks of {chunk}, {length} tokens")] if chunk else []
    )
    if rate and chosen:
        entries = length // rate
        covered.append(Coverage("more compressed entries than are chosen", entries > chosen, f"{chosen} of {entries}"))
    return covered


def _default(function: Any) -> int:
    parameter = inspect.signature(function).parameters.get(CHUNK)
    return parameter.default if parameter is not None and type(parameter.default) is int else 0


def _rate(config: Mapping[str, Any]) -> int:
    """Of how many tokens an indexer's entries are made; 0 where it chooses among tokens."""
    rates = config.get("compress_rates")
    return int(rates.get("compressed_sparse_attention", 0)) if isinstance(rates, Mapping) else 0
