"""Random weights and input for a small model."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from grader.lessons.exercise import Draw, random_weights
from grader.porting.sizes import BATCH, EXPERTS, OTHER_TOKEN, TOKENS, first_of

SMALL_ROWS, SMALL = 4, 1e-3  # every fourth token's embedding is a thousandth as large, so that a norm's eps shows


def fill(model: nn.Module, draw: Draw) -> bool:
    """Random values for every weight, the constant buffers of a checkpoint included; unequal token embeddings.

    Returns whether there are such. A table of whole numbers, such as which experts a token id chooses, gets numbers
    below that of the experts.
    """
    random_weights(model, draw)
    with torch.no_grad():
        for name, buffer in _constant_buffers(model):
            values = draw.normal(*buffer.shape)
            buffer.copy_(0.5 * values if name.endswith("bias") else 1 + 0.3 * values)
        for table in _number_tables(model):
            table.copy_(draw.tokens(first_of("experts", _fields(model)) or EXPERTS, *table.shape))
        embedding = getattr(model, "get_input_embeddings", lambda: None)()
        if isinstance(embedding, nn.Embedding):
            embedding.weight[::SMALL_ROWS] *= SMALL
    return isinstance(embedding, nn.Embedding)


def _constant_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The buffers that a checkpoint holds and that are all zeros or all ones before it is loaded."""
    parameters, saved = dict(model.named_parameters(remove_duplicate=False)), model.state_dict()
    for name, buffer in model.named_buffers():
        constant = name in saved and name not in parameters and buffer.is_floating_point() and buffer.numel()
        if constant and (bool((buffer == 0).all()) or bool((buffer == 1).all())):
            yield name, buffer


def _fields(model: nn.Module) -> dict[str, Any]:
    config = getattr(model, "config", None)
    return config.to_dict() if config is not None else {}


def _number_tables(model: nn.Module) -> Iterator[Tensor]:
    """The tables of whole numbers, all zeros, that a checkpoint fills."""
    saved = model.state_dict()
    for name, buffer in model.named_buffers():
        if name in saved and buffer.dtype == torch.long and buffer.ndim == 2 and not buffer.any():
            yield buffer


def tokens(vocab_size: int, draw: Draw, length: int = TOKENS) -> Tensor:
    """Token ids without special tokens: [2, length], some of them with a small embedding."""
    first = OTHER_TOKEN + 1
    return first + draw.tokens(vocab_size - first, BATCH, length)
