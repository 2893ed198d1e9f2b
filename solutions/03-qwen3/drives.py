"""How generation without a cache, a chat template and a measurement of the loss are used."""

from typing import Any

import torch
from torch import Tensor, nn

from grader.authoring.drives.generation import CachedToyOfOneText, python_ints, tokens_written


def generated_without_cache(generate: Any, *given: Any) -> list[int]:
    """The tokens that `generate` writes with a model that has no cache."""
    return python_ints(generate(*given))


def generated_past_its_config(generate: Any, toy: Any, ids: Tensor, *others: Any) -> list[int]:
    """The tokens that `generate` writes behind a text that is longer than the config says that it may be."""
    model = CachedToyOfOneText(toy, ids).eval()
    model.config = toy.config.replace(max_position_embeddings=ids.shape[1] - 1)
    return tokens_written(generate(model, ids, *others))


# The chat template


def characters_written(chat_text: Any, messages: list[dict[str, Any]], *options: bool) -> Tensor:
    """The UTF-8 bytes of the text that a chat becomes."""
    before = repr(messages)
    given = chat_text(messages, *options)
    if repr(messages) != before:
        raise ValueError("chat_text changed the messages that it was given; the next turn would begin with the change")
    if not isinstance(given, str):
        raise TypeError(f"chat_text returned a {type(given).__name__}, where a str belongs")
    return torch.tensor(list(given.encode("utf-8", "replace")), dtype=torch.uint8)


# The loss behind a context


class Reader(nn.Module):
    """A language model of two tables, whose logits depend on the mean of all vectors so far: ids [B, T] -> logits."""

    def __init__(self, table: Tensor, places: Tensor) -> None:
        super().__init__()
        self.table, self.places = nn.Parameter(table.clone()), nn.Parameter(places.clone())

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table[ids] + self.places[: ids.shape[1]]
        so_far = x.cumsum(dim=1) / torch.arange(1, ids.shape[1] + 1)[:, None]
        return torch.tanh(x + so_far) @ self.table.T


def losses_after(
    loss_after: Any,
    table: Tensor,
    places: Tensor,
    story: Tensor,
    starts: list[int],
    befores: list[int],
    length: int,
) -> list[float]:
    """The loss behind each of the contexts, one after the other with the same model."""
    model = Reader(table, places).eval()
    return [float(loss_after(model, story, list(starts), before, length)) for before in befores]
