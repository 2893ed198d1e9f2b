"""The trained DeepSeek-V3.2 that ships: that it loads and writes alike everywhere, and that its indexer has learnt."""

import json
from pathlib import Path
from typing import Any

import choices
import pytest
import selection
import torch
import train
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM

from grader import load_checkpoint
from grader.authoring.kit.engine import Checkpoint

TABLE = json.loads(Path(train.__file__).with_name("austen-deepseek.json").read_text(encoding="utf-8"))
WIDE = ("gate.weight", "e_score_correction_bias")  # what transformers keeps in float32 beside bfloat16


@pytest.fixture(scope="module")
def austen() -> Checkpoint:
    return load_checkpoint("austen-deepseek")


@pytest.fixture(scope="module")
def model(austen: Checkpoint) -> Any:
    return loaded(austen, torch.float32)


def loaded(austen: Checkpoint, dtype: torch.dtype) -> Any:
    return AutoModelForCausalLM.from_pretrained(austen.folder, dtype=dtype, attn_implementation="eager")


@torch.no_grad()
def written_again(model: Any, choice: selection.Choice, ids: Tensor) -> list[int]:
    """The token that the model would write after each of `ids`, with another choice of what it attends to."""
    with selection.choosing(model, choice):
        found: list[int] = model(input_ids=ids).logits[0, :-1].argmax(dim=-1).tolist()
    return found


def test_it_is_small_and_its_generations_go_well_beyond_what_is_selected(austen: Checkpoint) -> None:
    assert austen.source == "shipped" and austen.config.index_topk == 48
    assert sum(path.stat().st_size for path in austen.folder.iterdir()) <= 5_000_000
    assert [len(found.new_ids or ()) for found in austen.goldens] == [64, 64, 64]
    assert all(len(found.prompt_ids or ()) > 80 for found in austen.goldens)
    biases = sum(tensor.numel() for name, tensor in austen.state_dict().items() if "e_score" in name)
    assert sum(tensor.numel() for tensor in austen.state_dict().values()) - biases == austen.entry.parameters


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_transformers_and_the_course_load_the_same_values(austen: Checkpoint, dtype: torch.dtype) -> None:
    reference = loaded(austen, dtype).state_dict()
    for name, tensor in austen.state_dict(dtype).items():
        assert reference[name].dtype == (torch.float32 if name.endswith(WIDE) else dtype), name
        assert torch.equal(reference[name].float(), tensor.float()), name


def test_the_file_holds_in_float32_what_transformers_keeps_so(austen: Checkpoint) -> None:
    with safe_open(austen.folder / "model.safetensors", framework="pt") as file:
        wide = {name for name in file.keys() if file.get_slice(name).get_dtype() == "F32"}  # noqa: SIM118
        assert wide == {name for name in file.keys() if name.endswith(WIDE)}  # noqa: SIM118
        assert all(file.get_tensor(name).abs().max() > 0 for name in wide)


@pytest.mark.parametrize("cached", [True, False])
def test_its_generations_are_what_transformers_writes_with_a_cache_and_without(
    austen: Checkpoint, model: Any, cached: bool
) -> None:
    model.generation_config.eos_token_id = None
    for found in austen.goldens:
        ids = torch.tensor([found.prompt_ids])
        done = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=64,
            do_sample=False,
            use_cache=cached,
            pad_token_id=0,
        )
        assert tuple(done[0, ids.shape[1] :].tolist()) == found.new_ids


def test_no_generation_hangs_on_which_of_two_nearly_equal_scores_is_selected(austen: Checkpoint, model: Any) -> None:
    """Scores that are off by a hundred times what rounding does to them still write the same text."""
    for found in austen.goldens:
        ids = torch.tensor([[*(found.prompt_ids or ()), *(found.new_ids or ())]])
        for seed in range(3):
            generator = torch.Generator().manual_seed(seed)

            def noisy(seen: selection.Seen, generator: torch.Generator = generator) -> Tensor:
                scores = selection.index_scores(seen)
                noise = torch.randn(scores.shape, generator=generator)
                return selection.best(scores + 1e-4 * scores.std() * noise, seen)

            assert written_again(model, noisy, ids)[len(found.prompt_ids or ()) - 1 :] == list(found.new_ids or ())


@pytest.mark.parametrize("choice", [selection.every, selection.latest])
def test_another_selection_writes_another_text(austen: Checkpoint, model: Any, choice: selection.Choice) -> None:
    for found in austen.goldens:
        ids = torch.tensor([[*(found.prompt_ids or ()), *(found.new_ids or ())]])
        assert written_again(model, choice, ids)[len(found.prompt_ids or ()) - 1 :] != list(found.new_ids or ())


def test_its_selection_predicts_as_well_as_all_tokens_and_one_at_random_does_not(
    austen: Checkpoint, model: Any
) -> None:
    """On two pages of a novel that it was not trained on, as in the table of a quarter of the novel."""
    tokens = pages(austen)
    found = {}
    for name, choice in [("indexer", selection.own), ("dense", selection.every), ("random", selection.at_random(0))]:
        with selection.choosing(model, choice):
            found[name] = train.held_out_loss(model, tokens, 512, 256)
    assert abs(found["indexer"] - found["dense"]) < 0.03 and found["random"] > found["dense"] + 0.4


def test_the_indexer_finds_nearly_all_of_the_attention_that_so_many_tokens_can_get(
    austen: Checkpoint, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choices, "PIECES", 2)
    compared = {"indexer": lambda: selection.own, "latest": lambda: selection.latest}
    kept = choices.attention_kept(model, compared, pages(austen))
    for indexer, latest, most in zip(kept["indexer"], kept["latest"], kept["most"], strict=True):
        assert 0.95 * most < indexer < most and latest < indexer


def pages(austen: Checkpoint) -> Tensor:
    """Some tokens of the novel that was held out."""
    return torch.tensor(austen.tokenizer.encode(train.read_novel(train.HELD_OUT_NOVEL)[20_000:30_000]).ids)[:1536]


def test_the_table_is_of_the_model_that_ships(austen: Checkpoint) -> None:
    card = json.loads((austen.folder / "training.json").read_text(encoding="utf-8"))
    assert card["steps"] == TABLE["steps"]
    for run in TABLE["runs"]:
        for when in ("before the sparse stage", "after it"):
            nats = run[when]["held_out_nats"]
            assert abs(nats["indexer"] - nats["dense"]) < 0.02
            assert min(nats["random"], nats["untrained indexer"]) > nats["dense"] + 0.4
        for nats in run["after it"]["held_out_nats_with_fewer"].values():
            assert nats["indexer"] < nats["latest"] < nats["random"]
