"""How generation without a cache is used."""

from typing import Any

from torch import Tensor

from grader.authoring.drives.generation import CachedToyOfOneText, python_ints, tokens_written


def generated_without_cache(generate: Any, *given: Any) -> list[int]:
    """The tokens that `generate` writes with a model that has no cache."""
    return python_ints(generate(*given))


def generated_past_its_config(generate: Any, toy: Any, ids: Tensor, *others: Any) -> list[int]:
    """The tokens that `generate` writes behind a text that is longer than the config says that it may be."""
    model = CachedToyOfOneText(toy, ids).eval()
    model.config = toy.config.replace(max_position_embeddings=ids.shape[1] - 1)
    return tokens_written(generate(model, ids, *others))
