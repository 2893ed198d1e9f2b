"""What a small reference keeps is measured: weights, fields and epsilons are changed; what moves no row is said."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from grader.porting.reference import Reference, small_reference
from grader.porting.unseen import Measured, measured
from grader.recordings.tracefile import read_trace

pytest.importorskip("transformers")

SIZES = {"hidden_size": 4096, "num_hidden_layers": 2, "num_attention_heads": 32, "num_key_value_heads": 8}
LLAMA = SIZES | {"model_type": "llama", "intermediate_size": 14336, "vocab_size": 128256, "rope_theta": 500000.0}
MOE = SIZES | {"model_type": "qwen3_moe", "head_dim": 128, "moe_intermediate_size": 768, "intermediate_size": 6144}
MOE |= {"num_experts": 128, "num_experts_per_tok": 1, "vocab_size": 151936, "max_position_embeddings": 40960}

# The first layer's norm is given the embeddings, of which every 4th is small; the others see the sum of many things.
EPSILONS = "model.layers.*.post_attention_layernorm.variance_epsilon", "model.norm.variance_epsilon"
UNSEEN = ("max_position_embeddings", *EPSILONS)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small(folder: Path, config: dict[str, Any], **options: Any) -> Reference:
    (folder / "config.json").write_text(json.dumps(config))
    return small_reference(folder / "config.json", **options)


def test_what_moves_no_row_is_named(tmp_path: Path) -> None:
    found = measured(small(tmp_path, LLAMA))
    assert found.unseen == UNSEEN
    assert found.weights == 3 + 2 * 9 and found.fields > 12
    kept = found.coverage()
    assert not kept.covered and "no row changes with `max_position_embeddings`" in kept.detail


def test_the_epsilon_of_a_norm_before_which_no_token_is_small_is_named(tmp_path: Path) -> None:
    reference = small(tmp_path, LLAMA)
    before = {path: m.variance_epsilon for path, m in reference.model.named_modules() if hasattr(m, "variance_epsilon")}
    found = measured(reference).unseen
    assert "model.norm.variance_epsilon" in found and "model.layers.*.input_layernorm.variance_epsilon" not in found
    assert "rms_norm_eps" not in found  # the field is that of all of them
    assert before == {path: reference.model.get_submodule(path).variance_epsilon for path in before}
    for module in (reference.model.model.norm, *(one.post_attention_layernorm for one in reference.model.model.layers)):
        module.variance_epsilon = 0.0
    assert not set(EPSILONS) & set(measured(reference).unseen), "what is 0 is not changed tenfold"


def test_a_window_that_no_text_fills_and_a_far_end_of_yarns_ramp_are_named(tmp_path: Path) -> None:
    window = LLAMA | {"model_type": "mistral", "sliding_window": 4096}
    assert "sliding_window" not in measured(small(tmp_path, window)).unseen
    assert "sliding_window" in measured(small(tmp_path, window, changes={"sliding_window": 30})).unseen
    yarn = {"rope_type": "yarn", "factor": 8.0, "beta_fast": 32.0, "original_max_position_embeddings": 4096}
    found = measured(small(tmp_path, LLAMA | {"rope_scaling": yarn})).unseen
    assert "rope_parameters.factor" not in found and "rope_parameters.rope_theta" not in found


def test_an_expert_that_no_token_chooses_is_named(tmp_path: Path) -> None:
    found = measured(small(tmp_path, MOE, length=2))
    assert any(one.startswith("model.layers.0.mlp.experts: number ") for one in found.unseen)


def test_a_weight_that_nothing_uses_is_named_and_nothing_is_left_changed(tmp_path: Path) -> None:
    reference = small(tmp_path, LLAMA)
    reference.model.model.layers[1].idle = torch.nn.Linear(3, 3, bias=False)
    before = {name: tensor.clone() for name, tensor in reference.model.state_dict().items()}
    assert measured(reference).unseen[0] == "model.layers.1.idle.weight"
    assert all(torch.equal(tensor, before[name]) for name, tensor in reference.model.state_dict().items())


def test_many_are_counted() -> None:
    found = Measured(3, 4, tuple(f"field_{i}" for i in range(15)))
    assert "`field_11` and 3 more" in found.coverage().detail
    assert Measured(3, 4, ()).coverage().covered


def test_the_trace_keeps_it_and_a_right_program_is_told(tmp_path: Path, grader: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    trace = tmp_path / "t.safetensors"
    code, out, err = grader("trace", tmp_path / "config.json", "--to", trace)
    assert (code, err) == (0, "")
    assert "no  every weight and every field of the config shows: of 21 tensors and" in out
    assert read_trace(trace).unseen == UNSEEN
