"""What training alone must hold; tests/lessons/test_every_lesson.py asks the rest."""

import gzip
import json
import math
from pathlib import Path
from typing import Any

import first_model
import pytest
import recipe
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from grader import Config
from grader.authoring.kit.solved import lesson_of

LESSON = lesson_of(__file__)
REFERENCE = LESSON.module("reference")
SOLVED = LESSON.solutions
NOVEL = gzip.decompress((LESSON.folder / "texts" / "northanger-abbey.txt.gz").read_bytes()).decode()
MERGES = SOLVED["train_bpe"](NOVEL[:15_000] + " from 1798 to 1813" * 60, 120)  # with merges of digits
LIBRARY = REFERENCE.library_of(MERGES)
END = 256 + len(MERGES)
CONFIG = Config(
    {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "hidden_act": "silu",
        "vocab_size": END + 1,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 10,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 128,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": True,
        "attention_bias": False,
        "use_sliding_window": False,
        "eos_token_id": END,
    }
)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=100))
def test_any_text_has_the_ids_of_the_library_and_comes_back(text: str) -> None:
    ids = SOLVED["encode"](text, MERGES)
    assert ids == LIBRARY.encode(text).ids
    assert SOLVED["decode"](ids, MERGES) == text


def exported(folder: Path, dtype: torch.dtype, **tokenizer_config: Any) -> nn.Module:
    """A model with random weights, whose folder is written as the lesson writes it."""
    model: nn.Module = SOLVED["new_model"](CONFIG)
    files = {
        "config.json": dict(CONFIG) | {"dtype": str(dtype).removeprefix("torch.")},
        "tokenizer.json": SOLVED["tokenizer_json"](MERGES),
    }
    if tokenizer_config:
        files["tokenizer_config.json"] = tokenizer_config
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    save_file(SOLVED["hub_tensors"](model, dtype), folder / "model.safetensors", metadata={"format": "pt"})
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_transformers_loads_the_folder_without_a_missing_name(tmp_path: Path, dtype: torch.dtype) -> None:
    model = exported(tmp_path, dtype)
    loaded, info = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    ids = torch.arange(20)[None]
    rtol, atol = (1e-4, 1e-5) if dtype == torch.float32 else (0.1, 0.05)
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits.float(), model(ids), rtol=rtol, atol=atol)


TEXT = "Catherine had 2024 sisters;  they weren't\n\nthere in 1798."


def test_only_the_named_class_keeps_the_ids(tmp_path: Path) -> None:
    """What the lesson says of `tokenizer_class`: without it another regular expression splits texts."""
    exported(tmp_path, torch.float32)
    assert AutoTokenizer.from_pretrained(tmp_path)(TEXT).input_ids != SOLVED["encode"](TEXT, MERGES)
    exported(tmp_path, torch.float32, tokenizer_class="PreTrainedTokenizerFast", eos_token="<|endoftext|>")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer(TEXT).input_ids == SOLVED["encode"](TEXT, MERGES)
    assert tokenizer.eos_token_id == END


def test_batches_go_through_the_whole_text_once_an_epoch() -> None:
    batches = SOLVED["Batches"](
        [list(range(60)), list(range(61, 101))], 60, 2, 10
    )  # with both ends: 0 to 60, 61 to 100, 60
    seen = [batches.take() for _ in range(10)]
    for inputs, targets in seen:
        assert torch.equal(inputs + 1, targets.where(inputs < 100, 101))
    first, second = (torch.cat([inputs for inputs, _ in part]) for part in (seen[:5], seen[5:]))
    assert sorted(first.flatten().tolist()) == list(range(100)) == sorted(second.flatten().tolist())
    assert not torch.equal(first, second)


# The recipe without one part: training/recipe.py, and what it wrote


WRITTEN = json.loads((LESSON.folder / "texts" / "recipe.json").read_text())


def test_the_scripts_rate_is_the_lessons() -> None:
    for update in range(1, recipe.STEPS + 1):
        expected = SOLVED["learning_rate"](update, recipe.PEAK, recipe.WARMUP, recipe.STEPS, recipe.FLOOR)
        assert math.isclose(recipe.rate(update, recipe.WARMUP, recipe.FLOOR), expected)


def test_the_scripts_update_is_the_lessons_adamw() -> None:
    torch.manual_seed(0)
    own = [nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(5))]
    theirs: list[Tensor] = [p.detach().clone().requires_grad_() for p in own]
    optimizer = SOLVED["AdamW"](own, lr=0.1)
    state = [(torch.zeros_like(p), torch.zeros_like(p)) for p in theirs]
    for update in range(1, 5):
        for p, q in zip(own, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        optimizer.step()
        recipe.update_weights(theirs, state, update, 0.1, {})
    for p, q in zip(own, theirs, strict=True):
        torch.testing.assert_close(p.detach(), q.detach())


def test_what_was_written_has_every_variant_and_seed() -> None:
    assert list(WRITTEN["held_out_nats"]) == list(recipe.VARIANTS)
    for curves in WRITTEN["held_out_nats"].values():
        assert len(curves) == len(recipe.SEEDS) and all(len(curve) == len(WRITTEN["steps"]) for curve in curves)


# The lesson's own model, trained to its end: training/first_model.py, and what it wrote


FULL = json.loads((LESSON.folder / "texts" / "full-run.json").read_text())


def test_the_whole_run_is_that_of_the_lessons_cells() -> None:
    twin = (LESSON.folder / "training.py").read_text(encoding="utf-8")
    assert f"total={first_model.STEPS} if FULL" in twin
    assert all(f"\n{words}" in twin for words in first_model.CELLS)
    assert [row["step"] for row in FULL["rows"]] == list(
        range(first_model.EVERY, first_model.STEPS + 1, first_model.EVERY)
    )


def test_the_losses_part_as_the_text_says() -> None:
    gaps = {row["step"]: row["held_out"] - row["loss"] for row in FULL["rows"]}
    assert max(gaps[step] for step in (200, 400, 600)) < 0.1 < 0.3 < gaps[first_model.STEPS]
