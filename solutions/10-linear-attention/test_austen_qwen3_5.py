"""The trained Qwen3.5 that ships: its size, and that it writes the same through its states in pieces of any length."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache

from grader import load_checkpoint
from grader.authoring.kit.engine import Checkpoint


@pytest.fixture(scope="module")
def austen() -> Checkpoint:
    return load_checkpoint("austen-qwen3.5")


@pytest.fixture(scope="module")
def model(austen: Checkpoint) -> Any:
    return AutoModelForCausalLM.from_pretrained(austen.folder, dtype=torch.float32)


@torch.no_grad()
def logits_in_pieces(model: Any, ids: Tensor, length: int) -> Tensor:
    """The logits after each of `ids`, which the model gets `length` at a time, through its cache."""
    cache = DynamicCache(config=model.config)
    pieces = torch.split(ids, length)
    return torch.cat([model(input_ids=piece[None], cache=cache).logits[0] for piece in pieces])


def test_it_is_small_and_has_three_linear_layers_to_a_full_one(austen: Checkpoint) -> None:
    assert austen.source == "shipped"
    assert sum(path.stat().st_size for path in austen.folder.iterdir()) <= 5_000_000
    assert austen.config.layer_types == (["linear_attention"] * 3 + ["full_attention"]) * 2
    assert sum(tensor.numel() for tensor in austen.state_dict().values()) == austen.entry.parameters


@pytest.mark.parametrize("length", [1_000, 64, 7, 1])
def test_it_writes_the_same_in_one_pass_and_in_pieces(austen: Checkpoint, model: Any, length: int) -> None:
    for golden in austen.goldens:
        prompt, new = golden.prompt_ids, golden.new_ids
        assert prompt is not None and new is not None and len(new) == 64
        found = logits_in_pieces(model, torch.tensor([*prompt, *new[:-1]]), length)[len(prompt) - 1 :]
        assert found.argmax(dim=-1).tolist() == list(new)


def test_one_of_its_texts_begins_with_more_than_a_chunk(austen: Checkpoint) -> None:
    """The chunked form of the reference has chunks of 64 tokens."""
    assert max(len(golden.prompt_ids or ()) for golden in austen.goldens) > 64


def test_no_token_of_its_texts_is_nearly_a_tie(austen: Checkpoint, model: Any) -> None:
    """So rounding on another processor does not change them: logits in pieces differ by 1e-4 at most."""
    for golden in austen.goldens:
        prompt, new = golden.prompt_ids or (), golden.new_ids or ()
        ids = torch.tensor([*prompt, *new[:-1]])
        whole, single = logits_in_pieces(model, ids, 1_000), logits_in_pieces(model, ids, 1)
        assert (whole - single).abs().max() < 1e-4
        best = whole[len(prompt) - 1 :].topk(2, dim=-1).values
        assert (best[:, 0] - best[:, 1]).min() > 1e-3


def test_it_forgets_at_many_rates(austen: Checkpoint) -> None:
    """Heads whose bias keeps a state for long, and others that drop it within a few tokens."""
    state = austen.state_dict()
    rates = torch.cat(
        [
            state[name].float().exp() * torch.nn.functional.softplus(state[name.replace("A_log", "dt_bias")].float())
            for name in state
            if name.endswith("A_log")
        ]
    )
    assert rates.shape == (36,) and rates.max() > 10 * rates.min()
