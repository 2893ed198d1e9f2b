"""How a model and its generation are used."""

from typing import Any

import torch
from torch import Tensor

from grader.authoring.drives.generation import ints_among, tokens_written


def logits(model: Any, ids: Tensor) -> Tensor:
    """What the model gives."""
    return model(ids)


def config_kept(model: Any, ids: Tensor) -> Tensor:
    """The numbers of the config that users of the model read; 0 where it keeps none."""
    config = getattr(model, "config", None)
    return torch.tensor([0, 0] if config is None else [config.n_positions, config.vocab_size])


def written(generate: Any, toy: Any, ids: Tensor, *more: Any) -> list[int]:
    """The tokens that `generate` writes."""
    return tokens_written(generate(toy, ids, *more))


def ints_written(generate: Any, toy: Any, ids: Tensor, *more: Any) -> list[int]:
    """Which of the tokens that `generate` writes are Python ints."""
    return ints_among(generate(toy, ids, *more))
