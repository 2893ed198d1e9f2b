"""Generated text is the reference's but for near-ties: where the reference is undecided, another choice is accepted."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from grader.authoring.kit.solved import (
    continued_by_transformers,
    same_tokens_but_for_near_ties,
    written_by_transformers,
)

IDS = torch.tensor([[3, 1]])
REFERENCE = [5, 7, 2]


def undecided(margin: float) -> Any:
    """A model that would choose token 7 anywhere, with token 4 `margin` standard deviations behind it."""

    def forward(input_ids: torch.Tensor, use_cache: bool) -> Any:
        logits = torch.linspace(-1.0, 1.0, 10)
        logits[7] = 4.0
        logits[4] = 4.0 - margin * float(logits.std())
        return SimpleNamespace(logits=logits.expand(1, input_ids.shape[1], 10))

    return forward


def test_equal_tokens_are_the_same() -> None:
    assert same_tokens_but_for_near_ties([torch.tensor(token) for token in REFERENCE], REFERENCE, None, IDS)  # type: ignore[misc]


def test_the_second_best_is_accepted_at_a_near_tie_and_nothing_is_compared_after_it() -> None:
    assert same_tokens_but_for_near_ties([5, 4, 9], REFERENCE, undecided(5e-4), IDS)


@pytest.mark.parametrize(
    ("own", "margin"),
    [
        ([5, 4, 2], 5e-3),  # the reference was sure
        ([5, 8, 2], 5e-4),  # neither of the two
        ([5, 7], 5e-4),  # too short
        ([5, 7, 2, 1], 5e-4),  # too long
    ],
    ids=["sure", "neither of the two", "too short", "too long"],
)
def test_anything_else_is_another_text(own: list[int], margin: float) -> None:
    assert not same_tokens_but_for_near_ties(own, REFERENCE, undecided(margin), IDS)


@pytest.mark.parametrize("wrong_at", [0, 3, 7, None])
def test_a_known_text_counts_only_where_the_model_would_write_it(wrong_at: int | None) -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=32, n_embd=16, n_layer=2, n_head=2)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    ids = torch.randint(50, (1, 5))
    right = written_by_transformers(model, ids, 8)
    known = [(token + 1) % 50 if place == wrong_at else token for place, token in enumerate(right)]
    assert continued_by_transformers(model, ids, 8, known) == right
    assert continued_by_transformers(model, ids, 5, known) == right[:5]
